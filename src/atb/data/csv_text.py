"""CSV files: read by Arrow, and read again by hand where Arrow refuses, to say which line and column is wrong."""

from __future__ import annotations

import contextlib
import csv
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from atb.core.errors import DataError

if TYPE_CHECKING:
    import gzip

    import pyarrow as pa

DELIMITERS = ",;\t"
NOT_TEXT = (b"\xff\xfe", b"\xfe\xff", b"\0")  # UTF-16, and what no text begins with


def read_csv(
    path: Path, numbers: tuple[str, ...], times: tuple[str, ...], hint: str, rows: str = "candles"
) -> pa.Table:  # fmt: skip
    """The columns of a CSV file whose names (any capitalisation) are in `numbers` and `times`; `numbers` as float64. rows: what
    its lines are called."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    header, delimiter = _header(path, hint)
    wanted = [name for name in header if plain(name) in (*numbers, *times)]
    options = arrow.ConvertOptions(
        column_types={name: pa.float64() for name in wanted if plain(name) in numbers},
        include_columns=wanted,
        null_values=[""],
    )
    try:
        return arrow.read_csv(path, parse_options=arrow.ParseOptions(delimiter=delimiter), convert_options=options)
    except (pa.ArrowException, ValueError) as error:
        told = _explain(path, header, delimiter, numbers, rows) or f": {str(error).splitlines()[0]}"
        raise DataError(f"{path}{told}", hint) from None
    except OSError as error:
        raise unreadable(path, error) from None


def plain(name: str) -> str:
    """A column's name as it is compared."""
    return name.strip().lower()


def line_of(path: Path, index: int) -> int:
    """The line, as an editor counts, of candle `index` (from 0): below the header, empty lines not counted."""
    for position, (line, _) in enumerate(_lines(path)):
        if position == index + 1:
            return line
    raise IndexError(index)


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that the system, or its compression, does not let us read."""
    said = getattr(error, "strerror", None) or str(error).split("\n")[0]
    hint = f"Who may: ls -ld '{path}'" if isinstance(error, PermissionError) else "Is it whole?"
    return DataError(f"{path} cannot be read: {said.rstrip('.')}.", hint)


def _not_text(path: Path) -> DataError:
    return DataError(f"{path} is not a text file in UTF-8.", "Save it as CSV in UTF-8.")


def _header(path: Path, hint: str) -> tuple[list[str], str]:
    """The column names, as they are written, and the character between them."""
    _, first = next(_lines(path), (0, ""))
    if not first:
        raise DataError(f"{path} is empty.", hint)
    if "\ufffd" in first:
        raise _not_text(path)
    delimiter = max(DELIMITERS, key=first.count)
    names = _fields(first, delimiter)
    if any(_is_number(name) for name in names):
        raise DataError(f"{path}: its first line holds numbers, not the names of the columns.", hint)
    doubled = [name for name in names if sum(plain(other) == plain(name) for other in names) > 1]
    if doubled:
        raise DataError(f"{path}: column {plain(doubled[0])} is there more than once.", hint)
    return names, delimiter


def _explain(path: Path, header: list[str], delimiter: str, numbers: tuple[str, ...], rows: str) -> str:
    """What is wrong with the first bad line; empty when all look well."""
    lines = _lines(path)
    line, _ = next(lines, (0, ""))
    for line, text in lines:
        fields = _fields(text, delimiter)
        if len(fields) != len(header):
            return f": line {line} has {len(fields)} columns, the header has {len(header)}."
        for name, field in zip(header, fields, strict=True):
            if plain(name) in numbers and field and not _is_number(field):
                return f": column {plain(name)}, line {line}: {field[:40]!r} is not a number."
    return f" holds no {rows}." if line <= 1 else ""


def _fields(line: str, delimiter: str) -> list[str]:
    with contextlib.suppress(csv.Error):  # a field of more than 128 kB: no candles, whatever it is
        return next(csv.reader([line], delimiter=delimiter), [])
    return [line[:40]]


def _is_number(text: str) -> bool:
    """As Arrow takes it: Python's float() knows more digits, and more kinds of blanks around them."""
    digits = text.strip(" \t")
    with contextlib.suppress(ValueError):
        float(digits)
        return digits.isascii() and digits == digits.strip() and "_" not in digits
    return False


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and lines that are not empty."""
    try:
        with _open(path) as binary:
            if binary.peek(2).startswith(NOT_TEXT):
                raise _not_text(path)
            with io.TextIOWrapper(binary, "utf-8-sig", errors="replace") as text:
                for number, line in enumerate(text, start=1):
                    if stripped := line.rstrip("\n"):
                        yield number, stripped
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from None


def _open(path: Path) -> io.BufferedReader | gzip.GzipFile:
    if path.suffix.lower() != ".gz":
        return path.open("rb")
    import gzip

    return gzip.open(path, "rb")
