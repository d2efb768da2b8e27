"""Append to the ledger: entries and the rows that follow from them in one transaction, fenced and idempotent.

Two round trips: one locks the account's authority and reads what the fold needs, one writes and commits. Whoever does not
know whether an append was committed (the connection broke) appends the same entries again: an id is written once.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import localcontext
from typing import TYPE_CHECKING, Any

from atb.core.errors import AtbError, DatabaseError, DatabaseUnavailable, Fenced, OutcomeUnknown, UsageError
from atb.ledger import projections as tables
from atb.ledger.before import Before, read_before
from atb.ledger.connect import may_pass
from atb.ledger.entries import Chained, Entry, link
from atb.ledger.fold import Account
from atb.ledger.records import EXACT
from atb.ledger.replacing import with_replacements

if TYPE_CHECKING:
    from psycopg import Connection, Error

Statements = list[tuple[str, Sequence[Any]]]

INSERT_ENTRY = (
    "INSERT INTO entries (account_id, seq, epoch, id, kind, at, session_id, body, recorded_at, prev_hash, hash) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)
CONTROL = "UPDATE authority SET halted = coalesce(%s, halted), halt_reason = %s WHERE account_id = %s"
_FENCED = "Account {} is at epoch {}, this process has {}: another has authority over it."


def append(connection: Connection[Any], account_id: int, epoch: int, entries: Sequence[Entry]) -> list[Chained]:
    """Write those of `entries` that are not there yet, and commit. Returns what was written.

    Fenced if something is to be written and the account's epoch is not `epoch` any more: then nothing is. A UsageError
    for an entry that contradicts the account, or what was written under its id: then none of them is written.
    """
    import psycopg

    assert not connection.autocommit, "the lock on the account's authority must last until the commit"
    try:
        before = read_before(connection, account_id, entries)
        if before.missing and before.epoch != epoch:
            raise Fenced(_FENCED.format(account_id, before.epoch, epoch))
        written = _chain(account_id, epoch, before)
        _write(connection, [statement for _, statements in written for statement in statements])
    except (ValueError, ArithmeticError) as error:
        _abandon(connection)
        raise UsageError(f"The ledger of account {account_id} refuses an entry: {error}") from None
    except psycopg.Error as error:
        _abandon(connection)
        raise _explained(error, account_id) from error
    except BaseException:
        _abandon(connection)
        raise
    return [chained for chained, _ in written]


def _abandon(connection: Connection[Any]) -> None:
    import psycopg

    with contextlib.suppress(psycopg.Error):
        connection.rollback()


def _explained(error: Error, account_id: int) -> AtbError:
    """What an error of the database means for the append: whether something was written, and what to do."""
    from psycopg import DataError

    state, where = error.sqlstate or "", f"the ledger of account {account_id}"
    constraint, first = error.diag.constraint_name or "", (str(error).strip() or "no reason given").splitlines()[0]
    if constraint == "fills_account_id_key":
        return UsageError(
            f"One trade of the exchange under two ids: {where} has it already. {error.diag.message_detail}"
        )
    if state == "23505":
        return DatabaseError(
            f"The tables of account {account_id} are not those of its entries: {first}", "atb db verify"
        )
    if state[:2] in ("22", "23") or isinstance(error, DataError):
        return UsageError(f"{where.capitalize()} refuses an entry: {first}")
    # A server that panics says why (a disk that is full, say), and not whether the commit had arrived by then.
    if not state or state.startswith(("08", "57P")) or error.diag.severity_nonlocalized in ("FATAL", "PANIC"):
        return OutcomeUnknown(
            f"The connection broke while {where} was written ({first}): whether it was is not known.",
            "Append the same entries again: an id is written once.",
        )
    if state == "53100":
        return DatabaseUnavailable(
            f"Nothing was written to {where}: the disk of the database is full ({first}).",
            "Make room on it, then do the same again.",
        )
    kind = DatabaseUnavailable if may_pass(state) else DatabaseError
    return kind(f"Nothing was written to {where}: {first}", "See the server's log, then try again.")


def _chain(account_id: int, epoch: int, before: Before) -> list[tuple[Chained, Statements]]:
    """The entries at their places in the chain, each with the statements that write it and what follows from it."""
    head, state = before.head, before.state
    assets, prices = dict(state.assets), dict(state.prices)
    now = datetime.now(UTC)
    written: list[tuple[Chained, Statements]] = []
    with localcontext(EXACT):
        for entry in before.missing:
            for each in with_replacements(state, entry, before.ours):
                chained = link(head[0] + 1, epoch, each, head[1], now)
                written.append((chained, _statements(account_id, chained, state)))
                head = chained.seq, chained.hash
        state.finish()
    if written:
        last = written[-1][1]
        last.append((tables.upsert(tables.STATE), tables.state_row(account_id, head[0], head[1], state)))
        last += [
            (tables.upsert(tables.ASSETS), (account_id, asset, qty))
            for asset, qty in sorted(state.assets.items()) if assets.get(asset) != qty
        ]  # fmt: skip
        last += [
            (tables.upsert(tables.PRICES), (account_id, *key, price))
            for key, price in sorted(state.prices.items()) if prices.get(key) != price
        ]  # fmt: skip
    return written


def _statements(account_id: int, chained: Chained, state: Account) -> Statements:
    """Fold one entry in; the statements that write it and the rows that it touched."""
    seq, epoch, entry, text, *rest = chained
    values = (account_id, seq, epoch, entry.id, entry.kind, entry.at, entry.session_id, text, *rest)
    out: Statements = [(INSERT_ENTRY, values)]
    read = entry._replace(body=json.loads(text))  # what every later fold will see
    touched = state.apply(seq, read)
    for key in touched.refolded:
        for table in (tables.POSITIONS, tables.TRADES):
            where = "account_id = %s AND market = %s AND symbol = %s"
            out.append((f"DELETE FROM {table.name} WHERE {where}", (account_id, *key)))
    out += [(tables.upsert(t), row) for t, row in tables.touched_rows(account_id, seq, read, state, touched)]
    if entry.kind == "control":
        halted = {"halt": True, "resume": False}.get(entry.body["action"])
        out.append((CONTROL, (halted, state.halted, account_id)))
    return out


def _write(connection: Connection[Any], statements: Statements) -> None:
    with connection.pipeline():
        for query, values in statements:
            connection.execute(query, values)
        connection.commit()
