import math
from typing import ClassVar

import numpy as np

from atb.core.timeframe import DAY_MS, timeframe_ms
from atb.engine.candles import Candles, Floats
from atb.engine.indicators import log_returns, realized_volatility
from atb.strategy import Strategy, param


class VolTargetTrend(Strategy):
    """Hold a rising market, with less of it the more it swings: trend times volatility target.

    The size is set at the entry.
    """

    policy: ClassVar = {
        "sizing": "confidence",
        "fraction": 1.0,
        "max_position": 1.0,
        "min_confidence": 0.05,
        "stop_loss": 0.1,
    }

    trend: int = param(336, 2, 5000, "candles over which the market must have risen")
    window: int = param(168, 10, 5000, "window of the realised volatility, candles")
    target: float = param(0.4, 0.01, 5.0, "annual volatility to aim at (0.4 is 40 %)")

    @property
    def lookback_bars(self) -> int:
        return max(self.trend, self.window) + 1

    def signals(self, candles: Candles) -> Floats:
        momentum = log_returns(candles.close, self.trend)
        annual = realized_volatility(candles.close, self.window) * math.sqrt(
            365 * DAY_MS / timeframe_ms(candles.timeframe)
        )
        size = np.clip(self.target / np.maximum(annual, 1e-6), 0.05, 1.0)
        signal = np.where(momentum > 0, size, -1.0)
        return np.where(np.isnan(momentum) | np.isnan(annual), np.nan, signal)
