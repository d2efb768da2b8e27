"""The market of the loopback exchange: how it moves, what it shows, how an account fares in it."""

from __future__ import annotations

import random
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.venue.clients import NOW, PAIR, SYMBOL, Desk, binance_at
from tests.venue.exchange import HOUR_MS, MINUTE_MS, Exchange, Key, Rows
from tests.venue.exchange.binance.orders import made
from tests.venue.exchange.engine import Rejected
from tests.venue.exchange_process import ExchangeProcess


def hours(*candles: tuple[float, float, float, float]) -> Rows:
    """Candles from NOW on, of volume 8."""
    return np.array([[NOW + i * HOUR_MS, *candle, 8.0] for i, candle in enumerate(candles)])


# --- how it moves


@pytest.mark.parametrize(("first", "sold_at"), [("low", "38999.00000000"), ("high", "42000.00000000")])
def test_a_candle_is_played_in_a_stated_order(holder: Desk, first: str, sold_at: str) -> None:
    """Stop and target are both in it: which is met, the order decides."""
    holder.oco("1", 42000, 38999)
    holder.exchange.play(SYMBOL, hours((40000, 43000, 38000, 41000)), first=first)
    assert [trade["price"] for trade in holder.client.private_get_mytrades({"symbol": SYMBOL})] == [sold_at]
    assert holder.exchange.now_ms == NOW + MINUTE_MS, "one candle alone is a minute long"


def test_a_gap_between_candles_is_not_filled_in(holder: Desk) -> None:
    holder.stop("1", 39000)
    holder.exchange.play(SYMBOL, hours((40000, 40100, 39900, 40000), (38000, 38500, 37000, 38200)))
    assert [trade["price"] for trade in holder.client.private_get_mytrades({"symbol": SYMBOL})] == ["38000.00000000"]


def test_what_was_played_is_what_the_candles_show(desk: Desk) -> None:
    played = hours((40000, 40500, 39500, 40200), (40100, 41000, 40050, 40900), (40900, 41000, 39000, 39100))
    desk.exchange.play(SYMBOL, played)
    desk.exchange.now_ms -= 1
    rows = np.array(desk.client.fetch_ohlcv(PAIR, "1h"))
    assert np.array_equal(rows, played)
    four = desk.client.fetch_ohlcv(PAIR, "4h")
    assert four == [[NOW, 40000, 41000, 39000, 39100, 24]]


def test_candles_go_on_from_the_history(desk: Desk) -> None:
    history = hours((100, 110, 90, 105), (105, 120, 100, 110), (1, 1, 1, 1))
    desk.exchange.list("ETHUSDT", "ETH", "USDT", {"1h": history})
    desk.exchange.now_ms = NOW + 2 * HOUR_MS - 1
    assert desk.exchange.market("ETHUSDT").price == 110
    desk.exchange.now_ms += HOUR_MS // 2
    desk.exchange.trade_at("ETHUSDT", "130", volume=3)
    rows = desk.exchange.candles("ETHUSDT", "1h").tolist()
    assert rows == [*history[:2].tolist(), [NOW + 2 * HOUR_MS, 130, 130, 130, 130, 3]], "what was to come is forgotten"


def test_nothing_trades_while_halted(desk: Desk) -> None:
    desk.exchange.halt(SYMBOL)
    with pytest.raises(ValueError, match="halted"):
        desk.exchange.trade_at(SYMBOL, 1)


# --- what it shows


def test_prices(desk: Desk) -> None:
    desk.exchange.markets[SYMBOL].spread = Decimal(2)
    desk.exchange.trade_at(SYMBOL, "40000", volume=2)
    desk.exchange.now_ms += 1
    ticker = desk.client.fetch_ticker(PAIR)
    assert (ticker["last"], ticker["bid"], ticker["ask"]) == (40000, 39999, 40001)
    book = desk.client.fetch_order_book(PAIR)
    assert (book["bids"], book["asks"]) == ([[39999, 1000]], [[40001, 1000]])
    assert desk.client.public_get_ticker_price({"symbol": SYMBOL})["price"] == "40000.00000000"
    assert desk.client.fetch_bids_asks([PAIR])[PAIR]["ask"] == 40001
    assert desk.client.public_get_ping() == {}
    assert desk.order("MARKET", "BUY", "0.01")["fills"][0]["price"] == "40001.00000000"


def test_the_rules_as_ccxt_reads_them(desk: Desk) -> None:
    rules = desk.client.load_markets()[PAIR]
    assert rules["precision"] == {**rules["precision"], "amount": 0.00001, "price": 0.01}
    assert rules["limits"]["cost"]["min"] == 5
    assert rules["limits"]["market"]["max"] == 120
    assert rules["active"] and rules["spot"]


# --- fees


