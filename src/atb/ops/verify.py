"""Is the database usable, and does it tell the truth? In steps, each said as it is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atb.core.errors import AtbError, DatabaseError, DatabaseUnavailable, Disagreement
from atb.ledger.accounts import all_accounts
from atb.ledger.audit import Problem, audit, audit_common
from atb.ledger.connect import Where
from atb.ledger.migrate import check_schema, schema_differences
from atb.ledger.reading import reading
from atb.ledger.version import revision_of
from atb.ops.remembered import Look, Remembered

if TYPE_CHECKING:
    from psycopg import Connection

Say = Callable[[bool, str], None]
SHOWN = 20
TIMEOUT_S = 600


@dataclass
class Report:
    """What was found; `error` is what a failed step means for the exit code.

    compared_with: the time of the last look, with which this one was compared. went_back: what is gone since, with reason.
    """

    database: str = ""
    schema: str | None = None
    entries: int = 0
    fills: int = 0
    accounts: int = 0
    problems: list[str] = field(default_factory=list)
    restored: str | None = None
    compared_with: str | None = None
    went_back: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: AtbError | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": self.error is None, "database": self.database, "schema": self.schema, "entries": self.entries,
            "fills": self.fills, "accounts": self.accounts, "problems": self.problems, "restored": self.restored,
            "compared_with": self.compared_with, "went_back": self.went_back, "notes": self.notes,
            "error": None if self.error is None else self.error.what,
        }  # fmt: skip


def verify_database(
    where: Where, say: Say, folder: Path | None = None, *, anew: bool = False,
    on_again: Callable[[str], None] = lambda _: None,
) -> Report:  # fmt: skip
    """All checks in order; the first that fails ends them.

    folder: where it is remembered what the ledger was; None: this database is only a copy. anew: what is gone may be.
    When the connection breaks they begin anew (see `reading`); what was said by then is not said again.
    """
    report = Report(where.shown)
    said: set[tuple[bool, str]] = set()

    def say_once(good: bool, text: str) -> None:
        if (good, text) not in said:
            said.add((good, text))
            say(good, text)

    def work(connection: Connection[Any]) -> None:
        nonlocal report
        report = Report(where.shown)
        _checks(connection, where, say_once, report, folder, anew)

    try:
        reading(where, work, statement_timeout_s=TIMEOUT_S, on_again=on_again)
    except AtbError as error:
        report.error = error
        report.problems = report.problems or [error.what]
    return report


def _checks(
    connection: Connection[Any], where: Where, say: Say, report: Report, folder: Path | None, anew: bool
) -> None:
    say(True, "Database connection successful")
    _check_schema(connection, where, say, report)
    report.restored = _restored(connection)
    connection.rollback()
    memory = None if folder is None else Remembered(connection, where, folder)
    problems = _audited(connection, report)
    if memory is None:
        _raise_for(problems, [], say, report)
    else:
        found = memory.look(connection)
        connection.rollback()
        report.notes, report.compared_with = memory.notes, memory.before.at or None
        _raise_for(problems, _not_excused(found, problems, report, anew), say, report)
        memory.keep(found.now)  # all is read: what is forgotten here cannot be asked for once more
    say(
        True,
        f"Ledger whole: {report.entries} entries, {report.fills} fills, {report.accounts} accounts; tables agree",
    )
    for text in filter(None, [report.restored, *report.went_back]):
        say(True, text)


def _check_schema(connection: Any, where: Where, say: Say, report: Report) -> None:
    try:
        check_schema(connection, where)
        report.problems = schema_differences(connection, where)
    except DatabaseUnavailable:
        raise
    except DatabaseError:
        say(False, f"Schema version: {revision_of(connection) or 'none'}")
        raise
    if report.problems:
        for text in report.problems[:SHOWN]:
            say(False, text)
        raise DatabaseError(
            f"The tables of {where.shown} are not those of this atb: {report.problems[0]}.",
            "Was the schema changed by hand? Restore a backup, or undo the change.",
        )
    report.schema = revision_of(connection)
    say(True, "All tables exist")
    say(True, f"Schema version: {report.schema}")


def _audited(connection: Any, report: Report) -> list[Problem]:
    """What is wrong by the database alone."""
    accounts = all_accounts(connection)
    connection.rollback()
    problems = audit_common(connection)
    for account in accounts:
        found = audit(connection, account)
        report.entries += found.entries
        report.fills += found.fills
        problems += found.problems
    report.accounts = len(accounts)
    return problems


def _not_excused(found: Look, problems: list[Problem], report: Report, anew: bool) -> list[Problem]:
    """What is gone, unless a restore or the operator explains it; of an account with other faults those tell enough."""
    told = {problem.account for problem in problems}
    gone = [problem for problem in found.gone if problem.account not in told]
    if not anew and found.dump is None:
        return gone
    reason = "as --anew allows" if anew else f"to dump {found.dump}, from which it was restored"
    report.went_back = [f"The ledger goes back, {reason}: {problem.said}" for problem in gone]
    return []


def _raise_for(problems: list[Problem], gone: list[Problem], say: Say, report: Report) -> None:
    report.problems = [problem.said for problem in problems + gone]
    for text in report.problems[:SHOWN]:
        say(False, text)
    if problems:
        raise Disagreement(
            f"The tables do not tell what the ledger tells: {report.problems[0]}",
            "Where only tables are wrong: atb db rebuild. Where the chain is broken: atb db restore FILE",
        )
    if gone:
        raise Disagreement(
            f"The ledger is not what it was: {report.problems[0]}",
            "Restore the newest backup: atb db restore FILE. If that is how it should be, since a base backup or a plain "
            "dump was put back: atb db verify --anew",
        )


def _restored(connection: Any) -> str | None:
    """Which dump this database came from, if it was restored."""
    row = connection.execute(
        "SELECT dump_id, made_at, date_trunc('second', greatest(now() - made_at, interval '0'))::text FROM backup_stamp "
        "WHERE state = 'in_dump'"
    ).fetchone()
    return None if row is None else f"Restored from dump {row[0]} of {row[1]:%Y-%m-%d %H:%M} UTC, {row[2]} old"
