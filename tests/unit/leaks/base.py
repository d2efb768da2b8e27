"""What the planted strategies share."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from atb.engine.candles import Candles, Floats
from atb.strategy import Strategy

Numbers = npt.NDArray[Any]


class Planted(Strategy):
    """A strategy that says what it holds in `view` and leaves warm-up and bounds to this class.

    `bars` is the declared lookback, `kind` what the gate must call the fault.
    """

    bars: ClassVar[int] = 20
    kind: ClassVar[str] = "future"

    @property
    def lookback_bars(self) -> int:
        return self.bars

    def view(self, candles: Candles) -> Any:
        raise NotImplementedError

    def signals(self, candles: Candles) -> Floats:
        signal = np.clip(np.nan_to_num(np.asarray(self.view(candles), dtype=np.float64)), -1.0, 1.0)
        signal[: self.bars - 1] = np.nan
        return signal


def shifted(values: Numbers, by: int) -> Floats:
    """The value of `by` candles before (after, if negative); NaN where there is none."""
    out = np.full(len(values), np.nan)
    if by >= 0:
        out[by:] = values[: max(0, len(values) - by)]
    else:
        out[:by] = values[-by:]
    return out


def mean_of(values: Numbers, window: int) -> Floats:
    """Plain moving average, the same bits from any start; NaN while there is too little."""
    out = np.full(len(values), np.nan)
    if len(values) >= window:
        out[window - 1 :] = np.lib.stride_tricks.sliding_window_view(values, window).sum(axis=1) / window
    return out


def trend(candles: Candles, window: int) -> Floats:
    """An honest signal to hide a fault in: the close above its average, in [-1, 1]."""
    return np.tanh(50.0 * (candles.close / mean_of(candles.close, window) - 1.0))
