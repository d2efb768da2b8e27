"""Sizing, levels and every limit on an entry (docs/backtest-rules.md, 5-6)."""

from math import ceil, floor
from typing import Any

from atb.engine.reasons import (
    BELOW_MIN_NOTIONAL,
    BELOW_PROTECTABLE,
    COOLDOWN,
    DAILY_LOSS_LIMIT,
    ENTRY,
    MAX_EXPOSURE,
    MAX_OPEN_POSITIONS,
    NEEDS_NEW_SIGNAL,
    NO_CASH,
    REFUSED_HALTED,
)

SIZE_FRACTION = 0
SIZE_RISK = 1
SIZE_CONFIDENCE = 2

PROTECTABLE = 1.1  # what is protected must be worth this many minimum notionals at its stop, or the stop is refused
MAX_COUNT = 9007199254740992.0  # 2**53: beyond it a float cannot count lots or ticks


def ticks(count: float, tick: float) -> float:
    """`count` ticks as the float nearest to their decimal value: the price that an exchange reads and tells.

    49123.45 is 4912345 / 100, but 4912345 * 0.01 is another float. A tick that is no share of 1 is multiplied, and so is
    one of less than 1e-15, of which a float cannot count how many make 1.
    """
    per = floor(1.0 / tick + 0.5) if tick >= 1e-15 else 0
    if per > 1.0 and abs(per * tick - 1.0) < 1e-12:
        return count / per
    return count * tick


def round_down(price: float, tick: float) -> float:
    """`price` on the tick grid, downwards; a price within 1e-9 ticks of a tick counts as on it.

    A price of 2**53 ticks or more is left as it is: its own precision is coarser than the tick.
    """
    if not price / tick < MAX_COUNT:
        return price
    return ticks(floor(price / tick + 1e-9), tick)


def round_up(price: float, tick: float) -> float:
    """`price` on the tick grid, upwards."""
    if not price / tick < MAX_COUNT:
        return price
    return ticks(ceil(price / tick - 1e-9), tick)


def refuse_entry(p: Any, a: Any, rules: Any) -> int:
    """The first gate that is closed to an entry, before its size is known; ENTRY when all are open."""
    if a.halted == 1:
        return REFUSED_HALTED
    if rules.daily_loss > 0.0 and a.equity < a.day_equity * (1.0 - rules.daily_loss):
        return DAILY_LOSS_LIMIT
    if p.cooldown_left > 0:
        return COOLDOWN
    if p.needs_new_signal == 1:
        return NEEDS_NEW_SIGNAL
    if a.open_positions + a.waiting_entries >= rules.max_open_positions:
        return MAX_OPEN_POSITIONS
    return ENTRY


def size_entry(close: float, signal: float, stop: float, market: Any, a: Any, rules: Any) -> tuple[int, int]:
    """Lots to buy and ENTRY, or 0 and the reason why not. `stop` is NaN when there is none."""
    notional = rules.max_position * a.equity
    if rules.sizing == SIZE_RISK:
        if close > stop:
            notional = rules.risk * a.equity / (close - stop) * close
    elif rules.sizing == SIZE_CONFIDENCE:
        notional = rules.fraction * a.equity * signal
    else:
        notional = rules.fraction * a.equity
    if notional > rules.max_position * a.equity:
        notional = rules.max_position * a.equity
    room = rules.max_exposure * a.equity - a.exposure
    if notional > room:
        notional = room
        if not notional > 0.0 or notional < market.min_notional:
            return 0, MAX_EXPOSURE
    cash = a.cash / ((1.0 + rules.fee) * (1.0 + rules.slip)) - a.waiting
    if notional > cash:
        notional = cash
        if not notional > 0.0 or notional < market.min_notional:
            return 0, NO_CASH
    wanted = notional / (close * market.lot) + 1e-9
    if not 1.0 <= wanted <= MAX_COUNT:
        return 0, BELOW_MIN_NOTIONAL
    lots = floor(wanted)
    if (lots * market.lot) * close < market.min_notional:
        return 0, BELOW_MIN_NOTIONAL
    if (lots * market.lot) * stop < PROTECTABLE * market.min_notional:
        return 0, BELOW_PROTECTABLE
    return lots, ENTRY
