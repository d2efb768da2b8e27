"""What a failure is, taken apart, and what it means for a reader: is it worth asking again? (For a writer: ccxt_outcomes.)

The exchange's own codes come before ccxt's classes, which mislead: ccxt calls every 400 without a JSON body "not
available", some server errors "ExchangeError", and after one good request a refused key "too fast".
"""

from __future__ import annotations

import enum
import json
import re
import sys
import time
from typing import Any, NamedTuple


class Verdict(enum.Enum):
    """What a failure says about asking again."""

    AGAIN = "may be repeated"
    LIMITED = "too fast: may be repeated after the time the exchange asks for"
    CLOCK = "our clock is not the exchange's: may be repeated with the right time"
    CLOSED = "no use in asking again now"
    REFUSED = "the request itself is wrong"
    BARRED = "this place or key is refused: another request changes nothing"
    UNKNOWN_SYMBOL = "the exchange has no such symbol"


# What is looked up, first hit first: the HTTP status, the exchange's own code, the status' family ("4xx"),
# ccxt's class and its bases.
VERDICTS: dict[int | str, Verdict] = {
    401: Verdict.BARRED,
    403: Verdict.BARRED,  # the firewall in front of the exchange, or a key without the right
    408: Verdict.AGAIN,
    418: Verdict.CLOSED,  # banned for going on after 429; each further request makes the ban longer
    425: Verdict.AGAIN,
    429: Verdict.LIMITED,
    451: Verdict.BARRED,  # not served at this place
    -1000: Verdict.AGAIN,
    -1001: Verdict.AGAIN,
    -1002: Verdict.BARRED,
    -1003: Verdict.LIMITED,
    -1004: Verdict.AGAIN,
    -1006: Verdict.AGAIN,
    -1007: Verdict.AGAIN,
    -1008: Verdict.AGAIN,
    -1016: Verdict.CLOSED,
    -1021: Verdict.CLOCK,
    -1022: Verdict.BARRED,
    -1121: Verdict.UNKNOWN_SYMBOL,
    -2008: Verdict.BARRED,
    -2014: Verdict.BARRED,
    -2015: Verdict.BARRED,
    "NOT_FOUND": Verdict.UNKNOWN_SYMBOL,
    "rate_limit_exceeded": Verdict.LIMITED,
    "resource_exhausted": Verdict.LIMITED,
    "4xx": Verdict.REFUSED,
    "5xx": Verdict.AGAIN,
    "DDoSProtection": Verdict.LIMITED,
    "RateLimitExceeded": Verdict.LIMITED,
    "OperationFailed": Verdict.AGAIN,  # every network failure and time-out
    "RequestException": Verdict.AGAIN,  # of requests: TLS or decoding, which ccxt reports as a plain ExchangeError
    "BaseError": Verdict.REFUSED,
}

UNSAID_BAN_S = 120.0  # the shortest that Binance gives


class Trouble(Exception):
    """A request that gave nothing usable; never leaves this package. status, code: what the exchange said, if it did."""

    def __init__(
        self,
        verdict: Verdict,
        reason: str,
        wait_s: float = 0.0,
        status: int | None = None,
        code: int | str | None = None,
    ) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.reason = reason
        self.wait_s = wait_s
        self.status = status
        self.code = code


def unusable(reason: str) -> Trouble:
    """The trouble with an answer that arrived but does not have the shape it must have."""
    return Trouble(Verdict.AGAIN, reason)


class Failure(NamedTuple):
    """A ccxt exception, taken apart. reason: the rest of a sentence that begins with the host."""

    classes: tuple[str, ...]
    status: int | None
    body: str
    wait_s: float
    sent: bool  # whether the exchange may have received the request
    reason: str

    @property
    def code(self) -> int | str | None:
        """The exchange's own code: Binance's number, Coinbase's word."""
        if found := re.search(r'"code"\s*:\s*"?(-?\d+)', self.body):
            return int(found[1])
        found = re.search(r'"error"\s*:\s*"(\w+)"', self.body)
        return found[1] if found else None

    @property
    def whole_answer(self) -> dict[str, Any]:
        """The answer's JSON object; empty where it is none, or is cut short and may have said something else."""
        _, brace, rest = self.body.partition("{")
        try:
            answer = json.loads(brace + rest)
        except (ValueError, RecursionError):
            return {}
        return answer if isinstance(answer, dict) else {}

    @property
    def words(self) -> str:
        return _own_words(self.body)

    @property
    def asks_for_silence(self) -> bool:
        """Whether everybody at this address is meant, by words or by status."""
        return self.code == -1003 or (self.status in (418, 429) and self.code != -1015)

    @property
    def silence_s(self) -> float:
        """For how long; 0: until the exchange counts anew."""
        return self.wait_s or (UNSAID_BAN_S if self.status == 418 else 0.0)


