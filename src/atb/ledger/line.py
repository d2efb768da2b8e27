"""A connection that is made anew when it breaks, for a command that writes.

Whether a commit arrived is not known when the connection breaks before its answer. The command must not end there: typed once
more it would make new ids, and book twice. So the same entries are appended again over another connection.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from atb.core.errors import DatabaseError, DatabaseUnavailable, Fenced, OutcomeUnknown
from atb.ledger.connect import Where, connect, explained
from atb.ledger.entries import Chained, Entry
from atb.ledger.journal import append
from atb.ledger.lease import RIVALS, read_standing
from atb.ledger.patience import Patience
from atb.ledger.reading import lost_connection
from atb.ledger.steady import record_event

if TYPE_CHECKING:
    from types import TracebackType

    from psycopg import Connection

T = TypeVar("T")


class Line:
    """A line to one database; waits out an outage for up to `patience_s` seconds, and says so with `say`."""

    def __init__(
        self, where: Where, patience_s: float = 30.0, say: Callable[[str], object] = lambda _: None
    ) -> None:  # fmt: skip
        self.where, self.patience_s, self.say = where, patience_s, say
        self.connection: Connection[Any] = connect(where)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        import psycopg

        self.connection.close()
        if isinstance(error, psycopg.Error):
            raise explained(error, self.where) from None

    def append(self, account_id: int, epoch: int, entries: Sequence[Entry]) -> list[Chained]:
        """As `journal.append`; when the connection breaks, whether it was written is found out."""
        return self.surely(lambda connection: append(connection, account_id, epoch, entries))

    def append_beside(self, account_id: int, entries: Sequence[Entry]) -> list[Chained]:
        """`append` beside whoever has authority, at the epoch that counts now: it is left to them, and no one is fenced."""
        for _ in range(RIVALS):
            epoch = self.surely(lambda connection: read_standing(connection, account_id)).epoch
            try:
                return self.append(account_id, epoch, entries)
            except Fenced as error:  # authority changed hands in between
                fenced = error
        raise fenced

    def surely(self, work: Callable[[Connection[Any]], T]) -> T:
        """What `work` gives, over another connection where this one breaks. It must bear being done twice.

        What is refused, and what was certainly not written (a lock that is held, a full disk, a database that only reads), is
        raised at once: a DatabaseError for whatever the database says.
        """
        import psycopg

        patience = Patience()
        lost: DatabaseUnavailable | None = None
        while True:
            try:
                done = work(self.connection)
                break
            except (psycopg.Error, OutcomeUnknown) as error:
                lost = lost_connection(error, self.connection, self.where)
                if lost is None:
                    raise self._refused(error) from None
            self._again(patience, lost)
        if lost is not None:
            self._tell(patience.waited_s(), lost)
        return done

    def _refused(self, error: Exception) -> DatabaseError:
        import psycopg

        with contextlib.suppress(psycopg.Error):  # the next statement is not this one's transaction
            self.connection.rollback()
        return explained(error, self.where)

    def _again(self, patience: Patience, lost: DatabaseUnavailable) -> None:
        """Another connection; an error if there is none in time, or if each of them breaks."""
        self.connection.close()
        unknown = OutcomeUnknown(
            lost.what, "Before typing it again, see what was booked: atb db trades, atb db positions"
        )
        if not patience.pause(self.patience_s):
            raise unknown
        try:
            self.connection = connect(self.where, patience_s=max(self.patience_s - patience.waited_s(), 0.0))
        except DatabaseError:
            raise unknown from None

    def _tell(self, seconds: float, lost: DatabaseUnavailable) -> None:
        import psycopg

        message = f"Back after {seconds:.1f} s, all is written once. {lost.what}"
        self.say(message)
        with contextlib.suppress(psycopg.Error):  # what was done is done: no error may say otherwise
            record_event(self.connection, "warning", "ledger", "database_outage", message)
