"""Questions to the database: one reading statement, its answer as the server writes it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from atb.core.errors import UsageError
from atb.ledger.connect import Where, explained
from atb.ledger.reading import MISUSED, lost_connection, reading

if TYPE_CHECKING:
    from psycopg import Connection, Error

TIMEOUT_S = 60
MOST_ROWS = 2**62  # more than any FETCH takes, or has to
BY_CURSOR, AS_IT_IS = ("SELECT", "WITH", "VALUES", "TABLE"), ("EXPLAIN", "SHOW")
CURSOR = "DECLARE answer NO SCROLL CURSOR FOR "
NUMBERS = {20, 21, 23, 26, 700, 701, 1700}  # oids: int8, int2, int4, oid, float4, float8, numeric
NUMERIC, BOOL, JSON_OIDS = 1700, 16, {114, 3802}


class Answer(NamedTuple):
    """columns: names. kinds: type oids. rows: text as the server writes it, None for NULL. more: rows were left out."""

    columns: list[str]
    kinds: list[int]
    rows: list[tuple[str | None, ...]]
    more: bool


class Statement(NamedTuple):
    """text: as it was asked. prefix: what goes before it, CURSOR or nothing. The server's places in it count both."""

    text: str
    prefix: str


def ask(where: Where, sql: str, limit: int, on_again: Callable[[str], None] = lambda _: None) -> Answer:
    """Run one reading statement in a read-only transaction; at most `limit` rows (0: all).

    A UsageError for a statement that is wrong, writes, or is more than one. `on_again` as in `reading`.
    """
    import psycopg

    statement = _only_reading(sql)

    def work(connection: Connection[Any]) -> Answer:
        _as_text(connection)
        reader = _without_powers(connection, statement.text)
        try:
            return _run(connection, statement, limit)
        except psycopg.Error as error:
            raise lost_connection(error, connection, where) or _wrong(error, statement, where, reader) from None

    return reading(where, work, statement_timeout_s=TIMEOUT_S, on_again=on_again)


def _only_reading(sql: str) -> Statement:
    """The statement without what surrounds it. Comments and parentheses before it are allowed."""
    text = sql.strip().rstrip(";").rstrip()
    bare = text[_first_word_at(text) :]
    if not bare:
        raise UsageError(
            "There is no statement.", "Such as: atb db query \"SELECT * FROM positions WHERE status = 'OPEN'\""
        )
    word = (re.match("[A-Za-z]+", bare) or [""])[0].upper()
    if word not in BY_CURSOR + AS_IT_IS:
        raise UsageError(
            f"atb db query only reads; '{word or bare[:20]}' does not.",
            "Corrections go through: atb db close-position. For everything else: atb db psql",
        )
    return Statement(text, CURSOR if word in BY_CURSOR else "")


def _first_word_at(text: str) -> int:
    """The place after the space, comments and parentheses that `text` begins with."""
    at = 0
    while gap := re.compile(r"[\s(]+|--[^\r\n]*|/\*").match(text, at):
        at = _end_of_comment(text, at) if gap[0] == "/*" else gap.end()
    return at


def _end_of_comment(text: str, start: int) -> int:
    """Where the comment that begins at `start` ends: such comments nest."""
    depth = 0
    for mark in re.compile(r"/\*|\*/").finditer(text, start):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    return len(text)


def _without_powers(connection: Connection[Any], statement: str) -> bool:
    """Ask as a role that reads and does nothing else: functions can end sessions or fill a disk in a SELECT, too.

    Who may not become that role is no superuser, and has no such powers. Returns whether it became it.
    """
    import psycopg

    role = "pg_monitor" if "pg_stat" in statement else "pg_read_all_data"
    try:
        connection.execute(f"SET ROLE {role}")
    except psycopg.errors.InsufficientPrivilege:
        connection.rollback()
        return False
    return True


def _as_text(connection: Connection[Any]) -> None:
    """Leave every value as the server writes it: exact numbers, its own form of times."""
    from psycopg.types.string import TextLoader

    for info in connection.adapters.types:
        for oid in (info.oid, info.array_oid):
            if oid:
                connection.adapters.register_loader(oid, TextLoader)


def _run(connection: Connection[Any], statement: Statement, limit: int) -> Answer:
    cursor = connection.execute((statement.prefix + statement.text).encode(), prepare=True)  # exactly one statement
    if statement.prefix == "":
        rows, more = cursor.fetchall(), False
    else:  # only so many rows travel as are shown
        count = str(limit + 1) if 0 < limit < MOST_ROWS else "ALL"
        cursor = connection.execute(f"FETCH {count} FROM answer")
        rows = cursor.fetchall()
        more = 0 < limit < len(rows)
        rows = rows[:limit] if more else rows
    described = cursor.description or []
    kinds = [column.type_code for column in described]
    plain = [tuple(_trimmed(v) if k == NUMERIC else v for v, k in zip(row, kinds, strict=True)) for row in rows]
    return Answer([column.name for column in described], kinds, plain, more)


def _trimmed(value: str | None) -> str | None:
    """0.15 for 0.15000000000000000000: a quotient has as many digits as the server likes."""
    return value.rstrip("0").rstrip(".") if value and "." in value else value


def _wrong(error: Error, statement: Statement, where: Where, reader: bool) -> Exception:
    """A UsageError with the place in the statement for what whoever wrote it can mend."""
    state = error.sqlstate or ""
    if state == "42501" and reader:
        return UsageError(f"atb db query only reads: {error.diag.message_primary}.", "For everything else: atb db psql")
    if state == MISUSED:
        return UsageError("atb db query fills no parameters in, such as $1.", "Write the value itself.")
    if not state.startswith(("42", "22", "25", "0A")) or state in ("42501",):
        return explained(error, where)
    if "pg_stat_statements" in str(error):
        return UsageError(
            "This server does not keep pg_stat_statements.",
            "Where it can: shared_preload_libraries = 'pg_stat_statements', restart, then CREATE EXTENSION "
            "pg_stat_statements. The server of compose.yaml has it; the embedded one comes without.",
        )
    message = error.diag.message_primary or str(error)
    if "multiple commands" in message:
        return UsageError("More than one statement: atb db query takes one.", "Ask them one after the other.")
    if state == "25006":
        return UsageError(f"atb db query only reads: {message}.", "For everything else: atb db psql")
    hints = [error.diag.message_hint or "", _place(error, statement)]
    return UsageError(f"The statement is wrong: {message}.", "\n  ".join(hint for hint in hints if hint))


def _place(error: Error, statement: Statement) -> str:
    """The line of the statement with a mark under the place."""
    if not error.diag.statement_position:
        return ""
    at = int(error.diag.statement_position) - 1 - len(statement.prefix)
    *above, before = statement.text[: max(at, 0)].split("\n")
    line = statement.text.split("\n")[len(above)].rstrip()
    space = re.sub(r"[^\t]", " ", before)
    return f"{line}\n  {space}^"


def as_json(answer: Answer) -> str:
    """Rows as JSON objects; numbers with all their digits."""
    import json

    def token(value: str | None, kind: int) -> str:
        if value is None:
            return "null"
        if kind == BOOL:
            return "true" if value == "t" else "false"
        if kind in JSON_OIDS or (kind in NUMBERS and re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", value)):
            return value
        return json.dumps(value)

    names = [json.dumps(name) for name in answer.columns]
    lines = [
        "  {" + ", ".join(f"{n}: {token(v, k)}" for n, v, k in zip(names, row, answer.kinds, strict=True)) + "}"
        for row in answer.rows
    ]
    return "[\n" + ",\n".join(lines) + "\n]" if lines else "[]"
