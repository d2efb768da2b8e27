"""A market, an exchange on a bad day, and an engine that is killed again and again: seeded, to be played again."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from atb.core.errors import DatabaseUnavailable, OutcomeUnknown
from atb.core.order_id import parse_order_id
from atb.core.timeframe import ManualClock
from atb.core.types import Symbol
from atb.engine.rules import make_rules
from atb.execution.executor import Event, Executor
from atb.execution.session import Session, Wish, open_session
from atb.execution.spooling_journal import SpoolingJournal
from atb.execution.traded import Traded
from atb.ledger.connect import Where, connect
from atb.ledger.entries import Chained, Entry
from atb.ledger.journal import append
from atb.ledger.steady import SteadyJournal
from atb.live.trader import Trader
from atb.venue.faults import Fault, FaultPlan
from atb.venue.faulty_broker import FaultyBroker
from atb.venue.simulated_book import Setup
from atb.venue.simulated_broker import SimulatedBroker
from tests.ledger.victim import Victim
from tests.parity.test_live_is_the_backtest import Given
from tests.property.test_engine_equals_reference import Case
from tests.property.test_simulated_broker import market_rules

LOOKS_S = (0, 3, 6, 12, 30, 300)  # after the open, in which an engine looks
OPERATIONS = ("place", "place_pair", "cancel", "find", "open_orders", "fills")

FAULTS = (
    Fault("*", "unknown_before", 0.03), Fault("*", "unknown_after", 0.03), Fault("*", "held_up", 0.02, ms=1_500),
    Fault("*", "held_up", 0.02, ms=2_500), Fault("*", "refused", 0.02), Fault("*", "unavailable", 0.03),
    Fault("*", "outage", 0.005, ms=20_000), Fault("cancel", "finished_refused", 0.3), Fault("*", "invisible", 0.03, ms=2_000),
    Fault("*", "late", 0.05, ms=2_000), Fault("*", "vanishes", 0.02, ms=60_000), Fault("*", "partial", 0.05, parts=3),
    Fault("*", "partial_expires", 0.05, parts=2),
)  # fmt: skip


class Crash(BaseException):
    """The process is gone at this instruction. (No Exception: nothing may catch it.)"""


class Fate:
    """Decides at each boundary whether the process dies there."""

    def __init__(self, seed: int, probability: float) -> None:
        self.random, self.probability = random.Random(seed), probability
        self.deaths = 0
        self.weather: Weather | None = None

    def cross(self) -> None:
        if self.weather is not None:
            self.weather.cross()
        if self.random.random() < self.probability:
            self.deaths += 1
            raise Crash


class Door:
    """The way to a database, shut in an instant: as if the server were killed, without the time that it takes."""

    def __init__(self, seed: int, lost: float = 0.01) -> None:
        self.random, self.lost, self.shut = random.Random(seed), lost, False

    def kill(self, how: str) -> None:
        self.shut = True

    def start(self) -> None:
        self.shut = False


class BehindDoor:
    """A journal that is reached through a door. Now and then a commit's answer is lost on the way back."""

    def __init__(self, journal: SteadyJournal, door: Door) -> None:
        self.journal, self.door, self.account_id = journal, door, journal.account_id
        self.away, self.merges = False, 0

    def append(self, entries: Sequence[Entry]) -> list[Chained]:
        self._pass()
        written = self.journal.append(entries)
        if self.door.random.random() < self.door.lost:
            raise OutcomeUnknown("The door fell shut.")
        return written

    def read(self, work: Callable[[Any], Any]) -> Any:
        self._pass()
        return self.journal.read(work)

    def _pass(self) -> None:
        if self.door.shut:
            raise DatabaseUnavailable("The door is shut.")


class Weather:
    """A database that is killed now and then, and stays away for a while: counted in boundaries that are crossed."""

    def __init__(self, victim: Victim | Door, seed: int, probability: float, longest: int = 60) -> None:
        self.victim, self.random = victim, random.Random(seed)
        self.probability, self.longest = probability, longest
        self.left = 0
        self.on_return: Callable[[], None] = lambda: None

    def cross(self) -> None:
        if self.left:
            self.left -= 1
            if not self.left:
                self._return()
        elif self.random.random() < self.probability:
            self.victim.kill(self.random.choice(("immediate", "all")))
            self.left = self.random.randint(1, self.longest)

    def clear_up(self) -> None:
        if self.left:
            self.left = 0
            self._return()

    def _return(self) -> None:
        self.victim.start()
        self.on_return()


