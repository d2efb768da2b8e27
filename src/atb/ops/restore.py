"""Restore a dump: beside the live database first, checked there, and then both change names in one transaction.

Until that transaction commits, the live database is untouched, whatever is killed; after it, the restored one is live and
the old one is kept under another name. There is no moment between: Postgres renames both or none.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from atb.core.errors import DatabaseError, Fenced
from atb.ledger.connect import Where, connect, explained
from atb.ledger.lease import STANDING, Standing
from atb.ledger.migrate import check_schema
from atb.ops.backup_verify import restored
from atb.ops.beside import Beside, database_name, lock, maintenance
from atb.ops.dump_file import Checked, check_dump

if TYPE_CHECKING:
    from psycopg import Connection

Migrate = Callable[[Where], object]
ATTEMPTS = 5
LONGEST = 63 - len("_restore_20251121_020000_123456")  # a name of Postgres has 63 bytes
FENCE = (
    "UPDATE authority SET epoch = GREATEST(epoch + 1, EXTRACT(epoch FROM now())::bigint), holder = %s, "
    "heartbeat_at = NULL, expires_at = NULL"
)
HOLDERS = f"SELECT a.name, {STANDING} FROM authority u JOIN accounts a ON a.id = u.account_id ORDER BY a.name"


class Restored(NamedTuple):
    """What was done. kept: the name under which the former database was kept; None when there was none."""

    path: Path
    database: str
    dump_id: str | None
    made_at: str | None
    entries: int
    fills: int
    kept: str | None
    notes: list[str]


def restore(
    where: Where, environment: Mapping[str, str], path: Path, migrate: Migrate, *, force: bool = False
) -> Restored:
    """Put a dump in the place of the database. Refuses while a session is alive; a failure changes nothing.

    `force`: go on where nobody can tell whether one is alive.
    """
    dump = check_dump(path)
    database = database_name(where)
    if len(os.fsencode(database)) > LONGEST:
        raise DatabaseError(f"The name {database} is too long to make another beside it.", _psql_line(where, path))
    with maintenance(where) as server:
        _may_create(server, where, path)
        if not lock(server, f"restore {database}"):
            raise DatabaseError(f"Another restore of {database} runs: nothing was done.", "Wait until it has ended.")
        notes = refuse_if_alive(server, where, force=force)
        with restored(dump, where, environment, migrate, f"{database}_restore_") as (beside, report, left_out):
            _finish(dump, beside, where)
            refuse_if_alive(server, where, force=force)
            kept = _swap(server, beside.name, database)
    with connect(where) as connection:
        check_schema(connection, where)
    known = dump.manifest
    return Restored(
        path, where.shown, known and known.dump_id, known and known.made_at, report.entries, report.fills, kept,
        notes + left_out,
    )  # fmt: skip


def _may_create(server: Connection[Any], where: Where, path: Path) -> None:
    row = server.execute("SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    if row is None or not row[0]:
        raise DatabaseError(
            f"The user of {where.shown} may not create a database beside it, where a dump is checked before it is used.",
            f"Give it the right (ALTER ROLE ... CREATEDB). {_psql_line(where, path)}",
        )


def _psql_line(where: Where, path: Path) -> str:
    reader = "gunzip -c" if path.name.endswith(".gz") else "cat"
    return f"Or restore into it without a check: {reader} {path} | atb db psql -1 -v ON_ERROR_STOP=1"


def refuse_if_alive(server: Connection[Any], where: Where, *, force: bool = False) -> list[str]:
    """A Fenced error if anybody trades on the database, a DatabaseError if that cannot be asked: with `force` a note."""
    import psycopg

    database = database_name(where)
    live = server.execute(
        "SELECT application_name, pid FROM pg_stat_activity WHERE datname = %s AND application_name LIKE 'atb live%%'",
        (database,),
    ).fetchone()
    if live is not None:
        raise _alive(f"'{live[0]}' is connected to {where.shown} (server process {live[1]})")
    if not server.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone():
        return []
    try:
        with connect(where) as connection:
            holders = connection.execute(HOLDERS).fetchall()
    except psycopg.errors.UndefinedTable:
        return []  # without tables nobody trades on it
    except (psycopg.Error, DatabaseError) as error:
        reason = error.what if isinstance(error, DatabaseError) else explained(error, where).what
        if force:
            return [f"Skipped (--force): whether a session is alive could not be asked. {reason}"]
        raise DatabaseError(
            f"Nothing was changed: whether a session is alive could not be asked. {reason}",
            "Where you know that none is (pgrep -f 'atb live', on every host), skip that question: --force",
        ) from None
    for account, *row in holders:
        standing = Standing(*row)
        if not standing.why_free:
            raise _alive(f"{standing.shown} holds account {account}")
    return []


def _alive(who: str) -> Fenced:
    return Fenced(
        f"A session is alive: {who}. Nothing was changed.",
        "Stop it first (atb live stop); one that was killed on another host counts as dead when its lease has run out.",
    )


def _finish(dump: Checked, beside: Beside, where: Where) -> None:
    """Fence whoever wrote when the dump was made, and say in the database where it comes from."""
    name = f"restored from {dump.path.name}"
    with connect(beside.where) as connection:
        connection.execute(FENCE, (name,))
        if dump.manifest is None:
            connection.execute("DELETE FROM backup_stamp")
            connection.execute(
                "INSERT INTO backup_stamp (dump_id, made_at, state) VALUES (%s, %s, 'in_dump')",
                (dump.path.name, datetime.fromtimestamp(dump.path.stat().st_mtime, UTC)),
            )
        connection.execute(
            "INSERT INTO events (severity, component, code, message) VALUES ('warning', 'restore', 'restored', %s)",
            (f"This database was {name}.",),
        )
    _keep_statistics(beside, where)


def _keep_statistics(beside: Beside, where: Where) -> None:
    """pg_stat_statements, if the old database had it: dumps leave it out, since making it takes a superuser."""
    import psycopg

    try:
        with connect(where) as old, connect(beside.where) as new:
            if old.execute("SELECT 1 FROM pg_extension WHERE extname = 'pg_stat_statements'").fetchone():
                new.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    except (psycopg.Error, DatabaseError):
        return  # statistics; the restore does not depend on them


def _free_name(server: Connection[Any], wanted: str) -> str:
    """`wanted`, or with a number where a database of that name is there (two restores in one second)."""
    taken = {row[0] for row in server.execute("SELECT datname FROM pg_database")}
    names = itertools.chain([wanted], (f"{wanted}_{number}" for number in itertools.count(2)))
    return next(name for name in names if name not in taken)


def _swap(server: Connection[Any], new: str, database: str) -> str | None:
    """Rename the old database away and the new one into its place, in one transaction."""
    import psycopg
    from psycopg import sql

    kept = _free_name(server, f"{database}_before_{datetime.now(UTC):%Y%m%d_%H%M%S}")
    there = server.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone()
    rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    for _ in range(ATTEMPTS):
        server.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = ANY(%s)", ([database, new],)
        )
        try:
            with server.transaction():
                if there:
                    server.execute(rename.format(sql.Identifier(database), sql.Identifier(kept)))
                server.execute(rename.format(sql.Identifier(new), sql.Identifier(database)))
            return kept if there else None
        except psycopg.errors.ObjectInUse:  # somebody connected again
            continue
    raise DatabaseError(
        f"Other programs keep connecting to {database}: it could not be renamed. Nothing was changed.",
        'Stop them (atb db query "SELECT application_name, pid FROM pg_stat_activity"), then restore again.',
    )
