"""A journal that writes nothing: what would be appended is folded, as the ledger would, on a copy of the books."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
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
    """Writes into a copy of the ledger, as of `chain`. `entries`: what it would have written."""

    away, merges = False, 0

    def __init__(self, journal: Journal, quote: str, chain: Sequence[Chained]) -> None:
        self.journal, self.account_id = journal, journal.account_id
        self.books, self.seq = Account(quote), len(chain)
        self.books.apply_all((link.seq, link.entry) for link in chain)
        self.known = {link.entry.id for link in chain}
        self.entries: list[Entry] = []

    def append(self, entries: Sequence[Entry]) -> list[Chained]:
        """As the ledger's own: an id is written once, and records by hand give way to what the exchange tells."""
        new = [check(entry) for entry in entries if entry.id not in self.known]
        return [self._write(each) for entry in new for each in self._replacing(entry)]

    def read(self, work: Callable[[Any], T]) -> T:
        return self.journal.read(work)

    def _replacing(self, entry: Entry) -> Iterator[Entry]:
        return with_replacements(self.books, entry, set(self.books.orders))

    def _write(self, entry: Entry) -> Chained:
        self.seq += 1
        text = encode(entry.body)
        self.books.apply(self.seq, entry._replace(body=json.loads(text)))
        self.known.add(entry.id)
        self.entries.append(entry)
        return Chained(self.seq, 0, entry, text, datetime.now(UTC), b"", b"")