def trouble_of(error: BaseException, outer: BaseException | None = None) -> Trouble:
    """What a ccxt exception means for a reader. outer: what was being handled when the request was made."""
    return verdict_on(failure_of(error, outer))


def verdict_on(failure: Failure) -> Trouble:
    status, code = failure.status, failure.code
    keys = [status, code, None if status is None else f"{status // 100}xx", *failure.classes]
    verdict = next((VERDICTS[key] for key in keys if key in VERDICTS), Verdict.REFUSED)
    wait_s = failure.wait_s if verdict in (Verdict.LIMITED, Verdict.CLOSED) else 0.0
    return Trouble(verdict, failure.reason, wait_s, status, code)


def failure_of(error: BaseException, outer: BaseException | None = None) -> Failure:
    causes = _causes(error, outer)
    response = next((r for c in causes if (r := getattr(c, "response", None)) is not None), None)
    status = None if response is None else int(response.status_code)
    body = str(error) if response is None else response.text
    classes = [base.__name__ for base in type(error).__mro__]
    if status is None and any(_is(cause, "RequestException") for cause in causes):
        classes.insert(0, "RequestException")  # no answer came; an HTTPError has been judged by its status
    sent = status is not None or not any(_is(cause, name) for cause in causes for name in _BEFORE_SENDING)
    wait_s = _wait_s(response, body)
    return Failure(tuple(classes), status, body, wait_s, sent, _reason(causes, status, body, wait_s))


# Classes of urllib3 and requests that say that no connection came about.
_BEFORE_SENDING = ("NewConnectionError", "ConnectTimeoutError", "ConnectTimeout", "NameResolutionError")


def handled() -> BaseException | None:
    """What is being handled right now: Python makes it a cause of whatever fails next, which it is not."""
    return sys.exc_info()[1]


def _causes(error: BaseException, outer: BaseException | None) -> list[BaseException]:
    """The exception and what it came from: `requests` keeps the answer, urllib3 the reason."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link is not outer and len(chain) < 12:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _is(error: BaseException, name: str) -> bool:
    return any(base.__name__ == name for base in type(error).__mro__)


def _wait_s(response: Any, body: str) -> float:
    """Seconds that the exchange asks to wait, by its header or its words; 0 where it does not say."""
    asked = "" if response is None else response.headers.get("Retry-After", "")
    try:
        wait_s = max(0.0, float(asked))
    except ValueError:
        wait_s = 0.0
    if banned := re.search(r"banned until (\d{13})\b", body):
        wait_s = max(wait_s, int(banned[1]) / 1000 - time.time())
    return wait_s


# What to say about a connection that failed, by the words that requests and the system use for it.
_CONNECTION = (
    ("Tunnel connection failed: 407|Proxy Authentication", "could not be asked: the proxy wants to know who asks"),
    ("Tunnel connection failed", "could not be asked: the proxy does not lead there"),
    ("Cannot connect to proxy|Unable to connect to proxy", "could not be asked: the proxy did not answer"),
    ("Name or service not known|name resolution|getaddrinfo|NameResolution", "has no known address (DNS)"),
    ("Connection refused", "refused the connection"),
    ("timed out|Timeout", "did not answer in time"),
    ("CERTIFICATE|SSL", "could not be reached securely (TLS)"),
    ("reset|aborted|Broken pipe|IncompleteRead|broken", "broke the connection off"),
)


def _reason(causes: list[BaseException], status: int | None, body: str, wait_s: float) -> str:
    """The rest of a sentence that begins with the host. No URL: a query may carry a signature."""
    if status is None:
        text = " ".join(f"{type(c).__name__} {c}" for c in causes)
        known = (say for words, say in _CONNECTION if re.search(words, text, re.IGNORECASE))
        return next(known, "could not be reached") if len(causes) > 1 else f"answered {_own_words(body) or 'an error'}"
    wait = f" and asks to wait {wait_s:g} s" if wait_s else ""
    words = _own_words(body)
    return f"answered HTTP {status}{f' ({words})' if words else ''}{wait}"


def _own_words(body: str) -> str:
    """The exchange's own message in an error body, shortened."""
    found = re.search(r'"(?:msg|message|error_details)"\s*:\s*"([^"\x00-\x1f]{1,200})', body)
    return found[1].strip().rstrip(".") if found else ""
