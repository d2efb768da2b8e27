"""Are these candles fit to trade on? Faults refuse the data and name the row; gaps are counted and listed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from atb.core.errors import DataError
from atb.core.timeframe import LATEST_MS, TIMEFRAMES, iso, timeframe_ms
from atb.engine.candles import Candles, Ints

EARLIEST_MS = 315_532_800_000  # 1980-01-01: an earlier time is a mistake in its unit, or a row number
LARGEST = 1e18  # of prices and volumes: beyond it sums lose their meaning

Where = Callable[[int], str]  # says where candle i (from 0) stands in its file: "line 6"


def row_number(index: int) -> str:
    """Where a candle stands in what has no lines: rows counted from 1."""
    return f"row {index + 1}"


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


def check_candles(candles: Candles, origin: str, where: Where = row_number) -> None:
    """Refuse (DataError) what is not a series of candles; `origin` names the file or provider in the message.

    Checked: at least one candle; times rising, unique and on the timeframe's grid; every number finite; prices above 0,
    volume not negative; high >= open, close, low and low <= open, close.
    """
    if len(candles) == 0:
        raise DataError(f"{origin} holds no candles.")
    check_order(candles.open_time, origin, where)
    _check_grid(candles, origin, where)
    if _all_good(candles):
        return
    refuse = _Refusal(candles, origin, where)
    for name in ("open", "high", "low", "close", "volume"):
        column = getattr(candles, name)
        refuse(~np.isfinite(column), name, "is not a number")
        if name == "volume":
            refuse(column < 0, name, "is negative")
        else:
            refuse(column <= 0, name, "is not above 0")
        refuse(column > LARGEST, name, "is too large")
    refuse(candles.high < np.maximum(candles.open, candles.close), "high", "is below open or close")
    refuse(candles.low > np.minimum(candles.open, candles.close), "low", "is above open or close")


def _all_good(candles: Candles) -> bool:
    """Whether no number has a fault: each comparison is false for what is not a number, so few of them tell."""
    opened, high, low, close, volume = (getattr(candles, name) for name in ("open", "high", "low", "close", "volume"))
    around = (low <= opened, opened <= high, low <= close, close <= high)
    return bool(
        low.min() > 0 and high.max() <= LARGEST and volume.min() >= 0 and volume.max() <= LARGEST
        and all(each.all() for each in around)
    )  # fmt: skip


def check_order(open_time: Ints, origin: str, where: Where = row_number) -> None:
    """Refuse open times that are not in the years 1980 to 2199, or not rising."""
    if len(open_time) == 0:
        return
    if open_time.min() < EARLIEST_MS or open_time.max() >= LATEST_MS:
        wrong = (open_time < EARLIEST_MS) | (open_time >= LATEST_MS)
        row = int(np.argmax(wrong))
        raise DataError(
            f"{origin}: column open_time, {where(row)}: {open_time[row]} ms since 1970 is not in the years 1980 to 2199.",
            "open_time is the open of the candle in UTC.",
        )
    step = np.diff(open_time)
    if (step > 0).all():
        return
    for fault, what in ((step == 0, "repeats the one before it"), (step < 0, "is earlier than the one before it")):
        if fault.any():
            row = int(np.argmax(fault)) + 1
            raise DataError(
                f"{origin}: column open_time, {where(row)}: {iso(int(open_time[row]))} {what}.",
                "Sort the file by open_time and remove duplicates.",
            )


def _check_grid(candles: Candles, origin: str, where: Where) -> None:
    length = timeframe_ms(candles.timeframe)
    anchor = candles.open_time[0] % length
    if length <= timeframe_ms("1d"):
        anchor = 0
    # A candle that follows another one at its distance is on the grid when that is: few have to be divided.
    after = np.flatnonzero(np.diff(candles.open_time) != length) + 1
    some = np.concatenate([candles.open_time[:1], candles.open_time[after]])
    if (some % length != anchor).any():
        off = candles.open_time % length != anchor
        row = int(np.argmax(off))
        raise DataError(
            f"{origin}: column open_time, {where(row)}: {iso(int(candles.open_time[row]))} is not on the "
            f"{candles.timeframe} grid.",
            "Check the timeframe; open_time is the open of the candle in UTC.",
        )


class _Refusal:
    """Raises for the first candle with a fault."""

    def __init__(self, candles: Candles, origin: str, where: Where) -> None:
        self.candles, self.origin, self.where = candles, origin, where

    def __call__(self, fault: npt.NDArray[np.bool_], column: str, what: str) -> None:
        if not fault.any():
            return
        row, count = int(np.argmax(fault)), int(fault.sum())
        value = getattr(self.candles, column)[row]
        more = f" ({count} such candles)" if count > 1 else ""
        raise DataError(
            f"{self.origin}: column {column}, {self.where(row)} ({iso(int(self.candles.open_time[row]))}): "
            f"{value:g} {what}{more}.",
            "Correct or remove these candles." if count > 1 else "Correct or remove this candle.",
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
    lengths = {timeframe_ms(name): name for name in TIMEFRAMES if name != "1M"}
    return lengths.get(commonest_step(open_time))


def commonest_step(open_time: Ints) -> int:
    """The commonest distance, ms, between candles that follow each other; the shortest of several."""
    steps, counts = np.unique(np.diff(open_time), return_counts=True)
    return int(steps[np.argmax(counts)])
