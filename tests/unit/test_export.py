"""The exported files: what they hold, and that they come all together or not at all."""

from __future__ import annotations

import csv
import errno
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atb.backtest import export as export_module
from atb.backtest.export import export
from atb.backtest.report_html import render_html
from atb.backtest.result import BacktestResult
from atb.core.errors import DataError, UsageError
from atb.core.timeframe import iso
from tests.unit.report_case import BUSY, Idle, candles, make_result

NAMES = ["trades.csv", "fills.csv", "equity.csv", "report.html", "result.json"]


@pytest.fixture(scope="module")
def result() -> BacktestResult:
    """Two symbols, one of which has fewer candles, with partial exits and a position open at the end."""
    series = (candles(600), candles(500, seed=3, symbol="ETHUSDT"))
    return make_result(*series, policy=BUSY | {"partial_exits": [[0.01, 0.5]]})


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_five_files_are_written_and_named(result: BacktestResult, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "deeper"
    assert export(result, folder) == [folder / name for name in NAMES]
    assert sorted(contents(folder)) == sorted(NAMES)
    assert [p.name for p in tmp_path.rglob("*") if p.name.endswith(".partial")] == []
    assert (folder / "report.html").read_text(encoding="utf-8") == render_html(result)


def test_the_new_folder_has_the_rights_of_any_new_folder(result: BacktestResult, tmp_path: Path) -> None:
    export(result, tmp_path / "out")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(("name", "rows"), [("trades.csv", "trade_rows"), ("fills.csv", "fill_rows")])
def test_trades_and_fills_are_those_of_the_result(result: BacktestResult, tmp_path: Path, name: str, rows: str) -> None:
    export(result, tmp_path)
    expected = getattr(result, rows)()
    written = read(tmp_path / name)
    assert len(written) == len(expected) > 50
    assert list(written[0]) == list(expected[0])
    for got, want in zip(written, expected, strict=True):
        assert {key: parsed(text, want[key]) for key, text in got.items()} == want


def parsed(text: str, like: Any) -> Any:
    """`text` as a value of the type of `like`."""
    if like is None:
        return None if text == "" else text
    if isinstance(like, bool):
        return {"true": True, "false": False}[text]
    return type(like)(text)


def test_equity_has_a_row_for_each_close(result: BacktestResult, tmp_path: Path) -> None:
    export(result, tmp_path)
    rows = read(tmp_path / "equity.csv")
    assert list(rows[0]) == ["time", "equity", "market_equity", "drawdown_frac", "exposed"]
    assert [row["time"] for row in rows] == [iso(t + 3_600_000) for t in result.line.open_time.tolist()]
    assert [float(row["equity"]) for row in rows] == result.run.equity.tolist()
    assert [float(row["market_equity"]) for row in rows] == result.market_equity.tolist()
    peak = result.initial_balance
    for row in rows:
        equity = float(row["equity"])
        peak = max(peak, equity)
        assert float(row["drawdown_frac"]) == pytest.approx(1 - equity / peak, abs=1e-12)
    assert sum(row["exposed"] == "true" for row in rows) == result.run.account.candles_exposed > 0
    assert {row["exposed"] for row in rows} == {"true", "false"}


def test_exposed_is_told_at_each_close_by_the_fills(result: BacktestResult) -> None:
    held: dict[str, int] = {}
    fills = result.fill_rows()
    expected = []
    for t in result.line.open_time.tolist():
        while fills and fills[0]["time"] == iso(t):
            fill = fills.pop(0)
            signed = fill["lots"] if fill["side"] == "buy" else -fill["lots"]
            held[fill["symbol"]] = held.get(fill["symbol"], 0) + signed
        expected.append(any(held.values()))
    assert export_module.exposed(result).tolist() == expected


def test_result_json_is_the_documented_object(result: BacktestResult, tmp_path: Path) -> None:
    export(result, tmp_path)
    text = (tmp_path / "result.json").read_text(encoding="utf-8")
    assert json.loads(text) == json.loads(json.dumps(result.to_dict()))
    assert len(text.splitlines()) == len(result.to_dict()) + 2


def test_a_run_without_trades_still_writes_headers(tmp_path: Path) -> None:
    export(make_result(strategy=Idle), tmp_path)
    assert (tmp_path / "trades.csv").read_text().startswith("symbol,side,entry_time,exit_time,qty_base,")
    assert (tmp_path / "fills.csv").read_text() == "symbol,time,side,lots,qty_base,price,fee,reason,rule\n"
    assert {row["exposed"] for row in read(tmp_path / "equity.csv")} == {"false"}


def test_headers_match_the_rows_of_the_result(result: BacktestResult) -> None:
    assert list(export_module.TRADE_FIELDS) == list(result.trade_rows()[0])
    assert list(export_module.FILL_FIELDS) == list(result.fill_rows()[0])


def test_candles_of_less_than_a_second_keep_their_milliseconds(result: BacktestResult, tmp_path: Path) -> None:
    odd = result._replace(curve=result.curve._replace(length_ms=3_600_500))
    export(odd, tmp_path)
    assert read(tmp_path / "equity.csv")[0]["time"] == "2024-01-01T01:00:00.500Z"


def test_a_second_export_replaces_its_own_files_only(result: BacktestResult, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "trades.csv").write_text("old")
    export(result, tmp_path)
    export(result, tmp_path)
    assert sorted(contents(tmp_path)) == sorted([*NAMES, "notes.txt"])
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "trades.csv").read_text().startswith("symbol,")


