"""Is the database usable, and does it tell the truth? In steps, each said as it is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from atb.core.errors import AtbError, DatabaseError, Disagreement
from atb.ledger.accounts import all_accounts
from atb.ledger.audit import audit, audit_common
from atb.ledger.connect import Where, connect
from atb.ledger.migrate import check_schema, schema_differences
from atb.ledger.version import revision_of

Say = Callable[[bool, str], None]
SHOWN = 20


@dataclass
class Report:
    """What was found; `error` is what a failed step means for the exit code."""

    database: str = ""
    schema: str | None = None
    entries: int = 0
    fills: int = 0
    problems: list[str] = field(default_factory=list)
    restored: str | None = None
    error: AtbError | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": self.error is None, "database": self.database, "schema": self.schema, "entries": self.entries,
            "fills": self.fills, "problems": self.problems, "restored": self.restored,
            "error": None if self.error is None else self.error.what,
        }  # fmt: skip


def verify_database(where: Where, say: Say) -> Report:
    """All checks in order; the first that fails ends them."""
    report = Report(where.shown)
    try:
        _checks(where, say, report)
    except AtbError as error:
        report.error = error
        report.problems = report.problems or [error.what]
    return report


def _checks(where: Where, say: Say, report: Report) -> None:
    with connect(where, statement_timeout_s=600) as connection:
        say(True, "Database connection successful")
        try:
            check_schema(connection, where)
            report.problems = schema_differences(connection, where)
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
        connection.rollback()
        _check_ledger(connection, say, report)
        report.restored = _restored(connection)
        if report.restored:
            say(True, report.restored)


def _check_ledger(connection: Any, say: Say, report: Report) -> None:
    accounts = all_accounts(connection)
    connection.rollback()
    problems = audit_common(connection)
    for account in accounts:
        found = audit(connection, account)
        report.entries += found.entries
        report.fills += found.fills
        problems += found.problems
    report.problems = [f"{p.account}, {p.place}: {p.message}" for p in problems]
    for text in report.problems[:SHOWN]:
        say(False, text)
    if report.problems:
        raise Disagreement(
            f"The tables do not tell what the ledger tells: {report.problems[0]}",
            "Where only tables are wrong: atb db rebuild. Where the chain is broken: atb db restore FILE",
        )
    say(True, f"Ledger whole: {report.entries} entries, {report.fills} fills, {len(accounts)} accounts; tables agree")


def _restored(connection: Any) -> str | None:
    """Which dump this database came from, if it was restored."""
    row = connection.execute(
        "SELECT dump_id, made_at, date_trunc('second', now() - made_at)::text FROM backup_stamp WHERE state = 'in_dump'"
    ).fetchone()
    return None if row is None else f"Restored from dump {row[0]} of {row[1]:%Y-%m-%d %H:%M} UTC, {row[2]} old"
