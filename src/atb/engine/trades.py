"""Trades are a fold over fills: one trade from flat to flat, per symbol."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from atb.engine.candles import Floats, Ints, Mask
from atb.engine.reasons import STOP_BEFORE_TAKE


@dataclass(frozen=True, slots=True)
class Trades:
    """Columns of equal length, in order of their last fills (open ones last, by symbol).

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
    counts = np.bincount(fills["symbol"], minlength=len(lots))
    last = np.cumsum(counts)[counts > 0] - 1  # of each symbol, when symbol follows symbol
    order = _by_symbol(fills["symbol"]) if len(last) > 1 else slice(None)
    qty, price, fee = (fills[name][order] for name in ("qty", "price", "fee"))
    # Whole lots over all symbols: the running sum is exact, and back at its symbol's base exactly when flat.
    held = np.cumsum(qty)
    if len(last) > 1:
        held -= np.repeat(np.append(0, held[last[:-1]]), counts[counts > 0])
    is_last = held == 0
    is_last[last] = True
    ends = np.flatnonzero(is_last)
    starts = np.append(0, ends[:-1] + 1)
    entry, exit_ = (rows if len(last) == 1 else order[rows] for rows in (starts, ends))  # type: ignore[index]
    symbol, entry_t, exit_t = fills["symbol"][exit_], fills["t"][entry], fills["t"][exit_]
    base = qty * (lots[symbol[0]] if len(last) == 1 else np.repeat(lots, counts))
    value = base * price
    bought, cost = (np.add.reduceat(np.maximum(x, 0.0), starts) for x in (base, value))
    sold, proceeds = (-np.add.reduceat(np.minimum(x, 0.0), starts) for x in (base, value))
    left = held[ends]
    is_open = left != 0
    if is_open.any():
        marked = left * lots[symbol]
        proceeds += np.where(is_open, marked * last_close[symbol], 0.0)
        sold += np.where(is_open, marked, 0.0)
        exit_t[is_open] = last_t
    fees = np.add.reduceat(fee, starts)
    pnl = proceeds - cost - fees
    trades = Trades(
        symbol, entry_t, exit_t, bought, cost / bought, proceeds / sold, fees, pnl, pnl / cost,
        fills["reason"][exit_], is_open, fills["rule"][exit_] == STOP_BEFORE_TAKE,
    )  # fmt: skip
    return trades if len(last) == 1 else trades.select(_by_exit(exit_, is_open, n))


def _by_symbol(symbol: Ints) -> Ints:
    """The order of fills symbol by symbol. Sorting 16 bits is ten times as fast: numpy does it by radix."""
    few = int(symbol.max()) < 2**16
    return np.argsort(symbol.astype(np.uint16) if few else symbol, kind="stable")


def _by_exit(last_fill: Ints, is_open: Mask, n: int) -> Ints:
    """The order of trades by their last of `n` fills, open ones last by symbol. Without a sort: each fill is one place."""
    places = np.full(n, -1)
    closed = np.flatnonzero(~is_open)
    places[last_fill[closed]] = closed
    return np.append(places[places >= 0], np.flatnonzero(is_open))
