"""Where the database is, and connections to it: one error for each thing that can be wrong, never with a password.

`psycopg` alone, which costs half of what SQLAlchemy does, serves the short commands. What runs for long takes its
connections from `pool`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from atb.core.errors import DatabaseError, DatabaseUnavailable, UsageError
from atb.ledger.patience import Patience

if TYPE_CHECKING:
    from psycopg import Connection
    from sqlalchemy import Engine

    from atb.ledger.embedded import Server

OLDEST = 15
POOL_SIZE = 10
IDLE_TIMEOUT_S = 60  # in a transaction: a process that hangs must not keep its locks
STATEMENT_TIMEOUT_S, LOCK_TIMEOUT_S, CONNECT_TIMEOUT_S = 30, 10, 5
SPARE_S = 5.0  # after the end of its time a statement is cancelled by the server; who hears nothing of that hears nothing more
# Of a process that runs for long: a stop must not wait for a database. Whoever holds a lock is told of before that.
SILENCE_S, ENGINE_LOCK_S, ENGINE_CONNECT_S = 5.0, 3, 3
# How long a connection is tried for: while a server starts, stops or is full; where nothing answers, as in the moment
# between the end of a server and its next start. A command must not hang where there is none at all.
PATIENCE_S, BRIEFLY_S = 5.0, 2.0
SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")


class Where(NamedTuple):
    """A database. `conninfo` is what psycopg takes; `shown` the URL without its password; `embedded`: our own server."""

    conninfo: str
    shown: str
    embedded: bool


def embedded(server: Server, database: str = "ai_trading_bot") -> Where:
    """A database of atb's own server. The password stays in its pgpass file."""
    from psycopg.conninfo import make_conninfo

    keywords = {name: str(value) for name, value in server.conninfo(database).items()}
    return Where(make_conninfo("", **keywords), server.url(database), embedded=True)


def from_url(url: str) -> Where:
    """The database that DATABASE_URL names. A UsageError for what is no URL of a Postgres."""
    text = url.strip()
    scheme = text.partition("://")[0]
    if scheme not in SCHEMES:
        raise UsageError(
            f"DATABASE_URL is not a Postgres URL (it begins with '{_begin(text)}').",
            "Write postgresql://user:password@host:5432/database",
        )
    try:
        parts = urlsplit("postgresql" + text[len(scheme) :])
        _ = parts.port  # a ValueError when it is none
    except ValueError:
        raise UsageError(
            "DATABASE_URL has a port that is no number, or a password with characters that must be escaped.",
            "Escape @ : / ? # in it as %40 %3A %2F %3F %23.",
        ) from None
    if "@" in parts.path or "@" in parts.query:
        raise UsageError("DATABASE_URL has a / or ? in its user or password.", "Escape them there as %2F and %3F.")
    if parts.netloc.count("@") > 1:  # libpq would take what follows the first for the host, and name it in its errors
        raise UsageError("DATABASE_URL has a @ in its user or password.", "Escape it there as %40.")
    if len(parts.path) <= 1:
        raise UsageError("DATABASE_URL names no database.", "Add it at the end: .../ai_trading_bot")
    host = parts.netloc.rpartition("@")[2]
    shown = f"postgresql://{parts.username}@{host}" if parts.username else f"postgresql://{host}"
    # Not urlunsplit: of a URL without a host, which means the socket, it leaves one slash.
    return Where("postgresql" + text[len(scheme) :], shown + parts.path, embedded=False)


def _begin(text: str) -> str:
    """So much of a text that it cannot hold a password."""
    return re.split("[:=]", text, maxsplit=1)[0][:20]


