"""A journal that goes on while the database is out: what happened goes into a local spool, and into the ledger later.

Out is a database that does not answer, and as well one that answers and does not take what is written, or takes longer than
the exchange waits for an order: whatever is the matter with it, stops and exits must not wait for that. What may not pass by
itself is told as critical.

Everything may be spooled but the intent of an entry: while nobody can be asked whether the account is halted or fenced,
nothing is opened. What is spooled counts at once, with provisional numbers; once it is merged, others may have written
between, so whoever folded it folds anew (`merges` tells).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from atb.core.errors import DatabaseError, DatabaseUnavailable, Fenced
from atb.execution.fills import Event
from atb.execution.journaled import PROVISIONAL, Journal
from atb.execution.spool import Spool
from atb.ledger.entries import Chained, Entry, check, encode
from atb.ledger.lease import read_standing

T = TypeVar("T")
RETRY_S = 2.0
PATIENCE_S = 2.0  # of the journal beneath: a stop must not wait for a database
SLOW_S = 2.0  # from an order's intent, committed first, the exchange takes it for so long (executor.WINDOW_MS)
SLOW = 0.5  # of that: what is left after it is hardly enough for the way to the exchange
REMEMBERED = 10_000  # ids of the newest entries: the same entry may come twice


class SpoolingJournal:
    """One account's journal, over another one with little patience. `tell` hears when the database goes and comes. slow_s: a
    commit that takes so long leaves no time to send an order."""

    def __init__(
        self,
        journal: Journal,
        spool: Spool,
        tell: Callable[[Event], None] = lambda _: None,
        *,
        retry_s: float = RETRY_S,
        slow_s: float = SLOW_S,
    ) -> None:
        self.journal, self.spool, self.tell, self.retry_s, self.slow_s = journal, spool, tell, retry_s, slow_s
        self.account_id = journal.account_id
        self.away = False
        self.merges = 0
        self._why = DatabaseUnavailable("")
        self._is_slow = False  # its last commit was
        self._severity = ""  # with which it was told that the database is out
        self._next_s = 0.0  # when the database is asked again
        self._order: deque[str] = deque()
        self._ids: set[str] = set()

    def append(self, entries: Sequence[Entry]) -> list[Chained]:
        """Write to the ledger, or to the spool. Returns what is new, with PROVISIONAL numbers where it was spooled."""
        if self._may_ask():
            began_s = time.monotonic()
            try:
                self.merge()
                asked_s = time.monotonic()
                written = self.journal.append(entries)
                self._note(entries)
                self._judge(time.monotonic() - asked_s)
                if self.away:
                    self._check_authority(written)
                return written
            except DatabaseError as error:
                self._went(error, began_s)
        return self._spooled(entries)

    def read(self, work: Callable[[Any], T]) -> T:
        """As the journal reads, after what is spooled is merged. DatabaseUnavailable while it is away."""
        return self.ask(lambda: self.journal.read(work))

    def ask(self, question: Callable[[], T]) -> T:
        """As `read`, for whatever else is wanted of the database."""
        if not self._may_ask():
            raise self._why
        began_s = time.monotonic()
        try:
            self.merge()
            found = question()
        except DatabaseError as error:
            self._went(error, began_s)
            raise self._why from None
        self._came()
        return found

    def merge(self) -> None:
        """Bring what is spooled into the ledger: what this process could not write, or another one before it."""
        if not self.spool.waits:
            return
        merged = self.spool.merge(self.journal.append)
        self.merges += 1
        self.tell(Event("info", "spool_merged", f"Merged from the spool: {merged.entries}"))
        for refused in merged.refused:
            what = f"The ledger refuses {refused.entry_id} of the spool ({refused.why}). It is in {self.spool.refused_path}."
            self.tell(Event("error", "spool_refused", what))

    def _may_ask(self) -> bool:
        return not self.away or time.monotonic() >= self._next_s

    def _spooled(self, entries: Sequence[Entry]) -> list[Chained]:
        if any(_enters(entry) for entry in entries):
            raise DatabaseUnavailable(f"No entry is made while the database is out. {self._why.what}", self._why.hint)
        new = [check(entry) for entry in entries if entry.id not in self._ids]
        if new:
            self._write(new)
            self._note(new)
        now = datetime.now(UTC)
        return [Chained(PROVISIONAL, 0, entry, encode(entry.body), now, b"", b"") for entry in new]

    def _write(self, entries: Sequence[Entry]) -> None:
        try:
            self.spool.write(entries)
        except DatabaseUnavailable as error:
            self.tell(Event("critical", "spool_failed", error.what))
            raise

    def _went(self, error: DatabaseError, began_s: float) -> None:
        """Asked again later, and the later the longer it took to learn that nobody answers."""
        severity = "error" if isinstance(error, DatabaseUnavailable) else "critical"
        if severity != self._severity:
            what = (
                f"The database is out: exits and stops go through {self.spool.path}, nothing is entered. {error.what}"
            )
            self.tell(Event(severity, "database_out", what))
        self.away, self._severity, self._why = True, severity, DatabaseUnavailable(error.what, error.hint)
        now_s = time.monotonic()
        self._next_s = now_s + max(self.retry_s, 3 * (now_s - began_s) if self.retry_s else 0.0)

    def _judge(self, took_s: float) -> None:
        """One that takes what is written more slowly than an order may wait is as good as out; once may be an accident."""
        was_slow, self._is_slow = self._is_slow, took_s >= SLOW * self.slow_s
        if took_s < self.slow_s and not (was_slow and self._is_slow):
            self._came()
            return
        self.merges += 1  # others may have written before it: while it is out, nobody can look
        what = f"It needed {took_s:.1f} s for a commit, longer than an order may wait for."
        self._went(DatabaseUnavailable(what), time.monotonic() - took_s)

    def _check_authority(self, written: Sequence[Chained]) -> None:
        """Whoever was taken over while he waited spools nothing: Fenced."""
        try:
            epoch = self.journal.read(lambda connection: read_standing(connection, self.account_id)).epoch
        except DatabaseError:
            return  # it is out, and known to be
        if written and epoch != written[0].epoch:
            raise Fenced(f"Account {self.account_id} is at epoch {epoch}: another has authority over it.")

    def _came(self) -> None:
        if self.away:
            self.tell(Event("warning", "database_back", "The database is back: all is in the ledger."))
        self.away, self._severity = False, ""

    def _note(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.id not in self._ids:
                self._ids.add(entry.id)
                self._order.append(entry.id)
        while len(self._order) > REMEMBERED:
            self._ids.discard(self._order.popleft())


def _enters(entry: Entry) -> bool:
    """An intent that would open something; one that was adopted was sent long ago."""
    return entry.kind == "intent" and entry.body.get("purpose", "entry") == "entry" and not entry.body.get("adopted")
