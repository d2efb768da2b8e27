"""Make a backup: one consistent dump, checked before it gets its name, and only then are old ones removed.

The live database is only read: what makes a restored database recognisable is written into the dump's text, so that a
backup that is killed leaves nothing behind in the database. When the dump is good, one row tells its id (backup_stamp).
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from atb.core.errors import AtbError, DatabaseError, UsageError
from atb.core.local_files import sync_folder
from atb.ledger.connect import Where, connect, explained, without_password
from atb.ledger.embedded import tool
from atb.ledger.version import REVISION, revision_of
from atb.ops.backup_folder import PARTIAL, alone, explained_folder, free_name, log, remove_old
from atb.ops.beside import contents, heads, tool_options
from atb.ops.dump_file import DumpWriter, Manifest, check_dump
from atb.ops.remembered import TABLES, Look, Remembered

if TYPE_CHECKING:
    from psycopg import Connection

CHUNK = 1 << 18
TIMEOUT_S = 3600
OPTIONS = (
    "--clean", "--if-exists", "--no-owner", "--encoding=UTF8", "--lock-wait-timeout=60000",
    "--exclude-table-data=public.backup_stamp", "--exclude-extension=pg_stat_statements",
)  # fmt: skip
# Played back with the dump: a higher epoch for every account, so that an engine that still runs then is fenced.
FENCE_SQL = """\
UPDATE public.authority SET epoch = GREATEST(epoch + 1, EXTRACT(epoch FROM now())::bigint),
    holder = 'restored from dump {id}', heartbeat_at = NULL, expires_at = NULL;
