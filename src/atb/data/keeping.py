"""Which parts may go: those that nobody has read or written for long, or the oldest of them where there is too much.

Never a file that was imported, nor what a live session looks back on: nobody could say whether it can be had again in time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from atb.core.local_files import replace
from atb.core.timeframe import DAY_MS
from atb.data.layout import IMPORTED, Part, SeriesKey
from atb.data.store import CandleStore

PIN_LASTS_MS = 30 * DAY_MS  # of a session that has not said for so long that it is there
LEFT = 0.9  # of the limit, once it was passed: not each candle shall evict another


class Going(NamedTuple):
    key: SeriesKey
    part: Part


class Pins:
    """What live sessions look back on: a small file for each account, which its session removes when it ends.

    After a kill it stays, so that the next start finds its candles.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def hold(self, account: str, needed: Mapping[SeriesKey, int]) -> None:
        """needed: from when on (ms) candles of each series are looked back on."""
        rows = [[*key, since_ms] for key, since_ms in needed.items()]
        replace(self._path(account), json.dumps(rows).encode(), sync=False)

    def release(self, account: str) -> None:
        self._path(account).unlink(missing_ok=True)

    def held(self, now_ms: int) -> dict[SeriesKey, int]:
        """From when on each series is held."""
        found: dict[SeriesKey, int] = {}
        for key, since_ms in self._read(now_ms):
            found[key] = min(since_ms, found.get(key, since_ms))
        return found

    def _read(self, now_ms: int) -> Iterator[tuple[SeriesKey, int]]:
        for path in sorted(self.folder.glob("*.json")):
            try:
                old = path.stat().st_mtime * 1000 < now_ms - PIN_LASTS_MS
                rows = json.loads(path.read_text())
                found = [(SeriesKey(*map(str, row[:4])), int(row[4])) for row in rows]
            except (OSError, ValueError, LookupError, TypeError):
                continue
            if not old:
                yield from found

    def _path(self, account: str) -> Path:
        return self.folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', account)}.json"


def unused(store: CandleStore, before_ms: int, held: Mapping[SeriesKey, int]) -> list[Going]:
    """Parts that were neither read nor written since, and may go."""
    return [g for g in _may_go(store, held) if max(g.part.read_ms, g.part.written_ms) < before_ms]


def too_much(store: CandleStore, limit_bytes: int, held: Mapping[SeriesKey, int]) -> list[Going]:
    """What goes so that the store is within its limit: what was read longest ago first. Empty where it is."""
    total = sum(part.size for key in store.keys() for part in store.parts(key))  # noqa: SIM118 - a method
    if total <= limit_bytes:
        return []
    chosen = []
    for going in sorted(_may_go(store, held), key=lambda g: (g.part.read_ms, g.part.start_ms)):
        if total <= LEFT * limit_bytes:
            break
        chosen.append(going)
        total -= going.part.size
    return chosen


def remove(store: CandleStore, going: Sequence[Going]) -> None:
    for each in going:
        with store.locked(each.key):
            store.remove(each.part)


def _may_go(store: CandleStore, held: Mapping[SeriesKey, int]) -> Iterator[Going]:
    for key in store.keys():  # noqa: SIM118 - a method
        for part in store.parts(key):
            if part.kind != IMPORTED and not (key in held and part.end_ms > held[key]):
                yield Going(key, part)
