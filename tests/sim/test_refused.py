"""An exchange that refuses what we want: nothing that is held is given up, or left bare, because of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from atb.core.errors import ExchangeRefused
from atb.core.orders import NewOrder, SeenOrder
from atb.core.timeframe import in_ms
from atb.engine.reasons import PARTIAL_EXIT
from atb.ledger.connect import Where
from atb.ledger.entries import Entry
from atb.venue.broker import Window
from atb.venue.faults import Fault, FaultPlan
from tests.seeds import thinned
from tests.sim.test_simulation import check
from tests.sim.world import World


class Held(Exception):
    """A symbol's index."""


class Watched(World):
    """Goes on until something is held with its stop, and a candle runs."""

    watching = True

    def look(self, from_ms: int, after_s: Sequence[int]) -> None:
        super().look(from_ms, after_s)
        for s in range(self.session.state.count) if self.watching else ():
            p = self.session.state.position(s)
            if stops(self, s) and p.target_qty == p.qty > 3 and s in self.last:
                self.watching = False
                raise Held(s)


def holding(where: Where, seed: int = 5, home: Path | None = None) -> tuple[World, int]:
    """A world that holds something with its stop, and the symbol's index."""
    world = Watched(where, seed, deaths=0.0, faults=(), home=home)
    try:
        world.live()
    except Held as held:
        return world, held.args[0]
    raise AssertionError("nothing was ever held")


def stops(world: World, s: int) -> list[SeenOrder]:
    return [o for o in world.exchange.open_orders([world.traded[s].symbol]) if o.type == "stop"]


def bare_of_orders(world: World, s: int) -> SeenOrder:
    """Somebody cancels what rests. Returns the stop."""
    (stop,) = stops(world, s)
    for order in world.exchange.open_orders([stop.symbol]):
        with contextlib.suppress(ExchangeRefused):  # of a pair the other went with it
            world.exchange.cancel(stop.symbol, order.client_order_id)
    return stop


def faults(world: World, *these: Fault) -> None:
    world.plan = world.broker.plan = FaultPlan(world.seed, *these)


@pytest.fixture
def done(where: Where) -> Iterator[Callable[[World], None]]:
    def end(world: World) -> None:
        faults(world)
        world.look(world.clock.now_ms(), (1, 10, 60, 700, 1400))
        check(world)
        world.session.journal.close()

    yield end


@pytest.mark.parametrize("reason", thinned(["lot", "min_notional", "market_closed", "account", "refused"], 3))
def test_a_sale_that_is_refused_leaves_what_is_held_protected(
    where: Where, done: Callable[[World], None], reason: str
) -> None:
    world, s = holding(where)
    held, before = world.session.state.held(s), stops(world, s)
    faults(world, Fault("place", "refused", 1.0, types=("market",), reason=reason))
    world.executor.get_out(s, "signal", "test")
    for _ in range(5):
        world.look(world.clock.now_ms(), (2,))
        assert world.session.state.held(s) == held, "given up as too little to be sold"
        assert [(o.qty, o.stop_price) for o in stops(world, s)] == [(o.qty, o.stop_price) for o in before]
    critical = [event for event in world.events if event.code == "sale_refused"]
    assert len(critical) == 1 and "It is protected meanwhile, and tried again in 10 s." in critical[0].message
    faults(world)
    world.look(world.clock.now_ms(), (11,))
    assert world.session.state.position(s).qty == 0 and not stops(world, s)
    done(world)


@pytest.mark.parametrize("reason", thinned(["price", "lot", "refused", "too_many_stops"], 4))
def test_a_stop_that_is_refused_rests_a_little_wider_and_is_watched(
    where: Where, done: Callable[[World], None], reason: str
) -> None:
    world, s = holding(where)
    p, (stop,) = world.session.state.position(s), stops(world, s)
    once = Fault("place", "refused", calls=(1,), types=("stop",), reason=reason)
    faults(world, once, Fault("place_pair", "refused", 1.0, reason=reason))
    world.exchange.cancel(stop.symbol, stop.client_order_id)
    world.look(world.clock.now_ms(), (2,))
    (wider,) = stops(world, s)
    assert stop.stop_price is not None and wider.stop_price is not None
    assert wider.qty == stop.qty and 0.98 * float(stop.stop_price) < float(wider.stop_price) < float(stop.stop_price)
    orders = len(world.session.state.books.orders)
    world.look(world.clock.now_ms(), (2, 4, 6))
    assert len(world.session.state.books.orders) == orders, "it was cancelled for another try"
    world.executor.watch({s: p.stop})
    world.look(world.clock.now_ms(), (2,))
    assert world.session.state.position(s).qty == 0
    history = world.session.state.books.history[stop.symbol.market, stop.symbol.id]
    assert history[-1].reason in ("stop_loss", "trailing_stop", "break_even")
    done(world)


