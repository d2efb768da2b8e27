"""One event at a time comes to the same as the whole loop, bit for bit: what live trading stands on."""

from __future__ import annotations

from math import nan

import pytest

from atb.engine.reasons import NEXT_OPEN, NEXT_OPEN_CASH_LIMITED, NO_CASH, REFUSED_HALTED
from atb.engine.rules import make_rules
from atb.engine.simulation import Run, Timeline, timeline
from atb.engine.stepper import Stepper
from tests.property.test_engine_equals_reference import Case
from tests.seeds import seeds

AT_OPEN = (NEXT_OPEN, NEXT_OPEN_CASH_LIMITED)
CASES = 600


def stepped(case: Case, line: Timeline, run: Run) -> Stepper:
    """A stepper that is told of the run's fills when they happen, and its equity compared at every close."""
    stepper = Stepper(case.markets, make_rules(case.policy, *case.costs), case.balance)
    fills = list(run.fills)
    for t in range(run.rows):
        row = [fill for fill in fills if fill["t"] == t]
        closes = [float(line.columns["close"][s][t]) for s in range(line.symbols)]
        tell(stepper, [fill for fill in row if fill["rule"] in AT_OPEN])
        for s, p in enumerate(stepper.positions):
            if p.target_qty > p.qty and closes[s] == closes[s]:
                stepper.settled(s)  # it was not bought, or not all of it
        tell(stepper, [fill for fill in row if fill["rule"] not in AT_OPEN])
        stepper.close(
            int(line.open_time[t]), closes, [float(line.columns["signal"][s][t]) for s in range(line.symbols)]
        )
        assert stepper.account.equity == run.equity[t], (case, t)
    return stepper


def tell(stepper: Stepper, fills: list[object]) -> None:
    for fill in fills:
        s, lots, price, fee = (fill[name].item() for name in ("symbol", "qty", "price", "fee"))  # type: ignore[index]
        value = (lots * stepper.markets[s].lot) * price
        stepper.executed(s, lots, value, fee, fill["reason"].item())  # type: ignore[index]
        if fill["rule"] == NEXT_OPEN_CASH_LIMITED:  # type: ignore[index]
            stepper.settled(s)


def compare(seeds: range) -> int:
    told = 0
    for seed in seeds:
        case = Case(seed)
        run, line = case.engine("plain"), timeline(*case.series())
        stepper = stepped(case, line, run)
        told += len(run.fills)
        assert repr(stepper.account.as_tuple()) == repr(run.account.as_tuple()), f"seed {seed}"
        for a, b in zip(stepper.positions, run.positions, strict=True):
            assert repr(a.as_tuple()) == repr(b.as_tuple()), f"seed {seed}"
        at_the_open = (NO_CASH, REFUSED_HALTED)  # of these the loop counts more: orders that came to nothing
        for code, count in enumerate(run.decisions.tolist()):
            assert stepper.decisions[code] <= count if code in at_the_open else stepper.decisions[code] == count, (
                f"seed {seed}"
            )
    return told


def test_events_one_by_one_are_the_loop() -> None:
    assert compare(range(CASES)) > CASES


@pytest.mark.slow
def test_events_one_by_one_are_the_loop_many_times() -> None:
    compare(seeds(CASES, 3 * CASES))


def test_a_fill_in_parts_is_one_entry() -> None:
    """Three executions of one order leave what a single one would, and a rest that never came is not wanted."""
    case = Case(1)
    whole, parts = (Stepper(case.markets[:1], make_rules(case.policy, 0, 0), 1e9) for _ in range(2))
    for stepper, pieces in ((whole, [30]), (parts, [10, 15, 5])):
        stepper.positions[0].target_qty, stepper.account.waiting_entries = 30, 1
        for lots in pieces:
            stepper.executed(0, lots, lots * 2.0, 0.0, 10)
        stepper.close(0, [nan], [nan])
    assert repr(whole.positions[0].as_tuple()) == repr(parts.positions[0].as_tuple())
    assert repr(whole.account.as_tuple()) == repr(parts.account.as_tuple())
    short = Stepper(case.markets[:1], make_rules(case.policy, 0, 0), 1e9)
    short.positions[0].target_qty, short.account.waiting_entries = 30, 1
    short.executed(0, 10, 20.0, 0.0, 10)
    assert short.account.waiting_entries == 1
    short.settled(0)
    assert short.account.waiting_entries == 0 and short.positions[0].target_qty == short.positions[0].qty == 10


def test_met_and_closed_candle_by_candle_it_is_the_loop() -> None:
    """What candles fill is the loop's too, from any state on: half of the way by `meet`, on a copy."""
    told = 0
    for seed in range(60):
        case = Case(seed)
        run, line = case.engine("plain"), timeline(*case.series())
        stepper, fills = Stepper(case.markets, make_rules(case.policy, *case.costs), case.balance), 0
        for t in range(run.rows):
            if t == run.rows // 2:
                left, stepper = stepper, stepper.copy()
                before = repr(left.account.as_tuple())
            columns = [[float(c[t]) for c in line.columns[name]] for name in ("open", "high", "low", "close", "signal")]
            fills += len(stepper.meet(*columns[:3]))
            stepper.close(int(line.open_time[t]), columns[3], columns[4])
            assert stepper.account.equity == run.equity[t], (seed, t)
        assert fills == len(run.fills)
        assert repr(stepper.account.as_tuple()) == repr(run.account.as_tuple()), f"seed {seed}"
        assert stepper.decisions == run.decisions.tolist()
        assert repr(left.account.as_tuple()) == before, "a copy goes its own way"
        told += fills
    assert told > 100
