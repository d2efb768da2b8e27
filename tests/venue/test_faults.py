"""What can go wrong at the simulated exchange: each fault alone, and all of them over a random market."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from decimal import Decimal

import pytest

from atb.core.errors import ExchangeRefused, ExchangeUnavailable
from atb.core.orders import FINAL
from atb.venue.broker import OrderUnknown
from atb.venue.faults import ASKING, CHANGING, KINDS, PLACING, Fault, FaultPlan
from tests.venue.desk import BTC, SETUP, START_MS, Desk, buy, sell, stop, take

ASK: dict[str, Callable[[Desk], object]] = {
    "find": lambda desk: desk.broker.find(BTC, "b"),
    "open_orders": lambda desk: desk.broker.open_orders([BTC]),
    "orders": lambda desk: desk.broker.orders(BTC, 0),
    "transfers": lambda desk: desk.broker.transfers(0),
    "fills": lambda desk: desk.broker.fills(BTC, 0),
    "balances": lambda desk: desk.broker.balances(),
}


def running(*faults: Fault) -> Desk:
    """One coin in the account, and a candle that runs at 100."""
    desk = Desk(*faults, btc="1")
    desk.open(100)
    return desk


@pytest.mark.parametrize(("kind", "state"), [("unknown_before", "unknown"), ("unknown_after", "filled")])
def test_an_unknown_order_was_taken_or_not(kind: str, state: str) -> None:
    desk = running(Fault("place", kind, calls=(1,)))
    with pytest.raises(OrderUnknown):
        desk.place(buy())
    assert desk.state("b") == state
    assert desk.place(buy("c")) == "filled"


def test_a_refusal_may_be_lost_too() -> None:
    desk = running(Fault("place", "unknown_after", calls=(1,)))
    with pytest.raises(OrderUnknown):
        desk.place(sell("x", "7"))
    assert desk.state("x") == "unknown"


@pytest.mark.parametrize(("kind", "state"), [("unknown_before", "open"), ("unknown_after", "cancelled")])
def test_an_unknown_cancel_was_done_or_not(kind: str, state: str) -> None:
    desk = running(Fault("cancel", kind, calls=(1,)))
    desk.place(stop())
    with pytest.raises(OrderUnknown):
        desk.broker.cancel(BTC, "s")
    assert desk.state("s") == state


def test_a_pair_is_unknown_as_one() -> None:
    desk = running(Fault("place_pair", "unknown_after", calls=(1,)))
    with pytest.raises(OrderUnknown):
        desk.broker.place_pair(take(), stop(), desk.window())
    assert (desk.state("t"), desk.state("s")) == ("open", "open")


@pytest.mark.parametrize("operation", ASKING)
def test_a_question_goes_unanswered_or_is_refused(operation: str) -> None:
    desk = running(Fault(operation, "unavailable", calls=(1,)), Fault(operation, "refused", calls=(2,)))
    with pytest.raises(ExchangeUnavailable):
        ASK[operation](desk)
    with pytest.raises(ExchangeRefused):
        ASK[operation](desk)
    ASK[operation](desk)
    assert desk.broker.plan.struck == [(operation, "unavailable"), (operation, "refused")]


def test_only_stops_are_refused() -> None:
    desk = running(Fault("place", "refused", probability=1, types=("stop", "stop_limit")))
    assert desk.place(buy()) == "filled"
    with pytest.raises(ExchangeRefused):
        desk.place(stop())
    assert desk.state("s") == "unknown"


def test_an_order_is_invisible_for_a_while() -> None:
    desk = running(Fault("place", "invisible", calls=(1, 2), ms=500))
    desk.place(buy())
    desk.place(stop())
    assert desk.broker.find(BTC, "b") is None
    assert desk.broker.open_orders([BTC]) == [] and desk.broker.fills(BTC, 0) == []
    desk.pass_time(499)
    assert desk.broker.find(BTC, "b") is None
    desk.pass_time(1)
    assert desk.broker.find(BTC, "b") is not None
    assert len(desk.broker.open_orders([BTC])) == len(desk.broker.fills(BTC, 0)) == 1


def test_an_answer_is_late() -> None:
    faults = [Fault(operation, "late", calls=(1, 2), ms=300) for operation in ASKING[:3]]
    desk = running(*faults)
    desk.place(buy())
    desk.place(stop())
    asked = [ASK[operation] for operation in ASKING[:3]]
    assert not any(ask(desk) for ask in asked)
    desk.pass_time(300)
    assert all(ask(desk) for ask in asked)


def test_a_stop_vanishes() -> None:
    desk = running(Fault("place", "vanishes", calls=(2,), ms=60_500))
    desk.place(buy())
    desk.place(stop())
    desk.open(100)
    assert desk.state("s") == "open"
    desk.pass_time(1000)
    desk.range(100, 50, 50)
    assert desk.state("s") == "cancelled"
    assert desk.broker.audit().unprotected == {BTC: [(START_MS + 60_500, START_MS + 61_000)]}


def test_an_order_fills_in_parts() -> None:
    desk = running(Fault("place", "partial", calls=(1, 2), parts=3))
    assert desk.place(buy()) == "partially_filled"
    desk.place(stop("s", "1.0"))
    desk.range(100, 95, 95)
    desk.range(110, 95, 110)
    assert desk.told() == [("b:1", "0.333", 101.0), ("b:2", "0.333", 95 * 1.01), ("b:3", "0.334", 110 * 1.01)]
    assert desk.state("b") == "filled"
    desk.range(110, 80, 80)
    assert desk.state("s") == "partially_filled" and desk.free("BTC") == 1
    desk.range(110, 70, 70)
    desk.range(110, 70, 75)
    assert [price for *_, price in desk.told()[3:]] == [90 * 0.99, 70 * 0.99, 75 * 0.99]
    assert desk.state("s") == "filled"


def test_the_rest_of_an_order_is_given_up() -> None:
    desk = running(Fault("place", "partial_expires", calls=(1,), parts=4))
    assert desk.place(buy()) == "expired"
    assert desk.told() == [("b:1", "0.250", 101.0)]
    desk.range(110, 90, 100)
    assert len(desk.told()) == 1


def test_an_outage_lasts_and_stops_fill_meanwhile() -> None:
    desk = running(Fault("balances", "outage", calls=(1,), ms=5000))
    desk.place(stop())
    with pytest.raises(ExchangeUnavailable):
        desk.broker.balances()
    desk.pass_time(4999)
    with pytest.raises(OrderUnknown):
        desk.place(buy())
    with pytest.raises(ExchangeUnavailable):
        desk.broker.find(BTC, "b")
    desk.range(100, 80, 80)
    desk.pass_time(1)
    assert desk.state("b") == "unknown" and desk.state("s") == "filled"
    assert desk.place(buy()) == "filled"


@pytest.mark.parametrize(("ms", "state"), [(1500, "filled"), (2000, "filled"), (2001, "unknown"), (9000, "unknown")])
def test_a_request_that_was_held_up_is_taken_while_its_window_lasts(ms: int, state: str) -> None:
    """Whenever somebody looks: it counts when it arrived."""
    desk = running(Fault("place", "held_up", calls=(1,), ms=ms))
    with pytest.raises(OrderUnknown):
        desk.place(buy())
    assert desk.broker.find(BTC, "b") is None
    desk.pass_time(30_000)
    desk.range(120, 90, 120)
    assert desk.state("b") == state
    if state == "filled":
        (fill,) = desk.exchange.fills(BTC, 0)
        assert fill.price == 101 and fill.at.timestamp() * 1000 == START_MS + ms


def test_a_cancel_that_was_held_up_comes_too_late() -> None:
    desk = running(Fault("cancel", "held_up", calls=(1, 2), ms=1000))
    for name, price in (("s", "90"), ("r", "70")):
        desk.place(stop(name, "0.5", price))
        with pytest.raises(OrderUnknown):
            desk.broker.cancel(BTC, name)
    desk.range(100, 80, 80)
    desk.pass_time(1000)
    desk.range(100, 60, 60)
    assert (desk.state("s"), desk.state("r")) == ("filled", "cancelled")


def test_some_exchanges_cancel_only_what_works() -> None:
    desk = running(Fault("cancel", "finished_refused", probability=1))
    desk.place(buy())
    desk.place(stop())
    with pytest.raises(ExchangeRefused):
        desk.broker.cancel(BTC, "b")
    assert desk.broker.cancel(BTC, "s").state == "cancelled"


@pytest.mark.parametrize("fault", [Fault("find", "unknown_after"), Fault("place", "late"), Fault("place", "typo")])
def test_a_fault_that_cannot_be_is_a_mistake(fault: Fault) -> None:
    with pytest.raises(ValueError, match=fault.kind):
        FaultPlan(1, fault)


def test_a_plan_is_its_seed() -> None:
    faults = (Fault("*", "unavailable", 0.3), Fault("place", "refused", 0.3, types=("stop",)))
    a, b, c = (FaultPlan(seed, *faults) for seed in (1, 1, 2))
    for plan in (a, b, c):
        for _ in range(100):
            plan.strike("place", "stop")
    assert a.struck == b.struck != c.struck


# All at once, over a random market: money is kept, and what is locked follows from what works.


def everything(probability: float) -> list[Fault]:
    return [Fault("*", kind, probability, ms=45_000, parts=3) for kind in KINDS]


@pytest.mark.parametrize("fee_in_base", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_no_fault_makes_or_loses_money(seed: int, fee_in_base: bool) -> None:
    rng = random.Random(seed)
    desk = Desk(*everything(0.04), setup=SETUP._replace(fee_in_base=fee_in_base), btc="0.5", seed=seed)
    price = 100.0
    for _ in range(60):
        for _ in range(rng.randint(0, 4)):
            with contextlib.suppress(ExchangeRefused, ExchangeUnavailable):
                ask(desk, rng, price)
        price = move(desk, rng, price)
        check_money(desk)
    assert desk.told() and len(set(desk.broker.plan.struck)) > 5


def ask(desk: Desk, rng: random.Random, price: float) -> None:
    """Something random, with a client id that may have been used before."""
    name, qty = f"o{rng.randint(0, 300)}", f"{rng.randint(1, 2000) / 1000}"
    below, above = f"{price * 0.97:.1f}", f"{price * 1.03:.1f}"
    orders = [
        buy(name, qty), buy(name, qty, below), sell(name, qty), stop(name, qty, below), stop(name, qty, below, below),
        take(name, qty, above), take(name, qty, above, "limit"),
    ]  # fmt: skip
    choice = rng.randint(0, 9)
    if choice < 6:
        desk.place(rng.choice(orders))
    elif choice == 6:
        pair = f"p{rng.random()}"
        desk.broker.place_pair(take(pair, qty, above), stop(f"{pair}s", qty, below), desk.window())
    elif choice == 7:
        desk.broker.cancel(BTC, name)
    else:
        ASK[rng.choice(ASKING)](desk)
    desk.pass_time(rng.randint(0, 5000))


def move(desk: Desk, rng: random.Random, price: float) -> float:
    """A candle, looked at twice, with a request in between."""
    open_ = max(price * (1 + rng.gauss(0, 0.01)), 10.0)
    close = max(open_ * (1 + rng.gauss(0, 0.03)), 10.0)
    desk.open(open_)
    desk.range(open_, min(open_, close), close)
    with contextlib.suppress(ExchangeRefused, ExchangeUnavailable):
        ask(desk, rng, close)
    desk.range(max(open_, close) * 1.02, min(open_, close) * 0.98, close)
    desk.broker.closed(BTC, desk.open_ms, close)
    desk.clock.time_ms = max(desk.clock.time_ms, desk.open_ms + 60_000)
    return close


def check_money(desk: Desk) -> None:
    quote, base = Decimal(1000), Decimal("0.5")
    for fill in desk.exchange.fills(BTC, 0):
        qty = fill.qty if fill.side == "buy" else -fill.qty
        quote -= qty * fill.price + (fill.fee if fill.fee_asset == "USDT" else 0)
        base += qty - (fill.fee if fill.fee_asset == "BTC" else 0)
    balances = desk.exchange.balances()
    assert abs(balances["USDT"].total - quote) < Decimal("1e-18") and balances["BTC"].total == base
    assert balances["BTC"].free >= 0 and balances["USDT"].free > Decimal("-1e-9")
    working = desk.exchange.open_orders([BTC])
    assert not any(seen.state in FINAL for seen in working)
    names = {o.client_order_id for o in working}
    alone = [
        o
        for o in working
        if o.side == "sell" and o.client_order_id.removesuffix("s") not in names - {o.client_order_id}
    ]
    assert balances["BTC"].locked == sum((o.qty - o.filled_qty for o in alone), Decimal(0))  # a pair locks once


def test_each_kind_is_met_in_the_random_markets() -> None:
    met = set()
    for seed in range(40):
        desk, rng = Desk(*everything(0.04), btc="0.5", seed=seed), random.Random(seed)
        for _ in range(60):
            with contextlib.suppress(ExchangeRefused, ExchangeUnavailable):
                ask(desk, rng, 100.0)
            desk.pass_time(60_000)
        met |= {kind for _, kind in desk.broker.plan.struck}
    assert met == set(KINDS) and set(PLACING) < set(CHANGING)
