"""The simulated exchange, order by order: when each kind fills, at which price, what is locked and what is refused.

That it fills as the backtest does is in tests/property/test_simulated_broker.py.
"""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from atb.core.errors import ExchangeRefused
from atb.core.orders import NewOrder
from atb.venue.broker import Broker, Features, Window
from atb.venue.faulty_broker import FaultyBroker
from atb.venue.simulated_book import Setup
from atb.venue.simulated_broker import SimulatedBroker
from atb.venue.simulated_state import known_state
from tests.venue.desk import BTC, RULES, SETUP, START_MS, Desk, buy, sell, stop, take

HELD = "1"


def holding() -> Desk:
    """One coin that was bought, and a candle that runs at 100."""
    desk = Desk()
    desk.candle(100, 100, 100, 100)
    desk.place(buy("entry", HELD))
    desk.open(100)
    assert desk.told() == [("entry:1", "1.000", 101.0)]
    return desk


def prices(desk: Desk) -> list[float]:
    """Of the sales."""
    return [float(f.price) for f in desk.exchange.fills(BTC, 0) if f.side == "sell"]


def both_are_brokers(a: SimulatedBroker, b: FaultyBroker) -> tuple[Broker, Broker]:
    return a, b


# Market orders


def test_a_market_order_waits_for_the_next_open_or_fills_at_the_last_price() -> None:
    desk = Desk()
    assert desk.place(buy("a")) == "open"
    desk.open(100)
    assert desk.told() == [("a:1", "1.000", 101.0)]
    desk.range(120, 100, 110)
    assert desk.place(buy("b")) == "filled"
    assert desk.told()[1:] == [("b:1", "1.000", 110 * 1.01)]
    assert desk.place(sell("c", "2")) == "filled"
    assert desk.told()[2:] == [("c:1", "2.000", 110 * 0.99)]


def test_a_gap_fills_nothing_and_the_next_open_does() -> None:
    desk = Desk()
    desk.candle(100, 100, 100, 100)
    desk.place(buy())
    desk.row += 5
    desk.open(50)
    assert [price for *_, price in desk.told()] == [50.5]


def test_a_buy_that_the_cash_cannot_pay_is_cut_and_expires() -> None:
    desk = Desk()
    desk.open(100)
    assert desk.place(buy("a", "50")) == "expired"
    ((_, qty, price),) = desk.told()
    assert Decimal(qty) == int(1000 / (price * 0.001 * 1.001)) * Decimal("0.001")
    assert desk.place(buy("b", "1")) == "expired"  # what is left is worth less than the minimum notional
    assert len(desk.told()) == 1


# Orders that rest


@pytest.mark.parametrize(
    ("open_", "low", "price"), [(100, 90, 90 * 0.99), (95, 80, 90 * 0.99), (90, 85, 90 * 0.99), (70, 60, 70 * 0.99)]
)
def test_a_stop_gets_the_worse_of_stop_and_open(open_: float, low: float, price: float) -> None:
    desk = holding()
    desk.place(stop())
    desk.range(100, 91, 95)
    desk.broker.closed(BTC, desk.open_ms, 95)
    assert prices(desk) == []
    desk.candle(open_, open_, low, low)
    assert prices(desk) == [price]


def test_a_take_gets_its_price_and_no_better() -> None:
    desk = holding()
    desk.place(take())
    desk.candle(150, 160, 140, 155)
    assert prices(desk) == [110.0]


@pytest.mark.parametrize(
    ("high", "low", "filled", "other"), [(120, 95, "t", "s"), (105, 80, "s", "t"), (120, 80, "s", "t")]
)
def test_the_first_of_a_pair_cancels_the_other_and_the_stop_is_first(
    high: float, low: float, filled: str, other: str
) -> None:
    desk = holding()
    desk.broker.place_pair(take(), stop(), desk.window())
    assert desk.free("BTC") == 0
    desk.range(high, low, 100)
    assert (desk.state(filled), desk.state(other)) == ("filled", "cancelled")
    assert desk.exchange.open_orders([BTC]) == []


