"""A disk that is full under the server: appends fail with one clear message, whole, and go on when there is room."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from atb.core.errors import DatabaseError, DatabaseUnavailable
from atb.ledger.audit import audit
from atb.ledger.connect import Where, connect
from atb.ledger.connect import embedded as where_of
from atb.ledger.embedded import living, start, stop
from atb.ledger.entries import Entry
from atb.ledger.journal import append
from atb.ledger.migrate import migrate
from atb.ledger.steady import SteadyJournal
from tests.database import MIGRATIONS, Book, book
from tests.integration.shell import Shell
from tests.ledger.conftest import FIRST_PORT
from tests.ledger.victim import wait_until

Db = psycopg.Connection[Any]
SEGMENT = 16 << 20  # the log grows by files of this size


class Disk:
    """A small disk with a server on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.filler = folder, folder / "home", folder / "filler"
        self.where = self.start()
        migrate(self.where, MIGRATIONS)

    def start(self) -> Where:
        return where_of(start(self.home, first_port=FIRST_PORT + 100))

    def fill(self, but: int = 0) -> None:
        """Leave only so many bytes."""
        block = b"x" * os.statvfs(self.folder).f_frsize
        with self.filler.open("wb", buffering=0) as file:
            while shutil.disk_usage(self.folder).free > but:
                file.write(block)

    def free(self) -> None:
        self.filler.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=200m,mode=755", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no small disk can be mounted here (root can): a full disk was NOT tested")
    try:
        yield Disk(folder)
    finally:
        (folder / "filler").unlink(missing_ok=True)
        stop(folder / "home")
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def connection(disk: Disk) -> Iterator[Db]:
    disk.start()
    with closing(connect(disk.where)) as connection:
        yield connection
    disk.free()


def purchases(made: Book, number: int, size: int) -> list[Entry]:
    return [made.fill("buy", "1", "100", f"{number}-{each}", number) for each in range(size)]


def until_full(made: Book, size: int) -> tuple[int, list[Entry], DatabaseError]:
    """Append until it fails: how many fills were acknowledged, the ones that failed, and how."""
    for number in count():
        batch = purchases(made, number, size)
        try:
            made.append(*batch)
        except DatabaseError as error:
            return number * size, batch, error
    raise AssertionError


def heads(connection: Db, made: Book) -> tuple[int, int]:
    """How many entries there are; the ledger is whole."""
    found = audit(connection, made.account)
    assert found.problems == []
    return found.entries, found.fills


@pytest.mark.parametrize("size", [1, 50])
def test_an_append_on_a_full_disk_writes_nothing_and_succeeds_when_there_is_room(
    disk: Disk, connection: Db, size: int
) -> None:
    made = book(connection, f"paper:full {size}")
    disk.fill()
    acknowledged, batch, error = until_full(made, size)
    assert isinstance(error, DatabaseUnavailable) and "Make room" in error.hint
    assert error.what.startswith(f"Nothing was written to the ledger of account {made.account.id}: the disk of the ")
    before = heads(connection, made)
    assert before[1] == acknowledged
    with pytest.raises(DatabaseUnavailable, match="the disk of the database is full"):
        made.append(*batch)
    assert heads(connection, made) == before
    disk.free()
    made.append(*batch)
    assert heads(connection, made) == (before[0] + size, before[1] + size)


def test_what_an_operator_sees_of_a_full_disk(disk: Disk, connection: Db, tmp_path: Path) -> None:
    made = book(connection, "paper:operator")
    shell = Shell(tmp_path, ATB_HOME=str(disk.home))
    close = ("db", "close-position", "--account", made.account.name, "--symbol", "BTCUSDT", "--exit-price", "100")
    rows = [f"2025-11-22T10:00:00,BTCUSDT,buy,1,100,csv-{each}" for each in range(300)]
    shell.write("fills.csv", "\n".join(["time,symbol,side,qty,price,trade_id", *rows]))
    book_all = ("db", "import-trades", "fills.csv", "--account", made.account.name)
    disk.fill()
    until_full(made, 1)
    before = heads(connection, made)
    for ran in (shell(*close), shell(*book_all)):
        assert ran.code == 6 and ran.out == ""
        error, hint = ran.err.splitlines()  # one message, and what to do
        assert "Nothing was written" in error and "the disk of the database is full" in error and "Make room" in hint
    assert heads(connection, made) == before
    assert "Ledger whole" in shell("db", "verify", ok=True).out  # reading needs no room
    disk.free()
    assert shell(*book_all, ok=True).out == "Booked 300; 0 were booked already.\n"
    assert shell(*close, ok=True).out.count("BTCUSDT") == 1
    assert "Ledger whole" in shell("db", "verify", ok=True).out


def fill_log(disk: Disk, made: Book) -> tuple[int, list[Entry]]:
    """Append until the log needs another file, for which there is no room: the server panics, and cannot come back.

    How many fills were acknowledged, and those of which nobody knows.
    """
    with connect(disk.where) as connection:
        row = connection.execute("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn) %% %s", (SEGMENT,)).fetchone()
        assert row is not None
        left = SEGMENT - int(row[0]) - 100_000
        connection.execute("SELECT pg_logical_emit_message(false, 'filler', repeat('x', %s))", (max(0, left),))
    disk.fill(but=SEGMENT * 3 // 4)
    acknowledged, batch, error = until_full(made, 50)
    assert isinstance(error, DatabaseUnavailable) and "whether it was is not known" in error.what
    wait_until(lambda: living(disk.home) is None, "the server never ended")
    return acknowledged, batch


def test_a_log_on_a_full_disk_ends_the_server_and_nothing_is_lost_or_doubled(disk: Disk, connection: Db) -> None:
    made = book(connection, "paper:log")
    acknowledged, batch = fill_log(disk, made)
    with pytest.raises(DatabaseError, match="No space left on device") as error:
        disk.start()
    assert "Free some space, then: atb db start" in error.value.hint
    with pytest.raises(DatabaseUnavailable, match="Nothing listens"):
        connect(disk.where, patience_s=0)
    disk.free()
    disk.start()
    with connect(disk.where) as again:
        assert heads(again, made)[1] - acknowledged in (0, len(batch))
        append(again, made.account.id, made.epoch, batch)
        assert heads(again, made)[1] == acknowledged + len(batch)


@pytest.mark.slow
def test_an_engine_goes_on_by_itself_when_there_is_room_and_its_server_is_back(disk: Disk, connection: Db) -> None:
    made = book(connection, "paper:engine")
    outages: list[str] = []

    def mend(error: DatabaseError) -> None:
        outages.append(error.what)
        disk.free()
        disk.start()

    journal = SteadyJournal(disk.where, made.account.id, made.epoch, patience_s=60, on_outage=mend)
    acknowledged, batch = fill_log(disk, made)
    journal.append(batch)
    assert len(journal.append(purchases(made, 999_999, 1))) == 1
    journal.close()
    assert outages
    with connect(disk.where) as again:
        assert heads(again, made)[1] == acknowledged + len(batch) + 1
        rows = again.execute("SELECT message FROM events WHERE account_id = %s", (made.account.id,)).fetchall()
    ((message,),) = rows
    assert message.startswith("Back after ") and "Nothing listens" in message
