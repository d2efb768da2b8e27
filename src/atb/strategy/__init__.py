"""Strategies: the contract, loading, the gate against look-ahead, and models.

A strategy file needs two names from here: `from atb.strategy import Strategy, param`; with pandas also `to_pandas`, with side
series `side`.
"""

from atb.strategy.contract import Strategy, param, side
from atb.strategy.frames import to_pandas

__all__ = ["Strategy", "param", "side", "to_pandas"]
