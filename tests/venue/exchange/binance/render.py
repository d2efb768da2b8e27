"""Orders, lists and trades as Binance writes them."""

from __future__ import annotations

from typing import Any

from tests.venue.exchange.money import ZERO, written
from tests.venue.exchange.orders import Order, OrderList, Trade

Json = dict[str, Any]
STOPS = ("STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT")


def _names(order: Order) -> Json:
    return {
        "symbol": order.symbol,
        "orderId": order.id,
        "orderListId": order.list.id if order.list else -1,
        "clientOrderId": order.client_id,
    }


def _state(order: Order) -> Json:
    stop = {"stopPrice": written(order.stop)} if order.type in STOPS else {}
    return {
        "price": written(order.price),
        "origQty": written(order.qty),
        "executedQty": written(order.filled),
        "origQuoteOrderQty": written(order.quote_qty),
        "cummulativeQuoteQty": written(order.cost),
        "status": order.status,
        "timeInForce": order.time_in_force,
        "type": order.type,
        "side": order.side,
        **stop,
    }


def queried(order: Order) -> Json:
    """As GET /order, /openOrders and /allOrders have it."""
    return {
        **_names(order),
        **_state(order),
        "stopPrice": written(order.stop),
        "icebergQty": written(ZERO),
        "time": order.created_ms,
        "updateTime": order.updated_ms,
        "isWorking": order.working_ms >= 0,
        "workingTime": order.working_ms,
        "selfTradePreventionMode": "EXPIRE_MAKER",
    }


def acknowledged(order: Order) -> Json:
    return {**_names(order), "transactTime": order.updated_ms}


def result(order: Order) -> Json:
    working = {"workingTime": order.working_ms, "selfTradePreventionMode": "EXPIRE_MAKER"}
    return {**acknowledged(order), **_state(order), **working}


def full(order: Order) -> Json:
    trades = [trade for trade in order.account.trades if trade.order is order]
    return {**result(order), "fills": [_fill(trade) for trade in trades]}


def _fill(trade: Trade) -> Json:
    return {
        "price": written(trade.price),
        "qty": written(trade.qty),
        "commission": written(trade.fee),
        "commissionAsset": trade.fee_asset,
        "tradeId": trade.id,
    }


def cancelled(order: Order, cancel_id: str) -> Json:
    return {
        **_names(order),
        "origClientOrderId": order.client_id,
        "clientOrderId": cancel_id,
        "transactTime": order.updated_ms,
        **_state(order),
        "selfTradePreventionMode": "EXPIRE_MAKER",
    }


def listed(both: OrderList) -> Json:
    return {
        "orderListId": both.id,
        "contingencyType": "OCO",
        "listStatusType": "EXEC_STARTED" if both.open else "ALL_DONE",
        "listOrderStatus": "EXECUTING" if both.open else "ALL_DONE",
        "listClientOrderId": both.client_id,
        "transactionTime": both.updated_ms,
        "symbol": both.symbol,
        "orders": [
            {"symbol": order.symbol, "orderId": order.id, "clientOrderId": order.client_id} for order in both.orders
        ],
    }


def traded(trade: Trade) -> Json:
    return {
        "symbol": trade.symbol,
        "id": trade.id,
        "orderId": trade.order.id,
        "orderListId": trade.order.list.id if trade.order.list else -1,
        "price": written(trade.price),
        "qty": written(trade.qty),
        "quoteQty": written(trade.quote),
        "commission": written(trade.fee),
        "commissionAsset": trade.fee_asset,
        "time": trade.at_ms,
        "isBuyer": trade.order.side == "BUY",
        "isMaker": trade.maker,
        "isBestMatch": True,
    }
