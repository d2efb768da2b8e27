"""Simulated markets that something happens to: seeded, named, together; with the moments of real ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from atb.core.errors import UsageError
from atb.data.files import load_file
from atb.data.validation import assess, check_candles
from atb.engine.candles import Candles, Floats
from atb.venue.scenarios import SCENARIOS, simulate_scenario
from atb.venue.simulated import SIMULATED_START_MS, simulate_candles
from tests.conftest import same_candles

COUNT = 8760
NAMES = ("BTCUSDT", "ETHUSDT")


def made(scenario: str = "normal", correlation: float = 0.0, seed: int = 7, count: int = COUNT) -> list[Candles]:
    return simulate_scenario(
        NAMES, "1h", SIMULATED_START_MS, count, seed, scenario=scenario, correlation=correlation
    )  # fmt: skip


def moves(candles: Candles) -> Floats:
    return np.diff(np.log(candles.close))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_is_a_series_that_the_store_takes_and_the_same_again(scenario: str) -> None:
    for one, again in zip(made(scenario), made(scenario), strict=True):
        check_candles(one, scenario)
        assert same_candles(one, again)
    assert not np.array_equal(made(scenario)[0].close, made(scenario, seed=8)[0].close)


def test_nothing_happens_by_itself() -> None:
    assert same_candles(made()[0], simulate_candles(NAMES[0], "1h", SIMULATED_START_MS, COUNT, 7))


def test_progress_is_that_of_all_symbols() -> None:
    told: list[float] = []
    made_too = simulate_scenario(NAMES, "1h", SIMULATED_START_MS, COUNT, 7, on_progress=told.append)
    assert told == pytest.approx([(i + 1) / 6 for i in range(6)])  # three blocks each
    assert all(same_candles(one, again) for one, again in zip(made(), made_too, strict=True))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_came_before_is_the_same_market(scenario: str) -> None:
    begin = int(COUNT * 0.6)
    assert np.array_equal(made(scenario)[0].close[: begin - 1], made()[0].close[: begin - 1])


def test_a_crash_is_one() -> None:
    normal, crash = made()[0].close, made("crash")[0].close
    begin = int(COUNT * 0.6)
    assert crash[begin + 3] / normal[begin + 3] == pytest.approx(np.exp(-0.45), rel=0.01)
    assert crash[-1] / normal[-1] == pytest.approx(np.exp(-0.225), rel=0.01)


def test_a_flat_market_hardly_moves() -> None:
    flat, normal = moves(made("flat")[0])[-2000:], moves(made()[0])[-2000:]
    assert flat.std() < 0.05 * normal.std()


def test_a_gap_is_missing_candles_and_another_price() -> None:
    gap = made("gap")[0]
    (found,) = assess(gap).gaps
    assert found.missing == 12
    after = int(np.searchsorted(gap.open_time, found.start_ms))
    assert gap.open[after] / gap.close[after - 1] - 1 < -0.05


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_symbols_move_together_as_asked(correlation: float) -> None:
    one, other = made(correlation=correlation)
    assert np.corrcoef(moves(one), moves(other))[0, 1] == pytest.approx(correlation, abs=0.12)


def kurtosis(x: Floats) -> float:
    return float(((x - x.mean()) ** 4).mean() / x.var() ** 2)


def clustering(x: Floats) -> float:
    """How much a large move tells of the next one's size."""
    size = np.abs(x)
    return float(np.corrcoef(size[:-1], size[1:])[0, 1])


@pytest.mark.skipif(
    "ATB_TEST_DATA" not in os.environ, reason="ATB_TEST_DATA is not set: real candles were NOT compared"
)
def test_its_moments_are_of_the_order_of_real_ones() -> None:
    real = load_file(Path(os.environ["ATB_TEST_DATA"]) / "binance_BTCUSDT_1h.parquet", "BTCUSDT", "1h")
    theirs, ours = moves(real), moves(made(count=5 * COUNT)[0])
    assert 0.4 < ours.std() / theirs.std() < 2.5
    assert kurtosis(theirs) > 6 and kurtosis(ours) > 6
    assert clustering(theirs) > 0.15 and clustering(ours) > 0.15
    assert abs(np.corrcoef(ours[:-1], ours[1:])[0, 1]) < 0.1  # the direction tells nothing
    volume = np.corrcoef(np.abs(ours), made(count=5 * COUNT)[0].volume[1:])[0, 1]
    assert volume > 0.2  # large moves come with volume


def test_what_is_none_is_said() -> None:
    with pytest.raises(UsageError, match="There is no scenario 'crush'"):
        made("crush")
    with pytest.raises(UsageError, match="--correlation"):
        made(correlation=1.5)