def connect(
    where: Where, *, statement_timeout_s: float = STATEMENT_TIMEOUT_S, autocommit: bool = False,
    patience_s: float | None = None, silence_s: float | None = None, lock_timeout_s: float = LOCK_TIMEOUT_S,
    connect_timeout_s: int = CONNECT_TIMEOUT_S,
) -> Connection[Any]:  # fmt: skip
    """A connection, or a DatabaseError that says what is wrong and what to do.

    silence_s: without a word from the server for so long it is closed; if not given, somewhat later than the server itself
    would end a statement.

    What passes by itself is waited out: for as long as a command may wait for it, or for `patience_s`, which who was
    connected before gives to everything that is not known to be final.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    from atb.ledger.listening import Listening

    times = {
        "statement_timeout": statement_timeout_s, "lock_timeout": lock_timeout_s,
        "idle_in_transaction_session_timeout": IDLE_TIMEOUT_S,
    }  # fmt: skip
    options = " ".join(f"-c {name}={int(seconds * 1000)}" for name, seconds in times.items())
    _hush("psycopg")
    patience, waits_s = Patience(), 0.0
    while True:
        try:
            given = conninfo_to_dict(where.conninfo)
            connection = Listening.connect(
                where.conninfo, connect_timeout=given.get("connect_timeout") or connect_timeout_s, application_name="atb",
                options=f"{given.get('options') or ''} {options}", autocommit=autocommit,
            )  # fmt: skip
            if silence_s is not None or statement_timeout_s:
                connection.silence_s = statement_timeout_s + SPARE_S if silence_s is None else silence_s
            return _of_a_known_version(connection, where)
        except psycopg.Error as error:
            meaning = _meaning(error)
            if patience_s is not None:
                waits_s = patience_s if meaning.passes else 0.0
            else:
                # A server that was seen to stop deserves its patience also in the moment when nothing listens.
                waits_s = max(waits_s, meaning.waits_s) if meaning.waits_s else 0.0
            if not patience.pause(waits_s):
                raise explained(error, where) from None


def _hush(library: str) -> None:
    """Where nobody asked for logs, Python prints a library's warnings: here, that a dead connection is dead.

    The error that follows says so in our words. Whoever asks for logs gets them as before.
    """
    import logging

    logger = logging.getLogger(library)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def _of_a_known_version(connection: Connection[Any], where: Where) -> Connection[Any]:
    version = connection.info.server_version // 10_000
    if version >= OLDEST:
        return connection
    connection.close()
    raise DatabaseError(
        f"The server at {where.shown} is Postgres {version}; {OLDEST} is the oldest that will do.", "Upgrade it."
    )


def explained(error: Exception, where: Where) -> DatabaseError:
    """What a driver's error means for whoever typed the command; DatabaseUnavailable for what may pass by itself."""
    text = without_password(str(error), where)
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    meaning = _meaning(error)
    kind = DatabaseUnavailable if meaning.passes else DatabaseError
    hint = START_OWN if meaning.hint == START and where.embedded else meaning.hint
    return kind(meaning.what.format(where=where.shown, text=first), hint)


def _meaning(error: Exception) -> Meaning:
    from psycopg import OperationalError

    state, text = getattr(error, "sqlstate", None) or "", str(error)
    # What a network can do to a connection has no end, and a server may speak any language.
    unknown = _UNKNOWN._replace(passes=not state and isinstance(error, OperationalError))
    return next((meaning for meaning in _MEANINGS if meaning.test(state, text)), unknown)


def may_pass(state: str) -> bool:
    """Whether the server may take it a little later, by the SQLSTATE with which it did not: read only for now, cancelled, a
    lock that is held, an error of its disk, a deadlock, out of something. Anything else is a fault, of the tables or ours."""
    return state.startswith(("40", "53", "58")) or state in ("25006", "55P03", "57014")


def libpq_environment(where: Where) -> dict[str, str]:
    """The variables with which psql and pg_dump reach the database; nothing of it is on a command line."""
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.pq import Conninfo

    # libpq itself tells which of its parameters have a variable; sslpassword and the keepalives have none.
    names = {o.keyword.decode(): o.envvar.decode() for o in Conninfo.get_defaults() if o.envvar}
    known = conninfo_to_dict(where.conninfo)
    return {variable: str(known[name]) for name, variable in names.items() if known.get(name) not in (None, "")}


def without_password(text: str, where: Where) -> str:
    """`text` without the password that the connection uses, as the URL says it: before the host, or among the options."""
    if "://" not in where.conninfo:
        return text
    parts = urlsplit(where.conninfo)
    passwords = [parts.password, *re.findall("password=([^&]+)", parts.query, re.IGNORECASE)]
    for password in filter(None, passwords):
        text = text.replace(password, "***")
    return text


class Meaning(NamedTuple):
    """An error of the driver, and what it means.

    passes: it may be over a little later, as who was connected before has reason to believe. waits_s: how long a
    command that was not waits for that.
    """

    test: Callable[[str, str], bool]
    what: str
    hint: str = ""
    passes: bool = False
    waits_s: float = 0.0


