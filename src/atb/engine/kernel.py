"""The one trading loop: `decide_held`, `decide_entry`, `step` and `run`, over S symbols that share one account.

Live trading calls `step`'s two halves for one candle at a time; a backtest calls `run`. All of it is the subset of
Python that also compiles (engine/compiled.py), and both give the same result bit for bit. The rules are those of
docs/backtest-rules.md; the section numbers in the comments are of that page.

Shapes: columns of candles and signals are one per symbol, `close[s][t]` for symbol `s` at row `t`. An absent candle is
NaN.
"""

from math import nan
from typing import Any, NamedTuple

from atb.engine.fills import buy_at_open, fill_resting, sell_at_open
from atb.engine.reasons import (
    BREAK_EVEN,
    DRAWDOWN_HALT,
    ENTRY,
    HOLD,
    LOW_CONFIDENCE,
    NEUTRAL,
    NO_SIGNAL,
    PARTIAL_EXIT,
    SHORT_ON_SPOT,
    SIGNAL,
    STOP_LOSS,
    TIME_EXIT,
    TRAILING_STOP,
)
from atb.engine.risk import PROTECTABLE, refuse_entry, round_down, round_up, size_entry

DAY_MS = 86_400_000
LINE, AHEAD = 8, 64  # rows: numbers in a line of a processor's cache, and how far to look ahead


class Target(NamedTuple):
    """What should be held after a close: a level, not an order. Lots; prices in quote, NaN for none."""

    qty: int
    stop: float
    take: float
    stop_reason: int
    reason: int


def raise_stop(close: float, p: Any, market: Any, rules: Any) -> tuple[float, int]:
    """Break-even and trailing: where the stop of a position belongs after this close. It only rises."""
    stop = p.stop
    reason = p.stop_reason
    if rules.break_even > 0.0 and close >= p.entry_price * (1.0 + rules.break_even):
        level = round_down(p.entry_price, market.tick)
        if not level <= stop:
            stop = level
            reason = BREAK_EVEN
    # The level moves with the best close alone: where this close is none, it has been tried before. (Whoever gives a held
    # position other rules or takes its stop away leaves it without one, NaN, and then it is tried again.)
    moved = close >= p.best_close or p.closes_held == 1 or stop != stop
    if rules.trailing > 0.0 and moved and p.best_close >= p.entry_price * (1.0 + rules.trailing_after):
        level = round_down(p.best_close * (1.0 - rules.trailing), market.tick)
        if not level <= stop:
            stop = level
            reason = TRAILING_STOP
    return stop, reason


def partial_lots(close: float, p: Any, market: Any, rules: Any) -> int:
    """Lots of the next partial exit that this close has reached; 0 when there is none."""
    gain = 0.0
    share = 0.0
    if p.partials_done == 0:
        gain = rules.partial_gain_1
        share = rules.partial_share_1
    elif p.partials_done == 1:
        gain = rules.partial_gain_2
        share = rules.partial_share_2
    elif p.partials_done == 2:
        gain = rules.partial_gain_3
        share = rules.partial_share_3
    if share == 0.0 or close < p.entry_price * (1.0 + gain):
        return 0
    p.partials_done += 1
    lots = int(p.entry_qty * share + 1e-9)
    if lots > p.qty:
        lots = p.qty
    left = p.qty - lots
    protected_at = p.stop if p.stop > 0.0 else close
    if left > 0 and (left * market.lot) * protected_at < PROTECTABLE * market.min_notional:
        return 0
    return lots


def decide_held(close: float, signal: float, p: Any, market: Any, a: Any, rules: Any) -> Target:
    """The target of a symbol that is held (section 5, first list)."""
    if a.halted == 1:
        return Target(0, p.stop, p.take, p.stop_reason, DRAWDOWN_HALT)
    if rules.max_hold > 0 and p.closes_held >= rules.max_hold:
        return Target(0, p.stop, p.take, p.stop_reason, TIME_EXIT)
    if signal <= -rules.min_confidence or (rules.exit_when_neutral == 1 and not signal >= rules.min_confidence):
        return Target(0, p.stop, p.take, p.stop_reason, SIGNAL)
    stop, stop_reason = raise_stop(close, p, market, rules)
    if rules.partial_share_1 > 0.0:
        lots = partial_lots(close, p, market, rules)
        if lots > 0:
            return Target(p.qty - lots, stop, p.take, stop_reason, PARTIAL_EXIT)
    return Target(p.qty, stop, p.take, stop_reason, HOLD)


