"""What comes and goes without an order, and all orders of an account: the real ccxt against the loopback exchange."""

from __future__ import annotations

from decimal import Decimal

import pytest

from atb.core.errors import ExchangeUnavailable
from atb.core.orders import OTHER, SeenTransfer
from atb.venue import binance_history
from atb.venue.binance_broker import BinanceBroker
from atb.venue.ccxt_signed import SignedSession
from atb.venue.coinbase_broker import CoinbaseBroker, CoinbaseSession
from tests.venue import desk as simulated
from tests.venue.broker_case import BTC, BTC_USD, NOW, PATIENCE, Case, coinbase_desk, desk
from tests.venue.exchange import DAY_MS, Fault

pytest.importorskip("ccxt")


def broker_of(case: Case) -> BinanceBroker:
    return BinanceBroker(SignedSession("binance", case.server.url, PATIENCE, case.key), [BTC])


def at_coinbase(case: Case) -> CoinbaseBroker:
    return CoinbaseBroker(CoinbaseSession("coinbase", case.server.url, PATIENCE, case.key), [BTC_USD])


def told(broker: BinanceBroker, since_ms: int = NOW) -> list[tuple[str, str, str]]:
    found = broker.transfers(since_ms)
    assert found is not None
    return sorted((t.kind, t.asset, f"{t.amount.normalize():f}") for t in found)


def test_each_kind_with_its_sign_and_its_fee() -> None:
    with desk() as case:
        move, main = case.exchange.owner.move, case.account
        move(main, "deposit", "USDT", "1000")
        move(main, "withdrawal", "USDT", "99", fee="1")
        move(main, "dust", "BTC", "0.00000999", fee="0.00000002", into=("BNB", "0.00131"))
        move(main, "convert", "USDT", "20", into=("ETH", "0.008"))
        move(main, "income", "BTC", "0.00000012")
        move(main, "MAIN_FUNDING", "USDT", "50")
        move(main, "FUNDING_MAIN", "USDT", "5")
        assert told(broker_of(case)) == [
            ("conversion", "BNB", "0.00131"), ("conversion", "BTC", "-0.00000999"), ("conversion", "ETH", "0.008"),
            ("conversion", "USDT", "-20"), ("deposit", "USDT", "1000"), ("income", "BTC", "0.00000012"),
            ("internal", "USDT", "-50"), ("internal", "USDT", "5"), ("withdrawal", "USDT", "-100"),
        ]  # fmt: skip


def test_each_has_a_name_of_its_own_and_half_a_year_is_asked_for_in_parts() -> None:
    with desk() as case:
        for day in (200, 170, 95, 89, 31, 1):
            case.exchange.clock.set(NOW - day * DAY_MS)
            case.exchange.owner.move(case.account, "deposit", "USDT", day)
            case.exchange.owner.move(case.account, "convert", "USDT", 1, into=("BTC", "0.00001"))
        case.exchange.clock.set(NOW)
        found = broker_of(case).transfers(NOW - 180 * DAY_MS)
        assert found is not None
        assert [int(t.amount) for t in found if t.kind == "deposit"] == [170, 95, 89, 31, 1]
        assert sum(t.kind == "conversion" for t in found) == 10
        assert len({t.name for t in found}) == len(found)
        assert found == sorted(found, key=lambda t: t.at)


def test_an_answer_as_long_as_it_may_be_is_not_the_whole() -> None:
    with desk() as case:
        case.exchange.clock.factor = 0.0
        for _ in range(1, 251):
            case.exchange.now_ms += 7
            case.exchange.owner.move(case.account, "dust", "USDT", 1, into=("BNB", "0.00001"))
        found = broker_of(case).transfers(NOW - DAY_MS)
        assert found is not None and len({t.name for t in found}) == 500


def test_a_key_that_may_not_ask_or_a_test_network_that_does_not_tell() -> None:
    with desk(Fault("status", "/sapi", status=404, body=b"", times=99)) as case:
        assert broker_of(case).transfers(NOW) is None
    barred = b'{"code": -2015, "msg": "Invalid API-key, IP, or permissions for action."}'
    with desk(Fault("status", "withdraw", status=401, body=barred, times=99)) as case:
        case.exchange.owner.move(case.account, "deposit", "USDT", "10")
        case.exchange.owner.move(case.account, "withdrawal", "USDT", "7")
        assert told(broker_of(case)) == [("deposit", "USDT", "10")]  # the others are told all the same
    with desk(Fault("status", "dribblet", status=503, body=b"", times=99)) as case, pytest.raises(ExchangeUnavailable):
        broker_of(case).transfers(NOW)


