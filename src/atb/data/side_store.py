"""Side series in Parquet, in folders as Hive names them, so that other tools read them as they are:

    name=funding_rate/venue=binanceusdm/symbol=BTCUSDT/part-FROM-TO-HASH.parquet      columns time, available, value

Parts are written whole under a name that says what is in them. The same row in two of them counts once, so whoever is killed
while he merges leaves nothing wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from atb.core.errors import DataError, UsageError
from atb.data.arrow import numbers, times_ms
from atb.data.layout import FETCHED, IMPORTED, PART, Part, level_of, part_name
from atb.data.parquet import explained, opened
from atb.data.places import Place, open_place
from atb.data.side_revisions import news_of, without_repeats
from atb.engine.sides import NO_ROWS, Side, SideRows, joined_rows

T = TypeVar("T")
LEVELS = ("name", "venue", "symbol")
ANY = "all"  # the folder of what belongs to no symbol; no exchange writes one in small letters
LOCK, PATIENCE_S = ".lock", 30.0
MOST_PARTS = 16  # a series is small: with so many parts it is written anew as one
VANISHED = 5


class SideKey(NamedTuple):
    """Which series. symbol: the exchange's own, empty where the series belongs to none."""

    name: str
    venue: str
    symbol: str = ""

    @property
    def path(self) -> str:
        return "/".join(f"{level}={value or ANY}" for level, value in zip(LEVELS, self, strict=True))

    @property
    def shown(self) -> str:
        return " ".join(filter(None, self))


