"""`atb live parity` as an operator types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.database import Postgres
from tests.integration.shell import Shell

CANDLES = Path(__file__).parents[1] / "golden" / "candles.csv"
EXITS = ("--stop-loss", "0.03", "--take-profit", "0.04", "--trailing-stop", "0.03", "--partial-exits", "0.02:0.5")


@pytest.fixture(scope="module")
def shell(server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """With a rehearsal of two symbols, session 1."""
    shell = Shell(tmp_path_factory.mktemp("shell"), DATABASE_URL=server.url(server.database()))
    two = ("--symbol", "BTCUSDT", "--data", CANDLES, "--symbol", "ETHUSDT", "--data", CANDLES)
    shell("live", "rsi_reversion", "--provider", "replay", *two, *EXITS, "--days", "20", ok=True)
    return shell


def changed(shell: Shell, row: int, column: int, factor: float) -> Path:
    """The candles, one number of which is another one."""
    lines = CANDLES.read_text().splitlines()
    cells = lines[row].split(",")
    cells[column] = f"{float(cells[column]) * factor:.2f}"
    lines[row] = ",".join(cells)
    return shell.write(f"changed_{row}_{column}.csv", "\n".join(lines) + "\n")


def test_a_session_is_the_backtest(shell: Shell) -> None:
    ran = shell("live", "parity", "--session-id", "1", "--data", CANDLES, "--data", CANDLES, ok=True)
    assert "480 closes, 960 decisions" in ran.out and "The same as the backtest" in ran.out
    told = shell("live", "parity", "--session-id", 1, "--data", CANDLES, "--data", CANDLES, "--json", ok=True).json
    assert told["equal"] and told["explained"] and told["differences"] == [] and told["executions"] > 5
    assert told["equity"] == pytest.approx(told["backtest_equity"], rel=1e-9)
    equity = shell("db", "query", "SELECT current_balance FROM trading_sessions WHERE id = 1", ok=True).out
    assert float(equity) == pytest.approx(told["equity"], rel=1e-9)


def test_a_candle_that_differs_is_named(shell: Shell) -> None:
    """Row -10: its close is another one. It is explained, and so is all that follows from it."""
    other = changed(shell, -10, 4, 1.0001)
    ran = shell("live", "parity", "--session-id", 1, "--data", CANDLES, "--data", other, "--json")
    assert (ran.code, ran.err.count("Error")) == (0, 0)
    told = ran.json
    assert set(told["causes"]) == {"candle"} and not told["equal"] and told["explained"]
    assert {d["symbol"] for d in told["differences"]} == {"ETHUSDT"}
    table = shell("live", "parity", "--session-id", 1, "--data", CANDLES, "--data", other, ok=True).out
    assert table.startswith("candle\tsymbol\twhat\tsession\tbacktest") and "of the backtest alone" in table


def test_what_nothing_explains_is_exit_7(shell: Shell) -> None:
    """A fill was made at the open of a candle; these candles have another one."""
    query = "SELECT min(extract(epoch FROM at))::bigint * 1000 FROM fills WHERE symbol = 'BTCUSDT' AND side = 'buy'"
    open_ms = shell("db", "query", query, ok=True).out.strip()
    lines = CANDLES.read_text().splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith(open_ms))
    high, low = (float(lines[row].split(",")[k]) for k in (2, 3))
    opened = float(lines[row].split(",")[1])
    other = changed(shell, row, 1, ((high + low) / 2 if abs(opened - (high + low) / 2) > 0.05 else high) / opened)
    ran = shell("live", "parity", "--session-id", 1, "--data", other, "--data", CANDLES)
    assert ran.code == 7 and "BTCUSDT fill: bought" in ran.message
    assert "unexplained" in ran.out


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        ((), 2, "--session-id"),
        (("--session-id", "77"), 2, "There is no session 77"),
        (("--session-id", "one"), 2, "one"),
        (("--session-id", "1"), 2, "are not an exchange's"),
        (("--session-id", "1", "--data", CANDLES), 2, "--data once"),
        (("--session-id", "1", "--data", "none.csv", "--data", CANDLES), 2, "none.csv"),
    ],
)
def test_bad_input(shell: Shell, args: tuple[object, ...], code: int, says: str) -> None:
    ran = shell("live", "parity", *args)
    assert (ran.code if args else 2, says in ran.err + ran.out) == (code, True), ran.err


def test_candles_of_something_else(shell: Shell) -> None:
    rows = [line.split(",") for line in CANDLES.read_text().splitlines()]
    moved = [[r[0], *(f"{float(x) * 3:.2f}" for x in r[1:5]), *r[5:]] for r in rows[1:]]
    other = shell.write("other.csv", "\n".join(",".join(r) for r in [rows[0], *moved]) + "\n")
    ran = shell("live", "parity", "--session-id", 1, "--data", other, "--data", other)
    assert ran.code == 3 and "are not in these candles" in ran.message


def test_a_strategy_that_is_gone_is_taken_as_it_was_recorded(server: Postgres, tmp_path: Path) -> None:
    shell = Shell(tmp_path, DATABASE_URL=server.url(server.database()))
    source = Path(__file__).parents[2] / "strategies" / "sma_cross.py"
    shell.write("strategies/mine.py", source.read_text().replace("class SmaCross", "class Mine"))
    one = ("--symbol", "BTCUSDT", "--data", CANDLES)
    shell("live", "mine", "--provider", "replay", *one, "--days", "5", ok=True)
    (shell.work / "strategies" / "mine.py").unlink()
    ran = shell("live", "parity", "--session-id", 1, "--data", CANDLES, ok=True)
    assert "The same as the backtest" in ran.out and "as they were recorded" in ran.err


def test_without_a_database(tmp_path: Path) -> None:
    ran = Shell(tmp_path)("live", "parity", "--session-id", 1)
    assert ran.code == 6 and "atb db start" in ran.err


def test_json_is_what_the_docs_say(shell: Shell) -> None:
    told = json.loads(shell("live", "parity", "--session-id", 1, "--data", CANDLES, "--data", CANDLES, "--json").out)
    page = (Path(__file__).parents[2] / "docs" / "live.md").read_text()
    assert all(
        f"`{name}`" in page
        for name in told
        if name not in ("account", "mode", "venue", "strategy", "timeframe", "status")
    )