"""
SAY_WRITTEN = (
    "INSERT INTO backup_stamp (one, dump_id, made_at, state) VALUES (true, %s, %s, 'in_database') "
    "ON CONFLICT (one) DO UPDATE SET dump_id = excluded.dump_id, made_at = excluded.made_at, state = excluded.state"
)
# Whoever remembers what was there before a restore, on another machine say, must still learn of it.
KEEP_SOURCE = (
    ", restored_from = CASE backup_stamp.state WHEN 'in_dump' THEN backup_stamp.dump_id ELSE backup_stamp.restored_from END"
    f", restored_tables = CASE backup_stamp.state WHEN 'in_dump' THEN {TABLES} ELSE backup_stamp.restored_tables END"
)


class Backup(NamedTuple):
    """A backup that was made. removed: older ones that were deleted. notes: what is odd, but no failure."""

    path: Path
    dump_id: str
    made_at: str
    size_bytes: int
    rows: int
    removed: list[str]
    notes: list[str]


def back_up(find: Callable[[], tuple[Where, Mapping[str, str]]], folder: Path, keep_days: int, home: Path) -> Backup:
    """Dump the database into `folder`. Whatever fails, the older backups stay; backup.log tells either way.

    `find` gives the database and the environment for its programs; that there is none is a failure to be logged, too.
    `home`: where it is remembered what the ledger is.
    """
    if keep_days < 1:
        raise UsageError(f"--keep-days {keep_days} would keep nothing.", "Keep at least 1 day.")
    now = datetime.now(UTC)
    with explained_folder(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with alone(folder):
                where, environment = find()
                done = _back_up(where, environment, folder, keep_days, home, now)
        except BaseException as error:
            reason = error.what if isinstance(error, AtbError) else str(error) or type(error).__name__
            with suppress(OSError):  # the disk may be full: the error itself is what matters
                log(folder, now, f"Backup FAILED: {' '.join(reason.split())}")
            raise
        size = f"{done.size_bytes / 1e6:.1f} MB" if done.size_bytes >= 100_000 else f"{done.size_bytes / 1e3:.1f} kB"
        log(folder, now, f"Backup completed, {size}, {done.rows} rows, dump id {done.dump_id}, {done.path.name}")
    return done


def _back_up(
    where: Where, environment: Mapping[str, str], folder: Path, keep_days: int, home: Path, now: datetime
) -> Backup:
    for leftover in folder.glob(f".backup_*{PARTIAL}"):  # of a killed run: we hold the lock
        leftover.unlink()
    name = free_name(folder, now)
    partial = folder / f".{name}{PARTIAL}"
    try:
        manifest, remember = _write_dump(where, environment, partial, home)
        checked = check_dump(partial)
        assert checked.manifest == manifest
        path = folder / name
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(folder)
    notes = _say_written(where, manifest) + remember()
    removed = remove_old(folder, keep_days, now, path)
    rows = sum(count for count, _ in manifest.tables.values())
    return Backup(path, manifest.dump_id, manifest.made_at, path.stat().st_size, rows, removed, notes)


def _write_dump(
    where: Where, environment: Mapping[str, str], path: Path, home: Path
) -> tuple[Manifest, Callable[[], list[str]]]:
    """One snapshot serves the dump, the manifest and what is remembered, so that they tell of the same moment.

    Returns the manifest, and what remembers that moment and gives notes.
    """
    import psycopg

    try:
        with connect(where, statement_timeout_s=TIMEOUT_S) as connection:
            memory = Remembered(connection, where, home)
            snapshot = _begin_snapshot(connection)
            manifest = _look(connection, where)
            seen = memory.look(connection) if manifest.revision == REVISION else None
            with path.open("xb") as file:
                os.fchmod(file.fileno(), 0o600)
                _dump_into(file, where, environment, snapshot, manifest)
                file.flush()
                os.fsync(file.fileno())
            connection.rollback()
    except psycopg.Error as error:
        raise explained(error, where) from None
    return manifest, lambda: [] if seen is None else _remember(memory, seen)


def _remember(memory: Remembered, seen: Look) -> list[str]:
    """Remember what was dumped, unless part of the ledger is gone: `atb db verify` must still find that."""
    if seen.gone and seen.dump is None:
        memory.notes.append(f"The ledger is not what it was: {seen.gone[0].said} See: atb db verify")
    else:
        memory.keep(seen.now)
        memory.notes += [f"The ledger goes back to dump {seen.dump}: {problem.said}" for problem in seen.gone]
    return memory.notes


def _begin_snapshot(connection: Connection[Any]) -> str:
    """Begin a transaction that only reads and does not time out while pg_dump works, and name its snapshot."""
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    connection.execute(
        "SELECT set_config(name, '0', false) FROM pg_settings "
        "WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')"
    )
    row = connection.execute("SELECT pg_export_snapshot()").fetchone()
    assert row is not None
    return str(row[0])


def _look(connection: Connection[Any], where: Where) -> Manifest:
    revision = revision_of(connection)
    if revision is None:
        raise DatabaseError(f"{where.shown} has no tables of atb: there is nothing to back up.", "See: atb db status")
    row = connection.execute("SELECT now()").fetchone()
    assert row is not None
    made_at = row[0].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    server = str(connection.info.parameter_status("server_version"))
    return Manifest(str(uuid.uuid4()), made_at, revision, server, contents(connection), heads(connection))


def _dump_into(
    file: IO[bytes], where: Where, environment: Mapping[str, str], snapshot: str, manifest: Manifest
) -> None:
    conninfo, env = tool_options(where, environment)
    argv = [str(tool("pg_dump")), *OPTIONS, f"--snapshot={snapshot}", f"--dbname={conninfo}"]
    writer = DumpWriter(file)
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said)
        try:
            assert process.stdout is not None
            with process.stdout as pipe:
                while chunk := pipe.read(CHUNK):
                    writer.write(chunk)
            process.wait()
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        text = without_password(said.read(10_000).decode(errors="replace"), where).strip()
    whole = process.returncode == 0 and writer.finish(FENCE_SQL.format(id=manifest.dump_id), manifest)
    if not whole:
        raise _failed(where, text or f"it ended with {process.returncode}")


def _failed(where: Where, text: str) -> DatabaseError:
    line = next((line for line in text.splitlines() if "error:" in line), text.splitlines()[0])
    if "version mismatch" in text:
        return DatabaseError(f"The server at {where.shown} is newer than atb's pg_dump.", "Upgrade atb.")
    return DatabaseError(
        f"pg_dump failed on {where.shown}: {line.removeprefix('pg_dump: error: ')}.", "See the server's log."
    )


def _say_written(where: Where, manifest: Manifest) -> list[str]:
    """Tell in the database that it is in a dump now. The dump is good without it, so a failure is a note."""
    import psycopg

    statement = SAY_WRITTEN + (KEEP_SOURCE if manifest.revision == REVISION else "")
    try:
        with connect(where) as connection:
            connection.execute(statement, (manifest.dump_id, manifest.made_at))
    except (AtbError, psycopg.Error) as error:
        return [f"The dump is good, but the database could not be told its id: {str(error).splitlines()[0]}"]
    return []
