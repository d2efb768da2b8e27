"""`atb db emergency-close-all` at the loopback exchange: the real command beside a real engine, on a real Postgres."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from atb.ledger.accounts import open_account
from tests.database import Postgres, book
from tests.integration.shell import ATB, Ran, Shell
from tests.integration.test_live_trading import until
from tests.venue.exchange_process import ExchangeProcess

pytest.importorskip("ccxt")
ROOT = Path(__file__).resolve().parents[2]
PRICES = {"BTCUSDT": "40000", "ETHUSDT": "2500", "SOLUSDT": "100", "ADAUSDT": "50", "XRPUSDT": "60"}
CLOSE = ("db", "emergency-close-all")
NOWHERE = "postgresql://trading_bot@127.0.0.1:9/none"
OUR_OWN = "1"  # BTC that were there before


class Exchange(ExchangeProcess):
    """With the symbols of PRICES."""

    def __init__(self, venue: str = "binance") -> None:
        self.quote, between = ("USDT", "") if venue == "binance" else ("USD", "-")
        self.prices = {f"{name[:-4]}{between}{self.quote}": price for name, price in PRICES.items()}
        symbols = [
            each
            for name, price in self.prices.items()
            for each in ("--symbol", f"{name}:{name[:3]}:{self.quote}:{price}")
        ]
        balances = ["--balance", f"{self.quote}=10000", "--balance", f"BTC={OUR_OWN}"]
        super().__init__(*symbols, *balances, "--history", "5", *(["--coinbase"] if venue == "coinbase" else []))
        self.fingerprint = hashlib.sha256(self.key.encode()).hexdigest()[:12]

    @property
    def env(self) -> dict[str, str]:
        return {**self.address, **self.keys, "PRICES": json.dumps(self.prices), "VENUE": self.venue}

    def holds(self) -> dict[str, str]:
        """Coins but for the quote, locked or not, where there are any."""
        held = {name: Decimal(b["free"]) + Decimal(b["locked"]) for name, b in self.account["balances"].items()}
        return {name: f"{qty.normalize():f}" for name, qty in held.items() if qty and name != self.quote}

    def working(self) -> list[str]:
        return [o["clientOrderId"] for o in self.account["orders"] if o["status"] in ("NEW", "PARTIALLY_FILLED")]

    def placed(self, side: str) -> list[str]:
        """Client ids of the market orders that were executed."""
        orders = self.account["orders"]
        return [o["clientOrderId"] for o in orders if (o["type"], o["side"], o["status"]) == ("MARKET", side, "FILLED")]


@pytest.fixture
def exchange(request: pytest.FixtureRequest) -> Iterator[Exchange]:
    with Exchange(getattr(request, "param", "binance")) as made:
        yield made


@pytest.fixture
def shell(server: Postgres, exchange: Exchange, tmp_path: Path) -> Shell:
    return Shell(tmp_path, DATABASE_URL=server.url(server.database()), **exchange.env)


class Engine:
    """tests/closing_engine.py, seen from a test."""

    def __init__(self, shell: Shell, action: str, *symbols: str, **env: str) -> None:
        command = [sys.executable, "-m", "tests.closing_engine", action, *symbols]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**shell.env, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def until(self, what: str) -> dict[str, Any]:
        assert self.process.stdout is not None and self.process.stderr is not None
        for line in self.process.stdout:
            if (told := json.loads(line))["what"] == what:
                return dict(told)
        raise AssertionError(f"it ended without '{what}': {self.process.stderr.read()}")

    def ended(self) -> int:
        self.process.communicate(timeout=60)
        return self.process.returncode


def query(shell: Shell, text: str) -> str:
    return shell("db", "query", text, ok=True).out


def is_flat(exchange: Exchange, dust: str = "0") -> None:
    """Nothing of ours is left: no order, no coin but dust; what was the owner's is there."""
    assert exchange.working() == []
    left = exchange.holds()
    assert 0 <= Decimal(left.pop("BTC")) - Decimal(OUR_OWN) <= Decimal(dust) and left == {}


def is_booked(shell: Shell, count: int) -> None:
    """The ledger says the same, is whole, halted and free."""
    assert query(shell, "SELECT count(*) FROM positions WHERE status = 'OPEN'") == "0\n"
    assert query(shell, "SELECT exit_reason, count(*) FROM trades GROUP BY 1") == f"emergency_close\t{count}\n"
    assert query(shell, "SELECT halted, holder FROM authority") == "t\t\n"
    assert shell("db", "verify").code == 0


