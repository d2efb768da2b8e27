"""Does an exchange answer at all? Asked with the standard library, before ccxt, whose import costs a second, is loaded."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import OpenerDirector

from atb.venue.proxies import opener
from atb.venue.rate_budget import LIMITS, RateBudget

PINGS = {
    "binance": ("https://api.binance.com", "/api/v3/ping"),
    "coinbase": ("https://api.coinbase.com", "/api/v3/brokerage/time"),
}


def reachable(venue: str, base_url: str | None = None, timeout_s: float = 3.0, rates: Path | None = None) -> bool:
    """Whether the exchange answers a ping within `timeout_s`. Never waits longer. UsageError where its proxy cannot be used.

    `rates`: the folder of the budget of requests; an exchange that asked for silence is not asked.
    """
    root, path = PINGS.get(venue, ("", ""))
    if rates is not None and venue in LIMITS:
        host = urlsplit(base_url or root).netloc.rpartition("@")[2]
        if RateBudget(rates, host, LIMITS[venue]).silent_s():
            return False
    url = (base_url or root) + path
    way = opener(url)
    answers: list[bool] = []
    # A thread, because looking up an address has no time-out of its own, and a slow trickle outlasts a socket's.
    thread = threading.Thread(target=lambda: answers.append(_ping(way, url, timeout_s)), daemon=True)
    thread.start()
    thread.join(timeout_s)
    return answers == [True]


def _ping(way: OpenerDirector, url: str, timeout_s: float) -> bool:
    # Whatever goes wrong, it was no answer: OSError (network), ValueError (no URL, no JSON), HTTPException (garbage).
    with contextlib.suppress(Exception), way.open(url, timeout=timeout_s) as reply:
        return isinstance(json.load(reply), dict)
    return False
