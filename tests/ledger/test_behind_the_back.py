"""What somebody with a superuser's rights changes behind the ledger's back is found, and named."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from atb.core.words import counted
from atb.ledger.accounts import AccountRow, all_accounts, next_session_id, open_account, take_authority
from atb.ledger.audit import audit, audit_common, rebuild
from atb.ledger.entries import Entry
from atb.ledger.journal import append
from tests.ledger.conftest import NewAccount
from tests.ledger.histories import BEGIN
from tests.ledger.test_journal import deposit, one, told

Db = psycopg.Connection[Any]
ANOTHER = {
    "bigint": "coalesce({0}, 0) + 1000", "text": "{0} || 'x'", "bytea": "sha256({0})",
    "timestamp with time zone": "{0} + interval '1 microsecond'",
}  # fmt: skip


def columns_of(connection: Db, table: str) -> list[tuple[str, str]]:
    found = connection.execute(
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name = %s ORDER BY ordinal_position",
        (table,),
    ).fetchall()
    connection.rollback()
    return found


def behind_the_back(connection: Db, statement: str) -> None:
    """Change exactly one row, with triggers and foreign keys switched off."""
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        assert connection.execute(statement).rowcount == 1


def three_entries(connection: Db, new_account: NewAccount) -> AccountRow:
    account, epoch = new_account()
    append(connection, account.id, epoch, [deposit("first", 1), deposit("second", 2), deposit("third", 3)])
    return account


def reread(connection: Db, account: AccountRow) -> AccountRow:
    (found,) = [each for each in all_accounts(connection) if each.id == account.id]
    connection.rollback()
    return found


def test_every_column_of_an_entry_is_covered(connection: Db, new_account: NewAccount) -> None:
    columns = columns_of(connection, "entries")
    assert {"account_id", "seq", "body", "recorded_at"} <= {name for name, _ in columns}
    for name, kind in columns:
        account = three_entries(connection, new_account)
        assert told(connection, account) == []
        change = f"UPDATE entries SET {name} = {ANOTHER[kind].format(name)}"
        behind_the_back(connection, f"{change} WHERE account_id = {account.id} AND seq = 2")
        (found,) = told(connection, account)
        assert found.startswith("entries: Entry 2 "), (name, found)
    behind_the_back(connection, "DELETE FROM entries WHERE account_id NOT IN (SELECT id FROM accounts)")


def test_a_time_that_python_does_not_know_is_a_change_like_any(connection: Db, new_account: NewAccount) -> None:
    for table, seq, place in (
        ("entries", 2, "entries: Entry 2 (second) was changed"),
        ("adjustments", 3, "adjustments: seq 3: at is"),
    ):
        for when in ("infinity", "-infinity", "20000-01-01"):
            account = three_entries(connection, new_account)
            behind_the_back(
                connection, f"UPDATE {table} SET at = '{when}' WHERE account_id = {account.id} AND seq = {seq}"
            )
            (found,) = told(connection, account)
            assert found.startswith(place), found


def test_the_parts_of_an_entry_cannot_pass_for_each_other(connection: Db, new_account: NewAccount) -> None:
    """What is moved from the end of one column to the beginning of the next is a change."""
    account, epoch = new_account()
    append(connection, account.id, epoch, [deposit("a|adjustment", 1)])
    change = "UPDATE entries SET id = 'a', kind = 'adjustment|adjustment'"
    behind_the_back(connection, f"{change} WHERE account_id = {account.id}")
    assert told(connection, account) == ["entries: Entry 1 (a) was changed after it was written."]


def test_when_an_entry_was_recorded_is_said_by_who_wrote_it(connection: Db, new_account: NewAccount) -> None:
    """One moment an append: not the database's default."""
    connection.execute("ALTER TABLE entries ALTER recorded_at DROP DEFAULT")
    account = three_entries(connection, new_account)
    connection.execute("ALTER TABLE entries ALTER recorded_at SET DEFAULT now()")
    connection.commit()
    rows = connection.execute(
        "SELECT recorded_at, clock_timestamp() FROM entries WHERE account_id = %s", (account.id,)
    ).fetchall()
    assert len({row[0] for row in rows}) == 1
    assert 0 <= (rows[0][1] - rows[0][0]).total_seconds() < 60


FACTS = {
    "name": "name || ' and co.'", "venue": "'coinbase'", "market": "'futures'", "environment": "'real'",
    "key_identity": "'another key'", "quote": "'EUR'", "created_at": "created_at - interval '1 microsecond'",
}  # fmt: skip


