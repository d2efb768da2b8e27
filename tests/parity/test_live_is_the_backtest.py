"""Live trading and the backtest on the same candles: the same decisions, lots, prices, times and reasons.

The whole live path runs: journal and ledger in Postgres, client order ids, the executor, a simulated exchange. Only the signals
are given, so that every rule is met.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from atb.core.order_id import parse_order_id
from atb.core.timeframe import ManualClock
from atb.core.types import Symbol
from atb.engine.candles import Candles, Floats
from atb.engine.reasons import NO_CASH, REASON_NAMES, REFUSED_HALTED
from atb.engine.rules import make_rules
from atb.execution.session import Session, Wish, open_session
from atb.execution.traded import Traded
from atb.ledger.connect import Where
from atb.live.replay import Replay
from atb.live.trader import Trader
from atb.strategy.contract import Strategy
from atb.venue.simulated_book import Setup
from atb.venue.simulated_broker import SimulatedBroker
from tests.property.test_engine_equals_reference import Case
from tests.property.test_simulated_broker import market_rules
from tests.seeds import thinned

Fact = tuple[int, str, int, float, float, str]  # open ms, symbol, lots, price, fee, reason


class Given(Strategy):
    """Signals that are written down, by open time."""

    lookback_bars = 1
    silent_at_times = True

    def __init__(self, open_time: Any, signals: Floats) -> None:
        self.known = dict(zip(open_time.tolist(), signals.tolist(), strict=True))

    def signals(self, candles: Candles) -> Floats:
        return np.array([self.known[at] for at in candles.open_time.tolist()])


class Live:
    """One account, one session after the other, on a case's market."""

    def __init__(self, where: Where, case: Case, name: str) -> None:
        self.where, self.case, self.name = where, case, name
        self.series, self.signals = case.series()
        rules = [market_rules(s, market) for s, market in enumerate(case.markets)]
        self.traded = [Traded(Symbol(r.symbol, r.symbol[:-4], "USDT"), r) for r in rules]
        self.clock = ManualClock(case.times[0])
        self.rules = make_rules(case.policy, *case.costs)
        self.broker = SimulatedBroker(
            {t.symbol: t.rules for t in self.traded}, Setup(fee=self.rules.fee, slip=self.rules.slip), self.clock,
            {"USDT": Decimal(repr(case.balance))},
        )  # fmt: skip
        self.length = {3_600_000: "1h", 4 * 3_600_000: "4h", 24 * 3_600_000: "1d"}[case.step_ms]

    def session(self) -> Session:
        wish = Wish(
            self.name, "simulated", "paper", self.traded, self.rules, "given", self.length, {},
            Decimal(repr(self.case.balance)),
        )  # fmt: skip
        return open_session(self.where, wish, self.clock, lambda state: self.broker)

    def trader(self, session: Session) -> Trader:
        given = [Given(c.open_time, signal) for c, signal in zip(self.series, self.signals, strict=True)]
        return Trader(session.executor, given, self.length)

    def replay(self, session: Session, first_ms: int) -> Replay:
        return Replay(self.trader(session), self.broker, self.clock, self.series, [1] * len(self.series), first_ms)


def booked(session: Session, step_ms: int) -> list[Fact]:
    """The ledger's fills, each with the candle in which it was made."""
    out = []
    state = session.state
    for traded in state.traded:
        symbol = traded.symbol
        for fill in state.books.history.get((symbol.market, symbol.id), []):
            assert parse_order_id(fill.client_order_id)
            at = round(fill.at.timestamp() * 1000)
            lots = int(fill.qty / traded.rules.lot) * (1 if fill.side == "buy" else -1)
            out.append(
                (fill.seq, (at - at % step_ms, symbol.id, lots, float(fill.price), float(fill.fee), fill.reason))
            )
    return [fact for _, fact in sorted(out)]


def compare(live: Live, session: Session) -> int:
    run = live.case.engine("plain")
    names = [t.symbol.id for t in live.traded]
    times = sorted({int(at) for candles in live.series for at in candles.open_time})
    offset = live.case.times[0] % live.case.step_ms

    def fact(f: Any) -> Fact:
        at, reason = times[f["t"]] - offset, REASON_NAMES[int(f["reason"])]
        return at, names[f["symbol"]], int(f["qty"]), float(f["price"]), float(f["fee"]), reason

    should = [fact(f) for f in run.fills]
    found = booked(session, live.case.step_ms)
    key = lambda fact: (fact[0], fact[1], fact[5] != "entry", fact[2])  # noqa: E731
    last = times[run.rows - 1]
    assert sorted((f for f in found if f[0] <= last), key=key) == sorted(should, key=key)
    account = session.state.stepper.account
    if run.rows == len(times):
        assert account.equity == pytest.approx(run.account.equity, rel=1e-9)
        assert float(session.state.books.equity) == pytest.approx(run.account.equity, rel=1e-9)
    for code, count in enumerate(run.decisions.tolist()):
        if code not in (NO_CASH, REFUSED_HALTED) and run.rows == len(times):
            assert session.state.stepper.decisions[code] == count, REASON_NAMES[code]
    return len(should)


@pytest.mark.parametrize("seeds", thinned([range(k, k + 5) for k in range(0, 15, 5)], 3), ids=str)
def test_live_replay_is_the_backtest(where: Where, seeds: range) -> None:
    told = 0
    for seed in seeds:
        live = Live(where, Case(seed), f"replay {seed}")
        session = live.session()
        live.replay(session, live.case.times[0]).run(stop=lambda: False)
        told += compare(live, session)
        session.journal.close()
    assert told


@pytest.mark.parametrize("seed", range(40, 52))
def test_killed_and_resumed_it_is_still_the_backtest(where: Where, seed: int) -> None:
    """Killed between any two rows, resumed by folding the ledger: the state is that of one that was never killed."""
    live = Live(where, Case(seed), f"killed {seed}")
    times = live.case.times
    first, session = times[0], live.session()
    for cut in range(1, 8):
        stop_at = len(times) * cut // 8
        rows = live.replay(session, first).run(stop=lambda at=times[stop_at]: live.clock.now_ms() > at)  # type: ignore[misc]
        session.journal.close()  # the process is gone; the exchange is not
        before = session.state.stepper
        first = live.clock.now_ms() if rows else first
        session = live.session()
        after = session.state.stepper
        assert repr(after.account.as_tuple()) == repr(before.account.as_tuple())
        assert [repr(p.as_tuple()) for p in after.positions] == [repr(p.as_tuple()) for p in before.positions]
        assert after.decisions == before.decisions
    live.replay(session, first).run()
    compare(live, session)
    session.journal.close()
