"""The engine alone: against a minimal compiled loop, one and ten symbols, memory, growth."""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measure import Row, best_of
from benchmarks.work import bare_loop, crossing, market, run_engine

LIMITS = {17_500: 10.0, 1_000_000: 4.0}


def against_a_bare_loop(quick: bool) -> list[Row]:
    """Our run with its summary, in multiples of the hand-written compiled loop; and plain Python."""
    import numba

    loop = numba.njit(bare_loop)
    cache = Path(tempfile.mkdtemp())
    rows = []
    for count in (17_500, 200_000 if quick else 1_000_000):
        candles = market(count)
        signal = crossing(candles)
        columns = (candles.open, candles.high, candles.low, candles.close, signal)
        equity = np.empty(count)
        seconds = best_of(
            {
                "loop": partial(loop, *columns, equity),
                "engine": partial(run_engine, [candles], [signal], "compiled", cache),
            },
            30 if count < 100_000 else 9,
        )
        rows.append(Row(f"bare compiled loop, {count:,} bars", seconds["loop"] / count * 1e9, "ns/bar"))
        rows.append(Row(f"engine and summary, {count:,} bars", seconds["engine"] / count * 1e9, "ns/bar"))
        rows.append(Row("  in bare loops", seconds["engine"] / seconds["loop"], "x", LIMITS.get(count)))
    return rows + plain(cache)


def plain(cache: Path) -> list[Row]:
    """Without compilation: in multiples of the bare loop in plain Python."""
    candles = market(17_500)
    signal = crossing(candles)
    open_, high, low, close, signals = (
        c.tolist() for c in (candles.open, candles.high, candles.low, candles.close, signal)
    )
    seconds = best_of(
        {
            "loop": lambda: bare_loop(open_, high, low, close, signals, [0.0] * len(candles)),
            "engine": lambda: run_engine([candles], [signal], "plain", cache),
        },
        5,
    )
    return [
        Row("plain Python engine, 17,500 bars (mark: 150)", seconds["engine"] * 1e3, "ms"),
        Row("  in bare plain loops", seconds["engine"] / seconds["loop"], "x"),
    ]


def ten_symbols(quick: bool) -> list[Row]:
    """Ten symbols on one account, in multiples of one."""
    cache = Path(tempfile.mkdtemp())
    rows = []
    for count in (17_500, 100_000 if quick else 1_000_000):
        series = [market(count, seed) for seed in range(10)]
        signals = [crossing(candles) for candles in series]
        seconds = best_of(
            {
                "one": partial(run_engine, series[:1], signals[:1], "compiled", cache),
                "ten": partial(run_engine, series, signals, "compiled", cache),
            },
            20 if count < 50_000 else 4,
        )
        rows.append(Row(f"ten symbols, {count:,} bars, in runs of one", seconds["ten"] / seconds["one"], "x", 12.0))
    return rows


def growth(quick: bool) -> list[Row]:
    """Time and memory a bar from a thousand to ten million bars; memory of engine and result beyond the candles."""
    cache = Path(tempfile.mkdtemp())
    rows = []
    for count in (1_000, 10_000, 100_000, 1_000_000) + (() if quick else (10_000_000,)):
        candles = market(count)
        signal = crossing(candles)
        run_engine([candles], [signal], "compiled", cache)
        begun = time.perf_counter()
        run_engine([candles], [signal], "compiled", cache)
        rows.append(Row(f"{count:,} bars", (time.perf_counter() - begun) / count * 1e9, "ns/bar"))
        tracemalloc.start()
        kept = run_engine([candles], [signal], "compiled", cache)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        del kept
        rows.append(Row("  peak memory", peak / count, "B/bar", 64.0 if count >= 1_000_000 else None))
    return rows