def test_all_is_sold_at_the_exchange_and_booked(shell: Shell, exchange: Exchange) -> None:
    with Engine(shell, "hold", *PRICES) as engine:
        session = engine.until("holds")["session"]
        assert len(exchange.working()) == 10  # a stop and a take each
        plan = shell(*CLOSE, "--session-id", session, "--dry-run", "--json", ok=True).json
        assert sum(line["what"] == "close" for line in plan) == 5 and len(exchange.working()) == 10
        done = shell(*CLOSE, "--session-id", session, "--json", ok=True)
        assert engine.ended() == -signal.SIGTERM
    assert [(c["symbol"], Decimal(c["price"]), c["left"]) for c in done.json["closed"]] == [
        (name, Decimal(PRICES[name]), "0") for name in sorted(PRICES)
    ]
    assert len(done.json["cancelled"]) == 10 and "on this host" in done.err
    assert [(d["asset"], d["qty"]) for d in done.json["dust"]] == [("BTC", "0.00000250")]
    is_flat(exchange, "0.00001")
    is_booked(shell, 5)
    entries = query(shell, "SELECT count(*) FROM entries")
    again = shell(*CLOSE, "--session-id", session, ok=True)
    assert "Nothing was open" in again.err and again.out == ""
    assert f"{exchange.fingerprint} is halted" in again.err and "atb live resume --account binance:" in again.err
    assert shell(*CLOSE, "--json", ok=True).json["closed"] == []
    assert query(shell, "SELECT count(*) FROM entries") == entries and len(exchange.placed("SELL")) == 5
    assert json.loads((shell.home / "HALT").read_text())["account"].startswith("binance:spot:real:")
    shell("live", "resume", "--reason", "test", ok=True)
    assert not (shell.home / "HALT").exists()


def closes_while_failing(shell: Shell, exchange: Exchange, **fault: Any) -> None:
    with Engine(shell, "hold", *PRICES) as engine:
        engine.until("holds")
        exchange.control("fault", every=3, **fault)
        shell(*CLOSE, ok=True)
    is_flat(exchange, "0.00001")
    exchange.control("heal")
    is_booked(shell, 5)
    assert len(exchange.placed("SELL")) == 5  # nothing was sold twice


@pytest.mark.slow
def test_every_third_request_fails(shell: Shell, exchange: Exchange) -> None:
    closes_while_failing(shell, exchange, kind="status")


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [{"kind": "status", "done": True}, {"kind": "reset"}, {"kind": "reset", "done": True}, {"kind": "html"}]
)
def test_every_third_request_fails_otherwise(shell: Shell, exchange: Exchange, fault: dict[str, Any]) -> None:
    closes_while_failing(shell, exchange, **fault)


@pytest.mark.slow
def test_without_the_database(shell: Shell, exchange: Exchange) -> None:
    out = {**shell.env, "DATABASE_URL": NOWHERE}
    with Engine(shell, "hold", "BTCUSDT", "ETHUSDT") as engine:
        session = engine.until("holds")["session"]
        unknown = shell(*CLOSE, "--session-id", 999, env=out)
        assert unknown.code == 6 and "leave --session-id out" in unknown.err and len(exchange.working()) == 4
        plan = shell(*CLOSE, "--dry-run", env=out, ok=True)
        assert plan.out.count("\tclose\t") == 2 and plan.out.count("\tcancel ") == 4
        done = shell(*CLOSE, "--session-id", session, "--json", env=out, ok=True)
        assert engine.ended() == -signal.SIGTERM
    assert [c["symbol"] for c in done.json["closed"]] == ["BTCUSDT", "ETHUSDT"]
    assert any("engines on other hosts are not fenced" in note for note in done.json["notes"])
    is_flat(exchange, "0.00001")
    assert query(shell, "SELECT count(*) FROM positions WHERE status = 'OPEN'") == "2\n"
    again = shell(*CLOSE, env=out, ok=True)
    assert "Nothing was open" in again.err and len(exchange.placed("SELL")) == 2
    shell(*CLOSE, ok=True)  # the database is back: what was done is merged
    assert not list((shell.home / "spool").glob("*.jsonl"))
    is_booked(shell, 2)
    assert len(exchange.placed("SELL")) == 2


