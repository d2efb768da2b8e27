"""Faults and kills at every boundary: afterwards exchange and ledger agree, nothing was done twice, nothing is left bare."""

from __future__ import annotations

import pytest

from atb.core.money import floor_to
from atb.execution.dust import PREFIX
from atb.ledger.audit import audit
from atb.ledger.connect import Where, connect
from tests.seeds import seeds, thinned
from tests.sim.world import World


def check(world: World) -> int:
    """What must hold however the day went. Returns how many executions there were."""
    state, exchange, count = world.session.state, world.exchange, 0
    report = exchange.audit()
    assert not report.duplicates and not report.oversold, world.seed
    for s, traded in enumerate(world.traded):
        symbol = traded.symbol
        told = [fill.venue_trade_id for fill in exchange.fills(symbol, 0)]
        fills = state.books.history.get((symbol.market, symbol.id), [])
        booked = [fill.venue_trade_id for fill in fills if not fill.venue_trade_id.startswith(PREFIX)]
        assert sorted(told) == sorted(booked), (world.seed, symbol.id)
        count += len(told)
        assert not [f for f in fills if f.side == "sell" and f.reason in ("entry", "hold")], (
            world.seed,
            "sold unasked",
        )
        balance = exchange.balances().get(symbol.base)
        there, apart = balance.total if balance else 0, state.dust.get(symbol.base, 0)
        assert state.held(s) + apart == there, (world.seed, symbol.id)
        assert apart < traded.rules.lot, (world.seed, symbol.id)
        assert state.position(s).qty == int(state.held(s) // traded.rules.lot), (world.seed, symbol.id)
        working = {order.client_order_id: order for order in exchange.open_orders([symbol])}
        assert set(working) == set(state.working[s]), (world.seed, symbol.id)
        p = state.position(s)
        if p.qty and p.stop == p.stop and p.target_qty == p.qty:
            stops = [o for o in working.values() if o.type == "stop"]
            assert sum(o.qty - o.filled_qty for o in stops) == floor_to(state.held(s), traded.rules.lot), world.seed
    with connect(world.where) as connection:
        assert audit(connection, world.session.account).problems == []
    return count


def live_through(where: Where, seed: int) -> tuple[int, int]:
    world = World(where, seed)
    world.live()
    world.calm_down()
    count = check(world)
    before, orders = world.session.state, len(world.session.state.books.orders)
    for _ in range(2):  # a restart changes nothing, and another one neither
        world.restart()
        world.look(world.clock.now_ms(), (1,))
        assert len(world.session.state.books.orders) == orders
        assert repr(world.session.state.stepper.account.as_tuple()) == repr(before.stepper.account.as_tuple())
    check(world)
    world.session.journal.close()
    return count, world.fate.deaths


@pytest.mark.parametrize("seed", thinned(range(2), 2))
def test_a_bad_day_ends_well(where: Where, seed: int) -> None:
    live_through(where, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(2, 12))
def test_many_bad_days_end_well(where: Where, seed: int) -> None:
    live_through(where, seed)
