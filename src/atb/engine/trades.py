"""Trades are a fold over fills: one trade from flat to flat, per symbol."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from atb.engine.candles import Floats, Ints, Mask
from atb.engine.reasons import STOP_BEFORE_TAKE
from atb.engine.records import FillRow

FIELDS = tuple(name for name, _ in FillRow.fields)


@dataclass(frozen=True, slots=True)
class Trades:
    """Columns of equal length, in order of exit (open ones last).

    symbol: index; entry_t, exit_t: rows of the timeline (exit_t is the last row for an open trade); qty: base bought;
    entry_price, exit_price: averages in quote (an open trade's exit_price is its last mark); fees, pnl: quote, pnl after
    fees; return_frac: pnl over the cost of the entry; reason: code of the last exit; open: still held at the end;
    ambiguous: its exit hangs on the order of stop and take inside one candle.
    """

    symbol: Ints
    entry_t: Ints
    exit_t: Ints
    qty: Floats
    entry_price: Floats
    exit_price: Floats
    fees: Floats
    pnl: Floats
    return_frac: Floats
    reason: Ints
    open: Mask
    ambiguous: Mask

    def __len__(self) -> int:
        return len(self.symbol)

    def select(self, keep: npt.NDArray[Any]) -> Trades:
        """The trades for which `keep` holds (a mask or an index)."""
        return Trades(*(getattr(self, field.name)[keep] for field in fields(self)))


_INTS: Ints = np.zeros(0, dtype=np.int64)
_FLOATS: Floats = np.zeros(0)
_MASK: Mask = np.zeros(0, dtype=np.bool_)
NO_TRADES = Trades(
    _INTS, _INTS, _INTS, _FLOATS, _FLOATS, _FLOATS, _FLOATS, _FLOATS, _FLOATS, _INTS, _MASK, _MASK
)  # fmt: skip


def fold_trades(fills: npt.NDArray[Any], lots: Floats, last_close: Floats, last_t: int) -> Trades:
    """Group fills into round trips. `lots`: base units per lot and symbol; `last_close`: marks of what is still held."""
    n = len(fills)
    if n == 0:
        return NO_TRADES
    columns = _by_symbol(fills)
    symbol, qty = columns["symbol"], columns["qty"]
    # Whole lots over all symbols: the running sum is exact, and back at its symbol's base exactly when flat.
    running = np.cumsum(qty)
    new_symbol = np.flatnonzero(np.diff(symbol)) + 1
    base = np.zeros(n, dtype=np.int64)
    base[new_symbol] = running[new_symbol - 1] - np.concatenate([[0], running[new_symbol - 1][:-1]])
    held = running - np.cumsum(base)
    ends = np.flatnonzero((held == 0) | (np.append(symbol[1:], -1) != symbol))
    starts = np.concatenate([[0], ends[:-1] + 1])
    return _columns(columns, starts, ends, held[ends], lots, last_close, last_t)


def _by_symbol(fills: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """The columns of `fills`, symbol after symbol. Each by itself: reordering whole rows costs several times as much."""
    symbol = fills["symbol"]
    if bool(np.all(symbol == symbol[0])):
        return {name: fills[name].copy() for name in FIELDS}
    order = np.argsort(symbol, kind="stable")
    return {name: fills[name][order] for name in FIELDS}


def _columns(
    fills: dict[str, npt.NDArray[Any]],
    starts: Ints,
    ends: Ints,
    left: Ints,
    lots: Floats,
    last_close: Floats,
    last_t: int,
) -> Trades:
    symbol = fills["symbol"][starts]
    base = fills["qty"] * lots[fills["symbol"]]
    value = base * fills["price"]
    bought, cost = (np.add.reduceat(np.where(base > 0, x, 0.0), starts) for x in (base, value))
    sold, proceeds = (-np.add.reduceat(np.where(base < 0, x, 0.0), starts) for x in (base, value))
    is_open = left != 0
    marked = left * lots[symbol]
    proceeds += np.where(is_open, marked * last_close[symbol], 0.0)
    sold += np.where(is_open, marked, 0.0)
    fees = np.add.reduceat(fills["fee"], starts)
    pnl = proceeds - cost - fees
    exit_t = np.where(is_open, last_t, fills["t"][ends])
    ambiguous = fills["rule"][ends] == STOP_BEFORE_TAKE
    trades = Trades(
        symbol, fills["t"][starts], exit_t, bought, cost / bought, proceeds / sold, fees, pnl, pnl / cost,
        fills["reason"][ends], is_open, ambiguous,
    )  # fmt: skip
    if symbol[0] == symbol[-1]:  # one symbol's trades never overlap: they are in order
        return trades
    return trades.select(np.lexsort((symbol, trades.entry_t, exit_t, is_open)))
