"""Authority over an account for a time: claimed if it is free, renewed while its holder works, given back at the end.

The epoch is what makes it safe: whoever was taken over can append nothing any more. The lease only says when taking over is
right: when nobody holds the account, when the holder's lease has run out, or when the holder is a process of this host that has
ended. All its times are those of the database's clock.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from atb.core.errors import DatabaseError, DatabaseUnavailable, Fenced
from atb.core.process import Process, parse_process, this_process
from atb.ledger.accounts import by_force, holder_text

if TYPE_CHECKING:
    from psycopg import Connection

INTERVALS = 3  # a lease is so many check intervals,
LEAST_LEASE_S = 15.0  # and so long at least: a slow exchange or database must not end it
YOUNG_S = 60  # so long whoever took authority without a lease is taken to be at work
SILENT = "it renewed nothing for as long as its lease"  # and the database's clock was set back
RIVALS = 100  # changes of the row, seen while it is claimed, after which somebody else shall have it

STANDING = (
    "epoch, holder, heartbeat_at, expires_at, "
    f"extract(epoch FROM coalesce(expires_at, heartbeat_at + interval '{YOUNG_S} s') - clock_timestamp())::float8, "
    "extract(epoch FROM clock_timestamp() - heartbeat_at)::float8"
)
CLAIM = (
    "UPDATE authority SET epoch = GREATEST(epoch + 1, %s), holder = %s, heartbeat_at = clock_timestamp(), "
    "expires_at = clock_timestamp() + make_interval(secs => %s) "
    "WHERE account_id = %s AND epoch = %s AND holder = %s AND heartbeat_at IS NOT DISTINCT FROM %s "
    "AND expires_at IS NOT DISTINCT FROM %s RETURNING epoch"
)
RENEW = (
    "UPDATE authority SET heartbeat_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => %s) "
    "WHERE account_id = %s AND epoch = %s RETURNING epoch"
)
RELEASE = (
    "UPDATE authority SET holder = '', heartbeat_at = clock_timestamp(), expires_at = NULL "
    "WHERE account_id = %s AND epoch = %s RETURNING epoch"
)
EVENT = (
    "INSERT INTO events (severity, component, code, message, account_id) VALUES (%s, 'authority', %s, %s, %s)"
)  # fmt: skip


def lease_s(check_interval_s: float) -> float:
    """For how long an engine that looks every so many seconds holds its account."""
    return max(INTERVALS * check_interval_s, LEAST_LEASE_S)


class Standing(NamedTuple):
    """Who holds an account. left_s: of the lease; below 0 when it has run out, None when there is none."""

    epoch: int
    holder: str
    heartbeat_at: datetime | None
    expires_at: datetime | None
    left_s: float | None
    heartbeat_age_s: float | None

    @property
    def process(self) -> Process | None:
        return parse_process(self.holder)

    @property
    def given_s(self) -> float | None:
        """For how long the lease was given; None when there is none."""
        if self.expires_at is None or self.heartbeat_at is None:
            return None
        return (self.expires_at - self.heartbeat_at).total_seconds()

    def is_as(self, other: Standing) -> bool:
        """Whether the row is as it was: nobody took, renewed or released it in between."""
        return self[:4] == other[:4]

    @property
    def since(self) -> str:
        """When the holder took it, by its own clock; empty where it does not say."""
        return self.holder.rpartition(" since ")[2] if " since " in self.holder else ""

    @property
    def shown(self) -> str:
        """The holder in a few words."""
        return self.process.shown if self.process is not None else self.holder

    @property
    def why_free(self) -> str:
        """Why authority may be taken, in words; empty while somebody else has it."""
        if not self.holder:
            return "nobody held it"
        if self.process == this_process():
            return "this process held it"
        if self.process is not None and self.process.is_gone:
            return "that process has ended"
        if self.left_s is None:
            return "it had no lease"
        return f"its lease ran out {-self.left_s:.1f} s ago" if self.left_s <= 0 else ""


def read_standing(connection: Connection[Any], account_id: int) -> Standing:
    """Who holds the account now. Locks nothing."""
    row = connection.execute(f"SELECT {STANDING} FROM authority WHERE account_id = %s", (account_id,)).fetchone()
    connection.rollback()
    if row is None:
        raise DatabaseError(f"There is no account {account_id} in this database.", "See: atb db sessions")
    return Standing(*row)


def claim(
    connection: Connection[Any], account_id: int, *, lease_s: float, silent: Standing | None = None
) -> int | Standing:  # fmt: skip
    """Take authority for `lease_s` seconds if it is free. Returns the new epoch; or who has it, and nothing is changed.

    silent: who was seen to renew nothing for as long as its lease was given, whatever the database's clock says by now.
    Of several who claim at once one gets it: what is changed is the row that was seen to be free.
    """
    for _ in range(RIVALS):
        seen = read_standing(connection, account_id)
        why = seen.why_free or (SILENT if silent is not None and seen.is_as(silent) else "")
        if not why:
            return seen
        epoch = _swap(connection, account_id, seen, lease_s)
        if epoch is not None:
            _note_claim(connection, account_id, seen, why)
            return epoch
    return read_standing(connection, account_id)


def _swap(connection: Connection[Any], account_id: int, seen: Standing, lease_s: float) -> int | None:
    """Put this process in the place of who was seen there; None where somebody was quicker. Does not commit."""
    import psycopg

    values = (
        int(time.time()), holder_text(), lease_s, account_id, seen.epoch, seen.holder, seen.heartbeat_at, seen.expires_at,
    )  # fmt: skip
    try:
        row = connection.execute(CLAIM, values).fetchone()
    except psycopg.errors.LockNotAvailable:  # who held it hangs in the middle of an append
        connection.rollback()
        row = by_force(connection, CLAIM, values)
    if row is None:
        connection.rollback()
    return None if row is None else int(row[0])


def _note_claim(connection: Connection[Any], account_id: int, seen: Standing, why: str) -> None:
    """The event of a claim, in its own transaction: the two are there together or not at all."""
    mine = this_process().shown
    claimed = ("info", "authority_claimed", f"{mine} holds the account now: {why}.")
    taken = ("warning", "authority_taken_over", f"{mine} took the account over from {seen.shown}: {why}.")
    quietly = not seen.holder or seen.process == this_process()
    connection.execute(EVENT, (*(claimed if quietly else taken), account_id))
    connection.commit()


def renew(connection: Connection[Any], account_id: int, epoch: int, lease_s: float) -> None:
    """The holder is at work: a heartbeat, and a lease from now on. Fenced where another has taken over.

    A lease that has run out is renewed, too, as long as nobody took the account: an outage of the database fences nobody.
    """
    row = _changed(connection, RENEW, (lease_s, account_id, epoch))
    connection.commit()
    if row is None:
        seen = read_standing(connection, account_id)
        whose = f"{seen.shown} has taken it over" if seen.holder else "another had authority over it meanwhile"
        raise Fenced(f"Account {account_id} is at epoch {seen.epoch}, this process has {epoch}: {whose}.")


def release(connection: Connection[Any], account_id: int, epoch: int) -> bool:
    """A clean end: from here on the account is free. False, and nothing changes, where another has it already."""
    row = _changed(connection, RELEASE, (account_id, epoch))
    if row is not None:
        text = f"{this_process().shown} gave the account back."
        connection.execute(EVENT, ("info", "authority_released", text, account_id))
    connection.commit()
    return row is not None


def _changed(connection: Connection[Any], query: str, values: Sequence[Any]) -> tuple[Any, ...] | None:
    """The row that the holder's own query changed; where somebody hangs with its lock, it can be tried again later."""
    import psycopg

    try:
        return connection.execute(query, values).fetchone()
    except psycopg.errors.LockNotAvailable:
        connection.rollback()
        raise DatabaseUnavailable("The account's row of authority is locked by another connection.") from None
