"""A journal that writes nothing: what would be appended is folded, as the ledger would, on a copy of the books."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from atb.execution.journaled import Journal
from atb.ledger.entries import Chained, Entry, check, encode
from atb.ledger.fold import Account
from atb.ledger.replacing import with_replacements

T = TypeVar("T")


class NotingJournal:
    """A journal that remembers what went through it."""

    def __init__(self, journal: Journal) -> None:
        self.journal, self.account_id = journal, journal.account_id
        self.entries: list[Entry] = []

    @property
    def away(self) -> bool:
        return self.journal.away

    @property
    def merges(self) -> int:
        return self.journal.merges

    def append(self, entries: Sequence[Entry]) -> list[Chained]:
        written = self.journal.append(entries)
        self.entries += [chained.entry for chained in written]
        return written

    def read(self, work: Callable[[Any], T]) -> T:
        return self.journal.read(work)


class CopyJournal:
    """Reads the ledger as it is at the beginning, and writes into a copy of it. `entries`: what it would have written."""

    away, merges = False, 0

    def __init__(self, journal: Journal, books: Account, seq: int) -> None:
        self.journal, self.account_id = journal, journal.account_id
        self.books, self.seq = books, seq
        self.entries: list[Entry] = []

    def append(self, entries: Sequence[Entry]) -> list[Chained]:
        """As the ledger's own: an id is written once, and records by hand give way to what the exchange tells."""
        names = [entry.id for entry in entries]
        there = self.journal.read(lambda connection: _written(connection, self.account_id, names))
        there |= {entry.id for entry in self.entries}
        return [
            self._write(each) for entry in entries if entry.id not in there for each in self._replacing(check(entry))
        ]

    def read(self, work: Callable[[Any], T]) -> T:
        return self.journal.read(work)

    def _replacing(self, entry: Entry) -> Any:
        return with_replacements(self.books, entry, set(self.books.orders))

    def _write(self, entry: Entry) -> Chained:
        self.seq += 1
        text = encode(entry.body)
        self.books.apply(self.seq, entry._replace(body=json.loads(text)))
        self.entries.append(entry)
        return Chained(self.seq, 0, entry, text, datetime.now(UTC), b"", b"")


def _written(connection: Any, account_id: int, names: Sequence[str]) -> set[str]:
    rows = connection.execute(
        "SELECT id FROM entries WHERE account_id = %s AND id = ANY(%s)", (account_id, list(names))
    ).fetchall()
    return {row[0] for row in rows}
