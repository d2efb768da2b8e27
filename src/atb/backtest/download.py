"""Fetch a range of candles from an exchange into the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atb.core.timeframe import DAY_MS, timeframe_ms
from atb.core.types import Symbol
from atb.data.store import CandleStore, SeriesKey
from atb.engine.candles import Candles, Floats

if TYPE_CHECKING:
    from atb.backtest.sources import Surroundings

ATTEMPTS = 4  # for each request
PAGES_PER_PART = 25  # what an interruption can cost at most; a part a page would leave thousands of small files


def download(
    key: SeriesKey, symbol: Symbol, start_ms: int, end_ms: int, around: Surroundings, attempts: int = ATTEMPTS
) -> int:
    """Store the closed candles that open in [start_ms, end_ms); returns how many there were.

    Parts are written as pages come in, so that an interrupted download goes on where it stopped.
    """
    from atb.venue.ccxt_candles import fetch_candles

    now = around.now_ms()  # read once: what closes during the download is neither fetched nor taken as fetched
    title = f"{key.venue} {key.symbol} {key.timeframe}"
    around.progress(title, 0.0)
    parts = _Parts(key, around.store, start_ms)
    url = around.urls.get(key.venue)
    source = fetch_candles(
        key.venue,
        symbol,
        key.timeframe,
        start_ms,
        end_ms,
        base_url=url,
        now_ms=lambda: now,
        attempts=attempts,
        rates=around.rates,
    )
    try:
        for page in source:
            parts.add(page.rows)
            around.progress(title, (int(page.rows[-1, 0]) - start_ms) / (end_ms - start_ms))
    except BaseException:
        parts.write()
        raise
    # Near "now" the exchange's clock, not ours, said where the closed candles end; the rest is asked for next time.
    parts.write(end_ms if end_ms <= now - DAY_MS else None)
    around.progress(title, 1.0)
    return parts.fetched


class _Parts:
    """Pages on their way into the store, a part at a time."""

    def __init__(self, key: SeriesKey, store: CandleStore, start_ms: int) -> None:
        self.key, self.store, self.start_ms = key, store, start_ms
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
        times = rows[:, 0].astype(np.int64)
        end = int(times[-1]) + timeframe_ms(self.key.timeframe) if end_ms is None else end_ms
        if end > self.start_ms:
            candles = Candles(self.key.symbol, self.key.timeframe, times, *rows.T[1:])
            self.store.append(self.key, candles, self.start_ms, end)
        self.pages, self.start_ms = [], end
