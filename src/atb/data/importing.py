"""Bring candles into the store beside what is there: never two versions of one candle."""

from __future__ import annotations

import numpy as np

from atb.core.errors import DataError
from atb.core.timeframe import iso, timeframe_ms
from atb.core.words import counted
from atb.data.layout import IMPORTED, Part, SeriesKey
from atb.data.store import CandleStore, differing
from atb.engine.candles import COLUMNS, Candles


def drop_unfinished(candles: Candles, now_ms: int) -> tuple[Candles, int]:
    """The candles that have closed by `now_ms`, and how many had not. DataError when none has."""
    closed = int(np.searchsorted(candles.open_time, now_ms - timeframe_ms(candles.timeframe), side="right"))
    if closed == 0:
        raise DataError(f"No candle has closed yet; the first opens at {iso(int(candles.open_time[0]))}.")
    return candles.window(0, closed), len(candles) - closed


def import_candles(store: CandleStore, key: SeriesKey, candles: Candles, *, replace: bool) -> int:
    """Store the candles that are not there yet; returns how many were stored.

    A candle that differs from the stored one is a DataError, unless `replace` puts it in the stored one's place.
    """
    start, end = int(candles.open_time[0]), int(candles.open_time[-1]) + timeframe_ms(key.timeframe)
    with store.locked(key):
        old = [part for part in store.parts(key) if part.start_ms < end and part.end_ms > start]
        if replace and old:
            return _replace(store, key, candles, old)
        missing = store.missing_ranges(key, start, end)
        if other := _others(store, key, candles, missing):
            first = iso(other[0])
            raise DataError(
                f"{_differ(len(other))}, the first at {first}; nothing was imported.",
                "If the file is right: import it again with --replace.",
            )
        stored = 0
        for low, high in missing:
            rows = np.searchsorted(candles.open_time, (low, high)).tolist()
            store.append(key, candles.window(*rows), low, high, IMPORTED)
            stored += rows[1] - rows[0]
    return stored


def _differ(number: int) -> str:
    if number == 1:
        return "1 candle differs from the one that is stored"
    return f"{counted(number, 'candle')} differ from those that are stored"


def _others(store: CandleStore, key: SeriesKey, candles: Candles, missing: list[tuple[int, int]]) -> list[int]:
    """The open times of candles that the store has with other numbers, or knows not to exist."""
    times = candles.open_time
    known = np.ones(len(times), dtype=np.bool_)
    for low, high in missing:
        known &= (times < low) | (times >= high)
    stored = store.read(key, int(times[0]), int(times[-1]) + 1)
    if stored is None:
        return [int(at) for at in times[known]]
    absent = times[known & ~np.isin(times, stored.open_time)]
    told, _ = differing(candles, stored)
    return sorted({*absent.tolist(), *([] if told is None else told.open_time.tolist())})


def _replace(store: CandleStore, key: SeriesKey, candles: Candles, old: list[Part]) -> int:
    """One new part in the place of the old ones, which overlap it; they go once it is whole."""
    start, end = int(candles.open_time[0]), int(candles.open_time[-1]) + timeframe_ms(key.timeframe)
    low, high = min(start, old[0].start_ms), max(end, *(part.end_ms for part in old))
    # What the old parts say about the range itself is not asked: they may contradict each other there.
    pieces = [p for p in (store.read(key, low, start), candles, store.read(key, end, high)) if p is not None]
    columns = [np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("open_time", *COLUMNS)]
    store.replace_parts(key, Candles(key.symbol, key.timeframe, *columns), (low, high), old, IMPORTED)
    return len(candles)