def test_both_ends_of_a_pair_go_with_one_cancel() -> None:
    desk = holding()
    desk.broker.place_pair(take(), stop(), desk.window())
    assert desk.broker.cancel(BTC, "s").state == "cancelled"
    assert desk.state("t") == "cancelled" and desk.free("BTC") == 1


def test_an_order_is_not_touched_by_what_was_before_it() -> None:
    desk = holding()
    desk.range(120, 80, 100)
    desk.broker.place_pair(take(), stop(), desk.window())
    desk.range(120, 80, 105)
    desk.range(120, 80, 95)
    assert prices(desk) == []
    desk.range(120, 79, 95)
    assert prices(desk) == [90 * 0.99]


def test_a_stop_above_the_market_sells_at_the_market() -> None:
    desk = holding()
    desk.range(120, 80, 85)
    desk.place(stop())
    assert prices(desk) == []  # a resting order meets the market when one looks next
    desk.range(120, 80, 85)
    assert prices(desk) == [85 * 0.99]


def test_a_stop_limit_needs_a_market_at_its_price() -> None:
    fell, recovered = holding(), holding()
    for desk, last in ((fell, 80), (recovered, 89)):
        desk.place(stop(limit="88"))
        desk.range(100, 80, last)
    assert prices(recovered) == [88.0]
    assert prices(fell) == []
    fell.range(100, 79, 87)
    fell.broker.closed(BTC, fell.open_ms, 87)
    fell.candle(86, 87, 70, 75)
    assert prices(fell) == [] and fell.state("s") == "open"
    fell.candle(75, 88, 75, 80)
    assert prices(fell) == [88.0]


def test_a_triggered_stop_limit_ends_its_pair() -> None:
    desk = holding()
    desk.broker.place_pair(take(), stop(limit="88"), desk.window())
    desk.range(100, 80, 80)
    assert (desk.state("s"), desk.state("t")) == ("open", "cancelled")
    assert desk.free("BTC") == 0


def test_limit_orders_fill_at_their_price() -> None:
    desk = holding()
    assert desk.place(buy("l", "1", "95")) == "open"
    locked = desk.exchange.balances()["USDT"].locked
    assert locked == Decimal("95.095")
    desk.range(101, 95, 96)
    desk.place(take("u", "2", "120", "limit"))
    desk.range(125, 95, 100)
    assert [price for *_, price in desk.told()[1:]] == [95.0, 120.0]
    assert desk.exchange.balances()["USDT"].locked == desk.exchange.balances()["BTC"].locked == 0


# Money


def test_coins_in_an_order_cannot_be_sold_again() -> None:
    desk = holding()
    desk.place(stop())
    with pytest.raises(ExchangeRefused, match="insufficient balance"):
        desk.place(sell())
    desk.broker.cancel(BTC, "s")
    assert desk.place(sell()) == "filled"
    with pytest.raises(ExchangeRefused, match="insufficient balance"):
        desk.place(sell("y", "0.001"))


def test_what_cash_pays_is_counted_as_the_engine_counts_it() -> None:
    """After some trades the engine's float is not the exact sum, and a lot may hang on the difference."""
    desk = Desk(setup=Setup())
    desk.open(100.1)
    for k, price in enumerate((100.2, 100.3, 100.4, 100.5)):
        desk.range(101, 99, 100.1)
        desk.place(buy(f"b{k}", "0.1"))
        desk.range(101, 99, price)
        desk.place(sell(f"s{k}", "0.1"))
    assert desk.free("USDT") == Decimal("1000.1")  # in floats 1000.0999999999999
    desk.range(101, 1, 1)
    assert desk.place(buy("all", "1000.1")) == "expired"
    assert desk.told()[-1] == ("all:1", "1000.099", 1.0)


