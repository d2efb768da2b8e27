"""Coinbase's spot market through the real ccxt: orders, looking them up, cancels, the account, and what goes wrong."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from atb.core.errors import AtbError, ExchangeRefused, ExchangeUnavailable, UsageError
from atb.core.keys import ApiKey
from atb.core.orders import Balance, KeyRights, NewOrder
from atb.core.types import Symbol
from atb.venue import coinbase_broker
from atb.venue.broker import Features, OrderRefused, OrderUnknown, Window
from atb.venue.ccxt_broker import open_broker
from atb.venue.ccxt_session import Barred, host_of
from atb.venue.coinbase_broker import CoinbaseBroker, CoinbaseSession
from atb.venue.coinbase_orders import KINDS
from atb.venue.rate_budget import LIMITS, Priority, RateBudget
from tests.venue.broker_case import BTC_USD, ETH_USD, NOW, PATIENCE, Case
from tests.venue.broker_case import coinbase_desk as desk
from tests.venue.exchange import Fault
from tests.venue.exchange.coinbase import made_key

pytest.importorskip("ccxt")


def broker_of(case: Case, key: ApiKey | None = None, timeout_s: float = 1.0) -> CoinbaseBroker:
    patience = PATIENCE._replace(timeout_s=timeout_s)
    session = CoinbaseSession("coinbase", case.server.url, patience, key or case.key, case.folder)
    return CoinbaseBroker(session, [BTC_USD], None if case.folder is None else case.folder / "market_rules.json")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coinbase_broker, "CANCEL_PAUSE_S", 0.01)


def posts(case: Case, path: str = "/orders") -> int:
    return sum(request.method == "POST" and request.path.endswith(path) for request in case.server.requests)


# --- orders


@pytest.mark.parametrize(
    ("side", "type", "price", "stop", "state"),
    [
        ("buy", "market", None, None, "filled"),
        ("sell", "market", None, None, "filled"),
        ("buy", "limit", "39000", None, "open"),
        ("sell", "limit", "39000", None, "filled"),
        ("sell", "stop_limit", "37900", "38000", "open"),
        ("buy", "stop_limit", "42100", "42000", "open"),
        ("sell", "take_limit", "43000", None, "open"),
    ],
)
def test_each_order_type(side: str, type: str, price: str | None, stop: str | None, state: str) -> None:
    with desk() as case:
        broker = broker_of(case)
        order = case.order(side, type, "0.2", price, stop, BTC_USD)
        seen = broker.place(order, case.window())
        assert seen[:1] + seen[2:8] == order, "what comes back is what was sent"
        assert (seen.state, seen.filled_qty) == (state, order.qty if state == "filled" else 0)
        assert broker_of(case).find(BTC_USD, order.client_order_id) == seen, "another process finds it by its id"
        assert broker.open_orders([BTC_USD]) == ([seen] if state == "open" else [])
        assert set(case.account.orders[0].asked) == {KINDS[type].name}


def test_what_coinbase_has_not_is_refused_before_it_is_sent() -> None:
    with desk() as case:
        broker = broker_of(case)
        assert broker.features == Features(("stop_limit",), 500, pairs=False)
        stop = case.order("sell", "stop", "0.4", None, "38000", BTC_USD)
        for act in (
            lambda: broker.place(stop, case.window()),
            lambda: broker.place_pair(case.order("sell", "take_limit", "0.4", "44000"), stop, case.window()),
        ):
            with pytest.raises(OrderRefused) as caught:
                act()
            assert caught.value.reason == "malformed"
        assert case.server.requests == []


def test_an_order_is_found_by_its_id_behind_many_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coinbase_broker, "PAGE", 3)
    with desk() as case:
        broker = broker_of(case)
        orders = [case.order("buy", "limit", "0.001", "39000", symbol=BTC_USD) for _ in range(10)]
        for order in orders:
            broker.place(order, case.window())
        for order in orders:
            found = broker_of(case).find(BTC_USD, order.client_order_id)
            assert found is not None and found.client_order_id == order.client_order_id
        before = len(case.server.requests)
        assert broker_of(case).find(BTC_USD, "atb-3fk2-9ab1-sk2q4o-e0") is None, "that candle is to come"
        assert broker_of(case).find(BTC_USD, "by-hand") is None
        assert sum("start_date" in request.query for request in case.server.requests[before:]) == 1
        assert len(broker.open_orders([BTC_USD])) == 10


def test_the_same_id_again_makes_no_second_order() -> None:
    with desk() as case:
        broker, order = broker_of(case), case.order("buy", "limit", "0.1", "39000", symbol=BTC_USD)
        first = broker.place(order, case.window())
        assert broker.place(order, case.window()) == first and len(case.account.orders) == 1
        with pytest.raises(OrderUnknown, match="another order by this id"):
            broker.place(order._replace(qty=Decimal("0.2")), case.window())


# --- cancels


def test_a_cancel_tells_what_was_filled_before() -> None:
    with desk() as case:
        broker, order = broker_of(case), case.order("buy", "limit", "0.1", "39000", symbol=BTC_USD)
        broker.place(order, case.window())
        case.exchange.fill(case.account.orders[0], "0.3")
        seen = broker.cancel(BTC_USD, order.client_order_id)
        assert (seen.state, seen.filled_qty, seen.qty) == ("cancelled", Decimal("0.03"), Decimal("0.1"))
        assert case.server.count("historical/batch") == 0, "its id is known since it was placed"
        assert broker.cancel(BTC_USD, order.client_order_id) == seen
        assert posts(case, "batch_cancel") == 1


def test_a_cancel_that_comes_after_the_fill_tells_of_the_fill() -> None:
    with desk() as case:
        broker, order = broker_of(case), case.order("buy", "limit", "0.1", "39000", symbol=BTC_USD)
        broker.place(order, case.window())
        case.exchange.trade_at("BTC-USD", "38000")
        assert broker.cancel(BTC_USD, order.client_order_id).state == "filled"
        with pytest.raises(OrderRefused) as caught:
            broker.cancel(BTC_USD, case.order(symbol=BTC_USD).client_order_id)
        assert caught.value.reason == "unknown_order"


@pytest.mark.parametrize("kind", ["reset", "html", "hang", "malformed", "status"])
@pytest.mark.parametrize("done", [False, True])
def test_a_cancel_whose_answer_is_lost_is_looked_up(kind: str, done: bool) -> None:
    with desk(Fault(kind, "batch_cancel", done=done)) as case:
        broker, order = broker_of(case, timeout_s=0.3), case.order("buy", "limit", "0.1", "39000", symbol=BTC_USD)
        broker.place(order, case.window())
        if done:
            assert broker.cancel(BTC_USD, order.client_order_id).state == "cancelled"
        else:
            with pytest.raises(OrderUnknown):
                broker.cancel(BTC_USD, order.client_order_id)
        assert posts(case, "batch_cancel") == 1


def test_a_cancel_that_is_taken_and_not_done_at_once_is_waited_for() -> None:
    body = b'{"results":[{"success":true,"failure_reason":"UNKNOWN_CANCEL_FAILURE_REASON","order_id":"x"}]}'
    with desk(Fault("status", "batch_cancel", status=200, body=body)) as case:
        broker, order = broker_of(case), case.order("buy", "limit", "0.1", "39000", symbol=BTC_USD)
        broker.place(order, case.window())
        case.exchange.after(30, lambda: case.exchange.engine.end(case.account.orders[0], "CANCELED"))
        assert broker.cancel(BTC_USD, order.client_order_id).state == "cancelled"
        later = case.order("buy", "limit", "0.1", "39000", symbol=BTC_USD)
        broker.place(later, case.window())
        with pytest.raises(OrderUnknown, match="not done yet"):
            broker.cancel(BTC_USD, later.client_order_id)


def test_a_cancel_that_is_refused_says_so() -> None:
    body = b'{"results":[{"success":false,"failure_reason":"COMMANDER_REJECTED_CANCEL_ORDER","order_id":"x"}]}'
    with desk(Fault("status", "batch_cancel", status=200, body=body)) as case:
        broker, order = broker_of(case), case.order("buy", "limit", "0.1", "39000", symbol=BTC_USD)
        broker.place(order, case.window())
        with pytest.raises(OrderUnknown, match="COMMANDER_REJECTED_CANCEL_ORDER"):
            broker.cancel(BTC_USD, order.client_order_id)


def test_a_cancel_that_finds_the_order_filled_meanwhile() -> None:
    """Between the look for its id and the cancel."""
    with desk() as case:
        broker, order = broker_of(case), case.order("buy", "limit", "0.1", "39000", symbol=BTC_USD)
        broker.place(order, case.window())
        real = broker.session.client.v3PrivatePostBrokerageOrdersBatchCancel

        def filled_before(params: Any) -> Any:
            case.exchange.trade_at("BTC-USD", "38000")
            return real(params)

        broker.session.client.v3PrivatePostBrokerageOrdersBatchCancel = filled_before
        assert broker.cancel(BTC_USD, order.client_order_id).state == "filled"


# --- what goes wrong with an order

LOST = ("reset", "hang", "html", "empty body", "malformed", "null", "status")


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("kind", LOST)
def test_an_order_whose_answer_is_lost_is_unknown_sent_once_and_found(kind: str, done: bool) -> None:
    with desk(Fault(kind, "/orders", method="POST", done=done)) as case:
        broker, order = broker_of(case, timeout_s=0.3), case.order("buy", "limit", "0.1", "39000", symbol=BTC_USD)
        with pytest.raises(OrderUnknown, match="whether it was done is not known"):
            broker.place(order, case.window())
        assert posts(case) == 1 and len(case.account.orders) == done
        assert (broker.find(BTC_USD, order.client_order_id) is not None) == done


@pytest.mark.parametrize("kind", ["unknown status", "null numbers", "no ids", "html", "unseen", "truncated"])
def test_an_order_of_which_nothing_is_known_after_it_was_taken_works_under_its_id(kind: str) -> None:
    with desk(Fault(kind, "/orders/historical/")) as case:
        broker, order = broker_of(case), case.order("buy", "limit", "0.1", "39000", symbol=BTC_USD)
        seen = broker.place(order, case.window())
        assert seen[:1] + seen[2:8] == order and (seen.state, seen.filled_qty) == ("open", Decimal(0))
        case.server.heal()
        found = broker.find(BTC_USD, order.client_order_id)
        assert found is not None and (found.state, found.venue_order_id) == ("open", seen.venue_order_id)


def test_what_is_not_to_be_seen_yet_is_not_found() -> None:
    with desk() as case:
        broker, order = broker_of(case), case.order("buy", "limit", "0.1", "39000", symbol=BTC_USD)
        broker.place(order, case.window())
        body = b'{"error":"unknown","error_details":"?","message":"order with this orderID was not found"}'
        case.server.add(Fault("status", "historical/", status=404, body=body))
        assert broker.find(BTC_USD, order.client_order_id) is None
        case.server.heal()
        case.server.add(Fault("unseen", "historical"))
        assert broker.find(BTC_USD, order.client_order_id) is None
        assert broker_of(case).find(BTC_USD, order.client_order_id) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"qty": Decimal(100)}, "insufficient_balance"),
        ({"qty": Decimal("0.000000001")}, "lot"),
        ({"qty": Decimal("0.00000002")}, "min_notional"),
        ({"price": Decimal("39000.001")}, "price"),
        ({"type": "take_limit", "price": Decimal(41000)}, "would_match"),
        ({"type": "stop_limit", "price": Decimal(39500), "stop_price": Decimal(39000)}, "would_trigger"),
    ],
)
def test_what_was_certainly_not_done_says_why(changes: dict[str, Any], reason: str) -> None:
    with desk() as case:
        order = case.order("buy", "limit", "0.1", "39000", symbol=BTC_USD)._replace(**changes)
        with pytest.raises(OrderRefused) as caught:
            broker_of(case).place(order, case.window())
        assert caught.value.reason == reason and not case.account.orders


def test_a_market_that_is_closed() -> None:
    with desk() as case:
        case.exchange.halt("BTC-USD")
        with pytest.raises(OrderRefused) as caught:
            broker_of(case).place(case.order(symbol=BTC_USD), case.window())
        assert caught.value.reason == "market_closed"
        with pytest.raises(ExchangeRefused, match="is not traded"):
            broker_of(case).market_rules(BTC_USD)


def test_an_order_that_comes_late_is_refused_by_the_exchange() -> None:
    """Its signature ends with its window."""
    with desk(Fault("late", "/orders", method="POST", seconds=5, times=1)) as case:
        broker = broker_of(case)
        with pytest.raises(OrderRefused) as caught:
            broker.place(case.order(symbol=BTC_USD), case.window(2000))
        assert caught.value.reason in ("barred", "clock") and not case.account.orders
    with desk() as case:
        broker = broker_of(case)
        broker.now_ms()
        with pytest.raises(OrderRefused) as caught:
            broker.place(case.order(symbol=BTC_USD), case.window(2000, ago_ms=3000))
        assert caught.value.reason == "clock" and not case.account.orders
        assert broker.place(case.order(symbol=BTC_USD), case.window(2000, ago_ms=500)).state == "filled"


@pytest.mark.parametrize(("side", "until"), [("buy", 2_000), ("sell", 3_000)])
def test_a_signature_ends_with_a_whole_second(side: str, until: int) -> None:
    """That of a purchase within its window; that of a sale may outlast it, rather than have hardly any time."""
    with desk() as case:
        order = case.order(side, symbol=BTC_USD)
        assert coinbase_broker.signed_until_ms(order, Window(1_999, 1_000)) == until
        assert coinbase_broker.signed_until_ms(order, Window(1_000, 1_000)) == 2_000
        case.exchange.clock.factor = 0.0
        case.exchange.now_ms = NOW + 1_950
        broker = broker_of(case)
        broker.now_ms()
        if side == "sell":  # to the millisecond before its window ends, where a purchase was over before
            broker.place(order, case.window(1_000, ago_ms=999))
            assert len(case.account.orders) == 1
            return
        with pytest.raises(OrderRefused) as caught:
            broker.place(order, case.window(1_000, ago_ms=999))
        assert caught.value.reason == "clock"


def test_a_clock_that_is_wrong_here_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signatures are as of the exchange's clock, which is years away from this machine's."""
    with desk() as case:
        broker = broker_of(case)
        assert broker.balances()["BTC"].free == 1
        assert abs(broker.now_ms() - case.exchange.now_ms) < 100


