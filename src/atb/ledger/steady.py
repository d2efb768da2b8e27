"""Appending through a database's outages: what a process that runs for long uses instead of `append` alone.

A connection may break at any moment of an append, also between commit and answer. The same entries are then appended
again over another connection; their ids make that safe. What was down, and for how long, becomes an event.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from atb.core.errors import DatabaseError, Fenced
from atb.ledger.connect import Where, pool
from atb.ledger.entries import Chained, Entry
from atb.ledger.journal import append

if TYPE_CHECKING:
    from psycopg import Connection

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0


def record_event(
    connection: Connection[Any], severity: str, component: str, code: str, message: str, account_id: int | None = None
) -> None:
    """Write an event and commit. severity: debug, info, warning, error or critical."""
    connection.execute(
        "INSERT INTO events (severity, component, code, message, account_id) VALUES (%s, %s, %s, %s, %s)",
        (severity, component, code, message, account_id),
    )
    connection.commit()


class SteadyJournal:
    """One account's journal over a pool of connections; waits out an outage for up to `patience_s` seconds."""

    def __init__(
        self, where: Where, account_id: int, epoch: int, *, patience_s: float,
        on_outage: Callable[[DatabaseError], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.account_id, self.epoch, self.patience_s, self.on_outage = account_id, epoch, patience_s, on_outage
        self.pool = pool(where)

    def append(self, entries: Sequence[Entry]) -> list[Chained]:
        """As `journal.append`. Fenced and refused entries are errors at once; a database that stays away one at last."""
        from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

        began = time.monotonic()
        failures: list[DatabaseError] = []
        for attempt in Retrying(
            retry=retry_if_exception_type(DatabaseError), stop=stop_after_delay(self.patience_s), reraise=True,
            wait=wait_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
        ):  # fmt: skip
            with attempt:
                try:
                    written = self._once(entries, began, failures)
                except DatabaseError as error:
                    failures.append(error)
                    self.on_outage(error)
                    raise
        return written

    def _once(self, entries: Sequence[Entry], began: float, failures: Sequence[DatabaseError]) -> list[Chained]:
        with self.pool.connect() as pooled:
            connection: Any = pooled.connection.driver_connection
            try:
                written = append(connection, self.account_id, self.epoch, entries)
                if failures:
                    message = (
                        f"Back after {time.monotonic() - began:.1f} s and {len(failures)} attempts: {failures[0].what}"
                    )
                    record_event(connection, "warning", "ledger", "database_outage", message, self.account_id)
            except (DatabaseError, Fenced):
                pooled.invalidate()  # it may be dead: the next attempt gets another
                raise
        return written

    def close(self) -> None:
        self.pool.dispose()
