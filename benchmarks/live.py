"""Live trading: from a close to its order, many symbols, a long ledger; and whole processes at a local exchange.

The database is a fresh embedded server that waits for the disk at each commit: a decision is one commit, an order's intent is
another one, before it is sent. The exchange answers at once (a simulated one in this process): what is measured is ours, and the
disk's.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atb.core.policy import make_policy
from atb.core.timeframe import ManualClock
from atb.core.types import MarketRules, Symbol
from atb.engine.candles import Candles, Floats
from atb.engine.indicators import sma
from atb.engine.rules import make_rules
from atb.execution.session import Session, Wish, open_session
from atb.execution.state import TradingState
from atb.execution.traded import Traded
from atb.ledger.audit import read_chain, rebuild
from atb.ledger.connect import Where, connect
from atb.ledger.connect import embedded as where_of
from atb.ledger.embedded import start, stop
from atb.ledger.entries import Chained, Entry, link
from atb.ledger.migrate import migrate
from atb.live.paper_market import exchange_of
from atb.live.replay import Replay
from atb.live.trader import Trader
from atb.strategy.contract import Strategy
from atb.venue.simulated_book import Setup
from atb.venue.simulated_broker import SimulatedBroker
from benchmarks.ledger import FIRST_PORT, MIGRATIONS
from benchmarks.measure import Row
from benchmarks.work import market

if TYPE_CHECKING:
    from atb.core.orders import SeenOrder

HOUR_MS = 3_600_000
WARM_UP = 60
MANY = 50
FILLS = 20_000
COLUMNS = "account_id, seq, epoch, id, kind, at, session_id, body, recorded_at, prev_hash, hash"


# Nothing is lost by trading, and nothing stops it: there are as many fills as are asked for.
POLICY = make_policy(
    {"fraction": 0.01, "stop_loss": 0.2, "take_profit": 0.2, "max_open_positions": 100, "max_drawdown": 1.0,
     "daily_loss_limit": 0.0}
)  # fmt: skip


class Alternating(Strategy):
    """Looks at two means, as a crossing does, and then is long at one close and out at the next, whatever they say."""

    lookback_bars = 50

    def signals(self, candles: Candles) -> Floats:
        if len(candles) >= self.lookback_bars:
            sma(candles, 20)
            sma(candles, 50)
        return np.where(candles.open_time // HOUR_MS % 2, 1.0, -1.0)


class Timed(SimulatedBroker):
    """Notes when something is sent."""

    sent: list[float]

    def place(self, *args: Any, **options: Any) -> SeenOrder:
        self.sent.append(time.perf_counter())
        return super().place(*args, **options)

    def place_pair(self, *args: Any, **options: Any) -> tuple[SeenOrder, SeenOrder]:
        self.sent.append(time.perf_counter())
        return super().place_pair(*args, **options)

    def cancel(self, symbol: Symbol, client_order_id: str) -> SeenOrder:
        self.sent.append(time.perf_counter())
        return super().cancel(symbol, client_order_id)


class Bench:
    """An account of some symbols at an exchange that answers at once."""

    def __init__(self, where: Where, symbols: int, rows: int) -> None:
        self.series = [market(WARM_UP + rows, seed=s + 1) for s in range(symbols)]
        names = [f"C{s:02d}USDT" for s in range(symbols)]
        known = [MarketRules(n, Decimal("0.00001"), Decimal("0.01"), Decimal(5), "bench", "") for n in names]
        self.traded = [Traded(Symbol(n, n[:-4], "USDT"), r) for n, r in zip(names, known, strict=True)]
        self.rules, self.where, self.clock = make_rules(POLICY, 0.0, 0.0), where, ManualClock(0)
        self.broker = self._broker()
        self.session = self.opened(lambda state: self.broker)
        self.strategies = [Alternating() for _ in self.traded]

    def _broker(self) -> Timed:
        broker = Timed({t.symbol: t.rules for t in self.traded}, self.setup(), self.clock, {"USDT": Decimal(1_000_000)})
        broker.sent = []
        return broker

    def setup(self) -> Setup:
        return Setup(fee=self.rules.fee, slip=self.rules.slip)

    def opened(self, broker: Callable[[TradingState], SimulatedBroker]) -> Session:
        wish = Wish(
            f"bench {len(self.traded)}",
            "bench",
            "paper",
            self.traded,
            self.rules,
            "bench",
            "1h",
            {},
            Decimal(1_000_000),
        )
        return open_session(self.where, wish, self.clock, broker)

    def replay(self) -> Replay:
        trader = Trader(self.session.executor, self.strategies, "1h")
        first = int(self.series[0].open_time[WARM_UP])
        lookback = [s.lookback_bars for s in self.strategies]
        return Replay(trader, self.broker, self.clock, self.series, lookback, first)


class Watched(Trader):
    """Notes when a close is seen, when its decisions are in the ledger, and when all that follows at once was sent."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seen: list[float] = []
        self.decided: list[float] = []
        self.acted: list[float] = []
        self._act = self.executor.act
        self.executor.act = self._acts  # type: ignore[method-assign]

    def close(self, *args: Any, **options: Any) -> None:
        self.seen.append(time.perf_counter())
        super().close(*args, **options)

    def _halt(self, at: Any) -> None:  # what comes first after the decision
        self.decided.append(time.perf_counter())
        super()._halt(at)

    def _acts(self) -> None:
        self._act()
        if len(self.acted) < len(self.seen):
            self.acted.append(time.perf_counter())


