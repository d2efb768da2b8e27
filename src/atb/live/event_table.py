"""Events into the database's table, by a thread of its own: who trades never waits for it.

What happens during an outage is written after it, with its own time: up to a thousand events.
"""

from __future__ import annotations

import threading
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from atb.core.errors import DatabaseError
from atb.core.words import are, counted
from atb.ledger.connect import Where, connect
from atb.ledger.steady import record_event
from atb.live.status import Told

if TYPE_CHECKING:
    from psycopg import Connection

WAITING = 1_000
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0


class EventTable:
    """A queue of events and the thread that empties it. Give it what was cleaned of secrets."""

    def __init__(self, where: Where, account_id: int, session_id: int) -> None:
        self.where, self.account_id, self.session_id = where, account_id, session_id
        self.dropped = 0  # the oldest of an outage that was too long
        self.refused = 0  # that no database takes
        self._waiting: deque[Told] = deque()
        self._changed, self._ending = threading.Condition(), False
        self._pause_s = FIRST_PAUSE_S
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def put(self, told: Told) -> None:
        with self._changed:
            self._waiting.append(told)
            if len(self._waiting) > WAITING:
                self._waiting.popleft()
                self.dropped += 1
            self._changed.notify()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def close(self, timeout_s: float = 2.0) -> bool:
        """Write what waits, for no longer than that. Whether all of it was written."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._waiting

    def _run(self) -> None:
        connection: Connection[Any] | None = None
        while self._next():
            try:
                connection = connection or connect(self.where, patience_s=0.0)
                self._empty(connection)
                self._pause_s = FIRST_PAUSE_S
            except _outages():
                if connection is not None:
                    connection.close()
                connection = None
                if not self._pause():
                    return
        if connection is not None:
            connection.close()

    def _next(self) -> bool:
        """Whether something waits, as soon as it does; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ending)
            return bool(self._waiting)

    def _empty(self, connection: Connection[Any]) -> None:
        while self._waiting:
            told, dropped = self._waiting[0], self.dropped
            if dropped:
                self._record(connection, _of_the_dropped(told, dropped))
            self._record(connection, told)
            with self._changed:
                self.dropped -= dropped
                if self._waiting[0] is told:
                    self._waiting.popleft()

    def _record(self, connection: Connection[Any], told: Told) -> None:
        """Write it. What the database will never take is no reason to write nothing any more."""
        import psycopg

        at = datetime.fromtimestamp(told.at_ms / 1000, UTC)
        try:
            record_event(
                connection, told.severity, told.component, told.code, told.message, self.account_id,
                at=at, session_id=self.session_id,
            )  # fmt: skip
        except (psycopg.DataError, psycopg.IntegrityError):
            connection.rollback()
            self.refused += 1

    def _pause(self) -> bool:
        """Before the next attempt. False: it is the end, and that was the last attempt."""
        with self._changed:
            if not self._ending:
                pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
                self._changed.wait_for(lambda: self._ending, pause_s)
                return True
            return False


def _of_the_dropped(told: Told, count: int) -> Told:
    said = f"{counted(count, 'event')} of before {are(count)} in the log file only: the database was away for too long."
    return told._replace(severity="warning", component="EventTable", code="events_dropped", message=said)


def _outages() -> tuple[type[Exception], ...]:
    import psycopg

    return (DatabaseError, psycopg.Error)
