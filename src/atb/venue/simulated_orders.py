"""An order as the simulated exchange keeps it, and what it refuses before it looks at anybody's balance."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import NoReturn

from atb.core.money import DIGITS
from atb.core.orders import ORDER_TYPES, WORKING, NewOrder, SeenOrder
from atb.core.timeframe import moment
from atb.core.types import MarketRules
from atb.venue.broker import Features, OrderRefused

STOPS = ("stop", "stop_limit")
NEVER = -1


@dataclass
class Resting:
    """An order that was taken. Times in ms of the exchange's clock."""

    asked: NewOrder
    venue_order_id: str
    created_ms: int
    updated_ms: int
    state: str = "open"
    filled_qty: Decimal = Decimal(0)
    partner: str = ""  # venue order id of the other of a pair
    second: bool = False  # of a pair: the other one locks the coins
    triggered: bool = False  # a stop_limit whose stop was touched: a limit order from then on
    placed_in: int = NEVER  # open time of the candle that ran when it was placed, and the last price then
    placed_at: float = 0.0
    parts: int = 1  # how many executions are still to come
    expires: bool = False  # after the first of them

    @property
    def working(self) -> bool:
        return self.state in WORKING

    @property
    def buys(self) -> bool:
        return self.asked.side == "buy"

    @property
    def is_stop(self) -> bool:
        return self.asked.type in STOPS

    @property
    def left(self) -> Decimal:
        return self.asked.qty - self.filled_qty

    def end(self, state: str, now_ms: int) -> None:
        self.state, self.updated_ms = state, now_ms

    def seen(self) -> SeenOrder:
        o = self.asked
        return SeenOrder(
            o.client_order_id, self.venue_order_id, o.symbol, o.side, o.type, o.qty, o.price, o.stop_price, self.state,
            moment(self.created_ms), moment(self.updated_ms), self.filled_qty,
        )  # fmt: skip


def in_lots(qty: Decimal, lot: Decimal) -> int:
    with localcontext(prec=DIGITS):
        return int(qty / lot)


def refuse(what: str, reason: str = "refused") -> NoReturn:
    """reason: as real exchanges give it (OrderRefused)."""
    raise OrderRefused(f"The simulated exchange refuses: {what}.", reason)


def check_made(order: NewOrder, rules: MarketRules, features: Features) -> None:
    """Refuse an order that no balance and no market could make acceptable."""
    if order.type not in ORDER_TYPES or order.side not in ("buy", "sell"):
        refuse(f"it knows no {order.type} order to {order.side}")
    stops = order.type in STOPS
    if stops and order.type not in features.stop_types:
        refuse(f"no {order.type} orders for {order.symbol.id}", "not_supported")
    if order.side == "buy" and (stops or order.type == "take_limit"):
        refuse(f"a {order.type} protects coins that are held, and can only sell")
    _check_step("quantity", order.qty, rules.lot)
    if stops:
        _check_step("stop price", order.stop_price, rules.tick)
    if order.type not in ("market", "stop"):
        _check_step("price", order.price, rules.tick)


def _check_step(what: str, value: Decimal | None, step: Decimal) -> None:
    with localcontext(prec=DIGITS):
        if value is None or not value > 0 or value % step:
            refuse(f"the {what} {value} is no multiple of {step} above 0")


def check_pair(take: NewOrder, stop: NewOrder, features: Features) -> None:
    """Refuse two orders that are no pair."""
    if not features.pairs:
        refuse("it has no pairs of orders", "not_supported")
    if (take.symbol, take.side, take.qty) != (stop.symbol, stop.side, stop.qty) or take.side != "sell":
        refuse("a pair sells the same quantity of the same coins")
    if take.type not in ("take_limit", "limit") or stop.type not in STOPS:
        refuse(f"a {take.type} and a {stop.type} make no pair")
    if take.client_order_id == stop.client_order_id:
        refuse("the orders of a pair need two client ids")