@pytest.mark.parametrize("reason", thinned(["price", "refused", "not_supported"], 1))
def test_a_stop_that_is_refused_in_every_way_is_tried_again_soon(
    where: Where, done: Callable[[World], None], reason: str
) -> None:
    world, s = holding(where)
    stop = bare_of_orders(world, s)
    faults(world, Fault("*", "refused", 1.0, types=("stop", "stop_limit", "take_limit"), reason=reason))
    tried = []
    for _ in range(12):
        orders = len(world.session.state.books.orders)
        world.look(world.clock.now_ms(), (1,))
        tried.append(len(world.session.state.books.orders) > orders)
    assert tried == [n in (0, 1, 3, 7) for n in range(12)], "after 1, 2 and 4 seconds"
    told = [event.message for event in world.events if event.code == "stop_refused"]
    assert "all was refused. Its price is watched, and all is tried again in 1 s." in told[0]
    faults(world)
    world.look(world.clock.now_ms(), (4,))
    assert [(o.qty, o.stop_price) for o in stops(world, s)] == [(stop.qty, stop.stop_price)]
    done(world)


@pytest.mark.parametrize("stops_refused", [0, 1])
def test_what_rests_rightly_is_not_cancelled_by_another_process_for_a_better_try(
    where: Where, done: Callable[[World], None], stops_refused: int
) -> None:
    world, s = holding(where)
    bare_of_orders(world, s)
    refused = Fault("place", "refused", calls=tuple(range(1, stops_refused + 1)), types=("stop",))
    faults(world, refused, Fault("place_pair", "refused", 1.0))
    world.look(world.clock.now_ms(), (2,))
    rests = stops(world, s)
    assert len(rests) == 1
    faults(world)
    world.restart()
    world.look(world.clock.now_ms(), (2, 4))
    assert stops(world, s) == rests
    done(world)


def test_a_stop_that_cannot_be_moved_rests_where_it_did(where: Where, done: Callable[[World], None]) -> None:
    world, s = holding(where)
    (before,) = stops(world, s)
    symbol, tick = before.symbol, world.traded[s].rules.tick
    assert before.stop_price is not None
    level = {
        "symbol": symbol.id,
        "market": symbol.market,
        "stop": before.stop_price + tick,
        "take": None,
        "by": "operator",
    }
    world.executor.append([Entry("level:test", "level", world.executor.now(), level, world.executor.session_id)])
    refused = Fault("place", "refused", calls=(1,), types=("stop",))
    faults(world, refused, Fault("place_pair", "refused", 1.0))
    world.look(world.clock.now_ms(), (2,))
    (after,) = stops(world, s)
    assert (after.qty, after.stop_price) == (before.qty, before.stop_price) and after != before
    world.executor.watch({s: float(before.stop_price + tick)})
    world.look(world.clock.now_ms(), (2,))
    assert world.session.state.position(s).qty == 0
    done(world)


def test_a_part_is_not_sold_twice_when_the_first_sale_is_hidden(where: Where, done: Callable[[World], None]) -> None:
    """Enough is left for the exchange to take it again, so what the balances tell counts."""
    world, s = holding(where)
    p = world.session.state.position(s)
    left = p.qty - p.qty // 3
    world.session.state.stepper.want(s, left, PARTIAL_EXIT)
    faults(world, Fault("place", "overlooked", 1.0, ms=40_000, types=("market",)))
    world.look(world.clock.now_ms(), (0, 6, 12, 20, 30, 41, 45))
    sales = [o for o in world.exchange.orders(world.traded[s].symbol, 0) if (o.side, o.type) == ("sell", "market")]
    assert len(sales) == 1 and world.session.state.position(s).qty == left
    done(world)


@pytest.mark.parametrize("refused", [False, True])
def test_a_stop_that_was_taken_for_never_sent_has_the_coins(
    where: Where, done: Callable[[World], None], refused: bool
) -> None:
    """It is found where it rests, long after anybody looked for it: nothing else could be placed. refused: nor was it, when
    that was tried while the exchange told nothing of it."""
    world, s = holding(where)
    bare_of_orders(world, s)
    faults(world, Fault("place_pair", "refused", 1.0), Fault("place", "overlooked", 1.0, ms=900_000, types=("stop",)))
    world.look(world.clock.now_ms(), (1, 10))
    faults(world)
    if refused:
        world.look(world.clock.now_ms(), (10, 20))
        assert not world.session.state.working[s]
        assert [event.code for event in world.events].count("less_is_free") == 1
    world.clock.time_ms += 1_000_000
    world.look(world.clock.now_ms(), (1, 2))
    (stop,) = stops(world, s)
    assert stop.client_order_id in world.session.state.working[s]
    assert [event.code for event in world.events].count("late_order") == 1
    done(world)


