"""Candle files made for one purpose, and a strategy that does what their volume says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from atb.core.timeframe import iso
from tests.conftest import START_MS, random_candles

HEADER = "open_time,open,high,low,close,volume"
HOUR_MS = 3_600_000

# The signal of a candle is written in its volume: 10 is 0, 20 is +1, 0 is -1.
SCRIPTED = '''
import numpy as np

from atb.strategy import Strategy


class Scripted(Strategy):
    """Does what the volume says."""

    lookback_bars = 1
    policy = {POLICY}

    def signals(self, candles):
        return np.clip((candles.volume - 10) / 10, -1, 1)
'''

# The head of a strategy; what follows is the body of signals().
HEAD = """import numpy as np
from atb.strategy import Strategy


class A(Strategy):
    lookback_bars = 1

    def signals(self, candles):
        """
PEEKS = HEAD + "return np.sign(np.roll(candles.close, -1) - candles.close)\n"


class Bar(NamedTuple):
    """One candle and the signal at its close."""

    close: float
    signal: float = 0.0
    open: float | None = None
    high: float | None = None
    low: float | None = None


def scripted(policy: str = "{}") -> str:
    return SCRIPTED.replace("{POLICY}", policy)


def candle_file(bars: Iterable[Bar], start_ms: int = START_MS) -> str:
    """The CSV of hourly `bars`; an open that is not given is the close before it."""
    lines, before = [HEADER], None
    for i, bar in enumerate(bars):
        open_ = bar.open if bar.open is not None else before if before is not None else bar.close
        high = bar.high if bar.high is not None else max(open_, bar.close)
        low = bar.low if bar.low is not None else min(open_, bar.close)
        lines.append(f"{iso(start_ms + i * HOUR_MS)},{open_},{high},{low},{bar.close},{10 + 10 * bar.signal:.6f}")
        before = bar.close
    return "\n".join(lines) + "\n"


def walk_file(count: int, seed: int = 1, *, start_ms: int = START_MS) -> str:
    """The CSV of a random walk."""
    c = random_candles(count, seed, start_ms=start_ms)
    columns = (
        c.open_time.tolist(),
        c.open.tolist(),
        c.high.tolist(),
        c.low.tolist(),
        c.close.tolist(),
        c.volume.tolist(),
    )
    rows: Iterable[Sequence[float]] = zip(*columns, strict=True)
    return "\n".join([HEADER, *(f"{iso(int(t))},{','.join(map(repr, numbers))}" for t, *numbers in rows)]) + "\n"
