"""Decimal quantising to lot and tick, and the only crossing between float and Decimal."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal


def floor_to(value: Decimal, step: Decimal) -> Decimal:
    """The largest multiple of `step` that is not above `value`."""
    return (value / step).to_integral_value(rounding=ROUND_FLOOR) * step


def ceil_to(value: Decimal, step: Decimal) -> Decimal:
    """The smallest multiple of `step` that is not below `value`."""
    return (value / step).to_integral_value(rounding=ROUND_CEILING) * step


def lots_to_base(lots: int, lot: Decimal) -> Decimal:
    """The exact base quantity of a whole number of lots."""
    return lots * lot


def price_to_decimal(price: float, tick: Decimal) -> Decimal:
    """The multiple of `tick` nearest to a float price: how a level computed by the engine reaches an exchange."""
    return (Decimal(repr(price)) / tick).to_integral_value() * tick
