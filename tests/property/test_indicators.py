"""Indicators: the same bits from a window as from the whole series, and the values of their plain definitions."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atb.engine import indicators
from atb.engine.candles import Candles, Floats
from atb.engine.indicators import (
    LARGEST_RETURN,
    RETURN_UNIT,
    atr,
    fixed_returns,
    log_returns,
    realized_volatility,
    rolling_max,
    rolling_min,
    rolling_std,
    rolling_sum,
    rounded_sums,
    rsi,
    sma,
    true_range,
)
from tests.conftest import START_MS

HOUR_MS = 3_600_000
QUANTUM = 0.5 / RETURN_UNIT  # what a fixed-point log return may be off by


class Indicator(NamedTuple):
    """A function of candles and a window, and how many candles its last value depends on."""

    compute: Callable[[Candles, int], Floats]
    lookback: Callable[[int], int]


def whole_returns(candles: Candles, window: int) -> Floats:
    return np.append(np.nan, fixed_returns(candles.close).astype(float)) if len(candles) else np.empty(0)


INDICATORS = {
    "sma": Indicator(sma, lambda w: w),
    "sma_volume": Indicator(lambda c, w: sma(c, w, "volume"), lambda w: w),
    "rolling_std": Indicator(lambda c, w: rolling_std(c.close, sma(c, w), w), lambda w: w),
    "rolling_max": Indicator(lambda c, w: rolling_max(c.high, w), lambda w: w),
    "rolling_min": Indicator(lambda c, w: rolling_min(c.low, w), lambda w: w),
    "log_returns": Indicator(lambda c, w: log_returns(c.close, w), lambda w: w + 1),
    "fixed_returns": Indicator(whole_returns, lambda w: 2),
    "realized_volatility": Indicator(lambda c, w: realized_volatility(c.close, w), lambda w: w + 1),
    "rsi": Indicator(rsi, lambda w: w + 1),
    "true_range": Indicator(lambda c, w: true_range(c), lambda w: 2),
    "atr": Indicator(atr, lambda w: w + 1),
}
SUMS = ("rolling_sum", "rounded_sums")  # functions of whole numbers, tested apart


def made(count: int, seed: int, price: float, volatility: float, digits: int | None, still: float = 0.0) -> Candles:
    """A random walk. `digits`: significant digits of all prices, None for all that a float has; `still`: share of
    candles without trades."""
    random = np.random.default_rng(seed)
    moves = np.where(random.random(count) < still, 0.0, random.normal(0.0, volatility, count))
    close = price * np.exp(np.clip(np.cumsum(moves), -3.0, 3.0))
    open_ = np.append(price, close[:-1])[:count]
    wicks = np.exp(np.abs(random.normal(0.0, volatility, (2, count))) * (moves != 0.0))
    prices = np.stack([open_, np.maximum(open_, close) * wicks[0], np.minimum(open_, close) / wicks[1], close])
    if digits is not None:
        places = digits - 1 - int(np.floor(np.log10(price)))
        prices = np.maximum(np.round(prices, places), 10.0**-places)
    volume = np.where(moves == 0.0, 0.0, np.round(random.lognormal(3.0, 2.0, count), 3))
    times = START_MS + HOUR_MS * np.arange(count, dtype=np.int64)
    return Candles("BTCUSDT", "1h", times, prices[0], prices[1], prices[2], prices[3], volume)


@st.composite
def series(draw: st.DrawFn) -> Candles:
    """Candles of many lengths, price levels, volatilities and precisions; some stand still at times."""
    return made(
        draw(st.integers(0, 400)),
        draw(st.integers(0, 2**32 - 1)),
        10.0 ** draw(st.floats(-6.0, 6.0)),
        draw(st.sampled_from([1e-6, 1e-4, 0.01, 0.1])),
        draw(st.sampled_from([None, 2, 4, 6])),
        draw(st.sampled_from([0.0, 0.3, 0.95])),
    )


def bits(values: Floats) -> list[int]:
    return list(np.asarray(values, dtype=np.float64).view(np.int64))


@pytest.mark.parametrize("name", INDICATORS)
@settings(max_examples=150)
@given(candles=series(), window=st.integers(2, 90), seed=st.integers(0, 2**32 - 1))
def test_a_window_gives_the_bits_of_the_whole_series(name: str, candles: Candles, window: int, seed: int) -> None:
    compute, lookback = INDICATORS[name].compute, INDICATORS[name].lookback(window)
    whole = compute(candles, window)
    assert len(whole) == len(candles)
    assert np.isnan(whole[: lookback - 1]).all() and not np.isnan(whole[lookback - 1 :]).any()
    random = np.random.default_rng(seed)
    for _ in range(8 if len(candles) >= lookback else 0):
        t = int(random.integers(lookback - 1, len(candles)))
        start, stop = int(random.integers(0, t - lookback + 2)), int(random.integers(t + 1, len(candles) + 1))
        alone = compute(candles.window(t - lookback + 1, t + 1), window)
        part = compute(candles.window(start, stop), window)
        assert bits(alone[-1:]) == bits(whole[t : t + 1])
        assert bits(part[lookback - 1 :]) == bits(whole[start + lookback - 1 : stop])


def test_every_indicator_is_tested() -> None:
    public = {
        n for n, f in vars(indicators).items() if callable(f) and getattr(f, "__module__", "") == indicators.__name__
    }
    assert {n for n in public if not n.startswith("_")} == {*INDICATORS, *SUMS} - {"sma_volume"}


def close_to(found: Floats, expected: Floats, scale: Floats | float, unit: float = 0.0) -> None:
    """Equal to 1e-9 of `scale`, and to `unit`, the rounding of prices that have no short decimal form."""
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    known = ~np.isnan(expected)
    assert (np.abs(found - expected) <= 1e-9 * np.abs(scale) + unit)[known].all()


def windows(values: Floats, window: int) -> Floats:
    """float64[n - window + 1, window]."""
    if len(values) < window:
        return np.empty((0, window))
    return np.lib.stride_tricks.sliding_window_view(values, window)


def padded(values: Floats, n: int) -> Floats:
    return np.concatenate([np.full(n - len(values), np.nan), values])


@settings(max_examples=300)
@given(candles=series(), window=st.integers(2, 90))
def test_averages_and_deviations_are_those_of_pandas_and_numpy(candles: Candles, window: int) -> None:
    n, unit = len(candles), 0.51 / candles.unit("close")
    mean = sma(candles, window)
    close_to(mean, pd.Series(candles.close, dtype=float).rolling(window).mean().to_numpy(), candles.close, unit)
    volumes = padded(windows(candles.volume, window).mean(axis=1), n)
    close_to(sma(candles, window, "volume"), volumes, candles.volume.max(initial=0.0))
    deviation = padded(windows(candles.close, window).std(axis=1, ddof=1), n)
    close_to(rolling_std(candles.close, mean, window), deviation, candles.close, 2 * unit)


@settings(max_examples=200)
@given(candles=series(), window=st.integers(1, 90))
def test_extremes_are_those_of_the_window(candles: Candles, window: int) -> None:
    n = len(candles)
    highest, lowest = windows(candles.high, window).max(axis=1), windows(candles.low, window).min(axis=1)
    np.testing.assert_array_equal(rolling_max(candles.high, window), padded(highest, n))
    np.testing.assert_array_equal(rolling_min(candles.low, window), padded(lowest, n))


@settings(max_examples=200)
@given(candles=series(), window=st.integers(1, 90))
def test_returns_and_volatility_are_those_of_the_logarithm(candles: Candles, window: int) -> None:
    n = len(candles)
    logs = np.log(candles.close)
    close_to(log_returns(candles.close, window), padded((logs[window:] - logs[:-window])[: max(0, n - window)], n), 6.0)
    changes = np.clip(np.diff(logs), -LARGEST_RETURN, LARGEST_RETURN)
    close_to(fixed_returns(candles.close) / RETURN_UNIT, changes, 6.0, QUANTUM)
    rms = np.sqrt((windows(changes, window) ** 2).mean(axis=1)) if n > window else np.empty(0)
    close_to(realized_volatility(candles.close, window), padded(rms, n), 6.0, QUANTUM)


@settings(max_examples=200)
@given(candles=series(), window=st.integers(1, 90))
def test_rsi_and_atr_are_those_of_plain_loops(candles: Candles, window: int) -> None:
    n, unit = len(candles), candles.unit("close")
    whole = candles.exact("close").tolist()
    strength, ranges = np.full(n, np.nan), np.full(n, np.nan)
    true = true_range(candles)
    for t in range(window, n):
        changes = [whole[i] - whole[i - 1] for i in range(t - window + 1, t + 1)]
        moved = sum(abs(change) for change in changes)
        strength[t] = 100.0 * sum(change for change in changes if change > 0) / moved if moved else 50.0
        ranges[t] = sum(
            max(candles.high[i], candles.close[i - 1]) - min(candles.low[i], candles.close[i - 1])
            for i in range(t - window + 1, t + 1)
        ) / window  # fmt: skip
    close_to(rsi(candles, window), strength, 100.0)
    close_to(atr(candles, window), ranges, candles.high.max(initial=0.0), 1.1 / unit)
    expected = [candles.high[i] - candles.low[i] for i in range(n)]
    assert all(true[i] >= expected[i] for i in range(1, n))


@settings(max_examples=100)
@given(
    values=st.lists(st.integers(1 - 2**53, 2**53 - 1), min_size=1, max_size=60),
    window=st.sampled_from([1, 7, 1024, 1025, 3000]),
)
def test_sums_are_exact_and_rounded_once(values: list[int], window: int) -> None:
    array = np.resize(np.array(values, dtype=np.int64), window + 5)
    exact = [sum(array[i : i + window].tolist()) for i in range(6)]
    assert rounded_sums(array, window).tolist() == [float(total) for total in exact]
    if all(abs(total) < 2**63 for total in exact):
        assert rolling_sum(array, window).tolist() == exact


@pytest.mark.parametrize("window", [1000, 1024, 1025, 2000, 5000])
@pytest.mark.parametrize("price", [1e-6, 3.0, 899_999.0, 8.9e6])
def test_long_windows_over_long_numbers_do_not_overflow(window: int, price: float) -> None:
    """A price with all the digits of a float is a whole number of up to 2**53: a thousand of them pass 2**63."""
    candles = made(6_000, 5, price, 1e-4, None)
    means = windows(candles.close, window).mean(axis=1)
    close_to(sma(candles, window), padded(means, 6_000), price, 0.51 / candles.unit("close"))
    assert (atr(candles, window)[window:] > 0).all()
    for name in ("sma", "sma_volume", "rsi", "atr", "realized_volatility"):
        compute, lookback = INDICATORS[name].compute, INDICATORS[name].lookback(window)
        part = candles.window(17, 17 + lookback)
        assert bits(compute(part, window)[-1:]) == bits(compute(candles, window)[16 + lookback : 17 + lookback])


def test_absurd_moves_do_not_overflow_either() -> None:
    close = np.where(np.arange(6_000) % 2, 1.0, 1e6)
    assert realized_volatility(close, 5_000)[-1] == LARGEST_RETURN


CHECK_LOG = """
import numpy as np
random = np.random.default_rng(3)
values = np.exp(random.normal(0.0, 3.0, 5_000))
for f in (np.log, np.sqrt):
    whole = f(values)
    for _ in range(300):
        start = int(random.integers(0, 5_000))
        stop = int(random.integers(start + 1, 5_001))
        for part in (values[start:stop], values[start:stop].copy()):
            assert f(part).tobytes() == whole[start:stop].tobytes(), (f, start, stop)
        assert f(values[start:stop:3]).tobytes() == whole[start:stop:3].tobytes(), (f, start, stop, "every third")
        assert f(values[start]) == whole[start], (f, start, "alone")
"""


@pytest.mark.parametrize(
    "without", ["", "AVX512F AVX512_SKX AVX512_ICL AVX512_SPR X86_V4", "X86_V4 X86_V3 AVX512_ICL AVX512_SPR AVX2 FMA3"]
)
def test_numpy_computes_a_number_alike_wherever_it_lies(without: str) -> None:
    """Vector units take a block's remainder another way; with and without them the bits must not depend on the place."""
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": without}
    code = [sys.executable, "-W", "ignore", "-c", CHECK_LOG]
    done = subprocess.run(code, env=environment, capture_output=True, text=True, check=False)
    if without and "NPY_DISABLE_CPU_FEATURES" in done.stderr:
        pytest.skip("this numpy cannot switch its vector units off")
    assert done.returncode == 0, done.stderr
