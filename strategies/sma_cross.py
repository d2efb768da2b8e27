import numpy as np

from atb.core.errors import UsageError
from atb.engine.candles import Candles, Floats
from atb.engine.indicators import sma
from atb.strategy import Strategy, param


class SmaCross(Strategy):
    """Hold while the fast moving average is above the slow one."""

    fast: int = param(20, 2, 1000, "window of the fast average, candles")
    slow: int = param(100, 3, 5000, "window of the slow average, candles")

    def __init__(self, **values: float) -> None:
        super().__init__(**values)
        if self.fast >= self.slow:
            raise UsageError(
                f"sma_cross: fast ({self.fast}) must be below slow ({self.slow}).", "As in -p fast=20 -p slow=100"
            )

    @property
    def lookback_bars(self) -> int:
        return self.slow

    def signals(self, candles: Candles) -> Floats:
        fast, slow = sma(candles, self.fast), sma(candles, self.slow)
        return np.sign(fast - slow)
