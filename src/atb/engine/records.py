"""The engine's state, as plain records with one layout in Python and in machine code.

Each record is an ordinary Python object (fast to read in the plain loop) and has a numpy dtype of the same fields
(what the compiled loop reads). Fields are int (int64) or float (float64), nothing else, so that the two agree bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, Self

import numpy as np
import numpy.typing as npt

_NUMPY_KIND = {"int": "i8", "float": "f8"}


class Record:
    """Base of the state records: named int and float fields, in the order in which they are declared."""

    fields: tuple[tuple[str, str], ...] = ()
    _names: tuple[str, ...] = ()
    _kinds: Mapping[str, type[int] | type[float]] = {}
    _zeros: Mapping[str, float] = {}

    def __init_subclass__(cls) -> None:
        cls.fields = tuple((name, _NUMPY_KIND[kind]) for name, kind in cls.__annotations__.items())
        cls._names = tuple(name for name, _ in cls.fields)
        cls._kinds = {name: int if kind == "i8" else float for name, kind in cls.fields}
        cls._zeros = {name: kind(0) for name, kind in cls._kinds.items()}

    def __init__(self, **values: float) -> None:
        unknown = values.keys() - self._kinds.keys()
        if unknown:
            raise TypeError(f"{type(self).__name__} has no field {sorted(unknown)}")
        vars(self).update(self._zeros)
        vars(self).update({name: self._kinds[name](value) for name, value in values.items()})

    @classmethod
    @cache
    def dtype(cls) -> np.dtype[Any]:
        return np.dtype(list(cls.fields), align=True)

    @classmethod
    def pack(cls, records: list[Self]) -> npt.NDArray[Any]:
        """Records as a structured array, one row each."""
        return np.array([record.as_tuple() for record in records], dtype=cls.dtype())

    @classmethod
    def unpack(cls, rows: npt.NDArray[Any]) -> list[Self]:
        """The inverse of `pack`."""
        records = [cls.__new__(cls) for _ in range(len(rows))]
        for record, row in zip(records, rows.tolist(), strict=True):
            vars(record).update(zip(cls._names, row, strict=True))
        return records

    def as_tuple(self) -> tuple[float, ...]:
        return tuple(vars(self).values())


class Market(Record):
    """What the exchange demands of an order, in units of base (lot), quote (min_notional) and price (tick)."""

    lot: float
    tick: float
    min_notional: float


class Rules(Record):
    """A Policy and the costs, in the engine's numbers. 0 switches a rule off, unless said otherwise."""

    fee: float
    slip: float
    sizing: int
    fraction: float
    risk: float
    min_confidence: float
    exit_when_neutral: int
    stop_loss: float
    take_profit: float
    trailing: float
    trailing_after: float
    break_even: float
    max_hold: int
    cooldown: int
    partial_gain_1: float
    partial_share_1: float
    partial_gain_2: float
    partial_share_2: float
    partial_gain_3: float
    partial_share_3: float
    max_position: float
    max_exposure: float
    max_open_positions: int
    daily_loss: float
    max_drawdown: float
    take_before_stop: int  # 1: the best case of an ambiguous candle; never used for a reported result


class Account(Record):
    """What the symbols share. Money in quote; `open_positions` and `waiting_entries` count symbols."""

    cash: float
    equity: float
    peak: float
    day_equity: float
    day_end_ms: int
    fees: float
    realized: float
    exposure: float
    waiting: float
    open_positions: int
    waiting_entries: int
    waiting_exits: int
    halted: int
    halt_drawdown: float
    halt_ms: int
    candles_exposed: int


class Position(Record):
    """One symbol: what is held (whole lots), its resting levels (NaN: none) and its target."""

    qty: int
    cost: float
    entry_price: float
    entry_qty: int
    best_close: float
    stop: float
    take: float
    stop_reason: int
    closes_held: int
    partials_done: int
    cooldown_left: int
    needs_new_signal: int
    last_close: float
    target_qty: int
    target_reason: int
    waiting: float


class FillRow(Record):
    """One fill: `t` is the row of the timeline, `qty` signed lots, `price` and `fee` in quote."""

    t: int
    symbol: int
    qty: int
    price: float
    fee: float
    reason: int
    rule: int


def flat_position() -> Position:
    """A symbol of which nothing is held and nothing is known."""
    return Position(stop=math.nan, take=math.nan)


def fresh_account(cash: float) -> Account:
    """An account before its first candle; `day_end_ms` in the far past, so that the first candle begins a day."""
    return Account(cash=cash, equity=cash, peak=cash, day_equity=cash, day_end_ms=-(2**62))
