"""A command whose connection breaks between commit and answer books once, and knows it."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from atb.core.errors import DatabaseError, DatabaseUnavailable, OutcomeUnknown, UsageError
from atb.ledger.connect import from_url
from atb.ledger.journal import append
from atb.ledger.line import Line
from tests.database import Book, Postgres, book, postgres
from tests.integration.shell import Shell
from tests.ledger.cut import wire

Db = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with postgres(tmp_path_factory.mktemp("postgres")) as running:
        yield running


@pytest.fixture
def url(server: Postgres) -> str:
    return server.url(server.database())


@pytest.fixture
def held(url: str) -> Iterator[Book]:
    """A real account with 0.1 BTCUSDT, and one of paper with as much."""
    with psycopg.connect(url) as connection:
        for name, environment in (("paper:one", "paper"), ("binance-main", "real")):
            made = book(connection, name, environment)
            made.append(made.fill("buy", "0.1", "50000", "1"), made.mark(1, BTCUSDT="51000"))
        yield made


def through(url: str, port: int) -> str:
    return re.sub(r":\d+/", f":{port}/", url)


def counted(connection: Db, query: str) -> Any:
    row = connection.execute(query).fetchone()
    connection.rollback()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("cuts", [1, 3])
def test_an_exit_is_booked_once(server: Postgres, url: str, held: Book, tmp_path: Path, cuts: int) -> None:
    with wire(server.port, cuts) as cut:
        shell = Shell(tmp_path, DATABASE_URL=through(url, cut.port))
        what = ("--symbol", "BTCUSDT", "--exit-price", "52000", "--account", "binance-main")
        ran = shell("db", "close-position", *what, ok=True)
        assert cut.left == 0 and "all is written once" in ran.err
    assert counted(held.connection, "SELECT count(*) FROM fills WHERE provisional") == 1
    assert counted(held.connection, "SELECT sum(pnl) FROM trades") is not None
    assert counted(held.connection, "SELECT message FROM events WHERE code = 'database_outage'")
    assert Shell(tmp_path, DATABASE_URL=url)("db", "verify").code == 0


def test_an_emergency_close_goes_through(server: Postgres, url: str, held: Book, tmp_path: Path) -> None:
    """Its fence, its halt and its fills: each commit's answer is lost once."""
    with wire(server.port, 4) as cut:
        shell = Shell(tmp_path, DATABASE_URL=through(url, cut.port))
        number = held.session
        done = shell(
            "db",
            "emergency-close-all",
            "--session-id",
            number,
            "--record-only",
            "--exit-price",
            "52000",
            "--json",
            ok=True,
        )
        assert cut.left == 0 and [c["qty"] for c in done.json["closed"]] == ["0.1"] and not done.json["left_open"]
    assert counted(held.connection, "SELECT count(*) FROM fills WHERE provisional") == 1
    assert counted(held.connection, "SELECT count(*) FROM entries WHERE kind = 'control'") == 1
    assert Shell(tmp_path, DATABASE_URL=url)("db", "verify").code == 0


def test_a_file_is_imported_once(server: Postgres, url: str, held: Book, tmp_path: Path) -> None:
    rows = "".join(f"2026-01-0{n}T00:00:00Z,BTCUSDT,buy,0.1,5000{n},{n}\n" for n in range(2, 6))
    (tmp_path / "fills.csv").write_text("time,symbol,side,qty,price,trade_id\n" + rows)
    with wire(server.port, 1) as cut:
        shell = Shell(tmp_path, DATABASE_URL=through(url, cut.port))
        ran = shell("db", "import-trades", tmp_path / "fills.csv", "--account", "binance-main", ok=True)
        assert ran.out == "Booked 4; 0 were booked already.\n"
    assert counted(held.connection, "SELECT count(*) FROM fills WHERE account_id = 2") == 5


