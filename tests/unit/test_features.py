"""The features: finite memory bit for bit, defined as documented, free of scale, and silent where there is no answer."""

from __future__ import annotations

import math
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from atb.core.timeframe import HOUR_MS
from atb.data.files import load_file
from atb.engine.candles import COLUMNS, Candles
from atb.strategy.features import CHUNK, FEATURES, LOOKBACK, compute_features, feature_rows


def simulated(n: int, seed: int, *, price: float = 30_000.0, digits: int = 2, volatility: float = 0.006) -> Candles:
    """A random walk on a decimal grid, with flat candles, candles of no volume and a few large jumps."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0.0, volatility, n) * (1 + 4 * (rng.random(n) < 0.01))
    steps[rng.random(n) < 0.03] = 0.0
    close = np.round(price * np.exp(np.cumsum(steps)), digits)
    close = np.maximum(close, 10.0**-digits)
    open_ = np.concatenate([close[:1], close[:-1]])
    spread = np.abs(rng.normal(0.0, volatility, n)) * (rng.random(n) > 0.1)
    high = np.round(np.maximum(open_, close) * (1 + spread), digits)
    low = np.maximum(np.round(np.minimum(open_, close) * (1 - spread), digits), 10.0**-digits)
    volume = np.round(rng.lognormal(5.0, 1.5, n), 5) * (rng.random(n) > 0.05)
    start = 1_600_000_000_000 // HOUR_MS * HOUR_MS
    times = start + HOUR_MS * np.arange(n, dtype=np.int64)
    return Candles(
        "TESTUSDT",
        "1h",
        times,
        open_,
        np.maximum(high, np.maximum(open_, close)),
        np.minimum(low, close),
        close,
        volume,
    )


def real(symbol: str) -> Candles:
    folder = os.environ.get("ATB_TEST_DATA")
    if not folder:
        pytest.skip("ATB_TEST_DATA is not set: NOT CHECKED on real candles")
    return load_file(Path(folder) / f"binance_{symbol}_1h.parquet", symbol, "1h")


def assert_finite_memory(candles: Candles, ts: range) -> None:
    """Each row from the whole series is, byte for byte, the last row from the LOOKBACK candles that end with it."""
    whole = compute_features(candles)
    for t in ts:
        alone = compute_features(candles.window(t - LOOKBACK + 1, t + 1))[-1]
        differs = [name for j, name in enumerate(FEATURES) if alone[j].tobytes() != whole[t, j].tobytes()]
        assert not differs, f"candle {t}: {differs} depend on more than {LOOKBACK} candles"


def test_names_shape_and_warm_up() -> None:
    features = compute_features(simulated(400, 1))
    assert features.shape == (400, len(FEATURES))
    assert features.dtype == np.float32
    assert len(set(FEATURES)) == len(FEATURES)
    assert LOOKBACK <= 200
    assert np.isnan(features[: LOOKBACK - 1]).all()
    assert np.isfinite(features[LOOKBACK - 1 :]).all()
    assert np.isnan(compute_features(simulated(LOOKBACK - 1, 1))).all()


@pytest.mark.parametrize("price, digits", [(30_000.0, 2), (0.000_02, 8), (1.0, 4), (2_000_000.0, 0), (7.5, 10)])
@pytest.mark.parametrize("seed", range(3))
def test_finite_memory_on_random_candles(price: float, digits: int, seed: int) -> None:
    assert_finite_memory(simulated(2_000, seed, price=price, digits=digits), range(LOOKBACK - 1, 2_000, 5))


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
def test_finite_memory_on_real_candles(symbol: str) -> None:
    candles = real(symbol)
    assert_finite_memory(candles, range(LOOKBACK - 1, len(candles), 11))


def test_chunks_join_without_a_seam() -> None:
    candles = simulated(CHUNK + 700, 5)
    whole = compute_features(candles)
    for size in (1, 7, 500):
        for start in (LOOKBACK - 1, CHUNK - 3, CHUNK, CHUNK + 1):
            part = feature_rows(candles, start, start + size)
            assert part.tobytes() == whole[start : start + size].tobytes()
    with pytest.raises(ValueError, match="fewer than"):
        feature_rows(candles, LOOKBACK - 2, 300)


def test_the_row_of_a_candle_ignores_later_candles_and_sees_its_own() -> None:
    candles = simulated(600, 7)
    whole = compute_features(candles)
    t = 400
    for factor in (0.3, 3.0):
        later = {name: getattr(candles, name).copy() for name in COLUMNS}
        for column in later.values():
            column[t + 1 :] *= factor
        assert compute_features(candles.replace(**later))[: t + 1].tobytes() == whole[: t + 1].tobytes()
    own = {name: getattr(candles, name).copy() for name in COLUMNS}
    for name in ("high", "close", "volume"):
        own[name][t] *= 1.05
    moved = compute_features(candles.replace(**own))[t] != whole[t]
    clock = [FEATURES.index(name) for name in ("hour_sin", "hour_cos")]
    assert moved[[j for j in range(len(FEATURES)) if j not in clock]].all()


def plain(candles: Candles, t: int) -> dict[str, float]:
    """The features of candle t again, from their definitions, in plain Python."""
    c = [float(x) for x in candles.close[: t + 1]]
    o, h, low = float(candles.open[t]), float(candles.high[t]), float(candles.low[t])
    log = [math.log(x) for x in c]
    returns = [b - a for a, b in pairwise(log)]
    volume = [float(x) for x in candles.volume[: t + 1]]

    def volatility(window: int) -> float:
        return math.sqrt(sum(r * r for r in returns[-window:]) / window)

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    sigma, average = volatility(168), mean(volume[-168:])
    top, bottom = float(candles.high[t - 23 : t + 1].max()), float(candles.low[t - 23 : t + 1].min())
    angle = 2 * math.pi * (int(candles.open_time[t]) // HOUR_MS % 24) / 24
    return {
        **{f"return_{k}": (log[t] - log[t - k]) / (sigma * math.sqrt(k)) for k in (1, 3, 6, 12, 24, 72, 168)},
        "volatility_6_24": math.log(max(volatility(6) / volatility(24), 1 / 64)),
        "volatility_24_168": math.log(max(volatility(24) / sigma, 1 / 64)),
        "channel_24": (2 * c[t] - top - bottom) / (top - bottom) if top > bottom else 0.0,
        "average_24": (log[t] - mean(log[-24:])) / (sigma * math.sqrt(24)),
        "volume_1": math.log1p(volume[t] / average) - math.log(2),
        "volume_24": math.log1p(mean(volume[-24:]) / average) - math.log(2),
        "body": (c[t] - o) / (h - low) if h > low else 0.0,
        "close_in_range": (2 * c[t] - h - low) / (h - low) if h > low else 0.0,
        "hour_sin": math.sin(angle),
        "hour_cos": math.cos(angle),
    }


def test_features_are_what_their_definitions_say() -> None:
    candles = simulated(700, 11)
    whole = compute_features(candles)
    for t in range(LOOKBACK - 1, 700, 13):
        expected = plain(candles, t)
        assert tuple(expected) == FEATURES
        np.testing.assert_allclose(whole[t], list(expected.values()), rtol=1e-4, atol=1e-4, err_msg=f"candle {t}")


@pytest.mark.parametrize("price, volume", [(1e-6, 1.0), (1e6, 1e3), (3.7, 1e-3)])
def test_features_do_not_depend_on_the_units(price: float, volume: float) -> None:
    candles = simulated(500, 13)
    columns = {name: getattr(candles, name) * price for name in ("open", "high", "low", "close")}
    scaled = Candles("TESTUSDT", "1h", candles.open_time, **columns, volume=candles.volume * volume)
    np.testing.assert_allclose(
        compute_features(scaled)[LOOKBACK:], compute_features(candles)[LOOKBACK:], rtol=1e-4, atol=1e-4
    )


def test_no_volume_at_all_is_an_answer() -> None:
    candles = simulated(400, 17)
    silent = compute_features(candles.replace(volume=np.zeros(400)))[LOOKBACK - 1 :]
    assert np.isfinite(silent).all()
    assert (silent[:, FEATURES.index("volume_1")] == np.float32(-math.log(2))).all()


def test_a_market_that_stands_still_has_no_answer() -> None:
    flat = np.full(400, 100.0)
    candles = Candles("TESTUSDT", "1h", HOUR_MS * np.arange(400), flat, flat, flat, flat, np.ones(400))
    assert not np.isfinite(compute_features(candles)).all(axis=1).any()


@pytest.mark.parametrize("column, value", [("close", math.nan), ("low", 0.0), ("high", math.inf), ("volume", math.nan)])
def test_a_broken_candle_silences_its_reach_and_nothing_else(column: str, value: float) -> None:
    candles = simulated(900, 19)
    broken = getattr(candles, column).copy()
    broken[400] = value
    # The scales are given: a number that is none must not change how the others are read.
    candles.window(0, 1)
    after = compute_features(candles.replace(**{column: broken}))
    assert np.isnan(after[400 : 400 + LOOKBACK]).all()
    before = compute_features(candles)
    assert after[:400].tobytes() == before[:400].tobytes()
    assert after[400 + LOOKBACK :].tobytes() == before[400 + LOOKBACK :].tobytes()
