"""Simulated markets that something happens to: by name, seeded, several symbols that move together.

The candles are those of simulated.py. A scenario changes them from 60 % of the series on, as a function of time alone: what came
before is the same market without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from atb.core.errors import UsageError, nearest
from atb.core.timeframe import DAY_MS, timeframe_ms
from atb.engine.candles import Candles, Floats, Mask
from atb.venue.simulated import Progress, simulate_candles

BEGINS = 0.6  # of the series
CRASH, REBOUND = -0.45, 0.5  # log: -36 % in hours, half of it back in days
FLAT = 0.03  # of the usual moves
GAP_DAYS, GAP_JUMP = 0.5, -0.12  # the exchange is away for half a day, and opens 11 % lower


class Change(NamedTuple):
    """For each candle: what its close is moved by (log), the share of its move that is left, and whether it is missing."""

    offset: Floats
    share: Floats
    missing: Mask


def simulate_scenario(
    symbols: Sequence[str], timeframe: str, start_ms: int, count: int, seed: int, *, scenario: str = "normal",
    correlation: float = 0.0, on_progress: Progress | None = None,
) -> list[Candles]:  # fmt: skip
    """A series for each symbol. correlation: of the shocks of any two, 0 to 1. on_progress: hears the share of all."""
    if scenario not in SCENARIOS:
        raise UsageError(f"There is no scenario '{scenario}'.", nearest(scenario, list(SCENARIOS)))
    if not 0.0 <= correlation <= 1.0:
        raise UsageError(f"--correlation must be from 0 to 1, not {correlation:g}.")
    change = SCENARIOS[scenario](count, timeframe_ms(timeframe))
    made = [
        simulate_candles(symbol, timeframe, start_ms, count, seed, _part(on_progress, i, len(symbols)), correlation)
        for i, symbol in enumerate(symbols)
    ]
    return [_changed(candles, change) for candles in made]


def _part(on_progress: Progress | None, i: int, count: int) -> Progress | None:
    """The progress of one of several as that of all."""
    return None if on_progress is None else lambda share: on_progress((i + share) / count)


def _quiet(count: int) -> Change:
    return Change(np.zeros(count), np.ones(count), np.zeros(count, dtype=np.bool_))


def _normal(count: int, step_ms: int) -> Change:
    return _quiet(count)


def _crash(count: int, step_ms: int) -> Change:
    """Down within four hours, half of it back within three days."""
    change, begin = _quiet(count), int(count * BEGINS)
    since_ms = step_ms * (np.arange(count) - begin + 1.0)
    down = np.clip(since_ms / (DAY_MS / 6), 0.0, 1.0)
    back = np.clip((since_ms - DAY_MS / 6) / (3 * DAY_MS), 0.0, 1.0)
    return change._replace(offset=CRASH * (down - REBOUND * back))


def _flat(count: int, step_ms: int) -> Change:
    """Almost no moves to the end."""
    change = _quiet(count)
    share = np.where(np.arange(count) >= int(count * BEGINS), FLAT, 1.0)
    return change._replace(share=share)


def _gap(count: int, step_ms: int) -> Change:
    """Candles are missing, and the price after them is another one."""
    change, begin = _quiet(count), int(count * BEGINS)
    long = max(1, round(GAP_DAYS * DAY_MS / step_ms))
    index = np.arange(count)
    return change._replace(
        missing=(index >= begin) & (index < begin + long), offset=np.where(index >= begin, GAP_JUMP, 0.0)
    )


SCENARIOS: dict[str, Callable[[int, int], Change]] = {
    "normal": _normal, "crash": _crash, "flat": _flat, "gap": _gap,
}  # fmt: skip


def _changed(candles: Candles, change: Change) -> Candles:
    """Prices on a log scale: each candle's move and reach are scaled, and the path is moved."""
    if not change.offset.any() and (change.share == 1.0).all() and not change.missing.any():
        return candles
    logs = {name: np.log(getattr(candles, name)) for name in ("open", "high", "low", "close")}
    before = np.concatenate([logs["open"][:1], logs["close"][:-1]])  # of each candle, the close before
    moves = change.share * (logs["close"] - before)
    path = logs["open"][0] + np.cumsum(moves)
    begin = np.concatenate([logs["open"][:1], path[:-1]])
    shift, shift_before = change.offset, np.concatenate([[0.0], change.offset[:-1]])
    open_, close = begin + shift_before, path + shift
    top = np.maximum(open_, close) + change.share * (logs["high"] - np.maximum(logs["open"], logs["close"]))
    bottom = np.minimum(open_, close) - change.share * (np.minimum(logs["open"], logs["close"]) - logs["low"])
    columns = {"open": open_, "high": top, "low": bottom, "close": close}
    prices = {name: np.maximum(np.round(np.exp(column), 2), 0.01) for name, column in columns.items()}
    prices["high"] = np.maximum(prices["high"], np.maximum(prices["open"], prices["close"]))
    prices["low"] = np.minimum(prices["low"], np.minimum(prices["open"], prices["close"]))
    kept = np.flatnonzero(~change.missing)
    whole = Candles(
        candles.symbol, candles.timeframe, candles.open_time, prices["open"], prices["high"], prices["low"],
        prices["close"], candles.volume,
    )  # fmt: skip
    return whole if len(kept) == len(candles) else whole.take(kept)
