"""The account: wallets, rights, fees, orders and fills, newest first and in pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qs

import numpy as np

from tests.venue.exchange.accounts import Account
from tests.venue.exchange.coinbase import render
from tests.venue.exchange.coinbase.auth import key_of
from tests.venue.exchange.coinbase.errors import ApiError, invalid
from tests.venue.exchange.wire import Call, Reply

T = TypeVar("T")


def wallets(call: Call, mine: Account) -> Reply:
    page, cursor = _page(call, sorted(mine.totals), 49, 250)
    found = [render.wallet(mine, asset) for asset in page]
    return Reply(200, {"accounts": found, "has_next": bool(cursor), "cursor": cursor, "size": len(found)})


def permissions(call: Call, mine: Account) -> Reply:
    key = key_of(call)
    rights = {"can_view": key.may_read, "can_trade": key.may_trade, "can_transfer": key.may_withdraw}
    return Reply(200, {**rights, "portfolio_uuid": render.name_of("portfolio", mine.name), "portfolio_type": "DEFAULT"})


def summary(call: Call, mine: Account) -> Reply:
    rates = {"taker_fee_rate": f"{mine.taker_fee:f}", "maker_fee_rate": f"{mine.maker_fee:f}"}
    return Reply(200, {"total_volume": 0, "total_fees": 0, "fee_tier": {"pricing_tier": "Advanced 1", **rates}})


def order(call: Call, mine: Account) -> Reply:
    found = [o for o in mine.orders if render.order_id(o) == call.query["order"] and call.visible(o.created_ms)]
    if not found:
        raise ApiError(404, "NOT_FOUND", "order with this orderID was not found")
    return Reply(200, {"order": render.shown(found[0])})


def orders(call: Call, mine: Account) -> Reply:
    statuses = many(call, "order_status")
    if "OPEN" in statuses and len(statuses) > 1:
        raise invalid("Cannot pair open orders with other order types")
    start, end = _time(call, "start_date", 0), _time(call, "end_date", call.now_ms)
    wanted = _wanted(call, "order_ids", render.order_id)
    found = [
        o
        for o in reversed(mine.orders)
        if wanted(o) and start <= o.created_ms <= end and call.visible(o.created_ms) and _of_product(call, o.symbol)
    ]
    found = [o for o in found if not statuses or render.status(o) in statuses]
    page, cursor = _page(call, found, 100, 1000)
    shown = [render.shown(o) for o in page]
    return Reply(200, {"orders": shown, "sequence": "0", "has_next": bool(cursor), "cursor": cursor})


def fills(call: Call, mine: Account) -> Reply:
    start, end = _time(call, "start_sequence_timestamp", 0), _time(call, "end_sequence_timestamp", call.now_ms)
    wanted = _wanted(call, "order_ids", lambda trade: render.order_id(trade.order))
    found = [
        trade
        for trade in reversed(mine.trades)
        if wanted(trade)
        and start <= trade.at_ms <= end
        and call.visible(trade.at_ms)
        and _of_product(call, trade.symbol)
    ]
    page, cursor = _page(call, found, 100, 250)
    return Reply(200, {"fills": [render.fill(trade) for trade in page], "cursor": cursor})


def many(call: Call, name: str) -> list[str]:
    """A parameter that may be sent several times."""
    return parse_qs(call.request.signed).get(name, [])


def _wanted(call: Call, name: str, id_of: Callable[[Any], str]) -> Callable[[Any], bool]:
    """Also by the older name, in the singular."""
    ids = [*many(call, name), *many(call, name.removesuffix("s"))]
    return lambda record: not ids or id_of(record) in ids


def _of_product(call: Call, symbol: str) -> bool:
    products = [*many(call, "product_ids"), *many(call, "product_id")]
    return not products or symbol in products


def _time(call: Call, name: str, otherwise: int) -> int:
    value = call.query.get(name)
    return int(np.datetime64(value.rstrip("Z"), "ms").astype(int)) if value else otherwise


def _page(call: Call, found: Sequence[T], usual: int, most: int) -> tuple[Sequence[T], str]:
    """And the cursor of what follows, "" where nothing does."""
    first, count = int(call.query.get("cursor") or 0), min(int(call.query.get("limit") or usual), most)
    return found[first : first + count], str(first + count) if first + count < len(found) else ""