def test_fees_in_bnb_while_there_is_some(desk: Desk) -> None:
    desk.exchange.list("BNBUSDT", "BNB", "USDT", price="300")
    desk.main.pays_in_bnb = True
    desk.main.deposit("BNB", "0.011")
    first, second = (desk.order("MARKET", "BUY", "0.1")["fills"][0] for _ in range(2))
    assert (first["commissionAsset"], first["commission"]) == ("BNB", "0.01000000"), "4 USDT less a quarter"
    assert (second["commissionAsset"], second["commission"]) == ("BTC", "0.00010000"), "too little is left"
    commission = desk.client.private_get_account_commission({"symbol": SYMBOL})
    assert commission["discount"]["enabledForAccount"] is True
    assert desk.client.fetch_trading_fee(PAIR)["taker"] == 0.001


def test_maker_and_taker_pay_differently(desk: Desk) -> None:
    desk.main.maker_fee = Decimal("0.0002")
    desk.order("LIMIT", "BUY", "0.1", "39000", timeInForce="GTC")
    desk.exchange.trade_at(SYMBOL, "39000")
    desk.order("MARKET", "BUY", "0.1")
    assert [trade.fee for trade in desk.main.trades] == [Decimal("0.00002"), Decimal("0.0001")]


def test_how_long_a_position_had_no_stop(desk: Desk) -> None:
    desk.order("MARKET", "BUY", "0.1")
    desk.exchange.now_ms += 700
    number = desk.stop("0.0999", 39000)["orderId"]
    desk.exchange.now_ms += 5000
    desk.client.cancel_order(number, PAIR)
    desk.exchange.now_ms += 200
    desk.stop("0.05", 39000)
    desk.exchange.now_ms += 100
    desk.order("MARKET", "SELL", "0.0499")
    assert desk.exchange.unprotected_ms("main", SYMBOL, NOW, desk.exchange.now_ms + 1000) == 1000
    assert desk.exchange.unprotected_ms("main", SYMBOL, NOW + 600, NOW + 5750) == 150
    assert desk.exchange.unprotected_ms("main", SYMBOL, NOW, NOW + 9000, besides="0.05") == 900


# --- nothing is lost, whatever is done