def test_every_fact_of_an_account_is_covered(connection: Db, new_account: NewAccount) -> None:
    names = {name for name, _ in columns_of(connection, "accounts")}
    assert names == {"id", *FACTS}
    for name, value in [*FACTS.items(), ("created_at", "'infinity'")]:
        account = three_entries(connection, new_account)
        behind_the_back(connection, f"UPDATE accounts SET {name} = {value} WHERE id = {account.id}")
        changed = reread(connection, account)
        (found,) = told(connection, changed)
        assert found.startswith("entries: Entry 1 (first) does not follow from the account's facts"), (name, found)
        assert "accounts was changed" in found
        assert rebuild(connection, changed).problems != []


def test_an_epoch_that_went_back_is_named_and_mended(connection: Db, new_account: NewAccount) -> None:
    account = three_entries(connection, new_account)
    epoch = one(connection, "SELECT max(epoch) FROM entries WHERE account_id = %s", account.id)
    behind_the_back(connection, f"UPDATE authority SET epoch = {epoch - 1} WHERE account_id = {account.id}")
    assert told(connection, account) == [
        f"authority: epoch is {epoch - 1}, but entry 1 (first) was written at epoch {epoch}."
    ]
    assert rebuild(connection, account).problems == []
    mended = one(connection, "SELECT epoch FROM authority WHERE account_id = %s", account.id)
    assert mended > epoch  # whoever held it must take it again
    assert told(connection, account) == []


@pytest.mark.parametrize("halted", [False, True])
def test_an_authority_that_is_gone_is_named_and_mended(connection: Db, new_account: NewAccount, halted: bool) -> None:
    account, epoch = new_account()
    halt = {"action": "halt", "reason": "drawdown", "by": "test"}
    append(connection, account.id, epoch, [Entry("halt", "control", BEGIN, halt)] if halted else [deposit("first", 1)])
    behind_the_back(connection, f"DELETE FROM authority WHERE account_id = {account.id}")
    assert told(connection, account) == ["authority: its row is missing."]
    assert rebuild(connection, account).problems == []
    assert told(connection, account) == []
    assert take_authority(connection, account.id) > epoch


def test_the_reason_of_a_halt_is_covered(connection: Db, new_account: NewAccount) -> None:
    account = three_entries(connection, new_account)
    behind_the_back(connection, f"UPDATE authority SET halt_reason = 'x' WHERE account_id = {account.id}")
    assert told(connection, account) == ["authority: halt_reason is 'x', by the ledger ''."]


def test_an_account_without_entries_is_whole(connection: Db) -> None:
    account = open_account(connection, "nothing yet", venue="paper", environment="paper", quote="USDT")
    connection.commit()
    assert audit(connection, account).problems == []
    behind_the_back(connection, f"DELETE FROM authority WHERE account_id = {account.id}")
    assert told(connection, account) == ["authority: its row is missing."]


def common(connection: Db) -> list[str]:
    return [problem.said for problem in audit_common(connection)]


def test_what_an_account_that_is_gone_has_left_is_named(connection: Db, new_account: NewAccount) -> None:
    assert common(connection) == []
    account = three_entries(connection, new_account)
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute("CREATE TEMP TABLE kept AS SELECT * FROM accounts WHERE id = %s", (account.id,))
        connection.execute("DELETE FROM accounts WHERE id = %s", (account.id,))
    of = f"account {account.id}, "
    counts = {"account_balances": 3, "account_state": 1, "adjustments": 3, "authority": 1, "entries": 3}
    assert common(connection) == [
        f"{of}{name}: {counted(count, 'row')} of an account that is gone." for name, count in counts.items()
    ]
    connection.execute("INSERT INTO accounts OVERRIDING SYSTEM VALUE SELECT * FROM kept")
    connection.commit()
    assert common(connection) == told(connection, account) == []


@pytest.mark.parametrize("value", ["1, false", "{0}, false", "{0} - 1, true"])
def test_session_numbers_that_would_be_given_twice(connection: Db, new_account: NewAccount, value: str) -> None:
    account, epoch = new_account()
    number = next_session_id(connection)
    body = {"action": "open", "session_id": number, "strategy": "s", "mode": "paper"}
    append(connection, account.id, epoch, [Entry("s", "session", BEGIN, body)])
    assert common(connection) == []
    connection.execute(f"SELECT setval('trading_sessions_id_seq', {value.format(number)})")
    connection.commit()
    (found,) = common(connection)
    assert found.endswith(f"but there is a session {number} already.")
    assert rebuild(connection, account).problems == []
    assert common(connection) == []
    assert next_session_id(connection) == number + 1
