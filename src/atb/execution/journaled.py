"""The ledger's side of an executor: what is appended is folded into the state before anything else happens."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from atb.core.errors import DatabaseUnavailable
from atb.execution.state import TradingState
from atb.ledger.audit import read_entries
from atb.ledger.entries import Chained, Entry

T = TypeVar("T")
LONG = 10_000  # entries
NEVER = -1  # no journal has merged so often
PROVISIONAL = 0  # the number of an entry that is not in the ledger yet, but in a spool


class Journal(Protocol):
    """Where entries go, and come from (ledger.steady.SteadyJournal, execution.spooling_journal.SpoolingJournal).

    away: the database is out, and what is appended is kept elsewhere. merges: how often such entries came into the ledger,
    perhaps among those of others: whoever folded them folds anew.
    """

    account_id: int

    @property
    def away(self) -> bool: ...

    @property
    def merges(self) -> int: ...

    def append(self, entries: Sequence[Entry]) -> list[Chained]: ...

    def read(self, work: Callable[[Any], T]) -> T: ...


def catch_up(journal: Journal, state: TradingState) -> None:
    """Fold the entries that are in the ledger and not yet in the state."""
    with _collector_at_rest():
        entries = entries_after(journal, state.seq)
        for seq, entry in entries:
            state.take(seq, entry)
        if len(entries) > LONG:
            del entries, entry
            gc.freeze()  # the books stay: a later collection need not walk through them, in the middle of a decision


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """What a long ledger makes is kept. Looking in between for what is not costs a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def entries_after(journal: Journal, seq: int) -> Sequence[tuple[int, Entry]]:
    return list(journal.read(lambda connection: read_entries(connection, journal.account_id, seq)))


class Journaled:
    """A journal, and the state as of its last entry."""

    def __init__(self, journal: Journal, state: TradingState) -> None:
        self.journal, self.state = journal, state
        self.merges = journal.merges  # as of which the state was folded

    def append(self, entries: Sequence[Entry]) -> None:
        """Append, and fold all that is new: also what others appended in between."""
        written = self.journal.append(entries)
        if self._folds_anew():
            return
        if not self._provisional and (not written or written[0].seq != self.state.seq + 1):
            if self.catch_up() or not written:
                return
            self.merges = NEVER  # others wrote before: folded anew, with theirs, once the database is back
        for chained in written:
            entry = chained.entry._replace(body=json.loads(chained.text))
            self.state.take(self.state.seq + 1, entry)
            self.appended(entry)

    def appended(self, entry: Entry) -> None:
        """This process appended it, and it is folded."""

    def catch_up(self) -> bool:
        """Fold what others appended: an operator's command beside this process. While the database is out, nothing.

        Whether the state is as of the ledger's last entry.
        """
        try:
            entries = entries_after(self.journal, self.state.seq)
        except DatabaseUnavailable:
            if not self.journal.away:
                raise
            return False
        if self._provisional:  # the state's numbers are not the ledger's
            return self._folds_anew()
        for seq, entry in entries:
            self.state.take(seq, entry)
        return True

    @property
    def _provisional(self) -> bool:
        """Whether something is folded that was not in the ledger then."""
        return self.journal.away or self.journal.merges != self.merges

    def _folds_anew(self) -> bool:
        """After a merge, fold the ledger from its first entry. False where there was none, or the database is out again."""
        if self.journal.away or self.journal.merges == self.merges:
            return False
        fresh, merges = self.state.fresh(), self.journal.merges
        try:
            catch_up(self.journal, fresh)
        except DatabaseUnavailable:
            return False
        self.state, self.merges = fresh, merges
        return True
