"""From pages of candles, as an exchange gives them, to parts of the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from atb.core.timeframe import DAY_MS, timeframe_ms
from atb.data.corrections import Correction, record
from atb.data.layout import SeriesKey
from atb.data.store import CandleStore
from atb.engine.candles import Candles, Floats

PAGES_PER_PART = 25  # what an interruption can cost at most; a part a page would leave thousands of small files


class Stored(NamedTuple):
    """candles: how many the exchange gave; corrections: those that are stored otherwise, and stay so."""

    candles: int
    corrections: list[Correction]


def store_pages(
    store: CandleStore, key: SeriesKey, pages: Iterable[Floats], span: tuple[int, int], now_ms: int,
    known_ms: Callable[[], int], progress: Callable[[float], None] = lambda _: None,
) -> Stored:  # fmt: skip
    """Store what the exchange answered for `span` (ms, end exclusive) as of `now_ms`. known_ms: up to when its answers can be
    complete, once all pages are there: a machine's clock may be ahead of its.

    Parts are written as pages come in, so that an interrupted download goes on where it stopped.
    """
    start_ms, end_ms = span
    parts = _Parts(store, key, start_ms, now_ms)
    try:
        for rows in pages:
            parts.add(rows)
            progress((int(rows[-1, 0]) - start_ms) / (end_ms - start_ms))
    except BaseException:
        parts.write()
        raise
    parts.write(whole_until(end_ms, known_ms()))
    return Stored(parts.fetched, parts.corrections)


def whole_until(end_ms: int, known_ms: int) -> int | None:
    """Up to when the answer for a span that ends at `end_ms` is complete; None: to the end of its last candle.

    What had not closed for a day when the exchange answered, by its clock and by ours, is asked for next time.
    """
    return end_ms if end_ms <= known_ms - DAY_MS else None


def store_rows(
    store: CandleStore, key: SeriesKey, rows: Floats, span: tuple[int, int | None], now_ms: int
) -> list[Correction]:  # fmt: skip
    """Store what the exchange answered for a span; its end None: to the end of the last candle. Returns what differs from what
    is stored, which is kept (corrections.py)."""
    start_ms, end_ms = span
    end = int(rows[-1, 0]) + timeframe_ms(key.timeframe) if end_ms is None and len(rows) else end_ms
    if end is None or end <= start_ms:
        return []
    _, told, stored = store.add(key, candles_of(key, rows), start_ms, end)
    return record(store, key, told, stored, now_ms) if told is not None and stored is not None else []


def candles_of(key: SeriesKey, rows: Floats) -> Candles:
    """Rows of open time, open, high, low, close, volume as Candles."""
    return Candles(key.symbol, key.timeframe, rows[:, 0].astype(np.int64), *rows.T[1:])


class _Parts:
    """Pages on their way into the store, a part at a time."""

    def __init__(self, store: CandleStore, key: SeriesKey, start_ms: int, now_ms: int) -> None:
        self.store, self.key, self.start_ms, self.now_ms = store, key, start_ms, now_ms
        self.pages: list[Floats] = []
        self.corrections: list[Correction] = []
        self.fetched = 0

    def add(self, rows: Floats) -> None:
        self.pages.append(rows)
        self.fetched += len(rows)
        if len(self.pages) == PAGES_PER_PART:
            self.write()

    def write(self, end_ms: int | None = None) -> None:
        """Write the pages as one part that covers everything up to `end_ms`, or to the end of the last candle."""
        if not self.pages and end_ms is None:
            return
        rows = np.concatenate(self.pages) if self.pages else np.empty((0, 6))
        end = int(rows[-1, 0]) + timeframe_ms(self.key.timeframe) if end_ms is None else end_ms
        if end > self.start_ms:
            self.corrections += store_rows(self.store, self.key, rows, (self.start_ms, end), self.now_ms)
        self.pages, self.start_ms = [], end
