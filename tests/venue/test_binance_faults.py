"""What can go wrong between us and Binance, and what is then said: done, certainly not done, or nobody knows."""

from __future__ import annotations

import contextlib
import json
import logging
import time
import traceback
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from atb.core.errors import AtbError, ExchangeRefused, ExchangeUnavailable
from atb.core.keys import ApiKey
from atb.core.orders import NewOrder
from atb.venue.binance_broker import BinanceBroker
from atb.venue.broker import OrderRefused, OrderUnknown, Window
from atb.venue.ccxt_errors import failure_of
from atb.venue.ccxt_outcomes import OUTCOMES, REASONS, Outcome, outcome_of
from atb.venue.ccxt_session import Barred, host_of
from atb.venue.ccxt_signed import SignedSession
from atb.venue.rate_budget import LIMITS, Priority, RateBudget
from tests.venue.broker_case import BTC, NOW, PATIENCE, Case, desk
from tests.venue.exchange import Fault
from tests.venue.served import Served

ccxt = pytest.importorskip("ccxt")

# Nobody knows, whether the exchange did it (done) or not.
LOST = {
    "reset": Fault("reset"),
    "hang": Fault("hang"),
    "html": Fault("html"),
    "empty body": Fault("empty body"),
    "malformed": Fault("malformed"),
    "null": Fault("null"),
    **{f"HTTP {status}": Fault("status", status=status) for status in (500, 502, 503, 504, 520)},
    **{
        f"HTTP 503 {code}": Fault("refused", status=503, code=code, message="?")
        for code in (-1000, -1001, -1004, -1006, -1007, -1008, -1016)
    },
    "a code nobody has read about": Fault("refused", code=-3999, message="?"),
    "a client error without a code": Fault("status", status=400),
    "a client error cut short": Fault("status", status=400, body=b'{"code":-2010,"msg":"Account has insuff'),
    "a code that is no number": Fault("status", status=400, body=b'{"code":"busy","msg":"?"}'),
    "duplicate": Fault("refused", code=-2010, message="Duplicate order sent."),
    "redirect": Fault("status", status=307),
}
# Done, and the answer is not to be understood.
GARBLED = ("truncated", "broken off", "unknown status", "unknown type", "null numbers", "no ids")


def broker_of(case: Case, key: ApiKey | None = None, timeout_s: float = 0.3) -> BinanceBroker:
    patience = PATIENCE._replace(timeout_s=timeout_s)
    session = SignedSession("binance", case.server.url, patience, key or case.key, case.folder)
    return BinanceBroker(session, [BTC])


def posts(case: Case) -> int:
    return sum(request.method == "POST" for request in case.server.requests)


# --- placing


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("name", LOST)
def test_an_order_whose_answer_is_lost_is_unknown_and_sent_once(name: str, done: bool) -> None:
    with desk(LOST[name]._replace(method="POST", done=done)) as case:
        broker, order = broker_of(case), case.order("buy", "limit", "0.1", "39000")
        with pytest.raises(OrderUnknown, match="whether it was done is not known"):
            broker.place(order, case.window())
        assert posts(case) == 1
        assert len(case.account.placed(order.client_order_id)) == done
        assert (broker.find(BTC, order.client_order_id) is not None) == done


@pytest.mark.parametrize("kind", GARBLED)
def test_an_order_whose_answer_is_garbled_is_unknown_and_then_found(kind: str) -> None:
    with desk(Fault(kind, method="POST")) as case:
        broker, order = broker_of(case), case.order("buy", "limit", "0.1", "39000")
        with pytest.raises(OrderUnknown):
            broker.place(order, case.window())
        found = broker.find(BTC, order.client_order_id)
        assert found is not None and found.state == "open" and posts(case) == 1


@pytest.mark.parametrize("kind", [*GARBLED, "reset", "html", "hang"])
def test_a_pair_whose_answer_is_lost_is_unknown(kind: str) -> None:
    with desk(Fault(kind, method="POST", done=True)) as case:
        broker = broker_of(case)
        take, stop = case.order("sell", "take_limit", "0.4", "44000"), case.order("sell", "stop", "0.4", None, "38000")
        with pytest.raises(OrderUnknown):
            broker.place_pair(take, stop, case.window())
        assert [broker.find(BTC, one.client_order_id) is not None for one in (take, stop)] == [True, True]


