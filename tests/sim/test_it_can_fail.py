"""With a guard switched off, the simulation finds what the guard is for: otherwise it would prove nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from atb.core.errors import AtbError
from atb.core.orders import FINAL, NewOrder, SeenOrder
from atb.execution.executor import Executor
from atb.ledger.connect import Where
from atb.ledger.records import FINAL_STATES, Order
from atb.venue.faults import Fault
from tests.database import Postgres, postgres
from tests.sim.test_simulation import check
from tests.sim.world import World

CONCLUDE = Executor._conclude


def unknown_is_rejected(self: Executor, orders: Sequence[NewOrder], state: str, reason: str) -> None:
    CONCLUDE(self, orders, "rejected" if state == "unknown" else state, reason)


def never_waits(self: Executor, order: Order) -> bool:
    return True


def ends_without_executions(self: Executor, seen: SeenOrder) -> bool:
    known = self.state.books.orders[seen.client_order_id]
    body = {"client_order_id": seen.client_order_id, "state": "open", "venue_order_id": seen.venue_order_id}
    if known.venue_order_id != seen.venue_order_id:
        self.append([self._order_entry(body)])
    if seen.state in FINAL and known.state not in FINAL_STATES:
        self._note(seen.client_order_id, seen.state, "")
    return True


def never_looks_up(self: Executor, orders: Sequence[Order]) -> bool:
    for order in orders:
        self._note(order.client_order_id, "denied", "nobody asked")
    return True


def no_end_is_looked_for(self: Executor, s: int) -> None:
    pass


GUARDS: dict[str, tuple[Any, Fault]] = {
    "_conclude": (unknown_is_rejected, Fault("*", "unknown_after", 0.3)),
    "_long_ago": (never_waits, Fault("*", "held_up", 0.5, ms=1_900)),
    "_record": (ends_without_executions, Fault("fills", "late", 0.9, ms=400_000)),
    "_find": (never_looks_up, Fault("*", "unknown_after", 0.3)),
    "_book_ends": (no_end_is_looked_for, Fault("*", "vanishes", 0.5, ms=60_000)),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with postgres(tmp_path_factory.mktemp("postgres")) as running:
        yield running


def violated(where: Callable[[], Where], fault: Fault, seeds: int) -> bool:
    for seed in range(seeds):
        world = World(where(), seed, deaths=0.01, faults=(fault, Fault("*", "late", 0.2, ms=400_000)))
        try:
            world.live()
            world.calm_down()
            check(world)
            orders = world.session.state.books.orders.values()
            assert not [o for o in orders if "insufficient" in o.reason], "what was sold already was sold again"
        except (AssertionError, AtbError, KeyError):
            return True
        finally:
            world.session.journal.close()
    return False


@pytest.mark.slow
@pytest.mark.parametrize("guard", GUARDS)
def test_without_a_guard_something_is_found(server: Postgres, monkeypatch: pytest.MonkeyPatch, guard: str) -> None:
    worse, fault = GUARDS[guard]
    monkeypatch.setattr(Executor, guard, worse)
    assert violated(lambda: server.where(server.database()), fault, 24)


@pytest.mark.slow
@pytest.mark.parametrize("guard", GUARDS)
def test_with_it_nothing_is(server: Postgres, guard: str) -> None:
    assert not violated(lambda: server.where(server.database()), GUARDS[guard][1], 8)
