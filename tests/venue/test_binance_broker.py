"""Binance's spot market through the real ccxt: what is asked, what is answered, and that amounts are exact."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from atb.app import App
from atb.core.errors import ExchangeRefused, ExchangeUnavailable, UsageError
from atb.core.keys import ApiKey
from atb.core.orders import ORDER_TYPES, Balance, KeyRights
from atb.core.types import Symbol
from atb.venue.binance_broker import BinanceBroker
from atb.venue.binance_orders import KINDS, STATES
from atb.venue.broker import Broker, Features, OrderRefused, OrderUnknown
from atb.venue.ccxt_broker import open_broker
from atb.venue.ccxt_signed import SignedSession
from tests.venue.broker_case import BTC, ETH, NOW, PATIENCE, Case, desk
from tests.venue.exchange import Fault

ccxt = pytest.importorskip("ccxt")


def broker_of(case: Case, *symbols: Symbol, key: ApiKey | None = None) -> BinanceBroker:
    session = SignedSession("binance", case.server.url, PATIENCE, key or case.key, case.folder)
    rules = None if case.folder is None else case.folder / "market_rules.json"
    return BinanceBroker(session, symbols or (BTC,), rules)


# --- orders of each type


@pytest.mark.parametrize(
    ("side", "type", "price", "stop", "state"),
    [
        ("buy", "market", None, None, "filled"),
        ("sell", "market", None, None, "filled"),
        ("buy", "limit", "39000", None, "open"),
        ("sell", "limit", "39000", None, "filled"),
        ("sell", "stop", None, "38000", "open"),
        ("sell", "stop_limit", "37900", "38000", "open"),
        ("sell", "take_limit", "43000", None, "open"),
    ],
)
def test_each_order_type(side: str, type: str, price: str | None, stop: str | None, state: str) -> None:
    with desk() as case:
        broker = broker_of(case)
        order = case.order(side, type, "0.25", price, stop)
        seen = broker.place(order, case.window())
        assert seen[:1] + seen[2:8] == order, "what comes back is what was sent"
        assert (seen.state, seen.filled_qty) == (state, order.qty if state == "filled" else 0)
        assert (
            seen.created_at == seen.updated_at == datetime.fromtimestamp(case.account.orders[0].updated_ms / 1000, UTC)
        )
        found = broker.find(BTC, order.client_order_id)
        assert found is not None and found == seen._replace(created_at=found.created_at, updated_at=found.updated_at)
        assert broker.open_orders([BTC]) == ([found] if state == "open" else [])
        assert [placed.type for placed in case.account.orders] == [KINDS[type].name]


def test_the_tables_have_every_type_once() -> None:
    assert tuple(KINDS) == ORDER_TYPES
    assert len({kind.name for kind in KINDS.values()}) == len(KINDS)
    assert {"open", "partially_filled", "filled", "cancelled", "rejected", "expired"} == set(STATES.values())


def test_what_is_sent_is_signed_as_of_when_the_intent_was_made() -> None:
    with desk() as case:
        window = case.window(1500, ago_ms=700)
        broker_of(case).place(case.order("sell", "stop_limit", "0.5", "30000.10", "30000.20"), window)
        query = case.server.requests[-1].query
        assert (query["timestamp"], query["recvWindow"]) == (str(window.made_at_ms), "1500")
        assert (query["quantity"], query["price"], query["stopPrice"]) == ("0.5", "30000.1", "30000.2")
        assert query["timeInForce"] == "GTC" and query["newOrderRespType"] == "RESULT"


@pytest.mark.parametrize(
    ("changes"),
    [
        {"type": "trailing"},
        {"side": "long"},
        {"type": "limit"},
        {"price": Decimal(1)},
        {"stop_price": Decimal(1)},
        {"qty": Decimal(0)},
        {"qty": Decimal("NaN")},
        {"type": "stop", "stop_price": Decimal(-1)},
    ],
)
def test_an_order_that_has_no_form_is_refused_before_it_is_sent(changes: dict[str, object]) -> None:
    with desk() as case:
        with pytest.raises(OrderRefused, match="nothing was sent") as caught:
            broker_of(case).place(case.order()._replace(**changes), case.window())  # type: ignore[arg-type]
        assert caught.value.reason == "malformed"
        assert case.server.requests == []


# --- pairs


@pytest.mark.parametrize("type", ["stop", "stop_limit"])
def test_a_pair_whose_stop_ends_its_take(type: str) -> None:
    with desk() as case:
        broker = broker_of(case)
        take = case.order("sell", "take_limit", "0.4", "44000")
        stop = case.order("sell", type, "0.4", "37000" if type == "stop_limit" else None, "38000")
        seen = broker.place_pair(take, stop, case.window())
        assert [one[:1] + one[2:8] for one in seen] == [take, stop]
        assert [one.state for one in seen] == ["open", "open"]
        assert {one.client_order_id for one in broker.open_orders([BTC])} == {take[0], stop[0]}
        case.exchange.trade_at("BTCUSDT", "37500")
        ends = [broker.find(BTC, order.client_order_id) for order in (take, stop)]
        assert [end.state for end in ends if end] == ["expired", "filled"]


def test_to_cancel_one_leg_is_to_cancel_both() -> None:
    with desk() as case:
        broker = broker_of(case)
        take, stop = case.order("sell", "take_limit", "0.4", "44000"), case.order("sell", "stop", "0.4", None, "38000")
        broker.place_pair(take, stop, case.window())
        broker.now_ms()
        asked = len(case.server.requests)
        assert broker.cancel(BTC, take.client_order_id).state == "cancelled"
        assert len(case.server.requests) == asked + 1
        asked = len(case.server.requests)
        assert broker.cancel(BTC, stop.client_order_id).state == "cancelled", "it is: that is what was wanted"
        assert len(case.server.requests) == asked + 2
        assert broker.open_orders([BTC]) == []


def test_a_pair_that_is_none_is_not_sent_and_a_wrong_one_is_refused() -> None:
    with desk() as case:
        broker = broker_of(case)
        take, stop = case.order("sell", "take_limit", "0.4", "44000"), case.order("sell", "stop", "0.4", None, "38000")
        for other in (stop._replace(qty=Decimal(1)), stop._replace(side="buy"), stop._replace(symbol=ETH)):
            with pytest.raises(OrderRefused, match="no pair"):
                broker.place_pair(take, other, case.window())
        assert case.server.requests == []
        with pytest.raises(OrderRefused) as caught:
            broker.place_pair(take._replace(price=Decimal(39000)), stop, case.window())
        assert caught.value.reason == "wrong_prices"
        assert case.account.orders == []


# --- cancels and looking


def test_a_cancel_tells_what_was_filled_before() -> None:
    with desk() as case:
        broker = broker_of(case)
        order = case.order("buy", "limit", "0.1", "39000")
        broker.place(order, case.window())
        case.exchange.fill(case.account.orders[0], "0.3")
        broker.now_ms()
        asked = len(case.server.requests)
        seen = broker.cancel(BTC, order.client_order_id)
        assert len(case.server.requests) == asked + 1, "its own answer is enough"
        assert (seen.state, seen.filled_qty, seen.qty) == ("cancelled", Decimal("0.03"), Decimal("0.1"))
        assert seen.client_order_id == order.client_order_id
        assert broker.find(BTC, order.client_order_id) == seen._replace(
            created_at=datetime.fromtimestamp(case.account.orders[0].created_ms / 1000, UTC)
        )


def test_a_cancel_that_comes_after_the_fill_tells_of_the_fill() -> None:
    with desk() as case:
        broker = broker_of(case)
        order = case.order("buy", "limit", "0.1", "39000")
        broker.place(order, case.window())
        case.exchange.trade_at("BTCUSDT", "38000")
        assert broker.cancel(BTC, order.client_order_id).state == "filled"


def test_a_cancel_of_what_nobody_knows_is_refused() -> None:
    with desk() as case, pytest.raises(OrderRefused) as caught:
        broker_of(case).cancel(BTC, "atb-3fk2-9ab1-sk2q4o-e0")
    assert caught.value.reason == "unknown_order"


def test_what_was_never_sent_is_found_by_nobody() -> None:
    with desk() as case:
        assert broker_of(case).find(BTC, "atb-3fk2-9ab1-sk2q4o-e0") is None


def test_open_orders_are_those_of_the_symbols_that_were_asked_for() -> None:
    with desk() as case:
        broker = broker_of(case)
        for symbol, price in ((BTC, "39000"), (ETH, "2400"), (BTC, "38000")):
            broker.place(case.order("buy", "limit", "0.05", price, symbol=symbol), case.window())
        assert [order.symbol for order in broker.open_orders([ETH])] == [ETH]
        assert [order.symbol for order in broker.open_orders([BTC, ETH])] == [BTC, BTC, ETH]
        assert broker.open_orders([]) == []


# --- the account


def test_balances_are_what_is_free_and_what_is_locked() -> None:
    with desk() as case:
        broker = broker_of(case)
        broker.place(case.order("sell", "limit", "0.12345", "50000"), case.window())
        free = {
            "BTC": Balance("BTC", Decimal("0.87655"), Decimal("0.12345")),
            "USDT": Balance("USDT", Decimal(10000), Decimal(0)),
        }
        assert broker.balances() == free


@pytest.mark.parametrize(("trade", "withdraw"), [(True, False), (False, True)])
def test_rights_are_what_the_key_has(trade: bool, withdraw: bool) -> None:
    with desk() as case:
        other = case.exchange.open_account("other", {}, may_trade=trade, may_withdraw=withdraw).key
        assert broker_of(case, key=ApiKey(other.key, other.secret)).rights() == KeyRights(
            trade, withdraw, only_from=False
        )


def test_rights_where_the_place_has_no_such_question() -> None:
    with desk(Fault("status", "/sapi", status=404)) as case:
        assert broker_of(case).rights() == KeyRights(None, None)


def test_the_clock_is_the_exchanges() -> None:
    with desk() as case:
        broker = broker_of(case)
        assert abs(broker.now_ms() - case.exchange.now_ms) < 100
        skew = broker.session.clock.skew
        assert skew is not None and skew.ahead_ms < -(10**9) and 0 < skew.within_ms < 200
        assert case.server.count("/time") == 3


# --- rules and features


def test_rules_and_features_are_the_symbols() -> None:
    with desk() as case:
        market = case.exchange.list("OLDUSDT", "OLD", "USDT", price="1")
        market.listing = market.listing._replace(order_types=("LIMIT", "MARKET", "STOP_LOSS_LIMIT"), max_stops=3)
        old = Symbol("OLDUSDT", "OLD", "USDT")
        assert broker_of(case, BTC, ETH).features == Features(("stop", "stop_limit"), 5, True)
        assert broker_of(case, BTC, old).features == Features(("stop_limit",), 3, False)
        rules = broker_of(case).market_rules(BTC)
        assert (rules.lot, rules.tick, rules.min_notional) == (Decimal("0.00001"), Decimal("0.01"), Decimal(5))
        assert (rules.min_qty, rules.max_qty) == (Decimal("0.00001"), Decimal(120))


def test_a_symbol_that_is_not_traded_is_refused_with_its_status() -> None:
    with desk() as case:
        case.exchange.halt("BTCUSDT", "BREAK")
        broker = broker_of(case)
        with pytest.raises(ExchangeRefused, match="status is BREAK"):
            broker.market_rules(BTC)
        with pytest.raises(OrderRefused) as caught:
            broker.place(case.order(), case.window())
        assert caught.value.reason == "market_closed"


def test_a_symbol_that_is_none_is_named_with_its_neighbours() -> None:
    with desk() as case, pytest.raises(UsageError, match="Unknown symbol 'BTCUSD'") as caught:
        broker_of(case).market_rules(Symbol("BTCUSD", "BTC", "USD"))
    assert "BTCUSDT" in caught.value.hint


def test_rules_are_asked_for_once_and_remembered_for_when_nobody_answers(tmp_path: Path) -> None:
    with desk(folder=tmp_path) as case:
        broker = broker_of(case)
        rules = broker.market_rules(BTC)
        assert broker.market_rules(BTC) is rules and broker.features.pairs
        assert case.server.count("exchangeInfo") == 1
        case.server.add(Fault("html", "exchangeInfo"))
        later = broker_of(case)
        assert later.market_rules(BTC) == rules, "with the date they are from"
        with pytest.raises(ExchangeUnavailable):
            later.market_rules(ETH)


# --- exactness


@pytest.mark.parametrize("exponent", range(-6, 7))
def test_prices_and_quantities_are_exact_over_twelve_orders_of_magnitude(exponent: int) -> None:
    price = (
        Decimal("1.2345") * Decimal(10) ** exponent if exponent > -4 else Decimal(12) * Decimal(10) ** (exponent - 1)
    )
    qty = Decimal("1.00000001")
    with desk(deposits={"QUO": "99999999"}) as case:
        tick = "0.00000001"
        case.exchange.list(
            "ODDQUO", "ODD", "QUO", price=str(price * 2), tick=tick, lot=tick, min_notional=tick, max_price="10000000"
        )
        odd = Symbol("ODDQUO", "ODD", "QUO")
        broker = broker_of(case, odd)
        order = case.order("buy", "limit", f"{qty}", f"{price:f}", symbol=odd)
        assert broker.place(order, case.window()).price == price
        case.exchange.move_to("ODDQUO", price / 2)
        (fill,) = broker.fills(odd, NOW)
        assert (fill.price, fill.qty, fill.fee, fill.fee_asset) == (price, qty, Decimal("0.00100000"), "ODD")
        assert broker.balances()["ODD"].free == qty - fill.fee
        assert case.account.orders[0].price == price


# --- opening


def test_open_broker_asks_nothing_and_knows_its_venues() -> None:
    with desk() as case:
        broker: Broker = open_broker("binance", case.key, [BTC], base_url=case.server.url)
        assert broker.venue == "binance" and case.server.requests == []
        assert broker.balances()["BTC"].free == 1
        with pytest.raises(UsageError, match="no trading at 'binanse'"):
            open_broker("binanse", case.key, [BTC])


def test_the_environment_says_which_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with desk() as case:
        for name, value in {"HOME": str(tmp_path), "API_URL": case.server.url}.items():
            monkeypatch.setenv(f"ATB_{'BINANCE_' * (name != 'HOME')}{name}", value)
        monkeypatch.setenv("BINANCE_API_KEY", case.key.id)
        monkeypatch.setenv("BINANCE_API_SECRET", case.key.secret)
        app = App()
        assert app.broker("binance", [BTC]).balances()["USDT"].free == 10_000
        assert app.account_identity("binance") == f"binance:spot:real:{case.key.fingerprint}"
        monkeypatch.setenv("ATB_TESTNET", "1")
        assert App().account_identity("binance") == f"binance:spot:testnet:{case.key.fingerprint}"
        assert [file.name for file in (tmp_path / "rates").iterdir()] == [case.server.url[7:].replace(":", "_")]


@pytest.mark.parametrize(("lifetime", "asked"), [("0", 3), ("0.2", 2), ("3600", 1)])
def test_the_environment_says_how_long_rules_are_believed(
    lifetime: str, asked: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with desk() as case:
        told = {"ATB_HOME": str(tmp_path), "ATB_BINANCE_API_URL": case.server.url, "ATB_RULES_LIFETIME_S": lifetime}
        told |= {"BINANCE_API_KEY": case.key.id, "BINANCE_API_SECRET": case.key.secret}
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        broker = App().broker("binance", [BTC])
        first = broker.market_rules(BTC)
        assert broker.market_rules(BTC) == first
        time.sleep(0.25)
        assert broker.market_rules(BTC) == first
        assert case.server.count("exchangeInfo") == asked


def test_importing_costs_no_ccxt() -> None:
    code = "import sys, atb.venue.ccxt_broker, atb.venue.binance_broker; sys.exit('ccxt' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


def test_an_unknown_outcome_is_no_refusal() -> None:
    """An executor that catches one never catches the other."""
    assert not issubclass(OrderUnknown, ExchangeRefused) and not issubclass(OrderRefused, ExchangeUnavailable)
