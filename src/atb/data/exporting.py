"""Stored candles as a file of the user's: whole or not at all, and with exactly the same numbers when it is imported again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from atb.core.errors import DataError, UsageError, nearest
from atb.core.timeframe import iso
from atb.data.parquet import encoded
from atb.data.places import LocalPlace
from atb.engine.candles import COLUMNS, Candles

FORMATS = ("csv", "parquet")


def format_of(asked: str | None, out: Path | None) -> str:
    """What is asked for, else what the file's name says, else CSV."""
    if asked is not None:
        if asked not in FORMATS:
            raise UsageError(f"--format '{asked}' is none.", nearest(asked, list(FORMATS)))
        return asked
    return "parquet" if out is not None and out.suffix == ".parquet" else "csv"


def csv_lines(candles: Candles) -> Iterator[str]:
    """With a heading; each number as the shortest text that gives it again."""
    yield ",".join(("open_time", *COLUMNS)) + "\n"
    columns = [getattr(candles, name).tolist() for name in COLUMNS]
    for at, *numbers in zip(candles.open_time.tolist(), *columns, strict=True):
        yield f"{iso(at)},{','.join(map(repr, numbers))}\n"


def write_candles(candles: Candles, out: Path, kind: str) -> None:
    """DataError where it cannot be written."""
    content = bytes(encoded(candles)) if kind == "parquet" else "".join(csv_lines(candles)).encode()
    try:
        if not out.absolute().parent.is_dir():
            raise DataError(f"{out} cannot be written: there is no folder {out.absolute().parent}.", "Make it first.")
        LocalPlace(out.absolute().parent).write(out.name, content)
    except OSError as error:
        raise DataError(
            f"{out} cannot be written: {error.strerror or error}.", "Name another file with --out."
        ) from None
