"""Binance's spot protocol: which path is answered by what, at which weight, for whom."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.venue.exchange.accounts import Account
from tests.venue.exchange.binance import account, futures, lists, orders, public, transfers
from tests.venue.exchange.binance.auth import key_of, unknown_key
from tests.venue.exchange.binance.errors import ApiError
from tests.venue.exchange.rates import DAY_MS, TEN_SECONDS_MS
from tests.venue.exchange.wire import Call, Handler, Query, Reply

Weight = int | Callable[[Query], int]
Signed = Callable[[Call, Account], Reply]

TOO_MUCH = {
    429: "Too much request weight used; current limit is {limit} request weight per 1 MINUTE.",
    418: "Way too much request weight used; IP banned until {until}.",
}
ADVICE = " Please use WebSocket Streams for live updates to avoid {what}."


def by_symbol(one: int, several: int) -> Weight:
    return lambda query: one if "symbol" in query else several


def by_count(query: Query) -> int:
    """Of the 24 h ticker: by how many symbols are asked for."""
    names = 1 if "symbol" in query else len(json.loads(query["symbols"])) if "symbols" in query else 1000
    return 2 if names <= 20 else 40 if names <= 100 else 80


def of_depth(query: Query) -> int:
    limit = int(query.get("limit", 100))
    return next((weight for most, weight in ((100, 5), (500, 25), (1000, 50)) if limit <= most), 250)


def anybody(weight: Weight, handler: Handler) -> Handler:
    return lambda call: _served(call, weight, lambda: (None, handler(call)))


def reads(weight: Weight, handler: Signed) -> Handler:
    return lambda call: _served(call, weight, lambda: _for_account(call, handler, trades=False))


def trades(weight: Weight, handler: Signed) -> Handler:
    return lambda call: _served(call, weight, lambda: _for_account(call, handler, trades=True))


def _for_account(call: Call, handler: Signed, trades: bool) -> tuple[Account, Reply]:
    """A key may not do everything; an account may be forbidden to trade."""
    key = key_of(call)
    if not (key.may_trade if trades else key.may_read):
        raise unknown_key(call)
    mine = call.exchange.accounts[key.account]
    if trades and not mine.may_trade:
        raise ApiError(-2010, "This action is disabled on this account.")
    return mine, handler(call, mine)


def _served(call: Call, weight: Weight, handler: Callable[[], tuple[Account | None, Reply]]) -> Reply:
    """Weighed, answered, written down."""
    before, mine = len(call.exchange.events), None
    try:
        _weigh(call, weight(call.query) if callable(weight) else weight)
        mine, reply = handler()
    except ApiError as error:
        reply = error.reply
    name = mine.name if mine else _name(call)
    call.exchange.record(call.request, name, reply.status, before)
    return reply._replace(headers={**_headers(call, name), **reply.headers})


def _weigh(call: Call, weight: int) -> None:
    rates = call.exchange.rates
    if (verdict := rates.ask(weight, call.exchange.now_ms)) is None:
        return
    what = {429: "polling the API", 418: "bans"}[verdict.status]
    message = TOO_MUCH[verdict.status].format(limit=rates.weight_a_minute, until=verdict.until_ms)
    raise ApiError(-1003, message + ADVICE.format(what=what), verdict.status, -(-verdict.wait_ms // 1000))


def _name(call: Call) -> str:
    given = {name.upper(): value for name, value in call.request.headers.items()}.get("X-MBX-APIKEY", "")
    key = call.exchange.keys.get(given)
    return key.account if key else ""


def _headers(call: Call, name: str) -> dict[str, str]:
    exchange, now_ms = call.exchange, call.exchange.now_ms
    used = str(exchange.rates.used(now_ms))
    if call.request.path.startswith("/sapi"):
        return {"X-SAPI-USED-IP-WEIGHT-1M": used}
    headers = {"X-MBX-USED-WEIGHT": used, "X-MBX-USED-WEIGHT-1M": used}
    if name and call.request.method == "POST":
        for length, letter in ((TEN_SECONDS_MS, "10S"), (DAY_MS, "1D")):
            headers[f"X-MBX-ORDER-COUNT-{letter}"] = str(exchange.rates.ordered(name, length, now_ms))
    return headers


API, SAPI = "/api/v3/", "/sapi/v1/"
ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", API + "ping"): anybody(1, public.ping),
    ("GET", API + "time"): anybody(1, public.time),
    ("GET", API + "exchangeInfo"): anybody(20, public.info),
    ("GET", API + "klines"): anybody(2, public.klines),
    ("GET", API + "ticker/price"): anybody(by_symbol(2, 4), public.price),
    ("GET", API + "ticker/bookTicker"): anybody(by_symbol(2, 4), public.book),
    ("GET", API + "ticker/24hr"): anybody(by_count, public.day),
    ("GET", API + "avgPrice"): anybody(2, public.average),
    ("GET", API + "depth"): anybody(of_depth, public.depth),
    ("POST", API + "order"): trades(1, orders.create),
    ("POST", API + "order/test"): trades(1, orders.test),
    ("DELETE", API + "order"): trades(1, orders.cancel),
    ("GET", API + "order"): reads(4, orders.query),
    ("POST", API + "order/cancelReplace"): trades(1, orders.cancel_replace),
    ("DELETE", API + "openOrders"): trades(1, orders.cancel_all),
    ("GET", API + "openOrders"): reads(by_symbol(6, 80), account.open_orders),
    ("GET", API + "allOrders"): reads(20, account.all_orders),
    ("GET", API + "myTrades"): reads(lambda query: 5 if "orderId" in query else 20, account.my_trades),
    ("GET", API + "account"): reads(20, account.account),
    ("GET", API + "account/commission"): reads(20, account.commission),
    ("GET", API + "rateLimit/order"): reads(40, account.order_counts),
    ("POST", API + "orderList/oco"): trades(1, lists.create),
    ("POST", API + "order/oco"): trades(1, lists.create_old),
    ("GET", API + "orderList"): reads(4, lists.query),
    ("GET", API + "allOrderList"): reads(20, lists.query_all),
    ("GET", API + "openOrderList"): reads(6, lists.query_open),
    ("DELETE", API + "orderList"): trades(1, lists.cancel),
    ("GET", SAPI + "account/apiRestrictions"): reads(1, account.restrictions),
    ("GET", SAPI + "asset/tradeFee"): reads(1, account.trade_fee),
    ("GET", SAPI + "bnbBurn"): reads(1, account.bnb_burn),
    ("GET", SAPI + "capital/deposit/hisrec"): reads(1, transfers.deposits),
    ("GET", SAPI + "capital/withdraw/history"): reads(1, transfers.withdrawals),
    ("GET", SAPI + "asset/dribblet"): reads(1, transfers.dust),
    ("GET", SAPI + "asset/assetDividend"): reads(10, transfers.dividends),
    ("GET", SAPI + "asset/transfer"): reads(1, transfers.between_wallets),
    ("GET", SAPI + "convert/tradeFlow"): reads(1, transfers.conversions),
    ("GET", "/fapi/v1/fundingRate"): anybody(1, futures.funding_rate),
    ("GET", "/futures/data/openInterestHist"): anybody(0, futures.open_interest),
}
