"""JSON from a server that is no exchange: asked with the standard library, a few times where that may help."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
from collections.abc import Callable
from typing import Any, TypeVar

from atb.core.errors import ExchangeRefused, ExchangeUnavailable
from atb.venue.ccxt_errors import VERDICTS, Trouble, Verdict
from atb.venue.ccxt_session import host_of
from atb.venue.proxies import opener, through

T = TypeVar("T")
ATTEMPTS, PAUSE_S = 3, 0.5
MOST_BYTES = 64_000_000
LATER = "Try again later."


def get_json(what: str, url: str, timeout_s: float, read: Callable[[Any], T]) -> T:
    """The answer as `read` understands it, which raises Trouble for one of the wrong shape.

    ExchangeUnavailable or ExchangeRefused, with `what` in it.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return read(_asked(url, timeout_s))
        except Trouble as trouble:
            again = trouble.verdict in (Verdict.AGAIN, Verdict.LIMITED)
            if not again or attempt == ATTEMPTS:
                raise _error(what, url, trouble, attempt) from None
        time.sleep(PAUSE_S * 2 ** (attempt - 1))
    raise AssertionError("the last attempt returns or raises")


def _asked(url: str, timeout_s: float) -> Any:
    try:
        with opener(url).open(url, timeout=timeout_s) as reply:
            return json.loads(reply.read(MOST_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            verdict = VERDICTS.get(error.code) or VERDICTS.get(f"{error.code // 100}xx", Verdict.REFUSED)
            raise Trouble(verdict, f"answered HTTP {error.code}", status=error.code) from None
    except ValueError:  # no JSON, or no UTF-8
        raise Trouble(Verdict.AGAIN, "gave an answer that is no JSON") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise Trouble(Verdict.AGAIN, f"could not be reached ({reason})") from None


def _error(what: str, url: str, trouble: Trouble, asked: int) -> ExchangeUnavailable | ExchangeRefused:
    times = f" ({asked} attempts)" if asked > 1 else ""
    message = f"{what}: {host_of(url)}{through(url)} {trouble.reason}{times}."
    if trouble.verdict in (Verdict.REFUSED, Verdict.BARRED):
        return ExchangeRefused(message)
    return ExchangeUnavailable(message, LATER)
