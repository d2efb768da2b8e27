import numpy as np

from atb.engine.candles import Candles, Floats
from atb.engine.indicators import rsi
from atb.strategy import Strategy, param


class RsiReversion(Strategy):
    """Buy what has fallen too fast (RSI below a floor), leave once it has recovered."""

    window: int = param(14, 2, 500, "changes in the RSI, candles")
    floor: float = param(25.0, 1.0, 50.0, "RSI below which to buy")
    ceiling: float = param(55.0, 30.0, 99.0, "RSI above which to leave")

    @property
    def lookback_bars(self) -> int:
        return self.window + 1

    def signals(self, candles: Candles) -> Floats:
        value = rsi(candles, self.window)
        signal = np.where(value < self.floor, 1.0, np.where(value > self.ceiling, -1.0, 0.0))
        return np.where(np.isnan(value), np.nan, signal)
