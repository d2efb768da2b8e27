"""What the loopback exchange refuses, in Binance's numbers and words; keys, times, limits, rules."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import urllib.error
import urllib.request
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from atb.venue.ccxt_errors import Verdict, trouble_of
from tests.venue.clients import NOW, PAIR, SYMBOL, Desk, binance, ccxt, refusal
from tests.venue.exchange import Key, made_key

OUTSIDE = "Timestamp for this request is outside of the recvWindow."
AHEAD = "Timestamp for this request was 1000ms ahead of the server's time."
INVALID_KEY = "Invalid API-key, IP, or permissions for action."


# --- who asks


@pytest.mark.parametrize(
    ("key", "secret", "refused"),
    [
        ("short", "", (401, -2014, "API-key format invalid.")),
        ("0" * 64, "", (401, -2015, INVALID_KEY)),
        ("", "wrong", (400, -1022, "Signature for this request is not valid.")),
    ],
)
def test_a_wrong_key_or_secret(desk: Desk, key: str, secret: str, refused: tuple[int, int, str]) -> None:
    good = desk.main.key
    client = binance(desk.server, good._replace(key=key or good.key, secret=secret or good.secret))
    assert refusal(client.fetch_balance)[:3] == refused
    assert refusal(client.private_post_order, {"symbol": SYMBOL})[:3] == refused


def test_the_rights_of_a_key(desk: Desk) -> None:
    desk.exchange.add_key(reader := made_key("reader", may_trade=False)._replace(account="main"))
    client = binance(desk.server, reader)
    assert client.fetch_balance()["USDT"]["free"] == 10000
    assert refusal(client.create_order, PAIR, "market", "buy", 0.1).code == -2015
    rights = client.sapi_get_account_apirestrictions()
    names = ("enableReading", "enableSpotAndMarginTrading", "enableWithdrawals")
    assert [rights[name] for name in names] == [True, False, False]
    withdrawer = made_key("withdrawer", may_withdraw=True)._replace(account="main")
    desk.exchange.add_key(withdrawer)
    assert binance(desk.server, withdrawer).sapi_get_account_apirestrictions()["enableWithdrawals"] is True
    unknown = binance(desk.server, made_key("nobody"))
    assert refusal(unknown.sapi_get_account_apirestrictions)[:3] == (400, -2008, "Invalid Api-Key ID.")


def test_an_account_that_may_not_trade(desk: Desk) -> None:
    desk.main.may_trade = False
    assert desk.client.private_get_account()["canTrade"] is False
    assert refusal(desk.order, "MARKET", "BUY", "0.1")[1:3] == (-2010, "This action is disabled on this account.")


def test_accounts_do_not_see_each_other(desk: Desk) -> None:
    other = desk.exchange.open_account("other", {"USDT": "500"})
    client = binance(desk.server, other.key)
    number = desk.order("LIMIT", "BUY", "0.1", "39000", timeInForce="GTC", newClientOrderId="same")["orderId"]
    assert client.fetch_open_orders(PAIR) == []
    assert refusal(client.fetch_order, number, PAIR).code == -2013
    assert refusal(client.cancel_order, number, PAIR).code == -2011
    client.create_order(PAIR, "limit", "buy", 0.01, 39000, {"newClientOrderId": "same"})
    assert (len(desk.main.orders), len(other.orders), desk.exchange.account("other")) == (1, 1, other)


@pytest.mark.parametrize(
    ("off_ms", "window", "refused"),
    [
        (0, 5000, None),
        (-5000, 5000, None),
        (-5001, 5000, (400, -1021, OUTSIDE)),
        (999, 5000, None),
        (1000, 5000, (400, -1021, AHEAD)),
        (-60_000, 60_000, None),
        (0, 60_001, (400, -1131, "'recvWindow' must be less than 60000.")),
        (-1, 0, (400, -1021, OUTSIDE)),
    ],
)
def test_when_a_request_is_too_old_or_too_new(
    desk: Desk, off_ms: int, window: int, refused: tuple[int, int, str] | None
) -> None:
    desk.client.milliseconds = lambda: NOW + off_ms
    if refused is None:
        desk.order("MARKET", "BUY", "0.01", recvWindow=window)
    else:
        assert refusal(desk.order, "MARKET", "BUY", "0.01", recvWindow=window)[:3] == refused
    assert len(desk.main.orders) == (refused is None)


def raw(desk: Desk, method: str, query: dict[str, object], body: dict[str, object], key: Key) -> int:
    """A request that is put together by hand; its HTTP status."""
    joined = urlencode(query) + urlencode(body)
    signature = hmac.new(key.secret.encode(), joined.encode(), hashlib.sha256).hexdigest().upper()
    data = urlencode({**body, "signature": signature}).encode()
    url = f"{desk.server.url}/api/v3/order?{urlencode(query)}"
    request = urllib.request.Request(url, data, {"X-MBX-APIKEY": key.key}, method=method)
    try:
        return int(urllib.request.urlopen(request).status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_parameters_may_be_in_the_query_in_the_body_or_in_both(desk: Desk) -> None:
    order: dict[str, object] = {"symbol": SYMBOL, "side": "BUY", "type": "MARKET", "quantity": "0.01"}
    assert raw(desk, "POST", order, {"timestamp": NOW}, desk.main.key) == 200
    assert raw(desk, "POST", {**order, "timestamp": NOW}, {"quantity": "0.05"}, desk.main.key) == 200
    assert raw(desk, "POST", order, {"timestamp": NOW}, desk.main.key._replace(secret="other")) == 400
    assert [order.qty for order in desk.main.orders] == [Decimal("0.01")] * 2, "the query goes first"


# --- what is asked


LEGAL = "Illegal characters found in parameter '{}'; legal range is '{}'."
NEEDED = "Mandatory parameter '{}' was not sent, was empty/null, or malformed."
PARAMETERS: list[tuple[dict[str, Any], int, str]] = [
    ({"symbol": "BTCUSDX"}, -1121, "Invalid symbol."),
    ({"symbol": "btc usdt"}, -1100, LEGAL.format("symbol", "^[A-Z0-9-_.]{1,20}$")),
    ({"side": "LONG"}, -1117, "Invalid side."),
    ({"type": "TRAILING"}, -1116, "Invalid orderType."),
    ({"timeInForce": "GTX"}, -1115, "Invalid timeInForce."),
    ({"timeInForce": None}, -1102, NEEDED.format("timeInForce")),
    ({"quantity": None}, -1102, NEEDED.format("quantity")),
    ({"quantity": "1e-2"}, -1100, LEGAL.format("quantity", r"^([0-9]{1,20})(\.[0-9]{1,20})?$")),
    ({"quantity": "0.123456789"}, -1111, "Parameter 'quantity' has too much precision."),
    ({"quantity": ""}, -1105, "Parameter 'quantity' was empty."),
    ({"quantity": "0"}, -1013, "Invalid quantity."),
    ({"price": "0"}, -1013, "Invalid price."),
    ({"stopPrice": "39000"}, -1106, "Parameter 'stopPrice' sent when not required."),
    ({"quoteOrderQty": "100"}, -1106, "Parameter 'quoteOrderQty' sent when not required."),
    ({"newClientOrderId": "a b"}, -1100, LEGAL.format("newClientOrderId", "^[a-zA-Z0-9-_.:/]{1,36}$")),
    ({"newClientOrderId": "a" * 37}, -1100, LEGAL.format("newClientOrderId", "^[a-zA-Z0-9-_.:/]{1,36}$")),
    ({"colour": "red"}, -1104, "Not all sent parameters were read; read '7' parameter(s) but was sent '8'."),
]


@pytest.mark.parametrize(("change", "code", "message"), PARAMETERS, ids=[str(change) for change, _, _ in PARAMETERS])
def test_parameters_that_cannot_be(desk: Desk, change: dict[str, Any], code: int, message: str) -> None:
    asked = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "quantity": "0.01", "price": "39000"}
    asked = {**asked, "timeInForce": "GTC", **change}
    sent = {name: value for name, value in asked.items() if value is not None}
    assert refusal(desk.client.private_post_order, sent)[:3] == (400, code, message)
    assert desk.main.orders == []


@pytest.mark.parametrize(
    ("kind", "qty", "price", "params", "failed"),
    [
        ("LIMIT", "0.01", "39000.001", {}, "PRICE_FILTER"),
        ("LIMIT", "0.01", "1000000.01", {}, "PRICE_FILTER"),
        ("STOP_LOSS_LIMIT", "0.01", "41000", {"stopPrice": "41000.005"}, "PRICE_FILTER"),
        ("LIMIT", "0.000015", "39000", {}, "LOT_SIZE"),
        ("LIMIT", "9001", "39000", {}, "LOT_SIZE"),
        ("MARKET", "121", None, {}, "MARKET_LOT_SIZE"),
        ("LIMIT", "0.01", "7999", {}, "PERCENT_PRICE_BY_SIDE"),
        ("LIMIT", "0.01", "200001", {}, "PERCENT_PRICE_BY_SIDE"),
        ("LIMIT", "0.0001", "39000", {}, "NOTIONAL"),
        ("MARKET", "0.0001", None, {}, "NOTIONAL"),
        ("MARKET", None, None, {"quoteOrderQty": "4.99"}, "NOTIONAL"),
    ],
)
def test_the_rules_of_a_symbol(
    desk: Desk, kind: str, qty: str | None, price: str | None, params: dict[str, str], failed: str
) -> None:
    more = {} if kind == "MARKET" else {"timeInForce": "GTC"}
    refused = refusal(desk.order, kind, "BUY", qty, price, **more, **params)
    assert refused[:3] == (400, -1013, f"Filter failure: {failed}")


def test_the_price_band_goes_by_the_average_of_five_minutes(desk: Desk) -> None:
    desk.exchange.trade_at(SYMBOL, "10000", volume=1)
    desk.exchange.now_ms += 60_000
    desk.exchange.trade_at(SYMBOL, "40000", volume=2)
    assert Decimal(desk.client.public_get_avgprice({"symbol": SYMBOL})["price"]) == 30000
    assert refusal(desk.order, "LIMIT", "SELL", "0.01", "150000.01", timeInForce="GTC").code == -1013
    assert refusal(desk.order, "LIMIT", "SELL", "0.01", "150000", timeInForce="GTC").code == -2010, "no bitcoin"


def test_a_symbol_has_five_stops_and_a_number_of_orders(holder: Desk) -> None:
    for price in range(39000, 39005):
        holder.stop("0.1", price)
    assert refusal(holder.stop, "0.1", 38000)[1:3] == (-1013, "Filter failure: MAX_NUM_ALGO_ORDERS")
    assert refusal(holder.oco, "0.1", 42000, 38000)[1:3] == (-1013, "Filter failure: MAX_NUM_ALGO_ORDERS")
    market = holder.exchange.markets[SYMBOL]
    market.listing = market.listing._replace(max_orders=5)
    refused = refusal(holder.order, "LIMIT", "SELL", "0.1", 42000, timeInForce="GTC")
    assert refused[1:3] == (-1013, "Filter failure: MAX_NUM_ORDERS")


@pytest.mark.parametrize(
    ("kind", "qty", "params", "message"),
    [
        ("STOP_LOSS", "0.1", {"stopPrice": 40000}, "Order would trigger immediately."),
        ("TAKE_PROFIT", "0.1", {"stopPrice": 40000}, "Order would trigger immediately."),
        ("LIMIT_MAKER", "0.1", {"price": 40000}, "Order would immediately match and take."),
        ("STOP_LOSS", "1.1", {"stopPrice": 39000}, "Account has insufficient balance for requested action."),
    ],
)
def test_what_the_matching_refuses(holder: Desk, kind: str, qty: str, params: dict[str, Any], message: str) -> None:
    assert refusal(holder.order, kind, "SELL", qty, **params)[:3] == (400, -2010, message)


def test_a_type_that_a_symbol_does_not_have(holder: Desk) -> None:
    holder.exchange.list("ETHUSDT", "ETH", "USDT", price="2500", order_types=("LIMIT", "MARKET"), pairs=False)
    asked = {"symbol": "ETHUSDT", "side": "BUY", "type": "STOP_LOSS", "quantity": 1, "stopPrice": 2600}
    assert (
        refusal(holder.client.private_post_order, asked).message
        == "Stop loss orders are not supported for this symbol."
    )
    info = holder.client.public_get_exchangeinfo({"symbol": "ETHUSDT"})["symbols"][0]
    assert (info["orderTypes"], info["ocoAllowed"]) == (["LIMIT", "MARKET"], False)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"abovePrice": 39500}, -2010),
        ({"belowStopPrice": 40500}, -2010),
        ({"aboveType": "STOP_LOSS"}, -1197),
        ({"belowType": "TAKE_PROFIT"}, -1199),
        ({"belowType": "LIMIT_MAKER"}, -1166),
        ({"belowType": "MARKET"}, -1158),
        ({"abovePrice": None}, -1102),
        ({"quantity": "1.5"}, -2010),
        ({"aboveClientOrderId": "x", "belowClientOrderId": "x"}, -2010),
    ],
)
def test_pairs_that_cannot_be(holder: Desk, change: dict[str, Any], code: int) -> None:
    asked = {"symbol": SYMBOL, "side": "SELL", "quantity": 1, "aboveType": "LIMIT_MAKER", "abovePrice": 42000}
    asked = {**asked, "belowType": "STOP_LOSS", "belowStopPrice": 39000, **change}
    sent = {name: value for name, value in asked.items() if value is not None}
    assert refusal(holder.client.private_post_orderlist_oco, sent).code == code
    assert (holder.main.orders, holder.main.lists) == ([], [])


def test_a_client_id_is_taken_only_while_its_order_is_open(desk: Desk) -> None:
    """Hence sending a filled order again buys twice."""
    desk.order("LIMIT", "BUY", "0.01", "39000", timeInForce="GTC", newClientOrderId="atb-1")
    again = refusal(desk.order, "MARKET", "BUY", "0.01", newClientOrderId="atb-1")
    assert again[:3] == (400, -2010, "Duplicate order sent.")
    desk.exchange.trade_at(SYMBOL, "39000")
    desk.order("MARKET", "BUY", "0.01", newClientOrderId="atb-1")
    desk.order("MARKET", "BUY", "0.01", newClientOrderId="atb-1")
    assert len(desk.main.placed("atb-1")) == 3
    newest = desk.client.private_get_order({"symbol": SYMBOL, "origClientOrderId": "atb-1"})
    assert int(newest["orderId"]) == 3


def test_a_market_that_is_closed(desk: Desk) -> None:
    number = desk.order("LIMIT", "BUY", "0.01", "39000", timeInForce="GTC")["orderId"]
    desk.exchange.halt(SYMBOL)
    assert desk.client.public_get_exchangeinfo({"symbol": SYMBOL})["symbols"][0]["status"] == "HALT"
    assert refusal(desk.order, "MARKET", "BUY", "0.01")[:3] == (400, -1013, "Market is closed.")
    desk.client.cancel_order(number, PAIR)
    desk.exchange.resume(SYMBOL)
    assert desk.order("MARKET", "BUY", "0.01")["status"] == "FILLED"


# --- how much is asked


def test_too_much_weight_is_told_then_banned_for_longer_each_time(desk: Desk) -> None:
    desk.exchange.rates.weight_a_minute, desk.exchange.rates.patience = 100, 2
    for _ in range(5):
        desk.client.private_get_account()
    assert desk.client.last_response_headers["X-MBX-USED-WEIGHT-1M"] == "100"
    told = refusal(desk.client.fetch_time)
    assert told[:2] == (429, -1003) and told.message.startswith("Too much request weight used; current limit is 100")
    assert desk.client.last_response_headers["Retry-After"] == "60"
    refusal(desk.client.fetch_time)
    banned = refusal(desk.client.fetch_time)
    assert banned[:2] == (418, -1003) and f"IP banned until {NOW + 120_000}" in banned.message
    assert desk.client.last_response_headers["Retry-After"] == "120"
    desk.exchange.now_ms += 119_000
    assert refusal(desk.client.fetch_time).status == 418
    desk.exchange.now_ms += 1000
    for _ in range(5):
        desk.client.private_get_account()
    assert [refusal(desk.client.fetch_time).status for _ in range(3)] == [429, 429, 418]
    assert desk.client.last_response_headers["Retry-After"] == "240"


def test_too_many_orders(desk: Desk) -> None:
    desk.exchange.rates.orders_in_10s = 3
    for _ in range(2):
        desk.order("MARKET", "BUY", "0.01")
    assert desk.client.last_response_headers["X-MBX-ORDER-COUNT-10S"] == "2"
    assert refusal(desk.oco, "0.01", 42000, 39000).code == -1015, "a pair counts as two"
    desk.order("MARKET", "BUY", "0.01")
    refused = refusal(desk.order, "MARKET", "BUY", "0.01")
    assert refused[:3] == (429, -1015, "Too many new orders; current limit is 3 orders per 10 SECOND.")
    assert "Retry-After" not in desk.client.last_response_headers
    assert [int(used["count"]) for used in desk.client.private_get_ratelimit_order()] == [3, 3]
    desk.exchange.now_ms += 10_000
    desk.order("MARKET", "BUY", "0.01")


def test_the_errors_are_those_that_the_product_reads(desk: Desk) -> None:
    """The numbers come through ccxt as from the real exchange."""
    with pytest.raises(ccxt.BaseError) as caught:
        desk.client.public_get_klines({"symbol": "BTCUSDX", "interval": "1h"})
    assert trouble_of(caught.value).verdict is Verdict.UNKNOWN_SYMBOL


def test_the_rules_have_the_shape_of_the_real_ones(desk: Desk) -> None:
    folder = os.environ.get("ATB_TEST_DATA")
    if not folder:
        pytest.skip("ATB_TEST_DATA is not set: the shape of the rules was NOT compared")
    answer = json.loads((Path(folder) / "raw/binance_spot_exchangeInfo.majors.json").read_text())
    real = next(symbol for symbol in answer["symbols"] if symbol["symbol"] == SYMBOL)
    ours = desk.client.public_get_exchangeinfo({"symbol": SYMBOL})["symbols"][0]
    assert real.keys() - ours.keys() == set()
    shapes = {rule["filterType"]: {name: type(value) for name, value in rule.items()} for rule in real["filters"]}
    for rule in ours["filters"]:
        assert {name: type(value) for name, value in rule.items()} == shapes[rule["filterType"]]
    assert {rule["rateLimitType"] for rule in answer["rateLimits"]} == {"REQUEST_WEIGHT", "ORDERS", "RAW_REQUESTS"}
