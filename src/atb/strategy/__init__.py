"""Strategies: the contract, loading, the gate against look-ahead, and models.

A strategy file needs two names from here: `from atb.strategy import Strategy, param`.
"""

from atb.strategy.contract import Strategy, param

__all__ = ["Strategy", "param"]
