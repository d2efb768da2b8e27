"""One ccxt client for reads: where it points, how its failures are read, when a request is repeated.

Only ccxt's endpoint methods are called (`publicGetKlines`, ...), not its unified ones: these need every market loaded
first, and they turn an answer that is no candle list at all into an empty one, which looks like a gap.
"""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from atb.core.errors import ExchangeRefused, ExchangeUnavailable, UsageError, nearest
from atb.venue.ccxt_errors import Failure, Trouble, Verdict, failure_of, handled, unusable, verdict_on
from atb.venue.proxies import for_requests, through
from atb.venue.rate_budget import LIMITS, Priority, RateBudget

VENUES: tuple[str, ...] = ("binance", "coinbase")
CLIENTS = {"binance": "public", "coinbase": "rest", "binanceusdm": "fapiPublic"}  # and which of its URLs names the host
OFFLINE_HINT = "Use --provider simulated, --data FILE, or candles already in the store."
MAX_BACKOFF_S = 20.0
UNSAID_WAIT_S = 1.0  # after "too fast" without a time to wait (Coinbase counts by the second)
USED_WEIGHT = "X-MBX-USED-WEIGHT-1M"  # Binance's own count of what this address has used

# What a request weighs at Binance. At Coinbase each counts one.
WEIGHTS = {
    "publicGetTime": 1,
    "publicGetKlines": 2,
    "publicGetExchangeInfo": 20,
    "publicGetTicker24hr": 80,
    "privatePostOrder": 1,
    "privatePostOrderListOco": 1,
    "privateDeleteOrder": 1,
    "privateGetOrder": 4,
    "privateGetOpenOrders": 6,
    "privateGetMyTrades": 20,
    "privateGetAccount": 20,
    "privateGetAllOrders": 20,
    "sapiGetAccountApiRestrictions": 1,
    "sapiGetCapitalDepositHisrec": 1,
    "sapiGetCapitalWithdrawHistory": 1,
    "sapiGetAssetDribblet": 1,
    "sapiGetAssetAssetDividend": 10,
    "sapiGetAssetTransfer": 1,
    "sapiGetConvertTradeFlow": 1,
    "fapiPublicGetFundingRate": 24,  # it weighs 1, with a limit of its own: 500 in 5 minutes
    "fapiDataGetOpenInterestHist": 12,  # it weighs nothing, and 1,000 in 5 minutes are allowed
}

# Where an API's parts are below the root of its host.
PATHS = {
    "binance": {"public": "/api/v3", "private": "/api/v3", "sapi": "/sapi/v1"},
    "binanceusdm": {"fapiPublic": "/fapi/v1", "fapiData": "/futures/data"},
    "coinbase": {"rest": ""},
}

T = TypeVar("T")


class Patience(NamedTuple):
    """How long to wait for an answer, and how often to ask."""

    timeout_s: float = 10.0
    attempts: int = 4
    backoff_s: float = 0.5  # before the second attempt; doubles after each
    max_wait_s: float = 65.0  # the longest Retry-After that is sat out; Binance counts by the minute

    def within(self, timeout_s: float | None) -> Patience:
        """The same with another time for each request; None: as it is."""
        return self if timeout_s is None else self._replace(timeout_s=timeout_s)


class UnknownSymbol(ExchangeRefused):
    """The exchange says itself that it has no such symbol."""


class Barred(ExchangeRefused):
    """The exchange serves nobody from this place, or not with this key."""


class Answered(ExchangeRefused):
    """A refusal to a reader, with what the exchange said: HTTP status and code of its own."""

    def __init__(self, what: str, status: int | None, code: int | str | None) -> None:
        super().__init__(what)
        self.status = status
        self.code = code