def why_no_entry(signal: float, rules: Any) -> int:
    """The reason of a signal that is no entry."""
    if signal != signal:
        return NO_SIGNAL
    if signal <= -rules.min_confidence:
        return SHORT_ON_SPOT
    return LOW_CONFIDENCE if signal > 0.0 else NEUTRAL


def decide_entry(close: float, signal: float, p: Any, market: Any, a: Any, rules: Any) -> Target:
    """The target of a symbol of which nothing is held, for a signal of at least min_confidence (section 5, second list)."""
    reason = refuse_entry(p, a, rules)
    if reason != ENTRY:
        return Target(0, nan, nan, HOLD, reason)
    stop = nan
    stop_reason = HOLD
    if rules.stop_loss > 0.0:
        stop = round_down(close * (1.0 - rules.stop_loss), market.tick)
        stop_reason = STOP_LOSS
    if rules.trailing > 0.0 and rules.trailing_after == 0.0:
        level = round_down(close * (1.0 - rules.trailing), market.tick)
        if not level <= stop:
            stop = level
            stop_reason = TRAILING_STOP
    take = nan
    if rules.take_profit > 0.0:
        take = round_up(close * (1.0 + rules.take_profit), market.tick)
    lots, reason = size_entry(close, signal, stop, market, a, rules)
    if lots == 0:
        return Target(0, nan, nan, HOLD, reason)
    return Target(lots, stop, take, stop_reason, reason)


def fill_at_open(
    t: int, n: int, open_: Any, positions: Any, markets: Any, a: Any, rules: Any, fills: Any, n_fills: int,
    decisions: Any,
) -> int:  # fmt: skip
    """Sections 1.1-1.2: what waited for the open of row `t`, sales first. Returns the new number of fills."""
    if a.waiting_exits > 0:
        for s in range(n):
            p = positions[s]
            if p.target_qty < p.qty:
                o = open_[s][t]
                if o == o:
                    sell_at_open(t, s, o, p, markets[s], a, rules, fills[n_fills])
                    n_fills += 1
    if a.waiting_entries > 0:
        for s in range(n):
            p = positions[s]
            if p.target_qty > p.qty:
                o = open_[s][t]
                if o == o:
                    n_fills += buy_at_open(t, s, o, p, markets[s], a, rules, fills[n_fills], decisions)
    return n_fills


def fill_within(
    t: int, n: int, open_: Any, high: Any, low: Any, positions: Any, order: Any, markets: Any, a: Any, rules: Any, fills: Any,
    n_fills: int,
) -> int:  # fmt: skip
    """Section 1.3: the resting orders that row `t` touches. Returns the new number of fills."""
    for k in range(min(a.open_positions, n)):
        s = order[k]
        p = positions[s]
        if low[s][t] <= p.stop or high[s][t] >= p.take:
            fill_resting(t, s, open_[s][t], high[s][t], low[s][t], p, markets[s], a, rules, fills[n_fills])
            n_fills += 1
    return n_fills


def held_first(n: int, positions: Any, order: Any, a: Any) -> None:
    """Sort `order`, the indices of the symbols: those that are held, ascending, then the others, ascending.

    With several symbols a processor can learn no pattern of who is held: asking it of each costs more than the work.
    """
    held = 0
    flat = a.open_positions
    for s in range(n):
        is_held = 1 if positions[s].qty != 0 else 0
        order[held if is_held == 1 else flat] = s
        held += is_held
        flat += 1 - is_held


def mark_close(
    t: int, n: int, open_ms: int, close: Any, positions: Any, order: Any, markets: Any, a: Any, rules: Any
) -> None:
    """Sections 1.4 and 6: equity at the closes of row `t`, then day, peak and halt."""
    if open_ms >= a.day_end_ms:
        a.day_end_ms = open_ms - open_ms % DAY_MS + DAY_MS
        a.day_equity = a.equity
    equity = a.cash
    exposure = 0.0
    for k in range(min(a.open_positions, n)):
        s = order[k]
        p = positions[s]
        c = close[s][t]
        if c == c:
            p.last_close = c
        held = (p.qty * markets[s].lot) * p.last_close
        equity += held
        exposure += held
    waiting = 0.0
    if a.waiting_entries > 0:
        for s in range(n):
            waiting += positions[s].waiting
    a.equity = equity
    a.waiting = waiting
    a.exposure = exposure + waiting
    if a.open_positions > 0:
        a.candles_exposed += 1
    if equity > a.peak:
        a.peak = equity
    elif a.halted == 0 and equity < a.peak * (1.0 - rules.max_drawdown):
        a.halted = 1
        a.halt_drawdown = (a.peak - equity) / a.peak
        a.halt_ms = open_ms


