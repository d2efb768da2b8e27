"""Somebody writes beside an engine, and the database goes away before the engine has read what: its own entries count."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from atb.core.orders import NewOrder
from atb.ledger.entries import Chained, Entry
from tests.database import Postgres
from tests.sim.weather import BehindDoor, Door, Weather
from tests.sim.world import World


class ShutBehind(BehindDoor):
    """Whose door falls shut behind each commit."""

    def append(self, entries: Sequence[Entry]) -> list[Chained]:
        written = super().append(entries)
        self.door.kill("")
        return written


def test_its_own_entries_count_and_theirs_come_later(server: Postgres, tmp_path: Path) -> None:
    door = Door(0, lost=0.0)
    world = World(server.where(server.database()), 1, deaths=0, faults=(), home=tmp_path, weather=Weather(door, 0, 0.0))
    executor, spooling = world.executor, world.executor.journal.journal  # type: ignore[attr-defined]
    spooling.journal = ShutBehind(world.session.journal, door, world.fate)
    order = NewOrder("atb-test", world.traded[0].symbol, "sell", "market", world.traded[0].rules.lot)

    world.somebody_writes()
    executor.append([executor._intent("exit", order)])
    assert spooling.away and "atb-test" in executor.state.books.orders
    executor._conclude([order], "rejected", "test")
    assert executor.state.books.orders["atb-test"].state == "rejected"

    door.start()
    spooling.journal = BehindDoor(world.session.journal, door, world.fate)
    assert executor.catch_up()
    executor.append([executor._intent("exit", order._replace(client_order_id="atb-more"))])
    state, kept = executor.state, executor.state.fresh()
    for chained in executor.journal.read(lambda connection: _chain(connection, world)):
        kept.take(chained.seq, chained.entry)
    assert (state.seq, list(state.books.orders)) == (kept.seq, ["atb-test", "atb-more"])
    assert state.books.assets == kept.books.assets and state.books.assets["DUST"] == 1
    world.session.journal.close()


def _chain(connection: object, world: World) -> list[Chained]:
    from atb.ledger.audit import read_chain

    return list(read_chain(connection, world.session.account.id, 0))  # type: ignore[arg-type]
