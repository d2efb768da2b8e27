"""Fetch a range of candles from an exchange into the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atb.core.types import Symbol
from atb.data.store import SeriesKey
from atb.engine.candles import COLUMNS, Candles

if TYPE_CHECKING:
    from atb.backtest.sources import Surroundings

PAGES_PER_PART = 25  # what an interruption can cost at most; a part a page would leave thousands of small files


def download(key: SeriesKey, symbol: Symbol, start_ms: int, end_ms: int, around: Surroundings) -> int:
    """Store the closed candles that open in [start_ms, end_ms); returns how many there were.

    Parts are written as pages come in, so that an interrupted download goes on where it stopped.
    """
    from atb.venue.ccxt_candles import fetch_candles

    pages, fetched, at = [], 0, start_ms
    title = f"{key.venue} {key.symbol} {key.timeframe}"
    around.progress(title, 0.0)
    source = fetch_candles(
        key.venue, symbol, key.timeframe, start_ms, end_ms, base_url=around.urls.get(key.venue), now_ms=around.now_ms
    )
    try:
        for page in source:
            pages.append(page.rows)
            fetched += len(page.rows)
            last = int(page.rows[-1, 0])
            around.progress(title, (last - start_ms) / (end_ms - start_ms))
            if len(pages) == PAGES_PER_PART:
                at = _store(key, pages, at, around)
                pages = []
    except BaseException:
        if pages:
            _store(key, pages, at, around)
        raise
    _store(key, pages, at, around, end_ms=end_ms)
    around.progress(title, 1.0)
    return fetched


def _store(
    key: SeriesKey, pages: list[np.ndarray], start_ms: int, around: Surroundings, end_ms: int | None = None  # type: ignore[type-arg]
) -> int:
    """Write pages as one part that covers [start_ms, end of the last candle); the last part reaches to `end_ms`."""
    from atb.core.timeframe import align_down, timeframe_ms

    rows = np.concatenate(pages) if pages else np.empty((0, 6))
    times = rows[:, 0].astype(np.int64)
    if end_ms is None:
        end_ms = int(times[-1]) + timeframe_ms(key.timeframe)
    else:
        end_ms = min(end_ms, align_down(around.now_ms(), key.timeframe))
    if end_ms <= start_ms:
        return start_ms
    columns = {name: rows[:, i] for i, name in enumerate(COLUMNS, 1)}
    around.store.append(key, Candles(key.symbol, key.timeframe, times, **columns), start_ms, end_ms)
    return end_ms
