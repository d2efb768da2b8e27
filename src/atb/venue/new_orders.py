"""What must hold of any order before it is put into an exchange's words."""

from __future__ import annotations

from atb.core.orders import NewOrder
from atb.venue.broker import OrderRefused
from atb.venue.rate_budget import Priority


def malformed(order: NewOrder, why: str) -> OrderRefused:
    return OrderRefused(f"Order {order.client_order_id} {why}; nothing was sent.", "malformed")


def check_numbers(order: NewOrder, price: bool, stop_price: bool) -> None:
    """Its numbers are numbers, and those that go with its type."""
    given = [value for value in (order.qty, order.price, order.stop_price) if value is not None]
    if not all(value.is_finite() and value > 0 for value in given):
        raise malformed(order, "has a number that is none")
    if (order.price is not None, order.stop_price is not None) != (price, stop_price):
        raise malformed(order, f"has not the prices of a {order.type} order")


def priority_of(order: NewOrder) -> Priority:
    """On spot, without shorts, a sell always lessens what is held; so do its stops."""
    return Priority.PROTECT if order.side == "sell" else Priority.ENTRY
