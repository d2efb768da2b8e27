"""What the ledger was when it was last looked at, kept in a file outside the database.

It is the one witness of entries that were removed from the end together with all that follows from them, of a chain that
was written anew from its beginning, and of an account that is gone with everything it had: in the database nothing shows
any of these. What was there must still be there, unless the tables were made anew since and say which dump they are from.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from atb.ledger.accounts import COLUMNS, AccountRow
from atb.ledger.audit import Problem
from atb.ledger.connect import Where
from atb.ledger.entries import genesis

if TYPE_CHECKING:
    from psycopg import Connection

# A restored database has the name of the one before it, on the same server; its own number is another.
WHICH = "SELECT system_identifier::text, current_database() FROM pg_control_system()"
# Playing back a dump makes these anew, in whatever database; nothing else does.
TABLES = "(SELECT oid FROM pg_database WHERE datname = current_database()) || '/' || 'public.entries'::regclass::oid"
# From which dump the tables are. A later backup says so beside its own id; where other tables came with what it says, as in
# a plain dump, it is not believed.
STAMP = f"""SELECT {TABLES}, (SELECT CASE WHEN state = 'in_dump' THEN dump_id
WHEN restored_tables = {TABLES} THEN restored_from END FROM backup_stamp)"""
LOOK = f"""
SELECT coalesce((SELECT epoch FROM authority WHERE account_id = accounts.id), 0), seq, hash, old, {COLUMNS} FROM accounts
LEFT JOIN LATERAL (SELECT seq, hash FROM entries WHERE account_id = accounts.id ORDER BY seq DESC LIMIT 1) AS last ON true
LEFT JOIN unnest(%s::bigint[], %s::bigint[]) AS remembered (account, number) ON account = accounts.id
LEFT JOIN LATERAL (SELECT hash AS old FROM entries WHERE account_id = accounts.id AND seq = number) AS was ON true
"""


class Head(NamedTuple):
    """The end of an account's chain. Without entries it is number 0, with the hash that the first will stand on."""

    name: str
    seq: int
    hash: str
    epoch: int


class Memory(NamedTuple):
    """What a ledger was. tables: other ones than before after a restore. heads: by the account's number."""

    at: str
    tables: str
    heads: dict[int, Head]


NOTHING = Memory("", "", {})


class Look(NamedTuple):
    """What the ledger is, and what it was and is no more. dump: whence it was restored since, if it was."""

    now: Memory
    gone: list[Problem]
    dump: str | None


class Remembered:
    """The memory of one database. `notes` say what kept it from being read or written, which is never an error."""

    def __init__(self, connection: Connection[Any], where: Where, folder: Path) -> None:
        """Read it. The look comes after: what somebody else remembers meanwhile may be newer than what is seen here."""
        self.path = folder / f"ledger_{_which(connection, where)}.json"
        self.notes: list[str] = []
        self.before = self._read(self.notes)

    def look(self, connection: Connection[Any]) -> Look:
        """Compare the ledger with the memory, in the connection's transaction."""
        ((tables, dump),) = connection.execute(STAMP).fetchall()
        heads, gone = _look(connection, self.before)
        now = Memory(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC", tables, heads)
        return Look(now, gone, dump if tables != self.before.tables else None)

    def keep(self, now: Memory) -> None:
        """Remember `now`, unless somebody else has remembered something meanwhile: that is as good."""
        from atb.ledger.embedded.place import write_private

        if self._read([]) != self.before:
            return
        text = json.dumps(now._asdict())
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_private(self.path, f"{text}\n{_sum(text)}\n")
        except OSError as error:
            self.notes.append(f"What the ledger is now cannot be remembered in {self.path}: {error.strerror or error}.")

    def _read(self, notes: list[str]) -> Memory:
        try:
            text, _, rest = self.path.read_text().partition("\n")
        except FileNotFoundError:
            return NOTHING
        except UnicodeDecodeError:
            text, rest = "", ""
        except OSError as error:
            notes.append(f"What the ledger was cannot be read from {self.path}: {error.strerror or error}.")
            return NOTHING
        if rest != f"{_sum(text)}\n":
            notes.append(f"{self.path} is damaged: what the ledger was before is not known.")
            return NOTHING
        known = json.loads(text)
        return Memory(**known | {"heads": {int(number): Head(*head) for number, head in known["heads"].items()}})


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _which(connection: Connection[Any], where: Where) -> str:
    """What is the same for the same database, and for no other, as part of a file's name."""
    from urllib.parse import quote

    import psycopg

    try:
        with connection.transaction():
            ((system, name),) = connection.execute(WHICH).fetchall()
    except psycopg.errors.InsufficientPrivilege:  # somebody has taken it from the public
        return _sum(where.shown)[:16]
    return f"{system}_{quote(name, safe='')}"


def _look(connection: Connection[Any], before: Memory) -> tuple[dict[int, Head], list[Problem]]:
    """The ends of all chains, and what is not as it was."""
    known = before.heads
    rows = connection.execute(LOOK, (list(known), [head.seq for head in known.values()])).fetchall()
    heads, gone = {}, []
    for epoch, seq, last, old, *facts in rows:
        account = AccountRow(*facts)
        first = genesis(account)
        head = heads[account.id] = Head(account.name, seq or 0, (last or first).hex(), epoch)
        was = known.get(account.id)
        if was is not None:
            lost = [_lost_entries(was, head.seq, old if was.seq else first), _lost_epoch(was, epoch)]
            gone += [Problem(account.name, place, f"{text} {before.at}.") for place, text in filter(None, lost)]
    for was in (known[number] for number in known.keys() - heads.keys()):
        gone.append(Problem(was.name, "accounts", f"it is gone, with the {_entries(was.seq)} it had at {before.at}."))
    return heads, gone


def _lost_entries(was: Head, last: int, there: bytes | None) -> tuple[str, str] | None:
    """Place and words, up to the time. there: the hash of the entry that was the last; None where it is gone."""
    if there is None:
        lost = _entries(was.seq - last) if last < was.seq else f"entry {was.seq} and others"
        return "entries", f"{lost} gone: the last is number {last}; number {was.seq} was there at"
    if there.hex() == was.hash:
        return None
    if was.seq == 0:
        return "accounts", "the facts of the account, which has no entries, are not as they were at"
    return "entries", f"the chain was written anew: entry {was.seq} is not the one that was there at"


def _lost_epoch(was: Head, epoch: int) -> tuple[str, str] | None:
    return ("authority", f"epoch is {epoch}, but was {was.epoch} at") if epoch < was.epoch else None


def _entries(count: int) -> str:
    return f"{count:,} {'entry' if count == 1 else 'entries'}"
