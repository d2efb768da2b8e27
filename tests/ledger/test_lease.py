"""Who may take authority over an account, and when: against a real Postgres, by its clock."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from typing import Any

import psycopg
import pytest

from atb.core.errors import DatabaseError, Fenced
from atb.core.process import Process, parse_process, this_process
from atb.ledger.accounts import AccountRow, open_account, take_authority
from atb.ledger.connect import Where, connect
from atb.ledger.lease import Standing, claim, lease_s, read_standing, release, renew
from tests.ledger.conftest import NewAccount

Db = psycopg.Connection[Any]
ELSEWHERE = Process("web-2", 4711, "123", "another-kernel/4026531836/")


@pytest.fixture
def account(connection: Db, new_account: NewAccount) -> AccountRow:
    return new_account()[0]


def held_by(connection: Db, account: AccountRow, holder: object, lease: str | None = "30 s") -> None:
    """As if that process had taken it."""
    connection.execute(
        "UPDATE authority SET holder = %s, heartbeat_at = now(), expires_at = now() + %s::interval WHERE account_id = %s",
        (f"{holder} since 2025-11-21T12:00:00Z", lease, account.id),
    )
    connection.commit()


def claimed(connection: Db, account: AccountRow) -> int:
    epoch = claim(connection, account.id, lease_s=30)
    assert isinstance(epoch, int)
    return epoch


def refused(connection: Db, account: AccountRow) -> Standing:
    seen = claim(connection, account.id, lease_s=30)
    assert isinstance(seen, Standing)
    assert read_standing(connection, account.id)[:4] == seen[:4]  # nothing was changed
    return seen


def ended_process() -> Process:
    """A process that was, with the start that it had."""
    code = "from atb.core.process import this_process; print(this_process())"
    told = parse_process(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
    assert told is not None
    return told


def events(connection: Db, account: AccountRow) -> list[tuple[str, str]]:
    rows = connection.execute("SELECT severity, code FROM events WHERE account_id = %s ORDER BY id", (account.id,))
    return [(severity, code) for severity, code in rows]


def test_an_account_that_nobody_holds(connection: Db, where: Where) -> None:
    account = open_account(connection, "a new one", venue="paper", environment="paper", quote="USDT")
    connection.commit()
    epoch = claimed(connection, account)
    seen = read_standing(connection, account.id)
    assert seen.epoch == epoch and seen.process == this_process()
    assert seen.left_s is not None and 0 < seen.left_s <= 30
    assert datetime.fromisoformat(seen.since).tzinfo is not None
    assert events(connection, account) == [("info", "authority_claimed")]


def test_this_very_process_may_take_it_again(connection: Db, account: AccountRow) -> None:
    first = claimed(connection, account)
    assert claimed(connection, account) > first
    assert [severity for severity, _ in events(connection, account)] == ["info", "info"]


def test_somebody_s_lease_is_respected_until_it_runs_out(connection: Db, account: AccountRow) -> None:
    held_by(connection, account, ELSEWHERE)
    seen = refused(connection, account)
    assert (seen.shown, seen.since) == ("web-2 pid 4711", "2025-11-21T12:00:00Z")
    held_by(connection, account, ELSEWHERE, "-1 s")
    claimed(connection, account)
    assert events(connection, account) == [("warning", "authority_taken_over")]
    row = connection.execute("SELECT message FROM events ORDER BY id DESC LIMIT 1").fetchone()
    assert row is not None and "took the account over from web-2 pid 4711: its lease ran out 1." in row[0]


def test_an_account_is_opened_while_its_holder_hangs_in_the_middle_of_a_renewal(
    connection: Db, account: AccountRow, where: Where
) -> None:
    held_by(connection, account, ELSEWHERE)
    connection.execute("UPDATE authority SET heartbeat_at = now() WHERE account_id = %s", (account.id,))
    with connect(where, lock_timeout_s=0.5) as other:  # no COMMIT above: the row is locked
        opened = open_account(
            other, account.name, venue=account.venue, environment=account.environment, quote=account.quote
        )
        assert opened == account
    connection.rollback()


def test_a_process_of_this_host_that_has_ended_holds_nothing(connection: Db, account: AccountRow) -> None:
    held_by(connection, account, ended_process())
    claimed(connection, account)
    assert events(connection, account) == [("warning", "authority_taken_over")]


def test_a_zombie_has_ended(connection: Db, account: AccountRow) -> None:
    code = "from atb.core.process import this_process; print(this_process(), flush=True)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        holder = parse_process(child.stdout.read())  # to the end, and not waited for
        assert holder is not None
        held_by(connection, account, holder)
        while not holder.is_gone:
            pass
        claimed(connection, account)


def test_a_pid_that_is_another_process_s_by_now(connection: Db, account: AccountRow) -> None:
    """The parent of this process lives; what was started at another time under its number does not."""
    code = "import time; from atb.core.process import this_process; print(this_process(), flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        living = parse_process(child.stdout.readline())
        assert living is not None
        held_by(connection, account, living)
        refused(connection, account)
        held_by(connection, account, living._replace(started="1"))
        claimed(connection, account)
        child.kill()


@pytest.mark.parametrize("where_it_is", ["boot", "namespace"])
def test_a_process_of_another_container_or_host_may_live(connection: Db, account: AccountRow, where_it_is: str) -> None:
    """The same name of the host, and a pid that is nobody's here: its place tells that this means nothing."""
    ended = ended_process()
    boot, *rest = ended.place.split("/")
    place = "/".join(["another", *rest] if where_it_is == "boot" else [boot, "1", *rest[1:]])
    held_by(connection, account, ended._replace(place=place))
    refused(connection, account)


