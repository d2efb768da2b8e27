"""The engine alone: against a minimal compiled loop, one and ten symbols, memory, growth."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from atb.engine.candles import Candles, Floats
from benchmarks.measure import Row, best_of
from benchmarks.work import LOOP_NUMBERS, bare_loop, crossing, market, only_run, run_engine

SHORT, LONG = 17_500, 1_000_000
LIMITS = {SHORT: 10.0, LONG: 4.0}
SHORT_MARKETS = 8  # in turn: a processor learns the turns of a single short series by heart
SAME = 1e-4


class Markets:
    """One series, or several short ones to be run in turn."""

    def __init__(self, count: int) -> None:
        self.bars = count * (SHORT_MARKETS if count <= SHORT else 1)
        self.candles = [market(count, seed) for seed in range(self.bars // count)]
        self.signals = [crossing(candles) for candles in self.candles]

    def each(self, work: Callable[[Candles, Floats], object]) -> Callable[[], None]:
        """`work` on every one of them."""

        def run() -> None:
            for candles, signal in zip(self.candles, self.signals, strict=True):
                work(candles, signal)

        return run


def against_a_bare_loop(quick: bool) -> list[Row]:
    """Our run with its summary, in multiples of the hand-written compiled loop; and plain Python."""
    import numba

    loop, cache = numba.njit(bare_loop), Path(tempfile.mkdtemp())

    def bare(candles: Candles, signal: Floats) -> Floats:
        equity = np.empty(len(candles))
        loop(candles.open, candles.high, candles.low, candles.close, signal, equity, *LOOP_NUMBERS)
        return equity

    rows = []
    for count in (SHORT, 200_000 if quick else LONG):
        markets = Markets(count)
        check_same_work(bare, markets, cache)
        seconds = best_of(
            {
                "loop": markets.each(bare),
                "run": markets.each(lambda candles, signal: only_run([candles], [signal], "compiled", cache)),
                "engine": markets.each(lambda candles, signal: run_engine([candles], [signal], "compiled", cache)),
            },
            15,
        )
        rows += [
            Row(f"{title}, {count:,} bars", seconds[name] / markets.bars * 1e9, "ns/bar")
            for name, title in (("loop", "bare compiled loop"), ("run", "engine"), ("engine", "engine and summary"))
        ]
        rows.append(Row("  in bare loops", seconds["engine"] / seconds["loop"], "x", LIMITS.get(count)))
    return rows + plain(cache)


def check_same_work(bare: Callable[[Candles, Floats], Floats], markets: Markets, cache: Path) -> None:
    """The bare loop's equity must be ours but for whole lots and ticks, or the comparison means nothing."""
    candles, signal = markets.candles[0], markets.signals[0]
    run, _ = run_engine([candles], [signal], "compiled", cache)
    apart = float(np.max(np.abs(bare(candles, signal) / run.equity - 1.0)))
    if not apart < SAME:
        raise RuntimeError(f"The bare loop's equity is {apart:.1e} off: it does other work.")


def plain(cache: Path) -> list[Row]:
    """Without compilation: in multiples of the bare loop in plain Python."""
    candles = market(SHORT)
    signal = crossing(candles)
    numbers: Any = [c.tolist() for c in (candles.open, candles.high, candles.low, candles.close, signal)]
    numbers += [[0.0] * len(candles), *LOOP_NUMBERS]
    seconds = best_of(
        {
            "loop": lambda: bare_loop(*numbers),
            "engine": lambda: run_engine([candles], [signal], "plain", cache),
        },
        7,
    )
    return [
        Row("plain Python engine, 17,500 bars (mark: 150)", seconds["engine"] * 1e3, "ms"),
        Row("  in bare plain loops", seconds["engine"] / seconds["loop"], "x"),
    ]


def ten_symbols(quick: bool) -> list[Row]:
    """Ten symbols on one account, in multiples of one."""
    cache = Path(tempfile.mkdtemp())
    rows = []
    for count in (SHORT, 100_000 if quick else LONG):
        series = [market(count, seed) for seed in range(10)]
        signals = [crossing(candles) for candles in series]
        seconds = best_of(
            {
                "one": partial(run_engine, series[:1], signals[:1], "compiled", cache),
                "ten": partial(run_engine, series, signals, "compiled", cache),
            },
            20 if count == SHORT else 8,
        )
        rows.append(Row(f"ten symbols, {count:,} bars, in runs of one", seconds["ten"] / seconds["one"], "x", 12.0))
        memory = peak_memory(partial(run_engine, series, signals, "compiled", cache))
        rows.append(Row("  peak memory, a bar and symbol", memory / count / 10, "B", 64.0))
    return rows


def growth(quick: bool) -> list[Row]:
    """Time and memory a bar from a thousand to ten million bars; memory of engine and result beyond the candles."""
    cache = Path(tempfile.mkdtemp())
    rows = []
    for count in (1_000, 10_000, 100_000, LONG) + (() if quick else (10_000_000,)):
        candles = market(count)
        signal = crossing(candles)
        work = partial(run_engine, [candles], [signal], "compiled", cache)
        seconds = best_of({"run": work}, 3 if count >= LONG else 15)
        rows.append(Row(f"{count:,} bars", seconds["run"] / count * 1e9, "ns/bar"))
        memory = peak_memory(work)
        rows.append(Row("  peak memory", memory / count, "B/bar", 64.0 if count >= 10_000 else None))
    candles = market(SHORT)
    work = partial(run_engine, [candles], [crossing(candles)], "plain", cache)
    rows.append(Row(f"plain Python, {SHORT:,} bars: peak memory", peak_memory(work) / SHORT, "B/bar", 64.0))
    return rows


def peak_memory(work: Callable[[], object]) -> int:
    """The most bytes that `work` and its result hold at once. The candles, made before, do not count."""
    tracemalloc.start()
    try:
        kept = work()
        peak = tracemalloc.get_traced_memory()[1]
        del kept
    finally:
        tracemalloc.stop()
    return peak
