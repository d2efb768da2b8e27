"""The work that is measured: one market, one signal, one policy, in our engine and in loops written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from atb.core.policy import make_policy
from atb.engine import metrics
from atb.engine.candles import Candles, Floats
from atb.engine.indicators import sma
from atb.engine.metrics import Curve
from atb.engine.records import Market
from atb.engine.rules import make_rules
from atb.engine.simulation import EngineChoice, Run, Timeline, simulate, timeline
from atb.engine.trades import fold_trades
from atb.venue.simulated import SIMULATED_START_MS

HOUR_MS = 3_600_000
# Costs and shares small enough, and a balance large enough, that ten symbols still trade after a million candles.
BALANCE, FEE, SLIP = 1e9, 0.0002, 0.0001
FRACTION, STOP, TAKE, TRAIL = 0.09, 0.05, 0.1, 0.06
MARKET = Market(lot=1e-5, tick=0.01, min_notional=5.0)
POLICY = make_policy(
    {"fraction": FRACTION, "stop_loss": STOP, "take_profit": TAKE, "trailing_stop": TRAIL, "max_drawdown": 1.0,
     "daily_loss_limit": 0.0, "max_open_positions": 100}
)  # fmt: skip
RULES = make_rules(POLICY, FEE * 1e4, SLIP * 1e4)
LOOP_NUMBERS = (BALANCE, FEE, SLIP, FRACTION, STOP, TAKE, TRAIL)


def market(count: int, seed: int = 1) -> Candles:
    """Hourly candles of a walk that stays within two powers of e, however long it is."""
    random = np.random.default_rng(seed)
    walk = np.cumsum(random.standard_normal(count) * 0.005)
    close = 30_000 * np.exp(np.abs((walk + 1.5) % 4 - 2) - 1)
    open_ = np.concatenate([[30_000.0], close[:-1]])
    high = np.maximum(open_, close) * (1 + np.abs(random.standard_normal(count)) * 0.002)
    low = np.minimum(open_, close) * (1 - np.abs(random.standard_normal(count)) * 0.002)
    times = SIMULATED_START_MS + HOUR_MS * np.arange(count, dtype=np.int64)
    open_, high, low, close = (np.round(x, 2) for x in (open_, high, low, close))
    return Candles("BTCUSDT", "1h", times, open_, high, low, close, np.ones(count))


def crossing(candles: Candles) -> Floats:
    """+1 while the fast average is above the slow one, -1 below."""
    return np.asarray(np.sign(sma(candles, 20) - sma(candles, 50)))


def run_engine(series: list[Candles], signals: list[Floats], engine: EngineChoice, cache: Path) -> tuple[Run, float]:
    """One run through the Python API with its summary; returns the run and its Sharpe ratio."""
    run, line = only_run(series, signals, engine, cache)
    return run, summarize(run, line)


def only_run(
    series: list[Candles], signals: list[Floats], engine: EngineChoice, cache: Path, progress: Any = None
) -> tuple[Run, Timeline]:
    """The run without its summary."""
    line = timeline(series, signals)
    markets = [MARKET] * len(series)
    return simulate(line, markets, RULES, BALANCE, engine=engine, cache=cache, on_progress=progress), line


def summarize(run: Run, line: Timeline) -> float:
    """Trades, and every statistic of the report's summary; returns the Sharpe ratio."""
    lots = np.full(line.symbols, MARKET.lot)
    last = np.array([position.last_close for position in run.positions])
    trades = fold_trades(run.fills, lots, last, run.rows - 1)
    curve = Curve(line.open_time[: run.rows], run.equity, BALANCE, HOUR_MS)
    returns = metrics.daily_returns(curve)
    metrics.sortino(returns)
    metrics.volatility(returns)
    metrics.cagr(BALANCE, curve.end, curve.days)
    metrics.max_drawdown(curve)
    metrics.trade_stats(trades, line.open_time, HOUR_MS)
    run.equity.mean()  # for the turnover
    return metrics.sharpe(returns) or 0.0


def bare_loop(
    open_: Any, high: Any, low: Any, close: Any, signal: Any, equity: Any,
    cash: float, fee: float, slip: float, fraction: float, stop_loss: float, take_profit: float, trailing: float,
) -> Any:  # fmt: skip
    """The same stops, costs and sizing as locals of one function: no lots, ticks, limits, reasons, fills or summary."""
    qty, stop, take, best, amount = 0.0, 0.0, 0.0, 0.0, 0.0
    wanted, wait = 0, False
    for t in range(len(close)):
        if wanted == -1:
            cash += qty * open_[t] * (1 - slip) * (1 - fee)
            qty = 0.0
        elif wanted == 1:
            qty, best = amount, open_[t] * (1 + slip)
            cash -= qty * best * (1 + fee)
        wanted = 0
        if qty > 0:
            if low[t] <= stop:
                cash += qty * min(open_[t], stop) * (1 - slip) * (1 - fee)
                qty, wait = 0.0, True
            elif high[t] >= take:
                cash += qty * take * (1 - fee)
                qty, wait = 0.0, True
        equity[t] = cash + qty * close[t]
        if qty > 0:
            if signal[t] <= -0.1:
                wanted = -1
            elif close[t] > best:
                best = close[t]
                stop = max(stop, best * (1 - trailing))
        elif signal[t] >= 0.1:
            if not wait:
                amount, wanted = fraction * equity[t] / close[t], 1
                stop, take = close[t] * (1 - stop_loss), close[t] * (1 + take_profit)
        else:
            wait = False
    return cash
