"""Are these candles fit to trade on? Faults refuse the data and name the row; gaps are counted and listed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from atb.core.errors import DataError
from atb.core.timeframe import TIMEFRAMES, iso, timeframe_ms
from atb.engine.candles import Candles, Ints

ROWS_BEFORE_DATA = 2  # a file's first candle is line 2, below the header


class Gap(NamedTuple):
    """Missing candles: the open time of the first one and how many."""

    start_ms: int
    missing: int


class Quality(NamedTuple):
    """What is missing or odd in a valid series. `missing_share`: of the candles that the range should have."""

    rows: int
    first_ms: int
    last_ms: int
    gaps: list[Gap]
    missing: int
    missing_share: float
    zero_volume: int


def check_candles(candles: Candles, origin: str) -> None:
    """Refuse (DataError) what is not a series of candles; `origin` names the file or provider in the message.

    Checked: at least one candle; times rising, unique and on the timeframe's grid; every number finite; prices above 0,
    volume not negative; high >= open, close, low and low <= open, close.
    """
    if len(candles) == 0:
        raise DataError(f"{origin} holds no candles.")
    _check_times(candles, origin)
    for name in ("open", "high", "low", "close", "volume"):
        column = getattr(candles, name)
        _refuse(~np.isfinite(column), candles, origin, name, "is not a number")
        if name == "volume":
            _refuse(column < 0, candles, origin, name, "is negative")
        else:
            _refuse(column <= 0, candles, origin, name, "is not above 0")
    highest = np.maximum(candles.open, candles.close)
    lowest = np.minimum(candles.open, candles.close)
    _refuse(candles.high < highest, candles, origin, "high", "is below open or close")
    _refuse(candles.low > lowest, candles, origin, "low", "is above open or close")


def _check_times(candles: Candles, origin: str) -> None:
    step = np.diff(candles.open_time)
    for fault, what in ((step == 0, "repeats the one before it"), (step < 0, "is earlier than the one before it")):
        if fault.any():
            row = int(np.argmax(fault)) + 1
            raise DataError(
                f"{origin}: column open_time, row {row + ROWS_BEFORE_DATA}: {iso(candles.open_time[row])} {what}.",
                "Sort the file by open_time and remove duplicates.",
            )
    length = timeframe_ms(candles.timeframe)
    anchor = candles.open_time[0] % length
    if length <= timeframe_ms("1d"):
        anchor = 0
    off = candles.open_time % length != anchor
    if off.any():
        row = int(np.argmax(off))
        raise DataError(
            f"{origin}: column open_time, row {row + ROWS_BEFORE_DATA}: {iso(candles.open_time[row])} is not on the "
            f"{candles.timeframe} grid.",
            "Check --timeframe; open_time is the open of the candle in UTC.",
        )


def _refuse(fault: npt.NDArray[np.bool_], candles: Candles, origin: str, column: str, what: str) -> None:
    if fault.any():
        row = int(np.argmax(fault))
        value = getattr(candles, column)[row]
        raise DataError(
            f"{origin}: column {column}, row {row + ROWS_BEFORE_DATA} ({iso(candles.open_time[row])}): "
            f"{value:g} {what} ({int(fault.sum())} such rows).",
            "Correct or remove these rows.",
        )


def assess(candles: Candles) -> Quality:
    """Gaps and oddities of a valid series."""
    length = timeframe_ms(candles.timeframe)
    step = np.diff(candles.open_time)
    where = np.flatnonzero(step != length)
    gaps = [Gap(int(candles.open_time[i]) + length, int(step[i]) // length - 1) for i in where if step[i] > length]
    missing = sum(gap.missing for gap in gaps)
    expected = len(candles) + missing
    return Quality(
        rows=len(candles),
        first_ms=int(candles.open_time[0]),
        last_ms=int(candles.open_time[-1]),
        gaps=gaps,
        missing=missing,
        missing_share=missing / expected,
        zero_volume=int(np.count_nonzero(candles.volume == 0)),
    )


def infer_timeframe(open_time: Ints) -> str | None:
    """The timeframe whose length is the commonest step between candles; None if it is none of them."""
    if len(open_time) < 2:
        return None
    steps, counts = np.unique(np.diff(open_time), return_counts=True)
    commonest = int(steps[np.argmax(counts)])
    lengths = {timeframe_ms(name): name for name in TIMEFRAMES if name != "1M"}
    return lengths.get(commonest)
