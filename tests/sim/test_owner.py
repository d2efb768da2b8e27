"""Bad days on an account whose owner uses it, too: he pays in and out, converts, buys and sells. Both sides agree in the end."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from atb.execution.reconcile import differences
from atb.execution.reconciler import Reconciler
from atb.execution.session import Session
from atb.ledger.audit import audit
from atb.ledger.connect import Where, connect
from atb.live.trader import Trader
from tests.database import Postgres
from tests.seeds import seeds, thinned
from tests.sim.owner import Owner
from tests.sim.world import FAULTS, World


class OwnedWorld(World):
    """`often`: how likely he does something before a look."""

    def __init__(self, where: Where, seed: int, often: float = 0.08, **more: Any) -> None:
        # Who moves the same coins while an order stays hidden makes it look as if it had never arrived.
        faults = [fault for fault in FAULTS if fault.kind != "overlooked"]
        super().__init__(where, seed, faults=faults, **more)
        self.owner = Owner(self.exchange, self.traded, self.last, seed + 1, often)

    def begin(self) -> tuple[Session, Trader]:
        session, trader = super().begin()
        self.reconciler = Reconciler(session.executor, pause=lambda seconds: None)
        return session, trader

    def look(self, from_ms: int, after_s: Sequence[int]) -> None:
        for seconds in after_s:
            self.clock.time_ms = from_ms + 1000 * seconds
            self.owner.may_act()
            self.survive(self.cycle)

    def cycle(self) -> None:
        self.trader.look(self.clock.now_ms())
        self.reconciler.look()


def live_through(where: Where, seed: int) -> OwnedWorld:
    world = OwnedWorld(where, seed)
    world.live()
    world.owner.often = 0.0
    world.calm_down()
    return world


def check(world: OwnedWorld) -> None:
    books, seed = world.session.state.books, world.seed
    verdict = world.reconciler.look()
    assert not verdict.unsettled and not verdict.unexplained, (seed, verdict)
    left = differences(books, world.broker.venue, world.exchange.balances())
    assert all(abs(difference) < Decimal("1e-15") for difference in left.values()), (seed, left)
    assert all(position.qty > 0 for position in books.positions.values()), seed
    for s, traded in enumerate(world.traded):
        state, held = world.session.state, world.session.state.held(s)
        assert state.position(s).qty == int(held // traded.rules.lot), (seed, traded.symbol.id)
    with connect(world.where) as connection:
        assert audit(connection, world.session.account).problems == []


@pytest.mark.parametrize("seed", thinned(range(2), 2))
def test_both_sides_agree_in_the_end(server: Postgres, seed: int) -> None:
    world = live_through(server.where(server.database()), seed)
    check(world)
    before = world.session.state.seq
    world.restart()
    world.reconciler.look()
    assert world.session.state.seq == before + 1  # the session's beginning
    check(world)
    world.session.journal.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(2, 6))
def test_many_days(server: Postgres, seed: int) -> None:
    world = live_through(server.where(server.database()), seed)
    check(world)
    world.session.journal.close()
