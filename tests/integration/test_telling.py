"""Events on their way: the log file through rotations and full disks, the table through an outage, no secrets, no waiting."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from atb.core.timeframe import ManualClock
from atb.execution.executor import Event
from atb.ledger import embedded
from atb.ledger.connect import Where, connect
from atb.live.event_table import WAITING, EventTable
from atb.live.log_file import NAME, LogFile
from atb.live.redact import Redactor
from atb.live.status import Status, Told
from atb.live.teller import BEFORE_THE_TABLE, Teller
from tests.database import Book, Postgres, book, postgres
from tests.integration.shell import TIMEOUT_S, without_powers
from tests.unit.test_health import ABOUT, NOW

SECRET = "very-secret-key"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogFile]:
    made = LogFile(tmp_path / "logs" / NAME)
    yield made
    made.close()


def told(message: str, at_ms: int = NOW, severity: str = "info", code: str = "x") -> Told:
    return Told(at_ms, severity, "LiveTradingEngine", code, message)


# --- the log file


def test_the_runbooks_rotation_loses_nothing_while_lines_are_written(log: LogFile) -> None:
    stop, count = threading.Event(), 0

    def write() -> None:
        nonlocal count
        while not stop.is_set():
            assert log.write(f"line {count}")
            count += 1

    writer = threading.Thread(target=write)
    writer.start()
    folder = log.path.parent
    for i in range(20):
        time.sleep(0.02)
        subprocess.run(["mv", NAME, f"{NAME}.{i}"], cwd=folder, check=True)
        subprocess.run(["gzip", f"{NAME}.{i}"], cwd=folder, check=True)
    time.sleep(0.02)
    stop.set()
    writer.join()
    texts = [gzip.decompress(path.read_bytes()).decode() for path in folder.glob("*.gz")] + [log.path.read_text()]
    seen = [int(line.split()[1]) for text in texts for line in text.splitlines()]
    assert set(seen) == set(range(count)) and count > 100
    assert len(seen) - count <= 20  # one that was written while the file was moved is in both
    assert re.fullmatch(r"(line \d+\n)+", log.path.read_text())


def test_after_a_move_the_next_line_is_in_the_new_file_only(log: LogFile) -> None:
    log.write("before")
    moved = log.path.rename(log.path.with_suffix(".1"))
    log.write("after")
    assert (moved.read_text(), log.path.read_text()) == ("before\n", "after\n")
    log.path.unlink()
    log.path.parent.joinpath("trading.1").unlink()
    log.path.parent.rmdir()
    log.write("and on")
    assert log.path.read_text() == "and on\n"


def test_a_line_that_is_written_while_the_file_is_moved_is_in_the_new_one_too(
    log: LogFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write("before")
    write = os.write

    def moved_just_then(file: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", write)
        log.path.rename(log.path.with_suffix(".1"))
        return write(file, data)

    monkeypatch.setattr(os, "write", moved_just_then)
    assert log.write("now")
    assert log.path.read_text() == "now\n" and log.path.with_suffix(".1").read_text() == "before\nnow\n"


def test_two_engines_share_a_file(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from atb.live.log_file import LogFile\n"
        f"log = LogFile(Path({str(tmp_path / NAME)!r}))\n"
        "for i in range(3000): log.write(sys.argv[1] * 200 + str(i))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script, letter]) for letter in "ab"]
    assert [process.wait(TIMEOUT_S) for process in processes] == [0, 0]
    lines = (tmp_path / NAME).read_text().splitlines()
    assert len(lines) == 6000 and all(re.fullmatch(r"(a{200}|b{200})\d+", line) for line in lines)


def test_what_the_operator_greps_for_is_found(log: LogFile) -> None:
    tell = Teller(Status(ABOUT), ManualClock(NOW), Redactor(), log)
    tell(Event("info", "stop_loss_placed", "BTCUSDT stop_loss=47000 for 0.5"))
    tell(Event("error", "order_refused", "a reason\nin two lines"))
    tell.tell(Event("warning", "no_health_port", "taken"), "HealthServer")
    tell.close()

    def grep(*args: str) -> list[str]:
        done = subprocess.run(
            ["grep", *args, "logs/trading.log"], cwd=log.path.parents[1], capture_output=True, text=True
        )
        return done.stdout.splitlines()

    assert grep("stop_loss") == [
        "2025-11-21T15:13:20.000Z INFO     LiveTradingEngine stop_loss_placed: BTCUSDT stop_loss=47000 for 0.5"
    ]
    assert grep("-i", "error") == [
        r"2025-11-21T15:13:20.000Z ERROR    LiveTradingEngine order_refused: a reason\nin two lines"
    ]
    assert len(grep("LiveTradingEngine")) == 2 and len(grep("2025-11-21")) == 3


class Limited:
    """A file system that is full after so many bytes: a real one, of the kernel's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("no file system of our own may be mounted here: a disk that fills up was NOT tested")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = Limited(tmp_path / "disk").folder
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_up_and_is_emptied(small_disk: Path) -> None:
    ballast, log, status = small_disk / "ballast", LogFile(small_disk / NAME), Status(ABOUT)
    tell = Teller(status, ManualClock(NOW), Redactor(), log)
    tell(Event("info", "x", "before"))
    ballast.write_bytes(b"x" * 4096 * 14)
    for i in range(60):
        tell(Event("info", "x", f"{i} " + "y" * 200))
    assert "No space left" in status.snapshot.log.error
    ballast.unlink()
    tell.tick()
    assert status.snapshot.log == (True, NOW, "")
    lines = log.path.read_text().splitlines()
    numbers = [
        int(found[1])
        for line in lines
        if (found := re.fullmatch(r"2025\S+ INFO +LiveTradingEngine x: (\d+) y{200}", line))
    ]
    assert len(lines) > 62  # half a line was written before the disk was full
    assert numbers == list(range(60)) and "log_back" in log.path.read_text()
    tell.close()


