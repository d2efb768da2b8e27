"""Many small parts become few: what is stored candle by candle, or page by page, is read as fast as what came at once.

Parts of about the same size that follow each other are merged when there are enough of them, so that a candle is rewritten a few
times at the most, however long its series grows, and a large part never for the sake of a small one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from atb.data.layout import Part, SeriesKey
from atb.data.store import CandleStore, no_candles
from atb.engine.candles import COLUMNS, Ints

SIZES = (65_536, 1_048_576, 16_777_216)  # bytes: parts below each of them are merged with each other
ENOUGH = 16


def compact(store: CandleStore, key: SeriesKey, enough: int = ENOUGH) -> int:
    """Merge runs of at least `enough` small parts; remove what a merge that was cut off has left. Returns how many went."""
    with store.locked(key):
        gone = _remove_repeated(store, key)
        for size in SIZES:
            for run in list(_runs(store.parts(key), size)):
                if len(run) >= enough:
                    gone += _merge(store, key, run)
    return gone


def _runs(parts: list[Part], size: int) -> Iterator[list[Part]]:
    """Parts of one kind below a size, each beginning where the one before it ends."""
    run: list[Part] = []
    for part in parts:
        if run and (part.start_ms != run[-1].end_ms or part.kind != run[-1].kind or part.size >= size):
            yield run
            run = []
        if part.size < size:
            run.append(part)
    if run:
        yield run


def _merge(store: CandleStore, key: SeriesKey, run: list[Part]) -> int:
    candles = store.read_parts(key, run)
    if candles is None:  # all of it is a hole of the exchange
        candles = no_candles(key)
    store.replace_parts(key, candles, (run[0].start_ms, run[-1].end_ms), run, run[0].kind)
    return len(run) - 1


def _remove_repeated(store: CandleStore, key: SeriesKey) -> int:
    """Parts all of which another part has, too."""
    parts, gone = store.parts(key), 0
    if all(one.end_ms <= other.start_ms for one, other in pairwise(parts)):
        return 0
    for part in parts:
        if any(_is_inside(part, other) and _same(store, key, part, other) for other in parts):
            store.remove(part)
            gone += 1
    return gone


def _is_inside(part: Part, other: Part) -> bool:
    """Whether the other is of the same kind and larger."""
    if part.kind != other.kind or not (other.start_ms <= part.start_ms and part.end_ms <= other.end_ms):
        return False
    return other.end_ms - other.start_ms > part.end_ms - part.start_ms


def _same(store: CandleStore, key: SeriesKey, part: Part, whole: Part) -> bool:
    one, other = store.read_parts(key, [part]), store.read_parts(key, [whole])
    if one is None or other is None:
        return one is None and (other is None or not _any_inside(other.open_time, part))
    low, high = np.searchsorted(other.open_time, (part.start_ms, part.end_ms)).tolist()
    names = ("open_time", *COLUMNS)
    return all(np.array_equal(getattr(one, name), getattr(other, name)[low:high]) for name in names)


def _any_inside(times: Ints, part: Part) -> bool:
    low, high = np.searchsorted(times, (part.start_ms, part.end_ms)).tolist()
    return bool(high > low)
