"""Executions: none lost and none twice at the borders of pages, and what fees in a third asset were worth."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from atb.core.errors import ExchangeUnavailable
from atb.core.types import Symbol
from atb.venue import binance_fills
from atb.venue.binance_broker import BinanceBroker
from atb.venue.ccxt_signed import SignedSession
from tests.venue.broker_case import BTC, NOW, PATIENCE, Case, desk
from tests.venue.exchange import MINUTE_MS, Fault

pytest.importorskip("ccxt")


def broker_of(case: Case) -> BinanceBroker:
    return BinanceBroker(SignedSession("binance", case.server.url, PATIENCE, case.key), [BTC])


def executed(case: Case, broker: BinanceBroker, count: int, step_ms: int = 0) -> None:
    """One order that is filled in `count` executions, `step_ms` apart by a clock that stands still in between."""
    broker.place(case.order("sell", "limit", f"{count * Decimal('0.0001')}", "50000"), case.window())
    (order,) = case.account.open_orders
    case.exchange.clock.factor = 0.0
    for _ in range(count):
        case.exchange.now_ms += step_ms
        case.exchange.engine.fill(order, Decimal("0.0001"), Decimal(50_000), maker=True)


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 19, 20, 21, 35])
@pytest.mark.parametrize("step_ms", [0, 1])
def test_none_is_lost_and_none_comes_twice_at_page_borders(
    count: int, step_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binance_fills, "PAGE", 10)
    with desk() as case:
        broker = broker_of(case)
        if count:
            executed(case, broker, count, step_ms)
        fills = broker.fills(BTC, NOW)
        assert [int(fill.venue_trade_id) for fill in fills] == [trade.id for trade in case.account.trades]
        assert sum(fill.qty for fill in fills) == count * Decimal("0.0001")
        assert case.server.count("myTrades") == count // 10 + 1


def test_pages_of_the_real_size_and_a_beginning_in_the_middle() -> None:
    with desk() as case:
        broker = broker_of(case)
        executed(case, broker, 1500, 0)
        executed(case, broker, 1500, 1)
        every = broker.fills(BTC, NOW)
        assert len(every) == len({fill.venue_trade_id for fill in every}) == 3000
        middle_ms = case.account.trades[2000].at_ms
        since = broker.fills(BTC, middle_ms)
        assert since == every[2000:]
        assert broker.fills(BTC, case.exchange.now_ms + 1) == []
        assert broker.fills(BTC, 0) == every, "however long ago"


def test_executions_before_are_left_out_and_others_symbols_are_never_shown() -> None:
    with desk() as case:
        broker = broker_of(case)
        eth = Symbol("ETHUSDT", "ETH", "USDT")
        broker.place(case.order(), case.window())
        broker.place(case.order("buy", "market", "1", symbol=eth), case.window())
        assert [fill.symbol for fill in broker.fills(BTC, NOW)] == [BTC]
        assert [fill.symbol for fill in broker.fills(eth, NOW)] == [eth]
        assert broker.fills(BTC, case.exchange.now_ms + 1000) == []


# --- fees


def test_a_fee_is_in_what_was_received() -> None:
    with desk() as case:
        broker = broker_of(case)
        broker.place(case.order("buy", qty="0.1"), case.window())
        broker.place(case.order("sell", qty="0.1"), case.window())
        bought, sold = broker.fills(BTC, NOW)
        assert (bought.side, bought.fee, bought.fee_asset, bought.fee_quote) == ("buy", Decimal("0.0001"), "BTC", None)
        assert (sold.side, sold.fee, sold.fee_asset, sold.fee_quote) == ("sell", Decimal(4), "USDT", None)
        assert bought.at.tzinfo is not None and round(bought.at.timestamp() * 1000) == case.account.trades[0].at_ms
        assert bought.venue_order_id == str(case.account.orders[0].id)


def in_bnb(case: Case, price: str | None = "300") -> BinanceBroker:
    """An account that pays in BNB, whose market has traded at this price in the last minute."""
    case.account.deposit("BNB", 10)
    case.account.pays_in_bnb = True
    case.exchange.clock.factor = 0.0
    if price:
        case.exchange.trade_at("BNBUSDT", price)
    return broker_of(case)


def test_a_fee_in_a_third_asset_is_worth_its_price_at_that_time() -> None:
    with desk() as case:
        broker = in_bnb(case)
        broker.place(case.order(qty="0.1"), case.window())
        broker.place(case.order(qty="0.1"), case.window())
        case.exchange.now_ms += 5 * MINUTE_MS
        case.exchange.trade_at("BNBUSDT", "999")
        first, second = broker.fills(BTC, NOW)
        assert (first.fee, first.fee_asset) == (Decimal("0.01"), "BNB")
        assert first.fee_quote == second.fee_quote == Decimal(3)
        assert case.server.count("klines") == 1, "one minute is asked for once"


def test_a_minute_in_which_nothing_was_traded_has_the_price_before_and_an_old_one_is_none() -> None:
    with desk() as case:
        broker = in_bnb(case)
        case.exchange.now_ms += 20 * MINUTE_MS
        broker.place(case.order(qty="0.1"), case.window())
        assert broker.fills(BTC, NOW)[0].fee_quote == Decimal(3)
    with desk() as case:
        broker = in_bnb(case)
        case.exchange.now_ms += 90 * MINUTE_MS
        broker.place(case.order(qty="0.1"), case.window())
        assert broker.fills(BTC, NOW)[0].fee_quote is None


def test_without_a_market_the_worth_is_not_known_and_without_an_answer_nothing_is_said() -> None:
    with desk() as case:
        broker = in_bnb(case)
        broker.place(case.order(qty="0.1"), case.window())
        broker.place(case.order(qty="0.1"), case.window())
        case.server.add(Fault("html", "klines"))
        with pytest.raises(ExchangeUnavailable):
            broker.fills(BTC, NOW)  # a fill is booked once: better later than without its fee
        case.server.heal()
        case.server.add(Fault("refused", "klines", code=-1121, message="Invalid symbol."))
        asked = case.server.count("klines")
        assert [fill.fee_quote for fill in broker.fills(BTC, NOW)] == [None, None]
        assert case.server.count("klines") == asked + 1


def test_what_was_bought_does_not_wait_long_for_the_worth_of_its_fee() -> None:
    with desk() as case:
        broker = in_bnb(case)
        broker.place(case.order(qty="0.1"), case.window())
        case.server.add(Fault("html", "klines"))
        case.exchange.now_ms += 11_000
        assert [fill.fee_quote for fill in broker_of(case).fills(BTC, NOW)] == [None]
    with desk() as case:
        broker = in_bnb(case)
        broker.place(case.order(qty="0.1"), case.window())
        assert broker.fills(BTC, NOW)[0].fee_quote == Decimal(3)
        case.server.add(Fault("html", "klines"))
        case.exchange.now_ms += MINUTE_MS
        broker.place(case.order(qty="0.1"), case.window())
        assert broker.fills(BTC, NOW)[1].fee_quote == Decimal(3), "the price of the minute before, at once"


def test_a_fee_of_nothing_is_worth_nothing() -> None:
    row = {"symbol": "BTCUSDT", "id": 1, "orderId": 2, "price": "1.0", "qty": "2.0", "commission": "0.00000000"}
    body = json.dumps([{**row, "commissionAsset": "BNB", "time": NOW, "isBuyer": True}]).encode()
    with desk(Fault("status", "myTrades", status=200, body=body)) as case:
        (fill,) = broker_of(case).fills(BTC, NOW)
        assert [fill.fee, fill.fee_quote] == [0, 0] and case.server.count("klines") == 0


def test_the_worth_is_exact() -> None:
    with desk() as case:
        broker = in_bnb(case, "312.12345678")
        broker.place(case.order(qty="0.12345"), case.window())
        (fill,) = broker.fills(BTC, NOW)
        assert fill.fee_quote == fill.fee * Decimal("312.12345678")


@pytest.mark.parametrize("spoilt", ["wrong order", "duplicated"])
def test_a_page_in_another_order_is_sorted_and_one_with_doubles_is_not_believed(
    spoilt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with desk() as case:
        broker = broker_of(case)
        executed(case, broker, 20, 1)
        real = broker.session.client.privateGetMyTrades

        def spoil(params: Any) -> list[Any]:
            page: list[Any] = real(params)
            return page[::-1] if spoilt == "wrong order" else page + page[:3]

        monkeypatch.setattr(broker.session.client, "privateGetMyTrades", spoil)
        if spoilt == "wrong order":
            assert [int(fill.venue_trade_id) for fill in broker.fills(BTC, NOW)] == list(range(1, 21))
        else:
            with pytest.raises(ExchangeUnavailable, match="other executions"):
                broker.fills(BTC, NOW)