def test_a_device_that_is_always_full(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to("/dev/full")
    log, shown, status = LogFile(tmp_path / NAME), list[Told](), Status(ABOUT)
    tell = Teller(status, ManualClock(NOW), Redactor(), log, shown.append)
    for i in range(1_500):
        tell(Event("info", "x", f"event {'abcdefghij'[i % 10]}{i}"))
    assert [one.code for one in shown].count("log_lost") == 1 and len(
        shown
    ) == 1_501  # said once, and everything goes on
    assert not status.snapshot.log.ok and log.dropped == 500
    (tmp_path / NAME).unlink()
    tell.tick()
    tell.close()
    lines = (tmp_path / NAME).read_text().splitlines()
    assert len(lines) == 1_001 and lines[-2].endswith("event j1499") and "500 lines had to be dropped" in lines[-1]
    assert shown[-1].code == "log_back" and status.snapshot.log.ok


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    script = (
        "import sys; from pathlib import Path; from atb.live.log_file import LogFile\n"
        f"log = LogFile(Path({str(folder)!r}) / 'logs' / 'trading.log')\n"
        "assert not log.write('x'); print(log.problem); log.close()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, preexec_fn=without_powers)
    assert done.returncode == 0 and "Permission denied" in done.stdout, done.stderr


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("")
    log = LogFile(tmp_path / "logs" / NAME)
    assert not log.write("x") and "exists" in log.problem.lower()


# --- everything at once


def test_no_secret_gets_anywhere(log: LogFile) -> None:
    status, shown = Status(ABOUT), list[Told]()
    tell = Teller(status, ManualClock(NOW), Redactor([SECRET]), log, shown.append)
    tell(Event("error", "refused", f"key {SECRET} at postgresql://bot:hidden-word@db/x?signature=00ff00ff"))
    tell.close()
    everywhere = log.path.read_text() + repr(status.snapshot) + repr(shown)
    assert not any(secret in everywhere for secret in (SECRET, "hidden-word", "00ff00ff")) and "***" in everywhere


def test_a_storm_is_a_few_lines_everywhere(log: LogFile) -> None:
    clock, shown, status = ManualClock(NOW), list[Told](), Status(ABOUT)
    tell = Teller(status, clock, Redactor(), log, shown.append)
    for i in range(3_600):
        clock.time_ms = NOW + i * 1000
        tell(Event("warning", "no_answer", f"the exchange did not answer within {i} ms"))
    tell.close()
    assert 3 <= len(shown) < 12 and sum(one.times for one in shown) == 3_600
    assert len(log.path.read_text().splitlines()) == len(shown) == len(status.snapshot.events)


def test_details_are_for_the_log_alone(log: LogFile) -> None:
    shown, status = list[Told](), Status(ABOUT)
    tell = Teller(status, ManualClock(NOW), Redactor(), log, shown.append)
    tell(Event("debug", "x", "a detail"))
    tell.close()
    assert not shown and not status.snapshot.events and "DEBUG" in log.path.read_text()


# --- the table


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with postgres(tmp_path_factory.mktemp("telling")) as made:
        yield made


@pytest.fixture
def place(server: Postgres) -> Iterator[tuple[Where, Book]]:
    where = server.where(server.database())
    with connect(where) as connection:
        yield where, book(connection)


def stored(where: Where) -> list[tuple[Any, ...]]:
    query = (
        "SELECT extract(epoch FROM at)::bigint * 1000, severity, component, code, message, account_id, session_id "
        "FROM events ORDER BY id"
    )
    with connect(where) as connection:
        return list(connection.execute(query.encode()))


def test_events_are_stored_with_their_time_account_and_session(place: tuple[Where, Book]) -> None:
    where, made = place
    tell = Teller(Status(ABOUT), ManualClock(NOW), Redactor())
    for i in range(BEFORE_THE_TABLE + 5):  # before it is known whose they are
        tell(Event("info", "early", f"number {i}"))
    tell.store_in(EventTable(where, made.account.id, 7))
    tell(Event("critical", "late", "a\x00b\n" + "\ud800"))
    tell.close(TIMEOUT_S)
    rows = stored(where)
    assert len(rows) == BEFORE_THE_TABLE + 1 and rows[0][4] == "number 5"
    assert rows[-1] == (NOW, "critical", "LiveTradingEngine", "late", r"a\x00b\n\ud800", made.account.id, 7)


def test_an_outage_loses_no_event_and_holds_nobody_up(tmp_path: Path) -> None:
    with postgres(tmp_path) as server:
        where = server.where(server.database())
        with connect(where) as connection:
            account = book(connection).account.id
        table = EventTable(where, account, 7)
        table.put(told("before", NOW - 1000))
        wait_until_empty(table)
        embedded.stop(server.home)
        began = time.monotonic()
        for i in range(50):
            table.put(told(f"during {i}", NOW + i * 1000))
        assert time.monotonic() - began < 5 and table.waiting == 50  # nothing was waited for
        embedded.start(server.home, first_port=server.port)
        wait_until_empty(table)
        assert table.close(TIMEOUT_S)
        rows = stored(where)
        assert [row[4] for row in rows] == ["before", *(f"during {i}" for i in range(50))]
        assert [int(row[0]) for row in rows[1:]] == [NOW + i * 1000 for i in range(50)]


def wait_until_empty(table: EventTable) -> None:
    until = time.monotonic() + TIMEOUT_S
    while table.waiting:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_an_outage_that_is_too_long_leaves_the_newest_and_says_so(place: tuple[Where, Book]) -> None:
    where, made = place
    with psycopg.connect(where.conninfo) as blocker:
        blocker.execute("LOCK TABLE events")
        table = EventTable(where, made.account.id, 7)
        for i in range(WAITING + 25):
            table.put(told(f"event {i}"))
        assert table.waiting == WAITING and not table.close(0.1)
    wait_until_empty(table)
    rows = stored(where)
    assert rows[-1][4] == f"event {WAITING + 24}"
    dropped = [row[4] for row in rows if row[3] == "events_dropped"]
    counts = [int(text.split()[0]) for text in dropped]
    assert dropped and WAITING + 25 <= sum(counts) + len(rows) - len(dropped) <= WAITING + 26


def test_what_the_table_will_never_take_keeps_nothing_else_out(place: tuple[Where, Book]) -> None:
    where, made = place
    table = EventTable(where, made.account.id, 7)
    table.put(told("x", severity="odd"))
    table.put(told("after"))
    assert table.close(TIMEOUT_S) and table.refused == 1
    assert [row[4] for row in stored(where)] == ["after"]


def test_the_end_waits_for_no_database(tmp_path: Path) -> None:
    where = Where(f"postgresql://x@127.0.0.1:{os.getpid() % 1000 + 1}/x", "shown", embedded=False)
    tell = Teller(Status(ABOUT), ManualClock(NOW), Redactor())
    table = EventTable(where, 1, 1)
    tell.store_in(table)
    tell(Event("info", "x", "nowhere"))
    began = time.monotonic()
    tell.close(0.5)
    assert table.waiting == 1 and time.monotonic() - began < 30
    table._thread.join(TIMEOUT_S)
    assert not table._thread.is_alive()
