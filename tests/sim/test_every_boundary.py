"""Killed at each boundary in turn, and again while it recovers: the day ends with the very executions of a quiet day."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal

import pytest

from atb.ledger.connect import Where
from atb.venue.faults import Fault
from tests.seeds import every
from tests.sim.test_simulation import check
from tests.sim.world import World

SEED, ROWS = 8, 20  # a short day on which everything happens: entries, partial exits, stops that move, pairs
REQUESTS = ("place", "place_pair", "cancel", "find", "open_orders", "fills")
COMMITS = ("mark", "decision", "intent", "order open", "order cancelled", "fill", "level")
LOST = (Fault("place", "unknown_after", calls=(1, 4)), Fault("place_pair", "unknown_before", calls=(1,)),
        Fault("cancel", "unknown_after", calls=(1,)), Fault("place", "refused", calls=(3,)))  # fmt: skip
OUTCOMES = ("order unknown", "order denied", "order rejected")
NEVER_SENT = {"after commit of intent", "before place", "before place_pair"}  # tried again when that is certain: later
AGAIN = (1, 2, 3, 4, 7, 12)  # boundaries later: the first ones are those of the next start

Trades = Sequence[tuple[str, str, Decimal, Decimal]]


class Day(World):
    """The short day; each has an account of its own."""

    def __init__(self, where: Where, kill_at: Collection[int] = (), faults: Sequence[Fault] = ()) -> None:
        self.name, self.boundaries = "day " + " ".join(map(str, kill_at)), 0
        super().__init__(where, SEED, deaths=0, faults=faults, kill_at=kill_at)

    @property
    def account(self) -> str:
        return self.name

    def trades(self) -> Trades:
        fills = [fill for traded in self.traded for fill in self.exchange.fills(traded.symbol, 0)]
        return [(fill.symbol.id, fill.side, fill.qty, fill.price) for fill in fills]


def lived(where: Where, kill_at: Collection[int] = (), faults: Sequence[Fault] = ()) -> Day:
    day = Day(where, kill_at, faults)
    day.live(ROWS)
    day.boundaries = day.fate.number
    day.calm_down()
    day.fate.at.clear()
    check(day)
    before, orders = day.session.state.seq, len(day.session.state.books.orders)
    for restarts in (1, 2):
        day.restart()
        day.look(day.clock.now_ms(), (1,))
        assert day.session.state.seq == before + restarts, "a restart wrote more than that a session begins"
        assert len(day.session.state.books.orders) == orders
    day.session.journal.close()
    return day


def names(what: str, kinds: Sequence[str]) -> set[str]:
    return {f"{when} {what}{kind}" for when in ("before", "after") for kind in kinds}


def test_what_the_boundaries_are(where: Where) -> None:
    quiet, lost = lived(where), lived(where, (0,), LOST)
    starts = {"start: authority taken", "start: ledger folded"}
    assert quiet.fate.first.keys() >= starts | names("", REQUESTS) | names("commit of ", COMMITS)
    assert lost.fate.first.keys() >= names("commit of ", OUTCOMES)


@pytest.mark.slow
def test_killed_at_each_kind_of_boundary(where: Where) -> None:
    quiet = lived(where)
    for name, number in quiet.fate.first.items():
        killed = lived(where, (number,))
        assert killed.fate.deaths == 1
        assert name in NEVER_SENT or killed.trades() == quiet.trades(), (name, number)


def test_killed_at_each_kind_of_boundary_of_what_is_unknown(where: Where) -> None:
    for name, number in lived(where, (0,), LOST).fate.first.items():
        if any(outcome in name for outcome in OUTCOMES):
            lived(where, (number, number + 3), LOST)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(len(AGAIN)))
def test_killed_at_many_boundaries_and_again(where: Where, part: int) -> None:
    quiet = lived(where)
    for number in range(1 + part, quiet.boundaries + 1, len(AGAIN) * every(3)):
        later = AGAIN[number % (len(AGAIN) - 1)]
        killed = lived(where, {number, number + later})
        assert NEVER_SENT & killed.fate.died.keys() or killed.trades() == quiet.trades(), (number, later)


@pytest.mark.slow
def test_killed_at_many_boundaries_of_a_day_on_which_answers_are_lost(where: Where) -> None:
    for number in range(1, lived(where, (0,), LOST).boundaries + 1, every(6)):
        lived(where, (number,), LOST)
