"""The statistics against a second calculation, in plain Python from docs/statistics.md, on 1,000 random curves."""

from __future__ import annotations

import datetime as dt
import math
import random
import statistics

import numpy as np
import pytest

from atb.engine import metrics
from atb.engine.metrics import Curve
from atb.engine.trades import Trades

CURVES = 300
HOUR_MS = 3_600_000


def random_curve(seed: int) -> Curve:
    rng = random.Random(seed)
    length_ms = rng.choice((60_000, HOUR_MS, 4 * HOUR_MS, 24 * HOUR_MS, 7 * 24 * HOUR_MS))
    count = rng.choice((1, 2, 30, 400, 1500))
    start = rng.randrange(0, 2_000_000_000_000, length_ms)
    keep = rng.choice((1.0, 0.9))
    times = [start + i * length_ms for i in range(count) if i == 0 or rng.random() < keep]
    equity, value = [], 1000.0 * 10 ** rng.uniform(-2, 4)
    initial = value
    for _ in times:
        value *= math.exp(rng.gauss(0, rng.choice((0.0, 0.001, 0.05))))
        equity.append(value)
    return Curve(np.array(times, dtype=np.int64), np.array(equity), initial, length_ms)


class Independent:
    """The definitions, word for word."""

    def __init__(self, curve: Curve) -> None:
        self.curve = curve
        by_day: dict[dt.date, float] = {}
        for ms, value in zip(curve.open_time.tolist(), curve.equity.tolist(), strict=True):
            by_day[self.date(ms)] = value
        day, last = min(by_day), curve.initial_balance
        self.returns: list[float] = []
        while day <= max(by_day):
            value = by_day.get(day, last)
            self.returns.append(value / last - 1)
            last, day = value, day + dt.timedelta(days=1)

    @staticmethod
    def date(ms: int) -> dt.date:
        return (dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=ms)).date()

    def sharpe(self) -> float | None:
        if len(self.returns) < 2 or statistics.stdev(self.returns) < 1e-15:
            return None
        return statistics.fmean(self.returns) / statistics.stdev(self.returns) * math.sqrt(365)

    def sortino(self) -> float | None:
        if len(self.returns) < 2:
            return None
        down = math.sqrt(math.fsum(min(r, 0) ** 2 for r in self.returns) / len(self.returns))
        return statistics.fmean(self.returns) / down * math.sqrt(365) if down >= 1e-15 else None

    def volatility(self) -> float | None:
        return statistics.stdev(self.returns) * math.sqrt(365) if len(self.returns) > 1 else None

    def cagr(self) -> float | None:
        c = self.curve
        days = (int(c.open_time[-1]) + c.length_ms - int(c.open_time[0])) / 86_400_000
        return (c.end / c.initial_balance) ** (365 / days) - 1 if days >= 30 else None

    def drawdown(self) -> tuple[float, int, int | None]:
        """Depth, trough (ms), recovery (ms)."""
        c = self.curve
        peak, depth, peak_at_trough, trough = c.initial_balance, 0.0, c.initial_balance, 0
        for i, value in enumerate(c.equity.tolist()):
            peak = max(peak, value)
            if 1 - value / peak > depth:
                depth, peak_at_trough, trough = 1 - value / peak, peak, i
        recovered = next((i for i in range(trough, len(c.equity)) if c.equity[i] >= peak_at_trough), None)
        close = [int(t) + c.length_ms for t in c.open_time]
        return depth, close[trough], None if recovered is None else close[recovered]


@pytest.mark.slow
def test_statistics_of_many_curves() -> None:
    seen = {"recovered": 0, "not recovered": 0, "n/a": 0}
    for seed in range(CURVES):
        curve = random_curve(seed)
        expected = Independent(curve)
        returns = metrics.daily_returns(curve)
        assert returns == pytest.approx(expected.returns, rel=1e-9, abs=1e-12), seed
        pairs = [
            (metrics.sharpe(returns), expected.sharpe()),
            (metrics.sortino(returns), expected.sortino()),
            (metrics.volatility(returns), expected.volatility()),
            (metrics.cagr(curve.initial_balance, curve.end, curve.days), expected.cagr()),
        ]
        for got, wanted in pairs:
            assert (got is None) == (wanted is None), seed
            assert got is None or got == pytest.approx(wanted, rel=1e-9, abs=1e-9), seed
            seen["n/a"] += got is None
        depth, trough, recovered = expected.drawdown()
        drawdown = metrics.max_drawdown(curve)
        assert drawdown.depth == pytest.approx(depth, abs=1e-12), seed
        if depth > 0:
            assert (drawdown.trough_ms, drawdown.recovered_ms) == (trough, recovered), seed
            seen["recovered" if recovered else "not recovered"] += 1
    assert all(seen.values())


