"""The loopback exchange as the real ccxt sees it: Binance's spot orders, one endpoint after the other."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.venue.clients import NOW, PAIR, SYMBOL, Desk, market, refusal
from tests.venue.exchange import DAY_MS, Loopback

# --- orders of each type


def test_a_market_order_pays_its_fee_in_what_it_received(desk: Desk) -> None:
    order = desk.order("MARKET", "BUY", "0.1")
    assert (order["status"], order["executedQty"], order["cummulativeQuoteQty"]) == (
        "FILLED",
        "0.10000000",
        "4000.00000000",
    )
    fill = {"price": "40000.00000000", "qty": "0.10000000", "commission": "0.00010000", "commissionAsset": "BTC"}
    assert order["fills"] == [{**fill, "tradeId": 1}] or order["fills"] == [{**fill, "tradeId": "1"}]
    assert (desk.held("BTC"), desk.held("USDT")) == ((Decimal("0.0999"), 0), (6000, 0))
    sold = desk.order("MARKET", "SELL", "0.0999")
    assert sold["fills"][0]["commissionAsset"] == "USDT"
    assert desk.main.free("USDT") == 6000 + Decimal("3996") - Decimal("3.996")


def test_a_market_order_by_what_it_costs_is_rounded_down_to_a_lot(desk: Desk) -> None:
    order = desk.client.create_order(PAIR, "market", "buy", 0.1, None, {"quoteOrderQty": 1000.5})
    assert order["info"]["origQuoteOrderQty"] == "1000.50000000"
    assert (order["filled"], order["cost"]) == (0.02501, 1000.4)
    assert order["status"] == "closed"


def test_a_limit_rests_locks_and_fills_as_maker(desk: Desk) -> None:
    order = desk.client.create_order(PAIR, "limit", "buy", 0.1, 39000)
    assert order["status"] == "open"
    assert desk.held("USDT") == (6100, 3900)
    desk.exchange.trade_at(SYMBOL, "39000.01")
    assert desk.client.fetch_order(order["id"], PAIR)["status"] == "open"
    desk.exchange.trade_at(SYMBOL, "38000")
    done = desk.client.fetch_order(order["id"], PAIR)
    assert (done["status"], done["average"]) == ("closed", 39000)
    assert [trade["takerOrMaker"] for trade in desk.client.fetch_my_trades(PAIR)] == ["maker"]


def test_a_limit_beyond_the_market_takes_at_the_market(desk: Desk) -> None:
    order = desk.order("LIMIT", "BUY", "0.1", "41000", timeInForce="GTC")
    assert (order["status"], order["cummulativeQuoteQty"]) == ("FILLED", "4000.00000000")
    assert desk.main.locked("USDT") == 0


@pytest.mark.parametrize(
    ("how", "status", "filled"),
    [("GTC", "PARTIALLY_FILLED", "0.02"), ("IOC", "EXPIRED", "0.02"), ("FOK", "EXPIRED", "0")],
)
def test_time_in_force_where_there_is_too_little(desk: Desk, how: str, status: str, filled: str) -> None:
    desk.exchange.shallow(SYMBOL, liquidity="0.02")
    order = desk.order("LIMIT", "BUY", "0.1", "40000", timeInForce=how)
    assert (order["status"], Decimal(order["executedQty"])) == (status, Decimal(filled))
    assert desk.main.locked("USDT") == (Decimal("3200") if how == "GTC" else 0)


def test_a_market_order_that_finds_too_little_expires_with_what_it_got(desk: Desk) -> None:
    desk.exchange.shallow(SYMBOL, liquidity="0.02")
    order = desk.order("MARKET", "BUY", "0.1")
    assert (order["status"], order["executedQty"]) == ("EXPIRED", "0.02000000")
    assert desk.order("MARKET", "BUY", "0.1")["executedQty"] == "0.00000000"


def test_each_step_of_the_market_has_its_liquidity(desk: Desk) -> None:
    number = desk.order("LIMIT", "BUY", "0.1", "39000", timeInForce="GTC")["orderId"]
    desk.exchange.shallow(SYMBOL, liquidity="0.04")
    statuses = []
    for price in (39000, 38990, 38980):
        desk.exchange.trade_at(SYMBOL, price)
        statuses.append(desk.seen(number)["status"])
    assert statuses == ["PARTIALLY_FILLED", "PARTIALLY_FILLED", "FILLED"]
    assert [trade["qty"] for trade in desk.client.private_get_mytrades({"symbol": SYMBOL})] == [
        "0.04000000",
        "0.04000000",
        "0.02000000",
    ]


def test_a_large_order_gets_through_several_levels(holder: Desk) -> None:
    holder.exchange.shallow(SYMBOL, level="0.4")
    order = holder.order("MARKET", "SELL", "1")
    assert [(fill["price"], fill["qty"]) for fill in order["fills"]] == [
        ("40000.00000000", "0.40000000"),
        ("39999.99000000", "0.40000000"),
        ("39999.98000000", "0.20000000"),
    ]


@pytest.mark.parametrize(
    ("kind", "side", "stop", "moves"),
    [
        ("STOP_LOSS", "SELL", 39000, (39000.01, 38500)),
        ("TAKE_PROFIT", "SELL", 41000, (40999.99, 41500)),
        ("STOP_LOSS", "BUY", 41000, (40999.99, 41500)),
        ("TAKE_PROFIT", "BUY", 39000, (39000.01, 38500)),
    ],
)
def test_a_stop_waits_and_then_takes_the_market(kind: str, side: str, stop: float, moves: tuple[float, float]) -> None:
    exchange, main = market(BTC="1", USDT="50000")
    with Loopback(exchange) as server:
        desk = Desk(exchange, main, server)
        order = desk.order(kind, side, "0.5", stopPrice=stop, newOrderRespType="RESULT")
        assert (order["status"], order["workingTime"]) == ("NEW", "-1") or order["workingTime"] == -1
        exchange.trade_at(SYMBOL, moves[0])
        assert desk.seen(order["orderId"])["isWorking"] in (False, "false")
        exchange.trade_at(SYMBOL, moves[1])
        done = desk.seen(order["orderId"])
    assert (done["status"], Decimal(done["cummulativeQuoteQty"])) == ("FILLED", Decimal(str(moves[1])) / 2)
    exchange.invariants()


def test_a_stop_that_is_met_on_the_way_fills_there_and_one_that_is_jumped_fills_worse(holder: Desk) -> None:
    first, second = holder.stop("0.5", 39000), holder.stop("0.5", 38000)
    holder.exchange.move_to(SYMBOL, "38500")
    holder.exchange.trade_at(SYMBOL, "37000")
    assert [holder.seen(order["orderId"])["cummulativeQuoteQty"] for order in (first, second)] == [
        "19500.00000000",
        "18500.00000000",
    ]


def test_a_stop_limit_that_the_price_jumps_over_stays_unfilled(holder: Desk) -> None:
    order = holder.order("STOP_LOSS_LIMIT", "SELL", "1", "38900", stopPrice=39000, timeInForce="GTC")
    holder.exchange.trade_at(SYMBOL, "38000")
    jumped = holder.seen(order["orderId"])
    assert (jumped["status"], jumped["isWorking"] in (True, "true")) == ("NEW", True)
    holder.exchange.trade_at(SYMBOL, "38900")
    assert holder.seen(order["orderId"])["status"] == "FILLED"


def test_a_stop_locks_what_it_would_sell(holder: Desk) -> None:
    holder.stop("0.9", 39000)
    assert refusal(holder.order, "MARKET", "SELL", "0.2")[:3] == (
        400,
        -2010,
        "Account has insufficient balance for requested action.",
    )


def test_how_an_order_is_answered(desk: Desk) -> None:
    ack = desk.order("LIMIT", "BUY", "0.01", "39000", timeInForce="GTC", newOrderRespType="ACK")
    assert set(ack) == {"symbol", "orderId", "orderListId", "clientOrderId", "transactTime"}
    assert "fills" not in desk.order("MARKET", "BUY", "0.01", newOrderRespType="RESULT")
    assert "fills" in desk.order("LIMIT", "BUY", "0.01", "39000", timeInForce="GTC")
    assert set(desk.order("LIMIT_MAKER", "BUY", "0.01", "39000")) == set(ack), "but MARKET and LIMIT, ACK is the rule"


# --- cancels and queries


def test_an_order_is_known_by_both_its_ids(desk: Desk) -> None:
    desk.order("LIMIT", "BUY", "0.01", "39000", timeInForce="GTC", newClientOrderId="atb-1")
    seen = desk.client.private_get_order({"symbol": SYMBOL, "origClientOrderId": "atb-1"})
    assert (seen["clientOrderId"], desk.seen(seen["orderId"])) == ("atb-1", seen)
    gone = desk.client.private_delete_order({"symbol": SYMBOL, "origClientOrderId": "atb-1"})
    assert (gone["status"], gone["origClientOrderId"]) == ("CANCELED", "atb-1")
    assert desk.held("USDT") == (10000, 0)
    assert refusal(desk.client.cancel_order, seen["orderId"], PAIR)[:3] == (400, -2011, "Unknown order sent.")
    assert refusal(desk.seen, 99)[:3] == (400, -2013, "Order does not exist.")


def test_a_cancelled_order_keeps_what_it_got(desk: Desk) -> None:
    desk.exchange.shallow(SYMBOL, liquidity="0.02")
    number = desk.order("LIMIT", "BUY", "0.1", "40000", timeInForce="GTC")["orderId"]
    restricted = {"symbol": SYMBOL, "orderId": number, "cancelRestrictions": "ONLY_NEW"}
    assert refusal(desk.client.private_delete_order, restricted).code == -2011
    gone = desk.client.private_delete_order({"symbol": SYMBOL, "orderId": number})
    assert (gone["status"], gone["executedQty"]) == ("CANCELED", "0.02000000")


def test_open_orders_all_orders_and_their_end(desk: Desk) -> None:
    for price in (39000, 38000, 37000):
        desk.order("LIMIT", "BUY", "0.01", price, timeInForce="GTC")
    desk.exchange.move_to(SYMBOL, "38500")
    assert [order["price"] for order in desk.client.fetch_open_orders(PAIR)] == [38000, 37000]
    assert len(desk.client.fetch_open_orders()) == 2
    assert len(desk.client.cancel_all_orders(PAIR)) == 2
    assert refusal(desk.client.cancel_all_orders, PAIR).code == -2011
    assert [order["status"] for order in desk.client.fetch_orders(PAIR)] == ["closed", "canceled", "canceled"]
    assert [order["orderId"] for order in desk.client.private_get_allorders({"symbol": SYMBOL, "orderId": 2})] in (
        [2, 3],
        ["2", "3"],
    )


def test_trades_by_number_time_and_order(desk: Desk) -> None:
    for _ in range(5):
        desk.order("MARKET", "BUY", "0.01")
        desk.exchange.now_ms += DAY_MS // 2

    def numbers(**params: Any) -> list[int]:
        return [int(trade["id"]) for trade in desk.client.private_get_mytrades({"symbol": SYMBOL, **params})]

    assert numbers() == [1, 2, 3, 4, 5]
    assert (numbers(limit=2), numbers(fromId=2, limit=2), numbers(orderId=3)) == ([4, 5], [2, 3], [3])
    assert numbers(startTime=NOW + DAY_MS, limit=2) == [3, 4]
    assert numbers(startTime=NOW, endTime=NOW + DAY_MS) == [1, 2, 3]
    too_long = {"symbol": SYMBOL, "startTime": NOW, "endTime": NOW + DAY_MS + 1}
    assert refusal(desk.client.private_get_mytrades, too_long).code == -1127
    both = {"symbol": SYMBOL, "startTime": NOW, "fromId": 1}
    assert refusal(desk.client.private_get_mytrades, both).code == -1128


def test_trade_ids_count_by_symbol(desk: Desk) -> None:
    desk.exchange.list("ETHUSDT", "ETH", "USDT", price="2500")
    desk.order("MARKET", "BUY", "0.01")
    order = desk.client.private_post_order({"symbol": "ETHUSDT", "side": "BUY", "type": "MARKET", "quantity": 1})
    assert str(order["fills"][0]["tradeId"]) == "1"


# --- cancel and replace


def test_cancel_replace_does_both(desk: Desk) -> None:
    old = desk.client.create_order(PAIR, "limit", "buy", 0.1, 39000)
    new = desk.client.edit_order(old["id"], PAIR, "limit", "buy", 0.2, 38000)
    assert (desk.states(), new["status"]) == (["CANCELED", "NEW"], "open")
    assert desk.main.locked("USDT") == 7600


@pytest.mark.parametrize(
    ("mode", "old", "price", "status", "code", "states"),
    [
        ("STOP_ON_FAILURE", 99, 38000, 400, -2022, ["NEW"]),
        ("ALLOW_FAILURE", 99, 38000, 409, -2021, ["NEW", "NEW"]),
        ("STOP_ON_FAILURE", 1, 41000, 409, -2021, ["CANCELED"]),
        ("ALLOW_FAILURE", 99, 41000, 400, -2022, ["NEW"]),
    ],
)
def test_cancel_replace_does_half(
    desk: Desk, mode: str, old: int, price: int, status: int, code: int, states: list[str]
) -> None:
    desk.order("LIMIT", "BUY", "0.1", "39000", timeInForce="GTC")
    asked = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT_MAKER", "quantity": "0.1", "price": price}
    more = {"cancelReplaceMode": mode, "cancelOrderId": old}
    refused = refusal(desk.client.private_post_order_cancelreplace, {**asked, **more})
    assert (refused[:2], desk.states()) == ((status, code), states)


# --- pairs


def test_of_a_pair_the_limit_fills_and_the_stop_expires(holder: Desk) -> None:
    pair = holder.oco("1", 42000, 39000, listClientOrderId="pair-1")
    assert [report["type"] for report in pair["orderReports"]] == ["STOP_LOSS", "LIMIT_MAKER"]
    assert holder.held("BTC") == (0, 1), "both sell the same bitcoin"
    assert len(holder.client.private_get_openorderlist()) == 1
    holder.exchange.move_to(SYMBOL, "42000")
    assert holder.states() == ["EXPIRED", "FILLED"]
    asked = {"origClientOrderId": "pair-1"}
    assert holder.client.private_get_orderlist(asked)["listOrderStatus"] == "ALL_DONE"
    assert holder.client.private_get_openorderlist() == []


def test_of_a_pair_the_stop_fills_and_the_limit_expires(holder: Desk) -> None:
    holder.oco("1", 42000, 39000)
    holder.exchange.trade_at(SYMBOL, "38000")
    assert holder.states() == ["FILLED", "EXPIRED"]
    assert holder.main.free("USDT") == 38000 - 38


def test_a_limit_that_fills_in_part_already_ends_the_stop(holder: Desk) -> None:
    holder.oco("1", 42000, 39000)
    holder.exchange.shallow(SYMBOL, liquidity="0.3")
    holder.exchange.trade_at(SYMBOL, "42000")
    assert holder.states() == ["EXPIRED", "PARTIALLY_FILLED"]
    assert holder.exchange.unprotected_ms("main", SYMBOL, NOW, NOW + 1000) == 1000


@pytest.mark.parametrize("how", ["list", "leg", "all"])
def test_a_pair_is_cancelled_as_a_whole(holder: Desk, how: str) -> None:
    pair = holder.oco("1", 42000, 39000)
    if how == "list":
        gone = holder.client.private_delete_orderlist({"symbol": SYMBOL, "orderListId": pair["orderListId"]})
    elif how == "leg":
        gone = holder.client.private_delete_order({"symbol": SYMBOL, "orderId": pair["orders"][0]["orderId"]})
    else:
        (gone,) = holder.client.private_delete_openorders({"symbol": SYMBOL})
    assert [report["status"] for report in gone["orderReports"]] == ["CANCELED", "CANCELED"]
    assert holder.held("BTC") == (1, 0)
    asked = {"symbol": SYMBOL, "orderListId": pair["orderListId"]}
    assert refusal(holder.client.private_delete_orderlist, asked)[1:3] == (-2011, "Unknown order list sent.")


def test_the_old_form_of_a_pair(holder: Desk) -> None:
    asked = {"symbol": SYMBOL, "side": "SELL", "quantity": 1, "price": 42000, "stopPrice": 39000}
    more = {"stopLimitPrice": 38900, "stopLimitTimeInForce": "GTC", "stopClientOrderId": "stop-1"}
    pair = holder.client.private_post_order_oco({**asked, **more})
    assert [report["type"] for report in pair["orderReports"]] == ["STOP_LOSS_LIMIT", "LIMIT_MAKER"]
    assert pair["orderReports"][0]["clientOrderId"] == "stop-1"
    assert len(holder.client.private_get_allorderlist()) == 1
    assert refusal(holder.client.private_get_orderlist, {"orderListId": 9})[1:3] == (
        -2018,
        "Order list does not exist.",
    )
