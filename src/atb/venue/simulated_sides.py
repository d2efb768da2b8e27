"""Side series for simulated candles: seeded, of the right order of size, and as made up as the candles."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from atb.core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS, timeframe_ms
from atb.engine.candles import Candles, Floats
from atb.engine.sides import Side, SideRows, as_of


class Shape(NamedTuple):
    """How often a series has a value, how long that takes to be known, and what its values are around."""

    every_ms: int
    delay_ms: int
    mean: float
    deviation: float
    low: float = -np.inf
    high: float = np.inf


SHAPES = {
    "funding_rate": Shape(8 * HOUR_MS, MINUTE_MS, 1e-4, 2e-4),
    "open_interest": Shape(HOUR_MS, HOUR_MS, 90_000.0, 9_000.0, 0.0),
    "fear_greed": Shape(DAY_MS, HOUR_MS, 50.0, 20.0, 0.0, 100.0),
}
OTHERS = Shape(8 * HOUR_MS, MINUTE_MS, 0.0, 1.0)
MEMORY = 0.9  # of one value in the next
WARM_UP = 100  # values before the first candle


def simulated_sides(declared: Sequence[Side], candles: Candles, seed: int) -> Candles:
    """The candles with a simulated series for each that is declared, joined as a real one is."""
    if not declared:
        return candles
    closes = candles.open_time + timeframe_ms(candles.timeframe)
    return candles.with_sides({side.name: as_of(_rows(side, candles, seed), closes) for side in declared})


def _rows(side: Side, candles: Candles, seed: int) -> SideRows:
    shape = SHAPES.get(side.name, OTHERS)
    first = int(candles.open_time[0]) // shape.every_ms - WARM_UP
    last = int(candles.open_time[-1]) // shape.every_ms
    times = np.arange(first, last + 1, dtype=np.int64) * shape.every_ms
    key = hashlib.sha256(f"{side.name}|{side.symbol or candles.symbol}|{first}|{seed}".encode()).digest()
    shocks = np.random.Generator(np.random.PCG64([*key[:16]])).standard_normal(len(times))
    values = shape.mean + shape.deviation * _with_memory(shocks)
    return SideRows(times, times + shape.delay_ms, np.clip(values, shape.low, shape.high))


def _with_memory(shocks: Floats) -> Floats:
    """A first-order autoregression of deviation 1."""
    out, state, share = np.empty(len(shocks)), 0.0, float(np.sqrt(1 - MEMORY**2))
    for i, shock in enumerate(shocks.tolist()):
        state = MEMORY * state + share * shock
        out[i] = state
    return out
