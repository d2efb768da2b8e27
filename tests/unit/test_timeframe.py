"""Timeframe arithmetic and reading dates."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atb.core.errors import UsageError
from atb.core.timeframe import (
    DAY_MS,
    HOUR_MS,
    LATEST_MS,
    TIMEFRAMES,
    ManualClock,
    SystemClock,
    align_down,
    check_timeframe,
    iso,
    iso_date,
    iso_minute,
    parse_time_ms,
    timeframe_ms,
)

FIXED = [name for name in TIMEFRAMES if name != "1M"]
times = st.integers(0, LATEST_MS - 1)


def utc(ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC)


def test_lengths() -> None:
    assert timeframe_ms("1s") == 1000
    assert timeframe_ms("15m") == 15 * 60_000
    assert timeframe_ms("12h") == 12 * HOUR_MS
    assert timeframe_ms("3d") == 3 * DAY_MS
    assert timeframe_ms("1w") == 7 * DAY_MS
    assert [timeframe_ms(name) for name in FIXED] == sorted(timeframe_ms(name) for name in FIXED)


def test_a_month_has_no_length() -> None:
    with pytest.raises(UsageError, match="no fixed length"):
        timeframe_ms("1M")


@pytest.mark.parametrize(("typed", "meant"), [("1hh", "1h"), ("1H", "1h"), ("15", "15m"), ("1D", "1d")])
def test_an_unknown_timeframe_names_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_timeframe(typed)
    assert typed in caught.value.what
    assert meant in caught.value.hint


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("60m", "1h"), ("120m", "2h"), ("240m", "4h"), ("1440m", "1d"), ("24h", "1d"), ("7d", "1w"), ("60s", "1m")],
)
def test_another_spelling_of_a_length_names_the_timeframe(typed: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_timeframe(typed)
    assert caught.value.hint == f"Write {meant}, which is as long."


@given(times, st.sampled_from(FIXED))
def test_align_down_gives_the_candle_that_contains_a_time(time_ms: int, timeframe: str) -> None:
    opened = align_down(time_ms, timeframe)
    assert opened <= time_ms < opened + timeframe_ms(timeframe)
    assert align_down(opened, timeframe) == opened
    assert align_down(opened - 1, timeframe) == opened - timeframe_ms(timeframe)


@given(times)
def test_weeks_open_on_mondays_and_days_at_midnight(time_ms: int) -> None:
    week = utc(align_down(time_ms, "1w"))
    assert (week.weekday(), week.hour, week.minute) == (0, 0, 0)
    assert utc(align_down(time_ms, "1d")).strftime("%H:%M:%S.%f") == "00:00:00.000000"


@given(times)
def test_what_is_written_is_read_back(time_ms: int) -> None:
    assert parse_time_ms(iso(time_ms), "--start") == time_ms
    assert parse_time_ms(iso_minute(time_ms), "--start") == time_ms // 60_000 * 60_000
    assert parse_time_ms(iso_date(time_ms), "--start") == time_ms // DAY_MS * DAY_MS


def test_a_time_without_zone_is_utc_and_a_zone_is_obeyed() -> None:
    noon = parse_time_ms("2024-01-31T12:00", "--start")
    assert iso(noon) == "2024-01-31T12:00:00Z"
    assert parse_time_ms("2024-01-31 14:00+02:00", "--start") == noon
    assert parse_time_ms("2024-01-31T12:00:00Z", "--start") == noon


@pytest.mark.parametrize(
    "text", ["", "nonsense", "2024-13-01", "2024-02-30", "31.01.2024", "yesterday", "0000-01-01", "12:00"]
)
def test_what_is_no_date_is_refused_with_the_flag_and_the_text(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_time_ms(text, "--start")
    assert caught.value.what == f"--start '{text}' is not a date."


@pytest.mark.parametrize("text", ["1969-12-31", "2200-01-01", "9999-12-31T23:59-14:00", "0001-01-01T00:00+14:00"])
def test_a_date_of_another_age_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="1970 to 2199"):
        parse_time_ms(text, "--end")


@given(st.text(max_size=20))
def test_any_text_is_a_date_or_refused(text: str) -> None:
    try:
        assert 0 <= parse_time_ms(text, "--start") < LATEST_MS
    except UsageError as error:
        assert error.exit_code == 2


def test_clocks() -> None:
    clock = ManualClock(5)
    assert clock.now_ms() == 5
    clock.time_ms = 7
    assert clock.now_ms() == 7
    now = dt.datetime.now(dt.UTC).timestamp() * 1000
    assert abs(SystemClock().now_ms() - now) < 5_000
