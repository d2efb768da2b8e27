"""Planted strategies that answer a candle late."""

from __future__ import annotations

from typing import Any

import numpy as np

from atb.engine.candles import Candles
from atb.strategy import to_pandas
from tests.unit.leaks.base import Planted, shifted, trend


class Late(Planted):
    kind = "lag"
    bars = 30


class LateSignal(Late):
    """The signal shifted by one candle "to be safe"."""

    def view(self, candles: Candles) -> Any:
        return shifted(trend(candles, 29), 1)


class LateDecision(Late):
    """The same with a bare decision, and three candles late."""

    def view(self, candles: Candles) -> Any:
        return np.sign(shifted(trend(candles, 20), 3))


class LateUnlessNoVolume(Late):
    """Looks at the last candle for one thing: whether anything traded."""

    def view(self, candles: Candles) -> Any:
        return np.where(candles.volume > 0, shifted(np.sign(trend(candles, 20)), 1), 0.0)


class LateUnlessBroken(Late):
    """Looks at the last candle for whether it is one."""

    def view(self, candles: Candles) -> Any:
        sound = (candles.close > 0) & np.isfinite(candles.high) & (candles.open > 0)
        return np.where(sound, shifted(np.sign(trend(candles, 20)), 1), 0.0)


class LateUnlessCrash(Late):
    """Late, with a switch for a candle that halves the price."""

    def view(self, candles: Candles) -> Any:
        return np.where(candles.close < 0.5 * candles.open, -1.0, shifted(np.sign(trend(candles, 20)), 1))


class LateByHour(Late):
    """Late, with a rule for the hour of the last candle."""

    def view(self, candles: Candles) -> Any:
        night = candles.open_time // 3_600_000 % 24 < 3
        return np.where(night, 0.0, shifted(np.sign(trend(candles, 20)), 1))


class LateFrame(Late):
    """A pandas rolling mean that excludes the candle it is asked about."""

    def view(self, candles: Candles) -> Any:
        close = to_pandas(candles)["close"].shift(1)
        return np.sign(close - close.rolling(10).mean())


LATE = [LateSignal, LateDecision, LateUnlessNoVolume, LateUnlessBroken, LateUnlessCrash, LateByHour, LateFrame]
