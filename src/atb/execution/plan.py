"""What is left to do for a symbol: from what should be held and rest, and what does. Pure, and idempotent by construction.

One thing after the other, so that a crash in between leaves a state from which the same plan goes on: what is unknown is found
out, an order under way is waited for, what locks the coins is cancelled, the target is traded, and what is held is
protected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

from atb.core.money import floor_to, lots_to_base, price_to_decimal
from atb.core.orders import CLOCKS_DIFFER, NewOrder
from atb.core.timeframe import in_ms
from atb.core.types import MarketRules
from atb.engine.reasons import EMERGENCY_CLOSE, PARTIAL_EXIT, TAKE_PROFIT
from atb.execution.offers import Offers, Resting
from atb.execution.state import TARGET_PURPOSES, TradingState
from atb.ledger.records import Order

ZERO = Decimal(0)
HANGS_MS = 10_000  # a market order that has bought a part is not waited for any longer
SOLD_AS = {PARTIAL_EXIT: "partial", EMERGENCY_CLOSE: "emergency"}


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


def next_step(state: TradingState, s: int, offers: Offers, now_ms: int = 0) -> Step:
    """What to do next for symbol s. now_ms: the exchange's clock."""
    working = list(state.working[s].values())
    unknown = [order for order in working if order.state in ("intent", "unknown")]
    if unknown:
        return Step(find=unknown)
    if s in state.flattening:
        return _flatten(state, s, offers, working)
    if any(order.purpose in TARGET_PURPOSES for order in working):
        return Step(cancel=_hanging(state, s, working, now_ms))
    p = state.position(s)
    if p.target_qty > p.qty:
        return Step(place=[_market(state, s, "buy", "entry", p.target_qty - p.qty)])
    if offers.dust:
        return Step(cancel=working) if working else NOTHING
    if p.target_qty < p.qty and not offers.kept:
        return Step(cancel=working) if working else _sell(state, s, offers)
    return _protect(working, protection(state, s, offers))


def _hanging(state: TradingState, s: int, working: Sequence[Order], now_ms: int) -> Sequence[Order]:
    """Entries that have bought a part and do not come to their end: it can neither be protected nor sold before."""
    p = state.position(s)
    entries = [order for order in working if order.purpose == "entry" and order.filled_qty]
    return tuple(o for o in entries if p.target_qty < p.qty or now_ms > in_ms(o.created_at) + HANGS_MS)


def _flatten(state: TradingState, s: int, offers: Offers, working: list[Order]) -> Step:
    """Whatever works is cancelled, also an entry; only a sale that closes is waited for."""
    if offers.kept and not any(order.purpose in TARGET_PURPOSES for order in working):
        return _protect(working, protection(state, s, offers))
    others = [order for order in working if order.purpose != "emergency"]
    if others:
        return Step(cancel=others)
    return NOTHING if working or offers.dust else _sell(state, s, offers)


def protection(state: TradingState, s: int, offers: Offers) -> list[Wanted]:
    """What should rest at the exchange for what is held of symbol s: its take and its stop, for all whole lots of it, or
    the next best of what was not refused."""
    ways = _ways(state, s, offers)
    return next((list(wanted) for wanted in ways if as_resting(wanted) not in offers.refused), [])


def _ways(state: TradingState, s: int, offers: Offers) -> Iterator[Sequence[Wanted]]:
    p, rules = state.position(s), state.traded[s].rules
    qty = _in_one_order(_sellable(state, s, offers), rules)
    if qty <= 0:
        return
    stops = p.stop == p.stop and offers.stop_type
    if p.take == p.take and (offers.pairs or p.stop != p.stop):
        price = price_to_decimal(p.take, rules.tick)
        take = Wanted("take", NewOrder("", state.traded[s].symbol, "sell", "take_limit", qty, price=price))
        yield [take, _stop(state, s, offers, qty)] if stops else [take]
    if stops:
        at = price_to_decimal(p.stop, rules.tick)
        yield [_stop(state, s, offers, qty)]
        if (last := _last_trigger(state, s)) is not None and last < at:
            yield [_stop(state, s, offers, qty, last)]
        yield [_stop(state, s, offers, qty, max(floor_to(at * (1 - offers.offset), rules.tick), rules.tick))]


def _last_trigger(state: TradingState, s: int) -> Decimal | None:
    """Of the stop that rested last for what is held: what the exchange took once."""
    stops = (order for order in orders_since(state, s) if order.purpose == "stop" and order.venue_order_id)
    return next((order.stop_price for order in stops), None)


