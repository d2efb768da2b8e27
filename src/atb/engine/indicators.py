"""Indicators with finite memory: each value depends on its own window only, bit for bit, wherever the series starts.

Rolling sums run over whole numbers (`Candles.exact`), where a difference of two prefix sums is the window's exact sum.
Everything is O(n) unless said otherwise; the first `window - 1` values are NaN.
"""

from __future__ import annotations

import numpy as np

from atb.engine.candles import Candles, Floats, Ints

RETURN_UNIT = float(2**25)  # fixed-point unit of log returns: 3e-8
SAFE_WINDOW = 1024  # so many whole numbers of less than 2**53 add up to less than 2**63
LOW_BITS = 31
LARGEST_RETURN = 2.0  # a log return beyond it (a factor of 7) counts as this much, so that its square still fits


def rolling_sum(values: Ints, window: int) -> Ints:
    """Exact sums of `window` whole numbers, int64[n - window + 1].

    The prefix sum may wrap around; the difference is exact as long as the window's own sum fits into 64 bits.
    """
    total = np.cumsum(values, dtype=np.int64)
    sums = total[window - 1 :].copy()
    sums[1:] -= total[:-window]
    return sums


def rounded_sums(values: Ints, window: int) -> Floats:
    """Sums of `window` whole numbers of up to 2**53 (a million of them at most), exact and then rounded once, float64.

    Where a window's sum may not fit into 64 bits, the high and the low bits are summed apart. Either way the result is
    the float next to the exact sum.
    """
    if window <= SAFE_WINDOW:
        return rolling_sum(values, window).astype(np.float64)
    high, low = values >> LOW_BITS, values & ((1 << LOW_BITS) - 1)
    return np.asarray(rolling_sum(high, window) * float(1 << LOW_BITS) + rolling_sum(low, window), dtype=np.float64)


def _padded(values: Floats, window: int, n: int) -> Floats:
    """`values`, preceded by NaN so that there are n."""
    out = np.full(n, np.nan)
    if n >= window:
        out[window - 1 :] = values
    return out


def sma(candles: Candles, window: int, column: str = "close") -> Floats:
    """Simple moving average of a column, in the column's own unit. float64[n]."""
    n = len(candles)
    if n < window:
        return np.full(n, np.nan)
    return _padded(rounded_sums(candles.exact(column), window) / (window * candles.unit(column)), window, n)


def rolling_std(values: Floats, mean: Floats, window: int) -> Floats:
    """Standard deviation (n - 1) of each window around its mean. O(n x window), the additions always in the same order."""
    n = len(values)
    if n < window:
        return np.full(n, np.nan)
    centre = mean[window - 1 :]
    total = np.zeros(n - window + 1)
    for k in range(window):
        total += (values[k : n - window + 1 + k] - centre) ** 2
    return _padded(np.sqrt(total / (window - 1)), window, n)


def rolling_max(values: Floats, window: int) -> Floats:
    """Highest of each window. O(n log window): maxima of doubled spans, two of which cover the window."""
    return _rolling_extreme(values, window, np.maximum)


def rolling_min(values: Floats, window: int) -> Floats:
    """Lowest of each window."""
    return _rolling_extreme(values, window, np.minimum)


def _rolling_extreme(values: Floats, window: int, extreme: np.ufunc) -> Floats:
    n = len(values)
    if n < window:
        return np.full(n, np.nan)
    best, span = values, 1
    while span * 2 <= window:
        best = extreme(best[:-span], best[span:])
        span *= 2
    rest = window - span
    return _padded(extreme(best[: n - window + 1], best[rest : rest + n - window + 1]), window, n)


def log_returns(close: Floats, bars: int = 1) -> Floats:
    """log(close[t] / close[t - bars]), NaN for the first `bars`."""
    out = np.full(len(close), np.nan)
    if len(close) > bars:
        out[bars:] = np.log(close[bars:] / close[:-bars])
    return out


def fixed_returns(close: Floats) -> Ints:
    """One-candle log returns as whole multiples of 1 / RETURN_UNIT, int64[n - 1]."""
    returns = np.log(close[1:] / close[:-1])
    return np.rint(np.clip(returns, -LARGEST_RETURN, LARGEST_RETURN) * RETURN_UNIT).astype(np.int64)


def realized_volatility(close: Floats, window: int) -> Floats:
    """Root mean square of the last `window` one-candle log returns (the mean taken as 0); needs window + 1 candles."""
    n = len(close)
    if n < window + 1:
        return np.full(n, np.nan)
    mean_square = rounded_sums(fixed_returns(close) ** 2, window) / window
    return _padded(np.sqrt(mean_square) / RETURN_UNIT, window + 1, n)


def rsi(candles: Candles, window: int) -> Floats:
    """Cutler's RSI, 0..100: 100 x gains / (gains + losses) over the last `window` changes of the close.

    It differs from Wilder's by averaging plainly, which gives it a finite memory. 50 where nothing moved.
    """
    n = len(candles)
    if n < window + 1:
        return np.full(n, np.nan)
    change = np.diff(candles.exact("close"))
    gains = rounded_sums(np.maximum(change, 0), window)
    moves = rounded_sums(np.abs(change), window)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where(moves == 0, 50.0, 100.0 * gains / moves)
    return _padded(value, window + 1, n)


def true_range(candles: Candles) -> Floats:
    """max(high, previous close) - min(low, previous close) in quote; NaN for the first candle."""
    out = np.full(len(candles), np.nan)
    before = candles.close[:-1]
    out[1:] = np.maximum(candles.high[1:], before) - np.minimum(candles.low[1:], before)
    return out


def atr(candles: Candles, window: int) -> Floats:
    """Average true range as the plain mean of the last `window` true ranges, in quote; needs window + 1 candles."""
    n = len(candles)
    if n < window + 1:
        return np.full(n, np.nan)
    close, high, low = candles.exact("close"), candles.exact("high"), candles.exact("low")
    ranges = np.maximum(high[1:], close[:-1]) - np.minimum(low[1:], close[:-1])
    return _padded(rounded_sums(ranges, window) / (window * candles.unit("close")), window + 1, n)
