"""The running mark into the database, by a thread of its own: who trades never waits for it.

Only the newest is written, once in so many seconds at most. While the database is away there is none: the next one is another.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from atb.core.errors import DatabaseError
from atb.ledger.connect import Where, connect
from atb.ledger.running import RunningMark, write_mark

if TYPE_CHECKING:
    from psycopg import Connection

END_S = 2.0


class MarkTable:
    """The row of one account, for the session that has authority (`epoch`) over it."""

    def __init__(self, where: Where, account_id: int, session_id: int, epoch: int, every_s: float) -> None:
        self.where, self.account_id, self.session_id, self.epoch = where, account_id, session_id, epoch
        self.every_s = every_s
        self._newest: RunningMark | None = None
        self._changed, self._ending = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="marks", daemon=True)
        self._thread.start()

    def put(self, mark: RunningMark) -> None:
        with self._changed:
            self._newest = mark
            self._changed.notify()

    def close(self) -> None:
        """What waits is not written any more: the end of a session is in the ledger."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(END_S)

    def _run(self) -> None:
        import psycopg

        connection: Connection[Any] | None = None
        while (mark := self._next()) is not None:
            try:
                connection = connection or connect(self.where, patience_s=0.0)
                write_mark(connection, self.account_id, self.epoch, self.session_id, mark)
            except (DatabaseError, psycopg.Error):
                if connection is not None:
                    connection.close()
                connection = None
            self._rest()
        if connection is not None:
            connection.close()

    def _next(self) -> RunningMark | None:
        """The newest, as soon as there is one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self._ending)
            mark, self._newest = self._newest, None
            return None if self._ending else mark

    def _rest(self) -> None:
        until_s = time.monotonic() + self.every_s
        with self._changed:
            self._changed.wait_for(lambda: self._ending, max(0.0, until_s - time.monotonic()))
