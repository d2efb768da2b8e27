"""Is what is stored what was written? Each part against its name, its range and the rules of candles, and against the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from atb.core.errors import DataError
from atb.core.timeframe import iso_minute
from atb.data.layout import Part, SeriesKey
from atb.data.store import CandleStore, candles_hash, differing, no_candles


class Fault(NamedTuple):
    """A part that cannot be believed, and why. other: the part that says otherwise, where that is the trouble."""

    key: SeriesKey
    part: Part
    what: str
    other: Part | None = None


class Checked(NamedTuple):
    parts: int
    candles: int
    faults: list[Fault]


def check_store(
    store: CandleStore, keys: Sequence[SeriesKey], progress: Callable[[SeriesKey, float], None] = lambda *_: None
) -> Checked:
    """Every part of these series, read to its last byte."""
    parts = candles = 0
    faults: list[Fault] = []
    for i, key in enumerate(keys):
        progress(key, (i + 0.5) / len(keys))
        mine = store.parts(key)
        good = []
        for part in mine:
            count, what = check_part(store, key, part)
            candles += count
            if what:
                faults.append(Fault(key, part, what))
            else:
                good.append(part)
        faults += _contradictions(store, key, good)
        parts += len(mine)
    return Checked(parts, candles, faults)


def check_part(store: CandleStore, key: SeriesKey, part: Part) -> tuple[int, str]:
    """How many candles it holds, and what is wrong with it; empty where nothing is."""
    try:
        candles = store.read_parts(key, [part]) or no_candles(key)
    except DataError as error:
        return 0, error.what
    except FileNotFoundError:  # merged with others a moment ago
        return 0, ""
    if candles_hash(candles)[:16] != part.digest:
        return len(candles), "its candles are not those that its name was made from"
    if len(candles) and not (part.start_ms <= candles.open_time[0] and candles.open_time[-1] < part.end_ms):
        return len(candles), f"it holds candles beyond its range, which ends {iso_minute(part.end_ms)}"
    return len(candles), ""


def _contradictions(store: CandleStore, key: SeriesKey, parts: list[Part]) -> list[Fault]:
    """Of parts that overlap and tell the same candle otherwise: the one that was written later."""
    found: dict[str, Fault] = {}
    open_: list[Part] = []  # those before that reach into this one
    for part in parts:
        open_ = [other for other in open_ if other.end_ms > part.start_ms]
        for other in open_:
            first, second = store.read_parts(key, [other]), store.read_parts(key, [part])
            told = None if first is None or second is None else differing(second, first)[0]
            if told is not None:
                later, earlier = (part, other) if part.written_ms >= other.written_ms else (other, part)
                what = f"{len(told)} of its candles are others than in {earlier.name}"
                found.setdefault(later.path, Fault(key, later, what, earlier))
        open_.append(part)
    return list(found.values())
