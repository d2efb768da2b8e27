"""The database goes away in the middle of simulated days: stops and exits go on, nothing is entered, lost or doubled."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atb.core.errors import AtbError
from atb.execution import spooling_journal
from atb.ledger.connect import Where
from atb.ledger.embedded import stop
from tests.ledger.conftest import copy_template
from tests.ledger.victim import Victim
from tests.seeds import seeds
from tests.sim.guards import WITHOUT_DATABASE
from tests.sim.mortal import MortalJournal
from tests.sim.test_simulation import check
from tests.sim.weather import Door, Weather
from tests.sim.world import World

_numbers = itertools.count()
QUICK, BUSY = (3,), (1, 3, 5, 7, 9, 11)  # seeds with orders placed while the database is away


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    home = tmp_path_factory.mktemp("killed")
    yield Victim(home)
    stop(home)


@pytest.fixture
def database(victim: Victim) -> Callable[[], Where]:
    victim.start()
    return lambda: copy_template(victim.server, f"day_{next(_numbers)}", durable=True)


def through(where: Where, weather: Weather, home: Path, seed: int) -> World:
    world = World(where, seed, deaths=0.002, home=home, weather=weather)
    try:
        live_through(world, home, seed)
    finally:
        world.session.journal.close()
    return world


def live_through(world: World, home: Path, seed: int) -> None:
    world.live()
    world.calm_down()
    assert not world.executor.journal.away and not list((home / "spool").glob("*.jsonl")), seed
    assert not [event for event in world.events if event.code == "spool_refused"], seed
    assert "entry" not in world.placed_while_away, seed
    check(world)
    before, orders = world.session.state, len(world.session.state.books.orders)
    world.restart()  # what was folded through the outages is what the ledger says
    world.look(world.clock.now_ms(), (1,))
    assert len(world.session.state.books.orders) == orders, seed
    assert repr(world.session.state.stepper.account.as_tuple()) == repr(before.stepper.account.as_tuple()), seed
    check(world)


def behind_a_door(where: Where, home: Path, seed: int) -> World:
    return through(where, Weather(Door(seed), seed, 0.02, 80), home / str(seed), seed)


@pytest.mark.parametrize("seed", QUICK)
def test_a_day_with_outages_ends_well(database: Callable[[], Where], tmp_path: Path, seed: int) -> None:
    world = behind_a_door(database(), tmp_path, seed)
    assert world.placed_while_away, "nothing was protected or sold meanwhile: this seed shows nothing any more"


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(10, 14))
def test_many_days_with_outages_end_well(database: Callable[[], Where], tmp_path: Path, seed: int) -> None:
    behind_a_door(database(), tmp_path, seed)


@pytest.mark.slow
def test_a_day_on_which_the_server_is_killed(database: Callable[[], Where], victim: Victim, tmp_path: Path) -> None:
    through(database(), Weather(victim, 1, 0.003, 500), tmp_path, 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5, 8))
def test_days_on_which_it_is_killed(
    database: Callable[[], Where], victim: Victim, tmp_path: Path, seed: int
) -> None:  # fmt: skip
    through(database(), Weather(victim, seed, 0.003, 500), tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT_DATABASE)
def test_without_a_guard_something_is_found(
    database: Callable[[], Where], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    guard = WITHOUT_DATABASE[name]
    guard.switch_off(monkeypatch)
    if guard.where is spooling_journal:
        monkeypatch.setattr(MortalJournal, "away", False)  # the plan's own look at it, too
    for seed in BUSY:
        try:
            behind_a_door(database(), tmp_path, seed)
        except (AssertionError, AtbError, ArithmeticError, LookupError, ValueError):
            return
    pytest.fail(f"nobody misses it: {name}")
