"""What the store holds, told from the names and the feet of its files: no candle is read for it."""

from __future__ import annotations

from typing import NamedTuple

from atb.core.timeframe import align_down, timeframe_ms
from atb.data.layout import DERIVED, IMPORTED, Part, SeriesKey
from atb.data.parquet import Facts
from atb.data.store import CandleStore

FRESH, STALE, EMPTY = "fresh", "stale", "empty"
LATE_MS = 60_000  # what has just closed need not be here yet


class Series(NamedTuple):
    """One series. Times: ms; open times of the first and last candle, None without any.

    gaps: candles that the exchange does not have within what was asked for; not_fetched: candles of the times between parts,
    which nobody has asked for. behind: closed candles that are missing at the end.
    """

    key: SeriesKey
    rows: int
    parts: int
    bytes: int
    first_ms: int | None
    last_ms: int | None
    updated_ms: int
    gaps: int
    not_fetched: int
    imported: int
    derived: int
    behind: int

    @property
    def freshness(self) -> str:
        """By its own timeframe: fresh where at most the newest closed candle is missing."""
        if self.last_ms is None:
            return EMPTY
        return FRESH if self.behind <= 1 else STALE


def look_at(store: CandleStore, key: SeriesKey, now_ms: int) -> Series | None:
    """None where nothing is stored. DataError for a part that cannot be read."""
    parts = store.parts(key)
    told = [(part, facts) for part in parts if (facts := _facts(store, part)) is not None]
    if not told:
        return None
    step = timeframe_ms(key.timeframe)
    firsts = [facts.first_ms for _, facts in told if facts.first_ms is not None]
    lasts = [facts.last_ms for _, facts in told if facts.last_ms is not None]
    last = max(lasts, default=None)
    start, end = told[0][0].start_ms, max(part.end_ms for part, _ in told)
    # While parts are merged, the same candles are there twice.
    rows = min(sum(facts.rows for _, facts in told), _slots(start, end, step))
    not_fetched = sum(_slots(low, high, step) for low, high in store.missing_ranges(key, start, end))
    newest = align_down(now_ms - LATE_MS, key.timeframe) - step
    return Series(
        key, rows, len(told), sum(part.size for part, _ in told), min(firsts, default=None), last,
        max(part.written_ms for part, _ in told), _gaps(firsts, lasts, rows, not_fetched, step), not_fetched,
        _rows(told, IMPORTED), _rows(told, DERIVED), 0 if last is None else max(0, (newest - last) // step),
    )  # fmt: skip


def _gaps(firsts: list[int], lasts: list[int], rows: int, not_fetched: int, step: int) -> int:
    """Between the first and the last candle: before a listing nothing is missing."""
    if not firsts:
        return 0
    return max(0, (max(lasts) - min(firsts)) // step + 1 - rows - not_fetched)


def _facts(store: CandleStore, part: Part) -> Facts | None:
    try:
        return store.facts(part)
    except FileNotFoundError:  # merged with others a moment ago
        return None


def _slots(low: int, high: int, step: int) -> int:
    return max(0, -((low - high) // step))


def _rows(told: list[tuple[Part, Facts]], kind: str) -> int:
    return sum(facts.rows for part, facts in told if part.kind == kind)