def test_trade_statistics() -> None:
    for seed in range(200):
        rng = random.Random(seed)
        n = rng.choice((0, 1, 2, 30))
        pnl = [round(rng.gauss(0.1, 5), 3) for _ in range(n)]
        still_open = [rng.random() < 0.1 for _ in range(n)]
        entry = [rng.randrange(50) for _ in range(n)]
        exit_ = [e + rng.randrange(30) for e in entry]
        zeros, ints = np.zeros(n), np.zeros(n, dtype=np.int64)
        trades = Trades(
            ints, np.array(entry, dtype=np.int64), np.array(exit_, dtype=np.int64), zeros, zeros, zeros, zeros,
            np.array(pnl), zeros, ints, np.array(still_open, dtype=bool), np.zeros(n, dtype=bool),
        )  # fmt: skip
        got = metrics.trade_stats(trades, np.arange(100, dtype=np.int64) * HOUR_MS, HOUR_MS)
        closed = [p for p, o in zip(pnl, still_open, strict=True) if not o]
        hours = [x - e + 1 for e, x, o in zip(entry, exit_, still_open, strict=True) if not o]
        assert got.closed == len(closed)
        if not closed:
            assert got.expectancy is None and got.win_rate is None and got.profit_factor is None
            continue
        wins, losses = [p for p in closed if p > 0], [p for p in closed if p < 0]
        assert got.win_rate == pytest.approx(len(wins) / len(closed))
        assert got.expectancy == pytest.approx(statistics.fmean(closed))
        assert got.median_duration_h == pytest.approx(statistics.median(hours))
        factor = sum(wins) / -sum(losses) if losses else None
        assert got.profit_factor == (None if factor is None else pytest.approx(factor))
        if len(closed) > 1:
            sqn = statistics.fmean(closed) / statistics.stdev(closed) * math.sqrt(len(closed))
            assert got.sqn == pytest.approx(sqn)


@pytest.mark.parametrize("seed", range(60))
def test_drawdown_over_many_blocks(seed: int) -> None:
    """Where the fall began, was deepest and was made good: curves of several blocks, with ties."""
    random = np.random.default_rng(seed)
    n = int(random.integers(2, 6 * metrics.BLOCK))
    rounded = np.round(1000 * np.exp(np.cumsum(random.normal(0, 0.01, n))), int(random.integers(-1, 3)))
    equity = np.asarray(rounded + 1.0, dtype=np.float64)
    curve = metrics.Curve(np.arange(n) * HOUR_MS, equity, 1000.0, HOUR_MS)
    peaks = np.maximum(np.maximum.accumulate(equity), 1000.0)
    trough = int(np.argmin(equity / peaks))
    found = metrics.max_drawdown(curve)
    assert found.depth == 1.0 - (equity / peaks)[trough] or (found.depth == 0.0 and (equity >= peaks).all())
    if found.depth > 0.0:
        reached = [t for t in range(trough + 1) if equity[t] >= peaks[trough]]
        later = [t for t in range(trough, n) if equity[t] >= peaks[trough]]
        assert found.trough_ms == (trough + 1) * HOUR_MS
        assert found.peak_ms == ((reached[-1] + 1) * HOUR_MS if reached else 0)
        assert found.recovered_ms == ((later[0] + 1) * HOUR_MS if later else None)


def test_candles_off_the_grid_are_no_regular_days() -> None:
    """Hourly candles that begin at a quarter past: the last of a day is found by its time, not by counting."""
    times = np.arange(100) * HOUR_MS + HOUR_MS // 4
    equity = np.arange(100, dtype=np.float64) + 1000.0
    days, daily = metrics.daily_equity(metrics.Curve(times, equity, 1000.0, HOUR_MS))
    assert days.tolist() == [0, 1, 2, 3, 4]
    assert daily.tolist() == [equity[np.flatnonzero(times // (24 * HOUR_MS) == day)[-1]] for day in range(5)]
