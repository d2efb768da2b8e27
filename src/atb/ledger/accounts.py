"""Accounts and who has authority over them."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from atb.core.errors import DatabaseError

if TYPE_CHECKING:
    from psycopg import Connection


class AccountRow(NamedTuple):
    """An account = venue + market + environment + key identity. Paper ones have a name of their own."""

    id: int
    name: str
    venue: str
    market: str
    environment: str
    quote: str
    key_identity: str
    created: str  # seconds since 1970, as Postgres writes them: a time that Python does not know must not stop anybody


TAKE = (
    "UPDATE authority SET epoch = GREATEST(epoch + 1, %s), holder = %s, heartbeat_at = now(), expires_at = NULL "
    "WHERE account_id = %s RETURNING epoch"
)
END_BLOCKERS = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE relation = 'authority'::regclass AND granted "
    "AND mode = 'RowExclusiveLock' AND pid <> pg_backend_pid() UNION ALL "
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE relation = 'authority'::regclass AND granted "
    "AND mode = 'RowShareLock' AND pid <> pg_backend_pid()"
)
COLUMNS = "id, name, venue, market, environment, quote, key_identity, extract(epoch FROM created_at)::text"


def open_account(
    connection: Connection[Any], name: str, *, venue: str, environment: str, quote: str, market: str = "spot",
    key_identity: str = "",
) -> AccountRow:  # fmt: skip
    """The account of that name, made now if there is none, with an authority that nobody holds."""
    with connection.transaction():
        connection.execute(
            "INSERT INTO accounts (name, venue, market, environment, key_identity, quote) VALUES (%s, %s, %s, %s, %s, %s) "
            "ON CONFLICT (name) DO NOTHING",
            (name, venue, market, environment, key_identity, quote),
        )
        row = connection.execute(f"SELECT {COLUMNS} FROM accounts WHERE name = %s", (name,)).fetchone()
        assert row is not None
        account = AccountRow(*row)
        if (account.venue, account.market, account.environment, account.quote) != (venue, market, environment, quote):
            raise DatabaseError(
                f"Account '{name}' is {account.environment} {account.market} at {account.venue} in {account.quote}, "
                f"not {environment} {market} at {venue} in {quote}.",
                "Choose another name for it.",
            )
        connection.execute(
            "INSERT INTO authority (account_id, epoch) VALUES (%s, 0) ON CONFLICT DO NOTHING", (account.id,)
        )
    return account


def take_authority(
    connection: Connection[Any], account_id: int, holder: str | None = None, *, insist: bool = False
) -> int:
    """Fence whoever holds the account: a higher epoch, in the name of `holder`. Returns the epoch.

    `insist`: end the connection of whoever holds the lock, such as an engine that hangs in the middle of an append.
    It is max(old + 1, unix time): a restored backup never goes back to an epoch that was used after it was made.
    """
    import psycopg

    values = (int(time.time()), this_process() if holder is None else holder, account_id)
    try:
        row = connection.execute(TAKE, values).fetchone()
    except psycopg.errors.LockNotAvailable:
        connection.rollback()
        if not insist:
            raise
        connection.execute(END_BLOCKERS)
        connection.commit()
        row = connection.execute(TAKE, values).fetchone()
    connection.commit()
    if row is None:
        raise DatabaseError(f"There is no account {account_id} in this database.", "See: atb db sessions")
    return int(row[0])


def this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def all_accounts(connection: Connection[Any]) -> list[AccountRow]:
    return [AccountRow(*row) for row in connection.execute(f"SELECT {COLUMNS} FROM accounts ORDER BY id")]


def next_session_id(connection: Connection[Any]) -> int:
    row = connection.execute("SELECT nextval('trading_sessions_id_seq')").fetchone()
    assert row is not None
    return int(row[0])
