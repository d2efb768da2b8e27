"""New orders, cancels and queries of single orders."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from tests.venue.exchange.accounts import Account
from tests.venue.exchange.binance import render, rules
from tests.venue.exchange.binance.errors import (
    ApiError,
    either,
    illegal,
    missing,
    no_such_order,
    not_required,
    rejection,
    unknown_order,
)
from tests.venue.exchange.binance.params import CLIENT_ID, Params
from tests.venue.exchange.engine import Rejected
from tests.venue.exchange.market import ORDER_TYPES, Market
from tests.venue.exchange.money import ZERO, cut
from tests.venue.exchange.orders import Order
from tests.venue.exchange.wire import Call, Reply

SIDES = ("BUY", "SELL")
TIMES = ("GTC", "IOC", "FOK")
RESPONSES = ("ACK", "RESULT", "FULL")
WITH_PRICE = ("LIMIT", "LIMIT_MAKER", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT")
WITH_TIME = ("LIMIT", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT")
RENDERED = {"ACK": render.acknowledged, "RESULT": render.result, "FULL": render.full}
IGNORED = ("selfTradePreventionMode", "strategyId", "strategyType")


# --- the endpoints


def create(call: Call, account: Account) -> Reply:
    order, style = read_order(call, account)
    submit(call, order)
    return Reply(200, RENDERED[style](order))


def test(call: Call, account: Account) -> Reply:
    call.query.pop("computeCommissionRates", None)
    order, _ = read_order(call, account)
    check(call, order)
    return Reply(200, {})


def cancel(call: Call, account: Account) -> Reply:
    params = Params(call)
    market = params.market()
    order = find(call, account, market, params.integer("orderId"), params.text("origClientOrderId"))
    cancel_id = client_id(params, "newClientOrderId", call)
    restriction = params.text("cancelRestrictions")
    params.done()
    return Reply(200, cancel_order(call, order, cancel_id, restriction))


def query(call: Call, account: Account) -> Reply:
    params = Params(call)
    market = params.market()
    order = find(call, account, market, params.integer("orderId"), params.text("origClientOrderId"))
    params.done()
    if order is None or not call.visible(order.created_ms):
        raise no_such_order()
    return Reply(200, render.queried(order))


def cancel_all(call: Call, account: Account) -> Reply:
    """Of a symbol; a list is answered as one."""
    params = Params(call)
    market = params.market()
    params.done()
    mine = [order for order in account.open_orders if order.symbol == market.name]
    if not mine:
        raise unknown_order()
    return Reply(200, [_cancel_any(call, order) for order in mine if order.open])


def cancel_replace(call: Call, account: Account) -> Reply:
    params = Params(call)
    mode = params.choice(
        "cancelReplaceMode", ("STOP_ON_FAILURE", "ALLOW_FAILURE"), (-1102, "Invalid cancelReplaceMode.")
    )
    market, number, name = params.market(), params.integer("cancelOrderId"), params.text("cancelOrigClientOrderId")
    cancel_id = client_id(params, "cancelNewClientOrderId", call)
    restriction = params.text("cancelRestrictions")
    old = find(call, account, market, number, name, ("cancelOrderId", "cancelOrigClientOrderId"))
    for read in ("cancelReplaceMode", "cancelOrderId", "cancelOrigClientOrderId", "cancelNewClientOrderId"):
        call.query.pop(read, None)
    order, style = read_order(call, account)
    rules.check(order, market, call.now_ms)  # before the cancel: a new order that can never be ends it here
    try:
        cancelled, gone = cancel_order(call, old, cancel_id, restriction), True
    except ApiError as error:
        cancelled, gone = error.body, False
    made, placed = (None, False) if not gone and mode == "STOP_ON_FAILURE" else _attempt(call, order, style)
    return _both(cancelled, gone, made, placed)


# --- what they are made of


def read_order(call: Call, account: Account) -> tuple[Order, str]:
    """The order that is asked for, and how it shall be answered. Nothing is changed yet."""
    params = Params(call)
    market = params.market()
    side = params.choice("side", SIDES, (-1117, "Invalid side."))
    kind = params.choice("type", ORDER_TYPES, (-1116, "Invalid orderType."))
    qty, quote_qty = _quantities(params, kind, side, market)
    price = _only_for(params, "price", kind in WITH_PRICE)
    stop = _only_for(params, "stopPrice", kind in render.STOPS)
    time_in_force = _time(params, kind)
    name = client_id(params, "newClientOrderId", call)
    style = response(params, "FULL" if kind in ("MARKET", "LIMIT") else "ACK")
    params.ignore(*IGNORED)
    params.done()
    order = made(account, market, side, kind, qty, price, stop, time_in_force, name)
    order.quote_qty = quote_qty
    return order, style


def made(
    account: Account,
    market: Market,
    side: str,
    kind: str,
    qty: Decimal,
    price: Decimal | None,
    stop: Decimal | None,
    time_in_force: str,
    name: str,
) -> Order:
    """A stop loss waits on the side where the price hurts, a take profit on the other."""
    return Order(
        account,
        market.name,
        side,
        kind,
        qty,
        name,
        price,
        stop,
        stop_above=(side == "BUY") == kind.startswith("STOP_LOSS"),
        time_in_force=time_in_force,
        maker_only=kind == "LIMIT_MAKER",
    )


def check(call: Call, *orders: Order) -> None:
    """All that is checked before the matching."""
    engine, market = call.exchange.engine, call.exchange.market(orders[0].symbol)
    for order in orders:
        rules.check_type(order, market.listing)
        rules.check(order, market, call.now_ms)
    rules.check_counts(orders, engine, market)
    names = {order.client_id for order in orders[0].account.open_orders}
    if any(order.client_id in names for order in orders) or len({order.client_id for order in orders}) < len(orders):
        raise ApiError(-2010, "Duplicate order sent.")


def submit(call: Call, order: Order) -> None:
    count(call, order.account, 1)
    check(call, order)
    try:
        call.exchange.engine.place(order)
    except Rejected as rejected:
        raise rejection(rejected) from None


def count(call: Call, account: Account, orders: int) -> None:
    if over := call.exchange.rates.order(account.name, orders, call.exchange.now_ms):
        limit, interval = over
        raise ApiError(-1015, f"Too many new orders; current limit is {limit} orders per {interval}.", 429)


def find(
    call: Call,
    account: Account,
    market: Market,
    number: int | None,
    name: str | None,
    names: tuple[str, str] = ("origClientOrderId", "orderId"),
) -> Order | None:
    """By number, else by client id: the open order of this name, else the newest that had it."""
    if number is None and name is None:
        raise either(*names)
    mine = [order for order in account.orders if order.symbol == market.name]
    if number is not None:
        return next((order for order in mine if order.id == number and name in (None, order.client_id)), None)
    called = [order for order in mine if order.client_id == name]
    return max(called, key=lambda order: (order.open, order.id), default=None)


def cancel_order(call: Call, order: Order | None, cancel_id: str, restriction: str | None) -> dict[str, Any]:
    """One of a list takes the other with it, and is answered as the list."""
    if order is None or not order.open:
        raise unknown_order()
    if restriction and restriction not in ("ONLY_NEW", "ONLY_PARTIALLY_FILLED"):
        raise ApiError(-1145, "Invalid cancelRestrictions")
    if restriction and order.status != restriction.removeprefix("ONLY_"):
        raise ApiError(-2011, "Order was not canceled due to cancel restrictions.")
    ended = call.exchange.engine.cancel(order)
    reports = [render.cancelled(other, cancel_id) for other in ended]
    if order.list:
        return {**render.listed(order.list), "orderReports": reports}
    return reports[0]


def client_id(params: Params, name: str, call: Call) -> str:
    """As it was sent, else made up."""
    sent = params.text(name)
    if sent is not None and not re.fullmatch(CLIENT_ID, sent):
        raise illegal(name, CLIENT_ID)
    return sent or f"made-up-{next_name(call)}"


def next_name(call: Call) -> int:
    call.exchange.names += 1
    return call.exchange.names


def response(params: Params, usual: str) -> str:
    style = params.text("newOrderRespType") or usual
    if style not in RESPONSES:
        raise missing("newOrderRespType")
    return style


def positive(params: Params, name: str) -> Decimal:
    value = params.decimal(name)
    if value is None:
        raise missing(name)
    if value == 0:
        raise ApiError(-1013, f"Invalid {'quantity' if 'uantity' in name else 'price'}.")
    return value


def _quantities(params: Params, kind: str, side: str, market: Market) -> tuple[Decimal, Decimal]:
    """A market order may be given by what it shall cost, or bring."""
    if kind != "MARKET" or params.text("quoteOrderQty") is None:
        if params.text("quoteOrderQty") is not None:
            raise not_required("quoteOrderQty")
        return positive(params, "quantity"), ZERO
    if params.text("quantity") is not None:
        raise ApiError(-1102, "Param 'quantity' or 'quoteOrderQty' must be sent, but both were sent.")
    quote_qty = positive(params, "quoteOrderQty")
    qty = cut(quote_qty / market.at(side), Decimal(market.listing.lot))
    if qty < Decimal(market.listing.lot):
        raise ApiError(-1013, "Filter failure: NOTIONAL")
    return qty, quote_qty


def _only_for(params: Params, name: str, needed: bool) -> Decimal | None:
    if needed:
        return positive(params, name)
    if params.text(name) is not None:
        raise not_required(name)
    return None


def _time(params: Params, kind: str) -> str:
    if kind in WITH_TIME:
        return params.choice("timeInForce", TIMES, (-1115, "Invalid timeInForce."))
    if params.text("timeInForce") is not None:
        raise not_required("timeInForce")
    return "GTC"


def _cancel_any(call: Call, order: Order) -> dict[str, Any]:
    return cancel_order(call, order, f"made-up-{next_name(call)}", None)


def _attempt(call: Call, order: Order, style: str) -> tuple[dict[str, Any], bool]:
    try:
        submit(call, order)
    except ApiError as error:
        return error.body, False
    return RENDERED[style](order), True


def _both(cancelled: dict[str, Any], gone: bool, new: dict[str, Any] | None, placed: bool) -> Reply:
    words = {True: "SUCCESS", False: "FAILURE"}
    body = {
        "cancelResult": words[gone],
        "newOrderResult": "NOT_ATTEMPTED" if new is None else words[placed],
        "cancelResponse": cancelled,
        "newOrderResponse": new,
    }
    if gone and placed:
        return Reply(200, body)
    if gone or placed:
        return Reply(409, {"code": -2021, "msg": "Order cancel-replace partially failed.", "data": body})
    return Reply(400, {"code": -2022, "msg": "Order cancel-replace failed.", "data": body})
