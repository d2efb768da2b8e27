"""Candles from the user's own files: Parquet or CSV, with errors that name the file, the line or row, and the column."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from atb.core.errors import DataError, UsageError, nearest
from atb.core.timeframe import DAY_MS, HOUR_MS, LATEST_MS, MINUTE_MS, SECOND_MS
from atb.data.arrow import MS_PER_UNIT, numbers, times_ms
from atb.data.csv_text import line_of, plain, read_csv, unreadable
from atb.data.validation import (
    EARLIEST_MS,
    Where,
    check_candles,
    check_order,
    commonest_step,
    infer_timeframe,
    row_number,
)
from atb.engine.candles import COLUMNS, Candles, Floats, Ints

if TYPE_CHECKING:
    import pyarrow as pa

TIME_NAMES = ("open_time", "timestamp", "time", "date", "datetime", "open time")
HINT = "Columns: open_time open high low close volume; open_time in UTC, as ISO text or ms since 1970."
CSV_ENDINGS = (".csv", ".txt", ".tsv", ".csv.gz")


def load_file(path: Path, symbol: str, timeframe: str | None, option: str = "--timeframe") -> Candles:
    """The candles of a Parquet or CSV file, validated. `timeframe` None: told from the distance of the candles.

    UsageError for a file that is not there or of another kind, DataError for what is in it; `option` is how the
    command calls the timeframe.
    """
    _refuse_unknown_letters(path)
    name = path.name.lower()
    if not _is_data(name) and path.exists():
        what = "a folder, not a file" if path.is_dir() else "neither .parquet nor .csv"
        raise UsageError(f"Data file {path} is {what}.", HINT)
    if not path.is_file():
        known = sorted(p.name for p in path.parent.glob("*.*") if p.is_file()) if path.parent.is_dir() else []
        known = [other for other in known if _is_data(other.lower())]
        raise UsageError(f"Data file {path} does not exist.", nearest(path.name, known) if known else HINT)
    if name.endswith(".parquet"):
        return table_to_candles(_read_parquet(path), str(path), symbol, timeframe, row_number, option)
    table = read_csv(path, COLUMNS, TIME_NAMES, HINT)
    return table_to_candles(table, str(path), symbol, timeframe, lambda index: f"line {line_of(path, index)}", option)


def _refuse_unknown_letters(path: Path) -> None:
    """In a locale without its letters a name arrives as bytes that Arrow cannot take."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        hint = "Set one in UTF-8, as in LC_ALL=C.UTF-8, or rename the file."
        raise UsageError(f"The name of the data file {path} has letters that this locale lacks.", hint) from None


def _is_data(name: str) -> bool:
    return name.endswith((".parquet", *CSV_ENDINGS))


def table_to_candles(
    table: pa.Table, origin: str, symbol: str, timeframe: str | None, where: Where, option: str = "--timeframe"
) -> Candles:
    """Candles from an Arrow table with the usual columns (any capitalisation); `where` says where a row stands."""
    names = _names(table.column_names, origin)
    if table.num_rows == 0:
        raise DataError(f"{origin} holds no candles.")
    open_time = times_of(table.column(names["open_time"]), origin, where)
    check_order(open_time, origin, where)
    timeframe = _timeframe(open_time, origin, timeframe, option)
    columns = [floats(table.column(names[name]), origin, name, where) for name in COLUMNS]
    candles = Candles(symbol, timeframe, open_time, *columns)
    check_candles(candles, origin, where)
    return candles


def _names(found: list[str], origin: str) -> dict[str, str]:
    """The table's own name of each column; the first of TIME_NAMES that is there is the open_time."""
    names: dict[str, str] = {}
    for name in found:
        if plain(name) in names:
            raise DataError(f"{origin}: column {plain(name)} is there more than once.", HINT)
        names[plain(name)] = name
    time_name = next((name for name in TIME_NAMES if name in names), "open_time")
    missing = [name for name in (time_name, *COLUMNS) if name not in names]
    if missing:
        has = f"it has {', '.join(found)}" if found else "it has none of these"
        are = f"columns {', '.join(missing)} are" if len(missing) > 1 else f"column {missing[0]} is"
        raise DataError(f"{origin}: {are} missing ({has}).", HINT)
    return {**names, "open_time": names[time_name]}