@pytest.mark.parametrize(
    "changes",
    [
        {"origQty": "0.20000000"},
        {"price": "39000.01000000"},
        {"side": "SELL"},
        {"type": "LIMIT_MAKER"},
        {"symbol": "ETHUSDT"},
        {"clientOrderId": "another"},
        {"executedQty": "0.11000000"},
        {"price": 39000.0},
        {"status": "FILLED", "executedQty": None},
        {"transactTime": None},
        {"orderId": None},
    ],
)
def test_an_answer_that_tells_of_another_order_is_no_answer(changes: dict[str, Any]) -> None:
    with desk() as case:
        broker, order = broker_of(case), case.order("buy", "limit", "0.1", "39000")
        told = {
            "symbol": "BTCUSDT", "orderId": 7, "clientOrderId": order.client_order_id, "transactTime": NOW,
            "price": "39000.00000000", "origQty": "0.10000000", "executedQty": "0.00000000", "status": "NEW",
            "type": "LIMIT", "side": "BUY",
        }  # fmt: skip
        for n, answer in enumerate((told, {**told, **changes})):
            body = json.dumps(answer).encode()
            case.server.add(Fault("status", method="POST", status=200, body=body, times=1, skip=n))
        assert broker.place(order, case.window()).state == "open"
        with pytest.raises(OrderUnknown):
            broker.place(order, case.window())


