"""Orders, fills and accounts as Coinbase writes them."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

import numpy as np

from tests.venue.exchange.accounts import Account
from tests.venue.exchange.money import ZERO
from tests.venue.exchange.orders import Order, Trade

Json = dict[str, Any]
TIMES = {
    "GTC": "GOOD_UNTIL_CANCELLED",
    "GTD": "GOOD_UNTIL_DATE_TIME",
    "IOC": "IMMEDIATE_OR_CANCEL",
    "FOK": "FILL_OR_KILL",
}
FIAT = ("USD", "EUR", "GBP")


def number(value: Decimal) -> str:
    return f"{value.normalize():f}"


def instant(time_ms: float) -> str:
    return str(np.datetime64(int(time_ms), "ms")) + "Z"


def name_of(what: str, number_of_it: object) -> str:
    """An id as Coinbase's are."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{what} {number_of_it}"))


def order_id(order: Order) -> str:
    return name_of("order", order.id)


def status(order: Order) -> str:
    """An order that may not rest is cancelled; one that may only expires."""
    if order.open:
        return "OPEN"
    if order.status == "EXPIRED":
        return "CANCELLED" if order.time_in_force in ("IOC", "FOK") else "EXPIRED"
    return {"CANCELED": "CANCELLED"}.get(order.status, order.status)


def shown(order: Order) -> Json:
    fees = sum((trade.fee for trade in order.account.trades if trade.order is order), ZERO)
    count = sum(trade.order is order for trade in order.account.trades)
    sign = 1 if order.side == "BUY" else -1
    return {
        "order_id": order_id(order),
        "product_id": order.symbol,
        "user_id": name_of("user", order.account.name),
        "order_configuration": order.asked,
        "side": order.side,
        "client_order_id": order.client_id,
        "status": status(order),
        "time_in_force": TIMES[order.time_in_force],
        "created_time": instant(order.created_ms),
        "completion_percentage": number((order.filled / order.qty * 100).quantize(Decimal("0.01"))),
        "filled_size": number(order.filled),
        "average_filled_price": number(order.cost / order.filled) if order.filled else "0",
        "fee": "",
        "number_of_fills": str(count),
        "filled_value": number(order.cost),
        "pending_cancel": False,
        "size_in_quote": bool(order.quote_qty),
        "total_fees": number(fees),
        "size_inclusive_of_fees": bool(order.quote_qty),
        "total_value_after_fees": number(order.cost + sign * fees),
        "trigger_status": _trigger(order),
        "order_type": order.type,
        "reject_reason": "REJECT_REASON_UNSPECIFIED",
        "settled": order.status == "FILLED",
        "product_type": "SPOT",
        "reject_message": "",
        "cancel_message": "User requested cancel" if order.status == "CANCELED" else "",
        "last_fill_time": instant(order.updated_ms) if count else None,
        "outstanding_hold_amount": number(order.account.locks.get(order, ("", ZERO))[1]),
    }


def _trigger(order: Order) -> str:
    if order.stop is None:
        return "INVALID_ORDER_TYPE"
    return "STOP_TRIGGERED" if order.triggered else "STOP_PENDING"


def made(order: Order) -> Json:
    names = {"order_id": order_id(order), "product_id": order.symbol, "side": order.side}
    return {
        "success": True,
        "failure_reason": "UNKNOWN_FAILURE_REASON",
        "order_id": order_id(order),
        "success_response": {**names, "client_order_id": order.client_id, "attached_order_id": ""},
        "order_configuration": order.asked,
    }


def fill(trade: Trade) -> Json:
    return {
        "entry_id": name_of("entry", (trade.symbol, trade.id)),
        "trade_id": name_of("trade", (trade.symbol, trade.id)),
        "order_id": order_id(trade.order),
        "trade_time": instant(trade.at_ms),
        "trade_type": "FILL",
        "price": number(trade.price),
        "size": number(trade.qty),
        "commission": number(trade.fee),
        "product_id": trade.symbol,
        "sequence_timestamp": instant(trade.at_ms),
        "liquidity_indicator": "MAKER" if trade.maker else "TAKER",
        "size_in_quote": False,
        "user_id": name_of("user", trade.order.account.name),
        "side": trade.order.side,
    }


def wallet(mine: Account, asset: str) -> Json:
    return {
        "uuid": name_of("wallet", (mine.name, asset)),
        "name": f"{asset} Wallet",
        "currency": asset,
        "available_balance": {"value": number(mine.free(asset)), "currency": asset},
        "default": True,
        "active": True,
        "created_at": instant(mine.created_ms),
        "updated_at": instant(mine.updated_ms),
        "deleted_at": None,
        "type": "ACCOUNT_TYPE_FIAT" if asset in FIAT else "ACCOUNT_TYPE_CRYPTO",
        "ready": True,
        "hold": {"value": number(mine.locked(asset)), "currency": asset},
    }
