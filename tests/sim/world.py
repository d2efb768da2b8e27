"""A market, an exchange on a bad day, and an engine that is killed again and again: seeded, to be played again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from atb.core.order_id import parse_order_id
from atb.core.timeframe import ManualClock
from atb.core.types import Symbol
from atb.engine.candles import Candles
from atb.engine.rules import make_rules
from atb.execution.executor import Event, Executor
from atb.execution.session import Session, Wish, open_session
from atb.execution.spooling_journal import SpoolingJournal
from atb.execution.state import TradingState
from atb.execution.traded import Traded
from atb.ledger.connect import Where, connect
from atb.ledger.entries import Entry
from atb.ledger.journal import append
from atb.live.trader import Trader
from atb.venue.faults import Fault, FaultPlan
from atb.venue.faulty_broker import FaultyBroker
from atb.venue.simulated_book import Setup
from atb.venue.simulated_broker import SimulatedBroker
from tests.parity.test_live_is_the_backtest import Given
from tests.property.test_engine_equals_reference import Case
from tests.property.test_simulated_broker import market_rules
from tests.sim.mortal import Crash, Fate, MortalBroker, MortalClock, MortalJournal
from tests.sim.weather import BehindDoor, Door, Weather

LOOKS_S = (0, 3, 6, 12, 30, 300)  # after the open, in which an engine looks

FAULTS = (
    Fault("*", "unknown_before", 0.03), Fault("*", "unknown_after", 0.03), Fault("*", "held_up", 0.02, ms=1_500),
    Fault("*", "held_up", 0.02, ms=2_500), Fault("*", "refused", 0.02), Fault("*", "unavailable", 0.03),
    Fault("*", "outage", 0.005, ms=20_000), Fault("cancel", "finished_refused", 0.3), Fault("*", "invisible", 0.03, ms=2_000),
    Fault("*", "late", 0.05, ms=2_000), Fault("*", "vanishes", 0.02, ms=60_000), Fault("*", "partial", 0.05, parts=3),
    Fault("*", "partial_expires", 0.05, parts=2), Fault("*", "overlooked", 0.02, ms=40_000),
    Fault("*", "overlooked", 0.01, ms=400_000, types=("stop", "take_limit")),
)  # fmt: skip


class World:
    """One case's market, lived through. deaths: how likely one is at each boundary; kill_at: numbers of those at which one is
    certain. skew_ms: by how much the processes are wrong about the exchange's clock."""

    skew_ms = 0

    def __init__(
        self, where: Where, seed: int, *, deaths: float = 0.02, faults: Sequence[Fault] = FAULTS,
        home: Path | None = None, weather: Weather | None = None, kill_at: Collection[int] = (),
    ) -> None:  # fmt: skip
        self.where, self.seed, self.case = where, seed, self.made(seed)
        self.series, self.signals = self.case.series()
        rules = [market_rules(s, market) for s, market in enumerate(self.case.markets)]
        self.traded = [Traded(Symbol(r.symbol, r.symbol[:-4], "USDT"), r) for r in rules]
        self.clock = ManualClock(self.case.times[0])
        self.rules = make_rules(self.case.policy, *self.case.costs)
        self.plan = FaultPlan(seed, *faults)
        known = {t.symbol: t.rules for t in self.traded}
        self.exchange = SimulatedBroker(
            known, Setup(fee=self.rules.fee, slip=self.rules.slip, fee_in_base=seed % 2 == 1), self.clock,
            {"USDT": Decimal(repr(self.case.balance))},
        )  # fmt: skip
        self.broker = FaultyBroker(self.exchange, self.plan)
        self.fate = Fate(seed, deaths, kill_at)
        self.home, self.events = home, list[Event]()
        self.last: dict[int, float] = {}  # by symbol's index the price of the candle that runs
        self.door = None if weather is None else weather.victim
        self.placed_while_away: list[str] = []  # purposes
        self.timeframe = {3_600_000: "1h", 4 * 3_600_000: "4h", 24 * 3_600_000: "1d"}[self.case.step_ms]
        self.start()
        self.fate.weather = weather
        if weather is not None:
            weather.on_return = self.somebody_writes

    def made(self, seed: int) -> Case:
        return Case(seed)

    def start(self) -> None:
        """A process starts; if it dies on the way, another one."""
        while True:
            try:
                self.session, self.trader = self.begin()
                return
            except Crash:
                pass

    @property
    def account(self) -> str:
        return f"sim {self.seed}"

    def begin(self) -> tuple[Session, Trader]:
        wish = Wish(
            self.account, "simulated", "paper", self.traded, self.rules, "given", self.timeframe, {},
            Decimal(repr(self.case.balance)),
        )  # fmt: skip
        session = open_session(
            self.where, wish, MortalClock(self.clock, self.fate), self.line, self.events.append, home=self.home
        )
        if isinstance(session.executor.journal, SpoolingJournal):
            session.executor.journal.retry_s, session.journal.patience_s = 0.0, 0.02
            if isinstance(self.door, Door):
                session.executor.journal.journal = BehindDoor(session.journal, self.door, self.fate)
        session.executor.journal = MortalJournal(session.executor.journal, self.fate)
        given = [Given(c.open_time, signal) for c, signal in zip(self.series, self.signals, strict=True)]
        return session, Trader(session.executor, given, self.timeframe)

    def line(self, state: TradingState) -> Any:
        """A process's way to the exchange, which it makes once its ledger is folded."""
        self.fate.cross("start: ledger folded")
        return MortalBroker(self.broker, self.fate, self.placing, self.skew_ms)

    @property
    def executor(self) -> Executor:
        return self.session.executor

    def placing(self, name: str) -> None:
        parsed = parse_order_id(name)
        if parsed is not None and self.executor.journal.away:
            self.placed_while_away.append(parsed.purpose)

    def somebody_writes(self) -> None:
        """Beside the engine, as an operator's command does: so numbers are not those that the engine thought."""
        account = self.session.account.id
        with connect(self.where, patience_s=10) as connection:
            epoch, count = connection.execute(
                "SELECT epoch, (SELECT max(seq) FROM entries WHERE account_id = %s) FROM authority WHERE account_id = %s",
                (account, account),
            ).fetchone() or (0, 0)
            body = {"type": "conversion", "asset": "DUST", "amount": Decimal(1), "reason": "test", "evidence": "test"}
            at = datetime.fromtimestamp(self.clock.now_ms() / 1000, UTC)
            append(connection, account, epoch, [Entry(f"dust:{count}", "adjustment", at, body)])

    def restart(self) -> None:
        """Another process starts; it cannot without a database."""
        if self.fate.weather is not None:
            self.fate.weather.clear_up()
        self.session.journal.close()
        self.start()

    def survive(self, work: Callable[[], None]) -> None:
        """Do it; if the process dies on the way, another one starts and does it."""
        while True:
            try:
                work()
                return
            except Crash:
                self.restart()

    def live(self, rows: int | None = None) -> None:
        """Through the first so many rows of candles, or through all."""
        for open_ms in sorted({int(at) for candles in self.series for at in candles.open_time})[:rows]:
            self.row(open_ms)

    def row(self, open_ms: int) -> None:
        present = [(s, i) for s, c in enumerate(self.series) for i in [int(c.open_time.searchsorted(open_ms))]
                   if i < len(c) and int(c.open_time[i]) == open_ms]  # fmt: skip
        self.clock.time_ms = open_ms
        for s, i in present:
            self.broker.opened(self.traded[s].symbol, open_ms, float(self.series[s].open[i]))
            self.last[s] = float(self.series[s].open[i])
        self.broker.match_open()
        self.look(open_ms, LOOKS_S)
        for s, i in present:
            c = self.series[s]
            self.broker.ranged(self.traded[s].symbol, open_ms, float(c.high[i]), float(c.low[i]), float(c.close[i]))
            self.last[s] = float(c.close[i])
        self.look(open_ms + self.case.step_ms // 2, LOOKS_S)
        self.clock.time_ms = open_ms + self.case.step_ms
        for s, i in present:
            self.broker.closed(self.traded[s].symbol, open_ms, float(self.series[s].close[i]))
        self.last.clear()
        windows = {self.traded[s].symbol.id: self.series[s].window(i, i + 1) for s, i in present}
        self.close(open_ms, windows)

    def close(self, open_ms: int, windows: Mapping[str, Candles]) -> None:
        self.survive(lambda: self.trader.close(open_ms, windows))

    def look(self, from_ms: int, after_s: Sequence[int]) -> None:
        for seconds in after_s:
            self.clock.time_ms = from_ms + 1000 * seconds
            self.survive(lambda: self.trader.look(self.clock.now_ms()))

    def calm_down(self) -> None:
        """The exchange's bad day is over, and nobody dies any more."""
        self.plan.faults, self.fate.probability = (), 0.0
        if self.fate.weather is not None:
            self.fate.weather.end()
            self.fate.weather = None
        self.look(self.clock.now_ms(), (1, 10, 60, 120, 700))
