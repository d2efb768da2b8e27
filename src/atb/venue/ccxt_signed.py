"""A ccxt client with a key: reads that are repeated like all others, and writes that are sent once and judged.

One thread at a time. The key is in ccxt's client, and nowhere in what this gives, raises or logs.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from atb.core.errors import ExchangeRefused, ExchangeUnavailable
from atb.core.keys import ApiKey
from atb.core.orders import FINAL, SeenOrder
from atb.venue.broker import OrderRefused, OrderUnknown
from atb.venue.ccxt_errors import Failure, Trouble, Verdict, handled
from atb.venue.ccxt_outcomes import Outcome, outcome_of
from atb.venue.ccxt_session import Patience, Session, ccxt_error
from atb.venue.exchange_clock import ExchangeClock, Sample
from atb.venue.rate_budget import Priority
from atb.venue.server_time import TIME_ENDPOINTS

HINT = "Check the key, its rights and its list of addresses."
UNSIGNED = "the key's secret cannot sign: it is not whole, or not of this exchange"
LOOK_UP = "It is looked up by its client id before anything else is done."
READ_WINDOW_MS = 5000  # a late answer to a question does no harm
ORDERS_WINDOW_S = 10.0  # the shortest time in which Binance counts an account's orders
WORTH_WAITING_S = 1.0  # Coinbase counts by the second; most of what is told may take longer than that
IDLE_S = 30.0  # a kept connection that was silent for longer may be dead without our knowing

T = TypeVar("T")


class SignedSession(Session):
    """A client of one account at one venue. `public`: what the endpoints begin with that need no signature."""

    public = "public"

    def __init__(
        self, venue: str, base_url: str | None, patience: Patience, key: ApiKey, rates: Path | None = None
    ) -> None:
        super().__init__(venue, base_url, patience, HINT, rates, Priority.RECONCILE)
        self.key = key
        self.clock = ExchangeClock(self._sample)
        self._asked_s = time.monotonic()
        self.client.apiKey, self.client.secret = key.id, key.secret
        self.client.enableRateLimit = False  # a cancel must not stand in ccxt's queue: the budget has priorities
        self.client.session.max_redirects = 0  # nobody forwards an order, or the key, elsewhere
        self.client.logger = _silent()  # ccxt logs headers, and with them the key

    def tell(self, what: str, endpoint: str, params: dict[str, Any], read: Callable[[Any], T], priority: Priority) -> T:
        """Sends once. Raises OrderRefused where it was certainly not done, OrderUnknown where nobody knows.

        `read` raises `unusable(...)` for an answer of the wrong shape, which leaves the outcome unknown.
        """
        if wait_s := self._room_in_s(endpoint, priority):
            raise OrderRefused(f"{what}: {self.host} is not asked for another {wait_s:.1f} s.", "too_fast", wait_s)
        self._drop_idle_connection()
        outer = handled()
        try:
            answer = self._call(endpoint, params)
        except ccxt_error() as error:
            self._must_have_signed(what)
            raise self._judged(what, self._taken_apart(error, outer)) from None
        except Exception:  # noqa: BLE001  whatever it was, the order may be out
            self._must_have_signed(what)
            raise self._unknown(what, "gave an answer that ccxt cannot read") from None
        try:
            return read(answer)
        except Trouble as trouble:
            raise self._unknown(what, trouble.reason) from None

    def measure_clock_if_old(self) -> None:
        """Where that fails, the last measurement is counted on; the first one must succeed."""
        if self.clock.skew is None:
            self.clock.measure()
        elif self.clock.is_old():
            with contextlib.suppress(ExchangeUnavailable, ExchangeRefused):
                self.clock.measure()

    def _room_in_s(self, endpoint: str, priority: Priority) -> float:
        """0.0: its weight is taken, after a moment where that was enough. Else for how many seconds there is no room."""
        end = time.monotonic() + WORTH_WAITING_S
        while (wait_s := self._take(endpoint, priority)) and time.monotonic() + wait_s <= end:
            time.sleep(wait_s)
        return wait_s

    def _must_have_signed(self, what: str) -> None:
        """Raises where ccxt did not come to the point of sending anything."""
        if self.client.last_request_url is None:
            raise OrderRefused(f"{what}: nothing was sent, for {UNSIGNED}.", "barred", hint=HINT) from None

    def _judged(self, what: str, failure: Failure) -> OrderRefused | OrderUnknown:
        outcome, reason = outcome_of(failure)
        words = self.key.masked(failure.reason)
        if outcome is Outcome.UNKNOWN:
            return self._unknown(what, words)
        if outcome is Outcome.CLOCK:
            self._measure_anew()
        wait_s = self._wait_after(failure) if outcome is Outcome.TOO_FAST else 0.0
        hint = HINT if outcome is Outcome.BARRED else ""
        return OrderRefused(f"{what}: {self.host} {words}; it was {outcome.value}.", reason, wait_s, hint)

    def _wait_after(self, failure: Failure) -> float:
        """How long to wait after "too fast": what the exchange says, else until the budget or it counts anew."""
        return failure.silence_s or (self.budget.silent_s() if self.budget else 0.0) or ORDERS_WINDOW_S

    def _unknown(self, what: str, reason: str) -> OrderUnknown:
        words = self.key.masked(reason)
        return OrderUnknown(f"{what}: {self.host} {words}; whether it was done is not known.", LOOK_UP)

    def _measure_anew(self) -> None:
        self.clock.doubt()
        with contextlib.suppress(ExchangeUnavailable, ExchangeRefused):  # then before the next request
            self.clock.measure()

    def _once(self, endpoint: str, params: dict[str, Any], read: Callable[[Any], T]) -> T:
        if not endpoint.startswith(self.public):
            self.measure_clock_if_old()
        try:
            return super()._once(endpoint, params, read)
        except Trouble as trouble:
            if trouble.verdict is Verdict.CLOCK:
                self.clock.doubt()
            if (
                self.client.last_request_url is None and trouble.verdict is not Verdict.CLOSED
            ):  # closed: not asked at all
                raise Trouble(Verdict.BARRED, f"was not asked, for {UNSIGNED}") from None
            raise

    def _call(self, endpoint: str, params: dict[str, Any]) -> Any:
        self._asked_s = time.monotonic()
        self.client.last_request_url = None  # until ccxt has signed this one
        return super()._call(endpoint, params if endpoint.startswith(self.public) else self._stamped(params))

    def _stamped(self, params: dict[str, Any]) -> dict[str, Any]:
        """With the time as of which the request is signed; one that changes something says so itself."""
        if "timestamp" in params:
            return params
        return {**params, "timestamp": self.clock.now_ms(), "recvWindow": READ_WINDOW_MS}

    def _error(self, what: str, trouble: Trouble, asked: int) -> ExchangeUnavailable | ExchangeRefused:
        trouble.reason = self.key.masked(trouble.reason)
        return super()._error(what, trouble, asked)

    def _sample(self) -> Sample:
        endpoint = TIME_ENDPOINTS[self.venue]

        def read(answer: Any) -> Sample:
            return Sample(endpoint.read(answer), self._asked_s, time.monotonic())

        return self.ask("Reading the exchange's clock", endpoint.method, {}, read)

    def _drop_idle_connection(self) -> None:
        if time.monotonic() - self._asked_s > IDLE_S:
            self.client.session.close()  # it opens another one


def last_state(find: Callable[[], SeenOrder | None], failure: OrderRefused | OrderUnknown) -> SeenOrder:
    """After a cancel without a usable answer: what the order is now, if that is final; else `failure`, or unknown."""
    try:
        seen = find()
    except (ExchangeUnavailable, ExchangeRefused) as error:
        raise OrderUnknown(f"{failure.what} {error.what}", LOOK_UP) from None
    if seen is None:
        raise failure
    if seen.state in FINAL:
        return seen
    raise OrderUnknown(f"{failure.what} The exchange still tells of it as {seen.state}.", LOOK_UP)


def _silent() -> logging.Logger:
    logger = logging.Logger("ccxt")  # in no hierarchy, so no handler hears it
    logger.disabled = True
    return logger
