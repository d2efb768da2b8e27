"""The candle store: immutable Parquet parts in the folder of their series, read as one table (layout.py says how).

Nothing is ever rewritten. A part is written whole under a name that says what is in it, and is seen when it is complete. What
puts several parts in the place of others holds the series' lock, and removes the others last: whoever is killed meanwhile leaves
the same candles twice, which reading takes for once.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from atb.core.errors import DataError
from atb.core.timeframe import LATEST_MS, timeframe_ms
from atb.data.layout import FETCHED, LEVELS, PART, Part, SeriesKey, level_of, part_name
from atb.data.parquet import Facts, encoded, read_columns, read_facts, unreadable
from atb.data.places import Entry, LocalPlace, Place, open_place
from atb.data.usage import NOT_COUNTED, Usage
from atb.data.validation import check_candles
from atb.engine.candles import COLUMNS, Candles

T = TypeVar("T")
LOCK = ".lock"
PATIENCE_S = 60.0
VANISHED = 5  # how often what is read may go while it is read: somebody merges parts


class Added(NamedTuple):
    """What became of candles that an exchange told: how many are new, and those that differ from what is stored."""

    new: int
    told: Candles | None
    stored: Candles | None


class CandleStore:
    """Series of candles below one folder, or the URL of one."""

    def __init__(self, root: Path | str | Place, usage: Usage = NOT_COUNTED) -> None:
        self.place: Place = open_place(root) if isinstance(root, str | Path) else root
        self.usage = usage
        self.patience_s = PATIENCE_S  # how long it waits for another process that works on a series

    @property
    def shown(self) -> str:
        """Where it is, for people."""
        return self.place.shown

    @property
    def is_local(self) -> bool:
        return isinstance(self.place, LocalPlace)

    def where(self, key: SeriesKey) -> str:
        """Where a series is, for people."""
        return self.place.shown_path(key.path)

    def keys(self) -> Iterator[SeriesKey]:
        """Every stored series."""
        paths: list[tuple[str, tuple[str, ...]]] = [("", ())]
        for level in LEVELS:
            paths = [
                (f"{path}/{folder}".lstrip("/"), (*values, value))
                for path, values in paths
                for folder in self._asked(path, lambda path=path: self.place.folders(path))  # type: ignore[misc]
                if (value := level_of(folder, level)) is not None
            ]
        for _, values in paths:
            yield SeriesKey(*values)

    def parts(self, key: SeriesKey) -> list[Part]:
        """The parts of a series in order of time."""
        folder = key.path
        entries = self._asked(folder, lambda: self.place.entries(folder))
        found = [_part(folder, entry) for entry in entries]
        return sorted((part for part in found if part is not None), key=lambda part: part.order)

    def missing_ranges(self, key: SeriesKey, start_ms: int, end_ms: int) -> list[tuple[int, int]]:
        """What of [start_ms, end_ms) no part covers."""
        return uncovered(self.parts(key), start_ms, end_ms)

    def wanted(self, key: SeriesKey, start_ms: int, end_ms: int, now_ms: int) -> list[tuple[int, int]]:
        """What is missing of a range that somebody needs: counted, for the share of what was there already."""
        missing = self.missing_ranges(key, start_ms, end_ms)
        step = timeframe_ms(key.timeframe)
        asked = sum(high - low for low, high in missing) // step
        total = (end_ms - start_ms) // step
        self.usage.count(key.venue, total, total - min(asked, total), now_ms)
        return missing

    def read(self, key: SeriesKey, start_ms: int | None = None, end_ms: int | None = None) -> Candles | None:
        """The stored candles that open in [start_ms, end_ms); None when there are none."""
        return self._steadily(key, lambda: self._read(key, self.parts(key), start_ms, end_ms))

    def read_parts(self, key: SeriesKey, parts: Sequence[Part]) -> Candles | None:
        """The candles of some parts, for who checks or merges them, which is no use of them. FileNotFoundError: one is gone."""
        return self._read(key, parts, None, None, used=False)

    def facts(self, part: Part) -> Facts:
        """How many candles a part has, and from when to when. FileNotFoundError when it is gone."""
        return read_facts(lambda: self.place.glance(part.path), self.place.shown_path(part.path))

    def first_ms(self, key: SeriesKey, start_ms: int) -> int | None:
        """When the first stored candle that opens at `start_ms` or later does."""
        return self._steadily(key, lambda: self._first_ms(key, start_ms))

    def append(self, key: SeriesKey, candles: Candles, start_ms: int, end_ms: int, kind: str = FETCHED) -> Part:
        """Store what was told for [start_ms, end_ms) as a new part, whatever is there. Whole or not at all."""
        digest = candles_hash(candles)
        path = f"{key.path}/{part_name(kind, start_ms, end_ms, digest)}"
        self._changed(path, lambda: self.place.write(path, encoded(candles)))
        return Part(path, start_ms, end_ms, kind, digest[:16])

    def add(self, key: SeriesKey, candles: Candles, start_ms: int, end_ms: int, kind: str = FETCHED) -> Added:
        """Store what was told for [start_ms, end_ms) as far as nothing is there yet: what is stored stays as it is.

        Of several who do so at once, each adds what the others have not.
        """
        with self.locked(key):
            new = 0
            for low, high in self.missing_ranges(key, start_ms, end_ms):
                rows = np.searchsorted(candles.open_time, (low, high)).tolist()
                self.append(key, candles.window(*rows), low, high, kind)
                new += rows[1] - rows[0]
            if new == len(candles):
                return Added(new, None, None)
            stored = self.read(key, start_ms, end_ms)
        return Added(new, *differing(candles, stored))

    def replace_parts(
        self, key: SeriesKey, candles: Candles, span: tuple[int, int], old: Sequence[Part], kind: str = FETCHED
    ) -> None:
        """One part in the place of others; they go once it is whole. To be called with the series' lock."""
        new = self.append(key, candles, *span, kind)
        for part in old:
            if part.path != new.path:
                self.remove(part)

    def get(self, key: SeriesKey, name: str) -> bytes | None:
        """A small file beside the parts of a series; None where there is none."""
        path = f"{key.path}/{name}"
        try:
            return self._asked(path, lambda: self.place.read(path))
        except FileNotFoundError:
            return None

    def put(self, key: SeriesKey, name: str, content: bytes) -> None:
        path = f"{key.path}/{name}"
        self._changed(path, lambda: self.place.write(path, content))

    def remove(self, part: Part) -> None:
        self._changed(part.path, lambda: self.place.remove(part.path))

    def set_aside(self, part: Part) -> str:
        """Put a part where nobody reads it. Where that is, for people."""
        folder, _, name = part.path.rpartition("/")
        to = f"{folder}/damaged/{name}"
        self._changed(part.path, lambda: self.place.move(part.path, to))
        return self.place.shown_path(to)

    @contextlib.contextmanager
    def locked(self, key: SeriesKey) -> Iterator[None]:
        """Alone with a series, among all processes of this machine."""
        path = f"{key.path}/{LOCK}"
        with contextlib.ExitStack() as stack:
            self._changed(path, lambda: stack.enter_context(self.place.locked(path, self.patience_s)))
            yield

    def _read(
        self, key: SeriesKey, parts: Sequence[Part], start_ms: int | None, end_ms: int | None, used: bool = True
    ) -> Candles | None:
        low, high = start_ms or 0, LATEST_MS if end_ms is None else end_ms
        chosen = [part for part in parts if part.start_ms < high and part.end_ms > low]
        if not chosen:
            return None
        read = [self._columns(part, low, high, used) for part in chosen]
        columns = read[0] if len(read) == 1 else [np.concatenate(c) for c in zip(*read, strict=True)]
        times = columns[0]
        if len(chosen) > 1 and not bool(np.all(np.diff(times) > 0)):
            inside = (times >= low) & (times < high)
            columns = _without_repeats([column[inside] for column in columns], self.where(key))
            times = columns[0]
        first, last = int(np.searchsorted(times, low)), int(np.searchsorted(times, high))
        if last <= first:
            return None
        candles = Candles(key.symbol, key.timeframe, *(column[first:last] for column in columns))
        check_candles(candles, self.where(key))
        return candles

    def _first_ms(self, key: SeriesKey, start_ms: int) -> int | None:
        found: int | None = None
        for part in self.parts(key):
            if part.end_ms <= start_ms:
                continue
            if found is not None and part.start_ms > found:  # what follows opens later
                break
            first = self.facts(part).first_ms
            if first is not None and first < start_ms:  # only the candles tell which of them is next
                candles = self._read(key, [part], start_ms, part.end_ms)
                first = None if candles is None else int(candles.open_time[0])
            if first is not None:
                found = first if found is None else min(first, found)
        return found

    def _steadily(self, key: SeriesKey, look: Callable[[], T]) -> T:
        """What `look` finds in a series whose parts others may merge meanwhile."""
        for _ in range(VANISHED):
            try:
                return look()
            except FileNotFoundError:
                continue
        # Somebody merges without a pause. Whoever has the lock is alone with the series.
        with self.locked(key), contextlib.suppress(FileNotFoundError):
            return look()
        raise DataError(f"The parts under {self.where(key)} come and go.", "Try again when nothing else works on them.")

    def _columns(self, part: Part, low: int, high: int, used: bool) -> list[npt.NDArray[Any]]:
        opened = self.place.source if used else self.place.glance
        columns = read_columns(lambda: opened(part.path), self.place.shown_path(part.path), low, high)
        if used:
            self.place.note_read(part.path, part.read_ms)
        return columns

    def _asked(self, path: str, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise unreadable(self.place.shown_path(path), error.strerror or error) from None

    def _changed(self, path: str, change: Callable[[], T]) -> T:
        try:
            return change()
        except OSError as error:
            folder = self.place.shown_path(path.rpartition("/")[0])
            hint = "Free some space, or name one that can be written: ATB_CANDLES, or ATB_HOME for all of it."
            if isinstance(error, TimeoutError):
                hint = f"Let it go on, or end it: fuser {self.place.shown_path(path)}"
            raise DataError(f"Candles cannot be stored in {folder}: {error.strerror or error}.", hint) from None


def no_candles(key: SeriesKey) -> Candles:
    """What an exchange has where it has nothing."""
    return Candles(key.symbol, key.timeframe, np.empty(0, np.int64), *(np.empty(0) for _ in COLUMNS))


def candles_hash(candles: Candles) -> str:
    """sha256 of the open times and all columns: names the data in reports, and in the names of parts."""
    digest = hashlib.sha256()
    for column in (candles.open_time, *(getattr(candles, name) for name in COLUMNS)):
        digest.update(memoryview(column).cast("B"))
    return digest.hexdigest()


def uncovered(parts: Sequence[Part], start_ms: int, end_ms: int) -> list[tuple[int, int]]:
    """What of [start_ms, end_ms) none of these parts covers; they are in order of time."""
    holes = []
    at = start_ms
    for part in parts:
        if part.start_ms > at and at < end_ms:
            holes.append((at, min(part.start_ms, end_ms)))
        at = max(at, part.end_ms)
    if at < end_ms:
        holes.append((at, end_ms))
    return holes


def differing(told: Candles, stored: Candles | None) -> tuple[Candles | None, Candles | None]:
    """The candles of both that open at the same time and are not the same; None where there are none."""
    if stored is None:
        return None, None
    at = np.minimum(np.searchsorted(stored.open_time, told.open_time), len(stored) - 1)
    both = stored.open_time[at] == told.open_time
    same = np.ones(len(told), dtype=np.bool_)
    for name in COLUMNS:
        same &= getattr(stored, name)[at] == getattr(told, name)
    rows = np.flatnonzero(both & ~same)
    return (told.take(rows), stored.take(at[rows])) if len(rows) else (None, None)


def _part(folder: str, entry: Entry) -> Part | None:
    match = PART.fullmatch(entry.name)
    if match is None:
        return None
    kind, start, end, digest = match.groups()
    return Part(
        f"{folder}/{entry.name}", int(start), int(end), kind, digest, entry.size, entry.written_ms, entry.read_ms
    )


def _without_repeats(columns: list[npt.NDArray[Any]], where: str) -> list[npt.NDArray[Any]]:
    """Rows in order of time, each once; parts that contradict each other are a DataError."""
    order = np.argsort(columns[0], kind="stable")
    columns = [column[order] for column in columns]
    repeats = np.zeros(len(order), dtype=np.bool_)
    repeats[1:] = np.diff(columns[0]) == 0
    for column in columns[1:]:
        if bool(np.any(repeats[1:] & (column[1:] != column[:-1]))):
            raise DataError(
                f"The parts under {where} contradict each other.",
                "Mend it: atb data cache-manager repair, or import the right candles with --replace.",
            )
    return [column[~repeats] for column in columns]
