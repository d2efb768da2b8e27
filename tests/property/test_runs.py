"""What holds for every run of the engine: bar by bar equals the loop, money is conserved, trades add up."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from atb.core.policy import make_policy
from atb.engine import kernel, machine_code, simulation
from atb.engine.candles import COLUMNS as PRICES_AND_VOLUME
from atb.engine.candles import Candles
from atb.engine.indicators import sma
from atb.engine.reasons import COUNT, STOP_BEFORE_TAKE
from atb.engine.records import FillRow, Market, flat_position, fresh_account
from atb.engine.rules import make_rules
from atb.engine.simulation import COLUMNS, EngineChoice, simulate, timeline
from atb.engine.trades import fold_trades
from tests.conftest import random_candles
from tests.property.test_engine_equals_reference import Case

SEEDS = range(0, 600, 2)


@pytest.mark.parametrize("restart", [False, True])
def test_bar_by_bar_equals_the_loop(restart: bool) -> None:
    """Stepping one candle at a time, with all state copied through packed records in between, changes no bit."""
    for seed in SEEDS:
        case = Case(seed)
        series, signals = case.series()
        line = timeline(series, signals)
        rules = make_rules(case.policy, *case.costs)
        whole = simulate(line, case.markets, rules, case.balance, engine="compiled")
        n = line.symbols
        account, positions = fresh_account(case.balance), [flat_position() for _ in range(n)]
        order, decisions, equity, fills = [0] * n, [0] * COUNT, [], []
        columns = [[column.tolist() for column in line.columns[name]] for name in COLUMNS]
        for t in range(whole.rows):
            if restart:  # what a process that starts again would have: the records, nothing else
                account = type(account).unpack(type(account).pack([account]))[0]
                positions = type(positions[0]).unpack(type(positions[0]).pack(positions))
                order = [0] * n
            kernel.held_first(n, positions, order, account)
            buffer = [FillRow() for _ in range(2 * n + 1)]
            open_, high, low, close, signal = ([[column[t]] for column in of_symbols] for of_symbols in columns)
            count = kernel.step(
                0, n, int(line.open_time[t]), open_, high, low, close, signal, positions, order, case.markets, account,
                rules, buffer, 0, decisions,
            )  # fmt: skip
            for p in positions:  # what is neither held nor wanted has no levels
                assert p.qty or p.target_qty or (np.isnan(p.stop) and np.isnan(p.take)), f"seed {seed}, row {t}"
            fills += [(t, *row.as_tuple()[1:]) for row in buffer[:count]]
            equity.append(account.equity)
        assert np.array(equity).tobytes() == whole.equity.tobytes(), f"seed {seed}"
        assert fills == whole.fills.tolist(), f"seed {seed}"
        assert decisions == whole.decisions.tolist(), f"seed {seed}"


def test_money_is_conserved() -> None:
    """Lesson 1: the sum of cash flows equals the change of equity, and trades add up to it."""
    for seed in SEEDS:
        case = Case(seed)
        series, signals = case.series()
        line = timeline(series, signals)
        run = simulate(line, case.markets, make_rules(case.policy, *case.costs), case.balance, engine="compiled")
        lots = np.array([m.lot for m in case.markets])
        value = run.fills["qty"] * lots[run.fills["symbol"]] * run.fills["price"]
        cash = case.balance - value.sum() - run.fills["fee"].sum()
        assert run.account.cash == pytest.approx(cash, rel=1e-9)
        held = sum(p.qty * m.lot * p.last_close for p, m in zip(run.positions, case.markets, strict=True))
        assert run.equity[-1] == pytest.approx(cash + held, rel=1e-9)
        last_close = np.array([p.last_close for p in run.positions])
        trades = fold_trades(run.fills, lots, last_close, run.rows - 1)
        assert trades.pnl.sum() == pytest.approx(run.equity[-1] - case.balance, rel=1e-9, abs=1e-7 * case.balance)
        assert int(trades.open.sum()) == sum(p.qty != 0 for p in run.positions)
        assert run.account.cash >= -1e-9 * case.balance


def test_a_full_fill_buffer_is_emptied_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "PLAIN_FILLS", 1)
    most = 0
    for seed in range(40):
        case = Case(seed)
        line = timeline(*case.series())
        rules = make_rules(case.policy, *case.costs)
        whole = simulate(line, case.markets, rules, case.balance, engine="compiled")
        most = max(most, len(whole.fills))
        with monkeypatch.context() as patch:
            patch.setattr(simulation, "COMPILED_FILLS", 1)
            compiled = simulate(line, case.markets, rules, case.balance, engine="compiled")
        plain = simulate(line, case.markets, rules, case.balance, engine="plain")
        for small in (plain, compiled):
            assert small.fills.tobytes() == whole.fills.tobytes()
            assert small.equity.tobytes() == whole.equity.tobytes()
    assert most > 20


@pytest.mark.parametrize("engine", ["plain", "compiled"])
@pytest.mark.parametrize("count", [17_500, 100_000])
def test_memory_grows_by_less_than_64_bytes_a_bar(engine: EngineChoice, count: int) -> None:
    candles = random_candles(count)
    line = timeline([candles], [np.sign(np.nan_to_num(sma(candles, 20) - sma(candles, 60)))])
    market, rules = (
        Market(lot=1e-5, tick=0.01, min_notional=5.0),
        make_rules(make_policy({"max_drawdown": 1.0, "daily_loss_limit": 0.0}), 10.0, 5.0),
    )
    simulate(line, [market], rules, 1e9, engine=engine)
    tracemalloc.start()
    try:
        run = simulate(line, [market], rules, 1e9, engine=engine)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(run.fills) > 100
    assert peak < 64 * count


def test_trades_are_a_plain_fold_over_fills() -> None:
    """Several symbols: each trade's rows, exit reason and ambiguity, in the order of their last fills, open ones last."""
    ambiguous = still_open = 0
    for seed in range(200):
        case = Case(seed)
        line = timeline(*case.series())
        run = simulate(line, case.markets, make_rules(case.policy, *case.costs), case.balance, engine="compiled")
        held, began, closed = [0] * line.symbols, [0] * line.symbols, []
        for fill in run.fills:
            s = int(fill["symbol"])
            began[s] = int(fill["t"]) if held[s] == 0 else began[s]
            held[s] += int(fill["qty"])
            if held[s] == 0:
                closed.append(
                    (s, began[s], int(fill["t"]), int(fill["reason"]), fill["rule"] == STOP_BEFORE_TAKE, False)
                )
        left = [(s, began[s], run.rows - 1) for s in range(line.symbols) if held[s]]
        last = np.array([p.last_close for p in run.positions])
        trades = fold_trades(run.fills, np.array([m.lot for m in case.markets]), last, run.rows - 1)
        columns = (trades.symbol, trades.entry_t, trades.exit_t, trades.reason, trades.ambiguous, trades.open)
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        assert rows[: len(closed)] == closed, f"seed {seed}"
        assert [row[:3] for row in rows[len(closed) :]] == left, f"seed {seed}"
        ambiguous += sum(row[4] for row in closed)
        still_open += len(left)
    assert ambiguous > 5 and still_open > 5


def test_series_of_other_times_are_not_taken_for_the_same() -> None:
    candles = random_candles(4)
    times = candles.open_time.copy()
    times[1] += 1_800_000
    other = Candles("ETHUSDT", "1h", times, *(getattr(candles, name) for name in PRICES_AND_VOLUME))
    for series in ([candles, other], [other, candles]):
        assert len(timeline(series, [np.zeros(4)] * 2).open_time) == 5
    with pytest.raises(ValueError, match="as many signals"):
        timeline([candles], [np.zeros(3)])


def test_threads_that_link_the_loop_at_once_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = timeline(*Case(3).series())
    case = Case(3)
    rules = make_rules(case.policy, *case.costs)

    def run(_: int) -> bytes:
        return simulate(line, case.markets, rules, case.balance, engine="compiled", cache=tmp_path).equity.tobytes()

    expected = run(0)
    for _ in range(5):
        monkeypatch.setattr(machine_code, "_loaded", {})
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(run, range(8))) == {expected}
