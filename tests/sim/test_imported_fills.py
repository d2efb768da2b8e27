"""Before each start somebody books what the exchange tells, and does not know whose it is: every order finds its fills."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from atb.core.orders import SeenFill
from atb.execution.adopting import fill_entry
from atb.ledger.connect import Where, connect
from atb.ledger.entries import Entry
from atb.ledger.journal import append
from atb.ledger.records import FINAL_STATES
from tests.seeds import thinned
from tests.sim.test_simulation import check
from tests.sim.world import World


class Imported(World):
    """A world in which somebody imports beside the engine, and before the next one starts where it died."""

    def look(self, from_ms: int, after_s: Sequence[int]) -> None:
        self.import_all()
        super().look(from_ms, after_s)

    def restart(self) -> None:
        self.import_all()
        super().restart()

    def seen(self) -> list[SeenFill]:
        return [fill for traded in self.traded for fill in self.exchange.fills(traded.symbol, 0)]

    def import_all(self, *more: SeenFill) -> None:
        """What the exchange tells of fills, without whose they are."""
        account = self.session.account.id
        with connect(self.where) as connection:
            ((epoch,),) = connection.execute("SELECT epoch FROM authority WHERE account_id = %s", (account,)).fetchall()
            append(connection, account, epoch, [of_nobody(fill_entry(fill, None)) for fill in (*self.seen(), *more)])

    def attributed(self) -> int:
        with connect(self.where) as connection:
            ((count,),) = connection.execute("SELECT count(*) FROM entries WHERE kind = 'attribution'").fetchall()
        return int(count)


def of_nobody(entry: Entry) -> Entry:
    return entry._replace(body={**entry.body, "reason": "import"})


@pytest.mark.parametrize("seed", thinned([3, 14], 2))
def test_what_is_imported_beside_the_engine_completes_its_orders(where: Where, seed: int) -> None:
    world = Imported(where, seed)
    world.live()
    world.calm_down()
    world.restart()
    world.look(world.clock.now_ms(), (1,))
    assert check(world) > 3 and world.attributed() > 3 and world.fate.deaths > 0
    world.session.journal.close()


class Enough(Exception):
    pass


class Late(Imported):
    """The first fills are imported before an engine sees them, together with one that is hours younger."""

    def look(self, from_ms: int, after_s: Sequence[int]) -> None:
        if not self.seen():
            return super().look(from_ms, after_s)
        first = self.seen()[0]
        self.import_all(first._replace(venue_trade_id="by hand", venue_order_id="99", at=first.at + timedelta(hours=3)))
        World.restart(self)
        World.look(self, from_ms, after_s)
        raise Enough


def test_an_order_finds_its_fills_also_where_later_ones_are_booked(where: Where) -> None:
    world = Late(where, 14, deaths=0, faults=())
    with pytest.raises(Enough):
        world.live()
    state, (first, *_) = world.session.state, world.seen()
    order = state.books.orders[state.by_venue[("spot", first.symbol.id), first.venue_order_id]]
    assert order.filled_qty == sum(f.qty for f in world.seen() if f.venue_order_id == first.venue_order_id)
    assert order.state in FINAL_STATES and world.attributed() >= 1
    world.session.journal.close()
