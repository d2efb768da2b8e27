"""Stored side series beside candles: at which candle a value is there, and that news are seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atb.core.errors import DataError
from atb.core.timeframe import HOUR_MS, MINUTE_MS, timeframe_ms
from atb.data.side_join import SideJoin
from atb.data.side_store import SideKey, SideStore
from atb.engine.candles import Candles
from atb.engine.sides import Side, SideRows
from atb.strategy import side
from atb.venue.simulated_sides import SHAPES, simulated_sides
from tests.conftest import START_MS, random_candles

KEY = SideKey("funding_rate", "binanceusdm", "BTCUSDT")
ASKED = (side("funding_rate"),)


def row(at_ms: int, value: float, delay_ms: int = MINUTE_MS) -> SideRows:
    return SideRows(np.array([at_ms]), np.array([at_ms + delay_ms]), np.array([value]))


@pytest.fixture
def join(tmp_path: Path) -> SideJoin:
    store = SideStore(tmp_path)
    store.add(KEY, row(START_MS, 1.0), None)
    store.add(KEY, row(START_MS + 8 * HOUR_MS, 2.0), None)
    return SideJoin(store)


@pytest.mark.parametrize(("timeframe", "first"), [("1h", 8), ("15m", 32), ("1m", 480), ("4h", 2), ("1d", 0)])
def test_a_value_is_there_from_the_first_close_at_which_it_was_known(
    join: SideJoin, timeframe: str, first: int
) -> None:
    """08:00, known at 08:01: in the hourly candle that opens at 08:00, and not in the one that closes then."""
    column = join((side("funding_rate", max_age="9d"),), random_candles(first + 3, timeframe=timeframe)).side(
        "funding_rate"
    )
    start = -(-MINUTE_MS // timeframe_ms(timeframe)) - 1
    assert column.tolist() == [1.0] * (first - start) + [2.0] * (len(column) - first + start)


def test_a_window_has_what_the_whole_has(join: SideJoin) -> None:
    candles = random_candles(60)
    whole = join(ASKED, candles).side("funding_rate")
    for t in range(5, 60):
        part = join(ASKED, candles.window(t - 5, t + 1)).side("funding_rate")
        assert part.tobytes() == whole[t - 5 : t + 1].tobytes()
    assert np.isnan(whole[8 + 24 :]).all() and not np.isnan(whole[: 8 + 24]).any()  # more than a day old


def test_news_are_seen_and_nothing_is_read_twice(join: SideJoin) -> None:
    candles = random_candles(20)
    assert join(ASKED, candles).side("funding_rate")[-1] == 2.0
    known = join._rows(KEY)
    assert join._rows(KEY) is known
    join.store.add(KEY, row(START_MS + 16 * HOUR_MS, 3.0), None)
    assert join(ASKED, candles).side("funding_rate")[-1] == 3.0


def test_nothing_declared_costs_nothing(tmp_path: Path) -> None:
    candles = random_candles(20)
    assert SideJoin(SideStore(tmp_path / "none"))((), candles) is candles and not (tmp_path / "none").exists()
    with pytest.raises(DataError, match="No side series"):
        SideJoin(SideStore(tmp_path / "none"))(ASKED, candles)


def test_simulated_ones_are_joined_as_real_ones() -> None:
    candles = simulated_sides([Side(name) for name in SHAPES], random_candles(24 * 40), 1)
    for name, shape in SHAPES.items():
        column = candles.side(name)
        changes = np.flatnonzero(np.diff(column)) + 1
        known = (
            candles.open_time[changes] + HOUR_MS - shape.delay_ms
        )  # the time that the newest value is about, at most
        assert set((known % shape.every_ms < HOUR_MS).tolist()) == {True} and not np.isnan(column).any()
        assert len(changes) > 20 and np.all(column >= shape.low) and np.all(column <= shape.high)
    longer = simulated_sides([Side("fear_greed")], random_candles(24 * 60), 1)
    assert longer.side("fear_greed")[: 24 * 40].tolist() == candles.side("fear_greed").tolist()


def test_candles_of_another_symbol(join: SideJoin) -> None:
    bitcoin = (side("funding_rate", symbol="BTCUSDT"),)
    other: Candles = random_candles(20, symbol="BTC-USD")
    assert join(bitcoin, other).side("funding_rate")[-1] == 2.0
    with pytest.raises(DataError, match="for BTC-USD is stored"):
        join(ASKED, other)