KINDS = ("MARKET", "LIMIT", "LIMIT_MAKER", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT")
NAMES = ("one", "two", "three")
ACTIONS = ("order", "order", "order", "pair", "bracket", "cancel", "jump", "move", "move", "shallow", "expire", "fill")


class Trader:
    """Does one thing after the other, by a seed; what is refused changes nothing."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.exchange = Exchange(NOW)
        self.exchange.list(SYMBOL, "BTC", "USDT", price="100", spread=self.rng.choice(["0", "0.02"]))
        self.exchange.list("BNBUSDT", "BNB", "USDT", price="7")
        for name in NAMES:
            self.exchange.open_account(name, {"BTC": 5, "USDT": 500, "BNB": 1})
        self.exchange.account("two").pays_in_bnb = True
        self.exchange.account("three").pays_in_quote = True

    def act(self, number: int) -> None:
        self.exchange.now_ms += 1000
        with suppress(Rejected):
            getattr(self, self.rng.choice(ACTIONS))(number)
        self.exchange.invariants()

    def some(self, kind: str, side: str, name: str) -> Any:
        """An order of this kind, at prices around the market."""
        market = self.exchange.market(SYMBOL)
        account = self.exchange.accounts[self.rng.choice(NAMES)]
        price, stop = (
            self.near() if part in kind else None for part in ("LIMIT", "STOP" if "STOP" in kind else "TAKE")
        )
        how = self.rng.choice(["GTC", "GTC", "IOC", "FOK"]) if kind.endswith("LIMIT") else "GTC"
        return made(account, market, side, kind, Decimal(self.rng.randint(1, 300)) / 100, price, stop, how, name)

    def near(self) -> Decimal:
        return (self.exchange.market(SYMBOL).price * Decimal(self.rng.randint(85, 115)) / 100).quantize(Decimal("0.01"))

    def order(self, number: int) -> None:
        order = self.some(self.rng.choice(KINDS), self.rng.choice(["BUY", "SELL"]), f"order-{number}")
        self.exchange.engine.place(order)

    def pair(self, number: int) -> None:
        side, stop = self.rng.choice(["BUY", "SELL"]), self.rng.choice(["STOP_LOSS", "STOP_LOSS_LIMIT"])
        legs = self.some(stop, side, f"stop-{number}"), self.some("LIMIT_MAKER", side, f"limit-{number}")
        legs[1].account, legs[1].qty = legs[0].account, legs[0].qty
        self.exchange.engine.place_list(legs, f"pair-{number}")

    def bracket(self, number: int) -> None:
        side, stop = self.rng.choice(["BUY", "SELL"]), self.near()
        order = self.some("LIMIT", side, f"bracket-{number}")
        order.time_in_force, order.bracket, order.stop, order.stop_above = "GTC", True, stop, side == "BUY"
        order.afterwards = stop * (1 if side == "SELL" else 2)
        self.exchange.engine.place(order)

    def open(self) -> Any:
        orders = [order for account in self.exchange.accounts.values() for order in account.open_orders]
        return self.rng.choice(orders) if orders else None

    def cancel(self, number: int) -> None:
        if order := self.open():
            self.exchange.engine.cancel(order)

    def expire(self, number: int) -> None:
        if order := self.open():
            self.exchange.expire(order)

    def fill(self, number: int) -> None:
        if (order := self.open()) and order.rests:
            self.exchange.fill(order, self.rng.random())

    def jump(self, number: int) -> None:
        self.exchange.trade_at(SYMBOL, self.near())

    def move(self, number: int) -> None:
        self.exchange.move_to(SYMBOL, self.near())

    def shallow(self, number: int) -> None:
        liquidity, level = (self.rng.choice([None, Decimal("0.3"), Decimal(2)]) for _ in range(2))
        self.exchange.shallow(SYMBOL, liquidity, level)


@given(seed=st.integers(0, 10**9))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_is_created_or_lost(seed: int) -> None:
    trader = Trader(seed)
    for number in range(150):
        trader.act(number)


def test_the_traders_try_everything() -> None:
    """Otherwise the property above says little."""
    happened, statuses = set(), set()
    for seed in range(40):
        trader = Trader(seed)
        for number in range(60):
            trader.act(number)
        happened |= {event.what for event in trader.exchange.events}
        statuses |= {(o.type, o.status) for o in trader.exchange.engine.orders.values()}
    assert happened == {"placed", "triggered", "traded", "filled", "cancelled", "expired"}
    assert {kind for kind, status in statuses if status == "FILLED"} == set(KINDS)


def test_an_invariant_that_is_broken_is_found(desk: Desk) -> None:
    desk.order("LIMIT", "BUY", "0.1", "39000", timeInForce="GTC")
    desk.main.orders[0].price = Decimal(39001)
    with pytest.raises(AssertionError, match=r"its orders need 3900\.1"):
        desk.exchange.invariants()
    desk.main.orders[0].price = Decimal(39000)
    desk.main.totals["USDT"] += 1
    with pytest.raises(AssertionError, match="USDT were put in"):
        desk.exchange.invariants()
    desk.main.totals["USDT"] -= 1


# --- as a program


TRADE = """
import sys, ccxt
url, key, secret = sys.argv[1:]
api = {"public": url + "/api/v3", "private": url + "/api/v3"}
options = {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False, "fetchMargins": False}
client = ccxt.binance({"apiKey": key, "secret": secret, "urls": {"api": api}, "options": options})
client.create_order("BTC/USDT", "market", "buy", 0.1)
client.create_order("BTC/USDT", "STOP_LOSS", "sell", 0.0999, None, {"stopPrice": 39000})
print("placed", flush=True)
client.fetch_balance()
"""


def test_it_outlives_a_client_that_is_killed() -> None:
    with ExchangeProcess("--seed", "3", "--walk", "1") as exchange:
        exchange.control("fault", kind="hang", path="/account")
        arguments = [sys.executable, "-c", TRADE, exchange.url, exchange.key, exchange.secret]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout and client.stdout.readline() == "placed\n"
            client.kill()
        exchange.control("price", symbol=SYMBOL, price="38000")
        exchange.control("heal")
        state = exchange.ask("state")
        assert [order["status"] for order in state["accounts"]["main"]["orders"]] == ["FILLED", "FILLED"]
        assert state["broken"] == []
        assert [entry["effect"][0][:6] for entry in exchange.ask("log") if entry["method"] == "POST"] == ["placed"] * 2
        assert exchange.ask("unprotected?account=main&symbol=BTCUSDT")["unprotected_ms"] >= 0
        successor = binance_at(exchange.url, Key(exchange.key, exchange.secret, "main"))
        assert successor.fetch_balance()["BTC"]["total"] == 0
        assert len(successor.fetch_ohlcv(PAIR, "1h")) >= 500
        exchange.process.terminate()
        assert exchange.process.wait(10) == 0


def test_another_process_can_do_what_a_test_can() -> None:
    with ExchangeProcess(
        "--factor", "0", "--now-ms", str(NOW), "--symbol", "ETHUSDT:ETH:USDT:2500", "--history", "0"
    ) as exchange:
        exchange.control("deposit", account="main", asset="ETH", amount=1)
        assert exchange.control("clock", advance_ms=1500) == {"now_ms": NOW + 1500}
        exchange.control("market", symbol="ETHUSDT", status="HALT")
        with pytest.raises(urllib.error.HTTPError, match="400"):
            exchange.control("price", symbol="ETHUSDT", price="2600")
        exchange.control("market", symbol="ETHUSDT", status="TRADING", liquidity="0.5", spread="1")
        exchange.control("price", symbol="ETHUSDT", price="2600", walk=True)
        assert exchange.ask("state")["prices"] == {"ETHUSDT": "2600"}
        assert exchange.ask("state")["accounts"]["main"]["balances"]["ETH"] == {"free": "1", "locked": "0"}
