"""Candles from files: every spelling that people have, and errors that name file, line and column."""

from __future__ import annotations

import datetime as dt
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from atb.core.errors import AtbError, DataError, UsageError
from atb.core.timeframe import iso
from atb.data.files import load_file
from atb.engine.candles import COLUMNS, Candles
from tests.conftest import random_candles, same_candles

HEADER = ["open_time", *COLUMNS]
HOUR_MS = 3_600_000
CANDLES = random_candles(20)


def rows_of(candles: Candles = CANDLES, time: Callable[[int], object] = iso) -> list[list[str]]:
    """A file's fields, header first."""
    body = [
        [str(time(int(candles.open_time[i]))), *(repr(float(getattr(candles, name)[i])) for name in COLUMNS)]
        for i in range(len(candles))
    ]
    return [HEADER, *body]


BODY = list(enumerate(rows_of()[1:]))


def written(path: Path, rows: list[list[str]], *, between: str = ",", end: str = "\n", before: str = "") -> Path:
    path.write_bytes((before + end.join(between.join(row) for row in rows) + end).encode())
    return path


def with_field(line: int, column: str, text: str) -> list[list[str]]:
    """Good rows but for one field; `line` as an editor counts."""
    rows = [list(row) for row in rows_of()]
    rows[line - 1][HEADER.index(column)] = text
    return rows


def parquet(path: Path, **columns: Any) -> Path:
    data: dict[str, Any] = {"open_time": pa.array(CANDLES.open_time, pa.timestamp("ms", tz="UTC"))}
    data |= {name: getattr(CANDLES, name) for name in COLUMNS}
    pq.write_table(pa.table({name: value for name, value in (data | columns).items() if value is not None}), path)
    return path


def told(path: Path, timeframe: str | None = None) -> str:
    """The message of a refusal; it names the file."""
    with pytest.raises(DataError) as caught:
        load_file(path, "BTCUSDT", timeframe)
    assert caught.value.what.startswith(str(path))
    assert caught.value.exit_code == 3
    return caught.value.what.removeprefix(str(path)).lstrip(": ")


# --- what is read