class MortalJournal:
    """The journal of a process that may die just before and just after each commit."""

    def __init__(self, journal: Any, fate: Fate) -> None:
        self.journal, self.fate, self.account_id = journal, fate, journal.account_id

    def append(self, entries: Sequence[Entry]) -> list[Chained]:
        self.fate.cross()
        written: list[Chained] = self.journal.append(entries)
        self.fate.cross()
        return written

    def read(self, work: Callable[[Any], Any]) -> Any:
        return self.journal.read(work)

    @property
    def away(self) -> bool:
        return bool(self.journal.away)

    @property
    def merges(self) -> int:
        return int(self.journal.merges)


class MortalBroker:
    """The way to the exchange of a process that may die just before and just after each request."""

    def __init__(self, broker: Any, fate: Fate, placing: Callable[[str], None] = lambda _: None) -> None:
        self.broker, self.fate, self.placing = broker, fate, placing

    def __getattr__(self, name: str) -> Any:
        known = getattr(self.broker, name)
        if name not in OPERATIONS:
            return known

        def request(*args: Any) -> Any:
            self.fate.cross()
            if name.startswith("place"):
                self.placing(args[0].client_order_id)
            answer = known(*args)
            self.fate.cross()
            return answer

        return request


class World:
    """One case's market, lived through."""

    def __init__(
        self, where: Where, seed: int, *, deaths: float = 0.02, faults: Sequence[Fault] = FAULTS,
        home: Path | None = None, weather: Weather | None = None,
    ) -> None:  # fmt: skip
        self.where, self.seed, self.case = where, seed, Case(seed)
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
        self.fate = Fate(seed, deaths)
        self.home, self.events = home, list[Event]()
        self.door = None if weather is None else weather.victim
        self.placed_while_away: list[str] = []  # purposes
        self.timeframe = {3_600_000: "1h", 4 * 3_600_000: "4h", 24 * 3_600_000: "1d"}[self.case.step_ms]
        self.session, self.trader = self.begin()
        self.fate.weather = weather
        if weather is not None:
            weather.on_return = self.somebody_writes

    def begin(self) -> tuple[Session, Trader]:
        """A process starts."""
        wish = Wish(
            f"sim {self.seed}", "simulated", "paper", self.traded, self.rules, "given", self.timeframe, {},
            Decimal(repr(self.case.balance)),
        )  # fmt: skip
        session = open_session(
            self.where, wish, self.clock, lambda state: MortalBroker(self.broker, self.fate, self.placing), self.events.append,
            home=self.home,
        )  # fmt: skip
        if isinstance(session.executor.journal, SpoolingJournal):
            session.executor.journal.retry_s, session.journal.patience_s = 0.0, 0.02
            if isinstance(self.door, Door):
                session.executor.journal.journal = BehindDoor(session.journal, self.door)
        session.executor.journal = MortalJournal(session.executor.journal, self.fate)
        given = [Given(c.open_time, signal) for c, signal in zip(self.series, self.signals, strict=True)]
        return session, Trader(session.executor, given, self.timeframe)

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
        self.session, self.trader = self.begin()

    def survive(self, work: Callable[[], None]) -> None:
        """Do it; if the process dies on the way, another one starts and does it."""
        while True:
            try:
                work()
                return
            except Crash:
                self.restart()

    def live(self) -> None:
        rows = sorted({int(at) for candles in self.series for at in candles.open_time})
        for open_ms in rows:
            self.row(open_ms)

    def row(self, open_ms: int) -> None:
        present = [(s, i) for s, c in enumerate(self.series) for i in [int(c.open_time.searchsorted(open_ms))]
                   if i < len(c) and int(c.open_time[i]) == open_ms]  # fmt: skip
        self.clock.time_ms = open_ms
        for s, i in present:
            self.broker.opened(self.traded[s].symbol, open_ms, float(self.series[s].open[i]))
        self.broker.match_open()
        self.look(open_ms, LOOKS_S)
        for s, i in present:
            c = self.series[s]
            self.broker.ranged(self.traded[s].symbol, open_ms, float(c.high[i]), float(c.low[i]), float(c.close[i]))
        self.look(open_ms + self.case.step_ms // 2, LOOKS_S)
        self.clock.time_ms = open_ms + self.case.step_ms
        for s, i in present:
            self.broker.closed(self.traded[s].symbol, open_ms, float(self.series[s].close[i]))
        windows = {self.traded[s].symbol.id: self.series[s].window(i, i + 1) for s, i in present}
        self.survive(lambda: self.trader.close(open_ms, windows))

    def look(self, from_ms: int, after_s: Sequence[int]) -> None:
        for seconds in after_s:
            self.clock.time_ms = from_ms + 1000 * seconds
            self.survive(lambda: self.trader.look(self.clock.now_ms()))

    def calm_down(self) -> None:
        """The exchange's bad day is over, and nobody dies any more."""
        self.plan.faults, self.fate.probability = (), 0.0
        if self.fate.weather is not None:
            self.fate.weather.clear_up()
            self.fate.weather = None
        self.look(self.clock.now_ms(), (1, 10, 60, 120))