class Redirecting(BaseHTTPRequestHandler):
    elsewhere = ""

    def do_POST(self) -> None:
        self.send_response(307)
        self.send_header("Location", self.elsewhere + self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def test_nobody_forwards_an_order_elsewhere() -> None:
    with desk() as case:
        handler = type("To", (Redirecting,), {"elsewhere": case.server.url})
        with Served(HTTPServer, handler) as server:
            session = SignedSession("binance", server.url, PATIENCE, case.key)
            with pytest.raises(OrderUnknown):
                BinanceBroker(session, [BTC]).place(case.order(), case.window())
        assert case.server.requests == [] and case.account.orders == []


REFUSALS: list[tuple[int, str, int, str]] = [
    (-1013, "Filter failure: LOT_SIZE", 400, "lot"),
    (-1013, "Filter failure: MARKET_LOT_SIZE", 400, "lot"),
    (-1013, "Filter failure: NOTIONAL", 400, "min_notional"),
    (-1013, "Filter failure: PRICE_FILTER", 400, "price"),
    (-1013, "Filter failure: MAX_NUM_ALGO_ORDERS", 400, "too_many_stops"),
    (-1013, "Filter failure: MAX_NUM_ORDERS", 400, "too_many_orders"),
    (-1013, "Stop loss orders are not supported for this symbol.", 400, "not_supported"),
    (-1102, "Mandatory parameter 'side' was not sent, was empty/null, or malformed.", 400, "refused"),
    (-1111, "Precision is over the maximum defined for this asset.", 400, "refused"),
    (-1121, "Invalid symbol.", 400, "refused"),
    (-2010, "Account has insufficient balance for requested action.", 400, "insufficient_balance"),
    (-2010, "Order would trigger immediately.", 400, "would_trigger"),
    (-2010, "Order would immediately match and take.", 400, "would_match"),
    (-2010, "Market is closed.", 400, "market_closed"),
    (-2010, "This action is disabled on this account.", 400, "account"),
    (-2010, "A text that is new.", 400, "refused"),
    (-1021, "Timestamp for this request is outside of the recvWindow.", 400, "clock"),
    (-1003, "Too many requests queued.", 429, "too_fast"),
    (-1015, "Too many new orders; current limit is 50 orders per 10 SECOND.", 429, "too_fast"),
    (-2015, "Invalid API-key, IP, or permissions for action.", 401, "barred"),
    (-2014, "API-key format invalid.", 401, "barred"),
    (-1022, "Signature for this request is not valid.", 400, "barred"),
]


@pytest.mark.parametrize(("code", "message", "status", "reason"), REFUSALS)
def test_what_was_certainly_not_done_says_why(code: int, message: str, status: int, reason: str) -> None:
    with desk(Fault("refused", method="POST", code=code, message=message, status=status, times=1)) as case:
        broker = broker_of(case)
        broker.balances()  # after one good private call ccxt reads -2015 as "too fast"
        with pytest.raises(OrderRefused) as caught:
            broker.place(case.order(), case.window())
        assert caught.value.reason == reason
        assert message.rstrip(".") in caught.value.what
        assert (caught.value.wait_s > 0) == (reason == "too_fast")
        assert posts(case) == 1 and not case.account.orders
        assert broker.place(case.order(), case.window()).state == "filled", "and the next is a new matter"


@pytest.mark.parametrize("status", [401, 403, 451])
def test_a_firewall_s_refusal_is_one_without_a_code(status: int) -> None:
    with desk(Fault("status", method="POST", status=status)) as case, pytest.raises(OrderRefused) as caught:
        broker_of(case).place(case.order(), case.window())
    assert caught.value.reason == "barred" and "key" in caught.value.hint


def test_every_code_of_the_table_is_of_one_kind() -> None:
    def outcome(code: int) -> Outcome:
        return outcome_of(failure_of(ccxt.ExchangeError(f'binance {{"code":{code},"msg":"?"}}')))[0]

    assert {code: outcome(code) for code in OUTCOMES if isinstance(code, int) and code < 0} == {
        code: kind for code, kind in OUTCOMES.items() if isinstance(code, int) and code < 0
    }
    assert [outcome(code) for code in (-1100, -1199, -1200, -1, -9999)] == [Outcome.REFUSED] * 2 + [Outcome.UNKNOWN] * 3
    assert outcome_of(failure_of(ccxt.InvalidOrder("binance no code at all")))[0] is Outcome.UNKNOWN
    assert len({word for _, word in REASONS}) == len(REASONS)


def test_what_found_no_connection_was_not_sent() -> None:
    with desk() as case:
        broker = broker_of(case)
        broker.now_ms()
        window = case.window()
        order = case.order()
    for url in (case.server.url, "http://no-such-host.invalid"):
        broker = BinanceBroker(SignedSession("binance", url, PATIENCE, case.key), [BTC])
        with pytest.raises(OrderRefused) as caught:
            broker.place(order, window)
        assert caught.value.reason == "not_sent"
        with pytest.raises(OrderRefused) as caught:
            broker.cancel(BTC, order.client_order_id)
        assert caught.value.reason == "not_sent"
        with pytest.raises(ExchangeUnavailable):
            broker.find(BTC, order.client_order_id)


def test_what_is_being_handled_is_no_cause_of_the_next_failure() -> None:
    with desk(Fault("refused", method="POST", times=1), Fault("reset", "/order", method="POST", skip=1)) as case:
        broker = broker_of(case)
        try:
            broker.place(case.order(), case.window())
        except OrderRefused:
            with pytest.raises(OrderUnknown, match="broke the connection off"):
                broker.place(case.order(), case.window())
    try:
        raise ConnectionRefusedError("NewConnectionError of a database")
    except ConnectionRefusedError:
        with desk(Fault("hang", method="POST")) as case, pytest.raises(OrderUnknown):
            broker_of(case).place(case.order(), case.window())


# --- time


def test_an_order_that_comes_late_is_refused_by_the_exchange_and_the_clock_measured_anew() -> None:
    with desk(Fault("late", method="POST", seconds=3, times=1)) as case:
        broker = broker_of(case)
        broker.now_ms()
        with pytest.raises(OrderRefused) as caught:
            broker.place(case.order(), case.window(2000))
        assert caught.value.reason == "clock" and not case.account.orders
        assert abs(broker.now_ms() - case.exchange.now_ms) < 100, "by now the exchange is 3 s ahead of what it was"
        assert case.server.count("/time") == 6


def test_a_window_that_is_over_is_refused_whatever_our_clock_says() -> None:
    with desk() as case, pytest.raises(OrderRefused) as caught:
        broker_of(case).place(case.order(), case.window(2000, ago_ms=2500))
    assert caught.value.reason == "clock"


def test_a_read_with_a_wrong_clock_measures_and_asks_again() -> None:
    with desk() as case:
        broker = broker_of(case)
        broker.now_ms()
        case.exchange.now_ms += 60_000
        assert broker.balances()["BTC"].free == 1
        assert case.server.count("/time") == 6 and case.server.count("/account") == 2


def test_a_clock_that_was_set_or_stood_still_is_measured_before_the_next_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with desk() as case:
        broker = broker_of(case)
        broker.balances()
        broker.balances()
        assert case.server.count("/time") == 3
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 5)
        broker.balances()
        assert case.server.count("/time") == 6
        assert abs(broker.now_ms() - case.exchange.now_ms) < 100


# --- cancelling


