"""What an exchange said otherwise of candles that are stored: kept beside the series, never taken over by itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from atb.core.timeframe import iso
from atb.data.layout import SeriesKey
from atb.data.store import CandleStore
from atb.engine.candles import COLUMNS, Candles

NAME = "corrections.jsonl"
Numbers = dict[str, float]


class Correction(NamedTuple):
    """seen_ms: when it was said. stored, told: open, high, low, close, volume; stored is empty where there was no candle."""

    open_ms: int
    seen_ms: int
    stored: Numbers
    told: Numbers

    @property
    def changed(self) -> str:
        """By how much, for people."""
        if not self.stored:
            return "none, now there is one"
        parts = [f"{n} {self.stored[n]!r}, now {self.told[n]!r}" for n in COLUMNS if self.stored[n] != self.told[n]]
        return ", ".join(parts)


def record(store: CandleStore, key: SeriesKey, told: Candles, stored: Candles, seen_ms: int) -> list[Correction]:
    """Keep what is not kept yet. Returns all that differ now: the same may be said many times."""
    found = [
        Correction(int(told.open_time[i]), seen_ms, _numbers(stored, i), _numbers(told, i)) for i in range(len(told))
    ]
    keep(store, key, found)
    return found


def keep(store: CandleStore, key: SeriesKey, found: Sequence[Correction]) -> None:
    """Keep those that are not kept yet."""
    with store.locked(key):
        known = read(store, key)
        seen = {(c.open_ms, *c.told.values()) for c in known}
        new = [c for c in found if (c.open_ms, *c.told.values()) not in seen]
        if new:
            store.put(key, NAME, "".join(_line(c) for c in [*known, *new]).encode())


def read(store: CandleStore, key: SeriesKey) -> list[Correction]:
    """All that were ever said of a series, in the order in which they were."""
    lines = (store.get(key, NAME) or b"").decode().splitlines()
    rows = [json.loads(line) for line in lines]
    return [Correction(row["open_ms"], row["seen_ms"], row["stored"], row["told"]) for row in rows]


def _numbers(candles: Candles, i: int) -> Numbers:
    return {name: float(getattr(candles, name)[i]) for name in COLUMNS}


def _line(c: Correction) -> str:
    row = {"open_time": iso(c.open_ms), "open_ms": c.open_ms, "seen_ms": c.seen_ms, "stored": c.stored, "told": c.told}
    return json.dumps(row) + "\n"