def test_what_rests_after_all_waits_until_every_fate_is_known(where: Where, done: Callable[[World], None]) -> None:
    """An execution that is booked with it might be that of an order which is not known yet, and would seem foreign."""
    world, s = holding(where)
    bare_of_orders(world, s)
    symbol, lot = world.traded[s].symbol, world.traded[s].rules.lot
    hidden = Fault("place", "overlooked", 1.0, ms=100_000, types=("stop",))
    faults(world, Fault("place_pair", "refused", 1.0), hidden)
    world.look(world.clock.now_ms(), (1,))
    (first,) = world.session.state.working[s].values()
    world.look(world.clock.now_ms(), (9,))
    faults(world, Fault("place_pair", "refused", 1.0))
    world.look(world.clock.now_ms(), (10,))
    assert not world.session.state.working[s]
    more = world.session.state.held(s) // 2 // lot * lot
    world.exchange.move("deposit", (symbol.base, more))
    faults(world, Fault("place_pair", "refused", 1.0), hidden)
    world.look(in_ms(first.created_at), (98,))
    (second,) = world.session.state.working[s].values()
    world.look(in_ms(first.created_at), (101,))
    assert [o.client_order_id for o in world.broker.open_orders([symbol])] == [first.client_order_id]
    assert list(world.session.state.working[s]) == [second.client_order_id]
    faults(world)
    world.look(in_ms(first.created_at), (200, 202))
    assert [o.qty for o in stops(world, s)] == [first.qty]
    world.exchange.move("withdrawal", (symbol.base, -more))
    done(world)


def test_what_somebody_else_has_locked_is_asked_for_not_tried(where: Where, done: Callable[[World], None]) -> None:
    world, s = holding(where)
    symbol, rules = world.traded[s]
    (stop,) = stops(world, s)
    half = (stop.qty / 2 // rules.lot) * rules.lot
    for order in world.exchange.open_orders([symbol]):
        with contextlib.suppress(ExchangeRefused):  # of a pair the other went with it
            world.exchange.cancel(symbol, order.client_order_id)
    last = world.session.state.books.prices[symbol.market, symbol.id]
    price = (last * 3 // rules.tick) * rules.tick
    foreign = NewOrder("mine", symbol, "sell", "limit", half, price=price)
    world.exchange.place(foreign, Window(world.exchange.now_ms(), 2_000))
    world.look(world.clock.now_ms(), (2, 4))
    (rest,) = stops(world, s)
    assert rest.qty == stop.qty - half
    orders = len(world.session.state.books.orders)
    world.look(world.clock.now_ms(), (2, 4, 6, 8))
    assert len(world.session.state.books.orders) == orders and stops(world, s) == [rest]
    world.exchange.cancel(symbol, "mine")
    world.look(world.clock.now_ms(), (2, 4))
    assert [o.qty for o in stops(world, s)] == [stop.qty]
    done(world)


def test_rules_that_have_changed_are_asked_for(where: Where, done: Callable[[World], None]) -> None:
    """One order may be half as much as it was: what is held is sold in two."""
    world, s = holding(where)
    rules = world.traded[s].rules
    held = world.session.state.held(s)
    most = (held * Decimal("0.6") // rules.lot) * rules.lot
    broker, refuse = world.broker, Fault("place", "refused", calls=(1,), types=("market",), reason="lot")
    market_rules = broker.market_rules
    broker.market_rules = lambda symbol, fresh=False: market_rules(symbol, fresh)._replace(max_qty=most)  # type: ignore[method-assign]
    faults(world, refuse)
    world.executor.get_out(s, "signal", "test")
    world.look(world.clock.now_ms(), (2, 4))
    assert world.session.state.position(s).qty == 0
    sales = [o for o in world.session.state.books.orders.values() if o.purpose == "exit" and o.filled_qty]
    assert [o.qty for o in sales] == [most, (held - most) // rules.lot * rules.lot]
    assert [e.code for e in world.events if e.code in ("rules_changed", "sale_refused")] == ["rules_changed"]
    done(world)


def test_what_is_too_little_by_the_rules_is_dust(where: Where) -> None:
    world, s = holding(where)
    symbol = world.traded[s].symbol
    last = world.session.state.books.prices[symbol.market, symbol.id]
    least = world.session.state.held(s) * last * 2
    market_rules = world.broker.market_rules
    world.broker.market_rules = lambda symbol, fresh=False: market_rules(symbol, fresh)._replace(min_notional=least)  # type: ignore[method-assign]
    faults(world, Fault("place", "refused", 1.0, types=("market",), reason="min_notional"))
    held = world.session.state.held(s)
    world.executor.get_out(s, "signal", "test")
    world.look(world.clock.now_ms(), (2, 4))
    assert world.session.state.held(s) == 0 and world.session.state.dust[symbol.base] == held
    world.session.journal.close()
