"""The port for orders: what the executor asks of an exchange, real or simulated, and what its answers may mean.

Each call ends in one of three ways: an answer that was understood; ExchangeRefused (OrderRefused, with its reason, for what
changes something), when the exchange certainly did not do it;
OrderUnknown (for what changes something) or ExchangeUnavailable (for what only asks), when nobody knows. Unknown is looked up by
client id, never sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from atb.core.errors import ExchangeRefused, ExchangeUnavailable
from atb.core.orders import Balance, KeyRights, NewOrder, SeenFill, SeenOrder, SeenTransfer
from atb.core.types import MarketRules, Symbol


class OrderUnknown(ExchangeUnavailable):
    """Whether the exchange did it is not known: a time-out, a broken connection, an answer that is none."""


class OrderRefused(ExchangeRefused):
    """It was certainly not done. `reason` is a word for programs:

    too_fast        the exchange wants fewer requests; the same may be asked after `wait_s`
    clock           the request came outside its window: it was late, or our clock was wrong and has been measured anew
    not_sent        no connection came about
    barred          the key, its rights, its address or this place is refused
    unknown_order   the exchange knows of no such working order (a cancel)
    malformed       the order cannot be put into the exchange's words; nothing was sent
    insufficient_balance, would_trigger, would_match, wrong_prices, market_closed, too_many_stops, too_many_orders,
    min_notional, lot, price, account, not_supported: what the exchange says is wrong with it
    refused         anything else that is certain
    """

    def __init__(self, what: str, reason: str, wait_s: float = 0.0, hint: str = "") -> None:
        super().__init__(what, hint)
        self.reason = reason
        self.wait_s = wait_s


class Features(NamedTuple):
    """What a venue has. stop_types: best first; max_stops: working stop orders of a symbol; pairs: take-profit and stop
    as one, of which the first to fill cancels the other."""

    stop_types: tuple[str, ...]
    max_stops: int
    pairs: bool


class Window(NamedTuple):
    """Until when the exchange may take a request: signed as of `made_at_ms` of its own clock, for `length_ms`."""

    made_at_ms: int
    length_ms: int


class Broker(Protocol):
    """One account at one venue."""

    venue: str

    @property
    def features(self) -> Features: ...

    def now_ms(self) -> int:
        """The exchange's clock, by the skew that was measured last."""
        ...

    def market_rules(self, symbol: Symbol, fresh: bool = False) -> MarketRules:
        """fresh: asked for now, whatever was told before."""
        ...

    def place(self, order: NewOrder, window: Window) -> SeenOrder: ...

    def place_pair(self, take: NewOrder, stop: NewOrder, window: Window) -> tuple[SeenOrder, SeenOrder]: ...

    def cancel(self, symbol: Symbol, client_order_id: str) -> SeenOrder:
        """Its last state, which may be filled. ExchangeRefused where the exchange knows of no such working order."""
        ...

    def find(self, symbol: Symbol, client_order_id: str) -> SeenOrder | None:
        """None: the exchange says that it knows of none by this id, which may mean not yet."""
        ...

    def open_orders(self, symbols: Sequence[Symbol]) -> list[SeenOrder]: ...

    def fills(self, symbol: Symbol, since_ms: int) -> list[SeenFill]:
        """All executions of the account since then, in order; as many requests as that takes."""
        ...

    def orders(self, symbol: Symbol, since_ms: int) -> list[SeenOrder]:
        """All orders of the account that were made since then, whatever became of them, oldest first."""
        ...

    def transfers(self, since_ms: int) -> list[SeenTransfer] | None:
        """What came and went since then otherwise than by orders, as far as the venue tells this key; None: nothing of
        it at all."""
        ...

    def balances(self) -> dict[str, Balance]: ...

    def rights(self) -> KeyRights: ...
