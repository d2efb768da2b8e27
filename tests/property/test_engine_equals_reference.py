"""The engine against the second engine in tests/reference, over random markets and policies."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest

from atb.core.policy import NEUTRALS, SIZINGS, make_policy
from atb.engine.candles import Candles, Floats
from atb.engine.reasons import REASON_NAMES, RULE_NAMES
from atb.engine.records import Market
from atb.engine.rules import make_rules
from atb.engine.simulation import EngineChoice, Run, simulate, timeline
from tests.reference.engine import RefCandle, RefMarket, RefPolicy, RefResult, run_reference
from tests.seeds import seeds

HOUR_MS = 3_600_000
QUICK, CASES = 1500, 3000  # markets in the quick suite, and with those of the longer one


class Case:
    """One random market: candles of 1-4 symbols with holes, signals, market rules, a policy and costs."""

    def __init__(self, seed: int) -> None:
        self.random = rng = random.Random(seed)
        self.rows = rng.choice((30, 80, 200))
        self.symbols = rng.choice((1, 1, 1, 2, 3, 4))
        self.step_ms = rng.choice((HOUR_MS, 4 * HOUR_MS, 24 * HOUR_MS))
        self.times = [i * self.step_ms + 1_700_006_400_000 for i in range(self.rows)]
        self.scale = 10.0 ** rng.randint(-4, 5)
        self.candles = [self._series() for _ in range(self.symbols)]
        self.signals = [self._signals() for _ in range(self.symbols)]
        self.markets = [self._market() for _ in range(self.symbols)]
        self.balance = rng.choice((50.0, 1000.0, 10_000.0))
        self.costs = (rng.choice((0.0, 10.0, 35.0)), rng.choice((0.0, 5.0, 50.0)))
        self.policy = make_policy(self._policy())

    def _series(self) -> list[RefCandle | None]:
        rng, price, out = self.random, self.scale, []
        width = rng.choice((0.002, 0.01, 0.05))
        holes = rng.choice((0.0, 0.0, 0.1))
        digits = rng.choice((3, 5, 12)) - round(math.log10(self.scale))
        for _ in range(self.rows):
            open_ = price * (1 + rng.gauss(0, width / 4))
            close = open_ * math.exp(rng.gauss(0, width))
            high = max(open_, close) * (1 + abs(rng.gauss(0, width / 2)))
            low = min(open_, close) * (1 - min(0.9, abs(rng.gauss(0, width / 2))))
            price = close
            values = [max(round(x, digits), 10.0**-digits) for x in (open_, high, low, close)]
            out.append(None if rng.random() < holes else RefCandle(*values))
        return out

    def _signals(self) -> list[float]:
        rng, out, level = self.random, [], 0.0
        sticky = rng.choice((0.3, 0.8, 0.95))
        for _ in range(self.rows):
            if rng.random() > sticky:
                level = rng.choice((-1.0, -0.3, -0.05, 0.0, 0.02, 0.1, 0.4, 1.0, 1.0, math.nan))
            out.append(level)
        return out

    def _market(self) -> Market:
        rng = self.random
        return Market(
            lot=decimal(10.0 ** rng.randint(-6, 0) / self.scale),
            tick=max(1e-15, decimal(self.scale * 10.0 ** rng.choice((-19, -15, -6, -5, -4, -3, -2)))),
            min_notional=rng.choice((0.0, 5.0, 20.0)),
        )

    def _policy(self) -> dict[str, object]:
        rng = self.random

        def maybe(*values: float) -> float:
            return rng.choice((0.0, *values))

        sizing = rng.choice(SIZINGS)
        return {
            "sizing": sizing,
            "fraction": rng.choice((0.05, 0.2, 1.0)),
            "risk_per_trade": rng.choice((0.01, 0.1)),
            "min_confidence": rng.choice((0.05, 0.1, 0.4)),
            "neutral": rng.choice(NEUTRALS),
            "stop_loss": rng.choice((0.005, 0.03, 0.1)) if sizing == "risk" else maybe(0.005, 0.03, 0.1),
            "take_profit": maybe(0.005, 0.03),
            "trailing_stop": maybe(0.005, 0.03, 0.1),
            "trailing_after": maybe(0.01),
            "break_even_after": maybe(0.005, 0.03),
            "max_hold": rng.choice((0, 0, 1, 5, 20)),
            "cooldown": rng.choice((0, 0, 1, 4)),
            "partial_exits": rng.choice(((), (), ((0.01, 0.5),), ((0.005, 0.3), (0.02, 0.3), (0.04, 0.4)))),
            "max_position": rng.choice((0.1, 0.5, 1.0)),
            "max_exposure": rng.choice((0.3, 1.0, 1.0)),
            "max_open_positions": rng.choice((1, 2, 5)),
            "daily_loss_limit": maybe(0.005, 0.05),
            "max_drawdown": rng.choice((0.02, 0.1, 1.0)),
        }

    def reference(self) -> RefResult:
        p, (fee_bps, slip_bps) = self.policy, self.costs
        policy = RefPolicy(
            fee=fee_bps / 10_000, slip=slip_bps / 10_000, sizing=p.sizing, fraction=p.fraction, risk=p.risk_per_trade,
            min_confidence=p.min_confidence, neutral=p.neutral, stop_loss=p.stop_loss, take_profit=p.take_profit,
            trailing=p.trailing_stop, trailing_after=p.trailing_after, break_even=p.break_even_after,
            max_hold=p.max_hold, cooldown=p.cooldown, partials=p.partial_exits, max_position=p.max_position,
            max_exposure=p.max_exposure, max_open_positions=p.max_open_positions, daily_loss=p.daily_loss_limit,
            max_drawdown=p.max_drawdown,
        )  # fmt: skip
        markets = [RefMarket(m.lot, m.tick, m.min_notional) for m in self.markets]
        # The engine lays symbols on the union of their own times; rows where all are absent do not exist for it.
        rows = [t for t in range(self.rows) if any(series[t] is not None for series in self.candles)]
        candles = [[series[t] for t in rows] for series in self.candles]
        signals = [[series[t] for t in rows] for series in self.signals]
        return run_reference([self.times[t] for t in rows], candles, signals, markets, policy, self.balance)

    def series(self) -> tuple[list[Candles], list[Floats]]:
        """The candles and signals as the engine wants them: absent candles left out."""
        series, signals = [], []
        for candles, signal in zip(self.candles, self.signals, strict=True):
            present = [t for t, candle in enumerate(candles) if candle is not None]
            rows = [candles[t] for t in present]
            open_, high, low, close = (
                np.array([getattr(c, name) for c in rows]) for name in ("open", "high", "low", "close")
            )
            times = np.array([self.times[t] for t in present], dtype=np.int64)
            series.append(Candles("X", "1h", times, open_, high, low, close, np.ones(len(times))))
            signals.append(np.array([signal[t] for t in present]))
        return series, signals

    def engine(self, engine: EngineChoice, *, take_before_stop: bool = False) -> Run:
        rules = make_rules(self.policy, *self.costs, take_before_stop=take_before_stop)
        return simulate(timeline(*self.series()), self.markets, rules, self.balance, engine=engine)


def decimal(number: float) -> float:
    """The float that an exchange's own text for it gives: 1e-07, not 1.0000000000000001e-07."""
    return float(f"{number:.9g}")