def test_a_fee_in_coins_leaves_less_to_sell() -> None:
    desk = Desk(setup=SETUP._replace(fee_in_base=True))
    desk.open(100)
    desk.place(buy("a", "2"))
    (fill,) = desk.exchange.fills(BTC, 0)
    assert (fill.fee, fill.fee_asset, fill.fee_quote) == (Decimal("0.002"), "BTC", None)
    assert desk.free("BTC") == Decimal("1.998") and desk.free("USDT") == 1000 - 202
    with pytest.raises(ExchangeRefused, match="insufficient balance"):
        desk.place(stop("s", "2"))
    desk.place(stop("s", "1.998"))
    desk.range(100, 80, 80)
    (_, sold) = desk.exchange.fills(BTC, 0)
    assert sold.fee_asset == "USDT" and desk.free("BTC") == 0
    assert desk.exchange.audit() == ([], {}, {})


# Refusals


@pytest.mark.parametrize(
    ("order", "why"),
    [
        (buy(qty="0.0015"), "multiple"),
        (buy(qty="0"), "multiple"),
        (take(price="110.05"), "multiple"),
        (stop(at="0"), "multiple"),
        (NewOrder("n", BTC, "sell", "stop", Decimal(1)), "multiple"),
        (NewOrder("n", BTC, "buy", "stop", Decimal(1), None, Decimal(120)), "only sell"),
        (NewOrder("n", BTC, "hold", "market", Decimal(1)), "knows no"),
        (buy(qty="0.05"), "worth less"),
        (buy(qty="0.1", price="99"), "worth less"),
        (buy(qty="20", price="99"), "insufficient balance"),
        (buy()._replace(symbol=BTC._replace(id="ETHUSDT")), "does not trade"),
    ],
)
def test_what_an_exchange_would_not_take(order: NewOrder, why: str) -> None:
    desk = holding()
    with pytest.raises(ExchangeRefused, match=why):
        desk.place(order)
    assert desk.state("n") == "unknown"


def test_small_sales_are_taken_as_in_the_backtest_unless_the_exchange_is_strict() -> None:
    for strict in (False, True):
        desk = Desk(setup=SETUP._replace(strict_sells=strict), btc="1")
        desk.open(100)
        if strict:
            with pytest.raises(ExchangeRefused, match="worth less"):
                desk.place(sell("x", "0.05"))
            with pytest.raises(ExchangeRefused, match="worth less"):
                desk.place(stop("s", "0.101", "90"))
        else:
            assert desk.place(sell("x", "0.05")) == "filled"


def test_a_client_id_is_taken_once_while_it_works() -> None:
    desk = holding()
    desk.place(stop("same", "0.5"))
    with pytest.raises(ExchangeRefused, match="client id"):
        desk.place(stop("same", "0.5"))
    desk.broker.cancel(BTC, "same")
    desk.place(stop("same", "0.5"))
    assert desk.exchange.audit().duplicates == ["same"]


def test_no_more_stops_than_the_exchange_has() -> None:
    desk = Desk(setup=SETUP._replace(features=Features(("stop",), 2, False)), btc="1")
    desk.place(stop("a", "0.2"))
    desk.place(stop("b", "0.2"))
    with pytest.raises(ExchangeRefused, match="no more than 2"):
        desk.place(stop("c", "0.2"))
    with pytest.raises(ExchangeRefused, match="no stop_limit"):
        desk.place(stop("c", "0.2", "90", "88"))
    with pytest.raises(ExchangeRefused, match="no pairs"):
        desk.broker.place_pair(take(), stop(), desk.window())


@pytest.mark.parametrize(
    "pair", [(take(qty="0.5"), stop()), (take(), take("u")), (take("s"), stop()), (stop("t"), stop())]
)
def test_what_makes_no_pair(pair: tuple[NewOrder, NewOrder]) -> None:
    desk = holding()
    with pytest.raises(ExchangeRefused):
        desk.broker.place_pair(*pair, desk.window())
    assert desk.exchange.open_orders([BTC]) == []


def test_a_request_outside_its_window_is_refused() -> None:
    desk = Desk(setup=SETUP._replace(skew_ms=700))
    assert desk.broker.now_ms() == START_MS + 700
    for made_at_ms in (START_MS - 1301, START_MS + 1701):
        with pytest.raises(ExchangeRefused, match="receive window"):
            desk.broker.place(buy(), Window(made_at_ms, 2000))
    desk.broker.place(buy(), Window(START_MS - 1300, 2000))


