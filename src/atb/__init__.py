"""atb: backtests that tell the truth, and the engine behind them."""

__version__ = "0.1.0"