@pytest.mark.parametrize("holder", ["host:4711", "restored from dump 7", "x pid 99999999999 started 1 at y"])
def test_a_holder_that_names_no_process_counts_for_its_lease(connection: Db, account: AccountRow, holder: str) -> None:
    held_by(connection, account, holder)
    assert refused(connection, account).shown.startswith(holder)
    held_by(connection, account, holder, "-1 s")
    claimed(connection, account)


def test_authority_without_a_lease_counts_for_a_minute(connection: Db, account: AccountRow) -> None:
    """An emergency close on another host is at work; later it is not."""
    held_by(connection, account, ELSEWHERE, None)
    left_s = refused(connection, account).left_s
    assert left_s is not None and 0 < left_s <= 60
    connection.execute(
        "UPDATE authority SET heartbeat_at = now() - interval '61 s' WHERE account_id = %s", (account.id,)
    )
    connection.commit()
    claimed(connection, account)


def test_a_row_that_says_nothing_of_time_is_no_lease(connection: Db, account: AccountRow) -> None:
    held_by(connection, account, ELSEWHERE, None)
    connection.execute("UPDATE authority SET heartbeat_at = NULL WHERE account_id = %s", (account.id,))
    connection.commit()
    claimed(connection, account)


def test_renewing_moves_the_end_of_the_lease(connection: Db, account: AccountRow) -> None:
    epoch = claimed(connection, account)
    before = read_standing(connection, account.id)
    renew(connection, account.id, epoch, 50)
    after = read_standing(connection, account.id)
    assert before.expires_at and after.expires_at and after.expires_at > before.expires_at
    assert before.heartbeat_at and after.heartbeat_at and after.heartbeat_at > before.heartbeat_at
    assert after.epoch == epoch and after.left_s is not None and after.left_s > 45


def test_a_lease_that_ran_out_is_renewed_if_nobody_took_it(connection: Db, account: AccountRow) -> None:
    epoch = claimed(connection, account)
    connection.execute(
        "UPDATE authority SET expires_at = now() - interval '1 day' WHERE account_id = %s", (account.id,)
    )
    connection.commit()
    renew(connection, account.id, epoch, 30)
    assert (read_standing(connection, account.id).left_s or 0) > 25


def test_who_was_taken_over_is_fenced(connection: Db, account: AccountRow) -> None:
    epoch = claimed(connection, account)
    take_authority(connection, account.id, f"{ELSEWHERE}")
    with pytest.raises(Fenced, match="web-2 pid 4711 has taken it over"):
        renew(connection, account.id, epoch, 30)
    before = read_standing(connection, account.id)
    assert not release(connection, account.id, epoch)
    assert read_standing(connection, account.id)[:4] == before[:4]


def test_a_release_leaves_the_account_to_anybody(connection: Db, account: AccountRow) -> None:
    epoch = claimed(connection, account)
    assert release(connection, account.id, epoch)
    seen = read_standing(connection, account.id)
    assert (seen.epoch, seen.holder, seen.why_free) == (epoch, "", "nobody held it")
    assert events(connection, account)[-1] == ("info", "authority_released")
    assert claimed(connection, account) > epoch


def test_a_claim_is_of_the_row_that_was_seen(where: Where, connection: Db, account: AccountRow) -> None:
    """Its lease had run out when it was looked at; its holder renews it before the claim arrives."""
    from atb.ledger import lease

    held_by(connection, account, ELSEWHERE, "-1 s")
    seen = read_standing(connection, account.id)
    assert seen.why_free
    renew(connection, account.id, seen.epoch, 30)
    assert lease._swap(connection, account.id, seen, 30) is None
    refused(connection, account)


def test_an_account_that_is_not_there(connection: Db) -> None:
    with pytest.raises(DatabaseError, match="no account 999999"):
        claim(connection, 999_999, lease_s=30)


def test_a_holder_s_row_that_is_locked_can_be_tried_again(where: Where, connection: Db, account: AccountRow) -> None:
    epoch = claimed(connection, account)
    with connect(where) as hanging:
        hanging.execute("SELECT 1 FROM authority WHERE account_id = %s FOR UPDATE", (account.id,))
        connection.execute("SET lock_timeout = '50ms'")
        connection.commit()
        with pytest.raises(DatabaseError, match="locked by another connection"):
            renew(connection, account.id, epoch, 30)
        connection.execute("RESET lock_timeout")
        connection.commit()
    renew(connection, account.id, epoch, 30)


def test_how_long_a_lease_is() -> None:
    assert [lease_s(interval) for interval in (0.5, 5, 15, 60)] == [15, 15, 45, 180]
