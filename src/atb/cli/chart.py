"""Candles drawn with characters: each column is a stretch of time, its wick from low to high, its body from open to close."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

UP, DOWN, WICK = "█", "▒", "│"
PLAIN = {UP: "#", DOWN: "o", WICK: "|"}


class Bar(NamedTuple):
    """One column: the first open, the highest, the lowest, the last close."""

    open_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float


def bars_of(rows: Sequence[Bar], columns: int) -> list[Bar]:
    """At most so many bars: neighbours are put together."""
    per_bar = -(-len(rows) // columns)
    groups = [rows[i : i + per_bar] for i in range(0, len(rows), per_bar)]
    return [
        Bar(
            group[0].open_ms, group[0].open, max(bar.high for bar in group), min(bar.low for bar in group),
            group[-1].close, sum(bar.volume for bar in group),
        )
        for group in groups
    ]  # fmt: skip


def drawn(bars: Sequence[Bar], height: int, blocks: bool) -> list[str]:
    """Lines from the highest price to the lowest, each with its price at the left."""
    low, high = min(bar.low for bar in bars), max(bar.high for bar in bars)
    span = (high - low) or 1.0
    labels = [f"{high - span * row / (height - 1):,.6g}" for row in range(height)]
    width = max(map(len, labels))
    lines = []
    for row, label in enumerate(labels):
        line = "".join(_cell(bar, row, low, span, height) for bar in bars)
        lines.append(f"{label:>{width}} {line if blocks else _plain(line)}".rstrip())
    return lines


def _cell(bar: Bar, row: int, low: float, span: float, height: int) -> str:
    def at(price: float) -> int:
        return round((height - 1) * (1 - (price - low) / span))

    top, bottom = at(max(bar.open, bar.close)), at(min(bar.open, bar.close))
    if top <= row <= bottom:
        return UP if bar.close >= bar.open else DOWN
    return WICK if at(bar.high) <= row <= at(bar.low) else " "


def _plain(line: str) -> str:
    return "".join(PLAIN.get(char, char) for char in line)
