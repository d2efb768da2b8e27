"""What is a series of candles, and what is missing in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atb.core.errors import DataError
from atb.core.timeframe import DAY_MS, LATEST_MS, TIMEFRAMES, timeframe_ms
from atb.data.validation import EARLIEST_MS, Gap, assess, check_candles, infer_timeframe
from atb.engine.candles import COLUMNS, Candles
from tests.conftest import START_MS, random_candles

HOUR_MS = 3_600_000
FIXED = [name for name in TIMEFRAMES if name != "1M"]


def spoilt(column: str, row: int, value: float, count: int = 20) -> Candles:
    candles = random_candles(count)
    array = np.array(getattr(candles, column))
    array[row] = value
    return candles.replace(**{column: array})


def told(candles: Candles, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        check_candles(candles, "here", **options)
    assert caught.value.exit_code == 3
    return caught.value.what


def test_good_candles_pass() -> None:
    for timeframe in FIXED:
        check_candles(random_candles(50, timeframe=timeframe), "here")
    check_candles(random_candles(1), "here")


def test_none_at_all() -> None:
    assert told(random_candles(5).window(0, 0)) == "here holds no candles."


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none(column: str, value: float) -> None:
    text = told(spoilt(column, 7, value))
    assert text.startswith(f"here: column {column}, row 8 (2024-01-01T07:00:00Z): {value:g} is not a number")


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        *((name, value, "is not above 0") for name in COLUMNS[:4] for value in (0.0, -1.0)),
        ("volume", -1.0, "is negative"),
        *((name, 1e19, "is too large") for name in COLUMNS),
        ("high", 1.0, "is below open or close"),
        ("low", 1e9, "is above open or close"),
    ],
)
def test_numbers_that_cannot_be(column: str, value: float, what: str) -> None:
    assert told(spoilt(column, 3, value)).startswith(
        f"here: column {column}, row 4 (2024-01-01T03:00:00Z): {value:g} {what}"
    )


def test_no_volume_is_allowed_and_counted() -> None:
    candles = spoilt("volume", 3, 0.0)
    check_candles(candles, "here")
    assert assess(candles).zero_volume == 1


def test_all_bad_rows_are_counted_and_the_first_is_named() -> None:
    candles = random_candles(10)
    low = np.array(candles.low)
    low[[4, 6, 9]] = -1
    assert "row 5" in told(candles.replace(low=low)) and "(3 such candles)" in told(candles.replace(low=low))


@pytest.mark.parametrize(
    ("row", "shift", "what"),
    [
        (5, -HOUR_MS, "row 6: 2024-01-01T04:00:00Z repeats the one before it"),
        (5, -3 * HOUR_MS, "row 6: 2024-01-01T02:00:00Z is earlier than the one before it"),
        (5, 60_000, "row 6: 2024-01-01T05:01:00Z is not on the 1h grid"),
        (0, EARLIEST_MS - 1 - START_MS, "row 1: 315532799999 ms since 1970 is not in the years 1980 to 2199"),
        (19, LATEST_MS, "is not in the years 1980 to 2199"),
    ],
)
def test_times_that_cannot_be(row: int, shift: int, what: str) -> None:
    candles = random_candles(20)
    times = np.array(candles.open_time)
    times[row] += shift
    text = told(candles.replace(open_time=times))
    assert text.startswith("here: column open_time") and what in text


def test_the_place_is_said_in_the_file_s_own_way() -> None:
    assert "column close, line 9 (" in told(spoilt("close", 7, np.nan), where=lambda index: f"line {index + 2}")


@given(st.sampled_from(FIXED), st.integers(2, 60), st.data())
def test_gaps_are_found_as_a_plain_count_finds_them(timeframe: str, count: int, data: st.DataObject) -> None:
    candles = random_candles(count, timeframe=timeframe)
    dropped = data.draw(st.sets(st.integers(1, count - 2), max_size=count - 2)) if count > 2 else set()
    kept = [i for i in range(count) if i not in dropped]
    part = candles.replace(**{name: getattr(candles, name)[kept] for name in ("open_time", *COLUMNS)})
    quality = assess(part)
    assert quality.missing == len(dropped)
    assert quality.rows == len(kept)
    assert quality.missing_share == len(dropped) / count
    length = timeframe_ms(timeframe)
    named = {
        (gap.start_ms - int(candles.open_time[0])) // length + i for gap in quality.gaps for i in range(gap.missing)
    }
    assert named == dropped
    assert all(
        a.start_ms + a.missing * length < b.start_ms for a, b in zip(quality.gaps, quality.gaps[1:], strict=False)
    )
    check_candles(part, "here")


def test_a_gap_names_its_first_missing_candle() -> None:
    candles = random_candles(10)
    part = candles.replace(**{n: np.delete(getattr(candles, n), [3, 4, 7]) for n in ("open_time", *COLUMNS)})
    assert assess(part).gaps == [Gap(START_MS + 3 * HOUR_MS, 2), Gap(START_MS + 7 * HOUR_MS, 1)]


@given(st.sampled_from(FIXED), st.integers(2, 40))
def test_the_timeframe_is_told_from_the_commonest_step(timeframe: str, count: int) -> None:
    times = START_MS + timeframe_ms(timeframe) * np.arange(count, dtype=np.int64)
    assert infer_timeframe(times) == timeframe
    if count > 8:
        assert infer_timeframe(np.delete(times, [2, 5])) == timeframe


def test_what_tells_no_timeframe() -> None:
    assert infer_timeframe(np.array([START_MS])) is None
    assert infer_timeframe(START_MS + 7 * 60_000 * np.arange(5)) is None
    months = np.array([START_MS + day * DAY_MS for day in (0, 31, 60, 91, 121, 152)])
    assert infer_timeframe(months) is None
