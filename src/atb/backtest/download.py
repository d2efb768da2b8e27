"""Fetch a range of candles from an exchange into the store, and say how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atb.core.timeframe import iso_minute
from atb.core.types import Symbol
from atb.data.layout import SeriesKey
from atb.market.filling import ATTEMPTS, Asking, fill

if TYPE_CHECKING:
    from atb.backtest.sources import Surroundings


def download(
    key: SeriesKey, symbol: Symbol, start_ms: int, end_ms: int, around: Surroundings, attempts: int = ATTEMPTS
) -> int:
    """Store the closed candles that open in [start_ms, end_ms); returns how many there were."""
    now = around.now_ms()  # read once: what closes during the download is neither fetched nor taken as fetched
    title = f"{key.venue} {key.symbol} {key.timeframe}"
    around.progress(title, 0.0)
    asking = Asking(around.url, around.rates, attempts, around.timeout_s())
    stored = fill(
        around.store, key, symbol, (start_ms, end_ms), now, asking, lambda share: around.progress(title, share)
    )
    around.progress(title, 1.0)
    for each in stored.corrections:
        around.warn(f"{title} of {iso_minute(each.open_ms)} is stored with {each.changed}; what is stored stays.")
    return stored.candles
