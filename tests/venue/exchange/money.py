"""Exact amounts."""

from __future__ import annotations

from collections import defaultdict
from decimal import ROUND_DOWN, Decimal

Amounts = defaultdict[str, Decimal]  # by asset
Number = Decimal | int | float | str

ZERO = Decimal(0)
SMALLEST = Decimal("1E-8")


def amounts() -> Amounts:
    return defaultdict(Decimal)


def exact(number: Number) -> Decimal:
    """A float is what it is written as."""
    return number if isinstance(number, Decimal) else Decimal(str(number))


def cut(number: Decimal, step: Decimal = SMALLEST) -> Decimal:
    """Rounded down to a multiple of the step."""
    return (number / step).to_integral_value(ROUND_DOWN) * step


def written(number: Decimal | None) -> str:
    """As Binance writes it."""
    return f"{number or ZERO:.8f}"
