"""The statistics of a run, one definition each. docs/statistics.md states them; None stands for n/a, never a number.

Returns are those of marked-to-market equity resampled to UTC days (a day without candles returns 0; the first day starts at the
initial balance); sample standard deviation, 365 days a year, risk-free rate 0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from atb.core.timeframe import DAY_MS
from atb.engine.candles import Floats, Ints
from atb.engine.trades import Trades

DAYS_A_YEAR = 365
SHORTEST_FOR_CAGR = 30.0
BLOCK = 1024  # rows looked at together: what fits into the processor's caches


class Curve(NamedTuple):
    """Equity at each close. open_time: int64[n] ms; equity: float64[n] quote; length_ms: of one candle."""

    open_time: Ints
    equity: Floats
    initial_balance: float
    length_ms: int

    @property
    def days(self) -> float:
        """From the first open to the last close."""
        return float(self.open_time[-1] + self.length_ms - self.open_time[0]) / DAY_MS

    @property
    def end(self) -> float:
        return float(self.equity[-1])


class Drawdown(NamedTuple):
    """The deepest fall from a peak: depth (fraction), and when it began, was deepest and was made good (ms or None)."""

    depth: float
    peak_ms: int
    trough_ms: int
    recovered_ms: int | None
    end_ms: int

    @property
    def duration_days(self) -> float:
        return ((self.end_ms if self.recovered_ms is None else self.recovered_ms) - self.peak_ms) / DAY_MS


def daily_equity(curve: Curve) -> tuple[Ints, Floats]:
    """UTC day numbers (since 1970) and the equity at the last close of each, days without candles carried forward."""
    first, last = int(curve.open_time[0]) // DAY_MS, int(curve.open_time[-1]) // DAY_MS
    days = np.arange(first, last + 1)
    if len(days) >= len(curve.open_time):  # candles of a day or longer
        day = curve.open_time // DAY_MS
        rows = np.flatnonzero(np.append(np.diff(day) != 0, True))
        return days, curve.equity[rows][np.searchsorted(day[rows], days, side="right") - 1]
    if _is_gapless(curve):
        rows_to_midnight = ((first + 1) * DAY_MS - int(curve.open_time[0])) // curve.length_ms
        ends = curve.equity[rows_to_midnight - 1 :: DAY_MS // curve.length_ms]
        return days, ends.copy() if len(ends) == len(days) else np.append(ends, curve.equity[-1])
    return days, curve.equity[np.searchsorted(curve.open_time, (days + 1) * DAY_MS) - 1]


def _is_gapless(curve: Curve) -> bool:
    """Whether there is a candle at each time of the grid: open times rise, and by whole candles."""
    first, last, length = int(curve.open_time[0]), int(curve.open_time[-1]), curve.length_ms
    return last - first == (len(curve.open_time) - 1) * length and first % length == 0 and DAY_MS % length == 0


def daily_returns(curve: Curve) -> Floats:
    """Fractional returns of each UTC day."""
    equity = daily_equity(curve)[1]
    before = np.empty_like(equity)
    before[0], before[1:] = curve.initial_balance, equity[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(equity / before - 1.0)


def sharpe(returns: Floats) -> float | None:
    """mean / standard deviation (n - 1) x sqrt(365)."""
    if len(returns) < 2:
        return None
    return _ratio(_mean(returns), _deviation(returns), math.sqrt(DAYS_A_YEAR))


def sortino(returns: Floats) -> float | None:
    """mean / sqrt(sum(min(r, 0)^2) / n) x sqrt(365)."""
    if len(returns) < 2:
        return None
    downside = math.sqrt(_mean(np.minimum(returns, 0.0) ** 2))
    return _ratio(_mean(returns), downside, math.sqrt(DAYS_A_YEAR))


def volatility(returns: Floats) -> float | None:
    """Standard deviation of daily returns x sqrt(365)."""
    if len(returns) < 2:
        return None
    return _deviation(returns) * math.sqrt(DAYS_A_YEAR)


def cagr(start: float, end: float, days: float) -> float | None:
    """(end / start)^(365 / days) - 1; None under 30 days, where it would only magnify noise."""
    if days < SHORTEST_FOR_CAGR or end <= 0 or start <= 0:
        return None
    return float((end / start) ** (DAYS_A_YEAR / days) - 1.0)


def max_drawdown(curve: Curve) -> Drawdown:
    """The deepest fall of equity from its highest value so far (the initial balance counts as the first)."""
    blocks = _Blocks(curve.equity)
    trough, ratio, peak = blocks.deepest_fall(curve.initial_balance)
    open_time, length = curve.open_time, curve.length_ms
    end_ms = int(open_time[-1]) + length
    depth = 1.0 - ratio
    if depth <= 0.0:
        first_ms = int(open_time[0]) + length
        return Drawdown(0.0, first_ms, first_ms, first_ms, end_ms)
    before, after = blocks.last_at_least(peak, trough), blocks.first_at_least(peak, trough)
    peak_ms = int(open_time[0]) if before is None else int(open_time[before]) + length
    recovered_ms = None if after is None else int(open_time[after]) + length
    return Drawdown(depth, peak_ms, int(open_time[trough]) + length, recovered_ms, end_ms)


class _Blocks:
    """Equity in blocks of rows with the lowest and highest of each: most questions about rows concern few blocks."""

    def __init__(self, equity: Floats) -> None:
        self.equity = equity
        starts = np.arange(0, len(equity), BLOCK)
        self.low, self.high = np.minimum.reduceat(equity, starts), np.maximum.reduceat(equity, starts)

    def deepest_fall(self, initial_balance: float) -> tuple[int, float, float]:
        """The first row at which equity is the smallest share of its peak so far, that share, and that peak.

        No row of a block is below the block's lowest equity over its highest peak: blocks are looked into row by row
        in the order of that bound, until it promises nothing deeper. For most curves these are a few.
        """
        peak = np.maximum(np.maximum.accumulate(self.high), initial_balance)
        before = np.append(initial_balance, peak[:-1])
        bound = self.low / np.where(self.low < 0.0, before, peak)
        deepest = (math.inf, 0, initial_balance)
        for block in np.argsort(bound, kind="stable").tolist():
            start = block * BLOCK
            if (bound[block], start) > deepest[:2]:
                break
            part = self.equity[start : start + BLOCK]
            peaks = np.maximum(np.maximum.accumulate(part), before[block])
            ratio = part / peaks
            row = int(np.argmin(ratio))
            deepest = min(deepest, (float(ratio[row]), start + row, float(peaks[row])))
        return deepest[1], deepest[0], deepest[2]

    def last_at_least(self, level: float, row: int) -> int | None:
        """The last row up to `row` whose equity is at least `level`."""
        block = row // BLOCK
        earlier: list[int] = np.flatnonzero(self.high[:block] >= level)[:-2:-1].tolist()
        for candidate in (block, *earlier):
            start = candidate * BLOCK
            rows = np.flatnonzero(self.equity[start : min(row + 1, start + BLOCK)] >= level)
            if len(rows):
                return start + int(rows[-1])
        return None

    def first_at_least(self, level: float, row: int) -> int | None:
        """The first row from `row` on whose equity is at least `level`."""
        block = row // BLOCK
        later: list[int] = (np.flatnonzero(self.high[block + 1 :] >= level)[:1] + block + 1).tolist()
        for candidate in (block, *later):
            start = max(row, candidate * BLOCK)
            rows = np.flatnonzero(self.equity[start : (candidate + 1) * BLOCK] >= level)
            if len(rows):
                return start + int(rows[0])
        return None


class TradeStats(NamedTuple):
    """Of closed trades, after fees. None where it cannot be computed."""

    closed: int
    wins: int
    win_rate: float | None
    profit_factor: float | None
    expectancy: float | None
    sqn: float | None
    average_win: float | None
    average_loss: float | None
    best: float | None
    worst: float | None
    average_duration_h: float | None
    median_duration_h: float | None


def trade_stats(trades: Trades, open_time: Ints, length_ms: int) -> TradeStats:
    """Statistics of the closed trades. A trade lasts from the open of its entry candle to the close of its exit candle."""
    pnl, entry_t, exit_t = trades.pnl, trades.entry_t, trades.exit_t
    if trades.open.any():
        closed = ~trades.open
        pnl, entry_t, exit_t = pnl[closed], entry_t[closed], exit_t[closed]
    n = len(pnl)
    if n == 0:
        return TradeStats(0, 0, *[None] * 10)
    won, lost = pnl[pnl > 0], pnl[pnl < 0]
    gain, loss = float(np.add.reduce(won)), -float(np.add.reduce(lost))
    hours = (open_time[exit_t] + length_ms - open_time[entry_t]) / 3_600_000
    mean = _mean(pnl)
    return TradeStats(
        closed=n,
        wins=len(won),
        win_rate=len(won) / n,
        profit_factor=_ratio(gain, loss),
        expectancy=mean,
        sqn=_ratio(mean, _deviation(pnl), math.sqrt(n)) if n > 1 else None,
        average_win=gain / len(won) if len(won) else None,
        average_loss=-loss / len(lost) if len(lost) else None,
        best=float(pnl.max()),
        worst=float(pnl.min()),
        average_duration_h=_mean(hours),
        median_duration_h=_median(hours),
    )


def _mean(values: Floats) -> float:
    """`values.mean()` without its checks, which cost more than a short sum."""
    return float(np.add.reduce(values)) / len(values)


def _deviation(values: Floats) -> float:
    """Sample standard deviation (n - 1) of at least two values."""
    apart = values - _mean(values)
    return math.sqrt(float(np.add.reduce(apart * apart)) / (len(values) - 1))


def _median(values: Floats) -> float:
    middle = len(values) // 2
    parted = np.partition(values, [middle - 1, middle]) if len(values) > 1 else values
    return float(parted[middle]) if len(values) % 2 else float(parted[middle - 1] + parted[middle]) / 2


def _ratio(top: float, bottom: float, scale: float = 1.0) -> float | None:
    """top / bottom x scale, or None where the bottom is zero to within rounding (a flat curve has no Sharpe ratio)."""
    if not math.isfinite(top) or not math.isfinite(bottom) or abs(bottom) < 1e-15:
        return None
    return top / bottom * scale
