"""A symbol: its rules, as the exchange writes them, and its market, which moves."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from tests.venue.exchange.candles import Rows, Tape
from tests.venue.exchange.money import ZERO

ORDER_TYPES = (
    "LIMIT",
    "LIMIT_MAKER",
    "MARKET",
    "STOP_LOSS",
    "STOP_LOSS_LIMIT",
    "TAKE_PROFIT",
    "TAKE_PROFIT_LIMIT",
)
AVERAGE_MS = 300_000


class Listing(NamedTuple):
    """A symbol with its rules and its candles by timeframe."""

    base: str
    quote: str
    candles: dict[str, Rows]
    tick: str = "0.01000000"
    lot: str = "0.00001000"
    min_notional: str = "5.00000000"
    max_price: str = "1000000.00000000"
    max_qty: str = "9000.00000000"
    max_market_qty: str = "120.00000000"
    max_notional: str = "9000000.00000000"
    apply_min_to_market: bool = True
    bands: tuple[str, str, str, str] = ("5", "0.2", "5", "0.2")  # bid up, bid down, ask up, ask down
    max_orders: int = 200
    max_stops: int = 5
    order_types: tuple[str, ...] = ORDER_TYPES
    pairs: bool = True


@dataclass(eq=False)
class Market:
    """`spread` is that between bid and ask, around the last price. `liquidity` is what can be traded a step; None: all.

    `left` is what remains of it in this step. `level`: what there is at one price; the next is a tick worse.
    """

    name: str
    listing: Listing
    last: Decimal | None = None
    spread: Decimal = ZERO
    liquidity: Decimal | None = None
    left: Decimal | None = None
    level: Decimal | None = None
    status: str = "TRADING"
    next_trade: int = 1
    tape: Tape = field(default_factory=Tape)
    recent: deque[tuple[int, Decimal, Decimal]] = field(default_factory=deque)  # ms, price, volume

    @property
    def price(self) -> Decimal:
        """The last trade's."""
        return self.last or ZERO

    @property
    def bid(self) -> Decimal:
        return self.price - self.spread / 2

    @property
    def ask(self) -> Decimal:
        return self.price + self.spread / 2

    def at(self, side: str) -> Decimal:
        """What a market order of this side trades at."""
        return self.ask if side == "BUY" else self.bid

    def traded(self, at_ms: int, price: Decimal, volume: Decimal) -> None:
        """The market's own trade: what is left for orders in this step begins anew."""
        self.last, self.left = price, self.liquidity
        self.tape.add(at_ms, float(price), float(volume))
        self.recent.append((at_ms, price, volume))
        while self.recent[0][0] < at_ms - AVERAGE_MS:
            self.recent.popleft()

    def average(self, now_ms: int) -> Decimal:
        """By volume over the last five minutes; the last price when nothing was traded."""
        recent = [(price, volume) for at_ms, price, volume in self.recent if at_ms >= now_ms - AVERAGE_MS]
        total = sum((volume for _, volume in recent), ZERO)
        if not total:
            return self.price
        return sum((price * volume for price, volume in recent), ZERO) / total

    def available(self, wanted: Decimal) -> Decimal:
        return wanted if self.left is None else min(wanted, self.left)

    def beyond(self, price: Decimal, side: str) -> Decimal:
        """The next price that a market order of this side gets to."""
        tick = Decimal(self.listing.tick)
        return price + tick if side == "BUY" else max(tick, price - tick)

    def take(self, qty: Decimal) -> None:
        if self.left is not None:
            self.left = max(ZERO, self.left - qty)
