"""Results of real runs on small made-up candles, for the tests of the report and of the export."""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from atb.backtest.request import Request
from atb.backtest.result import BacktestResult
from atb.backtest.run import Desk, run_backtest
from atb.backtest.sources import Surroundings
from atb.core.timeframe import DAY_MS
from atb.data.store import CandleStore
from atb.engine.candles import COLUMNS, Candles, Floats
from atb.strategy.contract import Strategy
from atb.strategy.loader import LoadedStrategy, StrategyFile
from atb.venue.market_rules import rules_for

START_MS = 1_704_067_200_000  # 2024-01-01
FOLDER = Path(tempfile.mkdtemp(prefix="atb-report-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
BUSY = {"stop_loss": 0.02, "take_profit": 0.02, "daily_loss_limit": 0.0, "max_drawdown": 1.0}


class Momentum(Strategy):
    """Hold after a rise, leave after a fall."""

    bars = 5

    @property
    def lookback_bars(self) -> int:
        return self.bars + 1

    def signals(self, candles: Candles) -> Floats:
        out = np.full(len(candles), np.nan)
        out[self.bars :] = np.sign(candles.close[self.bars :] - candles.close[: -self.bars])
        return out


class Idle(Momentum):
    """Never ask for anything."""

    def signals(self, candles: Candles) -> Floats:
        return np.where(np.arange(len(candles)) < self.bars, np.nan, 0.0)


class Held(Momentum):
    """Always ask for a position."""

    def signals(self, candles: Candles) -> Floats:
        return np.where(np.arange(len(candles)) < self.bars, np.nan, 1.0)


def candles(count: int, seed: int = 1, symbol: str = "BTCUSDT", spread: float = 0.01, drift: float = 0.0) -> Candles:
    """A random walk of hourly candles with wide wicks."""
    random = np.random.default_rng(seed)
    close = np.round(30_000.0 * np.exp(np.cumsum(random.normal(drift, spread, count))), 2)
    open_ = np.append(30_000.0, close[:-1])
    wick = np.abs(random.normal(0.0, spread, (2, count)))
    high = np.round(np.maximum(open_, close) * (1 + wick[0]), 2)
    low = np.round(np.minimum(open_, close) * (1 - wick[1]), 2)
    times = START_MS + 3_600_000 * np.arange(count, dtype=np.int64)
    return Candles(symbol, "1h", times, open_, high, low, close, np.ones(count))


def stored(series: Candles) -> Path:
    """`series` as a Parquet file; the same candles have the same path."""
    key = hashlib.sha256(series.close.tobytes() + series.symbol.encode()).hexdigest()[:12]
    path = FOLDER / f"{series.symbol}-{key}.parquet"
    if not path.exists():
        columns = {name: getattr(series, name) for name in ("open_time", *COLUMNS)}
        parquet.write_table(pa.table(columns), path)
    return path


def model(*, training_end_day: int, validation_end_day: int) -> SimpleNamespace:
    """Stands for a model trained on the first days of the candles."""
    return SimpleNamespace(
        id="basic",
        version="2024-01",
        training_start_ms=START_MS,
        training_end_ms=START_MS + training_end_day * DAY_MS,
        validation_end_ms=START_MS + validation_end_day * DAY_MS,
    )


def make_result(
    *series: Candles,
    strategy: type[Strategy] = Momentum,
    policy: dict[str, Any] = BUSY,
    simulated: bool = False,
    with_model: SimpleNamespace | None = None,
    **request: Any,
) -> BacktestResult:
    """A run of `strategy` over `series` (400 random candles by default) by the real engine."""
    series = series or (candles(400),)
    symbols, files = tuple(s.symbol for s in series), tuple(stored(s) for s in series)
    asked = Request(strategy.__name__, symbols, series[0].timeframe, "file", files, policy_flags=policy, **request)
    result = run_backtest(asked, _desk(strategy, with_model))
    if not simulated:
        return result
    return result._replace(data=[facts._replace(simulated=True) for facts in result.data])


def _desk(strategy: type[Strategy], with_model: SimpleNamespace | None) -> Desk:
    def attach(made: Strategy, *_: Any) -> None:
        made.model = with_model

    around = Surroundings(
        CandleStore(FOLDER / "store"), lambda venue: None, lambda: 10**13, lambda _: None, lambda *_: None
    )
    loaded = LoadedStrategy(StrategyFile(strategy.__name__.lower(), Path(__file__), False), strategy, "0" * 64)
    return Desk(loaded, lambda source: rules_for("binance", source.symbol), attach, around, FOLDER / "cache")
