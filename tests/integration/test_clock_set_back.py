"""The clock of a host or of a database that is set back: what goes on as before, and what takes care."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from atb.core.process import Process
from atb.ledger.accounts import now_and_not_before, take_authority
from atb.ledger.audit import audit
from atb.ledger.connect import from_url
from atb.ledger.entries import Entry
from atb.ledger.journal import append
from atb.ledger.lease import claim, read_standing, renew
from atb.ledger.line import Line
from atb.ops.closing import Closed, open_positions, record_exit
from tests.database import Book, Postgres, book
from tests.engine_process import Running
from tests.integration.shell import Shell

ELSEWHERE = Process("web-2", 4711, "123", "another-kernel/4026531836/")
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


@pytest.fixture
def url(server: Postgres) -> str:
    return server.url(server.database())


def at(entry: Entry, when: datetime) -> Entry:
    return entry._replace(at=when)


def held_in_the_future(connection: psycopg.Connection[Any], account_id: int, ahead: timedelta = HOUR) -> None:
    """As the row stands after the database's clock was set back by so much."""
    connection.execute(
        "UPDATE authority SET heartbeat_at = heartbeat_at + %s, expires_at = expires_at + %s WHERE account_id = %s",
        (ahead, ahead, account_id),
    )
    connection.commit()


def record(line: Line, made: Book, quantity: str | None = None) -> Closed:
    (held,) = open_positions(line.connection, made.account)
    qty = None if quantity is None else Decimal(quantity)
    return record_exit(line, held, price=Decimal(110), quantity=qty, reason="manual_close", evidence="test")


def test_an_exit_by_hand_is_after_its_entry_and_its_own_fill_finds_it(url: str) -> None:
    """The exchange's clock is right, and two hours ahead of the host's."""
    right = datetime.now(UTC) + 2 * HOUR
    with psycopg.connect(url) as connection, Line(from_url(url)) as line:
        made = book(connection, "binance-main", "real")
        made.append(at(made.fill("buy", "1", "100", "1"), right - MINUTE))
        record(line, made)
        made.append(at(made.fill("sell", "1", "111", "2"), right))
        assert audit(connection, made.account).problems == []
        trades = connection.execute("SELECT exit_price, exit_time >= entry_time FROM trades").fetchall()
        assert trades == [(111, True)] and open_positions(connection, made.account) == []


def test_now_is_not_before_what_was_told_last_unless_that_is_out_of_reason(url: str) -> None:
    with psycopg.connect(url) as connection:
        made, now = book(connection), datetime.now(UTC)
        assert now <= now_and_not_before(connection, made.account.id) < now + HOUR
        made.append(at(made.mark(1, BTCUSDT="1"), now + HOUR))
        assert now_and_not_before(connection, made.account.id) == now + HOUR
        made.append(at(made.mark(2, BTCUSDT="1"), now + timedelta(days=3)))
        assert now_and_not_before(connection, made.account.id) < now + HOUR


def test_an_epoch_never_goes_back(url: str) -> None:
    with psycopg.connect(url) as connection:
        made = book(connection)
        ahead = int(time.time()) + 7200  # taken while the clock was two hours ahead
        connection.execute("UPDATE authority SET epoch = %s, holder = ''", (ahead,))
        connection.commit()
        assert take_authority(connection, made.account.id) == ahead + 1
        connection.execute("UPDATE authority SET holder = ''")
        connection.commit()
        assert claim(connection, made.account.id, lease_s=30) == ahead + 2
        append(connection, made.account.id, ahead + 2, [made.mark(1, BTCUSDT="1")])
        assert audit(connection, made.account).problems == []


def test_a_living_holder_sets_its_heartbeat_right_with_the_next_one(url: str) -> None:
    with psycopg.connect(url) as connection:
        made = book(connection)
        epoch = claim(connection, made.account.id, lease_s=30)
        assert isinstance(epoch, int)
        held_in_the_future(connection, made.account.id)
        assert (read_standing(connection, made.account.id).left_s or 0) > 3600
        renew(connection, made.account.id, epoch, 30)
        seen = read_standing(connection, made.account.id)
        assert seen.left_s is not None and seen.left_s <= 30 and (seen.heartbeat_age_s or 0) >= 0


def test_a_dead_holder_of_another_host_is_followed_after_its_lease_and_not_after_the_hour(
    url: str, tmp_path: Path
) -> None:
    with psycopg.connect(url) as connection:
        made = book(connection)
        assert isinstance(claim(connection, made.account.id, lease_s=2), int)
        connection.execute("UPDATE authority SET holder = %s", (f"{ELSEWHERE} since 2025-11-21T12:00:00Z",))
        held_in_the_future(connection, made.account.id)
        with Running(url, made.account.name, tmp_path) as started:
            started.until("authority_waited_for")
            started.until("holds")
        ((message,),) = connection.execute("SELECT message FROM events WHERE code = 'authority_taken_over'").fetchall()
        assert "took the account over from web-2 pid 4711: it renewed nothing for as long as its lease" in message


@pytest.mark.slow
def test_a_living_one_is_not_taken_over_whatever_the_clock_does(url: str, tmp_path: Path) -> None:
    with psycopg.connect(url) as connection, Running(url, "paper:one", tmp_path, lease_s=5) as first:
        first.until("holds")
        ((number,),) = connection.execute("SELECT id FROM accounts").fetchall()
        with Running(url, "paper:one", tmp_path, wait_s=7) as second:
            second.until("authority_waited_for")
            for hours in (1, 5):
                held_in_the_future(connection, number, hours * HOUR)
                time.sleep(0.5)
            assert second.ended()[0] == 9
        assert first.process.poll() is None


def test_what_is_imported_is_not_in_the_future(url: str, tmp_path: Path) -> None:
    """An engine asks for executions since the latest that it knows: such a one would hide those that follow."""
    shell = Shell(tmp_path, DATABASE_URL=url)
    with psycopg.connect(url) as connection:
        book(connection)
    when = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%dT%H:%M:%SZ}"
    shell.write("fills.csv", f"time,symbol,side,qty,price,trade_id\n{when},BTCUSDT,buy,1,100,7\n")
    ran = shell("db", "import-trades", "fills.csv")
    assert ran.code == 3 and ran.message == f"fills.csv, line 2: time {when} is in the future."