def orders_since(state: TradingState, s: int) -> Iterator[Order]:
    """Orders of symbol s since what is held of it was bought, the newest first."""
    symbol = state.traded[s].symbol
    position = state.books.positions.get((symbol.market, symbol.id))
    for order in reversed(state.books.orders.values()) if position else ():  # one that was adopted stands late
        if position and order.key == position.key and order.created_at >= position.opened_at - CLOCKS_DIFFER:
            yield order


def overdue(state: TradingState, s: int, last: float) -> int | None:
    """The reason to sell what is held of symbol s now, at this price: a level was passed, and no order rests that sells there.

    A take where the exchange has no pairs, a stop that it refused, and the gap of a stop-limit: the market went past its limit.
    """
    p = state.position(s)
    if p.qty <= 0 or p.target_qty < p.qty:
        return None
    resting = {order.purpose: order for order in state.working[s].values()}
    if last >= p.take and "take" not in resting:
        return TAKE_PROFIT
    if not last <= p.stop:
        return None
    stop = resting.get("stop")
    passed = stop is None or (stop.price is not None and Decimal(repr(last)) < stop.price) or _is_wider(state, s, stop)
    return p.stop_reason if passed else None


def _is_wider(state: TradingState, s: int, stop: Order) -> bool:
    """It rests below where it belongs, which is watched."""
    belongs = price_to_decimal(state.position(s).stop, state.traded[s].rules.tick)
    return stop.stop_price is not None and stop.stop_price < belongs


def _stop(state: TradingState, s: int, offers: Offers, qty: Decimal, at: Decimal | None = None) -> Wanted:
    traded = state.traded[s]
    at = price_to_decimal(state.position(s).stop, traded.rules.tick) if at is None else at
    limit = None
    if offers.stop_type == "stop_limit":
        limit = max(floor_to(at * (1 - offers.offset), traded.rules.tick), traded.rules.tick)
    return Wanted("stop", NewOrder("", traded.symbol, "sell", offers.stop_type, qty, price=limit, stop_price=at))


def _sellable(state: TradingState, s: int, offers: Offers) -> Decimal:
    held = max(state.held(s), ZERO)
    return held if offers.most is None else min(held, offers.most)


def _in_one_order(qty: Decimal, rules: MarketRules) -> Decimal:
    """As much of it as one order may be, in whole lots."""
    return floor_to(qty if rules.max_qty is None else min(qty, rules.max_qty), rules.lot)


def _sell(state: TradingState, s: int, offers: Offers) -> Step:
    p, lot = state.position(s), state.traded[s].rules.lot
    lots = min(p.qty - p.target_qty, int(_sellable(state, s, offers) // lot))
    purpose = SOLD_AS.get(p.target_reason, "exit")
    return Step(place=[_market(state, s, "sell", purpose, lots)]) if lots > 0 else NOTHING


def _protect(working: list[Order], wanted: list[Wanted]) -> Step:
    """Nothing where the right orders rest; else what rests is cancelled first, for it has the coins."""
    if resting(working) == as_resting(wanted):
        return NOTHING
    return Step(cancel=working) if working else Step(place=wanted)


def has_stop(state: TradingState, s: int) -> bool:
    """Whether the exchange is known to have a stop for what is held."""
    return any(o.purpose == "stop" and o.state not in ("intent", "unknown") for o in state.working[s].values())


def resting(orders: Iterable[Order]) -> Resting:
    return tuple(sorted(map(_of_order, orders)))


def _of_order(order: Order) -> tuple[str, Decimal, Decimal]:
    """What matters of an order that rests: a stop is as good as a stop-limit of the same price."""
    at = order.stop_price if order.purpose == "stop" else order.price
    return order.purpose, order.qty - order.filled_qty, at or ZERO


def as_resting(wanted: Sequence[Wanted]) -> Resting:
    """What matters of orders that would rest."""
    return tuple(sorted(map(_of_wanted, wanted)))


def _of_wanted(wanted: Wanted) -> tuple[str, Decimal, Decimal]:
    order = wanted.order
    at = order.stop_price if wanted.purpose == "stop" else order.price
    return wanted.purpose, order.qty, at or ZERO


def _market(state: TradingState, s: int, side: str, purpose: str, lots: int) -> Wanted:
    """What is left of a sale is sold next; of an entry, it is not bought."""
    symbol, rules = state.traded[s]
    return Wanted(purpose, NewOrder("", symbol, side, "market", _in_one_order(lots_to_base(lots, rules.lot), rules)))
