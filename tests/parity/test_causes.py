"""Each cause of a difference between a session and its backtest comes from what it names: a bad day of the exchange, a strategy
that fails, a market that only the engine watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from atb.core.errors import StrategyError
from atb.core.timeframe import moment
from atb.engine.candles import Candles, Floats
from atb.execution.executor import Event
from atb.execution.session import Session, open_session
from atb.ledger.connect import Where
from atb.live.recorded import Happening, Recorded
from atb.live.replay import Replay
from atb.live.session_parity import SessionParity
from atb.live.trader import Trader
from atb.venue.faults import Fault, FaultPlan
from atb.venue.faulty_broker import FaultyBroker
from tests.parity.test_paper_is_the_backtest import BARS, Swing
from tests.parity.test_session_parity import Desk, causes
from tests.venue.exchange import HOUR_MS
from tests.venue.test_candles import START


class BadDay(Desk):
    """A desk behind an exchange that has faults, whose events are kept as a session's are."""

    def __init__(self, where: Where, *faults: Fault, strategy: Swing | None = None, **market: Any) -> None:
        self.plan, self.strategy = FaultPlan(7, *faults), strategy or Swing()
        self.told: list[tuple[int, Event]] = []
        super().__init__(where, environment="real", **market)

    def opened(self) -> Session:
        self.faulty = FaultyBroker(self.broker, self.plan)
        return open_session(self.where, self.wish(), self.clock, lambda _: self.faulty, self._hear)

    def _hear(self, event: Event) -> None:
        self.told.append((self.clock.now_ms(), event))

    def play(self, first: int, stop: int) -> None:
        trader = Trader(self.session.executor, [self.strategy], "1h")
        window = self.candles.window(0, stop)
        Replay(trader, cast(Any, self.faulty), self.clock, [window], [BARS], START + first * HOUR_MS).run()

    def recorded(self) -> Recorded:
        """Its events at the time that the ledger has for what was written then."""
        recorded = super().recorded()
        at = {close.open_ms + HOUR_MS: close.written_at for close in recorded.closes}
        told = [(at.get(-(-ms // HOUR_MS) * HOUR_MS, moment(ms)), event) for ms, event in self.told]
        return recorded._replace(happenings=[Happening(when, e.code, e.message) for when, e in told])


@pytest.fixture
def day(where: Where) -> Iterator[Callable[..., BadDay]]:
    days: list[BadDay] = []

    def make(*faults: Fault, **options: Any) -> BadDay:
        days.append(BadDay(where, *faults, **options))
        return days[-1]

    yield make
    for each in days:
        each.session.journal.close()


def played(day: BadDay, hours: int = 100) -> SessionParity:
    day.play(0, hours)
    return day.compared()


CASES = {
    "refused": (Fault("place", "refused", calls=(1,), types=("market",), reason="insufficient balance"),),
    "part": (Fault("place", "partial_expires", calls=(1,), parts=2, types=("market",)),),
    "late": (Fault("place", "invisible", calls=(1,), ms=3 * HOUR_MS, types=("market",)),),
    "under_way": (Fault("place", "overlooked", calls=(1,), ms=3 * HOUR_MS, types=("market",)),),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_day_of_the_exchange(day: Callable[..., BadDay], name: str) -> None:
    parity = played(day(*CASES[name]))
    assert causes(parity)[name] >= 1 and parity.explained, parity.differences


def test_what_arrives_late_does_not_undo_an_exit(day: Callable[..., BadDay]) -> None:
    """A purchase that was taken for lost is told while what was bought instead is to be sold: all of it is sold."""
    bad = day(*CASES["under_way"])
    parity = played(bad)
    recorded = bad.recorded()
    (late,) = [
        e
        for e in recorded.executions
        if any(o.seq < e.seq and o.lots > 0 and o.open_ms > e.open_ms for o in recorded.executions)
    ]
    after = next(close for close in recorded.closes if close.seq > late.seq)
    assert after.stepper.positions[0].qty == 0
    assert sum(e.lots for e in recorded.executions if e.seq < after.seq) == 0
    assert parity.explained


class FailsOnce(Swing):
    def signals(self, candles: Candles) -> Floats:
        if int(candles.open_time[-1]) == START + 50 * HOUR_MS and len(candles) == BARS:
            raise StrategyError("the feature file is gone.")
        return super().signals(candles)


def test_a_strategy_that_fails(day: Callable[..., BadDay]) -> None:
    (difference,) = played(day(strategy=FailsOnce())).differences
    assert (difference.what, difference.cause.code) == ("signal", "strategy_failed")
    assert "the feature file is gone" in difference.cause.why
