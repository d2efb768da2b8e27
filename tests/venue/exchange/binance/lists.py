"""Pairs of orders of which one cancels the other (OCO), in the new form and the old."""

from __future__ import annotations

from decimal import Decimal

from tests.venue.exchange.accounts import Account
from tests.venue.exchange.binance import render
from tests.venue.exchange.binance.errors import ApiError, either, not_required, rejection
from tests.venue.exchange.binance.orders import (
    IGNORED,
    RENDERED,
    SIDES,
    TIMES,
    WITH_PRICE,
    WITH_TIME,
    cancel_order,
    check,
    client_id,
    count,
    made,
    positive,
    response,
)
from tests.venue.exchange.binance.params import Params
from tests.venue.exchange.engine import Rejected
from tests.venue.exchange.market import Market
from tests.venue.exchange.orders import Order, OrderList
from tests.venue.exchange.wire import Call, Reply

LEG_TYPES = ("STOP_LOSS_LIMIT", "STOP_LOSS", "LIMIT_MAKER", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT")
NOT_IN_PAIRS = (-1158, "Order type not supported in OCO.")

# (side, which leg, what it begins with) that cannot be: the price would have to be where it is not.
MISPLACED: dict[tuple[str, str, str], tuple[int, str]] = {
    ("BUY", "above", "LIMIT"): (-1165, "A limit order in a buy OCO must be below."),
    ("SELL", "below", "LIMIT"): (-1166, "A limit order in a sell OCO must be above."),
    ("BUY", "below", "STOP"): (-1196, "A stop loss order in a buy OCO must be above."),
    ("SELL", "above", "STOP"): (-1197, "A stop loss order in a sell OCO must be below."),
    ("BUY", "above", "TAKE"): (-1198, "A take profit order in a buy OCO must be below."),
    ("SELL", "below", "TAKE"): (-1199, "A take profit order in a sell OCO must be above."),
}


def create(call: Call, account: Account) -> Reply:
    """POST /api/v3/orderList/oco"""
    params = Params(call)
    market, side, qty = _common(params)
    legs = [_leg(params, name, account, market, side, qty, call) for name in ("above", "below")]
    if all(leg.type == "LIMIT_MAKER" for leg in legs):
        raise ApiError(-1168, "At least one OCO order must be contingent.")
    return _submit(call, params, (legs[0], legs[1]))


def create_old(call: Call, account: Account) -> Reply:
    """POST /api/v3/order/oco"""
    params = Params(call)
    market, side, qty = _common(params)
    limit_price, stop = positive(params, "price"), positive(params, "stopPrice")
    stop_price = positive(params, "stopLimitPrice") if params.text("stopLimitPrice") is not None else None
    kind = "STOP_LOSS" if stop_price is None else "STOP_LOSS_LIMIT"
    time_in_force = _time(params, "stopLimitTimeInForce", kind)
    name, limit_name = (client_id(params, f"{leg}ClientOrderId", call) for leg in ("stop", "limit"))
    params.ignore(*(f"{leg}{ignored}" for leg in ("stop", "limit") for ignored in ("StrategyId", "StrategyType")))
    stops = made(account, market, side, kind, qty, stop_price, stop, time_in_force, name)
    limit = made(account, market, side, "LIMIT_MAKER", qty, limit_price, None, "GTC", limit_name)
    return _submit(call, params, (stops, limit))


def query(call: Call, account: Account) -> Reply:
    params = Params(call)
    number, name = params.integer("orderListId"), params.text("origClientOrderId")
    params.done()
    both = _find(account, number, name, ("orderListId", "origClientOrderId"))
    if both is None or not call.visible(both.orders[0].created_ms):
        raise ApiError(-2018, "Order list does not exist.")
    return Reply(200, render.listed(both))


def query_open(call: Call, account: Account) -> Reply:
    Params(call).done()
    mine = (both for both in account.lists if both.open and call.visible(both.orders[0].created_ms))
    return Reply(200, [render.listed(both) for both in mine])


def query_all(call: Call, account: Account) -> Reply:
    params = Params(call)
    first, start, end = (params.integer(name) for name in ("fromId", "startTime", "endTime"))
    limit = params.limit()
    params.done()
    mine = [
        both
        for both in account.lists
        if both.id >= (first or 0) and (start or 0) <= both.orders[0].created_ms <= (end or call.now_ms)
    ]
    return Reply(200, [render.listed(both) for both in (mine[:limit] if first else mine[-limit:])])


def cancel(call: Call, account: Account) -> Reply:
    params = Params(call)
    market = params.market()
    number, name = params.integer("orderListId"), params.text("listClientOrderId")
    cancel_id = client_id(params, "newClientOrderId", call)
    params.done()
    both = _find(account, number, name, ("orderListId", "listClientOrderId"))
    if both is None or not both.open or both.symbol != market.name:
        raise ApiError(-2011, "Unknown order list sent.")
    return Reply(200, cancel_order(call, next(order for order in both.orders if order.open), cancel_id, None))


def _common(params: Params) -> tuple[Market, str, Decimal]:
    market = params.market()
    if not market.listing.pairs:
        raise ApiError(-1013, "OCO orders are not supported for this symbol.")
    side = params.choice("side", SIDES, (-1117, "Invalid side."))
    return market, side, positive(params, "quantity")


def _leg(params: Params, leg: str, account: Account, market: Market, side: str, qty: Decimal, call: Call) -> Order:
    kind = params.choice(f"{leg}Type", LEG_TYPES, NOT_IN_PAIRS)
    if error := MISPLACED.get((side, leg, kind.partition("_")[0])):
        raise ApiError(*error)
    price = _where(params, f"{leg}Price", kind in WITH_PRICE)
    stop = _where(params, f"{leg}StopPrice", kind in render.STOPS)
    time_in_force = _time(params, f"{leg}TimeInForce", kind)
    name = client_id(params, f"{leg}ClientOrderId", call)
    params.ignore(f"{leg}StrategyId", f"{leg}StrategyType")
    return made(account, market, side, kind, qty, price, stop, time_in_force, name)


def _where(params: Params, name: str, needed: bool) -> Decimal | None:
    if needed:
        return positive(params, name)
    if params.text(name) is not None:
        raise not_required(name)
    return None


def _time(params: Params, name: str, kind: str) -> str:
    if kind in WITH_TIME:
        return params.choice(name, TIMES, (-1115, "Invalid timeInForce."))
    if params.text(name) is not None:
        raise not_required(name)
    return "GTC"


def _submit(call: Call, params: Params, legs: tuple[Order, Order]) -> Reply:
    name, style = client_id(params, "listClientOrderId", call), response(params, "RESULT")
    params.ignore(*IGNORED)
    params.done()
    count(call, legs[0].account, 2)
    check(call, *legs)
    if any(both.client_id == name for both in legs[0].account.lists if both.open):
        raise ApiError(-2010, "Duplicate order sent.")
    stops_first = legs if legs[0].type in render.STOPS else (legs[1], legs[0])
    try:
        both = call.exchange.engine.place_list(stops_first, name)
    except Rejected as rejected:
        raise rejection(rejected) from None
    return Reply(200, {**render.listed(both), "orderReports": [RENDERED[style](order) for order in both.orders]})


def _find(account: Account, number: int | None, name: str | None, names: tuple[str, str]) -> OrderList | None:
    if number is None and name is None:
        raise either(*names)
    if number is not None:
        return next((both for both in account.lists if both.id == number), None)
    return next((both for both in reversed(account.lists) if both.client_id == name), None)
