"""Candles: given ones, and those that the trades of a market make."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float64]  # (n, 6): open_time ms, open, high, low, close, volume

DAY_MS = 86_400_000
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
LENGTH_MS = {f"{n}m": n * MINUTE_MS for n in (1, 3, 5, 15, 30)}
LENGTH_MS |= {f"{n}h": n * HOUR_MS for n in (1, 2, 4, 6, 8, 12)} | {"1d": DAY_MS, "1w": 7 * DAY_MS}


def resampled(rows: Rows, length_ms: int) -> Rows:
    """Candles of `length_ms` made of shorter ones."""
    opens, first = np.unique(rows[:, 0] // length_ms * length_ms, return_index=True)
    last = np.append(first[1:], len(rows)) - 1
    high, low = np.maximum.reduceat(rows[:, 2], first), np.minimum.reduceat(rows[:, 3], first)
    volume = np.add.reduceat(rows[:, 5], first)
    return np.column_stack([opens, rows[first, 1], high, low, rows[last, 4], volume])


def formed(rows: Rows, length_ms: int, now_ms: int) -> Rows:
    """The same, the last as far as it has come: from its open to its low, its high, and half the way to its close."""
    share = (now_ms - rows[-1, 0]) / length_ms if len(rows) else 1.0
    if share >= 1:
        return rows
    _, opened, high, low, close, volume = rows[-1]
    seen = (opened, low, high, round((high + close) / 2, 8))[: int(share * 4) + 1]
    last = [rows[-1, 0], opened, max(seen), min(seen), seen[-1], round(volume * share, 8)]
    return np.concatenate([rows[:-1], [last]])


class Tape:
    """The trades of a market as candles of a minute."""

    def __init__(self) -> None:
        self._bars: list[list[float]] = []

    def add(self, at_ms: int, price: float, volume: float) -> None:
        minute = at_ms // MINUTE_MS * MINUTE_MS
        if not self._bars or self._bars[-1][0] < minute:
            self._bars.append([float(minute), price, price, price, price, volume])
            return
        bar = self._bars[-1]  # also what came late: a clock that was turned back makes no second candle
        bar[2], bar[3], bar[4] = max(bar[2], price), min(bar[3], price), price
        bar[5] += volume

    def rows(self) -> Rows:
        return np.array(self._bars, dtype=np.float64).reshape(-1, 6)


def candles_of(given: dict[str, Rows], tape: Tape, timeframe: str) -> Rows:
    """The given candles up to the first trade of the tape, and from there what was traded."""
    length, traded = LENGTH_MS[timeframe], tape.rows()
    history, history_ms = _history(given, timeframe)
    if not len(traded):
        return history if history_ms == length else resampled(history, length)
    before = history[history[:, 0] + history_ms <= traded[0, 0]]
    return resampled(np.concatenate([before, traded]), length)


def _history(given: dict[str, Rows], timeframe: str) -> tuple[Rows, int]:
    """The given candles of this length; else the shortest there are, which the longer ones are made of."""
    if not given:
        return np.empty((0, 6)), LENGTH_MS[timeframe]
    name = timeframe if timeframe in given else min(given, key=LENGTH_MS.__getitem__)
    return given[name], LENGTH_MS[name]