@pytest.mark.parametrize("name", ["reset", "hang", "html", "HTTP 502", "HTTP 503 -1007", "empty body"])
@pytest.mark.parametrize("done", [False, True])
def test_a_cancel_whose_answer_is_lost_is_looked_up(name: str, done: bool) -> None:
    with desk(LOST[name]._replace(method="DELETE", done=done)) as case:
        broker, order = broker_of(case), case.order("buy", "limit", "0.1", "39000")
        broker.place(order, case.window())
        if done:
            assert broker.cancel(BTC, order.client_order_id).state == "cancelled"
        else:
            with pytest.raises(OrderUnknown, match="still tells of it as open"):
                broker.cancel(BTC, order.client_order_id)
        assert sum(request.method == "DELETE" for request in case.server.requests) == 1


@pytest.mark.parametrize("kind", GARBLED)
def test_a_cancel_whose_answer_is_garbled_is_looked_up(kind: str) -> None:
    with desk(Fault(kind, method="DELETE")) as case:
        broker, order = broker_of(case), case.order("buy", "limit", "0.1", "39000")
        broker.place(order, case.window())
        assert broker.cancel(BTC, order.client_order_id).state == "cancelled"


def test_a_cancel_of_which_nothing_is_known_afterwards_is_unknown() -> None:
    for second in (Fault("html", "/order", method="GET"), Fault("unseen", "/order", method="GET")):
        with desk(Fault("reset", method="DELETE", done=True), second) as case:
            broker, order = broker_of(case), case.order("buy", "limit", "0.1", "39000")
            broker.place(order, case.window())
            with pytest.raises(OrderUnknown):
                broker.cancel(BTC, order.client_order_id)


def test_a_cancel_that_is_refused_for_another_reason_is_no_unknown_order() -> None:
    with desk(Fault("refused", method="DELETE", code=-1003, message="Too many requests.", status=429)) as case:
        broker, order = broker_of(case), case.order("buy", "limit", "0.1", "39000")
        broker.place(order, case.window())
        with pytest.raises(OrderRefused) as caught:
            broker.cancel(BTC, order.client_order_id)
        assert caught.value.reason == "too_fast"


# --- reading

READS: dict[str, Callable[[BinanceBroker, NewOrder], Any]] = {
    "find": lambda broker, order: broker.find(BTC, order.client_order_id),
    "open_orders": lambda broker, _: broker.open_orders([BTC]),
    "fills": lambda broker, _: broker.fills(BTC, NOW),
    "balances": lambda broker, _: broker.balances(),
    "rights": lambda broker, _: broker.rights(),
    "market_rules": lambda broker, _: broker.market_rules(BTC),
    "features": lambda broker, _: broker.features,
    "now_ms": lambda broker, _: broker.now_ms(),
}
UNREADABLE = ("reset", "html", "empty body", "malformed", "null", "status", "truncated", "broken off")


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_read_that_cannot_be_understood_is_repeated_then_raises(read: str, kind: str) -> None:
    with desk() as case:
        broker, order = broker_of(case), case.order("buy", "limit", "0.1", "39000")
        broker.place(order, case.window())
        if read != "now_ms":
            broker.now_ms()
        case.server.add(Fault(kind, method="GET"))
        before = len(case.server.requests)
        with pytest.raises(ExchangeUnavailable):
            READS[read](broker, order)
        assert len(case.server.requests) == before + PATIENCE.attempts
        case.server.heal()
        case.server.add(Fault(kind, method="GET", times=1))
        READS[read](broker, order)


@pytest.mark.parametrize("read", ["find", "open_orders", "fills"])
@pytest.mark.parametrize("kind", ["unknown status", "unknown type", "null numbers", "no ids"])
def test_a_read_with_fields_that_are_none_raises(read: str, kind: str) -> None:
    with desk(Fault(kind, method="GET")) as case:
        broker, order = broker_of(case), case.order("buy", "limit", "0.1", "39000")
        broker.place(order, case.window())
        case.exchange.fill(case.account.orders[0], "0.5")
        if read == "fills" and kind.startswith("unknown"):
            assert len(broker.fills(BTC, NOW)) == 1
            return
        with pytest.raises(ExchangeUnavailable):
            READS[read](broker, order)


