"""What a report of a series says: on real candles, and on candles with known faults."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from atb.data.corrections import record
from atb.data.exporting import csv_lines, write_candles
from atb.data.files import load_file
from atb.data.layout import SeriesKey
from atb.data.quality import BLOCK, Report, outliers, report
from atb.data.store import CandleStore
from atb.engine.candles import Candles
from tests.conftest import START_MS, random_candles, same_candles

HOUR_MS = 3_600_000
KEY = SeriesKey("binance", "spot", "BTCUSDT", "1h")
OTHER = SeriesKey("coinbase", "spot", "BTC-USD", "1h")
WHOLE = random_candles(1200)


def at(hour: int) -> int:
    return START_MS + hour * HOUR_MS


def told(store: CandleStore, *others: SeriesKey) -> Report:
    found = report(store, KEY, list(others))
    assert found is not None
    return found


def spiked(candles: Candles, hour: int, times: float) -> Candles:
    high = candles.high.copy()
    high[hour] *= times
    return candles.replace(high=high)


def test_nothing_is_stored(tmp_path: Path) -> None:
    assert report(CandleStore(tmp_path), KEY, []) is None


def test_gaps_of_the_exchange_are_told_apart_from_what_nobody_asked_for(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    keep = [h for h in range(400) if h not in (50, 51, 52)]
    store.append(KEY, WHOLE.take(np.array(keep)), at(0), at(410))  # it has nothing from 400 to 410
    store.append(KEY, WHOLE.window(450, 600), at(450), at(600))
    store.append(KEY, WHOLE.window(590, 700), at(590), at(700))
    found = told(store)
    assert [(gap.start_ms, gap.missing) for gap in found.gaps] == [(at(50), 3), (at(400), 10)]
    assert found.not_fetched == [(at(410), at(450))] and found.not_fetched_candles == 40
    assert (found.rows, found.missing, found.repeated) == (397 + 250, 13, 10)
    assert found.completeness == pytest.approx(647 / 700)


def test_a_spike_and_a_correction_are_told(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    store.append(KEY, spiked(WHOLE, 900, 1.5), at(0), at(1200))
    record(store, KEY, WHOLE.window(3, 4), WHOLE.window(3, 4).replace(close=WHOLE.close[3:4] * 2), at(2000))
    found = told(store)
    assert [(o.open_ms, o.what) for o in found.largest][:1] == [(at(900), "upper wick")] and found.outliers >= 1
    assert len(found.corrections) == 1 and "close" in found.corrections[0].changed


def test_two_exchanges_are_compared(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    store.append(KEY, WHOLE, at(0), at(1200))
    dearer = {name: getattr(WHOLE, name)[100:1100] * 1.001 for name in ("open", "high", "low", "close")}
    store.append(OTHER, WHOLE.window(100, 1100).replace(**dearer), at(100), at(1100))
    (d,) = told(store, OTHER, OTHER._replace(symbol="ETH-USD")).others
    assert (d.venue, d.candles) == ("coinbase", 1000) and d.median_bps == pytest.approx(9.995, abs=0.01)
    assert d.correlation > 0.99


def test_a_short_series_and_one_that_stands_still_have_no_outliers() -> None:
    assert outliers(WHOLE.window(0, BLOCK)) == []
    still = np.full(1000, 5.0)
    times = START_MS + HOUR_MS * np.arange(1000)
    assert outliers(Candles("X", "1h", times, still, still, still, still, still)) == []


@pytest.mark.skipif(
    "ATB_TEST_DATA" not in os.environ, reason="ATB_TEST_DATA is not set: real candles were NOT looked at"
)
def test_real_candles_of_two_exchanges(tmp_path: Path) -> None:
    data, store = Path(os.environ["ATB_TEST_DATA"]), CandleStore(tmp_path)
    for key, name in ((KEY, "binance_BTCUSDT_1h.parquet"), (OTHER, "coinbase_BTCUSD_1h.parquet")):
        candles = load_file(data / name, key.symbol, "1h")
        store.append(key, candles, int(candles.open_time[0]), int(candles.open_time[-1]) + HOUR_MS)
    found = told(store, OTHER)
    assert found.rows == 68_868 and found.missing > 50 and found.not_fetched == [] and 0 < found.outliers < 700
    (d,) = found.others
    assert d.candles > 10_000 and d.median_bps < 20 and d.correlation > 0.98


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_is_exported_is_imported_again_bit_for_bit(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"out.{kind}"
    write_candles(WHOLE, path, kind)
    assert same_candles(load_file(path, WHOLE.symbol, "1h"), WHOLE)
    assert len(list(csv_lines(WHOLE))) == len(WHOLE) + 1
