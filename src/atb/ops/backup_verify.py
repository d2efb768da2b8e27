"""Is a dump good? Restored into a scratch database, audited, and compared with what it was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from atb.core.errors import AtbError, DatabaseError, DataError, Disagreement
from atb.ledger.accounts import AccountRow, all_accounts
from atb.ledger.audit import broken_links, read_chain
from atb.ledger.connect import Where, connect, explained
from atb.ledger.version import REVISION, order_of, revision_of
from atb.ops.backup_folder import backups_in
from atb.ops.beside import Beside, contents, heads, load, new_database
from atb.ops.dump_file import OLDER, Checked, Manifest, check_dump
from atb.ops.verify import Report, verify_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

Say = Callable[[str], None]
Migrate = Callable[[Where], object]
SCRATCH = "atb_scratch_"


class Verified(NamedTuple):
    """A good dump. live: how the live database compares. notes: what could not be played back, and does no harm."""

    path: Path
    dump_id: str | None
    made_at: str | None
    tables: int
    rows: int
    entries: int
    fills: int
    live: list[str]
    notes: list[str]


def newest_backup(folder: Path) -> Path:
    found = backups_in(folder)
    if not found:
        raise DataError(f"There is no backup in {folder.absolute()}.", f"Make one: atb db backup --dir {folder}")
    return found[-1]


def verify_dump(where: Where, environment: Mapping[str, str], path: Path, migrate: Migrate) -> Verified:
    """Restore a dump into a scratch database and check it. A DataError when the dump is at fault."""
    dump = check_dump(path)
    with restored(dump, where, environment, migrate, SCRATCH) as (beside, report, notes):
        with connect(beside.where) as connection:
            counted = contents(connection)
        live = _compare_with_live(where, beside)
        rows = sum(count for count, _ in counted.values())
    known = dump.manifest
    return Verified(
        path, known and known.dump_id, known and known.made_at, len(counted), rows, report.entries, report.fills, live,
        notes,
    )  # fmt: skip


@contextmanager
def restored(
    dump: Checked, where: Where, environment: Mapping[str, str], migrate: Migrate, prefix: str
) -> Iterator[tuple[Beside, Report, list[str]]]:
    """A database beside the live one, filled from the dump, of this atb's schema, and audited."""
    if dump.manifest is not None:
        _refuse_newer(dump.path, dump.manifest.revision)
    with new_database(where, prefix) as beside:
        notes = load(dump, beside.where, environment)
        _check_contents(dump, beside)
        migrate(beside.where)
        report = verify_database(beside.where, lambda good, text: None)
        if report.error is not None:
            raise _fault_of_dump(dump, report.error)
        yield beside, report, notes


def _refuse_newer(path: Path, revision: str | None) -> None:
    if revision is None:
        raise DataError(f"{path} holds no tables of atb.", OLDER)
    if order_of(revision) > order_of(REVISION):
        raise DatabaseError(
            f"{path} is of schema {revision}, newer than this atb ({REVISION}).", "Restore it with the newer atb."
        )


def _check_contents(dump: Checked, beside: Beside) -> None:
    """Compare with what the dump says about itself, before a migration changes any of it."""
    with connect(beside.where, statement_timeout_s=3600) as connection:
        _refuse_newer(dump.path, revision_of(connection))
        if dump.manifest is not None:
            wrong = differences(connection, dump.manifest)
            if wrong:
                raise DataError(f"{dump.path} does not restore what was dumped: {wrong[0]}", OLDER)


def differences(connection: Connection[Any], manifest: Manifest) -> list[str]:
    """What in a restored database is not as it was in the dumped one."""
    there, out = contents(connection), []
    for name, (rows, total) in manifest.tables.items():
        found = there.get(name)
        if name == "public.backup_stamp":
            continue  # it was left out, and the dump's own put in
        if found is None or found[0] != rows:
            out.append(f"{name} has {found[0] if found else 'no'} rows; {rows} were dumped.")
        elif total is not None and found[1] != total:
            out.append(f"{name} has other contents than were dumped.")
    there_heads = heads(connection)
    for account, head in manifest.heads.items():
        if there_heads.get(account) != head:
            out.append(f"the chain of {account} does not end with entry {head[0]} as it was dumped.")
    return out


def _fault_of_dump(dump: Checked, error: AtbError) -> AtbError:
    if isinstance(error, Disagreement):
        return DataError(f"The ledger in {dump.path} is not whole. {error.what}", OLDER)
    return error


def _compare_with_live(where: Where, beside: Beside) -> list[str]:
    """Find each dumped head in the live chain: the live database has it, and may have moved on."""
    import psycopg

    with connect(beside.where) as copy:
        dumped, ours = heads(copy), {account.name: account for account in all_accounts(copy)}
    lines = []
    try:
        with connect(where, statement_timeout_s=600) as live:
            there = {account.id: account for account in all_accounts(live)}
            for name, (seq, digest) in dumped.items():
                lines.append(_compare_account(live, where, there.get(ours[name].id, ours[name]), seq, digest))
    except psycopg.Error as error:
        return [f"The live database cannot be compared, it may be the damaged one: {explained(error, where)}"]
    except DatabaseError as error:
        return [f"The live database cannot be compared: {error.what}"]
    return lines


def _compare_account(live: Connection[Any], where: Where, account: AccountRow, seq: int, digest: str) -> str:
    chain = read_chain(live, account.id)
    broken = next(broken_links(chain, account), None)
    if broken is not None:
        return f"{account.name}: the dump is good, THE LIVE DATABASE IS DAMAGED: {broken}"
    found = chain[seq - 1].hash.hex() if seq <= len(chain) else None
    if found == digest:
        return f"{account.name}: entry {seq} is in the live chain, which has {len(chain) - seq} more."
    raise Disagreement(
        f"The dump is whole, but {where.shown} has {'another' if found else 'no'} entry {seq} of {account.name}, "
        "in a chain that is whole.",
        "It is the dump of another database, the live one was restored from an older dump, or its newest entries are lost.",
    )
