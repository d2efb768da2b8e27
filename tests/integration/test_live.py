"""`atb live --provider replay`: history through everything that trades live, compared with the backtest."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.database import Postgres
from tests.integration.shell import Shell

ROOT = Path(__file__).parents[2]
CANDLES = ROOT / "tests" / "golden" / "candles.csv"
REPLAY = ("--symbol", "BTCUSDT", "--provider", "replay", "--data", str(CANDLES))
EXITS = ("--stop-loss", "0.03", "--take-profit", "0.04", "--trailing-stop", "0.03", "--partial-exits", "0.02:0.5")


@pytest.fixture
def shell(server: Postgres, tmp_path: Path) -> Shell:
    return Shell(tmp_path, DATABASE_URL=server.url(server.database()))


@pytest.mark.parametrize(
    "strategy", ["sma_cross", *(pytest.param(n, marks=pytest.mark.slow) for n in ("donchian_trend", "rsi_reversion"))]
)
@pytest.mark.parametrize("exits", [pytest.param((), marks=pytest.mark.slow), EXITS], ids=["plain", "exits"])
def test_it_is_what_the_backtest_does(shell: Shell, strategy: str, exits: tuple[str, ...]) -> None:
    ran = shell("live", strategy, *REPLAY, *exits, "--days", "40", "--json", ok=True)
    told = ran.json
    backtest = shell(
        "backtest", strategy, *REPLAY[:2], "--data", CANDLES, *exits, "--days", "40", "--json", ok=True
    ).json
    assert told["parity"]["differences"] == [] and told["parity"]["fills"] > 0
    assert float(told["equity"]) == pytest.approx(backtest["statistics"]["end_equity"], rel=1e-9)
    query = "SELECT exit_reason, entry_price, exit_price FROM trades ORDER BY exit_time"
    rows = [line.split("\t") for line in shell("db", "query", query, ok=True).out.splitlines()]
    trades = [t for t in backtest["trades"] if t["exit_reason"] != "open"]
    assert [row[0] for row in rows] == [t["exit_reason"] for t in trades]
    for row, trade in zip(rows, trades, strict=True):
        assert float(row[1]) == pytest.approx(trade["entry_price"]) and float(row[2]) == pytest.approx(
            trade["exit_price"]
        )
    shell("db", "verify", ok=True)


@pytest.mark.slow
def test_two_symbols_on_one_account(shell: Shell) -> None:
    two = ("--symbol", "ETHUSDT", "--data", str(CANDLES))
    ran = shell("live", "sma_cross", *REPLAY, *two, "--days", "20", ok=True)
    assert "The same as the backtest" in ran.out
    assert shell("db", "query", "SELECT DISTINCT symbol FROM decisions ORDER BY 1").out == "BTCUSDT\nETHUSDT\n"


def test_a_session_that_is_killed_leaves_a_whole_ledger(shell: Shell) -> None:
    process = shell.start("live", "sma_cross", *REPLAY, *EXITS)
    deadline = time.monotonic() + 60
    while shell("db", "query", "SELECT count(*) > 300 FROM entries").out != "t\n":
        assert time.monotonic() < deadline and process.poll() is None
    process.kill()
    process.communicate()
    shell("db", "verify", ok=True)
    assert shell("db", "query", "SELECT status FROM trading_sessions").out == "RUNNING\n"


def test_a_signal_ends_it_after_the_candle(shell: Shell) -> None:
    process = shell.start("live", "sma_cross", *REPLAY, "--speed", "36000")
    deadline = time.monotonic() + 60
    while shell("db", "query", "SELECT count(*) > 20 FROM entries").out != "t\n":
        assert time.monotonic() < deadline and process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "ended before the last candle" in out and "Traceback" not in err
    assert shell("db", "query", "SELECT status FROM trading_sessions").out == "STOPPED\n"
    shell("db", "verify", ok=True)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--symbol", "BTCUSDT", "--provider", "replay"], 2, "needs candles"),
        ([*REPLAY, "--speed", "fast"], 2, "--speed fast is no speed"),
        ([*REPLAY, "--speed", "-1"], 2, "--speed -1 is no speed"),
        ([*REPLAY, "--initial-balance", "0"], 2, "must be above 0"),
        ([*REPLAY[:-1], "nothing.csv"], 2, "nothing.csv"),
    ],
)  # fmt: skip
def test_bad_input(shell: Shell, options: list[str], code: int, message: str) -> None:
    ran = shell("live", "sma_cross", *options)
    assert ran.code == code and message in ran.message
    assert shell("db", "query", "SELECT count(*) FROM entries").out == "0\n"


def test_a_strategy_that_there_is_not(shell: Shell) -> None:
    ran = shell("live", "sma_cros", *REPLAY)
    assert ran.code == 10 and "sma_cross" in ran.err


def test_without_a_database(tmp_path: Path) -> None:
    ran = Shell(tmp_path)("live", "sma_cross", *REPLAY)
    assert ran.code == 6 and "atb db start" in ran.err


def candles_of(data: Path, *names: str) -> list[str]:
    return [word for name in names for word in ("--symbol", name, "--data", str(data / f"binance_{name}_1h.parquet"))]


def test_real_candles(shell: Shell, real_data: Path) -> None:
    span = ("--end", "2025-03-15", "--days", "7", *EXITS)
    told = shell("live", "ml_basic", *REPLAY[2:4], *candles_of(real_data, "BTCUSDT"), *span, "--json", ok=True).json
    assert told["parity"]["differences"] == [] and told["parity"]["fills"] > 0


@pytest.mark.slow
def test_real_candles_from_beside(shell: Shell, real_data: Path) -> None:
    """What the session left is compared once more from beside, and with the backtest command's own figures."""
    span = ("--end", "2025-03-15", "--days", "7", *EXITS)
    candles = candles_of(real_data, "BTCUSDT")
    told = shell("live", "ml_basic", "--provider", "replay", *candles, *span, "--json", ok=True).json
    assert told["parity"]["differences"] == [] and told["parity"]["fills"] > 0
    backtest = shell("backtest", "ml_basic", *candles, *span, "--json", ok=True).json
    assert float(told["equity"]) == pytest.approx(backtest["statistics"]["end_equity"], rel=1e-9)
    again = shell("live", "parity", "--session-id", told["session_id"], *candles[2:], "--json", ok=True).json
    assert again["equal"] and again["executions"] == told["parity"]["fills"]


@pytest.mark.slow
@pytest.mark.parametrize("names", [("BTCUSDT",), ("BTCUSDT", "ETHUSDT")], ids=["one", "two"])
@pytest.mark.parametrize("strategy", sorted(path.stem for path in (ROOT / "strategies").glob("*.py")))
def test_every_shipped_strategy_on_real_candles(
    shell: Shell, real_data: Path, strategy: str, names: tuple[str, ...]
) -> None:
    span = ("--end", "2025-03-15", "--days", "14", *EXITS)
    told = shell(
        "live", strategy, "--provider", "replay", *candles_of(real_data, *names), *span, "--json", ok=True
    ).json
    assert told["ended"] and told["parity"]["differences"] == [] and told["parity"]["fills"] > 0