def described(run: Run) -> list[tuple[int, int, int, float, str, str]]:
    return [
        (f["t"], f["symbol"], f["qty"], f["price"], REASON_NAMES[int(f["reason"])], RULE_NAMES[int(f["rule"])])
        for f in run.fills
    ]


def test_same_fills_and_equity_as_the_reference() -> None:
    seen = compare(range(QUICK))
    # A comparison that never meets a rule proves nothing about it. (No emergency close is ordered in a backtest.)
    never = (
        (set(REASON_NAMES.values()) | set(RULE_NAMES.values())) - set(seen) - {"take_before_stop", "emergency_close"}
    )
    assert not never


@pytest.mark.slow
def test_same_fills_and_equity_as_the_reference_many_times() -> None:
    compare(range(QUICK, CASES))
    compare(seeds(CASES, 3 * CASES))


def compare(seeds: range) -> Counter[str]:
    """Engine and reference over these markets; returns which reasons and rules occurred."""
    seen: Counter[str] = Counter()
    for seed in seeds:
        case = Case(seed)
        run, reference = case.engine("compiled"), case.reference()
        fills = [(f.t, f.symbol, f.lots, f.price, f.reason, f.rule) for f in reference.fills]
        assert described(run) == fills, f"seed {seed}"
        assert run.rows == reference.rows, f"seed {seed}"
        np.testing.assert_allclose(run.equity, reference.equity, rtol=1e-9, err_msg=f"seed {seed}")
        counted: Counter[str] = Counter()
        for code, count in enumerate(run.decisions):
            if count:
                counted[REASON_NAMES[code]] += int(count)
        assert counted == reference.decisions, f"seed {seed}"
        assert bool(run.account.halted) == reference.halted
        if reference.halt_drawdown is not None:
            assert run.account.halt_drawdown == pytest.approx(reference.halt_drawdown, rel=1e-9)
        seen.update(f.reason for f in reference.fills)
        seen.update(f.rule for f in reference.fills)
        seen.update(reference.decisions)
    return seen


def test_plain_and_compiled_are_bitwise_equal() -> None:
    bitwise_equal(range(0, QUICK, 5))


@pytest.mark.slow
def test_plain_and_compiled_are_bitwise_equal_many_times() -> None:
    bitwise_equal(range(QUICK, CASES, 5))


def bitwise_equal(seeds: range) -> None:
    for seed in seeds:
        for take_before_stop in (False, True):
            case = Case(seed)
            plain = case.engine("plain", take_before_stop=take_before_stop)
            compiled = case.engine("compiled", take_before_stop=take_before_stop)
            assert plain.rows == compiled.rows
            assert plain.equity.tobytes() == compiled.equity.tobytes(), f"seed {seed}"
            assert plain.fills.tobytes() == compiled.fills.tobytes(), f"seed {seed}"
            assert plain.decisions.tobytes() == compiled.decisions.tobytes(), f"seed {seed}"
            assert repr(plain.account.as_tuple()) == repr(compiled.account.as_tuple()), f"seed {seed}"
            for a, b in zip(plain.positions, compiled.positions, strict=True):
                assert repr(a.as_tuple()) == repr(b.as_tuple()), f"seed {seed}"