def set_target(target: Target, close: float, p: Any, market: Any, a: Any) -> None:
    """Make `target` the symbol's own: levels rest from now on, a changed quantity waits for the next open."""
    p.stop = target.stop
    p.take = target.take
    p.stop_reason = target.stop_reason
    p.target_qty = target.qty
    p.target_reason = target.reason
    if target.qty > p.qty:
        notional = (target.qty * market.lot) * close
        p.waiting = notional
        a.waiting += notional
        a.exposure += notional
        a.waiting_entries += 1
    elif target.qty < p.qty:
        a.waiting_exits += 1


def decide_holding(c: float, x: float, p: Any, market: Any, a: Any, rules: Any) -> int:
    """One close of a symbol that is held: count it, set the target. Returns the decision's reason."""
    p.closes_held += 1
    if c > p.best_close:
        p.best_close = c
    target = decide_held(c, x, p, market, a, rules)
    set_target(target, c, p, market, a)
    return target.reason


def decide_flat(c: float, x: float, p: Any, market: Any, a: Any, rules: Any) -> int:
    """One close of a symbol of which nothing is held. Returns the decision's reason."""
    if not x >= rules.min_confidence:
        p.needs_new_signal = 0
        reason = why_no_entry(x, rules)
    else:
        target = decide_entry(c, x, p, market, a, rules)
        set_target(target, c, p, market, a)
        reason = target.reason
    if p.cooldown_left > 0:
        p.cooldown_left -= 1
    return reason


def decide_candle(
    t: int, n: int, close: Any, signal: Any, positions: Any, order: Any, markets: Any, a: Any, rules: Any,
    decisions: Any,
) -> None:  # fmt: skip
    """Section 1.5: the target of each present symbol at the close of row `t`."""
    for k in range(min(a.open_positions, n)):
        s = order[k]
        c = close[s][t]
        if c == c:
            decisions[decide_holding(c, signal[s][t], positions[s], markets[s], a, rules)] += 1
    for k in range(max(a.open_positions, 0), n):
        s = order[k]
        c = close[s][t]
        if c == c:
            decisions[decide_flat(c, signal[s][t], positions[s], markets[s], a, rules)] += 1


def step(
    t: int, n: int, open_ms: int, open_: Any, high: Any, low: Any, close: Any, signal: Any,
    positions: Any, order: Any, markets: Any, a: Any, rules: Any, fills: Any, n_fills: int, decisions: Any,
) -> int:  # fmt: skip
    """One row of the timeline: fill, mark, decide. Returns the new number of fills. `order`: see held_first."""
    before = n_fills
    if a.waiting_exits + a.waiting_entries > 0:
        n_fills = fill_at_open(t, n, open_, positions, markets, a, rules, fills, n_fills, decisions)
        held_first(n, positions, order, a)
    if a.open_positions > 0:
        n_fills = fill_within(t, n, open_, high, low, positions, order, markets, a, rules, fills, n_fills)
    if n_fills > before:
        held_first(n, positions, order, a)
    mark_close(t, n, open_ms, close, positions, order, markets, a, rules)
    decide_candle(t, n, close, signal, positions, order, markets, a, rules, decisions)
    return n_fills


def look_ahead(t: int, n: int, open_: Any, high: Any, low: Any, close: Any, signal: Any) -> None:
    """Tell the processor which numbers row `t` will ask for. In machine code only (engine/compiler.py)."""


def run(
    start: int, stop: int, n: int, time: Any, open_: Any, high: Any, low: Any, close: Any, signal: Any,
    positions: Any, order: Any, markets: Any, a: Any, rules: Any, equity: Any, fills: Any, capacity: int, progress: Any,
    decisions: Any,
) -> int:  # fmt: skip
    """Rows `start` to `stop` of the timeline; returns the first row that was not run.

    That is `stop`, or less: when the buffer `fills` of `capacity` rows may not hold another row's fills (empty it and
    call again), or when a drawdown halt has closed the last position (`progress[1]` is then 1). `progress[0]` counts the
    fills in the buffer.
    """
    n_fills = 0
    t = start
    held_first(n, positions, order, a)
    while t < stop and n_fills <= capacity - 2 * n:
        if t % LINE == 0:
            look_ahead(t + AHEAD, n, open_, high, low, close, signal)
        n_fills = step(
            t, n, time[t], open_, high, low, close, signal, positions, order, markets, a, rules, fills, n_fills,
            decisions,
        )  # fmt: skip
        equity[t] = a.equity
        t += 1
        if a.halted == 1 and a.open_positions == 0:
            progress[1] = 1
            break
    progress[0] = n_fills
    return t