# --- the account


def test_balances_rights_and_rules(tmp_path: Path) -> None:
    with desk(folder=tmp_path) as case:
        broker = broker_of(case)
        broker.place(case.order("sell", "limit", "0.12345678", "50000", symbol=BTC_USD), case.window())
        assert broker.balances() == {
            "BTC": Balance("BTC", Decimal("0.87654322"), Decimal("0.12345678")),
            "USD": Balance("USD", Decimal(10_000), Decimal(0)),
        }
        assert broker.rights() == KeyRights(True, False)
        rules = broker.market_rules(BTC_USD)
        assert (rules.lot, rules.tick, rules.min_notional) == (Decimal("1E-8"), Decimal("0.01"), Decimal(1))
        case.server.add(Fault("html", "/products"))
        assert broker_of(case).market_rules(BTC_USD) == rules
        case.server.heal()
        with pytest.raises(UsageError, match="Unknown symbol"):
            broker.market_rules(Symbol("BTC-USDT", "BTC", "USDT"))


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 20, 35])
def test_no_execution_is_lost_or_comes_twice_at_page_borders(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coinbase_broker, "PAGE", 10)
    with desk() as case:
        broker = broker_of(case)
        if count:
            broker.place(
                case.order("sell", "limit", f"{(count + 9) * Decimal('0.001')}", "50000", symbol=BTC_USD), case.window()
            )
        for _ in range(count):
            case.exchange.engine.fill(case.account.orders[0], Decimal("0.001"), Decimal(50_000), maker=True)
        real = broker.session.client.v3PrivateGetBrokerageOrdersHistoricalFills

        def one_more_in_between(params: Any) -> Any:
            """Newest first: it moves all others on by one, so that the page's last comes again."""
            page = real(params)
            if count:
                case.exchange.engine.fill(case.account.orders[0], Decimal("0.001"), Decimal(50_000), maker=True)
            return page

        broker.session.client.v3PrivateGetBrokerageOrdersHistoricalFills = one_more_in_between
        fills = broker.fills(BTC_USD, NOW)
        assert len({fill.venue_trade_id for fill in fills}) == len(fills)
        assert sum(fill.qty for fill in fills) == count * Decimal("0.001")
        assert [fill.at for fill in fills] == sorted(fill.at for fill in fills)


