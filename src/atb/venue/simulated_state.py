"""The state of the simulated exchange as plain data, and such a state made from what a ledger knows.

A paper account's exchange lives in the process that trades. After a restart it is made anew from the ledger: what it had done
and the ledger had not heard of has never happened, and happens again, with the same ids, when it meets the same candles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from atb.core.orders import NewOrder, SeenFill, SeenOrder
from atb.core.timeframe import in_ms, moment
from atb.core.types import Symbol
from atb.venue.simulated_market import Candle
from atb.venue.simulated_orders import Resting

State = dict[str, Any]


def known_state(
    orders: Iterable[SeenOrder],
    balances: Mapping[str, Decimal],
    closed: Mapping[Symbol, tuple[int, float]],
    *,
    pairs: Iterable[tuple[str, str]] = (),
    fills: Iterable[SeenFill] = (),
    bought: Mapping[Symbol, Decimal] | None = None,
    cash: Mapping[str, float] | None = None,
) -> State:
    """A state for `SimulatedBroker.restored` from what a ledger knows.

    orders: the working ones, and others that may be asked for. closed: open time and close of the last candle that was seen of
    each symbol. pairs: client ids of take and stop. fills: executions, of which those of working orders matter (trade ids count
    on). bought: what of the coins is a position, for the audit. cash: quote as the engine counts it, where that is at hand.

    A candle that runs is met again from its open: to all these orders all of it counts, as it does in the backtest.
    """
    kept = {o.client_order_id: _kept(o) for o in orders}
    for take, stop in pairs:
        if kept[take].working and kept[stop].working:
            kept[take].partner, kept[stop].partner = kept[stop].venue_order_id, kept[take].venue_order_id
            kept[stop].second = True
    return {
        "orders": [order_state(o) for o in kept.values()],
        "fills": [fill_state(f) for f in fills],
        "balances": {asset: str(total) for asset, total in balances.items()},
        "cash": dict(cash or {}),
        "candles": {s.id: asdict(Candle(at, c, c, c, c, closed=True)) for s, (at, c) in closed.items()},
        "bought": {s.id: str(qty) for s, qty in (bought or {}).items()},
    }


def order_state(o: Resting) -> State:
    asked = {**o.asked._asdict(), "symbol": o.asked.symbol.id}
    return {**vars(o), "asked": {k: _text(v) for k, v in asked.items()}, "filled_qty": str(o.filled_qty)}


def order_from(data: State, symbols: Mapping[str, Symbol]) -> Resting:
    asked = data["asked"]
    numbers = {k: None if asked[k] is None else Decimal(asked[k]) for k in ("qty", "price", "stop_price")}
    order = NewOrder(**{**asked, **numbers, "symbol": symbols[asked["symbol"]]})
    return Resting(**{**data, "asked": order, "filled_qty": Decimal(data["filled_qty"])})


def fill_state(fill: SeenFill) -> State:
    plain = {**fill._asdict(), "symbol": fill.symbol.id, "at": in_ms(fill.at)}
    return {k: _text(v) for k, v in plain.items()}


def fill_from(data: State, symbols: Mapping[str, Symbol]) -> SeenFill:
    numbers = {k: None if data[k] is None else Decimal(data[k]) for k in ("qty", "price", "fee", "fee_quote")}
    return SeenFill(**{**data, **numbers, "symbol": symbols[data["symbol"]], "at": moment(data["at"])})


def _text(value: object) -> object:
    return str(value) if isinstance(value, Decimal) else value


def _kept(o: SeenOrder) -> Resting:
    asked = NewOrder(o.client_order_id, o.symbol, o.side, o.type, o.qty, o.price, o.stop_price)
    times = in_ms(o.created_at), in_ms(o.updated_at)
    return Resting(asked, o.venue_order_id, *times, state=o.state, filled_qty=o.filled_qty)