@pytest.mark.slow
def test_a_database_that_takes_nothing(shell: Shell, exchange: Exchange) -> None:
    """It answers and only reads, as one whose disk is full or that became a replica; or no URL leads to it."""
    with Engine(shell, "hold", "BTCUSDT", "ETHUSDT") as engine:
        engine.until("holds")
        nowhere = shell(*CLOSE, "--dry-run", env={"DATABASE_URL": "nonsense"}, ok=True)
        assert "is not a Postgres URL" in nowhere.err and nowhere.out.count("\tclose\t") == 2
        only_reads(shell, "on")
        done = shell(*CLOSE, "--json", ok=True)
        engine.ended()
    assert [c["symbol"] for c in done.json["closed"]] == ["BTCUSDT", "ETHUSDT"]
    assert "read-only transaction" in done.err and "is halted" in done.err
    is_flat(exchange, "0.00001")
    only_reads(shell, "off")
    shell(*CLOSE, ok=True)  # what was done is merged
    is_booked(shell, 2)
    assert len(exchange.placed("SELL")) == 2


def only_reads(shell: Shell, value: str) -> None:
    with psycopg.connect(shell.env["DATABASE_URL"], autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {value}")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            (name,),
        )


def test_a_url_that_is_none_and_nothing_known(shell: Shell) -> None:
    ran = shell(*CLOSE, env={"DATABASE_URL": "nonsense"})
    assert ran.code == 2 and "is not a Postgres URL" in ran.message and "nothing was sent" in ran.message


@pytest.mark.slow
@pytest.mark.parametrize("exchange", ["binance", "coinbase"], indirect=True)
def test_killed_between_a_sale_and_its_answer_and_once_more(shell: Shell, exchange: Exchange) -> None:
    names = list(exchange.prices)[:2]
    with Engine(shell, "hold", *names) as engine:
        engine.until("holds")
        until(lambda: len(exchange.working()) >= 2, "stops rest")  # Coinbase takes an order first, and shows it later
        exchange.control("fault", kind="hang", method="POST", where="(?i)market", done=True, seconds=30.0, times=1)
        closing = shell.start(*CLOSE)
        while not exchange.placed("SELL"):
            assert closing.poll() is None, closing.communicate()
        closing.kill()
        closing.communicate()
    exchange.control("heal")
    done = shell(*CLOSE, "--json", ok=True)
    assert {c["symbol"] for c in done.json["closed"]} == set(names) and exchange.working() == []
    is_flat(exchange, "0.00001")
    is_booked(shell, 2)
    assert len(exchange.placed("SELL")) == 2  # none of them twice
    assert "Nothing was open" in shell(*CLOSE, ok=True).err


def test_without_the_database_and_nothing_known(shell: Shell) -> None:
    ran = shell(*CLOSE, env={**shell.env, "DATABASE_URL": NOWHERE})
    assert ran.code == 6 and "This host knows nothing of an account with real money: nothing was sent" in ran.message


def test_with_everything_else_broken(shell: Shell, exchange: Exchange) -> None:
    with Engine(shell, "hold", "BTCUSDT") as engine:
        engine.until("holds")
    shell.write(".env", b"\xff\xfe nonsense\nATB_HUME=x\nDATABASE_URL=" + shell.env["DATABASE_URL"].encode() + b"\n")
    shell.write("atb.toml", "[[[")
    shell.write("strategies/sma_cross.py", "raise SystemExit(3)")
    shell.write("models/BTCUSDT/metadata.json", "{")
    (shell.home / "market_rules.json").write_text("{")
    (shell.home / "accounts" / "other.json").write_text("{")
    broken = {name: value for name, value in shell.env.items() if name != "DATABASE_URL"}
    shell.env = {**broken, "ENABLE_TRADING": "perhaps", "ATB_BINANCE_WS_URL": "nonsense"}
    shell(*CLOSE, ok=True)
    is_flat(exchange, "0.00001")


@pytest.mark.slow
def test_an_engine_that_hung_between_commit_and_send_goes_on_after_the_close(
    shell: Shell, exchange: Exchange, tmp_path: Path
) -> None:
    """It runs on another host: no pid, no file HALT."""
    with Engine(shell, "stop", "BTCUSDT", "ETHUSDT", ATB_HOME=str(tmp_path / "other host")) as engine:
        engine.until("about to send")
        done = shell(*CLOSE, "--json", ok=True)
        assert [c["symbol"] for c in done.json["closed"]] == ["BTCUSDT"]
        is_flat(exchange, "0.00001")
        engine.process.send_signal(signal.SIGCONT)
        assert engine.ended() == 9
    is_flat(exchange, "0.00001")
    is_booked(shell, 1)
    assert len(exchange.placed("BUY")) == 1


