"""Decimal quantising to lot and tick, and the only crossing between float and Decimal."""

from __future__ import annotations

from decimal import Decimal, localcontext

DIGITS = 100  # the usual 28 would round a quotient of 29 digits up to the next step
# beyond it a float cannot count ticks


def floor_to(value: Decimal, step: Decimal) -> Decimal:
    """The largest multiple of `step` that is not above `value`."""
    with localcontext(prec=DIGITS):
        count, rest = divmod(value, step)
        return (count - 1 if rest < 0 else count) * step


def ceil_to(value: Decimal, step: Decimal) -> Decimal:
    """The smallest multiple of `step` that is not below `value`."""
    with localcontext(prec=DIGITS):
        return -floor_to(-value, step)


def lots_to_base(lots: int, lot: Decimal) -> Decimal:
    """The exact base quantity of a whole number of lots."""
    with localcontext(prec=DIGITS):
        return lots * lot


def price_to_decimal(price: float, tick: Decimal) -> Decimal:
    """The multiple of `tick` nearest to a float price: how a level computed by the engine reaches an exchange."""
    exact = Decimal(repr(float(price)))
    with localcontext(prec=DIGITS):
        return floor_to(exact + tick / 2, tick)
