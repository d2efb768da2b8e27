"""Between two closes: what the account is worth at the running prices, the breaker, and why nothing is bought.

The loop, the feed and the ledger are the real ones; the exchange is the loopback one, whose time the test moves.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from atb.core.policy import make_policy
from atb.core.timeframe import ManualClock, moment
from atb.core.types import MarketRules
from atb.engine.candles import Candles, Floats
from atb.engine.rules import make_rules
from atb.engine.stepper import Stepper
from atb.execution.executor import Event
from atb.execution.session import Session, Wish, open_session
from atb.execution.traded import Traded
from atb.ledger.connect import Where, connect
from atb.ledger.entries import Entry
from atb.ledger.running import RunningMark, read_marks
from atb.live.breaker import limit_passed
from atb.live.judgement import Limits, judge
from atb.live.loop import Loop, Options
from atb.live.mark_table import MarkTable
from atb.live.paper_market import PaperMarket, exchange_of
from atb.live.status import Snapshot, Status
from atb.live.trader import Trader
from atb.ops.status import as_json, read_status
from atb.ops.verify import verify_database
from atb.strategy.contract import Strategy
from atb.venue.simulated_book import Setup
from tests.database import Postgres
from tests.unit.test_health import ABOUT
from tests.venue.exchange import HOUR_MS, Fault, Rows
from tests.venue.market_time import MarketTime
from tests.venue.test_candles import START

pytest.importorskip("ccxt")
WARM_UP, BTC, ETH, DIP = 4, 4, 5, 6  # candles: before the first, at whose closes each is wanted, and the one that dips
LOW, LOWEST = Decimal("40950.0"), 38_000.0
POLICY = {"fraction": 0.45, "max_position": 0.45, "stop_loss": 0.2, "max_drawdown": 0.02}


class Level(Strategy):
    """Long while the close is above 2,000."""

    lookback_bars = 1
    fails = False

    def signals(self, candles: Candles) -> Floats:
        if self.fails:
            raise RuntimeError("no idea")
        return np.where(candles.close > 2_000.0, 1.0, -1.0)


def rows(price: float, count: int = 12) -> Rows:
    opened = np.full(count, price)
    return np.column_stack(
        [START + HOUR_MS * np.arange(count), opened, opened + 1, opened - 1, opened, np.full(count, 9.0)]
    )


def series() -> list[Rows]:
    btc, eth = rows(41_000.0), rows(3_000.0)
    btc[DIP - 1, 3], btc[DIP, 3] = float(LOW), LOWEST
    eth[:ETH, 1:5] = 1_500.0
    return [btc, eth]


class Scene:
    """A paper account, the loop that trades it, and what it says."""

    def __init__(self, where: Where, market: MarketTime) -> None:
        self.where, self.market = where, market
        self.events: list[Event] = []
        self.marks: list[RunningMark] = []
        self.off = ""
        self.status = Status(ABOUT._replace(started_ms=market.clock.now_ms()))
        rules = make_rules(make_policy(POLICY), 10.0, 5.0)
        traded = [
            Traded(s, MarketRules(s.id, Decimal("0.00001"), Decimal("0.01"), Decimal(5), "test", "2024-01-01"))
            for s in market.symbols
        ]
        paper = ManualClock(0)
        wish = Wish("between", "binance", "paper", traded, rules, "level", "1h", {}, Decimal(10_000))
        setup = Setup(fee=rules.fee, slip=rules.slip)
        self.session: Session = open_session(
            where, wish, market.clock, lambda state: exchange_of(state, setup, paper, HOUR_MS), self.events.append
        )
        feed = market.feed(1, look_every_s=60)
        self.trader = Trader(self.session.executor, [Level(), Level()], "1h")
        played = PaperMarket(feed, self.session.executor.broker, paper, self.session.state, self.trader.look)  # type: ignore[arg-type]
        self.loop = Loop(
            self.session, self.trader, feed, played, market.clock, Options(60.0, lambda: self.off), self.status,
            self.events.append, keep=self.marks.append,
        )  # fmt: skip

    def at(self, candle: int, share: float) -> Snapshot:
        """A turn, when so much of a candle has passed."""
        self.market.go_to(START + round((candle + share) * HOUR_MS))
        self.loop.turn()
        return self.status.snapshot

    def close(self, candle: int) -> Snapshot:
        """Its close, and what is filled at the open of the next one."""
        self.at(candle + 1, 0.002)
        return self.at(candle + 1, 0.02)

    def said(self, code: str) -> list[str]:
        return [event.message for event in self.events if event.code == code]

    def qty(self, s: int) -> int:
        return int(self.session.state.position(s).qty)

    def judged(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        verdict = judge(self.status.snapshot, self.market.clock.now_ms(), Limits(60_000))
        return verdict.reasons, verdict.notes

    def sql(self, text: str) -> list[Any]:
        with connect(self.where) as connection:
            return connection.execute(text).fetchall()


@pytest.fixture
def scene(where: Where, tmp_path: Path) -> Iterator[Scene]:
    with MarketTime(tmp_path, series(), START + WARM_UP * HOUR_MS + 60_000) as market:
        made = Scene(where, market)
        yield made
        made.session.journal.close()
        made.loop.feed.close()


def test_the_account_is_marked_to_the_running_prices_and_the_ledger_is_not(scene: Scene) -> None:
    scene.close(BTC)
    scene.off = "a test"
    books = scene.session.state.books
    (position,) = books.positions.values()
    snapshot = scene.at(DIP - 1, 0.3)
    assert snapshot.equity == books.cash + position.qty * LOW != books.equity
    assert snapshot.unrealized_pnl == position.qty * LOW - position.cost
    (shown,) = snapshot.positions
    assert shown.last_price == LOW and shown.unrealized_pnl == snapshot.unrealized_pnl
    mark = scene.marks[-1]
    assert (mark.equity, mark.seq) == (snapshot.equity, scene.session.state.seq)
    assert mark.prices == {("spot", "BTCUSDT"): LOW}
    after = scene.close(DIP - 1)
    assert after.equity == books.cash + position.qty * 41_000 == books.equity


def test_a_new_low_between_closes_is_an_entry_of_the_ledger(scene: Scene) -> None:
    scene.close(BTC)
    scene.at(DIP - 1, 0.3)
    assert scene.sql("SELECT * FROM account_balances WHERE why = 'trough'") == []
    scene.close(DIP - 1)
    for share in (0.3, 0.35):  # the same low is written once
        scene.at(DIP, share)
    ((balance, current),) = scene.sql(
        "SELECT balance, current_balance FROM account_balances JOIN trading_sessions s ON s.id = session_id WHERE why = 'trough'"
    )
    assert balance == current == scene.status.snapshot.equity
    assert verify_database(scene.where, lambda good, text: None).error is None


def test_the_breaker_stops_entries_until_the_next_close_and_closes_nothing(scene: Scene) -> None:
    scene.close(BTC)
    scene.off = "a test"
    scene.close(DIP - 1)
    assert "switched off (a test)" in scene.said("entry_blocked")[-1]
    assert scene.judged() == ((), ("No entries: trading is switched off (a test)",))
    scene.off = ""
    held = scene.qty(0)
    snapshot = scene.at(DIP, 0.3)  # ETH is still wanted, and nothing but the breaker is in its way
    (said,) = scene.said("breaker")
    assert "under its peak of" in said and "past 2.0%" in said
    assert "the breaker: " in scene.said("entry_blocked")[-1] and scene.qty(1) == 0
    assert [blocked.kind for blocked in snapshot.blocked] == ["meant"] and scene.judged()[0] == ()
    scene.at(DIP, 0.6)  # the price is back, and it still waits for the close
    assert scene.qty(1) == 0 and scene.qty(0) == held and scene.said("breaker_over") == []
    scene.close(DIP)
    assert scene.qty(1) > 0 and scene.qty(0) == held and len(scene.said("breaker_over")) == 1
    assert scene.status.snapshot.blocked == () and not scene.session.state.books.halted


def test_the_limits_of_the_breaker_are_those_of_the_close() -> None:
    stepper = Stepper([], make_rules(make_policy({"max_drawdown": 0.1, "daily_loss_limit": 0.05}), 10.0, 5.0), 1_000.0)
    a = stepper.account
    a.peak, a.day_equity, a.equity, a.day_end_ms = 1_200.0, 1_100.0, 1_080.0, HOUR_MS
    assert limit_passed(stepper, 1_081.0, 0) == ""
    assert "10.1% under its peak of 1,200.00" in limit_passed(stepper, 1_079.0, 0)
    a.peak = 1_100.0
    assert "5.5% under that of the day's beginning" in limit_passed(stepper, 1_040.0, 0)
    assert limit_passed(stepper, 1_040.0, HOUR_MS) == ""  # a new day begins with what the last close left
    stepper.rules.daily_loss, stepper.rules.max_drawdown = 0.0, 1.0
    assert limit_passed(stepper, 1.0, 0) == ""


def test_data_that_is_old_blocks_entries(scene: Scene) -> None:
    scene.close(BTC)
    scene.off = "a test"
    scene.close(DIP - 1)
    scene.off = ""
    scene.market.server.add(Fault("status"))
    scene.at(DIP, 0.35)  # 20 minutes: nothing is known of either
    assert "nothing new is known of BTCUSDT ETHUSDT" in scene.said("entry_blocked")[-1] and scene.qty(1) == 0
    reasons, _ = scene.judged()
    assert "The data of BTCUSDT is stale." in reasons and not any("No entries" in reason for reason in reasons)
    assert [blocked.why for blocked in scene.status.snapshot.blocked] == ["nothing new is known of BTCUSDT ETHUSDT"]


def test_a_strategy_that_fails_is_told_and_the_engine_is_not_well_until_it_gives_signals(scene: Scene) -> None:
    scene.trader.strategies[0].fails = True  # type: ignore[attr-defined]
    scene.close(BTC)
    (said,) = scene.said("strategy_failed")
    assert "BTCUSDT" in said and "no idea" in said and scene.qty(0) == 0
    (reason,) = scene.judged()[0]
    assert reason.startswith("No entries: the strategy fails for BTCUSDT: ") and "no idea" in reason
    scene.trader.strategies[0].fails = False  # type: ignore[attr-defined]
    scene.close(BTC + 1)
    assert scene.judged()[0] == () and scene.qty(0) > 0


def test_a_halt_is_since_it_was_written_and_the_file_halt_is_named(scene: Scene) -> None:
    scene.close(BTC)
    body = {"action": "halt", "reason": "too wild", "by": "somebody"}
    at = scene.market.clock.now_ms() - 5_000
    scene.session.executor.append([Entry("halt:test", "control", moment(at), body)])
    scene.session.executor.halted = lambda: "halted by root: maintenance"
    for share in (0.05, 0.1):
        halt = scene.at(BTC + 1, share).halt
        assert halt is not None and (halt.since_ms, halt.why, halt.by_operator) == (at, "too wild", True)
    reasons, notes = scene.judged()
    assert reasons == () and notes[1] == "No entries: the file HALT: halted by root: maintenance"
    assert scene.status.snapshot.blocked[0].why == "the account is halted: too wild"
    body = {"action": "resume", "reason": "over", "by": "somebody"}
    scene.session.executor.append([Entry("resume:test", "control", moment(at), body)])
    assert scene.at(BTC + 1, 0.15).halt is None


# The row in the database.


def mark_of(seq: int, equity: str) -> RunningMark:
    at = datetime(2025, 11, 21, 12, 30, tzinfo=UTC)
    return RunningMark(
        seq, at, Decimal(equity), Decimal(12_000), Decimal("-12.5"), {("spot", "BTCUSDT"): Decimal("40950.25")}
    )


def until(scene: Scene, equity: str) -> None:
    end = time.monotonic() + 30.0
    while scene.sql("SELECT equity FROM running_marks") != [(Decimal(equity),)]:
        assert time.monotonic() < end, scene.sql("SELECT * FROM running_marks")
        time.sleep(0.02)


def test_the_row_is_overwritten_shown_by_status_and_no_matter_of_verify(scene: Scene) -> None:
    scene.close(BTC)
    session = scene.session
    table = MarkTable(scene.where, session.account.id, session.id, session.epoch, 0.01)
    try:
        for equity in ("9999.5", "9990.25"):
            table.put(mark_of(session.state.seq, equity))
            until(scene, equity)
    finally:
        table.close()
    with connect(scene.where) as connection:
        assert read_marks(connection)[session.account.id] == mark_of(session.state.seq, "9990.25")
        (status,) = read_status(connection)
        told = as_json(status)
        assert (told["equity"], told["marked_at"]) == ("9990.25", "2025-11-21T12:30:00Z")
        (shown,), (had,) = told["positions"], status.positions
        gained = had.size * (Decimal("40950.25") - had.current_price)
        assert (shown["current_price"], Decimal(shown["unrealized_pnl"])) == ("40950.25", had.unrealized_pnl + gained)
    assert verify_database(scene.where, lambda good, text: None).error is None
    scene.close(DIP - 1)  # the ledger knows more than the row by now
    with connect(scene.where) as connection:
        (status,) = read_status(connection)
        assert as_json(status)["marked_at"] is None and as_json(status)["equity"] == f"{status.equity.normalize():f}"  # type: ignore[union-attr]


def test_who_was_taken_over_writes_no_row_and_nobody_writes_more_often_than_asked(scene: Scene) -> None:
    session = scene.session
    old = MarkTable(scene.where, session.account.id, session.id, session.epoch - 1, 0.01)
    table = MarkTable(scene.where, session.account.id, session.id, session.epoch, 3600.0)
    try:
        table.put(mark_of(1, "1"))
        until(scene, "1")
        table.put(mark_of(1, "2"))
        old.put(mark_of(1, "3"))
        time.sleep(0.3)
        assert scene.sql("SELECT equity FROM running_marks") == [(1,)]
    finally:
        table.close()
        old.close()


def test_a_database_that_is_away_is_waited_for_by_nobody_and_found_again(scene: Scene, server: Postgres) -> None:
    session, ((name,),) = scene.session, scene.sql("SELECT current_database()")
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        table = MarkTable(scene.where, session.account.id, session.id, session.epoch, 0.01)
        for seq in range(1_000):
            table.put(mark_of(seq, "1"))
        end = time.monotonic() + 30.0
        while table._newest is not None and time.monotonic() < end:  # it was taken, and came to nothing
            time.sleep(0.02)
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    table.put(mark_of(1, "2"))
    until(scene, "2")
    table.close()
    assert not table._thread.is_alive()
