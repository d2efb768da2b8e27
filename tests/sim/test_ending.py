"""An error ends an engine just when it has cancelled a stop: the last thing that it does is to place it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from atb.core.errors import Fenced, UsageError
from atb.live.ending import left_protected
from atb.venue.faults import Fault
from tests.database import Postgres
from tests.sim.test_sick_database import SEED, hold_something
from tests.sim.world import World


def without_its_stop(world: World) -> list[str]:
    """As in the middle of a move: the old one is cancelled. Returns the symbols of what is held."""
    state, held = world.session.state, []
    for s in range(state.count):
        stops = [order for order in state.working[s].values() if order.purpose == "stop"]
        held += [world.traded[s].symbol.id for _ in stops]
        for order in stops:
            assert world.executor._cancel(s, order)
    assert held and not resting(world)
    return held


def resting(world: World) -> list[str]:
    symbols = [traded.symbol for traded in world.traded]
    return [order.symbol.id for order in world.exchange.open_orders(symbols) if order.type == "stop"]


@pytest.fixture
def world(server: Postgres, tmp_path: Path) -> World:
    world = World(server.where(server.database()), SEED, deaths=0, faults=(), home=tmp_path)
    hold_something(world)
    world.events.clear()
    return world


def ended(world: World, error: Exception, *faults: Fault) -> list[str]:
    """Which positions were without a stop when it struck."""
    with pytest.raises(type(error)), left_protected(world.session, world.events.append):
        held = without_its_stop(world)
        world.plan.faults = faults
        raise error
    world.session.journal.close()
    return held


@pytest.mark.parametrize("error", [UsageError("The ledger refuses it."), AssertionError("a bug")])
def test_the_stop_is_placed_again(world: World, error: Exception) -> None:
    assert ended(world, error) == resting(world)
    assert [e.code for e in world.events if e.severity == "critical"] == ["engine_failed"]


def test_what_cannot_be_protected_is_told(world: World) -> None:
    (name, *_) = ended(world, AssertionError("a bug"), Fault("*", "unavailable", 1.0))
    assert [e.code for e in world.events if e.severity == "critical"] == ["engine_failed", "not_protected"]
    assert name in world.events[-1].message and not resting(world)


def test_whose_account_is_taken_over_sends_nothing_more(world: World) -> None:
    ended(world, Fenced("It is somebody else's."))
    assert not resting(world) and not [e for e in world.events if e.severity == "critical"]