def _about(*states: str) -> Callable[[str, str], bool]:
    return lambda state, text: state in states


def _says(pattern: str) -> Callable[[str, str], bool]:
    """For errors without a state: those of the driver itself, and everything that refuses a connection."""
    return lambda state, text: not state and bool(re.search(pattern, text, re.IGNORECASE))


START = "Start that server (of compose.yaml: docker compose up -d postgres), or correct DATABASE_URL."
START_OWN = "Start it: atb db start"
LOST = "The connection to {where} was lost."
_UNKNOWN = Meaning(lambda state, text: True, "The database at {where} says: {text}")
# The first that fits. What a host with several addresses said is one text: what a server says comes before silence.
_MEANINGS = [
    Meaning(_says("password authentication failed|no password supplied"),
            "The database at {where} refuses the user or the password.", "Check DATABASE_URL."),
    Meaning(_says('database "[^"]*" does not exist'), "There is no such database: {where}.",
            "Create it: atb db migrate --create"),
    Meaning(_says('role "[^"]*" does not exist'), "The server at {where} does not know that user.",
            "Check DATABASE_URL."),
    Meaning(_says("database system is (starting up|in recovery mode|not yet accepting)"),
            "The server at {where} is starting up or recovering.", "Try again in some seconds.", True, PATIENCE_S),
    Meaning(_says("database system is shutting down"), "The server at {where} is being stopped.", START, True, PATIENCE_S),
    Meaning(_says("too many (connections|clients)|remaining connection slots|no more connections allowed"),
            "The server at {where} has no connection left.", "Close some, or raise max_connections.", True, PATIENCE_S),
    Meaning(_says("could not translate host name|name or service not known|nodename nor servname|name resolution"),
            "The host of {where} is not known.", "Check DATABASE_URL.", True),
    Meaning(_says("connection refused"), "Nothing listens at {where}: connection refused.", START, True, BRIEFLY_S),
    Meaning(_says("timeout expired|timed out"), "The database at {where} does not answer.",
            "Check host, port and firewall.", True),
    Meaning(_about("57P03"), "The server at {where} is starting up or recovering.", "Try again in some seconds.",
            True, PATIENCE_S),
    Meaning(_about("57P01", "57P02"), "The server at {where} was stopped.", START, True, PATIENCE_S),
    Meaning(_about("53100"), "The disk of the database at {where} is full.", "Make room; nothing was written."),
    Meaning(_about("53200", "53300"), "The server at {where} is out of memory or connections.", "See its log."),
    Meaning(_about("42501"), "The user of {where} may not do that: {text}", "Give it the right, or use the owner."),
    Meaning(_about("42P01", "3F000"), "A table is missing in {where}: {text}",
            "Bring the schema up to date: atb db migrate"),
    Meaning(_about("42703"), "A column is missing in {where}: {text}", "Bring the schema up to date: atb db migrate"),
    Meaning(_about("57014"), "The database at {where} took too long; the statement was cancelled.", "Ask for less."),
    Meaning(_about("55P03"), "Another process holds a lock at {where}.", "Try again in some seconds."),
    Meaning(_says("server closed the connection|connection to server was lost|the connection is (lost|closed)|"
                  "no connection to the server|connection reset|broken pipe|SSL SYSCALL|SSL connection has been closed"),
            LOST, "See the server's log, then try again.", True, BRIEFLY_S),
    Meaning(lambda state, text: state.startswith("08") or state == "57P05", LOST,
            "See the server's log, then try again.", True, BRIEFLY_S),
]  # fmt: skip


def pool(where: Where) -> Engine:
    """A pool of connections for a process that runs for long: ten at most, each tried before it is given out."""
    from sqlalchemy import create_engine

    _hush("sqlalchemy.pool")
    return create_engine(
        "postgresql+psycopg://", creator=lambda: _engines_own(where), pool_size=POOL_SIZE, max_overflow=0,
        pool_pre_ping=True, pool_timeout=CONNECT_TIMEOUT_S,
    )  # fmt: skip


def _engines_own(where: Where) -> Connection[Any]:
    return connect(
        where, patience_s=0, silence_s=SILENCE_S, lock_timeout_s=ENGINE_LOCK_S, connect_timeout_s=ENGINE_CONNECT_S
    )
