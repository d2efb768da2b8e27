"""With a guard switched off, the simulation finds what the guard is for: otherwise it would prove nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from atb.core.errors import AtbError
from atb.ledger.connect import Where
from atb.venue.faults import Fault
from tests.database import Postgres
from tests.seeds import seeds
from tests.sim.guards import AT_THE_EXCHANGE
from tests.sim.test_simulation import check
from tests.sim.world import World


def violated(where: Callable[[], Where], fault: Fault, worlds: int) -> bool:
    for seed in range(worlds):
        world = World(where(), seed, deaths=0.01, faults=(fault, Fault("*", "late", 0.2, ms=400_000)))
        try:
            world.live()
            world.calm_down()
            check(world)
            if fault.kind != "overlooked":  # of a hidden sale nobody can know that it was done
                orders = world.session.state.books.orders.values()
                assert not [o for o in orders if "insufficient" in o.reason], "what was sold already was sold again"
        except (AssertionError, AtbError, KeyError):
            return True
        finally:
            world.session.journal.close()
    return False


@pytest.mark.slow
@pytest.mark.parametrize("name", AT_THE_EXCHANGE)
def test_without_a_guard_something_is_found(server: Postgres, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    guard = AT_THE_EXCHANGE[name]
    guard.switch_off(monkeypatch)
    assert violated(lambda: server.where(server.database()), guard.fault, 24)


@pytest.mark.slow
@pytest.mark.parametrize("name", AT_THE_EXCHANGE)
def test_with_it_nothing_is(server: Postgres, name: str) -> None:
    assert not violated(lambda: server.where(server.database()), AT_THE_EXCHANGE[name].fault, len(seeds(0, 2)))
