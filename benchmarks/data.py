"""Market data: a prefill against one request after the other, at a loopback exchange 50 ms away in a process of its own; a long
series read and added to, against Arrow's own reading of the same file."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from atb.core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from atb.core.types import symbol_for
from atb.data.layout import SeriesKey, series_key
from atb.data.store import CandleStore
from atb.engine.candles import COLUMNS
from atb.market.filling import Asking, fill
from atb.market.prefill import Job, prefill
from atb.venue.simulated import SIMULATED_START_MS, simulate_candles
from benchmarks.measure import Row, best_of

ROOT = Path(__file__).resolve().parent.parent
NOW = 1_760_000_400_000
YEARS_MS = 730 * DAY_MS
ROWS = 1_000_000
EXCHANGE = f"""
import sys
from tests.venue.exchange.__main__ import history
from tests.venue.loopback import Exchange, Fault, Loopback
made = Exchange({NOW})
for i, name in enumerate(("BTC", "ETH")):
    lengths = {{"1h": {HOUR_MS}, "4h": {4 * HOUR_MS}}}
    rows = {{tf: history(7 + i, {YEARS_MS} // ms + 10, tf, {NOW}, 40000.0) for tf, ms in lengths.items()}}
    made.list(name + "USDT", name, "USDT", rows, price="40000")
with Loopback(made, Fault("hang", "klines", seconds=0.05), seed=1) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


def stored(quick: bool) -> list[Row]:
    return [*_prefill(3 if quick else 7), *_long_series(3 if quick else 7)]


def _prefill(rounds: int) -> list[Row]:
    with _exchange() as url:
        together = min(_filled(url, side_by_side=True) for _ in range(rounds))
        apart = min(_filled(url, side_by_side=False) for _ in range(2))
    return [
        Row("prefill: 2 symbols, 1h and 4h, 2 years, 50 ms away", together, "s"),
        Row("the same, one request after the other", apart, "s"),
        Row("prefill, in shares of that", together / apart, "x", 0.2),
    ]


def _filled(url: str, *, side_by_side: bool) -> float:
    symbols = [symbol_for("binance", name) for name in ("BTCUSDT", "ETHUSDT")]
    jobs = [Job(series_key("binance", s, tf), s, NOW - YEARS_MS, NOW) for s in symbols for tf in ("1h", "4h")]
    with tempfile.TemporaryDirectory() as folder:
        store, asking = CandleStore(Path(folder) / "candles"), Asking(lambda _: url, Path(folder) / "rates")
        began = time.perf_counter()
        if side_by_side:
            if any(outcome.trouble for outcome in prefill(store, jobs, NOW, asking)):
                raise RuntimeError("Not all of it came.")
        else:
            for job in jobs:
                fill(store, job.key, job.symbol, (job.start_ms, job.end_ms), NOW, asking)
        return time.perf_counter() - began


def _long_series(rounds: int) -> list[Row]:
    key = SeriesKey("binance", "spot", "BTCUSDT", "1m")
    candles = simulate_candles("BTCUSDT", "1m", SIMULATED_START_MS, ROWS + 100, 1)
    start, end = SIMULATED_START_MS, SIMULATED_START_MS + ROWS * MINUTE_MS
    with tempfile.TemporaryDirectory() as folder:
        store = CandleStore(Path(folder))
        part = store.append(key, candles.window(0, ROWS), start, end)
        path, columns = Path(folder) / part.path, ["open_time", *COLUMNS]
        year, day = 525_600 * MINUTE_MS, DAY_MS
        seconds = best_of(
            {
                "arrow": lambda: pq.read_table(path, columns=columns),
                "all": lambda: store.read(key),
                "year": lambda: store.read(key, end - year, end),
                "day": lambda: store.read(key, end - day, end),
            },
            rounds,
        )
        adds = []
        for i in range(50):
            began = time.perf_counter()
            store.add(key, candles.window(ROWS + i, ROWS + i + 1), end + i * MINUTE_MS, end + (i + 1) * MINUTE_MS)
            adds.append(time.perf_counter() - began)
    return [
        Row("1M candles read and checked", 1000 * seconds["all"], "ms"),
        Row("the same, in readings by Arrow", seconds["all"] / seconds["arrow"], "x", 2.0),
        Row("a year of 1m of it", 1000 * seconds["year"], "ms"),
        Row("a day of it", 1000 * seconds["day"], "ms"),
        Row("a day, in shares of all of it", seconds["day"] / seconds["all"], "x", 0.2),
        Row("a candle added to it, median", 1000 * float(np.median(adds)), "ms"),
    ]


@contextmanager
def _exchange() -> Iterator[str]:
    command = [sys.executable, "-c", EXCHANGE]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