def test_a_close_during_an_entry(shell: Shell, exchange: Exchange, tmp_path: Path) -> None:
    """Committed just before the fence, sent after it and within its window: it is executed, and sold."""
    go, (terminal, slave) = tmp_path / "go", pty.openpty()
    with Engine(shell, "dive", "BTCUSDT", "ETHUSDT", ATB_HOME=str(tmp_path / "other host"), GO=str(go)) as engine:
        engine.until("waits")
        typed = subprocess.Popen([ATB, *CLOSE], cwd=shell.work, env=shell.env, stdin=slave, stdout=slave, stderr=slave)
        asked = b""
        while b"Close all of this?" not in asked:
            asked += os.read(terminal, 65_536)
        go.touch()
        engine.until("about to send")
        os.write(terminal, b"y\n")
        assert typed.wait(60) == 0
        assert engine.ended() == 9
    os.close(slave)
    os.close(terminal)
    is_flat(exchange, "0.00001")
    assert len(exchange.placed("BUY")) == len(exchange.placed("SELL"))
    is_booked(shell, len(exchange.placed("BUY")))


def test_without_the_key_or_with_another(shell: Shell, exchange: Exchange) -> None:
    with Engine(shell, "hold", "BTCUSDT") as engine:
        session = engine.until("holds")["session"]
        stops = exchange.working()
        keyless = {name: value for name, value in shell.env.items() if not name.startswith("BINANCE")}
        full, shell.env = shell.env, keyless
        ran = shell(*CLOSE, "--session-id", session)
        assert ran.code == 2 and "There is no key for binance" in ran.message and "BTCUSDT" in ran.message
        assert "BINANCE_API_KEY" in ran.err and f"--session-id {session} --record-only" in ran.err
        assert engine.ended() == -signal.SIGTERM
    assert exchange.working() == stops != []
    shell.env = {**full, "BINANCE_API_KEY": "another"}
    ran = shell(*CLOSE, "--session-id", session)
    assert ran.code == 2 and f"is binance:spot:real:{exchange.fingerprint}" in ran.message
    shell.env = full
    shell(*CLOSE, "--session-id", session, ok=True)
    is_flat(exchange, "0.00001")


def held_by_hand(shell: Shell, exchange: Exchange, qty: str) -> int:
    """An account that no session of ours traded holds so much. Returns a session of it."""
    print_, name = exchange.fingerprint, f"binance:spot:real:{exchange.fingerprint}"
    with psycopg.connect(shell.env["DATABASE_URL"]) as connection:
        open_account(connection, name, venue="binance", environment="real", quote="USDT", key_identity=print_)
        made = book(connection, name, "real")
        made.append(made.fill("buy", qty, "40000", "1"))
        return made.session


@pytest.mark.slow
def test_less_than_can_be_sold_is_dust_and_no_endless_loop(shell: Shell, exchange: Exchange) -> None:
    session = held_by_hand(shell, exchange, "0.0001")  # 4 USDT; 5 is the least
    exchange.control("deposit", account="main", asset="BTC", amount="0.0001")
    done = shell(*CLOSE, "--session-id", session, "--json", ok=True)
    assert done.json["closed"] == [] and done.json["dust"][0]["qty"] == "0.0001"
    assert "0.0001 BTC of" in done.err and "is dust" in done.err
    assert query(shell, "SELECT count(*) FROM orders") == "1\n"
    is_flat(exchange, "0.0001")
    assert query(shell, "SELECT count(*) FROM positions WHERE status = 'OPEN'") == "0\n"
    assert shell("db", "verify").code == 0


@pytest.mark.slow
def test_what_is_not_there_is_told_as_such(shell: Shell, exchange: Exchange) -> None:
    """More by the books than there is: the owner's coins went, too, and nothing tells where to."""
    session = held_by_hand(shell, exchange, "1.5")
    ran = shell(*CLOSE, "--session-id", session, "--json")
    assert ran.code == 7 and "of it is free at the exchange" in ran.message
    assert ran.json["left_open"][0]["symbol"] == "BTCUSDT"


@pytest.mark.slow
def test_an_exchange_that_is_away(shell: Shell, exchange: Exchange) -> None:
    with Engine(shell, "hold", "BTCUSDT") as engine:
        engine.until("holds")
    process = shell.start(*CLOSE, env={**shell.env, "ATB_BINANCE_API_URL": "http://127.0.0.1:9"})
    out, err = process.communicate(timeout=180)
    ran = Ran(process.returncode, out, err)
    assert ran.code == 4 and "BTCUSDT" in ran.message and "Run this again" in ran.err
    assert query(shell, "SELECT halted, holder FROM authority") == "t\t\n"
    shell(*CLOSE, ok=True)
    is_flat(exchange, "0.00001")
