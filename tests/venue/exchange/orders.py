"""Orders, lists of orders and trades, in no exchange's words."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.venue.exchange.money import ZERO

if TYPE_CHECKING:
    from tests.venue.exchange.accounts import Account

OPEN = ("NEW", "PARTIALLY_FILLED")


@dataclass(eq=False)
class Order:
    """With a `stop` it waits until the price has come there: from above, or from below when `stop_above`.

    `type` is the exchange's own name of it, which nothing here depends on. A `bracket` rests at its price while it
    waits; once its stop is touched, `afterwards` is its price.
    """

    account: Account
    symbol: str
    side: str  # BUY or SELL
    type: str
    qty: Decimal
    client_id: str
    price: Decimal | None = None  # None: at the market
    stop: Decimal | None = None
    stop_above: bool = False
    time_in_force: str = "GTC"  # IOC, FOK; GTD is ended by who made it
    maker_only: bool = False
    bracket: bool = False
    afterwards: Decimal | None = None
    quote_qty: Decimal = ZERO  # what a market order shall cost; its qty follows
    asked: dict[str, Any] = field(default_factory=dict)  # as the client wrote it, where that is shown again
    id: int = 0
    list: OrderList | None = None
    status: str = "NEW"
    triggered: bool = False
    filled: Decimal = ZERO
    cost: Decimal = ZERO
    created_ms: int = 0
    updated_ms: int = 0
    working_ms: int = -1

    @property
    def open(self) -> bool:
        return self.status in OPEN

    @property
    def rest(self) -> Decimal:
        return self.qty - self.filled

    @property
    def waiting(self) -> bool:
        """Not working yet, for the price has not come to its stop."""
        return self.stop is not None and not self.triggered

    @property
    def rests(self) -> bool:
        """At its price, for others to trade with."""
        return self.price is not None and (self.bracket or not self.waiting)

    @property
    def protects(self) -> bool:
        """Whether it sells when the price falls, or is about to."""
        return self.open and self.side == "SELL" and self.stop is not None and not self.stop_above

    def reached(self, price: Decimal) -> bool:
        """Whether a trade at this price sets it off."""
        return self.stop is not None and (price >= self.stop if self.stop_above else price <= self.stop)

    def accepts(self, price: Decimal) -> bool:
        """Whether it would trade at this price, were it working."""
        return self.price is None or (price <= self.price if self.side == "BUY" else price >= self.price)


@dataclass(eq=False)
class OrderList:
    """Orders of which the first to begin ends the other."""

    id: int
    client_id: str
    symbol: str
    account: Account
    orders: tuple[Order, ...] = ()
    updated_ms: int = 0

    @property
    def open(self) -> bool:
        return any(order.open for order in self.orders)


class Trade(NamedTuple):
    id: int
    symbol: str
    order: Order
    price: Decimal
    qty: Decimal
    quote: Decimal
    fee: Decimal
    fee_asset: str
    maker: bool
    at_ms: int


class Event(NamedTuple):
    """Something happened to an order."""

    at_ms: int
    account: str
    symbol: str
    order_id: int
    client_id: str
    what: str  # placed, triggered, traded, filled, cancelled, expired
    qty: Decimal
    price: Decimal | None = None

    def __str__(self) -> str:
        return f"{self.what} {self.order_id} ({self.client_id})"
