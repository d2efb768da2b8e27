"""What is left to do for a symbol: from what should be held and rest, and what does. Pure, and idempotent by construction.

One thing after the other, so that a crash in between leaves a state from which the same plan goes on: what is unknown is found
out, an order under way is waited for, what locks the coins is cancelled, the target is traded, and what is held is
protected.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from atb.core.money import floor_to, lots_to_base, price_to_decimal
from atb.core.orders import NewOrder
from atb.engine.reasons import PARTIAL_EXIT
from atb.execution.state import TARGET_PURPOSES, TradingState
from atb.ledger.records import Order


class Wanted(NamedTuple):
    """An order to be placed; its client id is given when it is."""

    purpose: str
    order: NewOrder


class Step(NamedTuple):
    """What to do next: find out, cancel, or place (two: a pair). All empty: nothing is left to do now."""

    find: Sequence[Order] = ()
    cancel: Sequence[Order] = ()
    place: Sequence[Wanted] = ()


NOTHING = Step()


def next_step(state: TradingState, s: int, pairs: bool) -> Step:
    """What to do next for symbol s. `pairs`: the venue has take-profit and stop as one; without it only the stop rests."""
    working = list(state.working[s].values())
    unknown = [order for order in working if order.state in ("intent", "unknown")]
    if unknown:
        return Step(find=unknown)
    p = state.position(s)
    if s in state.flattening:
        return _flatten(state, s, working)
    if any(order.purpose in TARGET_PURPOSES for order in working):
        return NOTHING
    if p.target_qty > p.qty:
        return Step(place=[_market(state, s, "buy", "entry", p.target_qty - p.qty)])
    if p.target_qty < p.qty:
        purpose = "partial" if p.target_reason == PARTIAL_EXIT else "exit"
        order = _market(state, s, "sell", purpose, p.qty - p.target_qty)
        return Step(cancel=working) if working else Step(place=[order])
    return _protect(working, protection(state, s, pairs))


def _flatten(state: TradingState, s: int, working: list[Order]) -> Step:
    """Whatever works is cancelled, entries first of all; only a sale that closes is waited for."""
    others = [order for order in working if order.purpose != "emergency"]
    if others:
        return Step(cancel=others)
    p = state.position(s)
    if working or p.qty <= 0:
        return NOTHING
    return Step(place=[_market(state, s, "sell", "emergency", p.qty)])


def protection(state: TradingState, s: int, pairs: bool) -> list[Wanted]:
    """What should rest at the exchange for what is held of symbol s: its take and its stop, for all whole lots of it."""
    p, traded = state.position(s), state.traded[s]
    qty = floor_to(state.held(s), traded.rules.lot)
    if qty <= 0:
        return []
    wanted = []
    if p.take == p.take and pairs:
        price = price_to_decimal(p.take, traded.rules.tick)
        wanted.append(Wanted("take", NewOrder("", traded.symbol, "sell", "take_limit", qty, price=price)))
    if p.stop == p.stop:
        stop = price_to_decimal(p.stop, traded.rules.tick)
        wanted.append(Wanted("stop", NewOrder("", traded.symbol, "sell", "stop", qty, stop_price=stop)))
    return wanted


def _protect(working: list[Order], wanted: list[Wanted]) -> Step:
    """Nothing where the right orders rest; else what rests is cancelled first, for it has the coins."""
    if sorted(map(_of_order, working)) == sorted(map(_of_wanted, wanted)):
        return NOTHING
    return Step(cancel=working) if working else Step(place=wanted)


def _of_order(order: Order) -> tuple[str, Decimal, Decimal, Decimal]:
    zero = Decimal(0)
    return order.purpose, order.qty - order.filled_qty, order.price or zero, order.stop_price or zero


def _of_wanted(wanted: Wanted) -> tuple[str, Decimal, Decimal, Decimal]:
    zero, order = Decimal(0), wanted.order
    return wanted.purpose, order.qty, order.price or zero, order.stop_price or zero


def _market(state: TradingState, s: int, side: str, purpose: str, lots: int) -> Wanted:
    traded = state.traded[s]
    return Wanted(purpose, NewOrder("", traded.symbol, side, "market", lots_to_base(lots, traded.rules.lot)))
