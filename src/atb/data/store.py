"""The candle store: immutable Parquet parts under venue/market/symbol/timeframe, read as one table.

A part's name says which range was asked of the exchange, `part-FROM-TO-HASH.parquet` (ms, end exclusive): a hole in it
is the exchange's own, and what no part covers has not been asked for. Any Parquet tool reads the folder as one table.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from atb.core.errors import DataError
from atb.core.timeframe import LATEST_MS
from atb.core.types import Symbol
from atb.data.arrow import numbers, times_ms
from atb.data.validation import check_candles
from atb.engine.candles import COLUMNS, Candles

PART = re.compile(r"part-(\d+)-(\d+)-[0-9a-f]{16}\.parquet")


class Part(NamedTuple):
    """One file and the range it covers, ms, end exclusive."""

    path: Path
    start_ms: int
    end_ms: int


class SeriesKey(NamedTuple):
    """Which series: venue, market, the exchange's own symbol, timeframe."""

    venue: str
    market: str
    symbol: str
    timeframe: str


def series_key(venue: str, symbol: Symbol, timeframe: str) -> SeriesKey:
    return SeriesKey(venue, symbol.market, symbol.id, timeframe)


class CandleStore:
    """Series of candles below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: SeriesKey) -> Path:
        return self.root.joinpath(*key)

    def keys(self) -> Iterator[SeriesKey]:
        """Every stored series."""
        if self.root.exists():
            _check_readable(self.root)
        for folder in sorted(self.root.glob("*/*/*/*")):
            if folder.is_dir():
                yield SeriesKey(*folder.relative_to(self.root).parts)

    def parts(self, key: SeriesKey) -> list[Part]:
        """The parts of a series in order of time."""
        folder = self.folder(key)
        try:
            entries = list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _unreadable(folder, error) from None
        found = []
        for entry in entries:
            match = PART.fullmatch(entry.name)
            if match:
                found.append(Part(Path(entry.path), int(match.group(1)), int(match.group(2))))
        return sorted(found, key=lambda part: (part.start_ms, part.end_ms, part.path.name))

    def missing_ranges(self, key: SeriesKey, start_ms: int, end_ms: int) -> list[tuple[int, int]]:
        """What of [start_ms, end_ms) no part covers."""
        holes = []
        at = start_ms
        for part in self.parts(key):
            if part.start_ms > at and at < end_ms:
                holes.append((at, min(part.start_ms, end_ms)))
            at = max(at, part.end_ms)
        if at < end_ms:
            holes.append((at, end_ms))
        return holes

    def read(self, key: SeriesKey, start_ms: int | None = None, end_ms: int | None = None) -> Candles | None:
        """The stored candles that open in [start_ms, end_ms); None when there are none."""
        chosen = [
            part
            for part in self.parts(key)
            if (end_ms is None or part.start_ms < end_ms) and (start_ms is None or part.end_ms > start_ms)
        ]
        if not chosen:
            return None
        columns = [np.concatenate(c) for c in zip(*(_read_part(part.path) for part in chosen), strict=True)]
        times = columns[0]
        if len(chosen) > 1 and not bool(np.all(np.diff(times) > 0)):
            inside = (times >= (start_ms or 0)) & (times < (LATEST_MS if end_ms is None else end_ms))
            columns = _without_repeats([column[inside] for column in columns], self.folder(key))
            times = columns[0]
        low = 0 if start_ms is None else int(np.searchsorted(times, start_ms))
        high = len(times) if end_ms is None else int(np.searchsorted(times, end_ms))
        if high <= low:
            return None
        candles = Candles(key.symbol, key.timeframe, *(column[low:high] for column in columns))
        check_candles(candles, str(self.folder(key)))
        return candles

    def append(self, key: SeriesKey, candles: Candles, start_ms: int, end_ms: int) -> Path:
        """Store what the exchange answered for [start_ms, end_ms) as a new part. Whole or not at all."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder = self.folder(key)
        table = pa.table(
            {
                "open_time": pa.array(candles.open_time, pa.timestamp("ms", tz="UTC")),
                **{name: getattr(candles, name) for name in COLUMNS},
            }
        )
        path = folder / f"part-{start_ms}-{end_ms}-{candles_hash(candles)[:16]}.parquet"
        temporary = folder / f".{path.name}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise DataError(
                f"Candles cannot be stored in {folder}: {error.strerror or error}.",
                "Free some space, or point ATB_HOME at a folder that can be written.",
            ) from None
        finally:
            with contextlib.suppress(OSError):  # also after Ctrl-C; once it has its name there is nothing to remove
                temporary.unlink()
        return path


def candles_hash(candles: Candles) -> str:
    """sha256 of the open times and all columns: names the data in reports."""
    digest = hashlib.sha256()
    for column in (candles.open_time, *(getattr(candles, name) for name in COLUMNS)):
        digest.update(memoryview(column).cast("B"))
    return digest.hexdigest()


def _without_repeats(columns: list[npt.NDArray[Any]], folder: Path) -> list[npt.NDArray[Any]]:
    """Rows in order of time, each once; parts that contradict each other are a DataError."""
    order = np.argsort(columns[0], kind="stable")
    columns = [column[order] for column in columns]
    repeats = np.zeros(len(order), dtype=np.bool_)
    repeats[1:] = np.diff(columns[0]) == 0
    for column in columns[1:]:
        if bool(np.any(repeats[1:] & (column[1:] != column[:-1]))):
            raise DataError(
                f"The parts under {folder} contradict each other.", "Import the right candles again with --replace."
            )
    return [column[~repeats] for column in columns]


def _check_readable(folder: Path) -> None:
    """`Path.glob` takes an unreadable folder for an empty one."""
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise _unreadable(folder, error) from None


def _unreadable(path: Path, error: OSError) -> DataError:
    hint = f"Who may: ls -ld '{path}'. Make it readable, or point ATB_HOME at another folder."
    return DataError(f"{path} cannot be read: {error.strerror}.", hint)


def _read_part(path: Path) -> list[npt.NDArray[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read(columns=["open_time", *COLUMNS])
        return [times_ms(table.column("open_time")), *(numbers(table.column(name)) for name in COLUMNS)]
    except PermissionError as error:  # Arrow's own have no strerror
        raise _unreadable(path, PermissionError(error.errno, error.strerror or "Permission denied")) from None
    except (pa.ArrowException, OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        said = str(error).split("\n")[0].rstrip(".")
        raise DataError(f"{path} is damaged: {said}.", f"Remove it; it is fetched again: rm '{path}'") from None
