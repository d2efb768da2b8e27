"""Reading through a server's end and restart: what only reads is done again from its beginning."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from atb.core.errors import DatabaseUnavailable
from atb.ledger.connect import LOST, STATEMENT_TIMEOUT_S, Where, connect, explained
from atb.ledger.patience import Patience

if TYPE_CHECKING:
    from psycopg import Connection

T = TypeVar("T")
RETURN_S = 15.0  # for a server that was there a moment ago to come back
# A statement that brings its server down would do so each time, with everybody else on it. More than once, since who
# comes back at once may be let in by a server that is about to end its connections.
RUNS = 3
MISUSED = "08P01"  # of the class of lost connections; from a server that goes on, it is the statement's fault


def reading(
    where: Where, work: Callable[[Connection[Any]], T], *, statement_timeout_s: float = STATEMENT_TIMEOUT_S,
    on_again: Callable[[str], None] = lambda _: None,
) -> T:  # fmt: skip
    """`work`, which only reads, over a connection of its own; over another, from its beginning, when that one breaks.

    A statement that fails, or takes too long, is not tried again. `on_again` is told before each further run.
    """
    import psycopg

    connection = connect(where, statement_timeout_s=statement_timeout_s)
    for run in range(1, RUNS + 1):
        try:
            connection.read_only = True
            return work(connection)
        except (psycopg.Error, DatabaseUnavailable) as error:
            lost = lost_connection(error, connection, where)
            if lost is None:
                raise
            if run == RUNS:
                raise lost from None
        finally:
            connection.close()
        connection = _another(where, statement_timeout_s, lost)
        on_again(f"{lost.what} It is there again: what was read is read anew.")
    raise AssertionError("the last run returns or raises")


def lost_connection(error: Exception, connection: Connection[Any], where: Where) -> DatabaseUnavailable | None:
    """The error as a connection's end; None when the connection lives, or when we were the reason for its end."""
    if isinstance(error, DatabaseUnavailable):
        return error
    if getattr(error, "sqlstate", None) == MISUSED and not connection.broken:
        return None
    told = explained(error, where)
    if isinstance(told, DatabaseUnavailable):
        return told
    unsaid = connection.broken and not getattr(error, "sqlstate", None)
    return DatabaseUnavailable(LOST.format(where=where.shown), told.hint) if unsaid else None


def _another(where: Where, statement_timeout_s: float, lost: DatabaseUnavailable) -> Connection[Any]:
    """Another connection, once the server is back."""
    Patience().pause(RETURN_S)
    try:
        return connect(where, statement_timeout_s=statement_timeout_s, patience_s=RETURN_S)
    except DatabaseUnavailable as error:
        raise DatabaseUnavailable(f"{lost.what} It did not come back: {error.what}", error.hint) from None
