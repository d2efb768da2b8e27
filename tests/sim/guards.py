"""What protects an account, each with something worse to be put in its place: then the simulation must find what it is for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest

from atb.core.orders import FINAL, NewOrder, SeenOrder
from atb.execution import executor, fills, spooling_journal
from atb.execution.executor import Executor
from atb.execution.spool import Merged, Spool
from atb.ledger.entries import Entry
from atb.ledger.records import FINAL_STATES, Order
from atb.venue.faults import Fault

CONCLUDE = Executor._conclude


class Guard(NamedTuple):
    """where, name: what protects; worse: what is put there. fault: at the exchange, what it is for. also: guards that would make
    up for this one, and are switched off with it."""

    where: Any
    name: str
    worse: Any
    fault: Fault = Fault("*", "outage")
    also: Sequence[Guard] = ()

    def switch_off(self, patch: pytest.MonkeyPatch) -> None:
        for guard in (self, *self.also):
            patch.setattr(guard.where, guard.name, guard.worse)


def unknown_is_rejected(self: Executor, orders: Sequence[NewOrder], state: str, reason: str, **more: str) -> None:
    CONCLUDE(self, orders, "rejected" if state == "unknown" else state, reason, **more)


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


def forgets(self: Spool, append: Callable[[Sequence[Entry]], object]) -> Merged:
    self.path.unlink()
    return Merged()


def never_folds_anew(self: Executor) -> bool:
    self.merges = self.journal.merges
    return False


def no(*_: object) -> bool:
    return False


LATE = (  # what was taken for never sent is found all the same
    Guard(executor, "may_have_arrived", no),
    Guard(fills, "is_awaited", no),
    Guard(Executor, "revive", no),
)
AT_THE_EXCHANGE = {
    "unknown": Guard(Executor, "_conclude", unknown_is_rejected, Fault("*", "unknown_after", 0.3), LATE),
    "waiting": Guard(Executor, "_long_ago", never_waits, Fault("*", "held_up", 0.5, ms=1_900), LATE),
    "executions": Guard(Executor, "_record", ends_without_executions, Fault("fills", "late", 0.9, ms=400_000), LATE),
    "looking-up": Guard(Executor, "_find", never_looks_up, Fault("*", "unknown_after", 0.3), LATE),
    "ends": Guard(Executor, "_book_ends", no_end_is_looked_for, Fault("*", "vanishes", 0.5, ms=60_000), LATE),
    "late": Guard(Executor, "revive", no, Fault("*", "overlooked", 0.3, ms=40_000), LATE[:2]),
}
WITHOUT_DATABASE = {
    "merging": Guard(Spool, "merge", forgets),
    "folding-anew": Guard(Executor, "_folds_anew", never_folds_anew),
    "no-entries": Guard(spooling_journal, "_enters", no),
}
GUARDS = {**AT_THE_EXCHANGE, **WITHOUT_DATABASE}
