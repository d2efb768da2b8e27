"""Databases beside the live one, on the same server: made, filled from a dump, checked, and dropped in all cases."""

from __future__ import annotations

import re
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from atb.core.errors import DatabaseError, DataError
from atb.ledger.connect import Where, connect, explained, without_password
from atb.ledger.embedded import tool
from atb.ops.dump_file import OLDER, Checked, lines_of

if TYPE_CHECKING:
    from psycopg import Connection

# Of the database's contents, in the backup's snapshot and again where it was restored. The sum does not depend on the
# order of rows. Authority is changed by restoring (whoever wrote before is fenced), the stamp is the dump's own.
COUNT_ONLY = ("public.authority", "public.backup_stamp")
TABLES = (
    "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' "
    "AND n.nspname <> 'information_schema' AND NOT c.relispartition AND NOT EXISTS (SELECT 1 FROM pg_depend d "
    "WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 1"
)
PLAINLY = (  # so that the same row is the same text on every server
    "SET timezone = 'UTC'", "SET datestyle = 'ISO'", "SET intervalstyle = 'postgres'", "SET extra_float_digits = 1",
    "SET bytea_output = 'hex'",
)  # fmt: skip
# Lines that may fail without harm to the ledger, such as a grant to a role that this server does not have.
_LATER = re.compile(
    rb"(GRANT|REVOKE|ALTER DEFAULT PRIVILEGES|ALTER [A-Z ]+ .* OWNER TO|"
    rb"(CREATE|COMMENT ON|DROP) EXTENSION (IF (NOT )?EXISTS )?pg_stat_statements)\b.*;$"
)
SCRIPT_FAILED = 3  # how psql ends with ON_ERROR_STOP; 2 means that the connection was lost
_SERVERS_FAULT = re.compile(r"^(08|53|54|57|58|XX|42501|55)")


class Beside(NamedTuple):
    """A new database. server: a connection to the server's maintenance database, autocommit."""

    where: Where
    name: str
    server: Connection[Any]


def on_database(where: Where, database: str) -> Where:
    """Another database of the same server."""
    from psycopg.conninfo import make_conninfo

    shown = f"{where.shown.rpartition('/')[0]}/{database}"
    return where._replace(conninfo=make_conninfo(where.conninfo, dbname=database), shown=shown)


def database_name(where: Where) -> str:
    from psycopg.conninfo import conninfo_to_dict

    return str(conninfo_to_dict(where.conninfo)["dbname"])


def tool_options(where: Where, environment: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The connection for a Postgres program: all but the password as an argument, that in its environment only."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    known = {name: str(value) for name, value in conninfo_to_dict(where.conninfo).items() if value is not None}
    password = known.pop("password", None)
    own = {name: value for name, value in environment.items() if not name.startswith("PG")}
    own |= {"PGAPPNAME": "atb backup"} | ({"PGPASSWORD": password} if password else {})
    return make_conninfo("", **known), own


@contextmanager
def maintenance(where: Where) -> Iterator[Connection[Any]]:
    """A connection to the server, not to one of the databases that come and go."""
    import psycopg

    connection = connect(on_database(where, "postgres"), statement_timeout_s=0, autocommit=True)
    try:
        yield connection
    except psycopg.Error as error:
        raise explained(error, where) from None
    finally:
        connection.close()


def lock(server: Connection[Any], name: str) -> bool:
    """A lock of that name for as long as the connection lives; it ends with its process, however that ends."""
    row = server.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 7204513))", (name,)).fetchone()
    return bool(row and row[0])


@contextmanager
def new_database(where: Where, prefix: str) -> Iterator[Beside]:
    """An empty database, made like the one of `where`, dropped at the end unless it was renamed meanwhile.

    Those that a killed run left are dropped first: nobody holds their lock.
    """
    from psycopg import sql

    with maintenance(where) as server:
        _drop_leftovers(server, prefix)
        name = f"{prefix}{datetime.now(UTC):%Y%m%d_%H%M%S}_{secrets.token_hex(3)}"
        lock(server, name)
        options = _like(server, database_name(where))
        try:
            server.execute(sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), options))
            yield Beside(on_database(where, name), name, server)
        finally:
            if not server.closed:
                _drop(server, name)


