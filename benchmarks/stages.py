"""Where the rest goes: the parts of a long run, and of a short whole command."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from atb.engine import metrics
from atb.engine.metrics import Curve
from atb.engine.trades import fold_trades
from benchmarks.engine import LONG, SHORT
from benchmarks.measure import Row, best_of
from benchmarks.shell import ATB, environment, run, store_candles
from benchmarks.work import BALANCE, HOUR_MS, MARKET, crossing, market, only_run, run_engine

STAGES = {
    "load_s": "load (imports pyarrow)", "signals_s": "signals", "gate_s": "gate", "engine_s": "engine",
    "statistics_s": "statistics",
}  # fmt: skip
IMPORTS = {"import of the command line (typer)": "atb.cli.root", "import of numpy": "numpy"}
RATIOS = (metrics.sharpe, metrics.sortino, metrics.volatility)


def of_a_run(quick: bool) -> list[Row]:
    """The parts of one run with its summary, in nanoseconds a bar."""
    cache = Path(tempfile.mkdtemp())
    rows = []
    for count in (SHORT, 200_000 if quick else LONG):
        candles = market(count)
        signal = crossing(candles)
        result, line = only_run([candles], [signal], "compiled", cache)
        curve = Curve(line.open_time, result.equity, BALANCE, HOUR_MS)
        lots, last = np.array([MARKET.lot]), np.array([result.positions[0].last_close])
        trades = fold_trades(result.fills, lots, last, result.rows - 1)
        returns = metrics.daily_returns(curve)
        works: dict[str, Callable[[], object]] = {
            "the loop": partial(only_run, [candles], [signal], "compiled", cache),
            "trades from fills": partial(fold_trades, result.fills, lots, last, result.rows - 1),
            "drawdown": partial(metrics.max_drawdown, curve),
            "daily returns": partial(metrics.daily_returns, curve),
            "statistics of trades": partial(metrics.trade_stats, trades, line.open_time, HOUR_MS),
            "ratios of daily returns": lambda r=returns: [f(r) for f in RATIOS],  # type: ignore[misc]
            "all of it": partial(run_engine, [candles], [signal], "compiled", cache),
        }
        seconds = best_of(works, 9 if count > SHORT else 30)
        rows += [Row(f"{name}, {count:,} bars", value / count * 1e9, "ns/bar") for name, value in seconds.items()]
    return rows


def of_a_command(quick: bool) -> list[Row]:
    """The parts of `atb backtest sma_cross` over 2,000 stored candles, in milliseconds."""
    env = environment()
    store_candles(env, 2000 / 24, "BTCUSDT")
    rounds = 5 if quick else 15
    works = {"pass": partial(run, [sys.executable, "-c", "pass"], env)}
    works |= {f: partial(run, [sys.executable, "-c", f"import {m}"], env) for f, m in IMPORTS.items()}
    works["whole"] = partial(run, [ATB, "backtest", "sma_cross", "--symbol", "BTCUSDT"], env)
    seconds = best_of(works, rounds)
    parts = {"python itself": seconds["pass"]}
    parts |= {name: seconds[name] - seconds["pass"] for name in IMPORTS}
    parts |= laps(env, rounds)
    rows = [Row(name, value * 1e3, "ms") for name, value in parts.items()]
    rest = seconds["whole"] - sum(parts.values())
    return [
        *rows,
        Row("rest: our other modules, parsing, rendering", rest * 1e3, "ms"),
        Row("whole", seconds["whole"] * 1e3, "ms"),
    ]


def laps(env: dict[str, str], rounds: int) -> dict[str, float]:
    """The shortest seconds of each stage, as the command itself tells them."""
    best: dict[str, float] = {}
    line = [ATB, "backtest", "sma_cross", "--symbol", "BTCUSDT", "--json"]
    for _ in range(rounds):
        answer = subprocess.run(line, env=env, check=True, capture_output=True, text=True)
        timing = json.loads(answer.stdout)["timing"]
        for stage, name in STAGES.items():
            best[name] = min(best.get(name, np.inf), timing[stage])
    return best
