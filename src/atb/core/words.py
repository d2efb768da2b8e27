"""Counts and durations in plain English: one is not a plural."""

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


def duration(ms: int) -> str:
    """`45 s`, `3 min 20 s`, `2 h 05 min`, `12 d 3 h`."""
    seconds = max(0, ms) // 1000
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min {seconds % 60:02d} s" if minutes else f"{seconds} s"


def in_bytes(size: int) -> str:
    """`512 B`, `3.4 MB`, `12 GB`."""
    value = float(size)
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the last unit returns")
