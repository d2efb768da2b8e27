"""A paper account on live candles trades what the backtest does: looked at while they form, out for hours, killed.

The whole of it runs: the real ccxt against the loopback exchange, whose clock the test moves, the feed, the simulated
exchange, the executor, the ledger in Postgres. The strategy is one; policies and candles are of several kinds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from atb.core.policy import make_policy
from atb.core.timeframe import ManualClock
from atb.core.types import MarketRules
from atb.engine.candles import Candles, Floats
from atb.engine.rules import make_rules
from atb.execution.session import Session, Wish, open_session
from atb.execution.state import TradingState
from atb.execution.traded import Traded
from atb.ledger.connect import Where
from atb.ledger.entries import Chained, Entry
from atb.ledger.steady import SteadyJournal
from atb.live.feed import Feed
from atb.live.paper_market import PaperMarket, exchange_of
from atb.live.parity import Parity, compare
from atb.live.rehearsal import closes
from atb.live.trader import Trader
from atb.strategy.contract import Strategy
from atb.strategy.signals import compute_signals
from atb.venue.simulated_book import Setup
from atb.venue.simulated_broker import SimulatedBroker
from tests.seeds import seeds, thinned
from tests.venue.exchange import HOUR_MS, Fault, Rows
from tests.venue.market_time import MarketTime
from tests.venue.test_candles import START, made, with_holes

BARS = 12
BALANCE = 10_000.0
FIRST = START + 40 * HOUR_MS
POLICIES: list[dict[str, Any]] = [
    {"stop_loss": 0.004, "take_profit": 0.006, "fraction": 0.6},
    {"stop_loss": 0.003, "trailing_stop": 0.004, "break_even_after": 0.002, "cooldown": 2, "fraction": 0.5},
    {"stop_loss": 0.01, "take_profit": 0.004, "partial_exits": ((0.002, 0.5),), "max_hold": 7, "fraction": 0.9},
]


class Swing(Strategy):
    """Long while the close is above the mean of its window, and gone when it is below."""

    lookback_bars = BARS

    def signals(self, candles: Candles) -> Floats:
        close, out = candles.close, np.full(len(candles), np.nan)
        if len(close) >= BARS:
            mean = np.lib.stride_tricks.sliding_window_view(close, BARS).mean(axis=1)
            out[BARS - 1 :] = np.clip((close[BARS - 1 :] / mean - 1) * 400, -1, 1)
        return out


class Killed(BaseException):
    """The process is gone."""


class Mortal:
    """A journal whose process dies before or after one of its entries; `lives` of them are written first."""

    away, merges = False, 0

    def __init__(self, journal: SteadyJournal, lives: int, after: bool) -> None:
        self.journal, self.lives, self.after, self.account_id = journal, lives, after, journal.account_id

    def append(self, entries: Sequence[Entry]) -> list[Chained]:
        self.lives -= 1
        if self.lives < 0 and not self.after:
            raise Killed
        written = self.journal.append(entries)
        if self.lives < 0:
            raise Killed
        return written

    def read(self, work: Callable[[Any], Any]) -> Any:
        return self.journal.read(work)


class Process(NamedTuple):
    """All that a process holds, and loses."""

    feed: Feed
    session: Session
    trader: Trader
    paper: PaperMarket

    def turn(self) -> None:
        """One turn of the live loop."""
        for row in self.feed.poll():
            self.paper.play(row)
            self.trader.close(row.open_ms, row.windows)
        self.paper.look()
        self.trader.look(self.feed.exchange_now_ms())


class Account:
    """One paper account, and the processes that trade it one after the other."""

    def __init__(self, where: Where, market: MarketTime, policy: dict[str, Any], name: str) -> None:
        self.where, self.market, self.name = where, market, name
        self.config: dict[str, Any] = {}
        self.strategy: type[Strategy] = Swing
        self.rules = make_rules(make_policy(policy), 10.0, 5.0)
        self.traded = [
            Traded(s, MarketRules(s.id, Decimal("0.00001"), Decimal("0.01"), Decimal(5), "test", "2024-01-01"))
            for s in market.symbols
        ]

    def start(self, lives: int | None = None, after: bool = False) -> Process:
        clock, setup = ManualClock(0), Setup(fee=self.rules.fee, slip=self.rules.slip)
        brokers: list[SimulatedBroker] = []

        def exchange(state: TradingState) -> SimulatedBroker:
            brokers.append(exchange_of(state, setup, clock, HOUR_MS))
            return brokers[-1]

        wish = Wish(
            self.name, "binance", "paper", self.traded, self.rules, "swing", "1h", self.config, Decimal(repr(BALANCE))
        )  # fmt: skip
        session = open_session(self.where, wish, self.market.clock, exchange)
        if lives is not None:
            session.executor.journal = Mortal(session.journal, lives, after)
        feed = self.market.feed(BARS, after_ms=session.state.last_open_ms, look_every_s=1200)
        trader = Trader(session.executor, [self.strategy() for _ in self.traded], "1h")
        paper = PaperMarket(feed, brokers[0], clock, session.state, trader.look)
        return Process(feed, session, trader, paper)

    def trade(self, process: Process, until_ms: int) -> None:
        market = self.market
        while process.feed.next_due_ms() <= until_ms:
            market.go_to(max(process.feed.next_due_ms(), market.exchange.now_ms))
            process.turn()
        market.go_to(max(until_ms, market.exchange.now_ms))
        process.turn()

    def end(self, process: Process) -> None:
        """As a killed process ends: its connections are gone, nothing else is done."""
        process.session.journal.close()
        process.feed._tail.close()

    def compared(self, process: Process, until_ms: int) -> Parity:
        """With the backtest of what the exchange says now."""
        series, signals = [], []
        for symbol in self.market.symbols:
            candles = self.market.history(symbol, START)
            stop = int(np.searchsorted(candles.open_time, until_ms - HOUR_MS, side="right"))
            first = int(np.searchsorted(candles.open_time, FIRST))
            series.append(candles.window(first, stop))
            signals.append(compute_signals(Swing(), candles)[first:stop])
        account = process.session.account.id
        equity = process.session.journal.read(lambda connection: closes(connection, account))
        return compare(process.session.state, series, signals, self.rules, BALANCE, HOUR_MS, equity)


def no_differences(account: Account, process: Process, until_ms: int, fills: int) -> None:
    parity = account.compared(process, until_ms)
    assert parity.differences == []
    assert parity.fills >= fills, "a test without trades shows nothing"
    audit = process.paper._broker.audit()
    assert audit.duplicates == [] and audit.oversold == {}
    account.end(process)


def series_of(count: int, symbols: int, seed: int) -> list[Rows]:
    return [made(count, seed=seed + k) for k in range(symbols)]


@pytest.mark.parametrize(
    ("symbols", "policy"), [(1, POLICIES[0]), (3, POLICIES[1]), (1, POLICIES[2])], ids=["take", "trailing", "partial"]
)
def test_a_paper_account_is_the_backtest(where: Where, tmp_path: Path, policy: dict[str, Any], symbols: int) -> None:
    count = 200 if symbols == 1 else 110
    series, end = series_of(count, symbols, 20), START + (count - 1) * HOUR_MS
    with MarketTime(tmp_path, series, FIRST + 60_000) as market:
        account = Account(where, market, policy, f"paper {symbols}")
        process = account.start()
        account.trade(process, end + 30_000)
        no_differences(account, process, end, 15)


@pytest.mark.slow
def test_real_candles(where: Where, tmp_path: Path, real_data: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(real_data / "binance_BTCUSDT_1h.parquet").slice(30_000, 240)
    names = ("open", "high", "low", "close", "volume")
    rows = np.column_stack([np.arange(240) * HOUR_MS + START, *(table.column(n).to_numpy() for n in names)])
    with MarketTime(tmp_path, [rows], FIRST + 60_000) as market:
        account, end = Account(where, market, POLICIES[0], "real"), START + 239 * HOUR_MS
        process = account.start()
        account.trade(process, end + 30_000)
        no_differences(account, process, end, 15)


@pytest.mark.parametrize("seed", thinned(range(4), 4))
def test_thrown_away_and_rebuilt_at_any_moment(where: Where, tmp_path: Path, seed: int) -> None:
    killed_and_compared(where, tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(4, 12))
def test_thrown_away_and_rebuilt_at_any_moment_many_times(where: Where, tmp_path: Path, seed: int) -> None:
    killed_and_compared(where, tmp_path, seed)


def killed_and_compared(where: Where, tmp_path: Path, seed: int) -> None:
    """Killed before or after any entry of the ledger, and between any two turns; dead for minutes or for many candles."""
    rng = random.Random(seed)
    symbols, count = (1, 140) if seed % 2 else (2, 90)
    end = START + (count - 1) * HOUR_MS
    with MarketTime(tmp_path, series_of(count, symbols, 50 + 7 * seed), FIRST + 60_000) as market:
        account = Account(where, market, POLICIES[seed % 3], f"killed {seed}")
        process = account.start()  # an account begins with its first close: the backtest begins there, too
        account.trade(process, FIRST + HOUR_MS + 60_000)
        account.end(process)
        deaths = 0
        while market.exchange.now_ms < end - 20 * HOUR_MS:
            process = account.start(lives=rng.randrange(25), after=rng.random() < 0.5)
            try:
                account.trade(process, min(end, market.exchange.now_ms + rng.randrange(9 * HOUR_MS)))
            except Killed:
                deaths += 1
            account.end(process)
            market.go_on(rng.choice((1_000, 70_000, 2 * HOUR_MS, 5 * HOUR_MS)))
        process = account.start()
        account.trade(process, end + 30_000)
        assert deaths
        no_differences(account, process, end, 3)


@pytest.mark.slow
def test_an_outage_of_the_exchange_changes_nothing_but_the_time(where: Where, tmp_path: Path) -> None:
    rng, count = random.Random(5), 140
    end = START + (count - 1) * HOUR_MS
    with MarketTime(tmp_path, series_of(count, 2, 80), FIRST + 60_000) as market:
        account = Account(where, market, POLICIES[0], "outages")
        process = account.start()
        while market.exchange.now_ms < end - 12 * HOUR_MS:
            account.trade(process, market.exchange.now_ms + rng.randrange(5 * HOUR_MS))
            market.server.add(Fault("status"))
            account.trade(process, market.exchange.now_ms + rng.randrange(6 * HOUR_MS))
            market.server.heal()
        account.trade(process, end + 30_000)
        assert len(market.told("candles_unavailable")) == len(market.told("candles_available")) > 5
        no_differences(account, process, end, 10)


@pytest.mark.slow
def test_gaps_of_the_exchange_are_those_of_the_backtest(where: Where, tmp_path: Path) -> None:
    holes = [(52, 53), (60, 63), (81, 82)], [(52, 53), (70, 75)]
    series = [with_holes(rows, *h) for rows, h in zip(series_of(120, 2, 90), holes, strict=True)]
    end = START + 119 * HOUR_MS
    with MarketTime(tmp_path, series, FIRST + 60_000) as market:
        account = Account(where, market, POLICIES[1], "gaps")
        process = account.start()
        account.trade(process, end + 30_000)
        no_differences(account, process, end, 10)


def rising(count: int, falls_at: int) -> Rows:
    """A little up each hour; one hour goes far below and far above, and comes back."""
    rows = made(count)
    close = 40_000 + 20.0 * np.arange(count)
    rows[:, 4], rows[:, 1] = close, np.append(close[0], close[:-1])
    rows[:, 2], rows[:, 3] = np.maximum(rows[:, 1], rows[:, 4]) + 5, np.minimum(rows[:, 1], rows[:, 4]) - 5
    rows[falls_at, 2:4] = 46_000, 38_000
    return rows


def exits_of(process: Process, symbol: str) -> list[tuple[str, int]]:
    """Why, and in which candle."""
    fills = process.session.state.books.history["spot", symbol]
    return [(f.reason, round((f.at.timestamp() * 1000 - START) / HOUR_MS)) for f in fills if f.side == "sell"]


WIDE = {"stop_loss": 0.02, "take_profit": 0.05, "fraction": 0.4}


def test_a_stop_that_was_touched_while_nobody_lived_fills_in_its_candle(where: Where, tmp_path: Path) -> None:
    """The dead process saw nothing of a candle that touched stop and take: the stop, once, at its price."""
    with MarketTime(tmp_path, [rising(80, 55)], FIRST + 60_000) as market:
        account = Account(where, market, WIDE, "asleep")
        process = account.start()
        account.trade(process, START + 50 * HOUR_MS)
        assert process.session.state.position(0).qty
        account.end(process)
        market.go_to(START + 70 * HOUR_MS + 60_000)
        process = account.start()
        process.turn()
        assert exits_of(process, "BTCUSDT") == [("stop_loss", 55)]
        no_differences(account, process, START + 70 * HOUR_MS, 2)


@pytest.mark.parametrize("restart", [False, True])
def test_what_rests_meets_the_candles_that_came_too_late_to_decide_on(
    where: Where, tmp_path: Path, restart: bool
) -> None:
    """The rows go on without a symbol. When its candles come, its stop fills in the one that touched it."""
    with MarketTime(tmp_path, [rising(80, 79), rising(80, 55)], FIRST + 60_000) as market:
        account = Account(where, market, WIDE, f"late {restart}")
        process = account.start()
        account.trade(process, START + 52 * HOUR_MS + 30_000)
        assert process.session.state.position(1).qty
        market.server.add(Fault("status", where="ETHUSDT"))
        account.trade(process, START + 60 * HOUR_MS + 30_000)
        decided = process.session.state.last_closes
        assert [close and (close[0] - START) // HOUR_MS for close in decided] == [59, 51]
        market.server.heal()
        if restart:
            account.end(process)
            process = account.start()
        account.trade(process, START + 62 * HOUR_MS + 60_000)
        assert exits_of(process, "ETHUSDT") == [("stop_loss", 55)]
        assert process.session.state.last_closes[1] == (START + 61 * HOUR_MS, 40_000 + 20.0 * 61)
        account.end(process)


def test_what_is_seen_first_is_what_fills(where: Where, tmp_path: Path) -> None:
    """The one difference: a candle that touches both, of which one sees the take before the stop. The backtest takes the stop."""
    with MarketTime(tmp_path, [rising(80, 55)], FIRST + 60_000) as market:
        market.exchange.forming = "high"
        account = Account(where, market, WIDE, "take first")
        process = account.start()
        account.trade(process, START + 58 * HOUR_MS)
        assert exits_of(process, "BTCUSDT") == [("take_profit", 55)]
        first, second = account.compared(process, START + 58 * HOUR_MS).differences[:2]
        assert "only in the backtest" in first and "(stop_loss)" in first
        assert "only in the ledger" in second and "(take_profit)" in second
        account.end(process)