def test_what_is_under_way_or_was_given_back() -> None:
    with desk() as case:
        main = case.account
        case.exchange.owner.move(main, "deposit", "USDT", "10")
        case.exchange.owner.move(main, "withdrawal", "USDT", "20")
        main.transfers = [t._replace(status="pending") for t in main.transfers]
        assert told(broker_of(case)) == [("withdrawal", "USDT", "-20")]  # gone from the wallet already


def test_all_orders_of_a_symbol_whatever_became_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binance_history, "PAGE", 3)
    with desk() as case:
        broker, mine = broker_of(case), case.exchange.owner
        broker.place(case.order("buy", "limit", "0.01", "39000"), case.window())
        bought = case.order("buy", qty="0.02")
        broker.place(bought, case.window())
        stop = case.order("sell", "stop", "0.01", stop="35000")
        broker.place(stop, case.window())
        broker.cancel(BTC, stop.client_order_id)
        mine.order(case.account, "BTCUSDT", "SELL", "0.1")
        mine.order(case.account, "BTCUSDT", "SELL", "0.1", "50000", "49000", type="TAKE_PROFIT_LIMIT")
        mine.order(case.account, "ETHUSDT", "BUY", "0.1", "2000")
        seen = broker.orders(BTC, NOW)
        assert [order.state for order in seen] == ["open", "filled", "cancelled", "filled", "open"]
        assert seen[1].client_order_id == bought.client_order_id
        assert (seen[-1].type, seen[-1].price, seen[-1].client_order_id[:4]) == (OTHER, None, "web_")
        assert case.server.count("allOrders") == 2
        assert [order.type for order in broker.open_orders([BTC])] == ["limit", OTHER]
        case.exchange.now_ms += 10_000
        assert broker.orders(BTC, NOW + 9_000) == []


def test_an_order_that_bears_our_id_must_be_one_of_ours() -> None:
    with desk() as case, pytest.raises(ExchangeUnavailable, match="TAKE_PROFIT_LIMIT"):
        name = case.order().client_order_id
        case.exchange.owner.order(
            case.account, "BTCUSDT", "SELL", "0.1", "50000", "49000", type="TAKE_PROFIT_LIMIT", client_id=name
        )
        broker_of(case).open_orders([BTC])


def test_coinbase() -> None:
    with coinbase_desk() as case:
        broker = at_coinbase(case)
        first, second = case.order("buy", "limit", "0.01", "39000", symbol=BTC_USD), case.order(symbol=BTC_USD)
        for order in (first, second):
            broker.place(order, case.window())
        case.exchange.owner.order(case.account, "BTC-USD", "SELL", "0.1")
        case.account.orders[-1].asked = {"order_configuration": {"market_market_ioc": {"quote_size": "4000"}}}
        seen = broker.orders(BTC_USD, NOW - 1000)
        assert [order.client_order_id for order in seen[:2]] == [first.client_order_id, second.client_order_id]
        assert [(order.state, order.type) for order in seen] == [
            ("open", "limit"),
            ("filled", "market"),
            ("filled", OTHER),
        ]
        assert broker.orders(BTC_USD, NOW + DAY_MS) == []
        assert broker.transfers(NOW) is None


def test_the_simulated_exchange() -> None:
    desk_ = simulated.Desk()
    desk_.open(100.0)
    desk_.place(simulated.buy(qty="1"))
    desk_.place(simulated.buy("rests", qty="1", price="50"))
    assert [o.client_order_id for o in desk_.broker.orders(simulated.BTC, 0)] == ["b", "rests"]
    assert desk_.broker.orders(simulated.BTC, desk_.clock.time_ms + 1) == []
    desk_.exchange.move("deposit", ("USDT", Decimal(50)))
    desk_.exchange.move("conversion", ("BTC", Decimal("-0.01")), ("BNB", Decimal("0.1")))
    desk_.exchange.move("withdrawal", ("USDT", Decimal(-20)), told=False)
    seen = desk_.broker.transfers(0)
    assert seen is not None and [(t.name, t.amount) for t in seen] == [
        ("deposit:1:USDT", Decimal(50)), ("conversion:2:BTC", Decimal("-0.01")), ("conversion:2:BNB", Decimal("0.1")),
    ]  # fmt: skip
    assert isinstance(seen[0], SeenTransfer)
    assert desk_.exchange.balances()["BNB"].free == Decimal("0.1")
    desk_.exchange.tells_transfers = False
    assert desk_.broker.transfers(0) is None
