import numpy as np

from atb.engine.candles import Candles, Floats
from atb.engine.indicators import rolling_std, sma
from atb.strategy import Strategy, param


class BollingerReversion(Strategy):
    """Buy a close below the lower Bollinger band, leave at the middle."""

    window: int = param(20, 3, 500, "window of the bands, candles")
    width: float = param(2.0, 0.5, 5.0, "distance of the lower band from the middle, standard deviations")

    @property
    def lookback_bars(self) -> int:
        return self.window

    def signals(self, candles: Candles) -> Floats:
        middle = sma(candles, self.window)
        lower = middle - self.width * rolling_std(candles.close, middle, self.window)
        signal = np.where(candles.close < lower, 1.0, np.where(candles.close > middle, -1.0, 0.0))
        return np.where(np.isnan(middle), np.nan, signal)
