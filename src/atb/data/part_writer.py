"""From pages of candles, as an exchange gives them, to parts of the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from atb.core.timeframe import DAY_MS, timeframe_ms
from atb.data.store import CandleStore, SeriesKey
from atb.engine.candles import Candles, Floats

PAGES_PER_PART = 25  # what an interruption can cost at most; a part a page would leave thousands of small files


def store_pages(
    store: CandleStore, key: SeriesKey, pages: Iterable[Floats], span: tuple[int, int], now_ms: int,
    progress: Callable[[float], None] = lambda _: None,
) -> int:  # fmt: skip
    """Store what the exchange answered for `span` (ms, end exclusive) as of `now_ms`; returns how many candles that were.

    Parts are written as pages come in, so that an interrupted download goes on where it stopped.
    """
    start_ms, end_ms = span
    parts = _Parts(store, key, start_ms)
    try:
        for rows in pages:
            parts.add(rows)
            progress((int(rows[-1, 0]) - start_ms) / (end_ms - start_ms))
    except BaseException:
        parts.write()
        raise
    # Near "now" the exchange's clock, not ours, said where the closed candles end; the rest is asked for next time.
    parts.write(end_ms if end_ms <= now_ms - DAY_MS else None)
    return parts.fetched


def candles_of(key: SeriesKey, rows: Floats) -> Candles:
    """Rows of open time, open, high, low, close, volume as Candles."""
    return Candles(key.symbol, key.timeframe, rows[:, 0].astype(np.int64), *rows.T[1:])


class _Parts:
    """Pages on their way into the store, a part at a time."""

    def __init__(self, store: CandleStore, key: SeriesKey, start_ms: int) -> None:
        self.store, self.key, self.start_ms = store, key, start_ms
        self.pages: list[Floats] = []
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
            self.store.append(self.key, candles_of(self.key, rows), self.start_ms, end)
        self.pages, self.start_ms = [], end