def _timeframe(open_time: Ints, origin: str, asked: str | None, option: str) -> str:
    found = infer_timeframe(open_time)
    if asked is not None and found is not None and found != asked:
        raise DataError(f"{origin} holds {found} candles, not {asked}.", f"Use {option} {found}.")
    if asked is not None or found is not None:
        return asked or str(found)
    if len(open_time) == 1:
        raise DataError(f"{origin} holds one candle, which does not tell its timeframe.", f"Say it with {option}.")
    step = _length(commonest_step(open_time))
    raise DataError(f"{origin}: its candles are {step} apart, which is no timeframe.", f"Say it with {option}.")


def _length(ms: int) -> str:
    for unit, name in ((DAY_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "min"), (SECOND_MS, "s")):
        if ms >= unit:
            return f"{ms / unit:g} {name}"
    return f"{ms} ms"


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            wanted = {*COLUMNS, *TIME_NAMES}
            return file.read(columns=[name for name in file.schema_arrow.names if plain(name) in wanted])
    except PermissionError as error:
        raise unreadable(path, error) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        said = str(error).split("\n")[0].rstrip(".")
        raise DataError(f"{path} cannot be read as Parquet: {said}.", "It may be truncated.") from None


def times_of(
    column: pa.ChunkedArray, origin: str, where: Where, name: str = "open_time", hint: str = HINT
) -> Ints:  # fmt: skip
    """A column of times in ms since 1970: timestamps, dates, numbers since 1970 or ISO text. DataError that names it."""
    import pyarrow as pa

    if column.null_count:
        raise DataError(f"{origin}: column {name}, {where(_first_null(column))}: empty.", hint)
    kind = column.type
    if pa.types.is_timestamp(kind):
        return times_ms(column)
    if pa.types.is_date(kind):
        return times_ms(column.cast(pa.timestamp("ms")))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _epoch_ms(numbers(column), origin, where, name, hint)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _text_times(column.to_pylist(), origin, where, name, hint)
    raise DataError(f"{origin}: column {name} is {kind}, not a time.", hint)


def _epoch_ms(stored: npt.NDArray[np.generic], origin: str, where: Where, name: str, hint: str) -> Ints:
    """Seconds, milli-, micro- or nanoseconds since 1970, told apart by their size (all years from 1980 on)."""
    values = stored.astype(np.float64)
    with np.errstate(all="ignore"):
        usual = float(np.nanmedian(np.abs(values))) if not np.isnan(values).all() else 0.0
        unit = "s" if usual < 1e11 else "ms" if usual < 1e14 else "us" if usual < 1e17 else "ns"
        times = np.rint(values * MS_PER_UNIT[unit])
    wrong = ~((times >= EARLIEST_MS) & (times < LATEST_MS))
    if wrong.any():
        index = int(np.argmax(wrong))
        raise DataError(
            f"{origin}: column {name}, {where(index)}: {stored[index]} is not a time since 1980 ({unit} since 1970).",
            hint,
        )
    return np.asarray(times.astype(np.int64))


def _text_times(texts: list[str], origin: str, where: Where, name: str, hint: str) -> Ints:
    import datetime as dt

    out = np.empty(len(texts), dtype=np.int64)
    for i, text in enumerate(texts):
        try:
            if text.strip().isdigit():  # a number among texts; Python would read the year 1704 in 1704067200000
                raise ValueError(text)
            moment = dt.datetime.fromisoformat(text.strip())
        except ValueError:
            raise DataError(f"{origin}: column {name}, {where(i)}: '{text[:40]}' is not a time.", hint) from None
        out[i] = round(moment.replace(tzinfo=moment.tzinfo or dt.UTC).timestamp() * 1000)
    return out


def floats(column: pa.ChunkedArray, origin: str, name: str, where: Where, hint: str = HINT) -> Floats:
    """A column of numbers, none of them missing. DataError that names it."""
    import pyarrow as pa

    kind = column.type
    if column.null_count:
        raise DataError(f"{origin}: column {name}, {where(_first_null(column))}: empty.", hint)
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        raise DataError(f"{origin}: column {name} holds {kind}, not numbers.", hint)
    if pa.types.is_decimal(kind):  # Arrow's own cast is off by a bit now and then
        return np.array([float(value) for value in column.to_pylist()])
    return numbers(column).astype(np.float64)


def _first_null(column: pa.ChunkedArray) -> int:
    return int(np.argmax(np.asarray(column.is_null())))
