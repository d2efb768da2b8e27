"""`atb live` with real orders at the loopback exchange, as a process: from the verdict of the start to what is resumed."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.database import Postgres
from tests.integration.shell import Shell
from tests.integration.test_live_trading import ended, health, until
from tests.venue.exchange import LENGTH_MS
from tests.venue.exchange_process import ExchangeProcess

pytest.importorskip("ccxt")
MINUTE_MS = 60_000
BEFORE_CLOSE_MS = 48_000  # of a minute: an engine that starts then is there when its candle closes
ABOVE = '''
"""Long while the close is above a level."""

import numpy as np

from atb.engine.candles import Candles, Floats
from atb.strategy import Strategy, param


class Above(Strategy):
    """Long while the close is above a level, and out below it."""

    level: float = param(39_000.0, 0.0, 1e9, "quote")

    @property
    def lookback_bars(self) -> int:
        return 2

    def signals(self, candles: Candles) -> Floats:
        return np.where(candles.close > self.level, 1.0, -1.0)
'''
OFTEN = ("--timeframe", "1m", "--check-interval", "1", "--health-port", "0")
LIVE = ("live", "above", "--symbol", "BTCUSDT", *OFTEN)
COINBASE = ("--coinbase", "--symbol", "BTC-USD:BTC:USD:40000", "--balance", "USD=10000")


class Place(ExchangeProcess):
    """The exchange, and the shell of somebody who has an account there."""

    def __init__(self, server: Postgres, folder: Path, *options: str, timeframe: str = "1m") -> None:
        length = LENGTH_MS[timeframe]
        now = int(time.time() * 1000) // length * length + length - MINUTE_MS + BEFORE_CLOSE_MS
        more = ("--history", "300", "--walk", "0.2", "--now-ms", str(now))
        super().__init__("--timeframe", timeframe, *more, *options)
        self.symbol = "BTC-USD" if self.venue == "coinbase" else "BTCUSDT"
        url = server.url(server.database())
        self.shell = Shell(folder, DATABASE_URL=url, ENABLE_TRADING="true", **self.address, **self.keys)
        (self.shell.work / "strategies").mkdir()
        (self.shell.work / "strategies" / "above.py").write_text(ABOVE)

    def total(self, asset: str) -> Decimal:
        found = self.account["balances"][asset]
        return Decimal(found["free"]) + Decimal(found["locked"])

    @property
    def resting(self) -> list[dict[str, Any]]:
        return [order for order in self.account["orders"] if order["status"] == "NEW"]

    @property
    def bought(self) -> list[dict[str, Any]]:
        return [order for order in self.account["orders"] if order["side"] == "BUY"]

    def start(self, *args: str) -> subprocess.Popen[str]:
        return self.shell.start("live", "above", "--provider", self.venue, "--symbol", self.symbol, *OFTEN, *args)

    def buy(self) -> subprocess.Popen[str]:
        """An engine that runs, and holds what it bought."""
        process = self.start()
        until(lambda: self.resting, "a stop that rests")
        return process

    def just_before_a_close(self) -> None:
        now = self.control("clock")["now_ms"]
        rest = now % MINUTE_MS
        self.control("clock", advance_ms=(BEFORE_CLOSE_MS - rest) % MINUTE_MS)

    def query(self, sql: str) -> str:
        return self.shell("db", "query", sql, ok=True).out.strip()

    def agrees(self) -> None:
        ran = self.shell("live", "sync-balance", "--provider", self.venue)
        assert ran.code == 0, ran
        self.shell("db", "verify", ok=True)


@pytest.fixture
def place(server: Postgres, tmp_path: Path) -> Iterator[Place]:
    with Place(server, tmp_path) as made:
        yield made


def killed(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def answering(place: Place) -> dict[str, Any]:
    """What /health says of the engine that runs. (Its clock is not the exchange's here, and that it says, too.)"""
    told: dict[str, Any] = until(lambda: (h := health(place.shell))["code"] and h, "an answer")
    return told


def stopped(process: subprocess.Popen[str]) -> tuple[str, str]:
    process.send_signal(signal.SIGTERM)
    code, out, err = ended(process)
    assert code == 0, err
    return out, err


@pytest.mark.parametrize("options", [(), pytest.param(COINBASE, marks=pytest.mark.slow)], ids=["binance", "coinbase"])
def test_bought_protected_killed_resumed_and_sold(server: Postgres, tmp_path: Path, options: tuple[str, ...]) -> None:
    with Place(server, tmp_path, *options) as place:
        bought_and_sold(place)


def bought_and_sold(place: Place) -> None:
    killed(place.buy())
    (stop,) = place.resting
    held = place.total("BTC")
    assert Decimal(stop["origQty"]) == held // Decimal("0.00001") * Decimal("0.00001")
    place.control("price", symbol=place.symbol, price="38900")  # below the level, above the stop
    place.just_before_a_close()
    again = place.start("--resume-from-last-balance")
    until(lambda: not place.resting and place.total("BTC") < Decimal("0.00001"), "sold")
    until(lambda: place.query("SELECT count(*) FROM trades") == "1", "the trade in the ledger")
    out, _ = stopped(again)
    assert "holds 0.0" in out and "BTC" in out  # what was resumed
    assert len(place.bought) == 1
    place.agrees()


@pytest.mark.slow
def test_what_is_seen_of_an_engine_between_two_closes(place: Place) -> None:
    """Health, status, the row in the database and the log, of a position that falls past a limit."""
    logs = place.shell.work / "logs"
    limits = ("--fraction", "0.9", "--max-position", "0.9", "--stop-loss", "0.1", "--max-drawdown", "0.01")
    process = place.start(*limits, "--log-dir", str(logs), "--health-host", "localhost")
    try:
        answering(place)
        place.just_before_a_close()
        until(lambda: place.resting, "a stop that rests")
        place.control("price", symbol="BTCUSDT", price="39200")  # 2 % lower, and still above the strategy's level
        falls_past_a_limit(place)
        place.shell("db", "verify", ok=True)
        assert len(place.resting) == 1  # the breaker closes nothing
        stopped(process)
    finally:
        process.kill()
    log = (logs / "trading.log").read_text()
    for said in (" entry: BTCUSDT: bought", " stop_loss_placed: BTCUSDT: stop_loss=", " breaker: Nothing is bought"):
        assert f"LiveTradingEngine{said}" in log, log
    assert not (place.shell.home / "logs").exists()


def falls_past_a_limit(place: Place) -> None:
    told = until(lambda: (h := answering(place))["balance"] < 9_900.0 and h, "the balance at the running price")
    (held,) = told["positions"]
    assert held["unrealized_pnl"] == pytest.approx(told["unrealized_pnl"]) and -300 < told["unrealized_pnl"] < -100
    assert any("the breaker: equity 9,8" in why for why in told["entries_blocked"]), told
    until(lambda: "392" in place.query("SELECT prices FROM running_marks"), "the row in the database")

    def marked() -> dict[str, Any] | None:
        (account,) = place.shell("live", "status", "--json", ok=True).json["accounts"]
        return account if account["marked_at"] else None

    assert float(until(marked, "a mark")["equity"]) == pytest.approx(told["balance"], abs=30)


@pytest.mark.slow
def test_what_nothing_explains_refuses_to_start_with_everything_protected(place: Place) -> None:
    killed(place.buy())
    place.control("move", account="main", kind="withdrawal", asset="USDT", amount="77", told=False)
    ran = place.shell(*LIVE)
    assert ran.code == 7 and "sync-balance --provider binance --accept" in ran.err
    assert "-77" in ran.out and "refuse" in ran.out
    assert len(place.resting) == 1
    accepted = place.shell("live", "sync-balance", "--provider", "binance", "--accept", "--reason", "for the rent")
    assert accepted.code == 0, accepted
    process = place.start()
    assert answering(place)["active_positions"] == 1
    stopped(process)
    place.agrees()


@pytest.mark.slow
@pytest.mark.parametrize(("minutes", "buys"), [(1, True), (10, False)])
def test_a_decision_that_was_not_carried_out_is_forgotten_after_five_minutes(
    server: Postgres, tmp_path: Path, minutes: int, buys: bool
) -> None:
    with Place(server, tmp_path, timeframe="1h") as place:
        hourly = ("live", "above", "--symbol", "BTCUSDT", "--check-interval", "1", "--health-port", "0")
        process = place.shell.start(*hourly, env={**place.shell.env, "DISABLE_TRADING": "true"})
        until(lambda: "switched off" in place.query("SELECT message FROM events"), "an entry that is blocked")
        killed(process)
        assert place.bought == []
        place.control("clock", advance_ms=minutes * MINUTE_MS)
        process = place.shell.start(*hourly)
        if buys:
            until(lambda: place.resting, "a stop that rests")
        else:
            until(lambda: "s ago" in place.query("SELECT message FROM events"), "an entry that is blocked")
            assert place.bought == []
        stopped(process)
        place.agrees()


@pytest.mark.slow
def test_what_the_owner_does_meanwhile_is_seen_within_a_cycle(place: Place) -> None:
    process = place.buy()
    place.control("move", account="main", kind="deposit", asset="USDT", amount="250")
    until(lambda: place.query("SELECT count(*) FROM adjustments WHERE amount = 250") == "1", "the deposit")
    place.control("order", account="main", symbol="BTCUSDT", side="BUY", qty="0.01")
    until(lambda: "by no order of this account" in place.query("SELECT message FROM events"), "the purchase")
    assert answering(place)["exchange"]["status"] == "ok"
    stopped(process)
    place.agrees()


@pytest.mark.slow
def test_paper_beside_a_real_account_tells_what_a_real_start_would_find(place: Place) -> None:
    killed(place.buy())
    place.control("move", account="main", kind="deposit", asset="USDT", amount="250")
    before = place.query("SELECT count(*) FROM entries")
    process = place.start("--paper-trading")
    until(lambda: place.query("SELECT count(*) FROM trading_sessions WHERE mode = 'paper'") == "1", "a session")
    out, err = stopped(process)
    assert "250" in out and "differs from the exchange; nothing was written there" in err
    real = "SELECT count(*) FROM entries JOIN accounts ON accounts.id = account_id WHERE environment = 'real'"
    assert place.query(real) == before and len(place.resting) == 1


@pytest.mark.slow
def test_how_much_of_the_money_it_may_trade_with(place: Place) -> None:
    process = place.start("--initial-balance", "2000")
    assert answering(place)["balance"] == 2000.0
    stopped(process)
    process = place.start("--initial-balance", "5000")
    assert answering(place)["balance"] < 2100.0
    assert "counts for a new account" in stopped(process)[0]


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--balance", "USDT=3"), 2, "3.00 USDT to trade with, and the smallest order"),
        (("--balance", "BTC=1"), 2, "0 USDT to trade with"),
        (("--may-withdraw",), 2, "may withdraw"),
        (("--halted",), 5, "BTCUSDT"),
    ],
)
def test_starts_that_are_refused(
    server: Postgres, tmp_path: Path, options: tuple[str, ...], code: int, says: str
) -> None:
    with Place(server, tmp_path, *options) as place:
        ran = place.shell(*LIVE)
        assert (ran.code, says in ran.err) == (code, True), ran
        assert place.account["orders"] == []
