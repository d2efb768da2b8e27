"""The one trading loop: `decide`, `step` and `run`, over S symbols that share one account.

Live trading calls `step`'s two halves for one candle at a time; a backtest calls `run`. All of it is the subset of
Python that also compiles (engine/compiled.py), and both give the same result bit for bit. The rules are those of
docs/backtest-rules.md; the section numbers in the comments are of that page.

Shapes: candle arrays are flat, row-major (T, S): symbol `s` at row `t` is at `t * S + s`. An absent candle is NaN.
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
    if rules.trailing > 0.0 and p.best_close >= p.entry_price * (1.0 + rules.trailing_after):
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


def decide_flat(close: float, signal: float, p: Any, market: Any, a: Any, rules: Any) -> Target:
    """The target of a symbol of which nothing is held (section 5, second list)."""
    if not signal >= rules.min_confidence:
        if signal != signal:
            return Target(0, nan, nan, HOLD, NO_SIGNAL)
        if signal <= -rules.min_confidence:
            return Target(0, nan, nan, HOLD, SHORT_ON_SPOT)
        return Target(0, nan, nan, HOLD, LOW_CONFIDENCE if signal > 0.0 else NEUTRAL)
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
    return Target(lots, stop, take, stop_reason, reason)


def decide(close: float, signal: float, p: Any, market: Any, a: Any, rules: Any) -> Target:
    """The target of one symbol at a close, from its signal, its position and the account."""
    if p.qty != 0:
        return decide_held(close, signal, p, market, a, rules)
    return decide_flat(close, signal, p, market, a, rules)


def fill_candle(
    t: int, n: int, open_: Any, high: Any, low: Any, positions: Any, markets: Any, a: Any, rules: Any,
    fills: Any, n_fills: int, decisions: Any,
) -> int:  # fmt: skip
    """Sections 1.1-1.3: what fills between the open and the close of row `t`. Returns the new number of fills."""
    if a.waiting_exits > 0:
        for s in range(n):
            p = positions[s]
            o = open_[t * n + s]
            if p.target_qty < p.qty and o == o:
                sell_at_open(t, s, o, p, markets[s], a, rules, fills[n_fills])
                n_fills += 1
    if a.waiting_entries > 0:
        for s in range(n):
            p = positions[s]
            o = open_[t * n + s]
            if p.target_qty > p.qty and o == o:
                n_fills += buy_at_open(t, s, o, p, markets[s], a, rules, fills[n_fills], decisions)
    if a.open_positions > 0:
        for s in range(n):
            p = positions[s]
            if p.qty != 0:
                i = t * n + s
                n_fills += fill_resting(t, s, open_[i], high[i], low[i], p, markets[s], a, rules, fills[n_fills])
    return n_fills


def mark_close(t: int, n: int, open_ms: int, close: Any, positions: Any, markets: Any, a: Any, rules: Any) -> None:
    """Sections 1.4 and 6: equity at the closes of row `t`, then day, peak and halt."""
    if open_ms >= a.day_end_ms:
        a.day_end_ms = open_ms - open_ms % DAY_MS + DAY_MS
        a.day_equity = a.equity
    equity = a.cash
    exposure = 0.0
    waiting = 0.0
    for s in range(n):
        p = positions[s]
        c = close[t * n + s]
        if c == c:
            p.last_close = c
        if p.qty != 0:
            held = (p.qty * markets[s].lot) * p.last_close
            equity += held
            exposure += held
        waiting += p.waiting
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


def decide_candle(
    t: int, n: int, close: Any, signal: Any, positions: Any, markets: Any, a: Any, rules: Any, decisions: Any
) -> None:
    """Section 1.5: the target of each present symbol at the close of row `t`."""
    for s in range(n):
        c = close[t * n + s]
        if c == c:
            p = positions[s]
            x = signal[t * n + s]
            if p.qty != 0:
                p.closes_held += 1
                if c > p.best_close:
                    p.best_close = c
            elif not x >= rules.min_confidence:
                p.needs_new_signal = 0
            target = decide(c, x, p, markets[s], a, rules)
            if p.cooldown_left > 0:
                p.cooldown_left -= 1
            decisions[target.reason] += 1
            set_target(target, c, p, markets[s], a)


def step(
    t: int, n: int, open_ms: int, open_: Any, high: Any, low: Any, close: Any, signal: Any,
    positions: Any, markets: Any, a: Any, rules: Any, fills: Any, n_fills: int, decisions: Any,
) -> int:  # fmt: skip
    """One row of the timeline: fill, mark, decide. Returns the new number of fills."""
    if a.waiting_exits + a.waiting_entries + a.open_positions > 0:
        n_fills = fill_candle(t, n, open_, high, low, positions, markets, a, rules, fills, n_fills, decisions)
    mark_close(t, n, open_ms, close, positions, markets, a, rules)
    decide_candle(t, n, close, signal, positions, markets, a, rules, decisions)
    return n_fills


def run(
    start: int, stop: int, n: int, time: Any, open_: Any, high: Any, low: Any, close: Any, signal: Any,
    positions: Any, markets: Any, a: Any, rules: Any, equity: Any, fills: Any, progress: Any, decisions: Any,
) -> int:  # fmt: skip
    """Rows `start` to `stop` of the timeline; returns the first row that was not run.

    That is `stop`, or less: when the buffer `fills` may not hold another row's fills (empty it and call again), or
    when a drawdown halt has closed the last position (`progress[1]` is then 1). `progress[0]` counts the fills in the buffer.
    """
    capacity = len(fills) - 2 * n
    n_fills = 0
    t = start
    while t < stop and n_fills <= capacity:
        n_fills = step(
            t, n, time[t], open_, high, low, close, signal, positions, markets, a, rules, fills, n_fills, decisions
        )
        equity[t] = a.equity
        t += 1
        if a.halted == 1 and a.open_positions == 0:
            progress[1] = 1
            break
    progress[0] = n_fills
    return t