@pytest.mark.parametrize("read", ["find", "balances", "fills", "open_orders", "rights", "market_rules"])
@pytest.mark.parametrize("body", [b"{}", b"[]", b"[{}]", b'{"balances":[{}]}', b"3", b'"text"', b"true", b'{"a":' * 50])
def test_an_answer_of_another_shape_is_none(read: str, body: bytes) -> None:
    empty = (("fills", b"[]"), ("open_orders", b"[]"))
    with desk() as case:
        broker, order = broker_of(case), case.order()
        broker.now_ms()
        case.server.add(Fault("status", method="GET", status=200, body=body))
        if (read, body) in empty:
            assert READS[read](broker, order) == []
            return
        with pytest.raises(ExchangeUnavailable):
            READS[read](broker, order)


@pytest.mark.parametrize(
    "balance",
    [
        {"asset": "BTC", "free": 1.5, "locked": "0"},
        {"asset": "BTC", "free": "1e5", "locked": "0"},
        {"asset": "BTC", "free": "-1", "locked": "0"},
        {"asset": "BTC", "free": "NaN", "locked": "0"},
        {"asset": "", "free": "1", "locked": "0"},
        {"asset": "BTC", "free": "1"},
    ],
)
def test_an_amount_that_is_no_exact_number_is_not_believed(balance: dict[str, Any]) -> None:
    body = json.dumps({"balances": [balance]}).encode()
    with desk() as case:
        broker = broker_of(case)
        broker.now_ms()
        case.server.add(Fault("status", method="GET", status=200, body=body))
        with pytest.raises(ExchangeUnavailable):
            broker.balances()


def test_an_order_type_that_has_no_word_here_is_named_and_not_asked_for_again() -> None:
    with desk(Fault("unknown type", method="GET")) as case:
        broker = broker_of(case)
        broker.place(case.order("buy", "limit", "0.1", "39000"), case.window())
        with pytest.raises(ExchangeUnavailable, match="order 1 with the type TRAILING_ICEBERG"):
            broker.open_orders([BTC])
        assert case.server.count("openOrders") == 1


@pytest.mark.parametrize(("read", "path"), [("find", "/order"), ("rights", "/sapi"), ("balances", "/account")])
def test_a_question_that_is_refused_has_no_answer_and_not_none(read: str, path: str) -> None:
    message = "Illegal characters found in a parameter."
    fault = Fault("refused", path, code=-1100, message=message)
    with desk(fault) as case, pytest.raises(ExchangeRefused, match="Illegal characters"):
        READS[read](broker_of(case), case.order())


def test_what_is_not_to_be_seen_yet_is_not_found() -> None:
    with desk(Fault("unseen", method="GET", times=1)) as case:
        broker, order = broker_of(case), case.order("buy", "limit", "0.1", "39000")
        broker.now_ms()
        case.server.heal()
        broker.place(order, case.window())
        case.server.add(Fault("unseen", "/order", method="GET", times=1))
        assert broker.find(BTC, order.client_order_id) is None
        assert broker.find(BTC, order.client_order_id) is not None


# --- too fast


@pytest.mark.parametrize(("status", "wait_s"), [(429, 30), (418, 300)])
def test_too_fast_is_said_with_its_time_and_reaches_every_process(tmp_path: Path, status: int, wait_s: int) -> None:
    fault = Fault("status", method="POST", status=status, retry_after=str(wait_s), times=1)
    with desk(fault, folder=tmp_path) as case:
        broker, other = broker_of(case), broker_of(case)
        broker.now_ms()
        with pytest.raises(OrderRefused) as caught:
            broker.place(case.order(), case.window())
        assert (caught.value.reason, caught.value.wait_s) == ("too_fast", wait_s)
        asked = len(case.server.requests)
        with pytest.raises(OrderRefused) as caught:
            other.place(case.order("sell", "stop", "0.1", None, "38000"), case.window())
        assert caught.value.reason == "too_fast" and wait_s - 5 < caught.value.wait_s < wait_s + 0.01
        with pytest.raises(ExchangeUnavailable, match="is not asked for another"):
            broker.balances()
        assert len(case.server.requests) == asked, "not one request more"


def test_too_many_orders_of_the_account_silence_nobody_else(tmp_path: Path) -> None:
    with desk(folder=tmp_path) as case:
        case.exchange.rates.orders_in_10s = 2
        broker = broker_of(case)
        for _ in range(2):
            broker.place(case.order(), case.window())
        with pytest.raises(OrderRefused) as caught:
            broker.place(case.order(), case.window())
        assert (caught.value.reason, caught.value.wait_s) == ("too_fast", 10)
        assert broker.balances()