class SideStore:
    """Side series below one folder, or the URL of one."""

    def __init__(self, root: Path | str) -> None:
        self.place: Place = open_place(root)
        self.patience_s = PATIENCE_S

    @property
    def shown(self) -> str:
        return self.place.shown

    def where(self, key: SideKey) -> str:
        return self.place.shown_path(key.path)

    def keys(self) -> list[SideKey]:
        """Every stored series."""
        paths: list[tuple[str, tuple[str, ...]]] = [("", ())]
        for level in LEVELS:
            paths = [
                (f"{path}/{folder}".lstrip("/"), (*values, value))
                for path, values in paths
                for folder in self._asked(path, lambda path=path: self.place.folders(path))  # type: ignore[misc]
                if (value := level_of(folder, level)) is not None
            ]
        found = [SideKey(name, venue, "" if symbol == ANY else symbol) for _, (name, venue, symbol) in paths]
        return [key for key in found if self.parts(key)]

    def find(self, side: Side, symbol: str) -> SideKey:
        """The stored series that a declaration means for candles of `symbol`. DataError where there is none, or several."""
        known = [key for key in self.keys() if key.name == side.name and side.venue in (None, key.venue)]
        wanted = side.symbol or symbol
        found = [key for key in known if key.symbol == wanted]
        if not found and side.symbol is None:
            found = [key for key in known if not key.symbol]
        if len(found) == 1:
            return found[0]
        if found:
            venues = ", ".join(key.venue for key in found)
            hint = f'Say which in the strategy: side("{side.name}", venue="{found[0].venue}")'
            raise DataError(f"{side.name} of {wanted} is stored of several venues: {venues}.", hint)
        raise DataError(f"No side series {side.name} for {wanted} is stored.", how_to_get(side, wanted))

    def parts(self, key: SideKey) -> list[Part]:
        """Sorted by name."""
        entries = self._asked(key.path, lambda: self.place.entries(key.path))
        found = [(entry, PART.fullmatch(entry.name)) for entry in entries]
        parts = [
            Part(f"{key.path}/{entry.name}", int(m[2]), int(m[3]), m[1], m[4], entry.size, entry.written_ms)
            for entry, m in found
            if m is not None
        ]
        return sorted(parts, key=lambda part: part.name)

    def read(self, key: SideKey) -> SideRows:
        """All rows, ordered; none where nothing is stored."""
        return self._whole(key)[1]

    def add(self, key: SideKey, rows: SideRows, told_ms: int | None, kind: str = FETCHED) -> int:
        """Store what is new of `rows`; how many that is.

        A value that is stored otherwise is a revision, a further row: of the time that `rows` gives it, or (told_ms) of the
        moment at which it was told. DataError where rows contradict each other; nothing is stored then.
        """
        with self._locked(key):
            parts, stored = self._whole(key)
            new = news_of(stored, rows, told_ms, self.where(key))
            if len(new.time_ms) == 0:
                return 0
            old = parts if len(parts) >= MOST_PARTS else []
            kept = IMPORTED if any(part.kind == IMPORTED for part in old) else kind
            self._write(key, joined_rows([stored, new]) if old else new, kept)
            for part in old:
                self._changed(key, lambda path=part.path: self.place.remove(path))  # type: ignore[misc]
            return len(new.time_ms)

    def remove(self, key: SideKey) -> int:
        """Remove a series; how many files that were."""
        with self._locked(key):
            parts = self.parts(key)
            for part in parts:
                self._changed(key, lambda path=part.path: self.place.remove(path))  # type: ignore[misc]
        return len(parts)

    def _whole(self, key: SideKey) -> tuple[list[Part], SideRows]:
        """The parts, and the rows of just these."""
        for _ in range(VANISHED):
            parts = self.parts(key)
            try:
                return parts, self._read(key, parts)
            except FileNotFoundError:  # merged a moment ago
                continue
        raise DataError(f"The parts under {self.where(key)} come and go.", "Try again when nothing else works on them.")

    def _write(self, key: SideKey, rows: SideRows, kind: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        utc = pa.timestamp("ms", tz="UTC")
        columns = {
            "time": pa.array(rows.time_ms, utc),
            "available": pa.array(rows.available_ms, utc),
            "value": rows.value,
        }
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink, compression="zstd", write_page_checksum=True)
        digest = hashlib.sha256(b"".join(column.tobytes() for column in rows)).hexdigest()
        name = part_name(kind, int(rows.time_ms.min()), int(rows.time_ms.max()) + 1, digest)
        self._changed(key, lambda: self.place.write(f"{key.path}/{name}", sink.getvalue()))

    def _read(self, key: SideKey, parts: Sequence[Part]) -> SideRows:
        if not parts:
            return NO_ROWS
        rows = joined_rows([self._rows(part) for part in parts])
        return rows if len(parts) == 1 else without_repeats(rows, self.where(key))

    def _rows(self, part: Part) -> SideRows:
        shown = self.place.shown_path(part.path)
        remedy = "Move it away, and fetch or import the series again."
        with (
            explained(shown, remedy), self.place.source(part.path) as source, opened(source) as (file, threads),
        ):  # fmt: skip
            table = file.read(["time", "available", "value"], use_threads=threads)
            times, available = (times_ms(table.column(name)) for name in ("time", "available"))
            return SideRows(times, available, np.asarray(numbers(table.column("value")), np.float64))

    @contextlib.contextmanager
    def _locked(self, key: SideKey) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            path = f"{key.path}/{LOCK}"
            self._changed(key, lambda: stack.enter_context(self.place.locked(path, self.patience_s)))
            yield

    def _asked(self, path: str, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except OSError as error:
            shown = self.place.shown_path(path)
            raise DataError(
                f"{shown} cannot be read: {error.strerror or error}.", f"Who may: ls -ld '{shown}'"
            ) from None

    def _changed(self, key: SideKey, change: Callable[[], T]) -> T:
        try:
            return change()
        except OSError as error:
            hint = "Free some space, or point ATB_SIDES at a folder that can be written."
            if isinstance(error, TimeoutError):
                hint = "Another process writes it: try again when it has ended."
            raise DataError(f"{self.where(key)} cannot be written: {error.strerror or error}.", hint) from None


# What can be downloaded, and as whose.
DOWNLOADABLE = {"funding_rate": "binanceusdm", "open_interest": "binanceusdm", "fear_greed": "alternative.me"}


def how_to_get(side: Side, symbol: str) -> str:
    """The next command, where a series is not stored."""
    whose = "" if side.name == "fear_greed" else f" {symbol}"
    given = f"atb data side import FILE --name {side.name}{f' --symbol {symbol}' if whose else ''} --delay 1d"
    if side.name in DOWNLOADABLE and side.venue in (None, DOWNLOADABLE[side.name]):
        return f"Fetch it: atb data side download {side.name}{whose}; or {given}"
    return f"Import it: {given}"


def last_known(rows: SideRows) -> tuple[int, int, float] | None:
    """(time, available, value) of the newest time, as it was told last."""
    if len(rows.time_ms) == 0:
        return None
    i = int(np.lexsort((rows.available_ms, rows.time_ms))[-1])
    return int(rows.time_ms[i]), int(rows.available_ms[i]), float(rows.value[i])


def checked_key(name: str, venue: str, symbol: str | None) -> SideKey:
    """A key as a user writes it; a UsageError where a folder cannot be called so."""
    for what, text in (("--venue", venue), ("--symbol", symbol)):
        if text is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
            raise UsageError(
                f"{what} '{text}' is no name.", "Letters, digits, point, - and _, as in binanceusdm, BTCUSDT."
            )
    if symbol is not None and symbol != symbol.upper():
        raise UsageError(f"--symbol '{symbol}' is not as an exchange writes it.", f"Write {symbol.upper()}.")
    return SideKey(name, venue, symbol or "")
