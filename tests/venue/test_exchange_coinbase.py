"""The loopback exchange as the real ccxt sees it: Coinbase's advanced trade."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.venue.clients import NOW, ccxt
from tests.venue.clients import coinbase as client_of
from tests.venue.exchange import Account, Exchange, Fault, Loopback
from tests.venue.exchange.coinbase import made_key, open_account

PAIR, PRODUCT = "BTC/USD", "BTC-USD"
END = "2024-01-01T00:10:00Z"


class Desk:
    def __init__(self, exchange: Exchange, main: Account, server: Loopback) -> None:
        self.exchange, self.main, self.server = exchange, main, server
        self.client: Any = client_of(server)
        self.names = 0

    def order(self, kind: str, side: str, name: str = "", **values: Any) -> dict[str, Any]:
        """As the exchange itself answers it; what it refuses too."""
        self.names += 1
        asked = {"client_order_id": name or f"atb-{self.names}", "product_id": PRODUCT, "side": side}
        try:
            return dict(self.client.v3_private_post_brokerage_orders({**asked, "order_configuration": {kind: values}}))
        except ccxt.BaseError:
            return dict(self.client.parse_json(self.client.last_http_response))

    def failure(self, kind: str, side: str, **values: Any) -> tuple[str, str]:
        answer = self.order(kind, side, **values)
        assert answer["success"] is False
        return answer["error_response"]["error"], answer["error_response"]["preview_failure_reason"]

    def seen(self, answer: dict[str, Any]) -> dict[str, Any]:
        number = {"order_id": answer["order_id"]}
        return dict(self.client.v3_private_get_brokerage_orders_historical_order_id(number)["order"])

    def held(self, asset: str) -> Any:
        return tuple(self.main.balances[asset])


@pytest.fixture
def desk() -> Iterator[Desk]:
    exchange = Exchange(NOW)
    exchange.list(PRODUCT, "BTC", "USD", price="40000", lot="0.00000001", min_notional="1")
    main = open_account(exchange, "main", {"USD": "10000", "BTC": "1"})
    main.taker_fee, main.maker_fee = Decimal("0.006"), Decimal("0.004")
    with Loopback(exchange) as server:
        yield Desk(exchange, main, server)
    exchange.invariants()


# --- orders


def test_a_market_order_by_cost_pays_its_fee_out_of_it(desk: Desk) -> None:
    order = desk.client.create_order(PAIR, "market", "buy", 0.1, None, {"cost": 1006})
    done = desk.client.fetch_order(order["id"], PAIR)
    assert (done["status"], done["filled"], done["fee"]["cost"]) == ("closed", 0.025, "6")
    assert desk.held("USD") == (8994, 0)
    assert desk.held("BTC") == (Decimal("1.025"), 0), "the fee is never in what was bought"
    info = done["info"]
    assert (info["size_in_quote"], info["total_value_after_fees"], info["order_type"]) == (True, "1006", "MARKET")


def test_a_limit_holds_its_fee_too_and_is_given_back_what_the_maker_saves(desk: Desk) -> None:
    order = desk.client.create_order(PAIR, "limit", "buy", 0.1, 39000)
    assert desk.held("USD") == (Decimal("10000") - Decimal("3923.4"), Decimal("3923.4"))
    desk.exchange.move_to(PRODUCT, "38999")
    assert desk.client.fetch_order(order["id"])["status"] == "closed"
    assert desk.held("USD") == (Decimal("10000") - 3900 - Decimal("15.6"), 0)
    (trade,) = desk.client.fetch_my_trades(PAIR)
    assert (trade["takerOrMaker"], trade["price"], trade["amount"], trade["fee"]["cost"]) == ("maker", 39000, 0.1, 15.6)


def test_a_stop_limit_waits_for_its_price(desk: Desk) -> None:
    order = desk.client.create_order(PAIR, "limit", "sell", 0.5, 38900, {"stopLossPrice": 39000})
    seen = desk.seen({"order_id": order["id"]})
    assert (seen["status"], seen["trigger_status"], seen["order_type"]) == ("OPEN", "STOP_PENDING", "STOP_LIMIT")
    desk.exchange.trade_at(PRODUCT, "38800")
    seen = desk.seen({"order_id": order["id"]})
    assert (seen["status"], seen["trigger_status"]) == ("OPEN", "STOP_TRIGGERED"), "jumped over"
    desk.exchange.trade_at(PRODUCT, "38950")
    assert desk.seen({"order_id": order["id"]})["status"] == "FILLED"


@pytest.mark.parametrize(
    ("price", "status", "proceeds"),
    [("42000", "FILLED", "42000"), ("39000", "FILLED", "39000"), ("37100", "FILLED", "37100"), ("37000", "OPEN", "0")],
)
def test_a_bracket_takes_profit_or_stops_within_five_percent(
    desk: Desk, price: str, status: str, proceeds: str
) -> None:
    values = {"base_size": "1", "limit_price": "42000", "stop_trigger_price": "39000"}
    order = desk.order("trigger_bracket_gtc", "SELL", **values)
    assert desk.held("BTC") == (0, 1), "one lock for both"
    desk.exchange.trade_at(PRODUCT, price)
    seen = desk.seen(order)
    assert (seen["order_type"], seen["status"], seen["filled_value"]) == ("BRACKET", status, proceeds)


@pytest.mark.parametrize(
    ("kind", "values", "status", "size"),
    [
        ("sor_limit_ioc", {"limit_price": "40000"}, "CANCELLED", "0.02"),
        ("limit_limit_fok", {"limit_price": "40000"}, "CANCELLED", "0"),
        ("limit_limit_gtc", {"limit_price": "40000"}, "OPEN", "0.02"),
        ("market_market_ioc", {}, "CANCELLED", "0.02"),
    ],
)
def test_where_there_is_too_little(desk: Desk, kind: str, values: dict[str, str], status: str, size: str) -> None:
    desk.exchange.shallow(PRODUCT, liquidity="0.02")
    seen = desk.seen(desk.order(kind, "BUY", base_size="0.1", **values))
    assert (seen["status"], seen["filled_size"]) == (status, size)


def test_an_order_with_an_end(desk: Desk) -> None:
    order = desk.order("limit_limit_gtd", "BUY", base_size="0.1", limit_price="39000", end_time=END)
    desk.exchange.now_ms = NOW + 599_999
    assert desk.seen(order)["status"] == "OPEN"
    desk.exchange.now_ms += 1
    assert desk.seen(order)["status"] == "EXPIRED"
    assert desk.held("USD") == (10000, 0)


def test_the_same_client_id_again_makes_no_second_order(desk: Desk) -> None:
    first = desk.order("market_market_ioc", "BUY", "atb-x", quote_size="1000")
    again = desk.order("market_market_ioc", "BUY", "atb-x", quote_size="1000")
    assert first["order_id"] == again["order_id"]
    assert len(desk.main.placed("atb-x")) == 1


def test_cancels_are_answered_one_by_one(desk: Desk) -> None:
    names = [
        desk.order("limit_limit_gtc", "BUY", base_size="0.01", limit_price=str(39000 - n))["order_id"] for n in (0, 1)
    ]
    desk.exchange.trade_at(PRODUCT, "39000")
    results = desk.client.v3_private_post_brokerage_orders_batch_cancel({"order_ids": names})["results"]
    assert [(result["success"], result["failure_reason"]) for result in results] == [
        (False, "UNKNOWN_CANCEL_ORDER"),
        (True, "UNKNOWN_CANCEL_FAILURE_REASON"),
    ]
    with pytest.raises(ccxt.BadRequest):
        desk.client.cancel_order(names[1])
    assert sorted(order["status"] for order in desk.client.fetch_orders(PAIR)) == ["canceled", "closed"]


def test_orders_and_fills_come_newest_first_in_pages(desk: Desk) -> None:
    for n in range(5):
        desk.order("market_market_ioc", "BUY", base_size="0.001")
        desk.exchange.now_ms += 1000
        desk.order("limit_limit_gtc", "BUY", base_size="0.001", limit_price=str(39000 + n))
    batch = desk.client.v3_private_get_brokerage_orders_historical_batch
    first = batch({"limit": 4})
    rest = batch({"limit": 100, "cursor": first["cursor"]})
    created = [order["created_time"] for order in first["orders"] + rest["orders"]]
    assert (first["has_next"], rest["has_next"], len(created)) == (True, False, 10)
    assert created == sorted(created, reverse=True)
    assert len(desk.client.fetch_open_orders(PAIR)) == 5
    assert len(desk.client.fetch_my_trades(PAIR, since=NOW + 2000)) == 3
    two = [order["order_id"] for order in batch({"order_status": ["FILLED"]})["orders"]][:2]
    fills = desk.client.v3_private_get_brokerage_orders_historical_fills({"order_ids": two})["fills"]
    assert [fill["order_id"] for fill in fills] == two
    with pytest.raises(ccxt.BadRequest, match="Cannot pair open orders"):
        batch({"order_status": ["OPEN", "FILLED"]})


# --- what is refused


BRACKET = {"base_size": "1", "limit_price": "38000", "stop_trigger_price": "39000"}
MAKER = {"base_size": "1", "limit_price": "40000", "post_only": True}


@pytest.mark.parametrize(
    ("kind", "side", "values", "preview"),
    [
        ("market_market_ioc", "BUY", {"quote_size": "10000.01"}, "INSUFFICIENT_FUND"),
        ("market_market_ioc", "BUY", {"base_size": "0.25"}, "INSUFFICIENT_FUND"),
        ("market_market_ioc", "SELL", {"base_size": "0.000000001"}, "INVALID_SIZE_PRECISION"),
        ("market_market_ioc", "BUY", {"quote_size": "0.5"}, "INVALID_QUOTE_SIZE_TOO_SMALL"),
        ("limit_limit_gtc", "SELL", {"base_size": "1", "limit_price": "40000.001"}, "INVALID_PRICE_PRECISION"),
        ("limit_limit_gtc", "SELL", MAKER, "INVALID_LIMIT_PRICE_POST_ONLY"),
        ("limit_limit_xyz", "SELL", {"base_size": "1"}, "UNSUPPORTED_ORDER_CONFIGURATION"),
        ("trigger_bracket_gtc", "SELL", BRACKET, "INVALID_BRACKET_PRICES"),
    ],
)
def test_orders_that_are_not_made(desk: Desk, kind: str, side: str, values: dict[str, Any], preview: str) -> None:
    assert desk.failure(kind, side, **values)[1] == f"PREVIEW_{preview}"
    assert desk.main.orders == []


@pytest.mark.parametrize(
    ("limit", "stop", "preview"),
    [
        ("41000", "41000", "PREVIEW_STOP_PRICE_ABOVE_LAST_TRADE_PRICE"),
        ("39000", "38000", "PREVIEW_STOP_PRICE_BELOW_LIMIT_PRICE"),
    ],
)
def test_stops_that_cannot_be(desk: Desk, limit: str, stop: str, preview: str) -> None:
    values = {"base_size": "1", "limit_price": limit, "stop_price": stop, "stop_direction": "STOP_DIRECTION_STOP_DOWN"}
    assert desk.failure("stop_limit_stop_limit_gtc", "SELL", **values)[1] == preview


def test_ccxt_reads_the_refusals(desk: Desk) -> None:
    with pytest.raises(ccxt.InsufficientFunds):
        desk.client.create_order(PAIR, "market", "sell", 2)
    desk.exchange.halt(PRODUCT)
    assert desk.failure("market_market_ioc", "SELL", base_size="1")[0] == "UNTRADABLE_PRODUCT"
    with pytest.raises(ccxt.BaseError, match="order with this orderID was not found"):
        desk.client.fetch_order("6cf6ee23-0000-0000-0000-000000000000")


# --- who asks


@pytest.mark.parametrize("wrong", ["nobody", "secret", "old", "early", "other path"])
def test_a_token_that_is_not_good(desk: Desk, wrong: str) -> None:
    key = desk.main.key
    key = key._replace(secret=made_key("other").secret) if wrong == "secret" else key
    client = client_of(desk.server, made_key("nobody") if wrong == "nobody" else key)
    client.load_markets = lambda: None
    client.markets = {}
    shift = {"old": -120, "early": 1}.get(wrong, 0)
    client.seconds = lambda: NOW // 1000 + shift
    if wrong == "other path":
        token = client.create_auth_token(NOW // 1000, "POST", desk.server.url + "/api/v3/brokerage/accounts")
        client.headers = {"Authorization": f"Bearer {token}"}
    with pytest.raises(ccxt.AuthenticationError):
        client.v3_private_get_brokerage_accounts()


def test_a_request_that_is_held_up_for_two_minutes_is_refused(desk: Desk) -> None:
    desk.client.load_markets()
    desk.server.add(
        Fault("late", "/orders", times=1, seconds=119), Fault("late", "/orders", times=1, skip=1, seconds=120)
    )
    assert desk.order("market_market_ioc", "BUY", quote_size="10")["success"] is True
    with pytest.raises(ccxt.AuthenticationError):
        desk.client.create_order(PAIR, "market", "sell", 0.1)
    assert len(desk.main.orders) == 1


def test_the_rights_of_a_key(desk: Desk) -> None:
    reader = made_key("reader", may_trade=False)._replace(account="main")
    desk.exchange.add_key(reader)
    client = client_of(desk.server, reader)
    assert client.fetch_balance({"v3": True})["USD"] == {"free": 10000, "used": 0, "total": 10000}
    with pytest.raises(ccxt.PermissionDenied):
        client.create_order(PAIR, "market", "sell", 0.1)
    rights = client.v3_private_get_brokerage_key_permissions()
    assert (rights["can_view"], rights["can_trade"], rights["can_transfer"]) == (True, False, False)


def test_too_many_requests_of_a_second(desk: Desk) -> None:
    desk.exchange.rates.calls_a_second = 3
    for _ in range(3):
        desk.client.v3_public_get_brokerage_time()
    with pytest.raises(ccxt.RateLimitExceeded):
        desk.client.v3_public_get_brokerage_time()
    desk.exchange.now_ms += 1000
    desk.client.v3_public_get_brokerage_time()


# --- the rest


def test_what_ccxt_reads_of_the_market(desk: Desk) -> None:
    market = desk.client.load_markets()[PAIR]
    assert (market["precision"]["amount"], market["taker"], market["limits"]["cost"]["min"]) == (1e-8, 0.006, 1)
    assert desk.client.fetch_ticker(PAIR)["bid"] == 40000
    assert desk.client.fetch_order_book(PAIR)["asks"] == [[40000, 1000]]
    assert desk.client.fetch_bids_asks([PAIR])[PAIR]["ask"] == 40000
    assert desk.client.fetch_time() == NOW


def test_a_lost_answer_may_be_asked_for_again(desk: Desk) -> None:
    """By the same client id: here that is safe."""
    desk.server.add(Fault("reset", "/orders", method="POST", times=1, done=True))
    name, values = "atb-lost", {"market_market_ioc": {"quote_size": "100"}}
    asked = {"client_order_id": name, "product_id": PRODUCT, "side": "BUY", "order_configuration": values}
    with pytest.raises(ccxt.NetworkError):
        desk.client.v3_private_post_brokerage_orders(asked)
    assert desk.client.v3_private_post_brokerage_orders(asked)["success"] is True
    assert len(desk.main.placed(name)) == 1


def test_both_protocols_over_one_state() -> None:
    """A route table each; accounts and markets know nothing of them."""
    exchange = Exchange(NOW)
    exchange.list(PRODUCT, "BTC", "USD", price="40000")
    mine = open_account(exchange, "main", {"USD": "1000"})
    with Loopback(exchange) as server:
        client_of(server).create_order(PAIR, "limit", "buy", 0.01, 39000)
    assert [entry.effect[0].what for entry in exchange.log if entry.effect] == ["placed"]
    assert mine.open_orders[0].symbol == PRODUCT
