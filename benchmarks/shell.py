"""Whole commands, from the shell, in multiples of `python -c pass`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from atb.venue.simulated import SIMULATED_START_MS, simulate_candles
from benchmarks.measure import Row, best_of

ATB = str(Path(sys.executable).with_name("atb"))
MODULES = ("typer", "numpy", "pyarrow.parquet", "llvmlite.binding", "numba", "onnxruntime", "pandas", "ccxt")


def environment() -> dict[str, str]:
    """Folders of its own, bytecode cached, no exchange."""
    folder = tempfile.mkdtemp()
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**env, "ATB_HOME": f"{folder}/home", "ATB_CACHE": f"{folder}/cache"}


def store_candles(env: dict[str, str], days: float, symbol: str) -> None:
    """Simulated candles as a file, imported into the store."""
    import pyarrow as pa
    import pyarrow.csv

    candles = simulate_candles(symbol, "1h", SIMULATED_START_MS, round(days * 24), 7)
    names = ("open", "high", "low", "close", "volume")
    table = pa.table({"open_time": candles.open_time, **{name: getattr(candles, name) for name in names}})
    path = Path(env["ATB_HOME"]).parent / f"{symbol}.csv"
    pyarrow.csv.write_csv(table, path)
    subprocess.run([ATB, "data", "import", str(path), "--symbol", symbol], env=env, check=True, capture_output=True)


def commands(quick: bool) -> list[Row]:
    """The three commands with a limit, warm; a subcommand's help; and the first run after an installation."""
    env = environment()
    store_candles(env, 2000 / 24, "BTCUSDT")
    store_candles(env, 380, "ETHUSDT")
    crossing = [ATB, "backtest", "sma_cross", "--symbol", "BTCUSDT"]
    lines = {
        "atb --help": ([ATB, "--help"], 9.0),
        "atb backtest --help": ([ATB, "backtest", "--help"], None),
        "atb backtest sma_cross, 2,000 stored candles": (crossing, 30.0),
    }
    if has_model("ETHUSDT"):
        year = ["--symbol", "ETHUSDT", "--start", "2024-01-10", "--end", "2025-01-09"]
        lines["atb backtest ml_basic, a year"] = ([ATB, "backtest", "ml_basic", *year], 45.0)
    works = {name: partial(run, line, env) for name, (line, _) in lines.items()}
    works["cold"] = partial(run_cold, crossing, env)
    seconds = best_of({"pass": lambda: run([sys.executable, "-c", "pass"], env), **works}, 5 if quick else 15)
    rows = [Row("python -c pass", seconds["pass"] * 1e3, "ms")]
    rows += [Row(name, seconds[name] / seconds["pass"], "x", limit) for name, (_, limit) in lines.items()]
    if not has_model("ETHUSDT"):
        rows.append(Row("atb backtest ml_basic: no model of ETHUSDT is shipped, skipped", 0.0, ""))
    return [*rows, Row("sma_cross, cold: no bytecode, no caches", seconds["cold"] / seconds["pass"], "x")]


def has_model(symbol: str) -> bool:
    """Whether there is a model of the hourly candles of `symbol`."""
    from atb.app import App
    from atb.core.errors import AtbError
    from atb.strategy.model_registry import resolve_model

    try:
        resolve_model(App().model_roots(), symbol, "1h", "basic", SIMULATED_START_MS)
    except AtbError:
        return False
    return True


def run_cold(line: list[str], env: dict[str, str]) -> None:
    """A run for which all Python code, the libraries' too, is compiled anew, and nothing of ours is cached."""
    with tempfile.TemporaryDirectory() as empty:
        run(line, {**env, "PYTHONPYCACHEPREFIX": f"{empty}/bytecode", "ATB_CACHE": f"{empty}/cache"})


def imports(quick: bool) -> list[Row]:
    """What the libraries cost to import, in the same multiples."""
    env = environment()
    works = {m: partial(run, [sys.executable, "-c", f"import {m}"], env) for m in MODULES}
    seconds = best_of({"pass": lambda: run([sys.executable, "-c", "pass"], env), **works}, 2 if quick else 7)
    return [Row(f"import {name}", seconds[name] / seconds["pass"], "x") for name in MODULES]


def run(line: list[str], env: dict[str, str]) -> None:
    subprocess.run(line, env=env, check=True, capture_output=True)
