"""The account: balances, rights, open and old orders, trades."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.venue.exchange.accounts import Account
from tests.venue.exchange.binance import render
from tests.venue.exchange.binance.auth import key_of
from tests.venue.exchange.binance.errors import ApiError, bad_combination
from tests.venue.exchange.binance.params import Params
from tests.venue.exchange.candles import DAY_MS
from tests.venue.exchange.money import ZERO, written
from tests.venue.exchange.rates import DAY_MS as A_DAY
from tests.venue.exchange.rates import TEN_SECONDS_MS
from tests.venue.exchange.wire import Call, Reply


def account(call: Call, mine: Account) -> Reply:
    params = Params(call)
    without_zeros = params.text("omitZeroBalances") == "true"
    params.done()
    rates = {"maker": mine.maker_fee, "taker": mine.taker_fee, "buyer": ZERO, "seller": ZERO}
    points = {f"{name}Commission": int(rate * 10_000) for name, rate in rates.items()}
    return Reply(
        200,
        {
            **points,
            "commissionRates": {name: f"{rate:.8f}" for name, rate in rates.items()},
            "canTrade": mine.may_trade,
            "canWithdraw": True,
            "canDeposit": True,
            "brokered": False,
            "requireSelfTradePrevention": False,
            "preventSor": False,
            "updateTime": mine.updated_ms,
            "accountType": "SPOT",
            "balances": [
                {"asset": asset, "free": written(balance.free), "locked": written(balance.locked)}
                for asset, balance in mine.balances.items()
                if not without_zeros or balance.free or balance.locked
            ],
            "permissions": ["SPOT"],
            "uid": 354937868,
        },
    )


def restrictions(call: Call, mine: Account) -> Reply:
    key = key_of(call)
    return Reply(
        200,
        {
            "ipRestrict": False,
            "createTime": mine.created_ms,
            "enableReading": key.may_read,
            "enableWithdrawals": key.may_withdraw,
            "enableInternalTransfer": False,
            "enableMargin": False,
            "enableFutures": False,
            "permitsUniversalTransfer": False,
            "enableVanillaOptions": False,
            "enableFixApiTrade": False,
            "enableFixReadOnly": False,
            "enableSpotAndMarginTrading": key.may_trade,
            "enablePortfolioMarginTrading": False,
        },
    )


def commission(call: Call, mine: Account) -> Reply:
    params = Params(call)
    market = params.market()
    params.done()
    rates = {"maker": written(mine.maker_fee), "taker": written(mine.taker_fee), "buyer": "0", "seller": "0"}
    discount = {"enabledForAccount": mine.pays_in_bnb, "enabledForSymbol": True, "discountAsset": "BNB"}
    return Reply(
        200,
        {
            "symbol": market.name,
            "standardCommission": rates,
            "taxCommission": dict.fromkeys(rates, "0.00000000"),
            "discount": {**discount, "discount": "0.75000000"},
        },
    )


def trade_fee(call: Call, mine: Account) -> Reply:
    wanted = call.query.get("symbol")
    fees = {"makerCommission": f"{mine.maker_fee:f}", "takerCommission": f"{mine.taker_fee:f}"}
    return Reply(200, [{"symbol": name, **fees} for name in call.exchange.listings if wanted in (None, name)])


def bnb_burn(call: Call, mine: Account) -> Reply:
    return Reply(200, {"spotBNBBurn": mine.pays_in_bnb, "interestBNBBurn": False})


def order_counts(call: Call, mine: Account) -> Reply:
    rates = call.exchange.rates
    spans = (("SECOND", 10, TEN_SECONDS_MS, rates.orders_in_10s), ("DAY", 1, A_DAY, rates.orders_a_day))
    return Reply(
        200,
        [
            {
                "rateLimitType": "ORDERS",
                "interval": interval,
                "intervalNum": number,
                "limit": limit,
                "count": rates.ordered(mine.name, length, call.exchange.now_ms),
            }
            for interval, number, length, limit in spans
        ],
    )


def open_orders(call: Call, mine: Account) -> Reply:
    params = Params(call)
    symbol = params.market().name if "symbol" in call.query else None
    params.done()
    shown = (order for order in mine.open_orders if symbol in (None, order.symbol) and call.visible(order.created_ms))
    return Reply(200, [render.queried(order) for order in shown])


def all_orders(call: Call, mine: Account) -> Reply:
    """From an orderId on, or within a time of at most a day; else the newest."""
    params = Params(call)
    market, first = params.market(), params.integer("orderId")
    start, end = _span(params)
    limit = params.limit()
    params.done()
    orders = (order for order in mine.orders if order.symbol == market.name and call.visible(order.created_ms))
    found = [o for o in orders if o.id >= (first or 0) and _within(o.created_ms, start, end)]
    return Reply(200, [render.queried(o) for o in _page(found, limit, first is not None or start is not None)])


def my_trades(call: Call, mine: Account) -> Reply:
    """In one of the combinations of parameters that there are."""
    params = Params(call)
    market, order_id, first = params.market(), params.integer("orderId"), params.integer("fromId")
    start, end = _span(params)
    limit = params.limit()
    params.done()
    if (start or end) is not None and (order_id or first) is not None:
        raise bad_combination()
    trades = (trade for trade in mine.trades if trade.symbol == market.name and call.visible(trade.at_ms))
    found = [
        trade
        for trade in trades
        if trade.id >= (first or 0) and order_id in (None, trade.order.id) and _within(trade.at_ms, start, end)
    ]
    return Reply(200, [render.traded(trade) for trade in _page(found, limit, first is not None or start is not None)])


def _span(params: Params) -> tuple[int | None, int | None]:
    start, end = params.integer("startTime"), params.integer("endTime")
    if start is not None and end is not None:
        if end < start:
            raise ApiError(-1127, "Lookup interval is invalid: endTime is before startTime.")
        if end - start > DAY_MS:
            raise ApiError(-1127, "More than 24 hours between startTime and endTime.")
    return start, end


def _within(at_ms: int, start: int | None, end: int | None) -> bool:
    return (start is None or at_ms >= start) and (end is None or at_ms <= end)


def _page(found: Iterable[Any], limit: int, forwards: bool) -> list[Any]:
    """The first of them where a beginning was asked for, else the newest; ascending in both cases."""
    found = list(found)
    return found[:limit] if forwards else found[-limit:]
