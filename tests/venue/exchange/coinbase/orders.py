"""New orders and cancels."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any

import numpy as np

from tests.venue.exchange.accounts import Account
from tests.venue.exchange.coinbase import render
from tests.venue.exchange.coinbase.errors import OrderFailed, failed, failure_body, invalid, rejection
from tests.venue.exchange.engine import Rejected
from tests.venue.exchange.market import Market
from tests.venue.exchange.money import cut
from tests.venue.exchange.orders import Order
from tests.venue.exchange.wire import Call, Reply

Json = dict[str, Any]
ESCAPE = Decimal("0.05")  # how far behind its trigger a bracket's stop still sells


def create(call: Call, mine: Account) -> Reply:
    """The same client id again is answered by the order that has it already, and makes none."""
    asked, configuration = call.query, call.query.get("order_configuration")
    if not asked.get("client_order_id") or not isinstance(configuration, dict) or len(configuration) != 1:
        raise invalid("client_order_id and one order_configuration are required")
    if known := mine.placed(asked["client_order_id"]):
        return Reply(200, render.made(known[0]))
    try:
        order = read(call, mine)
        _submit(call, order)
    except OrderFailed as error:
        return Reply(200, failure_body(error.failure, configuration))
    return Reply(200, render.made(order))


def batch_cancel(call: Call, mine: Account) -> Reply:
    """Each by itself; what is not open any more is not known to it."""
    return Reply(200, {"results": [_cancel(call, mine, name) for name in call.query.get("order_ids", [])]})


def read(call: Call, mine: Account) -> Order:
    """The order that is asked for; nothing is changed yet."""
    product, side = call.query.get("product_id"), call.query.get("side")
    if product not in call.exchange.listings:
        raise failed("INVALID_PRODUCT_ID")
    if side not in ("BUY", "SELL"):
        raise failed("INVALID_SIDE")
    ((kind, values),) = call.query["order_configuration"].items()
    if kind not in KINDS:
        raise failed("UNSUPPORTED_ORDER_CONFIGURATION", message=f"{kind} is not supported")
    market = call.exchange.market(product)
    order = Order(mine, product, side, "LIMIT", Decimal(0), call.query["client_order_id"])
    order.asked = call.query["order_configuration"]
    KINDS[kind](order, values, market)
    _check_size(order, market)
    return order


def _submit(call: Call, order: Order) -> None:
    try:
        call.exchange.engine.place(order)
    except Rejected as rejected:
        raise rejection(rejected, order) from None
    (values,) = order.asked.values()
    if order.time_in_force == "GTD" and order.open:
        ends_ms = int(np.datetime64(values["end_time"].rstrip("Z"), "ms").astype(int))
        call.exchange.after(ends_ms - call.exchange.now_ms, partial(call.exchange.expire, order))


def _cancel(call: Call, mine: Account, name: str) -> Json:
    order = next((order for order in mine.open_orders if render.order_id(order) == name), None)
    if order is not None:
        call.exchange.engine.cancel(order)
    reason = "UNKNOWN_CANCEL_FAILURE_REASON" if order else "UNKNOWN_CANCEL_ORDER"
    return {"success": order is not None, "failure_reason": reason, "order_id": name}


# --- one reader for each configuration


def at_market(order: Order, values: Json, market: Market) -> None:
    """By what it shall cost, fees included, or by size."""
    order.type, order.time_in_force = "MARKET", "IOC"
    if "quote_size" not in values:
        order.qty = _number(values, "base_size")
        return
    order.quote_qty = _number(values, "quote_size")
    if order.quote_qty < Decimal(market.listing.min_notional):
        raise failed("INVALID_SIZE_PRECISION", "PREVIEW_INVALID_QUOTE_SIZE_TOO_SMALL")
    price = market.at(order.side) * order.account.surcharge
    order.qty = cut(order.quote_qty / price, Decimal(market.listing.lot))


def limit(how: str) -> Callable[[Order, Json, Market], None]:
    def read_limit(order: Order, values: Json, market: Market) -> None:
        order.time_in_force, order.qty = how, _number(values, "base_size")
        order.price = _price(values, "limit_price", market)
        order.maker_only = values.get("post_only") in (True, "true")

    return read_limit


def stop_limit(how: str) -> Callable[[Order, Json, Market], None]:
    def read_stop(order: Order, values: Json, market: Market) -> None:
        limit(how)(order, values, market)
        order.type, order.stop = "STOP_LIMIT", _price(values, "stop_price", market)
        order.stop_above = values.get("stop_direction") == "STOP_DIRECTION_STOP_UP"
        assert order.price is not None
        if order.side == "BUY" and order.stop > order.price:
            raise failed("UNKNOWN_FAILURE_REASON", "PREVIEW_STOP_PRICE_ABOVE_LIMIT_PRICE")
        if order.side == "SELL" and order.stop < order.price:
            raise failed("UNKNOWN_FAILURE_REASON", "PREVIEW_STOP_PRICE_BELOW_LIMIT_PRICE")

    return read_stop


def bracket(how: str) -> Callable[[Order, Json, Market], None]:
    """A take-profit that becomes a stop: both in one order, for the same coins."""

    def read_bracket(order: Order, values: Json, market: Market) -> None:
        limit(how)(order, values, market)
        order.type, order.bracket = "BRACKET", True
        order.stop, order.stop_above = _price(values, "stop_trigger_price", market), order.side == "BUY"
        worse = 1 + ESCAPE if order.stop_above else 1 - ESCAPE
        order.afterwards = cut(order.stop * worse, Decimal(market.listing.tick))
        assert order.price is not None
        if (order.price > order.stop) == (order.side == "BUY"):
            raise failed("INVALID_ORDER_CONFIG", "PREVIEW_INVALID_BRACKET_PRICES")

    return read_bracket


KINDS: dict[str, Callable[[Order, Json, Market], None]] = {
    "market_market_ioc": at_market,
    "limit_limit_gtc": limit("GTC"),
    "limit_limit_gtd": limit("GTD"),
    "limit_limit_fok": limit("FOK"),
    "sor_limit_ioc": limit("IOC"),
    "stop_limit_stop_limit_gtc": stop_limit("GTC"),
    "stop_limit_stop_limit_gtd": stop_limit("GTD"),
    "trigger_bracket_gtc": bracket("GTC"),
    "trigger_bracket_gtd": bracket("GTD"),
}


def _number(values: Json, name: str) -> Decimal:
    try:
        value = Decimal(values[name])
    except (KeyError, InvalidOperation, TypeError):
        raise invalid(f"{name} is missing or no number") from None
    if not value.is_finite() or value <= 0:
        raise invalid(f"{name} has to be above zero")
    return value


def _price(values: Json, name: str, market: Market) -> Decimal:
    price = _number(values, name)
    if price % Decimal(market.listing.tick):
        raise failed("INVALID_PRICE_PRECISION")
    return price


def _check_size(order: Order, market: Market) -> None:
    lot = Decimal(market.listing.lot)
    if order.qty % lot:
        raise failed("INVALID_SIZE_PRECISION")
    if order.qty < lot:
        raise failed("INVALID_SIZE_PRECISION", "PREVIEW_INVALID_BASE_SIZE_TOO_SMALL")
    if order.qty > Decimal(market.listing.max_qty):
        raise failed("INVALID_SIZE_PRECISION", "PREVIEW_INVALID_BASE_SIZE_TOO_LARGE")
    if order.qty * (order.price or market.price) < Decimal(market.listing.min_notional) and not order.quote_qty:
        raise failed("INVALID_SIZE_PRECISION", "PREVIEW_INVALID_QUOTE_SIZE_TOO_SMALL")
