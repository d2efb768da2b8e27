"""Candles of a longer timeframe from those of a shorter one: only where all of them are known, gaps of the exchange included."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from atb.core.errors import UsageError
from atb.core.timeframe import align_down, timeframe_ms
from atb.data.layout import DERIVED, SeriesKey
from atb.data.store import CandleStore
from atb.engine.candles import Candles


def resampled(candles: Candles, timeframe: str) -> Candles:
    """First open, highest, lowest, last close and summed volume of what opens within each candle of the longer timeframe."""
    step, offset = timeframe_ms(timeframe), align_down(0, timeframe)
    slots = (candles.open_time - offset) // step
    starts = np.flatnonzero(np.concatenate([[True], np.diff(slots) > 0]))
    ends = np.concatenate([starts[1:], [len(candles)]]) - 1
    return Candles(
        candles.symbol, timeframe, slots[starts] * step + offset, candles.open[starts],
        np.maximum.reduceat(candles.high, starts), np.minimum.reduceat(candles.low, starts), candles.close[ends],
        np.add.reduceat(candles.volume, starts),
    )  # fmt: skip


def derive(store: CandleStore, lower: SeriesKey, timeframe: str) -> int:
    """Add to the series of the longer timeframe what it lacks and the shorter one knows. Returns how many candles.

    UsageError where one timeframe is not a whole number of the other.
    """
    short, long = timeframe_ms(lower.timeframe), timeframe_ms(timeframe)
    if long <= short or long % short:
        raise UsageError(f"{timeframe} cannot be made of {lower.timeframe}.", "Name a shorter one that divides it.")
    key, made = lower._replace(timeframe=timeframe), 0
    for start, end in _known(store, lower, timeframe):
        candles = store.read(lower, start, end)
        if candles is not None:
            made += store.add(key, resampled(candles, timeframe), start, end, DERIVED).new
    return made


def _known(store: CandleStore, lower: SeriesKey, timeframe: str) -> Iterator[tuple[int, int]]:
    """The ranges, whole candles of the longer timeframe, of which all that is shorter was asked for."""
    step = timeframe_ms(timeframe)
    parts = store.parts(lower)
    if not parts:
        return
    begin, end = parts[0].start_ms, max(part.end_ms for part in parts)
    edges = [begin, *(edge for hole in store.missing_ranges(lower, begin, end) for edge in hole), end]
    for low, high in zip(edges[::2], edges[1::2], strict=True):
        first, last = align_down(low + step - 1, timeframe), align_down(high, timeframe)
        if last > first:
            yield first, last
