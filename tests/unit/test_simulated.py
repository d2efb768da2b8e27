"""The market simulator: the same everywhere, longer series begin like shorter ones, and it moves like a market."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atb.core.errors import UsageError
from atb.core.timeframe import timeframe_ms
from atb.data.store import candles_hash
from atb.data.validation import assess, check_candles
from atb.venue.simulated import BLOCK, SIMULATED_START_MS, simulate_candles
from tests.conftest import same_candles

symbols = st.sampled_from(["BTCUSDT", "ETHUSDT", "XRPUSDT", "PEPEUSDT", "A"])


@settings(max_examples=20)
@given(symbols, st.sampled_from(["1m", "1h", "1d", "1w"]), st.integers(1, 6000), st.integers(-(2**63), 2**63))
def test_its_candles_are_candles_without_gaps(symbol: str, timeframe: str, count: int, seed: int) -> None:
    candles = simulate_candles(symbol, timeframe, SIMULATED_START_MS // 604_800_000 * 604_800_000, count, seed)
    assert len(candles) == count
    check_candles(candles, "simulated")
    assert assess(candles).missing == 0
    assert np.array_equal(candles.close, np.round(candles.close, 2))


def test_the_same_question_has_the_same_answer() -> None:
    a, b = (simulate_candles("BTCUSDT", "1h", SIMULATED_START_MS, 300, 7) for _ in range(2))
    assert same_candles(a, b)


def test_its_bits_are_written_down() -> None:
    """The same on every machine and in every version, or a release note says otherwise."""
    candles = simulate_candles("BTCUSDT", "1h", SIMULATED_START_MS, 5000, 7)
    prices = np.concatenate([candles.open, candles.high, candles.low, candles.close])
    assert hashlib.sha256(np.rint(prices * 100).astype(np.int64).tobytes()).hexdigest()[:16] == "6bc281ed9bda534d"


@settings(max_examples=15)
@given(st.integers(1, 3 * BLOCK), st.integers(1, 3 * BLOCK))
def test_a_longer_series_begins_like_a_shorter_one(a: int, b: int) -> None:
    short, long = (simulate_candles("ETHUSDT", "1h", SIMULATED_START_MS, n, 3) for n in sorted((a, b)))
    assert same_candles(long.window(0, len(short)), short)


@pytest.mark.parametrize(
    "other",
    [
        ("BTCUSDT", "1h", 8, 0),
        ("ETHUSDT", "1h", 7, 0),
        ("BTCUSDT", "15m", 7, 0),
        ("BTCUSDT", "1h", 7, timeframe_ms("1h")),
    ],
)
def test_symbol_timeframe_start_and_seed_choose_the_path(other: tuple[str, str, int, int]) -> None:
    symbol, timeframe, seed, later = other
    known = simulate_candles("BTCUSDT", "1h", SIMULATED_START_MS, 100, 7)
    found = simulate_candles(symbol, timeframe, SIMULATED_START_MS + later, 100, seed)
    assert candles_hash(found) != candles_hash(known)
    assert not np.array_equal(np.diff(np.log(found.close)), np.diff(np.log(known.close)))


def test_it_moves_like_a_market() -> None:
    """Fat tails, volatility that clusters, returns that do not."""
    returns = np.diff(np.log(simulate_candles("BTCUSDT", "1h", SIMULATED_START_MS, 60_000, 7).close))
    scaled = (returns - returns.mean()) / returns.std()
    assert float(np.mean(scaled**4)) > 5  # a normal distribution has 3

    def correlation(x: np.ndarray[tuple[int], np.dtype[np.float64]], lag: int) -> float:
        return float(np.corrcoef(x[:-lag], x[lag:])[0, 1])

    assert correlation(np.abs(scaled), 1) > 0.1
    assert correlation(np.abs(scaled), 24) > 0.05
    assert abs(correlation(scaled, 1)) < 0.03
    annual = float(returns.std() * np.sqrt(365 * 24))
    assert 0.3 < annual < 1.5


def test_prices_begin_where_they_are_expected() -> None:
    assert simulate_candles("BTCUSDT", "1h", SIMULATED_START_MS, 1, 7).open[0] == 60_000
    assert 10 <= simulate_candles("NEWUSDT", "1h", SIMULATED_START_MS, 1, 7).open[0] <= 4_000


def test_a_month_has_no_length() -> None:
    with pytest.raises(UsageError, match="no fixed length"):
        simulate_candles("BTCUSDT", "1M", SIMULATED_START_MS, 10, 7)


def test_progress_is_told_block_by_block() -> None:
    shares: list[float] = []
    simulate_candles("BTCUSDT", "1m", 0, 3 * BLOCK, 7, shares.append)
    assert shares == pytest.approx([1 / 3, 2 / 3, 1.0])
