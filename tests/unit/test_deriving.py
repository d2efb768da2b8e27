"""Longer candles from shorter ones: as the exchange makes them, and only where all is known."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from atb.core.errors import UsageError
from atb.data.deriving import derive, resampled
from atb.data.files import load_file
from atb.data.layout import DERIVED, SeriesKey
from atb.data.store import CandleStore
from tests.conftest import START_MS, random_candles, same_candles

HOUR_MS = 3_600_000
KEY = SeriesKey("binance", "spot", "BTCUSDT", "1h")
WHOLE = random_candles(100)


def at(hour: int) -> int:
    return START_MS + hour * HOUR_MS


@pytest.mark.skipif(
    "ATB_TEST_DATA" not in os.environ, reason="ATB_TEST_DATA is not set: real candles were NOT compared"
)
@pytest.mark.parametrize("timeframe", ["4h", "1d"])
def test_they_are_those_of_the_exchange(timeframe: str) -> None:
    folder = Path(os.environ["ATB_TEST_DATA"])
    made = resampled(load_file(folder / "binance_BTCUSDT_1h.parquet", "BTCUSDT", "1h"), timeframe)
    real = load_file(folder / f"binance_BTCUSDT_{timeframe}.parquet", "BTCUSDT", timeframe)
    _, ours, theirs = np.intersect1d(made.open_time, real.open_time, return_indices=True)
    assert len(ours) > 0.99 * len(real)
    for name in ("open", "high", "low", "close"):
        same = getattr(made, name)[ours] == getattr(real, name)[theirs]
        assert same.mean() > 0.995, name  # around its outages an exchange's candles are not always made of each other
    assert np.isclose(made.volume[ours], real.volume[theirs], rtol=1e-6).mean() > 0.99


def test_only_where_all_is_known_and_beside_what_is_there(tmp_path: Path) -> None:
    store, longer = CandleStore(tmp_path), KEY._replace(timeframe="4h")
    store.append(KEY, WHOLE.window(2, 50), at(2), at(50))
    store.append(KEY, WHOLE.take(np.array([60, 61, 63, 64, 65, 66, 67])), at(59), at(68))  # the exchange has no 62
    store.append(longer, resampled(WHOLE, "4h").window(3, 4), at(12), at(16))
    assert derive(store, KEY, "4h") == 11 - 1 + 2
    assert [(p.start_ms, p.end_ms) for p in store.parts(longer) if p.kind == DERIVED] == [
        (at(4), at(12)), (at(16), at(48)), (at(60), at(68)),
    ]  # fmt: skip
    read = store.read(longer, at(4), at(48))
    assert read is not None and same_candles(read, resampled(WHOLE, "4h").window(1, 12))
    assert derive(store, KEY, "4h") == 0


@pytest.mark.parametrize("timeframe", ["1h", "30m", "15m"])
def test_what_cannot_be_made_is_said(tmp_path: Path, timeframe: str) -> None:
    with pytest.raises(UsageError, match="cannot be made of"):
        derive(CandleStore(tmp_path), KEY, timeframe)
