import numpy as np

from atb.engine.candles import Candles, Floats
from atb.engine.indicators import rolling_max, rolling_min
from atb.strategy import Strategy, param


class DonchianTrend(Strategy):
    """Enter on a close above the highest high of the candles before it, leave on one below their lowest low."""

    entry: int = param(55, 2, 2000, "candles whose high must be exceeded")
    exit: int = param(20, 2, 2000, "candles whose low must be undercut")

    @property
    def lookback_bars(self) -> int:
        return max(self.entry, self.exit) + 1

    def signals(self, candles: Candles) -> Floats:
        signal = np.full(len(candles), np.nan)
        if len(candles) < self.lookback_bars:
            return signal
        # The channel is that of the candles before this one: its own high is never below its close.
        high = rolling_max(candles.high, self.entry)[:-1]
        low = rolling_min(candles.low, self.exit)[:-1]
        close = candles.close[1:]
        signal[1:] = np.where(close > high, 1.0, np.where(close < low, -1.0, 0.0))
        signal[: self.lookback_bars - 1] = np.nan
        return signal
