"""Coinbase's words and ours: every type both ways, and nothing that is believed without being whole."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from atb.core.orders import NewOrder
from atb.core.types import Symbol
from atb.venue.broker import OrderRefused
from atb.venue.ccxt_errors import Failure, Trouble
from atb.venue.ccxt_outcomes import Outcome, outcome_of
from atb.venue.coinbase_orders import (
    KINDS,
    TYPES,
    order_params,
    read_accepted,
    read_fill,
    read_listing,
    read_order,
    read_page,
)

BTC = Symbol("BTC-USD", "BTC", "USD")
PRICES = {
    "market": (None, None),
    "limit": (Decimal("39000.5"), None),
    "take_limit": (Decimal("44000"), None),
    "stop_limit": (Decimal("37900"), Decimal("38000")),
}


def order(type: str = "limit", side: str = "sell") -> NewOrder:
    price, stop_price = PRICES[type]
    return NewOrder("atb-3fk2-9ab1-sk2q4o-e0", BTC, side, type, Decimal("0.12345678"), price, stop_price)


def told(asked: NewOrder, **changes: Any) -> dict[str, Any]:
    """An order as Coinbase would tell of it."""
    params = order_params(asked)
    return {
        **{name: params[name] for name in ("client_order_id", "product_id", "side", "order_configuration")},
        "order_id": "a1b2",
        "status": "OPEN",
        "filled_size": "0",
        "created_time": "2024-01-15T10:00:00.123456789Z",
        "last_fill_time": None,
    } | changes


@pytest.mark.parametrize("type", KINDS)
@pytest.mark.parametrize("side", ["buy", "sell"])
def test_what_is_sent_is_what_is_read(type: str, side: str) -> None:
    asked = order(type, side)
    seen = read_order(json.loads(json.dumps(told(asked))), BTC)
    assert seen[:1] + seen[2:8] == asked
    assert seen.created_at == seen.updated_at == datetime(2024, 1, 15, 10, 0, 0, 123456, UTC)


def test_the_table_is_one_to_one() -> None:
    assert len(TYPES) == len(KINDS) == 4
    with pytest.raises(OrderRefused, match="stop order at Coinbase"):
        order_params(order()._replace(type="stop", price=None, stop_price=Decimal(1)))


def test_a_stop_waits_on_its_own_side() -> None:
    down, up = (order_params(order("stop_limit", side))["order_configuration"] for side in ("sell", "buy"))
    assert down["stop_limit_stop_limit_gtc"]["stop_direction"] == "STOP_DIRECTION_STOP_DOWN"
    assert up["stop_limit_stop_limit_gtc"]["stop_direction"] == "STOP_DIRECTION_STOP_UP"


@pytest.mark.parametrize(
    ("status", "filled", "state"),
    [
        ("PENDING", "0", "open"),
        ("OPEN", "0.1", "partially_filled"),
        ("CANCEL_QUEUED", "0", "open"),
        ("CANCELLED", "0.1", "cancelled"),
        ("FILLED", "0.12345678", "filled"),
        ("FAILED", "0", "rejected"),
    ],
)
def test_states(status: str, filled: str, state: str) -> None:
    seen = read_order(told(order(), status=status, filled_size=filled), BTC)
    assert (seen.state, seen.filled_qty) == (state, Decimal(filled))


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "UNKNOWN_ORDER_STATUS"},
        {"status": None},
        {"side": "UNKNOWN_ORDER_SIDE"},
        {"filled_size": 0.5},
        {"filled_size": "9"},
        {"product_id": "ETH-USD"},
        {"order_id": ""},
        {"created_time": "yesterday"},
        {"created_time": None},
        {"order_configuration": None},
        {"order_configuration": {}},
        {"order_configuration": {"trigger_bracket_gtc": {"base_size": "1"}}},
        {"order_configuration": {"limit_limit_gtc": {"base_size": "1", "limit_price": "2"}}},
        {"order_configuration": {"market_market_ioc": {"quote_size": "10"}}},
    ],
)
def test_an_order_that_is_not_whole_is_not_believed(changes: dict[str, Any]) -> None:
    with pytest.raises(Trouble):
        read_order(told(order(), **changes), BTC)


def test_an_answer_to_an_order_that_is_no_success_is_not_taken_for_one() -> None:
    good = {"success": True, "success_response": {"order_id": "a1", "client_order_id": order().client_order_id}}
    assert read_accepted(good, order()) == "a1"
    for answer in (
        {},
        {"success": True},
        {"success": "true"},
        {**good, "success": False},
        {**good, "success_response": {}},
    ):
        with pytest.raises(Trouble):
            read_accepted(answer, order())
    with pytest.raises(Trouble, match="not the one that was sent"):
        read_accepted({"success": True, "success_response": {"order_id": "a1", "client_order_id": "other"}}, order())


def test_pages() -> None:
    assert read_page({"fills": [{}, {}], "cursor": "x"}, "fills", len) == ([0, 0], "x")
    assert read_page({"orders": [], "cursor": "x", "has_next": False}, "orders", len) == ([], "")
    wrong: list[Any] = [{}, {"fills": None}, [], {"fills": [], "cursor": 3}, {"fills": [1], "cursor": ""}]
    for answer in wrong:
        with pytest.raises(Trouble):
            read_page(answer, "fills", len)


def test_an_execution_told_in_quote_is_counted_in_lots() -> None:
    fill = {
        "trade_id": "t1", "order_id": "o1", "product_id": "BTC-USD", "trade_type": "FILL", "side": "BUY",
        "price": "30000.07", "size": "100", "commission": "0.6", "trade_time": "2024-01-15T10:30:00Z",
    }  # fmt: skip
    lot = Decimal("0.00000001")
    assert read_fill(fill, BTC, lot).qty == 100
    assert read_fill({**fill, "size_in_quote": True}, BTC, lot).qty == Decimal("0.00333333")
    for changes in ({"trade_type": "REVERSAL"}, {"product_id": "ETH-USD"}, {"side": "?"}, {"size": "0"}):
        with pytest.raises(Trouble):
            read_fill(fill | changes, BTC, lot)


def test_a_product_that_is_closed_says_how() -> None:
    product = {
        "product_id": "BTC-USD", "base_increment": "0.00000001", "price_increment": "0.01", "quote_min_size": "1",
        "base_min_size": "0.00000001", "base_max_size": "3400", "status": "online", "trading_disabled": False,
    }  # fmt: skip
    assert read_listing(product, BTC, "today").closed == ""
    assert read_listing(product, BTC, "today").rules.max_qty == 3400
    assert read_listing(product | {"cancel_only": True}, BTC, "today").closed == "cancel_only"
    assert read_listing(product | {"status": "delisted"}, BTC, "today").closed == "delisted"


@pytest.mark.parametrize(
    ("body", "outcome", "reason"),
    [
        ({"error": "INSUFFICIENT_FUND"}, Outcome.REFUSED, "insufficient_balance"),
        ({"error": "INVALID_LIMIT_PRICE_POST_ONLY"}, Outcome.REFUSED, "would_match"),
        ({"error": "UNSUPPORTED_ORDER_CONFIGURATION"}, Outcome.REFUSED, "not_supported"),
        (
            {"error": "UNKNOWN_FAILURE_REASON", "preview_failure_reason": "PREVIEW_STOP_PRICE_ABOVE_LAST_TRADE_PRICE"},
            Outcome.REFUSED,
            "would_trigger",
        ),
        ({"error": "UNKNOWN_FAILURE_REASON", "preview_failure_reason": "UNKNOWN_X"}, Outcome.UNKNOWN, "unknown"),
        ({"error": "A_WORD_THAT_IS_NEW"}, Outcome.REFUSED, "refused"),
        ({}, Outcome.UNKNOWN, "unknown"),
    ],
)
def test_refusals_that_come_as_an_answer(body: dict[str, str], outcome: Outcome, reason: str) -> None:
    text = "coinbase " + json.dumps({"success": False, "error_response": body})
    assert outcome_of(Failure((), None, text, 0.0, True, "")) == (outcome, reason)


@pytest.mark.parametrize(
    ("status", "word", "outcome"),
    [
        (400, "INVALID_ARGUMENT", Outcome.REFUSED),
        (403, "PERMISSION_DENIED", Outcome.BARRED),
        (429, "RESOURCE_EXHAUSTED", Outcome.TOO_FAST),
        (500, "INTERNAL", Outcome.UNKNOWN),
        (400, "unknown", Outcome.UNKNOWN),
    ],
)
def test_errors(status: int, word: str, outcome: Outcome) -> None:
    text = json.dumps({"error": word, "error_details": "?", "message": "?"})
    assert outcome_of(Failure((), status, text, 0.0, True, ""))[0] is outcome
