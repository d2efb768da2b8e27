import math
from typing import ClassVar

import numpy as np

from atb.core.errors import StrategyError
from atb.engine.candles import Candles, Floats
from atb.engine.indicators import realized_volatility
from atb.strategy import Strategy, param
from atb.strategy.model import Model

BPS = 1e-4
WEEK = 168  # candles
MEAN_OF_NORMAL = math.sqrt(2 / math.pi)  # mean size of a normal variable, in standard deviations


class MlBasic(Strategy):
    """Buy when the model expects a rise that pays the round trip, leave when it expects a fall that does.

    The expected move is (2p - 1) times the size of an ordinary move over the model's horizon. Within the dead band of the
    costs there is no trade: what is held stays held, for a week at most.
    """

    model_kind = "basic"
    silent_at_times = True  # where the market stands still the features, and so the model, have no answer
    policy: ClassVar = {"sizing": "confidence", "fraction": 0.15, "stop_loss": 0.1, "max_hold": 168}

    cost_bps: float = param(30.0, 0.0, 1000.0, "what a round trip costs, fees and slippage both ways, bps")
    exit_bps: float = param(30.0, 0.0, 1000.0, "expected fall from which to leave, bps")

    @property
    def lookback_bars(self) -> int:
        model = self._model()
        return max(model.lookback_bars, model.horizon + 1, WEEK + 1)

    def signals(self, candles: Candles) -> Floats:
        move = self.expected_moves(candles)
        signal = np.where(move > self.cost_bps * BPS, self._confidence(move), 0.0)
        signal = np.where(move < -self.exit_bps * BPS, -1.0, signal)
        signal[np.isnan(move)] = np.nan
        return signal

    def expected_moves(self, candles: Candles) -> Floats:
        """Fraction of the price that the close is expected to move within the model's horizon."""
        model = self._model()
        recent, week = (realized_volatility(candles.close, window) for window in (model.horizon, WEEK))
        # Either alone forecasts the size of the next move less well: swings come in clusters, and clusters end.
        volatility = np.sqrt((recent * recent + week * week) / 2.0)
        ordinary_move = volatility * math.sqrt(model.horizon) * MEAN_OF_NORMAL
        return (2.0 * model.predict(candles) - 1.0) * ordinary_move

    def _confidence(self, move: Floats) -> Floats:
        """A half where the move just pays its costs, 1 where it pays them twice."""
        return np.minimum(1.0, move / max(2.0 * self.cost_bps * BPS, 1e-9))

    def _model(self) -> Model:
        if not isinstance(self.model, Model):
            raise StrategyError("ml_basic needs a model and was given none.", "See them with: atb models list")
        return self.model