def from_close_to_order(where: Where, symbols: int, rows: int) -> tuple[Floats, Floats, Floats]:
    """Milliseconds from each close that is seen to its decisions, to the first order, and until all orders are sent and told."""
    bench = Bench(where, symbols, rows)
    replay = bench.replay()
    replay.trader = watched = Watched(bench.session.executor, bench.strategies, "1h")
    watched.acted.clear()
    replay.run()
    bench.session.journal.close()
    seen, sent = np.array(watched.seen), np.array(bench.broker.sent)
    first = sent[np.searchsorted(sent, seen)]
    return tuple((np.array(at) - seen) * 1e3 for at in (watched.decided, first, watched.acted))


def latencies(quick: bool) -> list[Row]:
    """One symbol, then fifty that all trade at every close; beside them what a commit alone costs here and now."""
    with served() as where:
        _, first, _ = from_close_to_order(where, 1, 200 if quick else 1000)
        commit = np.array(commits(where, 300))
        decided, begun, done = from_close_to_order(where, MANY, 10 if quick else 40)
    return [
        Row("a commit of one row, median", float(np.median(commit)), "ms"),
        Row("a commit of one row, p99", float(np.percentile(commit, 99)), "ms"),
        Row("one symbol: close seen to order sent, median", float(np.median(first)), "ms", 10.0),
        Row("one symbol: close seen to order sent, p99", float(np.percentile(first, 99)), "ms", 50.0),
        Row(f"{MANY} symbols: decided, median", float(np.median(decided)), "ms", 500.0),
        Row(f"{MANY} symbols: first order sent, median", float(np.median(begun)), "ms"),
        Row(f"{MANY} symbols: {MANY} orders sent and recorded, median", float(np.median(done)), "ms"),
    ]


def commits(where: Where, count: int) -> list[float]:
    """Milliseconds of inserts of one row, each with its commit."""
    out = []
    with connect(where) as connection:
        connection.execute("CREATE TABLE nothing_else (number int)")
        connection.commit()
        for number in range(count):
            begun = time.perf_counter()
            connection.execute("INSERT INTO nothing_else VALUES (%s)", (number,))
            connection.commit()
            out.append((time.perf_counter() - begun) * 1e3)
    return out


class InMemory:
    """A journal that keeps what is appended: a long ledger is made in a minute, and then written as it is."""

    away, merges = False, 0

    def __init__(self, session: Session) -> None:
        self.account_id, self.epoch, self.chain = session.account.id, session.epoch, list[Chained]()
        self._head = session.journal.read(lambda connection: read_chain(connection, session.account.id))[-1]

    def append(self, entries: Sequence[Entry]) -> list[Chained]:
        before = len(self.chain)
        for entry in entries:
            self._head = link(self._head.seq + 1, self.epoch, entry, self._head.hash, entry.at)
            self.chain.append(self._head)
        return self.chain[before:]

    def read(self, work: Callable[[Any], Any]) -> Any:
        return []


def long_ledger(where: Where, fills: int) -> Bench:
    """An account that has traded so often, as live trading writes it; its session has ended."""
    bench = Bench(where, 1, fills)
    journal = InMemory(bench.session)
    bench.session.executor.journal = journal
    bench.replay().run()
    with connect(where) as connection:
        with connection.cursor().copy(f"COPY entries ({COLUMNS}) FROM STDIN") as copy:
            for seq, epoch, entry, text, *rest in journal.chain:
                facts = (entry.id, entry.kind, entry.at, entry.session_id, text)
                copy.write_row((journal.account_id, seq, epoch, *facts, *rest))
        connection.commit()
        found = rebuild(connection, bench.session.account)
        connection.commit()
    if found.problems:
        raise RuntimeError(f"The ledger is broken: {found.problems[0]}")
    bench.session.release()
    return bench


def resumes(quick: bool) -> list[Row]:
    """From the start of a session to "ready": authority, every entry read and folded, the exchange's side put together."""
    fills = FILLS // 10 if quick else FILLS
    with served() as where:
        bench, seconds, processor = long_ledger(where, fills), [], []
        for _ in range(5):
            begun, used = time.perf_counter(), time.process_time()
            session = bench.opened(lambda state: exchange_of(state, bench.setup(), ManualClock(0), HOUR_MS))
            seconds.append(time.perf_counter() - begun)
            processor.append(time.process_time() - used)
            entries, found = session.state.seq, sum(map(len, session.state.books.history.values()))
            session.release()
    limit = None if quick else 3.0
    return [
        Row(f"ledger of {found:,} fills: entries", entries, ""),
        Row(f"ledger of {found:,} fills: resumed", min(seconds), "s", limit),
        Row("  of that the processor's, in this process", min(processor), "s"),
        Row("  an entry", min(processor) / entries * 1e6, "us"),
    ]


@contextmanager
def served() -> Iterator[Where]:
    """A fresh embedded server that waits for the disk at each commit."""
    with tempfile.TemporaryDirectory() as home:
        server = start(Path(home), first_port=FIRST_PORT)
        try:
            where = where_of(server)
            migrate(where, MIGRATIONS)
            yield where
        finally:
            stop(Path(home))
