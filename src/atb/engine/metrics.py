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
BLOCK, LONG_BLOCK = 4096, 65_536  # rows looked at together: what fits into the processor's caches


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
    last = _last_of_day(curve.open_time)
    day = curve.open_time[last] // DAY_MS
    equity = curve.equity[last]
    if day[-1] - day[0] + 1 == len(day):
        return day, equity
    days = np.arange(day[0], day[-1] + 1)
    return days, equity[np.searchsorted(day, days, side="right") - 1]


def _last_of_day(open_time: Ints) -> Ints:
    """Rows that are the last of their UTC day. Costs a look or a search a day, not a division a candle."""
    first, last = int(open_time[0]) // DAY_MS, int(open_time[-1]) // DAY_MS
    if last - first + 1 >= len(open_time):  # candles of a day or longer
        return np.flatnonzero(np.append(np.diff(open_time // DAY_MS) != 0, True))
    next_midnight = np.arange(first + 1, last + 2) * DAY_MS
    rows = _rows_before(open_time, next_midnight)
    return np.asarray(rows[np.append(True, np.diff(rows) != 0)])


def _rows_before(open_time: Ints, times: Ints) -> Ints:
    """The last row that opens before each of `times`: looked up where the candles have no gap, searched for otherwise.

    `times` ascend; all but the last are within the candles, the last is after them.
    """
    length = int(open_time[1] - open_time[0])
    rows = np.minimum((times - open_time[0] - 1) // length, len(open_time) - 2)
    rows[-1] = len(open_time) - 1
    inner = rows[:-1]
    if bool(np.all(open_time[inner] < times[:-1])) and bool(np.all(open_time[inner + 1] >= times[:-1])):
        return np.asarray(rows)
    return np.asarray(np.searchsorted(open_time, times) - 1)


def daily_returns(curve: Curve) -> Floats:
    """Fractional returns of each UTC day."""
    equity = daily_equity(curve)[1]
    before = np.concatenate([[curve.initial_balance], equity[:-1]])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(equity / before - 1.0)


def sharpe(returns: Floats) -> float | None:
    """mean / standard deviation (n - 1) x sqrt(365)."""
    if len(returns) < 2:
        return None
    deviation = float(np.std(returns, ddof=1))
    return _ratio(float(np.mean(returns)), deviation, math.sqrt(DAYS_A_YEAR))


def sortino(returns: Floats) -> float | None:
    """mean / sqrt(sum(min(r, 0)^2) / n) x sqrt(365)."""
    if len(returns) < 2:
        return None
    downside = math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2)))
    return _ratio(float(np.mean(returns)), downside, math.sqrt(DAYS_A_YEAR))


def volatility(returns: Floats) -> float | None:
    """Standard deviation of daily returns x sqrt(365)."""
    if len(returns) < 2:
        return None
    return float(np.std(returns, ddof=1)) * math.sqrt(DAYS_A_YEAR)


def cagr(start: float, end: float, days: float) -> float | None:
    """(end / start)^(365 / days) - 1; None under 30 days, where it would only magnify noise."""
    if days < SHORTEST_FOR_CAGR or end <= 0 or start <= 0:
        return None
    return float((end / start) ** (DAYS_A_YEAR / days) - 1.0)


def max_drawdown(curve: Curve) -> Drawdown:
    """The deepest fall of equity from its highest value so far (the initial balance counts as the first)."""
    equity = curve.equity
    trough, ratio, peak = _deepest_fall(equity, curve.initial_balance)
    close = curve.open_time[0] + curve.length_ms
    end_ms = int(curve.open_time[-1]) + curve.length_ms
    depth = 1.0 - ratio
    if depth <= 0.0:
        return Drawdown(0.0, int(close), int(close), int(close), end_ms)
    back = _first_at_least(equity[trough::-1], peak)
    peak_ms = int(curve.open_time[0]) if back is None else int(curve.open_time[trough - back]) + curve.length_ms
    forth = _first_at_least(equity[trough:], peak)
    recovered_ms = None if forth is None else int(curve.open_time[trough + forth]) + curve.length_ms
    return Drawdown(depth, peak_ms, int(curve.open_time[trough]) + curve.length_ms, recovered_ms, end_ms)


def _deepest_fall(equity: Floats, initial_balance: float) -> tuple[int, float, float]:
    """The first row at which equity is the smallest share of its peak so far, that share, and that peak.

    No row of a block is below the block's lowest equity over its highest peak: blocks are looked into row by row in
    the order of that bound, until it promises nothing deeper. For most curves these are a few.
    """
    starts = np.arange(0, len(equity), BLOCK)
    low = np.minimum.reduceat(equity, starts)
    peak = np.maximum(np.maximum.accumulate(np.maximum.reduceat(equity, starts)), initial_balance)
    peak_before = np.concatenate([[initial_balance], peak[:-1]])
    bound = low / np.where(low < 0.0, peak_before, peak)
    deepest = (math.inf, 0, initial_balance)
    for block in np.argsort(bound, kind="stable").tolist():
        start = block * BLOCK
        if (bound[block], start) > deepest[:2]:
            break
        part = equity[start : start + BLOCK]
        peaks = np.maximum(np.maximum.accumulate(part), peak_before[block])
        ratio = part / peaks
        row = int(np.argmin(ratio))
        deepest = min(deepest, (float(ratio[row]), start + row, float(peaks[row])))
    return deepest[1], deepest[0], deepest[2]


def _first_at_least(values: Floats, level: float) -> int | None:
    for start in range(0, len(values), LONG_BLOCK):
        reached = values[start : start + LONG_BLOCK] >= level
        if bool(reached.any()):
            return start + int(np.argmax(reached))
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
    closed = np.flatnonzero(~trades.open)
    pnl = trades.pnl[closed]
    n = len(pnl)
    if n == 0:
        return TradeStats(0, 0, *[None] * 10)
    won, lost = pnl[pnl > 0], pnl[pnl < 0]
    gross_loss = -float(lost.sum())
    hours = (open_time[trades.exit_t[closed]] + length_ms - open_time[trades.entry_t[closed]]) / 3_600_000
    mean = float(pnl.mean())
    deviation = float(np.std(pnl, ddof=1)) if n > 1 else 0.0
    return TradeStats(
        closed=n,
        wins=len(won),
        win_rate=len(won) / n,
        profit_factor=_ratio(float(won.sum()), gross_loss),
        expectancy=mean,
        sqn=_ratio(mean, deviation, math.sqrt(n)),
        average_win=float(won.mean()) if len(won) else None,
        average_loss=float(lost.mean()) if len(lost) else None,
        best=float(pnl.max()),
        worst=float(pnl.min()),
        average_duration_h=float(hours.mean()),
        median_duration_h=float(np.median(hours)),
    )


def _ratio(top: float, bottom: float, scale: float = 1.0) -> float | None:
    """top / bottom x scale, or None where the bottom is zero to within rounding (a flat curve has no Sharpe ratio)."""
    if not math.isfinite(top) or not math.isfinite(bottom) or abs(bottom) < 1e-15:
        return None
    return top / bottom * scale
