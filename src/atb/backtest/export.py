"""Write a result as files: all of them, or none.

Everything is written beside its place first and moved there at the end, so that a full disk or Ctrl-C leaves what was
there before. A folder that did not exist appears with all its files at once.
"""

from __future__ import annotations

import csv
import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atb.backtest.report_data import drawdowns
from atb.backtest.report_html import render_html
from atb.backtest.result import BacktestResult
from atb.core.errors import DataError, UsageError

Writer = Callable[[BacktestResult, Path], None]


def export(result: BacktestResult, folder: Path) -> list[Path]:
    """Write trades.csv, fills.csv, equity.csv, report.html and result.json into `folder`; their paths in that order.

    Other files in the folder stay as they are. DataError where it cannot be written, UsageError where it is a file.
    """
    try:
        refuse_file(folder)
        _write_all(result, folder)
    except OSError as error:
        raise DataError(
            f"{_place(error, folder)} cannot be written: {error.strerror or error}.",
            "Give --export a folder on a disk that is writable and has room.",
        ) from None
    return [folder / name for name in WRITERS]


def _place(error: OSError, folder: Path) -> Path:
    """Where the file that `error` is about was meant to be."""
    name = Path(str(error.filename)).name
    return folder / name if name in WRITERS else folder


def refuse_file(folder: Path) -> None:
    """UsageError where the folder, or one above it, is a file."""
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                raise UsageError(f"--export {folder}: {place} is a file.", "Name a folder; a new one is made.")
            return


def _write_all(result: BacktestResult, folder: Path) -> None:
    """Write into a folder of its own: inside `folder` where that exists (the same disk for certain), else beside it."""
    is_new = not folder.exists()
    name = f".{folder.name or 'export'}.{secrets.token_hex(4)}.partial"
    made = _make_parents(folder) if is_new else []
    partial = folder.parent / name if is_new else folder / name
    try:
        partial.mkdir()
        for file_name, write in WRITERS.items():
            write(result, partial / file_name)
        if is_new:
            partial.rename(folder)
        else:
            _swap(partial, folder)
    except BaseException:
        _remove_empty(made, partial)
        raise
    shutil.rmtree(partial, ignore_errors=True)


def _make_parents(folder: Path) -> list[Path]:
    """Create the folders above `folder`; those that were not there, the lowest first."""
    made = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    return made


def _remove_empty(made: list[Path], partial: Path) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    for parent in made:
        try:
            parent.rmdir()
        except OSError:
            return


def _swap(partial: Path, folder: Path) -> None:
    """Move the new files into `folder`; the old ones go back when one of them cannot be moved."""
    for name in WRITERS:
        if (folder / name).is_dir():
            raise IsADirectoryError(21, "Is a directory", str(folder / name))
    old = partial / "old"
    old.mkdir()
    moved: list[tuple[Path, Path]] = []
    try:
        for name in WRITERS:
            if os.path.lexists(folder / name):
                _move(folder / name, old / name, moved)
            _move(partial / name, folder / name, moved)
    except BaseException:
        for source, target in reversed(moved):
            if os.path.lexists(target):
                target.replace(source)
        raise


def _move(source: Path, target: Path, moved: list[tuple[Path, Path]]) -> None:
    moved.append((source, target))  # noted first, so that an interrupt in between loses nothing
    source.replace(target)


def _write_trades(result: BacktestResult, path: Path) -> None:
    _write_rows(path, TRADE_FIELDS, result.trade_rows())


def _write_fills(result: BacktestResult, path: Path) -> None:
    _write_rows(path, FILL_FIELDS, result.fill_rows())


TRADE_FIELDS = (
    "symbol", "side", "entry_time", "exit_time", "qty_base", "entry_price", "exit_price", "fees", "pnl", "return_frac",
    "exit_reason", "ambiguous",
)  # fmt: skip
FILL_FIELDS = ("symbol", "time", "side", "lots", "qty_base", "price", "fee", "reason", "rule")


def _write_rows(path: Path, fields: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """Rows as CSV; the header is there without rows too, an absent value is empty, a truth is true or false."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(fields)
        writer.writerows([_plain(row[name]) for name in fields] for row in rows)


def _plain(value: Any) -> Any:
    return ("false", "true")[value] if isinstance(value, bool) else value


def _write_equity(result: BacktestResult, path: Path) -> None:
    """One row a candle. pyarrow's writer: a million rows take a second, with the csv module several."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    close_time = result.line.open_time[: result.run.rows] + result.curve.length_ms
    unit = "s" if not np.any(close_time % 1000) else "ms"
    times = np.datetime_as_string(close_time.astype("datetime64[ms]").astype(f"datetime64[{unit}]"), timezone="UTC")
    table = pa.table(
        {
            "time": pa.array(times.tolist()),
            "equity": result.run.equity,
            "market_equity": result.market_equity,
            "drawdown_frac": drawdowns(result),
            "exposed": exposed(result),
        }
    )
    with path.open("wb") as file:
        arrow_csv.write_csv(table, file, arrow_csv.WriteOptions(quoting_style="none", quoting_header="none"))


def exposed(result: BacktestResult) -> npt.NDArray[np.bool_]:
    """Whether anything was held at each close: what the fills up to it add up to, symbol by symbol."""
    fills = result.run.fills
    held = np.zeros(result.run.rows, dtype=bool)
    for s in range(len(result.symbols)):
        mine = fills[fills["symbol"] == s]
        changes = np.zeros(result.run.rows, dtype=np.int64)
        np.add.at(changes, mine["t"], mine["qty"])
        held |= np.cumsum(changes) != 0
    return held


def _write_report(result: BacktestResult, path: Path) -> None:
    path.write_text(render_html(result), encoding="utf-8")


def _write_json(result: BacktestResult, path: Path) -> None:
    """The documented object, one line a key: to be read by programs and looked into by people."""
    lines = (f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in result.to_dict().items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


WRITERS: dict[str, Writer] = {
    "trades.csv": _write_trades,
    "fills.csv": _write_fills,
    "equity.csv": _write_equity,
    "report.html": _write_report,
    "result.json": _write_json,
}