SPELLINGS: dict[str, Callable[[Path], Path]] = {
    "plain": lambda p: written(p / "a.csv", rows_of()),
    "upper case ending": lambda p: written(p / "a.CSV", rows_of()),
    "CRLF": lambda p: written(p / "a.csv", rows_of(), end="\r\n"),
    "byte order mark": lambda p: written(p / "a.csv", rows_of(), before="\ufeff"),
    "semicolons": lambda p: written(p / "a.csv", rows_of(), between=";"),
    "tabs": lambda p: written(p / "a.tsv", rows_of(), between="\t"),
    "capitals": lambda p: written(p / "a.csv", [[n.title() for n in HEADER], *rows_of()[1:]]),
    "spaces": lambda p: written(p / "a.csv", rows_of(), between=", "),
    "quotes": lambda p: written(p / "a.csv", [[f'"{field}"' for field in row] for row in rows_of()]),
    "empty lines": lambda p: written(p / "a.csv", [[], *rows_of()[:5], [], [], *rows_of()[5:], []]),
    "more columns": lambda p: written(p / "a.csv", [[*row, "note é"] for row in rows_of()]),
    "another order": lambda p: written(p / "a.csv", [row[::-1] for row in rows_of()]),
    "named timestamp": lambda p: written(p / "a.csv", [["timestamp", *COLUMNS], *rows_of()[1:]]),
    "seconds": lambda p: written(p / "a.csv", rows_of(time=lambda ms: ms // 1000)),
    "milliseconds": lambda p: written(p / "a.csv", rows_of(time=lambda ms: ms)),
    "microseconds": lambda p: written(p / "a.csv", rows_of(time=lambda ms: ms * 1000)),
    "nanoseconds": lambda p: written(p / "a.csv", rows_of(time=lambda ms: ms * 1_000_000)),
    "floats as times": lambda p: written(p / "a.csv", rows_of(time=float)),
    "no zone": lambda p: written(p / "a.csv", rows_of(time=lambda ms: iso(ms)[:-1].replace("T", " "))),
    "another zone": lambda p: written(p / "a.csv", rows_of(time=lambda ms: iso(ms + 7_200_000)[:-1] + "+02:00")),
    "mixed times": lambda p: written(p / "a.csv", rows_of(time=lambda ms: iso(ms)[: -1 if ms % 7_200_000 else None])),
    "compressed": lambda p: _compressed(p),
    "parquet": lambda p: parquet(p / "a.parquet"),
    "parquet without zone": lambda p: parquet(
        p / "a.parquet", open_time=pa.array(CANDLES.open_time, pa.timestamp("ms"))
    ),
    "parquet in ns": lambda p: parquet(
        p / "a.parquet", open_time=pa.array(CANDLES.open_time * 10**6, pa.timestamp("ns"))
    ),
    "parquet in s": lambda p: parquet(
        p / "a.parquet", open_time=pa.array(CANDLES.open_time // 1000, pa.timestamp("s"))
    ),
    "parquet of ms": lambda p: parquet(p / "a.parquet", open_time=pa.array(CANDLES.open_time)),
    "parquet of text": lambda p: parquet(
        p / "a.parquet", open_time=pa.array([iso(t) for t in CANDLES.open_time.tolist()])
    ),
    "parquet, more columns": lambda p: parquet(p / "a.parquet", note=pa.array(["x"] * len(CANDLES))),
    "parquet of decimals": lambda p: parquet(p / "a.parquet", close=pa.array(CANDLES.close).cast(pa.decimal128(20, 2))),
    "parquet of capitals": lambda p: parquet(p / "a.parquet", close=None, Close=CANDLES.close),
}


def _compressed(folder: Path) -> Path:
    path = folder / "a.csv.gz"
    path.write_bytes(gzip.compress(written(folder / "b.csv", rows_of()).read_bytes()))
    return path


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_gives_the_same_candles(tmp_path: Path, spelling: str) -> None:
    assert same_candles(load_file(SPELLINGS[spelling](tmp_path), "BTCUSDT", None), CANDLES)


floats = st.floats(1e-8, 1e12, allow_nan=False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    st.lists(st.tuples(floats, floats, floats, floats), min_size=2, max_size=20),
    st.sampled_from(["1s", "5m", "1h", "1d"]),
)
def test_csv_and_parquet_give_the_same_bits(tmp_path: Path, rows: list[tuple[float, ...]], timeframe: str) -> None:
    numbers = np.array(rows)
    prices, shape = np.sort(numbers[:, :4], axis=1), random_candles(len(rows), timeframe=timeframe)
    low, open_, close, high = prices.T
    made = shape.replace(open=open_, high=high, low=low, close=close, volume=numbers[:, 0])
    table = {"open_time": pa.array(made.open_time, pa.timestamp("ms", tz="UTC"))}
    pq.write_table(pa.table(table | {name: getattr(made, name) for name in COLUMNS}), tmp_path / "a.parquet")
    written(tmp_path / "a.csv", rows_of(made))
    assert same_candles(load_file(tmp_path / "a.csv", "BTCUSDT", None), made)
    assert same_candles(load_file(tmp_path / "a.parquet", "BTCUSDT", None), made)


def test_one_candle_needs_its_timeframe(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", rows_of()[:2])
    assert "one candle" in told(path)
    assert len(load_file(path, "BTCUSDT", "1h")) == 1


def test_days_as_dates(tmp_path: Path) -> None:
    days = random_candles(5, timeframe="1d")
    path = written(tmp_path / "a.csv", rows_of(days, lambda ms: iso(ms)[:10]))
    assert same_candles(load_file(path, "BTCUSDT", None), days)
    dates = [dt.date.fromisoformat(iso(int(ms))[:10]) for ms in days.open_time]
    table = pa.table({"date": pa.array(dates, pa.date32()), **{name: getattr(days, name) for name in COLUMNS}})
    pq.write_table(table, tmp_path / "a.parquet")
    assert same_candles(load_file(tmp_path / "a.parquet", "BTCUSDT", None), days)


# --- what is refused: CSV

BAD_CSV: dict[str, tuple[Callable[[], list[list[str]]], str]] = {
    "a word": (lambda: with_field(6, "close", "abc"), "column close, line 6: 'abc' is not a number."),
    "thousands": (lambda: with_field(6, "close", '"30,000.5"'), "column close, line 6: '30,000.5' is not a number."),
    "null": (lambda: with_field(9, "volume", "null"), "column volume, line 9: 'null' is not a number."),
    "empty": (lambda: with_field(6, "low", ""), "column low, line 6: empty."),
    "not a number": (
        lambda: with_field(2, "open", "NaN"),
        "column open, line 2 (2024-01-01T00:00:00Z): nan is not a number.",
    ),
    "infinite": (
        lambda: with_field(21, "high", "inf"),
        "column high, line 21 (2024-01-01T19:00:00Z): inf is not a number.",
    ),
    "negative": (lambda: with_field(6, "low", "-1"), "column low, line 6 (2024-01-01T04:00:00Z): -1 is not above 0."),
    "zero": (lambda: with_field(6, "open", "0"), "column open, line 6 (2024-01-01T04:00:00Z): 0 is not above 0."),
    "negative volume": (
        lambda: with_field(6, "volume", "-3"),
        "column volume, line 6 (2024-01-01T04:00:00Z): -3 is negative.",
    ),
    "high too low": (
        lambda: with_field(6, "high", "1"),
        "column high, line 6 (2024-01-01T04:00:00Z): 1 is below open or close.",
    ),
    "low too high": (
        lambda: with_field(6, "low", "1e9"),
        "column low, line 6 (2024-01-01T04:00:00Z): 1e+09 is above open or close.",
    ),
    "no time": (
        lambda: with_field(6, "open_time", "yesterday"),
        "column open_time, line 6: 'yesterday' is not a time.",
    ),
    "empty time": (lambda: with_field(6, "open_time", ""), "column open_time, line 6: empty."),
    "a number among texts": (
        lambda: with_field(6, "open_time", "1704081600000"),
        "column open_time, line 6: '1704081600000' is not a time.",
    ),
    "one time too long": (
        lambda: [HEADER, *([f"{1704067200000 + i * HOUR_MS}{'000' if i == 4 else ''}", *r[1:]] for i, r in BODY)],
        "column open_time, line 6: 1704081600000000 is not a time since 1980 (ms since 1970).",
    ),
    "off the grid": (
        lambda: with_field(6, "open_time", "2024-01-01T04:07:00Z"),
        "column open_time, line 6: 2024-01-01T04:07:00Z is not on the 1h grid.",
    ),
    "twice": (
        lambda: with_field(6, "open_time", "2024-01-01T03:00:00Z"),
        "column open_time, line 6: 2024-01-01T03:00:00Z repeats the one before it.",
    ),
    "unsorted": (
        lambda: [*rows_of()[:5], rows_of()[6], rows_of()[5], *rows_of()[7:]],
        "column open_time, line 7: 2024-01-01T04:00:00Z is earlier than the one before it.",
    ),
    "reversed": (
        lambda: [HEADER, *rows_of()[:0:-1]],
        "column open_time, line 3: 2024-01-01T18:00:00Z is earlier than the one before it.",
    ),
    "cut off": (lambda: [*rows_of()[:-1], rows_of()[-1][:3]], "line 21 has 3 columns, the header has 6."),
    "too long": (
        lambda: [*rows_of()[:8], [*rows_of()[8], "1"], *rows_of()[9:]],
        "line 9 has 7 columns, the header has 6.",
    ),
    "a remark first": (lambda: [["# my candles"], *rows_of()], "line 2 has 6 columns, the header has 1."),
    "no volume": (
        lambda: [row[:5] for row in rows_of()],
        "column volume is missing (it has open_time, open, high, low, close).",
    ),
    "nothing known": (
        lambda: [["a", "b"], ["1", "2"]],
        "columns open_time, open, high, low, close, volume are missing (it has a, b).",
    ),
    "twice the column": (lambda: [[*row, row[4]] for row in rows_of()], "column close is there more than once."),
    "no header": (lambda: rows_of()[1:], "its first line holds numbers, not the names of the columns."),
    "header only": (lambda: [HEADER], "holds no candles."),
    "far away": (
        lambda: [HEADER, *([str(9 * 10**18 + i), *row[1:]] for i, row in enumerate(rows_of()[1:]))],
        "column open_time, line 2: 9000000000000000000 is not a time since 1980 (ns since 1970).",
    ),
    "row numbers": (
        lambda: [HEADER, *([str(i), *row[1:]] for i, row in enumerate(rows_of()[1:]))],
        "column open_time, line 2: 0 is not a time since 1980 (s since 1970).",
    ),
    "odd steps": (
        lambda: [HEADER, *([iso(1704067200000 + i * 420_000), *row[1:]] for i, row in enumerate(rows_of()[1:]))],
        "its candles are 7 min apart, which is no timeframe.",
    ),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_a_bad_csv_file_is_refused_with_line_and_column(tmp_path: Path, case: str) -> None:
    rows, message = BAD_CSV[case]
    assert told(written(tmp_path / "a.csv", rows())) == message


@pytest.mark.parametrize("case", ["a word", "negative", "unsorted", "cut off", "empty"])
def test_lines_are_counted_as_an_editor_does(tmp_path: Path, case: str) -> None:
    """Also below empty lines, in a compressed file, and with Windows' line ends."""
    rows, message = BAD_CSV[case]
    line = int(message.split("line ")[1].split(":")[0].split(" ")[0])
    moved = message.replace(f"line {line}", f"line {line + 2}")
    assert told(written(tmp_path / "a.csv", [[], rows()[0], [], *rows()[1:]])) == moved
    assert told(written(tmp_path / "b.csv", [[], rows()[0], [], *rows()[1:]], end="\r\n")) == moved
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    assert told(tmp_path / "c.csv.gz") == moved


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty."),
        ("a.csv", b"\n\n", "is empty."),
        ("a.csv", ",".join(HEADER).encode(), "holds no candles."),
        ("a.csv", b"\0" * 300, "is not a text file in UTF-8."),
        ("a.csv", "open_time,open\n".encode("utf-16"), "is not a text file in UTF-8."),
        ("a.csv.gz", b"no gzip", "cannot be read: Not a gzipped file (b'no')."),
        ("a.csv.gz", gzip.compress(b"x" * 9999, mtime=0)[:-9], "cannot be read: "),
    ],
)
def test_a_file_that_is_no_csv(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert told(tmp_path / name).startswith(message)


def test_text_that_is_not_utf8_in_a_number(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", with_field(6, "close", "é"))
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xe9"))
    assert told(path) == "column close, line 6: '\ufffd' is not a number."


# --- what is refused: Parquet


def column(name: str, row: int, value: float | None) -> dict[str, Any]:
    values: list[float | None] = getattr(CANDLES, name).tolist()
    values[row] = value
    return {name: pa.array(values, pa.float64())}


BAD_PARQUET: dict[str, tuple[dict[str, Any], str]] = {
    "empty": (column("close", 4, None), "column close, row 5: empty."),
    "not a number": (column("close", 4, np.nan), "column close, row 5 (2024-01-01T04:00:00Z): nan is not a number."),
    "negative": (column("low", 4, -1.0), "column low, row 5 (2024-01-01T04:00:00Z): -1 is not above 0."),
    "text": ({"close": pa.array([str(x) for x in CANDLES.close])}, "column close holds string, not numbers."),
    "flags": ({"close": pa.array([True] * 20)}, "column close holds bool, not numbers."),
    "lists": ({"close": pa.array([[1.0]] * 20)}, "column close holds list<element: double>, not numbers."),
    "time of flags": ({"open_time": pa.array([True] * 20)}, "column open_time is bool, not a time."),
    "time empty": ({"open_time": pa.array([None, *CANDLES.open_time[1:].tolist()])}, "column open_time, row 1: empty."),
    "all empty": ({"close": pa.nulls(20)}, "column close, row 1: empty."),
    "reversed": (
        {"open_time": pa.array(CANDLES.open_time[::-1])},
        "column open_time, row 2: 2024-01-01T18:00:00Z is earlier",
    ),
    "missing": ({"volume": None}, "column volume is missing (it has open_time, open, high, low, close)."),
    "twice": ({"CLOSE": CANDLES.close}, "column close is there more than once."),
}


@pytest.mark.parametrize("case", BAD_PARQUET)
def test_a_bad_parquet_file_is_refused_with_row_and_column(tmp_path: Path, case: str) -> None:
    columns, message = BAD_PARQUET[case]
    assert told(parquet(tmp_path / "a.parquet", **columns)).startswith(message)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"open_time,open\n", b"\0" * 500])
def test_a_file_that_is_no_parquet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    assert told(tmp_path / "a.parquet").startswith("cannot be read as Parquet")


def test_no_parquet_rows(tmp_path: Path) -> None:
    table = pq.read_table(parquet(tmp_path / "a.parquet"))
    pq.write_table(table.slice(0, 0), tmp_path / "b.parquet")
    assert told(tmp_path / "b.parquet") == "holds no candles."


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_parquet_file_is_refused_or_read_but_never_a_crash(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(parquet(tmp_path / "a.parquet").read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    for _ in range(data.draw(st.integers(1, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (tmp_path / "b.parquet").write_bytes(content)
    try:
        assert len(load_file(tmp_path / "b.parquet", "BTCUSDT", None)) <= 20
    except AtbError as error:
        assert error.exit_code == 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.text("open_time,high;\n\r\t\"'01.-eZT:é", max_size=200).map(str.encode))
def test_any_bytes_as_csv_are_refused_but_never_a_crash(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError):
        load_file(tmp_path / "a.csv", "BTCUSDT", None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(2, 21),
    st.sampled_from(HEADER),
    st.text(st.characters(codec="utf-8", exclude_characters='\n\r,"'), max_size=9),
)
@example(2, "open", "OPEN")
@example(2, "open", "0\x85")  # Python's float() takes both of these
@example(2, "open", "\u0663")
def test_a_spoilt_field_is_refused_at_its_own_line(tmp_path: Path, line: int, name: str, text: str) -> None:
    path = written(tmp_path / "a.csv", with_field(line, name, text))
    try:
        load_file(path, "BTCUSDT", "1h")
    except DataError as error:
        following = {f"line {line}", f"line {line + 1}"}  # a time too late shows at the candle after it
        assert any(place in error.what for place in following), error.what


# --- other refusals


def test_the_timeframe_that_was_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", rows_of())
    assert told(path, "4h") == "holds 1h candles, not 4h."
    with pytest.raises(DataError) as caught:
        load_file(path, "BTCUSDT", "15m")
    assert "--timeframe 1h" in caught.value.hint


def test_names_of_files(tmp_path: Path) -> None:
    written(tmp_path / "candles.csv", rows_of())
    (tmp_path / "candles.json").write_text("{}")
    for name, what in (
        ("candels.csv", "does not exist"),
        ("none/a.csv", "does not exist"),
        ("candles.json", "is neither .parquet nor .csv"),
        ("", "is a folder, not a file"),
    ):
        with pytest.raises(UsageError, match=what) as caught:
            load_file(tmp_path / name, "BTCUSDT", None)
        assert caught.value.exit_code == 2
    with pytest.raises(UsageError) as caught:
        load_file(tmp_path / "candels.csv", "BTCUSDT", None)
    assert caught.value.hint == "Nearest: candles.csv."
