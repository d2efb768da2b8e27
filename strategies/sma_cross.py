import numpy as np

from atb.engine.candles import Candles, Floats
from atb.engine.indicators import sma
from atb.strategy import Strategy, param


class SmaCross(Strategy):
    """Hold while the fast moving average is above the slow one."""

    fast: int = param(20, 2, 1000, "window of the fast average, candles")
    slow: int = param(100, 3, 5000, "window of the slow average, candles")

    @property
    def lookback_bars(self) -> int:
        return max(self.fast, self.slow)

    def signals(self, candles: Candles) -> Floats:
        fast, slow = sma(candles, self.fast), sma(candles, self.slow)
        return np.sign(fast - slow)