@pytest.mark.parametrize("below", ["", "sub", "sub/deeper"])
def test_a_file_in_the_way_is_a_usage_error(result: BacktestResult, tmp_path: Path, below: str) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(UsageError, match=r"taken is a file") as caught:
        export(result, tmp_path / "taken" / below)
    assert caught.value.exit_code == 2
    assert contents(tmp_path) == {"taken": b"mine"}


def full_disk(_: BacktestResult, path: Path) -> None:
    path.write_text("half")
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def ctrl_c(_: BacktestResult, path: Path) -> None:
    path.write_text("half")
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("break_off", "error"), [(full_disk, DataError), (ctrl_c, KeyboardInterrupt)])
def test_nothing_is_left_when_a_file_cannot_be_written(
    result: BacktestResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    break_off: Callable[[BacktestResult, Path], None],
    error: type[BaseException],
) -> None:
    monkeypatch.setitem(export_module.WRITERS, name, break_off)
    with pytest.raises(error):
        export(result, tmp_path / "new" / "deeper")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "trades.csv").write_text("old")
    with pytest.raises(error):
        export(result, tmp_path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("trades.csv", "old")]


def test_a_full_disk_is_named_with_its_place(
    result: BacktestResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(export_module.WRITERS, "fills.csv", full_disk)
    with pytest.raises(DataError) as caught:
        export(result, tmp_path / "out")
    assert caught.value.exit_code == 3
    assert str(tmp_path / "out") in caught.value.what and "No space left on device" in caught.value.what


def test_a_limit_on_the_size_of_files_is_a_data_error_of_the_real_writers(
    result: BacktestResult, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(DataError, match=r"(?i)too large"):
            export(result, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_made_is_a_data_error(result: BacktestResult) -> None:
    with pytest.raises(DataError, match=r"/proc/.* cannot be written"):
        export(result, Path("/proc/atb/out"))


def test_a_folder_named_like_one_of_the_files_stops_before_anything_is_moved(
    result: BacktestResult, tmp_path: Path
) -> None:
    (tmp_path / "result.json").mkdir()
    (tmp_path / "result.json" / "mine.txt").write_text("mine")
    (tmp_path / "trades.csv").write_text("old")
    with pytest.raises(DataError, match=r"result\.json cannot be written: Is a directory"):
        export(result, tmp_path)
    assert contents(tmp_path) == {"result.json/mine.txt": b"mine", "trades.csv": b"old"}


@pytest.mark.parametrize("at", range(10))
@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_a_move_that_fails_puts_the_old_files_back(
    result: BacktestResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException
) -> None:
    for name in NAMES:
        (tmp_path / name).write_text(f"old {name}")
    before, moves, replace = contents(tmp_path), [0], Path.replace

    def failing(source: Path, target: Path) -> Path:
        moves[0] += 1
        if moves[0] == at + 1:
            raise error
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises((DataError, KeyboardInterrupt)):
        export(result, tmp_path)
    monkeypatch.undo()
    assert contents(tmp_path) == before
    export(result, tmp_path)
    assert all(b"old" not in text[:3] for text in contents(tmp_path).values())


def test_the_numbers_are_exact(result: BacktestResult, tmp_path: Path) -> None:
    export(result, tmp_path)
    pnl = np.array([float(row["pnl"]) for row in read(tmp_path / "trades.csv")])
    assert pnl.tolist() == result.trades.pnl.tolist()
