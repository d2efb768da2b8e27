"""Side series: what is known beside candles (funding, open interest, sentiment), joined as of each candle's close.

A row says what a value is about (`time`), and from when on anybody could have known it (`available`). A value that was told
otherwise later is a further row with the same time: what was known then stays what was known then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from atb.engine.candles import Candles, Floats, Ints


class Side(NamedTuple):
    """What a strategy asks for. max_age_ms: an older value counts as none; None: however old.

    symbol None: that of the candles, else the series that belongs to no symbol. venue None: the one that there is.
    """

    name: str
    max_age_ms: int | None = None
    venue: str | None = None
    symbol: str | None = None


class SideRows(NamedTuple):
    """The rows of a series in order of `available_ms`, then `time_ms` (int64, ms UTC); value: float64, finite."""

    time_ms: Ints
    available_ms: Ints
    value: Floats

    def select(self, rows: object) -> SideRows:
        return SideRows(*(column[rows] for column in self))  # type: ignore[call-overload]


Join = Callable[[Sequence[Side], Candles], Candles]  # candles with the side series that are asked for
NO_ROWS = SideRows(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


def as_they_are(declared: Sequence[Side], candles: Candles) -> Candles:
    """The Join of who has no side series."""
    return candles


def ordered(rows: SideRows) -> SideRows:
    """The same rows in their order."""
    return rows.select(np.lexsort((rows.time_ms, rows.available_ms)))


def joined_rows(parts: Sequence[SideRows]) -> SideRows:
    """All of their rows, ordered."""
    return ordered(SideRows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))) if parts else NO_ROWS


def as_of(rows: SideRows, at_ms: Ints, max_age_ms: int | None = None) -> Floats:
    """At each moment the value of the newest time among the rows available by then, as it was told last: float64[n].

    NaN before the first, and where the value is about a time more than `max_age_ms` before the moment.
    """
    if len(rows.time_ms) == 0:
        return np.full(len(at_ms), np.nan)
    newest = np.maximum.accumulate(rows.time_ms)
    # Of rows in order of availability, the newest up to each: an older time that became known later changes nothing.
    best = np.maximum.accumulate(np.where(rows.time_ms == newest, np.arange(len(newest)), 0))
    known = np.searchsorted(rows.available_ms, at_ms, side="right") - 1
    chosen = best[np.maximum(known, 0)]
    valid = known >= 0
    if max_age_ms is not None:
        valid = valid & (at_ms - rows.time_ms[chosen] <= max_age_ms)
    return np.asarray(np.where(valid, rows.value[chosen], np.nan))