def test_a_database_that_stays_away_leaves_it_unknown(server: Postgres, url: str, held: Book) -> None:
    with wire(server.port, 1) as cut:
        line = Line(from_url(through(url, cut.port)), patience_s=0.5)
        cut.listener.shutdown(socket.SHUT_RDWR)  # the connection that is open goes on, no other is taken
        with line, pytest.raises(OutcomeUnknown, match="whether it was is not known") as error:
            line.append(held.account.id, held.epoch, [held.fill("sell", "0.1", "52000", "2")])
        assert "atb db trades" in (error.value.hint or "")
    assert counted(held.connection, "SELECT count(*) FROM fills WHERE side = 'sell'") == 1


class Work:
    """Does `first` the first time and then asks a question, each time over the connection that it is given."""

    def __init__(self, first: Callable[[Db], object]) -> None:
        self.first, self.runs = first, 0

    def __call__(self, connection: Db) -> int:
        self.runs += 1
        if self.runs == 1:
            self.first(connection)
        row = connection.execute("SELECT 7").fetchone()
        connection.rollback()
        assert row is not None
        return int(row[0])


def end(connection: Db) -> None:
    """The server ends the connection: it says so in its answer to what is asked."""
    connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def cut(connection: Db) -> None:
    """The network ends it: nobody says anything."""
    with socket.socket(fileno=os.dup(connection.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)


def idle(connection: Db) -> None:
    """The server takes it away from who uses it too rarely: somebody thinks about an answer, say."""
    connection.execute("SET idle_session_timeout = '1ms'")
    connection.commit()
    time.sleep(0.2)


@pytest.mark.parametrize("breaks", [end, cut, idle])
def test_a_connection_that_breaks_is_replaced(url: str, breaks: Callable[[Db], None]) -> None:
    said: list[str] = []
    work = Work(breaks)
    with Line(from_url(url), say=said.append) as line:
        first = line.connection
        assert line.surely(work) == 7 and work.runs == 2
        assert first.closed and line.connection is not first
        assert counted(line.connection, "SELECT count(*) FROM events WHERE code = 'database_outage'") == 1
    assert len(said) == 1 and "all is written once" in said[0]


def test_a_mistake_is_not_made_twice_because_the_connection_has_ended_too(url: str) -> None:
    def close_and_err(connection: Db) -> None:
        connection.close()
        raise UsageError("This is wrong.")

    work = Work(close_and_err)
    with Line(from_url(url)) as line, pytest.raises(UsageError, match="This is wrong"):
        line.surely(work)
    assert work.runs == 1


def test_a_lock_that_another_holds_is_not_waited_for_again(url: str, held: Book) -> None:
    """Nothing was written, and that is certain: whoever typed it is told so at once."""
    runs = []

    def book_it(connection: Db) -> None:
        runs.append(connection)
        append(connection, held.account.id, held.epoch, [held.fill("sell", "0.1", "52000", "2")])

    with psycopg.connect(url) as other, Line(from_url(url)) as line:
        other.execute("SELECT 1 FROM authority WHERE account_id = %s FOR UPDATE", (held.account.id,))
        line.connection.execute("SET lock_timeout = 50")
        line.connection.commit()
        with pytest.raises(DatabaseUnavailable, match="Nothing was written") as error:
            line.surely(book_it)
        assert not isinstance(error.value, OutcomeUnknown) and runs == [line.connection]


def test_connections_that_all_break_are_given_up_in_time(url: str) -> None:
    runs: list[Db] = []

    def never(connection: Db) -> None:
        runs.append(connection)
        end(connection)

    with Line(from_url(url), patience_s=1.0) as line, pytest.raises(OutcomeUnknown, match="was stopped") as error:
        line.surely(never)
    assert line.connection.closed and "atb db trades" in error.value.hint
    assert 2 <= len(set(map(id, runs))) == len(runs) <= 10  # with pauses between them


def test_what_is_refused_is_not_tried_again(url: str, held: Book) -> None:
    with Line(from_url(url)) as line:
        connection = line.connection
        with pytest.raises(DatabaseError, match="A table is missing"):
            line.surely(lambda each: each.execute("SELECT * FROM nothing"))
        with pytest.raises(DatabaseError, match="no account 999"):
            line.append(999, 1, [])
        assert line.connection is connection
