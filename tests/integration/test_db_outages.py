"""`atb db` while its server is killed, restarted, full or gone: right and once, or one clear message."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from atb.ledger.embedded import stop
from atb.ledger.version import REVISION
from atb.ops.verify import verify_database
from tests.database import book
from tests.integration.shell import TIMEOUT_S, Ran, Shell
from tests.ledger.victim import Victim, wait_until

FULL = "too many clients"
LINES = [
    "✅ Database connection successful",
    "✅ All tables exist",
    f"✅ Schema version: {REVISION}",
    "✅ Ledger whole: 4 entries, 2 fills, 1 accounts; tables agree",
]


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    home = tmp_path_factory.mktemp("outages")
    victim = Victim(home)
    victim.limit(8)
    with psycopg.connect(victim.url()) as connection:
        made = book(connection)
        made.append(made.fill("buy", "1", "100", "1"), made.fill("sell", "1", "110", "2", 1))
    yield victim
    stop(home)


@pytest.fixture
def db(victim: Victim, tmp_path: Path) -> Shell:
    victim.start()
    return Shell(tmp_path, DATABASE_URL=victim.url())


def ended(process: subprocess.Popen[str]) -> Ran:
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert "Traceback" not in err and "Warning" not in err, err
    return Ran(process.returncode, out, err)


def interrupted(victim: Victim, db: Shell, how: str, table: str, *command: str) -> Ran:
    """A command that waits for a lock on `table` when the server ends and, unless it was killed for good, restarts."""
    with closing(psycopg.connect(victim.url())) as holder:
        process = waiting(holder, db, table, *command)
        if how == "for good":
            victim.kill("all")
        else:
            victim.restart(how)
        return ended(process)


def waiting(holder: psycopg.Connection[Any], db: Shell, table: str, *command: str) -> subprocess.Popen[str]:
    holder.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
    process = db.start("db", *command)
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    wait_until(
        lambda: holder.execute(waits).fetchone() == (1,) or process.poll(), "the command never came to the table"
    )
    assert process.poll() is None, process.communicate()
    return process


@pytest.mark.parametrize("how", ["all", "postmaster", "backend", "immediate", "stop"])
def test_a_query_in_the_middle_of_which_the_server_ends(victim: Victim, db: Shell, how: str) -> None:
    ran = interrupted(victim, db, how, "trades", "query", "SELECT symbol, pnl FROM trades")
    assert (ran.code, ran.out) == (0, "BTCUSDT\t10\n"), ran.err
    notes = ran.err.splitlines()
    assert notes and all(line.startswith("Note: ") and line.endswith("read anew.") for line in notes)


@pytest.mark.parametrize("how", ["all", "stop"])
def test_verify_in_the_middle_of_which_the_server_ends(victim: Victim, db: Shell, how: str) -> None:
    ran = interrupted(victim, db, how, "fills", "verify")
    assert (ran.code, ran.out.splitlines()) == (0, LINES), ran.err


@pytest.mark.parametrize("line", LINES)
def test_verify_says_each_line_once_whenever_the_server_ends(victim: Victim, db: Shell, line: str) -> None:
    lines: list[str] = []

    def say(good: bool, text: str) -> None:
        lines.append(f"{'✅' if good else '❌'} {text}")
        if lines[-1] == line:
            victim.restart("all")

    report = verify_database(victim.where, say)
    assert (report.error, report.problems, report.entries, lines) == (None, [], 4, LINES)


@pytest.mark.parametrize(
    ("table", "command"),
    [
        ("entries", ("verify", "--json")),
        ("trading_sessions", ("sessions", "--json")),
        ("trades", ("trades",)),
        ("alembic_version", ("status",)),
        ("alembic_version", ("migrate", "--check")),
    ],
)
def test_whatever_reads_gives_its_answer_once(victim: Victim, db: Shell, table: str, command: tuple[str, ...]) -> None:
    undisturbed = db("db", *command, ok=True)
    ran = interrupted(victim, db, "all", table, *command)
    assert (ran.code, without_times(ran.out)) == (0, without_times(undisturbed.out)), ran.err


def without_times(text: str) -> list[str]:
    """The answer but for the line that tells when verify was there last."""
    return [line for line in text.splitlines() if "compared_with" not in line]


@pytest.mark.slow  # it waits for as long as the command does
def test_a_server_that_does_not_come_back(victim: Victim, db: Shell) -> None:
    ran = interrupted(victim, db, "for good", "fills", "verify")
    assert ran.code == 6 and ran.out.splitlines() == LINES[:1]
    assert "was lost. It did not come back: Nothing listens at" in ran.message and "Start that server" in ran.err


def test_a_full_server_has_a_connection_for_whoever_waits(victim: Victim, db: Shell) -> None:
    taken: list[psycopg.Connection[Any]] = []
    with pytest.raises(psycopg.OperationalError, match=FULL):
        taken.extend(psycopg.connect(victim.url()) for _ in range(20))
    told = victim.logged(FULL)
    process = db.start("db", "query", "SELECT count(*) FROM trades")
    victim.wait_logged(FULL, told + 1)
    for connection in taken:
        connection.close()
    assert ended(process) == Ran(0, "1\n", "")


@pytest.mark.slow
def test_an_own_server_that_is_just_stopping_is_no_missing_one(victim: Victim, tmp_path: Path) -> None:
    victim.start()
    shell = Shell(tmp_path, ATB_HOME=str(victim.home))
    with psycopg.connect(victim.url()):
        victim.kill("smart")  # ends when its last client has gone
        ran = shell("db", "query", "SELECT 1")
    assert ran.code == 6 and "is being stopped" in ran.message
    wait_until(lambda: shell("db", "url").code == 6, "the server never ended")
    assert "atb's own server does not run" in shell("db", "query", "SELECT 1").message
