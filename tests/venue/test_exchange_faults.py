"""What can go wrong between a client and the loopback exchange, and what the exchange has done in each case."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from tests.venue.clients import NOW, PAIR, SYMBOL, Desk, binance, ccxt, market, refusal
from tests.venue.exchange import HOUR_MS, Exchange, Fault, Loopback

BUY = {"symbol": SYMBOL, "side": "BUY", "type": "MARKET", "quantity": "0.01", "newClientOrderId": "atb-1"}
NOTHING_HEARD = [
    "status",
    "html",
    "empty body",
    "malformed",
    "null",
    "reset",
    "hang",
    "truncated",
    "broken off",
]
AFTERWARDS = ("truncated", "broken off")  # these spoil an answer, so there was one


def bought(desk: Desk, timeout_s: float = 5.0) -> Any:
    """What the client makes of it: an order or None, or the error that ccxt raises."""
    client = binance(desk.server, timeout_s=timeout_s)
    try:
        return client.private_post_order(dict(BUY))
    except (ccxt.BaseError, TypeError) as error:
        return error


@pytest.mark.parametrize("kind", NOTHING_HEARD)
@pytest.mark.parametrize("done", [False, True])
def test_an_answer_that_is_none_says_nothing_about_the_order(desk: Desk, kind: str, done: bool) -> None:
    desk.server.add(Fault(kind, "/order", times=1, done=done))
    answer = bought(desk, 0.6 if kind == "hang" else 5.0)
    assert not isinstance(answer, dict) or "orderId" not in answer
    assert len(desk.main.placed("atb-1")) == (done or kind in AFTERWARDS)


def test_a_lost_answer_that_is_sent_again_buys_twice(desk: Desk) -> None:
    desk.server.add(Fault("reset", "/order", method="POST", times=1, done=True))
    assert isinstance(bought(desk), ccxt.NetworkError)
    assert desk.client.private_get_order({"symbol": SYMBOL, "origClientOrderId": "atb-1"})["status"] == "FILLED"
    bought(desk)
    assert len(desk.main.placed("atb-1")) == 2
    placed = [entry.effect[0].what for entry in desk.exchange.log if entry.method == "POST"]
    assert placed == ["placed", "placed"]


def test_a_request_that_hangs_is_processed_after_its_client_gave_up(desk: Desk) -> None:
    """On a running clock, while its window lasts; then it is refused."""
    desk.exchange.clock.run()
    desk.server.add(Fault("hang", "/order", method="POST", times=2, seconds=0.5))
    for window in (2000, 100):
        with pytest.raises(ccxt.RequestTimeout):
            binance(desk.server, timeout_s=0.1).private_post_order({**BUY, "recvWindow": window})
    assert desk.main.orders == []
    deadline = time.monotonic() + 5
    while len([entry for entry in desk.exchange.log if entry.method == "POST"]) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sorted(entry.status for entry in desk.exchange.log if entry.method == "POST") == [200, 400]
    assert len(desk.main.orders) == 1


def test_a_request_that_is_late_by_the_exchanges_clock(desk: Desk) -> None:
    desk.server.add(Fault("late", "/order", times=2, seconds=2))
    desk.order("MARKET", "BUY", "0.01", recvWindow=2000)
    assert desk.exchange.now_ms == NOW + 2000
    assert refusal(desk.order, "MARKET", "BUY", "0.01", recvWindow=1999).code == -1021


def test_a_clock_that_is_skewed(desk: Desk) -> None:
    desk.server.add(Fault("skew", seconds=-3, times=2))
    assert desk.client.fetch_time() == NOW - 3000
    assert desk.client.last_response_headers["Date"] == "Sun, 31 Dec 2023 23:59:57 GMT"
    assert refusal(desk.order, "MARKET", "BUY", "0.01").message.endswith("ahead of the server's time.")
    desk.order("MARKET", "BUY", "0.01")


def test_a_new_order_is_not_to_be_seen_for_some_time(desk: Desk) -> None:
    desk.server.add(Fault("unseen", method="GET", seconds=1))
    number = desk.order("LIMIT", "BUY", "0.01", "39000", timeInForce="GTC")["orderId"]
    assert refusal(desk.seen, number)[1:3] == (-2013, "Order does not exist.")
    assert desk.client.fetch_open_orders(PAIR) == []
    desk.exchange.now_ms += 1001
    assert desk.seen(number)["status"] == "NEW"


def test_trades_are_not_to_be_seen_for_some_requests(desk: Desk) -> None:
    desk.server.add(Fault("unseen", "/myTrades", times=2))
    number = desk.order("MARKET", "BUY", "0.01")["orderId"]
    counts = [len(desk.client.fetch_my_trades(PAIR)) for _ in range(3)]
    assert (desk.seen(number)["status"], counts) == ("FILLED", [0, 0, 1])


def test_a_stop_that_the_exchange_refuses(holder: Desk) -> None:
    holder.server.add(Fault("refused", "/order", where="type=STOP_LOSS", times=1))
    assert refusal(holder.stop, "1", 39000)[:3] == (400, -2010, "Order would trigger immediately.")
    assert holder.stop("1", 39000)["status"] == "NEW"


def test_a_stop_that_vanishes(holder: Desk) -> None:
    holder.server.add(Fault("vanished", "/order", method="POST", seconds=10))
    number = holder.stop("1", 39000)["orderId"]
    holder.exchange.now_ms += 9999
    assert holder.seen(number)["status"] == "NEW"
    holder.exchange.now_ms += 5001
    assert holder.seen(number)["status"] == "EXPIRED"
    assert holder.exchange.unprotected_ms("main", SYMBOL, NOW, NOW + 20_000) == 5000, "seen when somebody looked"


def test_an_order_that_fills_in_part_and_is_cancelled(desk: Desk) -> None:
    desk.server.add(Fault("part then cancelled", "/order", method="POST", share=0.3))
    order = desk.order("LIMIT", "BUY", "0.1", "39000", timeInForce="GTC")
    done = desk.seen(order["orderId"])
    assert (order["status"], done["status"], done["executedQty"]) == ("NEW", "EXPIRED", "0.03000000")


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("unknown status", "status", "PENDING_REVIEW"),
        ("unknown type", "type", "TRAILING_ICEBERG"),
        ("no ids", "orderId", None),
    ],
)
def test_words_that_nobody_knows(desk: Desk, kind: str, field: str, value: object) -> None:
    desk.server.add(Fault(kind, "/order"))
    order = desk.order("LIMIT", "BUY", "0.1", "39000", timeInForce="GTC")
    assert order[field] == value
    assert desk.main.orders[0].status == "NEW"


def test_an_outage_of_everything_and_its_end(desk: Desk) -> None:
    number = desk.order("LIMIT", "BUY", "0.1", "39000", timeInForce="GTC")["orderId"]
    desk.server.add(Fault("status", status=502))
    for ask in (desk.client.fetch_time, desk.client.fetch_balance, desk.client.fetch_open_orders):
        with pytest.raises(ccxt.OperationFailed):
            ask()
    desk.exchange.trade_at(SYMBOL, "38000")
    desk.server.heal()
    assert desk.seen(number)["status"] == "FILLED", "the exchange itself went on"


def test_faults_by_chance_are_the_same_in_each_run() -> None:
    def failures(seed: int) -> list[int]:
        exchange, _ = market()
        with Loopback(exchange, Fault("status", "/time", probability=0.3), seed=seed) as server:
            client, failed = binance(server), []
            for i in range(40):
                try:
                    client.fetch_time()
                except ccxt.OperationFailed:
                    failed.append(i)
        return failed

    assert failures(1) == failures(1) != failures(2)
    assert 4 < len(failures(1)) < 24


def test_a_fault_that_does_not_exist_is_not_believed(desk: Desk) -> None:
    with pytest.raises(ValueError, match="no fault is called 'rest'"):
        desk.server.add(Fault("rest"))


def test_candles_that_are_half_formed() -> None:
    exchange = Exchange(NOW + 3 * HOUR_MS - 1)
    rows = np.array([[NOW + i * HOUR_MS, 100.0, 110.0, 90.0, 104.0, 8.0] for i in range(3)])
    exchange.list(SYMBOL, "BTC", "USDT", {"1h": rows})
    exchange.open_account("main", {})
    with Loopback(exchange, Fault("half formed", "/klines", times=1)) as server:
        spoilt, good = (binance(server).fetch_ohlcv(PAIR, "1h") for _ in range(2))
    assert [row[4] for row in spoilt] == [104, 102, 102]
    assert [row[4] for row in good] == [104, 104, 104]


def test_many_clients_at_once_lose_nothing(desk: Desk) -> None:
    desk.exchange.rates.orders_in_10s = 10_000

    def trade() -> None:
        client = binance(desk.server)
        for i in range(20):
            side = "BUY" if i % 2 == 0 else "SELL"
            client.private_post_order({**BUY, "side": side, "newClientOrderId": f"{threading.get_ident()}-{i}"})

    threads = [threading.Thread(target=trade) for _ in range(6)]
    desk.exchange.account("main").deposit("BTC", 1)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(desk.main.trades) == 120