def test_executions_have_their_fee_in_quote_and_their_time() -> None:
    with desk() as case:
        broker = broker_of(case)
        broker.place(case.order("buy", qty="0.1", symbol=BTC_USD), case.window())
        broker.place(case.order("buy", qty="1", symbol=ETH_USD), case.window())
        time.sleep(0.01)
        broker.place(case.order("sell", qty="0.1", symbol=BTC_USD), case.window())
        bought, sold = broker.fills(BTC_USD, NOW)
        trade = case.account.trades[0]
        assert (bought.side, bought.qty, bought.price, bought.fee) == ("buy", trade.qty, trade.price, trade.fee)
        assert (bought.fee_asset, bought.fee_quote) == ("USD", None) and sold.side == "sell"
        assert bought.at == datetime.fromtimestamp(trade.at_ms / 1000, UTC)
        assert broker.fills(BTC_USD, case.account.trades[-1].at_ms) == [sold]


READS: dict[str, Callable[[CoinbaseBroker, NewOrder], Any]] = {
    "find": lambda broker, order: broker.find(BTC_USD, order.client_order_id),
    "open_orders": lambda broker, _: broker.open_orders([BTC_USD]),
    "fills": lambda broker, _: broker.fills(BTC_USD, NOW),
    "balances": lambda broker, _: broker.balances(),
    "rights": lambda broker, _: broker.rights(),
    "market_rules": lambda broker, _: broker.market_rules(BTC_USD),
    "now_ms": lambda broker, _: broker.now_ms(),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("kind", ["reset", "html", "empty body", "malformed", "null", "status", "truncated"])
def test_a_read_that_cannot_be_understood_is_repeated_then_raises(read: str, kind: str) -> None:
    with desk(Fault(kind, method="GET")) as case, pytest.raises(ExchangeUnavailable):
        READS[read](broker_of(case), case.order())
    with desk(Fault(kind, method="GET", times=1)) as case:
        READS[read](broker_of(case), case.order())


def test_too_fast_is_refused_and_the_second_after_it_goes_on(tmp_path: Path) -> None:
    fault = Fault("status", "/orders", method="POST", status=429, body=b'{"error":"rate_limit_exceeded"}', times=1)
    with desk(fault, folder=tmp_path) as case:
        broker = broker_of(case)
        broker.now_ms()
        with pytest.raises(OrderRefused) as caught:
            broker.place(case.order(symbol=BTC_USD), case.window())
        assert caught.value.reason == "too_fast" and 0 < caught.value.wait_s <= 10
        private = RateBudget(tmp_path, host_of(case.server.url) + " private", LIMITS["coinbase private"])
        assert private.silent_s() <= 1
        time.sleep(1.0)
        assert broker.place(case.order(symbol=BTC_USD), case.window()).state == "filled"


@pytest.mark.parametrize("side", ["buy", "sell"])
def test_an_order_waits_for_the_next_second_when_this_one_is_full(tmp_path: Path, side: str) -> None:
    with desk(folder=tmp_path) as case:
        broker = broker_of(case)
        broker.now_ms()
        private = RateBudget(tmp_path, host_of(case.server.url) + " private", LIMITS["coinbase private"])
        order = case.order(side, symbol=BTC_USD)
        while private.take(1, Priority.PROTECT) == 0:
            pass
        full = int(time.time())
        assert broker.place(order, case.window()).state == "filled"
        assert int(time.time()) > full


def test_the_exchange_s_limit_is_kept_from_here(tmp_path: Path) -> None:
    """Thirty a second: two threads of one account that ask as fast as they can."""
    with desk(folder=tmp_path) as case:
        case.exchange.rates.calls_a_second = 30

        def ask() -> None:
            broker = broker_of(case)
            for _ in range(30):
                with contextlib.suppress(AtbError):
                    broker.rights()

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(entry.status == 429 for entry in case.exchange.log) <= 2  # two seconds need not begin together


# --- keys


def test_a_key_that_is_wrong_is_barred() -> None:
    with desk() as case:
        other = made_key("nobody")
        for key in (ApiKey(other.key, other.secret), ApiKey(case.key.id, other.secret)):
            broker = broker_of(case, key)
            with pytest.raises(Barred):
                broker.balances()
            with pytest.raises(OrderRefused) as caught:
                broker.place(case.order(symbol=BTC_USD), case.window())
            assert caught.value.reason == "barred"
        broken = broker_of(
            case, ApiKey(case.key.id, "-----BEGIN EC PRIVATE KEY-----\nbroken\n-----END EC PRIVATE KEY-----")
        )
        with pytest.raises(Barred, match="secret cannot sign"):
            broken.balances()
        with pytest.raises(OrderRefused, match="nothing was sent") as caught:
            broken.place(case.order(symbol=BTC_USD), case.window())
        assert caught.value.reason == "barred" and case.server.count("/orders") == 2
        assert case.account.orders == []


def test_nothing_that_goes_wrong_shows_the_key(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    with desk() as case:
        echo = f'{{"error":"X","message":"{case.key.id} {case.key.secret.splitlines()[1]}"}}'.encode()
        faults = [*(Fault(kind) for kind in LOST if kind != "hang"), Fault("status", status=401, body=echo)]
        for fault in faults:
            broker, order = broker_of(case), case.order(symbol=BTC_USD)
            broker.now_ms()
            case.server.add(fault)
            window = Window(broker.now_ms(), 2000)
            reads = [partial(read, broker, order) for read in READS.values()]
            for act in (partial(broker.place, order, window), partial(broker.cancel, BTC_USD, order[0]), *reads):
                try:
                    act()
                except AtbError as error:
                    shown += [*traceback.format_exception(error), repr(error), str(error), error.hint]
            shown += [repr(broker), repr(vars(broker.session))]
            case.server.heal()
    captured = capfd.readouterr()
    everything = "\n".join([*shown, captured.out, captured.err, caplog.text])
    assert len(shown) > 100 and "Bearer" not in everything
    for part in (case.key.id, *case.key.secret.splitlines()[1:-1]):
        assert part not in everything


def test_open_broker_knows_it() -> None:
    with desk() as case:
        assert open_broker("coinbase", case.key, [BTC_USD], base_url=case.server.url).balances()["USD"].free == 10_000
