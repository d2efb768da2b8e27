"""Candles from the user's own files: Parquet or CSV, with errors that name the file, the row and the column."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atb.core.errors import DataError, UsageError, nearest
from atb.data.arrow import MS_PER_UNIT, numbers, times_ms
from atb.data.validation import ROWS_BEFORE_DATA, check_candles, infer_timeframe
from atb.engine.candles import COLUMNS, Candles, Floats, Ints

if TYPE_CHECKING:
    import pyarrow as pa

TIME_NAMES = ("open_time", "timestamp", "time", "date", "datetime", "open time")
HINT = "Columns: open_time open high low close volume; open_time in UTC, as ISO text or ms since 1970."


def load_file(path: Path, symbol: str, timeframe: str | None) -> Candles:
    """The candles of a Parquet or CSV file, validated. `timeframe` None: told from the distance of the candles.

    UsageError for a file that is not there or of another kind, DataError for what is in it.
    """
    if not path.is_file():
        known = [p.name for p in path.parent.glob("*.*")] if path.parent.is_dir() else []
        raise UsageError(f"Data file {path} does not exist.", nearest(path.name, known) if known else "")
    kind = path.suffix.lower()
    if kind == ".parquet":
        table = _read_parquet(path)
    elif kind in (".csv", ".txt") or path.name.lower().endswith(".csv.gz"):
        table = _read_csv(path)
    else:
        raise UsageError(f"Data file {path} is neither .parquet nor .csv.", HINT)
    return table_to_candles(table, str(path), symbol, timeframe)


def table_to_candles(table: pa.Table, origin: str, symbol: str, timeframe: str | None) -> Candles:
    """Candles from an Arrow table with the usual columns (any capitalisation)."""
    names = {name.strip().lower(): name for name in table.column_names}
    time_name = next((names[name] for name in TIME_NAMES if name in names), None)
    missing = [name for name in COLUMNS if name not in names] + ([] if time_name else ["open_time"])
    if missing:
        raise DataError(f"{origin}: column {', '.join(missing)} is missing (it has {', '.join(names)}).", HINT)
    if table.num_rows == 0:
        raise DataError(f"{origin} holds no candles.")
    open_time = _times(table.column(time_name), origin)
    found = infer_timeframe(open_time)
    if timeframe is not None and found is not None and found != timeframe:
        raise DataError(f"{origin} holds {found} candles, not {timeframe}.", f"Use --timeframe {found}.")
    timeframe = timeframe or found
    if timeframe is None:
        raise DataError(f"{origin}: the timeframe cannot be told from its candles.", "Say it with --timeframe.")
    columns = [_floats(table.column(names[name]), origin, name) for name in COLUMNS]
    candles = Candles(symbol, timeframe, open_time, *columns)
    check_candles(candles, origin)
    return candles


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            wanted = {*COLUMNS, *TIME_NAMES}
            columns = [name for name in file.schema_arrow.names if name.strip().lower() in wanted]
            return file.read(columns=columns)
    except (pa.ArrowInvalid, OSError, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {_first_line(error)}", "It may be truncated.") from None


def _read_csv(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv as csv

    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty.", HINT)
    with path.open("rb") as file:
        first = file.readline().decode("utf-8", "replace") if not path.name.endswith(".gz") else ""
    types = {name: pa.float64() for name in _header(first) if name.strip().lower() in COLUMNS}
    try:
        return csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=types))
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: {_csv_place(_first_line(error), _header(first))}", HINT) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {_first_line(error)}") from None


def _header(line: str) -> list[str]:
    return [name.strip().strip('"') for name in line.strip("\ufeff\r\n ").split(",")]


def _csv_place(message: str, header: list[str]) -> str:
    """pyarrow counts columns from 0 and rows from 1; a person reads names and line numbers."""
    column = re.search(r"column #(\d+)", message)
    row = re.search(r"Row #(\d+)", message)
    place = []
    if column and int(column.group(1)) < len(header):
        place.append(f"column {header[int(column.group(1))]}")
    if row:
        place.append(f"row {row.group(1)}")
    return f"{', '.join(place)}: {message.split(': ')[-1]}" if place else message


def _times(column: pa.ChunkedArray, origin: str) -> Ints:
    import pyarrow as pa

    if column.null_count:
        raise DataError(f"{origin}: column open_time, row {_first_null(column)}: empty.", HINT)
    kind = column.type
    if pa.types.is_timestamp(kind):
        return times_ms(column)
    if pa.types.is_date(kind):
        return times_ms(column.cast(pa.timestamp("ms")))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _epoch_ms(numbers(column).astype(np.float64))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _text_times(column.to_pylist(), origin)
    raise DataError(f"{origin}: column open_time is {kind}, not a time.", HINT)


def _epoch_ms(numbers: Floats) -> Ints:
    """Seconds, milli-, micro- or nanoseconds since 1970, told apart by their size (all years from 1973 to 5138)."""
    largest = float(np.max(np.abs(numbers)))
    unit = "s" if largest < 1e11 else "ms" if largest < 1e14 else "us" if largest < 1e17 else "ns"
    return np.rint(numbers * MS_PER_UNIT[unit]).astype(np.int64)


def _text_times(texts: list[str], origin: str) -> Ints:
    import datetime as dt

    out = np.empty(len(texts), dtype=np.int64)
    for i, text in enumerate(texts):
        try:
            moment = dt.datetime.fromisoformat(text.strip())
        except ValueError:
            raise DataError(
                f"{origin}: column open_time, row {i + ROWS_BEFORE_DATA}: '{text}' is not a time.", HINT
            ) from None
        out[i] = round(moment.replace(tzinfo=moment.tzinfo or dt.UTC).timestamp() * 1000)
    return out


def _floats(column: pa.ChunkedArray, origin: str, name: str) -> Floats:
    import pyarrow as pa

    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        raise DataError(f"{origin}: column {name} holds {kind}, not numbers.", HINT)
    if column.null_count:
        raise DataError(f"{origin}: column {name}, row {_first_null(column)}: empty.", HINT)
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    return numbers(column).astype(np.float64)


def _first_null(column: pa.ChunkedArray) -> int:
    return int(np.argmax(np.asarray(column.is_null()))) + ROWS_BEFORE_DATA


def _first_line(error: Any) -> str:
    return str(error).split("\n")[0].rstrip(".") + "."
