"""Strategies that do nothing wrong, in ways that a careless test would mistake for a fault."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from atb.engine.candles import Candles, Floats
from atb.strategy import Strategy, to_pandas
from tests.unit.leaks.base import Planted, mean_of, shifted, trend


class Calendar(Planted):
    """Holds by the hour of the day: it looks at no price and is not late."""

    def view(self, candles: Candles) -> Any:
        return np.where(candles.open_time // 3_600_000 % 24 < 12, 1.0, -1.0)


class Constant(Planted):
    """Always the same."""

    def view(self, candles: Candles) -> Any:
        return np.full(len(candles), 0.5)


class Yesterday(Planted):
    """A daily candle used from the day after on, as it should be."""

    bars = 48

    def view(self, candles: Candles) -> Any:
        close = to_pandas(candles)["close"]
        daily = close.resample("1D").last()
        daily.index += pd.Timedelta(days=1)
        return np.sign(close - daily.reindex(close.index, method="ffill"))


class FourHours(Planted):
    """Four-hour candles, each used once its last hour has closed."""

    bars = 8

    def view(self, candles: Candles) -> Any:
        close = to_pandas(candles)["close"]
        done = close.index.hour % 4 == 3  # type: ignore[attr-defined]
        return np.sign(close - close.where(done).ffill(limit=7).fillna(close))


class Loop(Planted):
    """A plain Python loop."""

    def view(self, candles: Candles) -> Any:
        close = candles.close.tolist()
        return [0.0 if t < 19 else float(close[t] > max(close[t - 19 : t])) for t in range(len(close))]


class Cautious(Planted):
    """Refuses candles that look wrong: no artificial market, please."""

    def view(self, candles: Candles) -> Any:
        if (np.abs(candles.close[1:] / candles.close[:-1] - 1.0) > 0.35).any():
            raise ValueError("a price moved by more than 35 %")
        return np.sign(trend(candles, 20))


class Silent(Strategy):
    """Has no opinion most of the time, and says so with NaN."""

    silent_at_times = True

    @property
    def lookback_bars(self) -> int:
        return 20

    def signals(self, candles: Candles) -> Floats:
        distance = candles.close / mean_of(candles.close, 20) - 1.0
        return np.where(np.abs(distance) > 0.03, np.sign(distance), np.nan)


class Volume(Planted):
    """Looks at the last candle for its volume only."""

    def view(self, candles: Candles) -> Any:
        busy = candles.volume > 2.0 * mean_of(candles.volume, 19)
        return np.where(busy, np.sign(shifted(candles.close, 1) - shifted(candles.close, 10)), 0.0)


class CrashBuyer(Planted):
    """Buys a candle that falls by 5 %: its signal seldom changes."""

    def view(self, candles: Candles) -> Any:
        return np.where(candles.close < 0.95 * candles.open, 1.0, 0.0)


class Remembers(Planted):
    """Keeps its answers by what they answer, which changes none of them."""

    def view(self, candles: Candles) -> Any:
        if not hasattr(self, "known"):
            self.known: dict[bytes, Any] = {}
        key = candles.close.tobytes()
        if key not in self.known:
            self.known[key] = np.sign(trend(candles, 20))
        return self.known[key]


class PandasMean(Planted):
    """pandas' rolling mean: the last digits depend on where the series starts, the decision does not."""

    def view(self, candles: Candles) -> Any:
        close = to_pandas(candles)["close"]
        return 20.0 * (close / close.rolling(20).mean() - 1.0)


class LongEma(Planted):
    """An exponential average of span 5 that has 80 candles to forget its start."""

    bars = 80

    def view(self, candles: Candles) -> Any:
        close = to_pandas(candles)["close"]
        return 20.0 * (close / close.ewm(span=5, adjust=False).mean() - 1.0)


HONEST = [Calendar, Constant, Yesterday, FourHours, Loop, Cautious, Silent, Volume, CrashBuyer, Remembers]
ROUNDING = [PandasMean, LongEma]
