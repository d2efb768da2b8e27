"""Timeframe arithmetic in UTC milliseconds, and reading dates."""

from __future__ import annotations

import datetime as dt
from typing import Protocol

from atb.core.errors import UsageError, nearest

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

_UNIT_MS = {"s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS}

TIMEFRAMES = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")  # fmt: skip
WEEK_ANCHOR_MS = 4 * DAY_MS  # 1970-01-05, a Monday: weeks open on Mondays
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
LATEST_MS = 7_258_118_400_000  # 2200-01-01: a later time is a mistake in its unit or its digits


def check_timeframe(timeframe: str) -> str:
    """`timeframe` itself if it is known, else a UsageError with the nearest names."""
    if timeframe not in TIMEFRAMES:
        same = _of_the_same_length(timeframe)
        hint = f"Write {same}, which is as long." if same else nearest(timeframe, list(TIMEFRAMES))
        raise UsageError(f"Unknown timeframe '{timeframe}'.", hint)
    return timeframe


def _of_the_same_length(text: str) -> str:
    """1h for 60m; empty where no timeframe is as long."""
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and len(number) < 9 and unit in _UNIT_MS):
        return ""
    length = int(number) * _UNIT_MS[unit]
    return next((name for name in TIMEFRAMES if name != "1M" and timeframe_ms(name) == length), "")


def timeframe_ms(timeframe: str) -> int:
    """Length of a candle in ms. A month has no fixed length: a UsageError (use `next_open`)."""
    check_timeframe(timeframe)
    if timeframe == "1M":
        raise UsageError("The timeframe 1M has no fixed length.", "Use 1w or 1d.")
    return int(timeframe[:-1]) * _UNIT_MS[timeframe[-1]]


def align_down(time_ms: int, timeframe: str) -> int:
    """The open time of the candle that contains `time_ms`."""
    length = timeframe_ms(timeframe)
    anchor = WEEK_ANCHOR_MS if timeframe == "1w" else 0
    return (time_ms - anchor) // length * length + anchor


def parse_time_ms(text: str, option: str) -> int:
    """An ISO date or time (UTC unless it says otherwise) as ms; `option` names the flag in the error."""
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} '{text}' is not a date.", "Write 2024-01-31 or 2024-01-31T12:00.") from None
    if at.tzinfo is None:
        at = at.replace(tzinfo=dt.UTC)
    time_ms = round(at.timestamp() * 1000)
    if not 0 <= time_ms < LATEST_MS:
        raise UsageError(f"{option} '{text}' is not in the years 1970 to 2199.")
    return time_ms


def parse_duration_ms(text: str, what: str) -> int:
    """`90s`, `5m`, `8h`, `1d`, `2w` as ms; `what` names it in the error."""
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and len(number) < 7 and unit in _UNIT_MS):
        raise UsageError(f"{what} '{text}' is no length of time.", "Write 90s, 5m, 8h, 1d or 2w.")
    return int(number) * _UNIT_MS[unit]


def moment(time_ms: int) -> dt.datetime:
    """An aware time in UTC from milliseconds since 1970."""
    return EPOCH + dt.timedelta(milliseconds=time_ms)


def in_ms(at: dt.datetime) -> int:
    """Milliseconds since 1970 of an aware time."""
    return (at - EPOCH) // dt.timedelta(milliseconds=1)


def iso(time_ms: int) -> str:
    """`2024-01-31T12:00:00Z`."""
    return (dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=int(time_ms))).isoformat() + "Z"


def iso_second(time_ms: int) -> str:
    """`2024-01-31T12:00:00Z`, without what is less than a second."""
    return iso(time_ms // SECOND_MS * SECOND_MS)


def iso_minute(time_ms: int) -> str:
    """`2024-01-31 12:00`, for people."""
    return (dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=int(time_ms))).strftime("%Y-%m-%d %H:%M")


def iso_date(time_ms: int) -> str:
    """`2024-01-31`."""
    return (dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=int(time_ms))).strftime("%Y-%m-%d")


class Clock(Protocol):
    """Where 'now' comes from; a backtest has none."""

    def now_ms(self) -> int: ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return round(dt.datetime.now(dt.UTC).timestamp() * 1000)


class ManualClock:
    """A clock that stands where it was put."""

    def __init__(self, time_ms: int) -> None:
        self.time_ms = time_ms

    def now_ms(self) -> int:
        return self.time_ms
