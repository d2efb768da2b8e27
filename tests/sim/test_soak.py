"""Weeks of paper trading in minutes: memory, open files and threads stay flat, rows grow with candles and trades only.

All of it runs, but for the time: the loop, the feed (the real ccxt at the loopback exchange), the simulated broker, the executor,
the ledger in Postgres, status, log file, event table and health server. Looks are as far apart as an operator has them.
"""

from __future__ import annotations

import contextlib
import gc
import io
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest

from atb.app import App
from atb.core.timeframe import ManualClock
from atb.core.types import MarketRules, Symbol
from atb.execution.session import Session, open_session
from atb.ledger.connect import connect
from atb.live.feed import Feed
from atb.live.loop import Loop, Options
from atb.live.mode import Mode
from atb.live.paper_market import PaperMarket
from atb.live.prepare import Desk, Ready, prepare
from atb.live.request import LiveRequest
from atb.live.run import Around, Shown, _broker, _wish
from atb.live.screen import Looks
from atb.live.trader import Trader
from tests.database import Postgres
from tests.venue.exchange import DAY_MS, HOUR_MS
from tests.venue.market_time import MarketTime
from tests.venue.test_candles import START, made

EVERY_S = 600.0
WARM_UP = 40  # candles before the first that is traded
POLICY = {"stop_loss": 0.004, "take_profit": 0.008, "trailing_stop": 0.004, "fraction": 0.3}
TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
# Rows for each trade and each candle of a symbol, in all tables. A trade: intents, orders and their states, executions, levels.
# A candle: its mark and decisions, a stop that moves with it (cancelled, placed again), and what is told of all that.
A_TRADE, A_CANDLE = 30, 7


class Held(NamedTuple):
    """What the process has, and what it has done so far."""

    rss_kb: int
    objects: int
    files: int
    threads: int
    orders: int
    fills: int


class Nowhere(io.StringIO):
    """A screen that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


class Soak:
    """A paper session of some symbols, day by day."""

    def __init__(self, folder: Path, market: MarketTime, database: Postgres) -> None:
        self.market, self.where = market, database.where(database.database())
        asked = LiveRequest(
            "sma_cross", tuple(s.id for s in market.symbols), params={"fast": 2, "slow": 5}, policy_flags=POLICY,
            paper=True, check_interval_s=EVERY_S, health_port=0, account="soak",
        )  # fmt: skip
        desk = Desk(App().load_strategy("sma_cross"), lambda *_: None, rules_of, market.clock.now_ms(), "")
        self.ready: Ready = prepare(asked, Mode("paper"), desk)
        self.around = Around(
            self.where, folder / "home", folder / "logs", market.clock, None, self._feed, lambda: "", lambda _: None, ["secret"],
            Nowhere(), Looks(),
        )  # fmt: skip
        self.shown = Shown(self.ready, self.around)
        paper = ManualClock(0)
        self.session: Session = open_session(
            self.where, _wish(self.ready), market.clock, _broker(self.ready, self.around, paper), self.shown.teller,
            home=self.around.home,
        )  # fmt: skip
        self.shown.opened(self.session, self.where)
        self.loop = self._loop(paper)

    def _feed(self, after_ms: int | None, tell: object) -> Feed:
        return self.market.raw_feed(list(self.ready.lookback), after_ms=after_ms, look_every_s=EVERY_S)

    def _loop(self, paper: ManualClock) -> Loop:
        session, shown, tell = self.session, self.shown, self.shown.teller
        shown.server.start_or_warn(may_fail=False)
        self.feed = self.around.feed(session.state.last_open_ms, tell)
        self.feed.prepare()
        trader = Trader(session.executor, self.ready.strategies, "1h")
        market = PaperMarket(self.feed, session.executor.broker, paper, session.state, trader.look)  # type: ignore[arg-type]
        options = Options(EVERY_S, self.around.disabled)
        shown.screen.start()
        return Loop(
            session, trader, self.feed, market, self.market.clock, options, shown.status, tell, shown.each_cycle
        )

    def day(self) -> None:
        """24 hours: a turn whenever the loop would wake up, and whoever looks at its health."""
        clock = self.market.clock
        end = clock.now_ms() + DAY_MS
        while clock.now_ms() < end:
            due = min(self.feed.next_due_ms(), clock.now_ms() + round(EVERY_S * 1000))
            self.market.go_to(max(due, clock.now_ms() + 1))
            self.loop.turn()
        with contextlib.suppress(urllib.error.HTTPError):  # the clock of /health is the simulated one: it may be 503
            urllib.request.urlopen(f"http://127.0.0.1:{self.shown.server.port}/health", timeout=10).read()
        self.market.exchange.log.clear()  # what the exchange remembers is not ours
        self.market.server.requests.clear()
        self.market.events.clear()

    def held(self) -> Held:
        gc.collect()
        rss = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
        books = self.session.state.books
        fills = sum(len(fills) for fills in books.history.values())
        return Held(
            int(rss.split()[1]), len(gc.get_objects()), len(list(Path("/proc/self/fd").iterdir())), threading.active_count(),
            len(books.orders), fills,
        )  # fmt: skip

    def rows(self) -> tuple[int, int]:
        """Rows of all tables, and trades."""
        with connect(self.where) as connection:
            names = [name for (name,) in connection.execute(TABLES)]
            counts = {n: connection.execute(f'SELECT count(*) FROM "{n}"').fetchone() for n in names}
        every = {name: count[0] for name, count in counts.items() if count is not None}
        return sum(every.values()), every["trades"]

    def close(self) -> None:
        self.shown.close()
        self.feed.close()
        self.session.journal.close()


def rules_of(symbol: Symbol) -> MarketRules:
    return MarketRules(symbol.id, Decimal("0.00001"), Decimal("0.01"), Decimal(5), "test", "2024-01-01")


def soak(server: Postgres, folder: Path, days: int, symbols: int) -> tuple[Sequence[Held], int, int]:
    """What was held after each day; then rows and trades."""
    count = WARM_UP + 24 * (days + 1)
    series = [made(count, seed=60 + k) for k in range(symbols)]
    with MarketTime(folder, series, START + WARM_UP * HOUR_MS + 60_000) as market:
        days_held, life = [], Soak(folder, market, server)
        try:
            for _ in range(days):
                life.day()
                days_held.append(life.held())
            assert life.shown.status.snapshot.equity, "it traded"
        finally:
            life.close()
        rows, trades = life.rows()
    return days_held, rows, trades


def check(days_held: Sequence[Held], rows: int, trades: int, symbols: int) -> None:
    days = len(days_held)
    warm, end = days_held[days // 3], days_held[-1]
    assert end.orders - warm.orders > symbols * (days - days // 3) / 2, "a soak without trades shows little"
    assert end.files <= warm.files and end.threads <= warm.threads
    # What is kept grows with the orders of the account, which are its books; with nothing else.
    turns = (days - days // 3) * DAY_MS / (EVERY_S * 1000)
    made_since = end.orders - warm.orders
    assert end.objects - warm.objects < 4 * made_since + turns / 10 + 300
    assert end.rss_kb - warm.rss_kb < 4 * made_since + 6_144
    assert rows <= A_TRADE * trades + A_CANDLE * days * 24 * symbols + 200
    assert rows >= days * 24 * symbols, "they were counted"


@pytest.mark.slow
def test_two_days(server: Postgres, tmp_path: Path) -> None:
    check(*soak(server, tmp_path, 3, 2), symbols=2)


@pytest.mark.slow
def test_thirty_days(server: Postgres, tmp_path: Path) -> None:
    check(*soak(server, tmp_path, 30, 3), symbols=3)
