"""The candle fill model: what an order costs, and which resting order a candle fills (docs/backtest-rules.md, 2-4).

Written in the subset of Python that also compiles: scalars, records and arrays; no objects are made.
"""

from math import floor, nan
from typing import Any

from atb.engine.book import Book, apply_fill
from atb.engine.reasons import (
    BREAK_EVEN,
    NEXT_OPEN,
    NEXT_OPEN_CASH_LIMITED,
    NO_CASH,
    PARTIAL_EXIT,
    REFUSED_HALTED,
    STOP,
    STOP_AT_OPEN,
    STOP_BEFORE_TAKE,
    STOP_LOSS,
    TAKE,
    TAKE_BEFORE_STOP,
    TAKE_PROFIT,
    TIME_EXIT,
    TRAILING_STOP,
)


def sell_price(price: float, slip: float) -> float:
    """What a market sell gets while the market is at `price`."""
    return price * (1.0 - slip)


def buy_price(price: float, slip: float) -> float:
    """What a market buy pays while the market is at `price`."""
    return price * (1.0 + slip)


def stop_price(open_: float, stop: float, slip: float) -> float:
    """What a stop gets: the worse of stop and open, sold at the market."""
    return sell_price(open_ if open_ <= stop else stop, slip)


def fill_value(qty: int, price: float, market: Any) -> float:
    """Quote value of `qty` signed lots."""
    return (qty * market.lot) * price  # type: ignore[no-any-return]


def fill_fee(value: float, rate: float) -> float:
    """What a fill of that value costs, in quote."""
    return abs(value) * rate


def affordable_lots(lots: int, price: float, cash: float, market: Any, fee: float) -> int:
    """`lots`, or as many of them as `cash` pays; none where a buy that was cut is worth too little."""
    affordable = cash / (price * market.lot * (1.0 + fee))
    if affordable < lots:
        lots = floor(affordable) if affordable > 0.0 else 0
        if fill_value(lots, price, market) < market.min_notional:
            return 0
    return lots


def book_fill(
    t: int, s: int, qty: int, price: float, reason: int, rule: int, p: Any, market: Any, a: Any, rules: Any, row: Any
) -> None:
    """Book a fill of `qty` signed lots of symbol `s` and write its row: the one place where a quantity changes."""
    value = fill_value(qty, price, market)
    fee = fill_fee(value, rules.fee)
    book = apply_fill(Book(p.qty, p.cost, a.cash, a.realized, a.fees), qty, value, fee)
    p.qty = book.qty
    p.cost = book.cost
    a.cash = book.cash
    a.realized = book.realized
    a.fees = book.fees
    row.t = t
    row.symbol = s
    row.qty = qty
    row.price = price
    row.fee = fee
    row.reason = reason
    row.rule = rule


def enter_position(p: Any, market: Any) -> None:
    """What an entry's fill leaves behind: the position begins now, at what it cost."""
    p.entry_qty = p.qty
    p.entry_price = p.cost / (p.qty * market.lot)
    p.best_close = p.entry_price
    p.closes_held = 0
    p.partials_done = 0


def want_nothing(p: Any) -> None:
    """No target and no levels: of this symbol nothing is held and nothing is wanted."""
    p.target_qty = 0
    p.stop = nan
    p.take = nan


def close_position(p: Any, a: Any, rules: Any, reason: int) -> None:
    """What a fill that closes a position leaves behind: no levels, and what a new entry has to wait for."""
    a.open_positions -= 1
    want_nothing(p)
    p.cooldown_left = rules.cooldown
    protective = (
        reason == STOP_LOSS
        or reason == TAKE_PROFIT
        or reason == TRAILING_STOP
        or reason == BREAK_EVEN
        or reason == TIME_EXIT
        or reason == PARTIAL_EXIT
    )
    p.needs_new_signal = 1 if protective and rules.cooldown == 0 else 0


def sell_at_open(t: int, s: int, open_: float, p: Any, market: Any, a: Any, rules: Any, row: Any) -> None:
    """Sell down to the target at the open."""
    a.waiting_exits -= 1
    reason = p.target_reason
    price = sell_price(open_, rules.slip)
    book_fill(t, s, p.target_qty - p.qty, price, reason, NEXT_OPEN, p, market, a, rules, row)
    if p.qty == 0:
        close_position(p, a, rules, reason)


def buy_at_open(t: int, s: int, open_: float, p: Any, market: Any, a: Any, rules: Any, row: Any, decisions: Any) -> int:
    """Buy up to the target at the open, as far as the cash goes. 1 if something was bought."""
    a.waiting_entries -= 1
    p.waiting = 0.0
    if a.halted == 1:
        want_nothing(p)
        decisions[REFUSED_HALTED] += 1
        return 0
    price = buy_price(open_, rules.slip)
    wanted = p.target_qty - p.qty
    lots = affordable_lots(wanted, price, a.cash, market, rules.fee)
    if lots == 0:
        want_nothing(p)
        decisions[NO_CASH] += 1
        return 0
    rule = NEXT_OPEN if lots == wanted else NEXT_OPEN_CASH_LIMITED
    book_fill(t, s, lots, price, p.target_reason, rule, p, market, a, rules, row)
    a.open_positions += 1
    p.target_qty = p.qty
    enter_position(p, market)
    return 1


def fill_resting(
    t: int, s: int, open_: float, high: float, low: float, p: Any, market: Any, a: Any, rules: Any, row: Any
) -> None:
    """Fill the resting stop or take that the candle touches; a candle that touches both fills the stop."""
    stopped = low <= p.stop
    taken = high >= p.take
    price = p.take
    rule = TAKE
    reason = TAKE_PROFIT
    if stopped and not (taken and rules.take_before_stop == 1 and open_ > p.stop):
        reason = p.stop_reason
        price = stop_price(open_, p.stop, rules.slip)
        rule = STOP
        if open_ <= p.stop:
            rule = STOP_AT_OPEN
        elif taken:
            rule = STOP_BEFORE_TAKE
    elif stopped:
        rule = TAKE_BEFORE_STOP
    book_fill(t, s, -p.qty, price, reason, rule, p, market, a, rules, row)
    close_position(p, a, rules, reason)
