"""What follows from an order that the exchange has refused: whether, how and when it is tried again, and what rests instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING

from atb.core.errors import DataError, ExchangeRefused, UsageError
from atb.core.money import floor_to
from atb.core.types import MarketRules
from atb.engine.reasons import REASON_NAMES
from atb.execution.dust import is_too_little
from atb.execution.fills import NOT_TOLD, Event
from atb.execution.plan import Wanted, as_resting, has_stop, orders_since, protection, resting
from atb.execution.traded import Traded
from atb.ledger.records import Order
from atb.venue.broker import OrderRefused

if TYPE_CHECKING:
    from atb.execution.executor import Executor

PASSING = ("too_fast", "clock", "not_sent", "barred")  # it says nothing about the order
SIZE = ("min_notional", "lot")
PROTECTING = ("stop", "take")  # purposes of orders that rest for what is held
OTHERWISE = ("", *PASSING, *SIZE, "insufficient_balance")  # it was not refused, or not because of what it was
LONGEST_SILENCE_MS = 60_000  # however long the exchange wants nothing of us, it is tried again after this


def refused(e: Executor, s: int, wanted: Sequence[Wanted], error: ExchangeRefused) -> bool:
    """Whether the plan of symbol s may go on at once, to something else."""
    reason = reason_of(error)
    e.tell(Event("warning", "order_refused", f"{wanted[0].purpose} of {wanted[0].order.symbol.id}: {error.what}"))
    if reason in PASSING:
        e.silent_until_ms = e.broker.now_ms() + _silence_ms(error)
        return False
    if reason in SIZE and _learn(e, s):
        return True
    if any(w.purpose == "entry" for w in wanted):
        return False
    if reason == "insufficient_balance":
        return _sell_what_is_free(e, s, wanted[0].order.qty)
    if reason in SIZE and is_too_little(e.state, s):
        e.told.too_little(s, e.state.held(s))
        return False
    if all(w.purpose in PROTECTING for w in wanted):
        return _not_protected(e, s, wanted, reason)
    return _not_sold(e, s, wanted[0], error)


def _silence_ms(error: ExchangeRefused) -> int:
    return min(round(error.wait_s * 1000), LONGEST_SILENCE_MS) if isinstance(error, OrderRefused) else 0


def reason_of(error: ExchangeRefused) -> str:
    """One word, as venue.broker.OrderRefused tells it."""
    return error.reason if isinstance(error, OrderRefused) else "refused"


def forget_what_may_have_passed(e: Executor, s: int) -> None:
    """Of what was refused only what may still be so is remembered: it is tried again at the next candle where nothing rests,
    and in time where nothing but a take does."""
    working, open_ms, is_new = e.state.working[s].values(), e.state.last_open_ms, s not in e.told.asked_ms
    if has_stop(e.state, s) or not e.state.held(s):
        e.told.is_protected(s)
    if is_new and working and all(o.purpose in PROTECTING for o in working):
        _recall(e, s)
        e.told.asked_ms[s] = open_ms
    if not working and (is_new or e.told.asked_ms[s] != open_ms):
        e.told.ask_again(s)
        e.told.asked_ms[s] = open_ms
    if all(o.purpose == "take" for o in working) and e.told.is_due(s, e.broker.now_ms()):
        e.told.try_again(s)


def _recall(e: Executor, s: int) -> None:
    """What an earlier process was refused for what is held, by its orders: what rests rightly is not cancelled for a better
    try."""
    mine = [o for o in orders_since(e.state, s) if o.purpose in PROTECTING and o.refused_as not in OTHERWISE]
    now = resting(e.state.working[s].values())
    for tried in map(resting, _as_sent(reversed(mine))):
        if tried != now:  # it was taken later
            e.told.not_so(s, tried)


def _as_sent(orders: Iterable[Order]) -> list[list[Order]]:
    """A take and the stop of the same time after it were a pair."""
    sent: list[list[Order]] = []
    for order in orders:
        last = sent[-1] if sent else []
        if order.purpose == "stop" and [o.purpose for o in last] == ["take"] and last[0].created_at == order.created_at:
            last.append(order)
        else:
            sent.append([order])
    return sent


def _learn(e: Executor, s: int) -> bool:
    """Ask for the rules of a symbol anew. Whether they are others than we thought."""
    symbol, rules = e.state.traded[s]
    try:
        told = e.broker.market_rules(symbol, fresh=True)
    except (*NOT_TOLD, DataError, UsageError):
        return False
    if _numbers(told) == _numbers(rules):
        return False
    e.state.learn(Traded(symbol, told))
    e.tell(Event("warning", "rules_changed", f"{symbol.id}: the exchange's rules for its orders have changed."))
    return True


def _numbers(rules: MarketRules) -> tuple[Decimal | None, ...]:
    return rules.lot, rules.tick, rules.min_notional, rules.min_qty, rules.max_qty


def _sell_what_is_free(e: Executor, s: int, asked: Decimal) -> bool:
    """An order of ours has it that was taken for never sent; or less is there than the books say, or something else has it
    locked: protect what there is."""
    if _is_ours_after_all(e, s):
        return True
    free = free_to_sell(e, s)
    if free is None or free >= asked:
        return False
    e.told.at_most(s, free)
    base = e.state.traded[s].symbol.base
    what = f"{e.state.held(s).normalize():f} {base} are held by the books, and {free:f} of them are free to be sold"
    e.tell(Event("error", "less_is_free", f"{what}. See: atb live sync-balance"))
    return free > 0


def _is_ours_after_all(e: Executor, s: int) -> bool:
    """Whether an order rests that was taken for never sent: it goes on."""
    with suppress(*NOT_TOLD):
        return e.revive(e.broker.open_orders([e.state.traded[s].symbol]))
    return False


def look_at_what_is_free(e: Executor, s: int) -> None:
    """Whether less can still be sold than is held: asked, rather than tried with what protects it. What has it locked may be told
    long after it was looked up in vain; but first the fate of each order is found out, or its executions would seem foreign."""
    if not any(o.state in ("intent", "unknown") for o in e.state.working[s].values()):
        _is_ours_after_all(e, s)
    free = free_to_sell(e, s)
    if free is not None:
        resting = max(
            (o.qty - o.filled_qty for o in e.state.working[s].values() if o.side == "sell"), default=Decimal(0)
        )
        there = free + resting
        e.told.at_most(s, there if there < floor_to(e.state.held(s), e.state.traded[s].rules.lot) else None)


def free_to_sell(e: Executor, s: int) -> Decimal | None:
    """Whole lots in base units, beside what orders have locked; None where nobody tells."""
    traded = e.state.traded[s]
    try:
        balance = e.broker.balances().get(traded.symbol.base)
    except NOT_TOLD:
        return None
    return floor_to(balance.free, traded.rules.lot) if balance else Decimal(0)


def _not_protected(e: Executor, s: int, wanted: Sequence[Wanted], reason: str) -> bool:
    """The next best: the stop without its take, another type, a wider one; at last it is watched."""
    stops = any(w.purpose == "stop" for w in wanted)
    if reason == "would_trigger" and stops and len(wanted) == 1:
        p = e.state.position(s)
        if p.target_qty:
            e.get_out(s, REASON_NAMES[p.stop_reason], "the price is past the stop already")
            return True
    if reason == "not_supported" and stops and len(wanted) == 1:
        e.told.no_such_type(s, wanted[0].order.type)
    else:
        e.told.not_so(s, as_resting(wanted))
    p, best = e.state.position(s), protection(e.state, s, e.offers(s))
    has_none = not best or (p.stop == p.stop and all(w.purpose == "take" for w in best))
    if has_none and not e.told.waits(s, e.broker.now_ms()):
        _nothing_rests(e, s)
    return True


def _nothing_rests(e: Executor, s: int) -> None:
    wait_s = e.told.nothing_rests(s, e.state.held(s), e.broker.now_ms()) / 1000
    symbol = e.state.traded[s].symbol
    what = f"What is held of {symbol.id} has no stop: all was refused. Its price is watched, and all is tried again"
    e.tell(Event("critical", "stop_refused", f"{what} in {wait_s:g} s."))


def _not_sold(e: Executor, s: int, sale: Wanted, error: ExchangeRefused) -> bool:
    """It is protected again, and sold later."""
    held, symbol = e.state.held(s), sale.order.symbol.id
    wait_s = e.told.no_sale(s, held, e.broker.now_ms()) / 1000
    what = f"{symbol} cannot be sold ({error.what}). It is protected meanwhile, and tried again in {wait_s:g} s."
    e.tell(Event("critical", "sale_refused", what))
    return True