def test_what_others_at_this_address_use_counts(tmp_path: Path) -> None:
    with desk(folder=tmp_path) as case:
        broker = broker_of(case)
        broker.now_ms()
        now = time.time()
        broker.session.budget = budget = RateBudget(tmp_path, host_of(case.server.url), LIMITS["binance"], lambda: now)
        assert budget.take(1, Priority.DATA) == 0
        case.exchange.rates.ask(3500, case.exchange.now_ms)
        broker.balances()
        assert budget.take(1, Priority.DATA) > 0
        assert budget.take(1, Priority.ENTRY) == 0


def test_nothing_waits_in_a_queue_of_ccxt() -> None:
    with desk() as case:
        broker = broker_of(case, timeout_s=5.0)
        broker.now_ms()
        began = time.monotonic()
        for _ in range(20):
            broker.balances()
        assert time.monotonic() - began < 2.0  # ccxt would take four seconds


def test_the_exchange_s_own_limit_is_met_with_a_refusal_and_not_with_a_ban(tmp_path: Path) -> None:
    with desk(folder=tmp_path) as case:
        case.exchange.rates.weight_a_minute = 60
        broker = broker_of(case)
        broker.balances()
        broker.balances()
        for _ in range(30):
            with contextlib.suppress(AtbError):
                broker.balances()
        assert sum(entry.status == 429 for entry in case.exchange.log) == 1
        assert case.exchange.rates.bans == 0


def test_an_entry_is_refused_at_home_when_the_budget_is_low_and_a_stop_goes_out(tmp_path: Path) -> None:
    with desk(folder=tmp_path) as case:
        now = time.time()  # stands still: the minute must not end meanwhile
        budget = RateBudget(tmp_path, host_of(case.server.url), LIMITS["binance"], lambda: now)
        broker = broker_of(case)
        broker.session.budget = budget
        while budget.take(50, Priority.ENTRY) == 0:
            pass
        budget.take(50, Priority.RECONCILE)
        with pytest.raises(OrderRefused) as caught:
            broker.place(case.order(), case.window())
        assert caught.value.reason == "too_fast" and 0 < caught.value.wait_s <= 60
        assert broker.place(case.order("sell", "stop", "0.1", None, "38000"), case.window()).state == "open"
        assert posts(case) == 1


# --- secrets


def attempts(broker: BinanceBroker, order: NewOrder, window: Window) -> list[Callable[[], Any]]:
    reads = [partial(read, broker, order) for read in READS.values()]
    return [partial(broker.place, order, window), partial(broker.cancel, BTC, order.client_order_id), *reads]


def test_nothing_that_goes_wrong_shows_the_key(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    with desk(folder=tmp_path) as case:
        echo = f'{{"code":-2015,"msg":"Invalid API-key {case.key.id} signed by {case.key.secret}."}}'.encode()
        faults = [
            *(LOST[name] for name in LOST if name != "hang"),
            *(Fault(kind) for kind in GARBLED),
            Fault("status", status=401, body=echo),
            Fault("status", status=200, body=echo),
        ]
        for fault in faults:
            broker = broker_of(case)
            with contextlib.suppress(AtbError):
                broker.now_ms()
            case.server.add(fault)
            order = case.order()
            window = case.window()
            for act in attempts(broker, order, window):
                try:
                    act()
                except AtbError as error:
                    shown += [*traceback.format_exception(error), repr(error), str(error), error.hint]
            shown += [repr(broker), repr(broker.session), repr(broker.session.client), repr(vars(broker.session))]
            case.server.heal()
    captured = capfd.readouterr()
    everything = "\n".join([*shown, captured.out, captured.err, caplog.text])
    assert len(shown) > 200
    for part in (case.key.id, case.key.secret):
        assert part not in everything


def test_a_key_that_is_wrong_is_barred_and_says_what_to_check() -> None:
    with desk() as case:
        for key in (ApiKey("short", "x"), ApiKey("A" * 64, "x"), ApiKey(case.key.id, "x")):
            broker = broker_of(case, key)
            with pytest.raises(Barred) as caught:
                broker.balances()
            assert "Check the key" in caught.value.hint
            with pytest.raises(ExchangeRefused):
                broker.rights()
            with pytest.raises(OrderRefused) as refused:
                broker.place(case.order(), case.window())
            assert refused.value.reason == "barred"
        assert case.account.orders == [] and case.account.balances["USDT"].free == Decimal(10_000)