def test_only_known_orders_can_be_cancelled() -> None:
    desk = holding()
    with pytest.raises(ExchangeRefused, match="knows no order"):
        desk.broker.cancel(BTC, "nobody")
    assert desk.broker.cancel(BTC, "entry").state == "filled"
    assert desk.broker.find(BTC, "nobody") is None


def test_a_candle_is_opened_before_it_moves() -> None:
    desk = holding()
    with pytest.raises(ValueError, match="not been opened"):
        desk.broker.ranged(BTC, desk.open_ms + 1, 100, 100, 100)
    with pytest.raises(ValueError, match="no prices"):
        desk.range(float("nan"), 1, 1)


def test_a_high_that_never_was_hides_no_low() -> None:
    desk = holding()
    desk.place(stop())
    desk.range(105, 100, 100)  # told by a stream that was wrong
    desk.range(104, 80, 85)
    assert prices(desk) == [pytest.approx(90 * 0.99)]


# State, and the audit


def test_candles_met_again_give_the_same_executions() -> None:
    """The process dies after fills that the ledger has not heard of: they happen again, under the same names."""
    desk = holding()
    desk.broker.place_pair(take(), stop(), desk.window())
    desk.broker.closed(BTC, desk.open_ms, 100)
    known = known_state(
        desk.exchange.open_orders([BTC]),
        {asset: balance.total for asset, balance in desk.exchange.balances().items()},
        {BTC: (desk.open_ms, 100.0)},
        pairs=[("t", "s")],
        fills=desk.exchange.fills(BTC, 0),
        bought={BTC: Decimal(1)},
    )
    before = desk.exchange.balances()
    desk.candle(95, 99, 50, 60)
    again = SimulatedBroker.restored({BTC: RULES}, SETUP, desk.clock, json.loads(json.dumps(known)))
    assert again.balances() == before and before["BTC"].locked == 1
    for open_ms in (desk.open_ms - 60_000, desk.open_ms):
        again.opened(BTC, open_ms, 95)
        again.match_open()
    again.ranged(BTC, desk.open_ms, 99, 50, 60)
    ids = [(f.venue_trade_id, f.venue_order_id, f.price) for f in desk.exchange.fills(BTC, 0)]
    assert [(f.venue_trade_id, f.venue_order_id, f.price) for f in again.fills(BTC, 0)] == ids
    assert len(ids) == 2 and again.balances() == desk.exchange.balances()
    assert again.open_orders([BTC]) == []


def test_state_in_the_middle_of_a_candle_is_all_of_it() -> None:
    desk = holding()
    desk.place(stop(limit="88"))
    desk.range(100, 80, 80)
    copy = SimulatedBroker.restored({BTC: RULES}, SETUP, desk.clock, json.loads(json.dumps(desk.exchange.state())))
    assert copy.state() == desk.exchange.state()
    for broker in (copy, desk.exchange):
        broker.ranged(BTC, desk.open_ms, 100, 80, 88)
    assert copy.fills(BTC, 0) == desk.exchange.fills(BTC, 0) and len(copy.fills(BTC, 0)) == 2
    assert copy.state() == desk.exchange.state()


def test_the_audit_says_when_a_position_was_bare_and_what_was_sold_too_much() -> None:
    desk = Desk(btc="5")
    desk.open(100)
    desk.place(buy("a", "1"))
    desk.pass_time(300)
    desk.place(stop("s", "0.6"))
    desk.pass_time(200)
    desk.place(stop("r", "0.4"))
    desk.pass_time(1000)
    desk.broker.cancel(BTC, "s")
    desk.pass_time(50)
    assert desk.exchange.audit().unprotected == {BTC: [(START_MS, START_MS + 500), (START_MS + 1500, START_MS + 1550)]}
    desk.place(sell("x", "0.75"))
    desk.broker.cancel(BTC, "r")
    desk.place(sell("y", "0.75"))
    assert desk.exchange.audit().oversold == {BTC: Decimal("0.5")}
    assert desk.exchange.audit().duplicates == []
