"""Fetch a range of candles from an exchange into the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atb.core.types import Symbol
from atb.data.part_writer import store_pages
from atb.data.store import SeriesKey

if TYPE_CHECKING:
    from atb.backtest.sources import Surroundings

ATTEMPTS = 4  # for each request


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
    pages = fetch_candles(
        key.venue, symbol, key.timeframe, start_ms, end_ms, base_url=around.url(key.venue), now_ms=lambda: now,
        attempts=attempts, rates=around.rates,
    )  # fmt: skip
    fetched = store_pages(
        around.store,
        key,
        (page.rows for page in pages),
        (start_ms, end_ms),
        now,
        lambda share: around.progress(title, share),
    )
    around.progress(title, 1.0)
    return fetched
