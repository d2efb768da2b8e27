"""Planted strategies that depend on more than their lookback, or on where the series starts."""

from __future__ import annotations

from typing import Any

import numpy as np

from atb.engine.candles import Candles
from atb.strategy import to_pandas
from tests.unit.leaks.base import Planted, mean_of, shifted, trend


class MemoryLeak(Planted):
    kind = "memory"


class ShortByOne(MemoryLeak):
    """Reads 21 candles and declares 20; with 20 it makes do with what there is."""

    def view(self, candles: Candles) -> Any:
        return np.sign(candles.close - to_pandas(candles)["close"].rolling(21, min_periods=1).mean())


class ShortByOneNan(MemoryLeak):
    """The same without making do: it has no signal from its lookback alone."""

    silent_at_times = True

    def signals(self, candles: Candles) -> Any:
        return np.where(np.arange(len(candles)) < 19, np.nan, np.sign(candles.close - shifted(candles.close, 20)))


class ShortByOneRarely(MemoryLeak):
    """Reads one candle too many, and only if that one moved by 3 %."""

    def view(self, candles: Candles) -> Any:
        moved = np.abs(shifted(candles.close / candles.open - 1.0, 20)) > 0.03
        return np.where(moved, 0.25, np.sign(trend(candles, 20)))


class ShortByMuch(MemoryLeak):
    """An average of 300 candles with a lookback of 30."""

    bars = 30

    def view(self, candles: Candles) -> Any:
        return np.sign(candles.close - to_pandas(candles)["close"].rolling(300, min_periods=1).mean())


class FarPast(MemoryLeak):
    """Compares with the close of 400 candles ago."""

    def view(self, candles: Candles) -> Any:
        return np.where(candles.close > shifted(candles.close, 400), 1.0, 0.0)


class ShortEma(MemoryLeak):
    """An exponential average of span 20, with a lookback of 20."""

    def view(self, candles: Candles) -> Any:
        return np.sign(candles.close - to_pandas(candles)["close"].ewm(span=20, adjust=False).mean())


class ShortWilder(MemoryLeak):
    """Wilder's RSI of 14 with a lookback of 60: its recursion has not forgotten its start by then."""

    bars = 60

    def view(self, candles: Candles) -> Any:
        change = to_pandas(candles)["close"].diff()
        up = change.clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
        down = (-change.clip(upper=0)).ewm(alpha=1 / 14, adjust=False).mean()
        return (50.0 - 100.0 * up / (up + down)) / 50.0


class OnlineDeviation(MemoryLeak):
    """pandas' rolling std carries its rounding errors along: the last digits depend on the start."""

    def view(self, candles: Candles) -> Any:
        close = to_pandas(candles)["close"]
        return (close - close.rolling(20).mean()) / close.rolling(20).std() / 4.0


class AnchoredVwap(MemoryLeak):
    """The volume-weighted price since the series starts."""

    def view(self, candles: Candles) -> Any:
        paid = np.cumsum(candles.close * candles.volume)
        return np.sign(candles.close - paid / np.maximum(np.cumsum(candles.volume), 1e-12))


class CumulativeSum(MemoryLeak):
    """On-balance volume: a level that depends on where it was begun."""

    def view(self, candles: Candles) -> Any:
        change = np.diff(candles.close, prepend=candles.close[0])
        return np.sign(np.cumsum(np.sign(change) * candles.volume))


class SinceFirst(MemoryLeak):
    """Profit since the first candle."""

    def view(self, candles: Candles) -> Any:
        return np.sign(candles.close - candles.close[0])


class HighestSoFar(MemoryLeak):
    """Drawdown from the highest close so far."""

    def view(self, candles: Candles) -> Any:
        return np.where(candles.close < 0.9 * np.maximum.accumulate(candles.close), 1.0, 0.0)


class ExpandingMean(MemoryLeak):
    """pandas' expanding window."""

    def view(self, candles: Candles) -> Any:
        close = to_pandas(candles)["close"]
        return np.sign(close - close.expanding().mean())


class RowNumber(MemoryLeak):
    """Every seventh row."""

    def view(self, candles: Candles) -> Any:
        return np.where(np.arange(len(candles)) % 7 == 0, 1.0, np.sign(trend(candles, 20)))


class OneRow(MemoryLeak):
    """Row 2,000 is special."""

    def view(self, candles: Candles) -> Any:
        return np.where(np.arange(len(candles)) == 2_000, 0.5, np.sign(trend(candles, 20)))


class HeldPosition(MemoryLeak):
    """Remembers its position: in above the channel's middle by 2 %, out below by 2 %, as it was in between."""

    def view(self, candles: Candles) -> Any:
        distance = candles.close / mean_of(candles.close, 20) - 1.0
        signal = np.where(distance > 0.02, 1.0, np.where(distance < -0.02, -1.0, np.nan))
        held = np.maximum.accumulate(np.where(np.isnan(signal), 0, np.arange(len(signal))))
        return np.nan_to_num(signal[held])


class NeedsMore(MemoryLeak):
    """Fails outright with its lookback alone."""

    def view(self, candles: Candles) -> Any:
        if len(candles) < 41:
            raise ValueError("I need 41 candles")
        return np.sign(trend(candles, 20))


class ByDecimals(MemoryLeak):
    """Turns round where the whole series has prices of more than one decimal place."""

    def view(self, candles: Candles) -> Any:
        return trend(candles, 20) * (1.0 if candles.unit("close") < 100.0 else -1.0)


MEMORY = [
    cls
    for cls in list(globals().values())
    if isinstance(cls, type) and cls.__module__ == __name__ and cls is not MemoryLeak
]
