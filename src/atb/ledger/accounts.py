"""Accounts and who has authority over them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from atb.core.errors import DatabaseError
from atb.core.process import this_process

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
# Of a session that waits for a row: whoever has it, or is before it in the queue for it. Only the lock manager knows: the
# row's xmax may be a multixact, whose number may be that of somebody's transaction.
END_BLOCKERS = (
    "SELECT pg_terminate_backend(blocker, 5000) FROM pg_locks w, unnest(pg_blocking_pids(w.pid)) AS blocker "
    "WHERE w.pid = %s AND NOT w.granted AND w.locktype IN ('transactionid', 'tuple')"
)
LOOK_EVERY_S = 0.05
LATER_THAN_NOW = (
    "SELECT max(at) FROM ((SELECT at FROM entries WHERE account_id = %s ORDER BY seq DESC LIMIT 1) UNION ALL "
    "SELECT entry_time FROM positions WHERE account_id = %s AND status = 'OPEN') AS told WHERE at > %s AND at < %s"
)
MOST_SET_BACK = timedelta(days=1)
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
        # Asked first: an INSERT waits for whoever changes that row, such as an engine that hangs while it renews its lease.
        connection.execute(
            "INSERT INTO authority (account_id, epoch) SELECT %(id)s, 0 "
            "WHERE NOT EXISTS (SELECT FROM authority WHERE account_id = %(id)s) ON CONFLICT DO NOTHING",
            {"id": account.id},
        )
    return account


def take_authority(
    connection: Connection[Any], account_id: int, holder: str | None = None, *, insist: bool = False
) -> int:
    """Fence whoever holds the account, whether it is free or not: a higher epoch, in the name of `holder`, without a lease.
    Returns the epoch. (`lease.claim` waits for its turn.)

    `insist`: end the connection of whoever holds the account's lock, such as an engine that hangs in the middle of an append.
    It is max(old + 1, unix time): a restored backup never goes back to an epoch that was used after it was made.
    """
    import psycopg

    values = (int(time.time()), holder_text() if holder is None else holder, account_id)
    try:
        row = connection.execute(TAKE, values).fetchone()
    except psycopg.errors.LockNotAvailable:
        connection.rollback()
        if not insist:
            raise
        row = by_force(connection, TAKE, values)
    connection.commit()
    if row is None:
        raise DatabaseError(f"There is no account {account_id} in this database.", "See: atb db sessions")
    return int(row[0])


def by_force(connection: Connection[Any], query: str, values: Sequence[Any]) -> tuple[Any, ...] | None:
    """The row of a query that takes authority, while another connection ends those it waits for: they are writers of this
    account, and of no other."""
    from concurrent.futures import ThreadPoolExecutor, wait

    import psycopg

    info = connection.info
    with (
        psycopg.connect(info.dsn, password=info.password or None, autocommit=True) as watcher,
        ThreadPoolExecutor(1) as pool,
    ):
        taking = pool.submit(lambda: connection.execute(query, values).fetchone())
        while wait([taking], LOOK_EVERY_S).not_done:
            watcher.execute(END_BLOCKERS, (info.backend_pid,))
        return taking.result()


def holder_text() -> str:
    """This process, as it stands in `authority.holder`: so that another one can tell whether it lives."""
    return f"{this_process()} since {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def all_accounts(connection: Connection[Any]) -> list[AccountRow]:
    return [AccountRow(*row) for row in connection.execute(f"SELECT {COLUMNS} FROM accounts ORDER BY id")]


def now_and_not_before(connection: Connection[Any], account_id: int) -> datetime:
    """Now; where this host's clock was set back, when the account was last told of something. So an exit does not come
    before its entry, and the exchange's own fill of it finds it. (A clock that is wrong by more than a day is another matter.)
    """
    now = datetime.now(UTC)
    row = connection.execute(LATER_THAN_NOW, (account_id, account_id, now, now + MOST_SET_BACK)).fetchone()
    connection.rollback()
    return now if row is None or row[0] is None else cast("datetime", row[0])


def next_session_id(connection: Connection[Any]) -> int:
    row = connection.execute("SELECT nextval('trading_sessions_id_seq')").fetchone()
    assert row is not None
    return int(row[0])
