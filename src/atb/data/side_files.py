"""Side series from the user's own files: Parquet or CSV with a time, a value, and from when on it was known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from atb.core.errors import DataError, UsageError, nearest
from atb.core.timeframe import iso
from atb.data.csv_text import line_of, plain, read_csv
from atb.data.files import CSV_ENDINGS, TIME_NAMES, floats, times_of
from atb.data.parquet import explained
from atb.data.validation import row_number
from atb.engine.candles import Ints
from atb.engine.sides import SideRows, ordered

if TYPE_CHECKING:
    import pyarrow as pa

HINT = "Columns: time value, and available where it is known (all times in UTC, ISO text or ms since 1970)."


class Columns(NamedTuple):
    """What they are called in the file; empty: as usual."""

    time: str = ""
    value: str = ""
    available: str = ""


def load_side_file(path: Path, columns: Columns, delay_ms: int | None) -> tuple[SideRows, bool]:
    """The rows of a file, and whether it says itself from when on they were known; else `delay_ms` after their time.

    UsageError where neither is so, and for a file that is not there or of another kind; DataError for what is in it.
    """
    if not path.is_file():
        raise UsageError(f"Data file {path} does not exist.", HINT)
    if path.name.lower().endswith(CSV_ENDINGS):
        texts = tuple(plain(name) for name in (columns.time, columns.available, *TIME_NAMES, "available") if name)
        table = read_csv(path, (plain(columns.value or "value"),), texts, HINT, "rows")
        return _rows_of(table, path, columns, delay_ms, lambda index: f"line {line_of(path, index)}")
    if not path.name.lower().endswith(".parquet"):
        raise UsageError(f"Data file {path} is neither .parquet nor .csv.", HINT)
    import pyarrow.parquet as pq

    with explained(str(path), "It may be truncated."), pq.ParquetFile(path, page_checksum_verification=True) as file:
        table = file.read()
    return _rows_of(table, path, columns, delay_ms, row_number)


def _rows_of(
    table: pa.Table, path: Path, columns: Columns, delay_ms: int | None, where: Callable[[int], str]
) -> tuple[SideRows, bool]:  # fmt: skip
    origin = str(path)
    known = {plain(name): name for name in table.column_names}
    time_name = _found(known, origin, columns.time, ("time", *TIME_NAMES))
    value_name = _found(known, origin, columns.value, ("value",))
    has_available = bool(columns.available) or "available" in known
    if not has_available and delay_ms is None:
        raise UsageError(
            f"{origin} does not say from when on its values were known.",
            "Add --delay: how long after its time each was there, as in --delay 1d. Too short a delay is look-ahead.",
        )
    if has_available and delay_ms is not None:
        raise UsageError(f"{origin} has a column of when its values were known.", "Leave out --delay.")
    if table.num_rows == 0:
        raise DataError(f"{origin} holds no rows.", HINT)
    times = times_of(table.column(time_name), origin, where, plain(time_name), HINT)
    value = floats(table.column(value_name), origin, plain(value_name), where, HINT)
    _refuse(~np.isfinite(value), origin, where, plain(value_name), lambda i: f"{value[i]} is no number to decide on.")
    if not has_available:
        return ordered(SideRows(times, times + (delay_ms or 0), value)), False
    name = _found(known, origin, columns.available, ("available",))
    available = times_of(table.column(name), origin, where, plain(name), HINT)
    before = f"is before the time that it is about, column {plain(time_name)}."
    _refuse(available < times, origin, where, plain(name), lambda i: f"{iso(int(available[i]))} {before}")
    return ordered(SideRows(times, available, value)), True


def _found(known: dict[str, str], origin: str, asked: str, usual: tuple[str, ...]) -> str:
    """The file's own name of a column."""
    names = (plain(asked),) if asked else usual
    name = next((known[each] for each in names if each in known), None)
    if name is None:
        has = f"it has {', '.join(known.values())}" if known else "it has none of these"
        hint = f"{nearest(names[0], sorted(known))} Say which: --{usual[0]}-column NAME" if known else HINT
        raise DataError(f"{origin}: column {names[0]} is missing ({has}).", hint)
    return name


def _refuse(bad: Ints | object, origin: str, where: Callable[[int], str], name: str, say: Callable[[int], str]) -> None:
    wrong = np.asarray(bad)
    if wrong.any():
        index = int(np.argmax(wrong))
        raise DataError(f"{origin}: column {name}, {where(index)}: {say(index)}", HINT)
