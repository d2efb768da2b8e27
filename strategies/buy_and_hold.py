from typing import ClassVar

import numpy as np

from atb.engine.candles import Candles, Floats
from atb.strategy import Strategy


class BuyAndHold(Strategy):
    """Buy once with everything, in equal parts, and hold: the yardstick.

    It pays the costs of one entry, like everybody, and has no stop and no limits: a yardstick does not bend.
    """

    equal_shares = True
    policy: ClassVar = {
        "fraction": 1.0,
        "max_position": 1.0,
        "stop_loss": 0.0,
        "daily_loss_limit": 0.0,
        "max_drawdown": 1.0,
    }

    @property
    def lookback_bars(self) -> int:
        return 1

    def signals(self, candles: Candles) -> Floats:
        return np.ones(len(candles))
