"""Decimal quantising to lot and tick, and the only crossing between float and Decimal."""

from __future__ import annotations

from decimal import Decimal, localcontext

DIGITS = 100  # the usual 28 would round a quotient of 29 digits up to the next step
MAX_COUNT = 2**53  # beyond it a float cannot count ticks


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


def decimal_to_price(price: Decimal, tick: Decimal) -> float:
    """The float that the engine computed for a level, to the last bit: a count of ticks times the tick's float.

    (The float nearest to 0.3 is not the engine's 3 * 0.1.) A price off the grid is the float nearest to it.
    """
    with localcontext(prec=DIGITS):
        count, rest = divmod(price, tick)
    return float(price) if rest or count >= MAX_COUNT else int(count) * float(tick)
