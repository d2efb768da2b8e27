"""`atb live` at the loopback exchange, as a process: how it starts, what it refuses, how it ends and begins again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.database import Postgres, book
from tests.integration.market import PEEKS
from tests.integration.shell import SHORT, Shell
from tests.venue.exchange_process import ExchangeProcess

pytest.importorskip("ccxt")
ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 60.0
PLAIN = ("sma_cross", "--symbol", "BTCUSDT", "--timeframe", "1m", "--check-interval", "1", "--health-port", "0", *SHORT)
ABOUT_ALL = pytest.approx(10_000.0, rel=0.02)  # a candle may have closed by then, and something been bought
KEYS = ("BINANCE_API_KEY", "BINANCE_API_SECRET")


@pytest.fixture(scope="module")
def exchange() -> Iterator[ExchangeProcess]:
    """A process of its own, as an exchange is: url, key and secret."""
    with ExchangeProcess("--timeframe", "1m", "--history", "400", "--walk", "2") as process:
        yield process


@pytest.fixture
def shell(server: Postgres, exchange: ExchangeProcess, tmp_path: Path) -> Shell:
    return Shell(tmp_path, DATABASE_URL=server.url(server.database()), **exchange.address)


@pytest.fixture
def real(shell: Shell, exchange: ExchangeProcess) -> dict[str, str]:
    return {**shell.env, "ENABLE_TRADING": "true", **exchange.keys}


def until(true: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.1)
    raise AssertionError(f"never came about: {what}")


def engine_file(shell: Shell) -> dict[str, Any] | None:
    for path in (shell.home / "engines").glob("*.json"):
        return dict(json.loads(path.read_text()))
    return None


def health(shell: Shell) -> dict[str, Any]:
    """What /health says, with the code of the answer."""
    told = until(lambda: engine_file(shell), "an engine that is registered")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{told['health_port']}/health", timeout=5) as answer:
            return {"code": answer.status, **json.load(answer)}
    except urllib.error.HTTPError as error:
        return {"code": error.code, **json.load(error)}
    except OSError:  # that of one that was killed
        return {"code": 0, "session_id": 0}


def healthy(shell: Shell) -> dict[str, Any]:
    told: dict[str, Any] = until(lambda: (h := health(shell))["code"] == 200 and h, "a healthy engine")
    return told


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=WAIT_S)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def test_paper_trading_from_start_to_stop(shell: Shell) -> None:
    process = shell.start("live", *PLAIN)
    told = healthy(shell)
    assert (told["status"], told["mode"], told["balance"]) == ("healthy", "paper", ABOUT_ALL)
    assert told["account"] == "paper:binance:sma_cross" and told["session_id"] == 1
    assert shell("health", "check").code == 0
    (line,) = shell("live", "status", "--json", ok=True).json["accounts"]
    assert line["account"] == "paper:binance:sma_cross"
    assert shell("live", "stop").code == 0
    code, out, err = ended(process)
    assert code == 0 and "*** PAPER TRADING ***" in err and "policy" in out
    assert shell("db", "query", "SELECT status, mode FROM trading_sessions", ok=True).out == "STOPPED\tpaper\n"
    assert engine_file(shell) is None and shell("health", "check").code == 11
    log = (shell.home / "logs" / "trading.log").read_text()
    assert "LiveTradingEngine" in log and "PAPER TRADING" in log
    shell("db", "verify", ok=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals_end_it_gracefully(shell: Shell, number: signal.Signals, code: int) -> None:
    process = shell.start("live", *PLAIN)
    healthy(shell)
    process.send_signal(number)
    assert ended(process)[0] == code
    assert shell("db", "query", "SELECT status FROM trading_sessions", ok=True).out == "STOPPED\n"


@pytest.mark.slow
def test_entries_that_are_switched_off_while_it_runs_are_named_by_health(shell: Shell) -> None:
    process = shell.start("live", *PLAIN)
    assert healthy(shell)["entries_blocked"] == []
    shell.write("atb.toml", "disable_trading = true\n")
    why = f"trading is switched off (disable_trading in {shell.work / 'atb.toml'})"
    until(lambda: health(shell)["entries_blocked"] == [why], "the switch")
    told = health(shell)
    assert (told["code"], told["notes"]) == (200, [f"No entries: {why}"])  # somebody wanted it
    checked = shell("health", "check")
    assert checked.code == 0 and f"Note: No entries: {why}" in checked.out
    shell.write("atb.toml", "")
    until(lambda: health(shell)["entries_blocked"] == [], "the switch back")
    process.send_signal(signal.SIGHUP)  # a terminal that is closed
    assert ended(process)[0] == 0
    assert shell("db", "query", "SELECT status FROM trading_sessions", ok=True).out == "STOPPED\n"


def test_killed_and_begun_again_it_goes_on(shell: Shell) -> None:
    process = shell.start("live", *PLAIN)
    healthy(shell)
    process.kill()
    process.communicate()
    again = shell.start("live", *PLAIN, "--resume-from-last-balance")
    told = until(lambda: (h := health(shell))["session_id"] == 2 and h["code"] == 200 and h, "the second session")
    assert told["balance"] == ABOUT_ALL
    again.send_signal(signal.SIGTERM)
    assert ended(again)[0] == 0
    assert shell("db", "query", "SELECT count(*) FROM accounts", ok=True).out == "1\n"
    shell("db", "verify", ok=True)


def test_real_money_is_asked_for_and_told(shell: Shell, real: dict[str, str]) -> None:
    process = shell.start("live", *PLAIN, env=real)
    told = healthy(shell)
    assert told["mode"] == "real" and told["account"].startswith("binance:spot:real:")
    process.send_signal(signal.SIGTERM)
    code, out, err = ended(process)
    assert code == 0 and "*** REAL MONEY ***" in err
    for text in (out, err, (shell.home / "logs" / "trading.log").read_text()):
        assert real[KEYS[0]] not in text and real[KEYS[1]] not in text
    assert told["balance"] == ABOUT_ALL


@pytest.mark.slow
def test_two_engines_on_one_account(shell: Shell) -> None:
    process = shell.start("live", *PLAIN)
    healthy(shell)
    second = shell.start("live", *PLAIN)
    assert second.stdout is not None
    said = next(line for line in second.stdout if "Waiting up to" in line)  # while it waits
    assert "is held by" in said and str(process.pid) in said and second.poll() is None
    code, _, err = ended(second)
    assert code == 9 and "is held by" in err
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 0


@pytest.mark.parametrize(
    ("args", "env", "code", "says"),
    [
        (("--symbol", "NOPEUSDT"), {}, 2, "Unknown symbol 'NOPEUSDT'"),
        (("--symbol", "BTCUSDT", "--timeframe", "7m"), {}, 2, "Unknown timeframe '7m'"),
        (("--symbol", "BTCUSDT", "--stop-loss", "0"), {}, 2, "no stop"),
        (("--symbol", "BTCUSDT", "--provider", "kraken"), {}, 2, "Unknown provider 'kraken'"),
        (("--symbol", "BTCUSDT", "--provider", "binance,coinbase"), {}, 2, "a session trades at one exchange"),
        (("--symbol", "BTCUSDT", "--check-interval", "0"), {}, 2, "--check-interval"),
        (("--symbol", "BTCUSDT", "--symbol", "BTC/USDT"), {}, 2, "more than once"),
        (("--symbol", "BTCUSDT", "--symbol", "ETHBTC"), {}, 2, "different currencies"),
        (("--symbol", "BTCUSDT", "--direction", "short"), {}, 2, "long only"),
        (("--symbol", "BTCUSDT", "--speed", "3"), {}, 2, "--provider replay"),
        (("--symbol", "BTCUSDT", "--on-halt", "pray"), {}, 2, "--on-halt"),
        (("--symbol", "BTCUSDT", "--health-port", "99999"), {}, 2, "--health-port 99999 is no port"),
        (("--symbol", "BTCUSDT", "--health-host", "no.such.host.invalid"), {}, 2, "is no address"),
        (("--symbol", "BTCUSDT", "--policy", "none.toml"), {}, 2, "Policy file none.toml does not exist"),
        (("--symbol", "BTCUSDT", "--model-version", "v9"), {}, 2, "has no model"),
        (("--symbol", "BTCUSDT"), {"ENABLE_TRADING": "true"}, 2, "no key for binance"),
        (("--symbol", "BTCUSDT"), {"ENABLE_TRADING": "perhaps"}, 2, "neither on nor off"),
        (("--symbol", "BTCUSDT"), {"ENABLE_TRADING": "true", KEYS[0]: "k" * 20, KEYS[1]: "s" * 20}, 5, "key"),
        (("--symbol", "BTCUSDT"), {"ATB_BINANCE_API_URL": "http://127.0.0.1:9"}, 4, "Start again when it answers"),
        (("--symbol", "BTCUSDT", "-p", "slow=2000"), {}, 3, "looks back on 1,999 candles"),
        (("--symbol", "BTC-USD", "--provider", "coinbase", "--timeframe", "3d"), {}, 2, "No 3d candles at coinbase"),
        (("--symbol", "DOGEUSDT"), {}, 2, "Unknown symbol 'DOGEUSDT'"),
        (("--symbol", "BTCUSDT"), {"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}, 6, "127.0.0.1:9"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_and_nothing_is_sent(
    shell: Shell, args: tuple[str, ...], env: dict[str, str], code: int, says: str
) -> None:
    ran = shell("live", "sma_cross", "--timeframe", "1m", "--health-port", "0", *args, env={**shell.env, **env})
    assert (ran.code, says in ran.err) == (code, True), ran.err
    if code == 4:
        assert "mode: PAPER TRADING" in ran.out and "policy: " in ran.out  # also of a start that fails
    if "DATABASE_URL" not in env:
        assert shell("db", "query", "SELECT count(*) FROM orders").out in ("0\n", "")
    if "--health" in " ".join(args):
        assert shell("db", "query", "SELECT count(*) FROM accounts").out == "0\n"


@pytest.mark.parametrize("money", [False, True], ids=["paper", "money"])
def test_a_strategy_that_looks_ahead_is_refused_before_anybody_is_asked(
    shell: Shell, real: dict[str, str], money: bool
) -> None:
    shell.write("strategies/peeks.py", PEEKS)
    nobody = {**(real if money else shell.env), "ATB_BINANCE_API_URL": "http://127.0.0.1:9"}
    ran = shell("live", "peeks", "--symbol", "BTCUSDT", "--health-port", "0", env=nobody)
    assert (ran.code, "peeks.py, line 8: look-ahead: the signal of candle" in ran.err) == (10, True), ran.err
    assert shell("db", "query", "SELECT count(*) FROM trading_sessions").out == "0\n"


def test_money_that_would_be_left_alone_is_named(shell: Shell, server: Postgres) -> None:
    with psycopg.connect(shell.env["DATABASE_URL"]) as connection:
        made = book(connection, "binance-main", "real")
        made.append(made.fill("buy", "0.2", "50000", "1"))
        made.connection.execute("UPDATE authority SET holder = '', expires_at = NULL")
    ran = shell("live", *PLAIN)
    assert ran.code == 2 and "has something open (binance-main: 0.2 BTCUSDT)" in ran.message
    assert "ENABLE_TRADING=true and BINANCE_API_KEY and BINANCE_API_SECRET" in ran.message
    process = shell.start("live", *PLAIN, "--paper-trading")
    assert healthy(shell)["mode"] == "paper"
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 0


def test_a_taken_port_is_an_error_while_nothing_is_held(shell: Shell) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ran = shell("live", *PLAIN[:-6], "--health-port", port)
    assert ran.code == 2 and port in ran.message and str(os.getpid()) in ran.err
