"""Counts in plain English: one is not a plural."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """`1 candle`, `2,000 candles`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def are(number: int) -> str:
    """The verb after a count."""
    return "is" if number == 1 else "are"


def often(number: int) -> str:
    """`once`, `2 times`."""
    return "once" if number == 1 else f"{number:,} times"
