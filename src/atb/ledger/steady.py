"""Appending and reading through a database's outages: what a process that runs for long uses instead of `append` alone.

A connection may break at any moment of an append, also between commit and answer. The same entries are then appended
again over another connection; their ids make that safe. What was down, and for how long, becomes an event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from atb.core.errors import DatabaseError, DatabaseUnavailable
from atb.ledger.connect import POOL_SIZE, Where, explained, may_pass, pool
from atb.ledger.entries import Chained, Entry
from atb.ledger.journal import append
from atb.ledger.patience import Patience
from atb.ledger.reading import lost_connection

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import Connection, Error

T = TypeVar("T")


def record_event(
    connection: Connection[Any], severity: str, component: str, code: str, message: str, account_id: int | None = None, *,
    at: datetime | None = None, session_id: int | None = None,
) -> None:  # fmt: skip
    """Write an event and commit. severity: debug, info, warning, error or critical; at: when it happened, if not now."""
    connection.execute(
        "INSERT INTO events (at, severity, component, code, message, account_id, session_id) "
        "VALUES (COALESCE(%s, now()), %s, %s, %s, %s, %s, %s)",
        (at, severity, component, code, message, account_id, session_id),
    )
    connection.commit()


class SteadyJournal:
    """One account's journal over a pool of connections; waits out an outage for up to `patience_s` seconds.

    `on_outage` is told of each attempt that failed. An error that waiting does not mend is raised at once. Whatever the
    database says is a DatabaseError, but for entries that it refuses (UsageError) and authority that is lost (Fenced).
    """

    away, merges = False, 0  # what is appended goes to the ledger and nowhere else

    def __init__(
        self, where: Where, account_id: int, epoch: int, *, patience_s: float,
        on_outage: Callable[[DatabaseError], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.where, self.account_id, self.epoch = where, account_id, epoch
        self.patience_s, self.on_outage = patience_s, on_outage
        self.pool = pool(where)
        self._untold: deque[str] = deque(maxlen=100)  # outages that are no event yet

    def append(self, entries: Sequence[Entry]) -> list[Chained]:
        """As `journal.append`. Fenced and refused entries are errors at once; a database that stays away one at last."""
        return self._steadily(lambda connection: append(connection, self.account_id, self.epoch, entries))

    def read(self, work: Callable[[Connection[Any]], T]) -> T:
        """What `work` reads in one transaction; after an outage it begins again. What it writes is refused."""

        def reader(connection: Connection[Any]) -> T:
            connection.read_only = True
            try:
                return work(connection)
            finally:
                if not connection.closed:
                    connection.rollback()
                    connection.read_only = None

        return self._steadily(reader)

    def surely(self, work: Callable[[Connection[Any]], T]) -> T:
        """What `work` gives, which commits by itself. After an outage it begins again: it must bear being done twice."""
        return self._steadily(work)

    def close(self) -> None:
        self.pool.dispose()

    def _steadily(self, work: Callable[[Connection[Any]], T]) -> T:
        patience, failures = Patience(), list[DatabaseUnavailable]()
        while True:
            try:
                done = self._once(work)
                break
            except DatabaseUnavailable as error:
                failures.append(error)
                self.on_outage(error)
                if not patience.pause(self.patience_s):
                    self._remember("The database stayed away for", patience, failures)
                    raise
        if failures:
            self._remember("Back after", patience, failures)
        self._tell()
        return done

    def _once(self, work: Callable[[Connection[Any]], T]) -> T:
        """`work` over a connection of the pool. One that saw an error is not used again: it may be dead."""
        import psycopg
        from sqlalchemy.exc import DBAPIError
        from sqlalchemy.exc import TimeoutError as NoneFree

        try:
            with self.pool.connect() as pooled:
                connection: Any = pooled.connection.driver_connection
                try:
                    return work(connection)
                except psycopg.Error as error:
                    pooled.invalidate()
                    raise self._told(error, connection) from None
                except BaseException:
                    pooled.invalidate()
                    raise
        except NoneFree:
            what = f"All {POOL_SIZE} connections of this process to {self.where.shown} are in use."
            raise DatabaseUnavailable(what) from None
        except DBAPIError as error:  # of SQLAlchemy's own first statements on a connection
            raise explained(error.orig or error, self.where) from None

    def _told(self, error: Error, connection: Connection[Any]) -> DatabaseError:
        lost = lost_connection(error, connection, self.where)
        told = lost or explained(error, self.where)
        return DatabaseUnavailable(told.what, told.hint) if may_pass(error.sqlstate or "") else told

    def _remember(self, what: str, patience: Patience, failures: Sequence[DatabaseUnavailable]) -> None:
        attempts = f"{len(failures)} failed attempt{'' if len(failures) == 1 else 's'}"
        self._untold.append(f"{what} {patience.waited_s():.1f} s and {attempts}: {failures[0].what}")

    def _tell(self) -> None:
        """Write the events of past outages. What was done is done: if they cannot be written now, then later."""
        while self._untold:
            message = self._untold.popleft()
            try:
                self._write_event(message)
            except DatabaseError:
                self._untold.appendleft(message)
                return

    def _write_event(self, message: str) -> None:
        self._once(lambda c: record_event(c, "warning", "ledger", "database_outage", message, self.account_id))
