"""What the backtest's rules make of candles from a given state on, and which execution of a session is which of its fills."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import nan
from typing import NamedTuple

import numpy as np

from atb.engine.candles import Candles
from atb.engine.reasons import REASON_NAMES
from atb.engine.stepper import Stepper
from atb.live.recorded import Execution

NONE = (nan, nan, nan, nan)


class Made(NamedTuple):
    """A fill of the loop. Lots are signed; price and fee in quote; rule: engine.reasons.RULE_NAMES."""

    open_ms: int
    s: int
    lots: int
    price: float
    fee: float
    reason: str
    rule: int


class Pair(NamedTuple):
    """A fill of the loop and the execution that answers to it; None where there is no other side."""

    made: Made | None
    execution: Execution | None


class Tape:
    """Candles by time, of symbols by index."""

    def __init__(self, series: Sequence[Candles]) -> None:
        self.times = np.unique(np.concatenate([candles.open_time for candles in series]))
        self._rows = [_rows_of(candles) for candles in series]

    def between(self, after_ms: int, until_ms: int) -> list[int]:
        """The open times at which some symbol has a candle, after one and up to another."""
        low, high = np.searchsorted(self.times, (after_ms, until_ms), side="right")
        return [int(at) for at in self.times[low:high]]

    def candle(self, s: int, at_ms: int) -> tuple[float, float, float, float] | None:
        """open, high, low, close."""
        return self._rows[s].get(at_ms)

    def close(self, s: int, at_ms: int) -> float | None:
        candle = self.candle(s, at_ms)
        return None if candle is None else candle[3]

    def closes(self, at_ms: int, count: int) -> list[float]:
        return self._columns(at_ms, count)[3]

    def meet(self, model: Stepper, at_ms: int) -> list[Made]:
        """Let a state meet the candles of one time, up to before their close."""
        open_, high, low, _ = self._columns(at_ms, len(model.markets))
        rows = model.meet(open_, high, low)
        return [Made(at_ms, r.symbol, r.qty, r.price, r.fee, REASON_NAMES[r.reason], r.rule) for r in rows]

    def _columns(self, at_ms: int, count: int) -> list[list[float]]:
        """One column of each of open, high, low, close; what has no candle here is NaN."""
        found = [rows.get(at_ms, NONE) for rows in self._rows]
        found += [NONE] * (count - len(found))
        return [list(column) for column in zip(*found, strict=True)]


def _rows_of(candles: Candles) -> dict[int, tuple[float, float, float, float]]:
    columns = [column.tolist() for column in (candles.open, candles.high, candles.low, candles.close)]
    return dict(zip(candles.open_time.tolist(), zip(*columns, strict=True), strict=True))


def paired(should: Sequence[Made], found: Sequence[Execution]) -> list[Pair]:
    """Each with the one that is most like it: of its candle, symbol, side and reason; then whatever the reason."""
    left, pairs = list(found), []
    rest = []
    for made in should:
        execution = _first(e for e in left if _like(made, e) and made.reason == e.reason)
        if execution is None:
            rest.append(made)
            continue
        left.remove(execution)
        pairs.append(Pair(made, execution))
    for made in rest:
        execution = _first(e for e in left if _like(made, e))
        if execution is not None:
            left.remove(execution)
        pairs.append(Pair(made, execution))
    return pairs + [Pair(None, execution) for execution in left]


def _like(made: Made, execution: Execution) -> bool:
    return (made.open_ms, made.s, made.lots > 0) == (execution.open_ms, execution.s, execution.lots > 0)


def _first(executions: Iterable[Execution]) -> Execution | None:
    return next(iter(executions), None)