def _drop_leftovers(server: Connection[Any], prefix: str) -> None:
    pattern = re.escape(prefix) + r"\d{8}_\d{6}_[0-9a-f]{6}"
    names = [str(row[0]) for row in server.execute("SELECT datname FROM pg_database")]
    for name in names:
        if re.fullmatch(pattern, name) and lock(server, name):
            _drop(server, name)


def _drop(server: Connection[Any], name: str) -> None:
    from psycopg import sql

    server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _like(server: Connection[Any], database: str) -> Any:
    """Encoding and locale of the database that the new one stands in for; the server's own where there is none."""
    from psycopg import sql

    row = server.execute(
        "SELECT pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider::text, "
        "coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') FROM pg_database d WHERE datname = %s",
        (database,),
    ).fetchone()
    if row is None:
        return sql.SQL("TEMPLATE template0")
    encoding, collate, ctype, provider, locale = row
    text = "TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}"
    kind = {"i": " LOCALE_PROVIDER icu ICU_LOCALE {}", "b": " LOCALE_PROVIDER builtin BUILTIN_LOCALE {}"}.get(provider)
    values = [encoding, collate, ctype, *([locale] if kind else [])]
    return sql.SQL(text + (kind or " LOCALE_PROVIDER libc")).format(*map(sql.Literal, values))


def load(dump: Checked, where: Where, environment: Mapping[str, str]) -> list[str]:
    """Play a dump into an empty database. Returns what could not be done and does no harm."""
    conninfo, env = tool_options(where, environment)
    argv = [str(tool("psql")), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", f"--dbname={conninfo}"]
    later: list[bytes] = []
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said)
        try:
            with suppress(BrokenPipeError):
                _feed(dump.path, process, later)
            process.wait()
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        text = without_password(said.read(100_000).decode(errors="replace"), where)
    if process.returncode:
        raise _refused(dump, text, process.returncode)
    return _do_later(where, later)


def _feed(path: Path, process: subprocess.Popen[bytes], later: list[bytes]) -> None:
    assert process.stdin is not None
    with process.stdin as pipe:
        for line, is_sql in lines_of(path):
            if is_sql and line.startswith(b"SET transaction_timeout"):
                continue  # unknown before Postgres 17, and 0 anyway
            if is_sql and _LATER.match(line.rstrip(b"\n")):
                later.append(line)
                continue
            pipe.write(line)


def _refused(dump: Checked, text: str, code: int) -> DatabaseError | DataError:
    """psql stopped. Whose fault: that of a file which nothing vouches for, or that of the server."""
    found = re.search(r": +([0-9A-Z]{5}): (.*)", text)
    state, message = (found[1], found[2]) if found else ("", (text.strip().splitlines() or ["psql failed"])[0])
    if dump.manifest is None and code == SCRIPT_FAILED and not _SERVERS_FAULT.match(state):
        return DataError(f"{dump.path} cannot be played back: {message}.", OLDER)
    return DatabaseError(f"The server does not take {dump.path.name}: {message}.", "See its log; nothing was changed.")


def _do_later(where: Where, lines: list[bytes]) -> list[str]:
    import psycopg

    notes = []
    with connect(where, autocommit=True) as connection:
        for line in lines:
            try:
                connection.execute(line)
            except psycopg.Error as error:
                first = str(error).splitlines()[0]
                notes.append(f"Left out: {line.decode(errors='replace').strip()[:120]} ({first})")
    return notes


def contents(connection: Connection[Any]) -> dict[str, tuple[int, str | None]]:
    """Rows of every table, and a sum over what is in them."""
    for statement in PLAINLY:
        connection.execute(statement)
    out: dict[str, tuple[int, str | None]] = {}
    for (name,) in connection.execute(TABLES).fetchall():
        text = "NULL" if name in COUNT_ONLY else "coalesce(sum(hashtextextended(t::text, 0)), 0)::text"
        row = connection.execute(f"SELECT count(*), {text} FROM {name} t").fetchone()
        assert row is not None
        out[name] = (int(row[0]), row[1])
    return out


def heads(connection: Connection[Any]) -> dict[str, tuple[int, str]]:
    """The last entry of each account's chain, as its account_state has it."""
    rows = connection.execute(
        "SELECT a.name, s.seq, encode(s.hash, 'hex') FROM account_state s JOIN accounts a ON a.id = s.account_id"
    )
    return {str(name): (int(seq), str(digest)) for name, seq, digest in rows}