class Session:
    """A client of one venue. `base_url` None is the real exchange, else a root such as http://127.0.0.1:9000.

    `hint` is what can be done without an answer. `rates`: the folder of the budget that all processes share; `scope`: which
    of the budgets at this host, where the exchange has more than one.
    """

    scope = ""

    def __init__(
        self,
        venue: str,
        base_url: str | None,
        patience: Patience,
        hint: str = OFFLINE_HINT,
        rates: Path | None = None,
        priority: Priority = Priority.DATA,
    ) -> None:
        self.venue = venue
        self.patience = patience
        self.hint = hint
        self.priority = priority
        self.client = open_client(venue, base_url, patience.timeout_s)
        api = self.client.urls["api"]
        self.host = host_of(api[CLIENTS[venue]])
        self.client.proxies = for_requests(api[CLIENTS[venue]])
        self.through = through(api[CLIENTS[venue]])
        self.budget = RateBudget(rates, self.host + self.scope, LIMITS[venue + self.scope]) if rates else None
        # The budget counts for all; ccxt would only add a pause to each request.
        self.client.enableRateLimit = self.budget is None
        self.sleep: Callable[[float], None] = time.sleep

    def ask(self, what: str, endpoint: str, params: dict[str, Any], read: Callable[[Any], T]) -> T:
        """The answer of a ccxt endpoint method as `read` understands it; `what` names the purpose in errors.

        `read` raises `unusable(...)` for an answer of the wrong shape. Raises ExchangeUnavailable or ExchangeRefused.
        """
        import tenacity

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.patience.attempts),
            retry=tenacity.retry_if_exception(self._worth_repeating),
            wait=self._pause_s,
            sleep=self.sleep,
            reraise=True,
        )
        try:
            answer: T = retrying(self._once, endpoint, params, read)
            return answer
        except Trouble as trouble:
            asked = int(retrying.statistics.get("attempt_number", 1))
            raise self._error(what, trouble, asked) from None

    def exchange_ms(self) -> int | None:
        """The exchange's clock (ms UTC) as of its last answer: the Date header less the answer's age in a cache."""
        headers = self.client.last_response_headers or {}
        try:
            date = email.utils.parsedate_to_datetime(headers["Date"])
            return round((date.timestamp() - float(headers.get("Age", 0))) * 1000)
        except (KeyError, TypeError, ValueError):
            return None

    def known_ms(self, now_ms: int) -> int:
        """Up to when the last answer can tell anything: this machine's clock, or the exchange's where that is behind it."""
        clock = self.exchange_ms()
        return now_ms if clock is None else min(now_ms, clock)

    def close(self) -> None:
        """Close the connections."""
        if self.client.session is not None:
            self.client.session.close()

    def _once(self, endpoint: str, params: dict[str, Any], read: Callable[[Any], T]) -> T:
        self._wait_for_room(endpoint)
        outer = handled()
        try:
            answer = self._call(endpoint, params)
        except ccxt_error() as error:
            raise verdict_on(self._taken_apart(error, outer)) from None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            raise unusable("gave an answer that ccxt cannot read") from None
        return read(answer)

    def _call(self, endpoint: str, params: dict[str, Any]) -> Any:
        """One request; what its answer says about our weight is noted."""
        asked_at = time.time()
        self.client.last_response_headers = None  # those of an earlier answer say nothing about this one
        try:
            return getattr(self.client, endpoint)(params)
        finally:
            used = (self.client.last_response_headers or {}).get(USED_WEIGHT, "")
            if self.budget is not None and used.isdecimal():
                self.budget.note(int(used), asked_at)

    def _taken_apart(self, error: BaseException, outer: BaseException | None) -> Failure:
        """What a ccxt exception says; the exchange's wish for silence goes to all processes."""
        failure = failure_of(error, outer)
        if self.budget is not None and failure.asks_for_silence:
            self.budget.silence(failure.silence_s)
        return failure

    def _take(self, endpoint: str, priority: Priority) -> float:
        """Takes the request's weight from the budget, or says how many seconds there will be none."""
        weight = 1 if self.venue == "coinbase" else WEIGHTS[endpoint]
        return 0.0 if self.budget is None else self.budget.take(weight, priority)

    def _wait_for_room(self, endpoint: str) -> None:
        """Returns when the budget has room for the request."""
        waited_s = 0.0
        while wait_s := self._take(endpoint, self.priority):
            longest_s = self.patience.max_wait_s
            if wait_s > longest_s or waited_s + wait_s > longest_s * self.patience.attempts:
                reason = f"is not asked for another {wait_s:.0f} s: this machine has used up what it may ask"
                raise Trouble(Verdict.CLOSED, reason, wait_s)
            self.sleep(wait_s + random.uniform(0.0, 0.05))
            waited_s += wait_s

    def _worth_repeating(self, error: BaseException) -> bool:
        if not isinstance(error, Trouble):
            return False
        if error.verdict is Verdict.LIMITED:
            return error.wait_s <= self.patience.max_wait_s
        return error.verdict in (Verdict.AGAIN, Verdict.CLOCK)

    def _pause_s(self, state: Any) -> float:
        longest: float = min(self.patience.backoff_s * 2.0 ** (state.attempt_number - 1), MAX_BACKOFF_S)
        error = state.outcome.exception()
        asked_s = 0.0
        if isinstance(error, Trouble) and error.verdict is Verdict.LIMITED:
            asked_s = error.wait_s or UNSAID_WAIT_S
        return max(asked_s, longest * random.uniform(0.5, 1.0))  # jitter: many clients must not come back together

    def _error(self, what: str, trouble: Trouble, asked: int) -> ExchangeUnavailable | ExchangeRefused:
        times = f" ({asked} attempts)" if asked > 1 else ""
        message = f"{what}: {self.host}{self.through} {trouble.reason}{times}."
        if trouble.verdict is Verdict.UNKNOWN_SYMBOL:
            return UnknownSymbol(message)
        if trouble.verdict is Verdict.BARRED:
            return Barred(f"{message[:-1]}: this location or key is refused.", f"Ask from another network. {self.hint}")
        if trouble.verdict is Verdict.REFUSED:
            return Answered(message, trouble.status, trouble.code)
        return ExchangeUnavailable(message, self.hint)


def ccxt_error() -> Any:
    """The root of ccxt's exceptions. ccxt is imported when it is needed: that costs 0.8 s."""
    import ccxt

    return ccxt.BaseError


def open_client(venue: str, base_url: str | None, timeout_s: float) -> Any:
    """A ccxt client without keys."""
    if venue not in CLIENTS:
        raise UsageError(f"Unknown venue '{venue}'.", nearest(venue, list(VENUES)))
    import ccxt

    config: dict[str, Any] = {"timeout": max(1, round(timeout_s * 1000)), "enableRateLimit": True}
    if venue == "binance":
        config["options"] = {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False, "fetchMargins": False}
    elif venue == "coinbase":
        config["headers"] = {"Cache-Control": "no-cache"}  # else public answers may come from a cache
    if base_url is not None:
        root = _checked_root(base_url)
        config["urls"] = {"api": {name: root + path for name, path in PATHS[venue].items()}}
    return getattr(ccxt, venue)(config)


def host_of(url: str) -> str:
    """Host and port of a URL, without the user and password that it may carry."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _checked_root(base_url: str) -> str:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("The exchange's base URL is not a URL.", "Write a root such as http://127.0.0.1:9000.")
    return base_url.rstrip("/")
