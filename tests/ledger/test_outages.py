"""A real server that ends, restarts, is full or stays away: connections, reads and the steady journal come through it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from atb.core.errors import DatabaseError, DatabaseUnavailable, OutcomeUnknown, UsageError
from atb.ledger import connect as connecting
from atb.ledger import reading as reads
from atb.ledger.accounts import open_account, take_authority
from atb.ledger.audit import audit
from atb.ledger.connect import Where, connect, from_url
from atb.ledger.embedded import stop
from atb.ledger.line import Line
from atb.ledger.reading import reading
from atb.ledger.steady import SteadyJournal
from tests.ledger.test_races import buy
from tests.ledger.victim import Victim, wait_until

Db = psycopg.Connection[Any]
LONG_S = 60.0  # patience where a test is not about its end
FULL = "too many clients"


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    home = tmp_path_factory.mktemp("outages")
    victim = Victim(home)
    victim.limit(8)
    yield victim
    stop(home)


@pytest.fixture(autouse=True)
def alive(victim: Victim) -> None:
    victim.start()


@pytest.fixture
def later() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


# Connecting.


def refusal(where: Where) -> str:
    """What a server says that lets nobody in; empty when it does."""
    try:
        psycopg.connect(where.conninfo).close()
    except psycopg.OperationalError as error:
        return str(error)
    return ""


def all_connections(where: Where) -> list[Db]:
    taken: list[Db] = []
    while True:
        try:
            taken.append(psycopg.connect(where.conninfo))
        except psycopg.OperationalError as error:
            assert FULL in str(error)
            return taken


def release(connections: list[Db]) -> None:
    for connection in connections:
        connection.close()


def test_who_connects_while_the_server_recovers_gets_a_connection(victim: Victim) -> None:
    with psycopg.connect(victim.where.conninfo):
        victim.kill("backend")
        wait_until(lambda: "recovery mode" in refusal(victim.where), "the server was never seen to recover")
        connect(victim.where, patience_s=LONG_S).close()


def test_who_connects_while_the_server_stops_gets_a_connection_to_the_next(
    victim: Victim, later: ThreadPoolExecutor
) -> None:
    told = victim.logged("is shutting down")
    guest = psycopg.connect(victim.where.conninfo)
    victim.kill("smart")  # ends when its last guest has gone
    waiting = later.submit(connect, victim.where, patience_s=LONG_S)
    victim.wait_logged("is shutting down", told + 2)
    guest.close()
    wait_until(lambda: "refused" in refusal(victim.where), "the server never ended")
    victim.start()
    waiting.result().close()


def test_who_connects_to_a_full_server_gets_the_next_free_connection(victim: Victim, later: ThreadPoolExecutor) -> None:
    taken = all_connections(victim.where)
    told = victim.logged(FULL)
    waiting = later.submit(connect, victim.where)
    victim.wait_logged(FULL, told + 1)
    release(taken)
    waiting.result().close()


def test_a_server_that_stays_full_is_told_at_last(victim: Victim) -> None:
    taken = all_connections(victim.where)
    told = victim.logged(FULL)
    with pytest.raises(DatabaseUnavailable, match="has no connection left"):
        connect(victim.where, patience_s=0.5)
    assert victim.logged(FULL) > told + 2
    release(taken)


def test_a_connection_that_is_cut_is_tried_again_and_told_at_last() -> None:
    """As a port behind which no server runs yet: it accepts, and closes."""
    cut = 0

    def cutter() -> None:
        nonlocal cut
        while True:
            accepted, _ = listener.accept()
            cut += 1
            accepted.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=cutter, daemon=True).start()
        port = listener.getsockname()[1]
        with pytest.raises(DatabaseUnavailable, match="was lost"):
            connect(from_url(f"postgresql://u:p@127.0.0.1:{port}/db"))
    assert cut > 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [("@", "x@", "password authentication failed"), ("/victim", "/none", "does not exist")],
)
def test_what_waiting_does_not_mend_is_told_at_once(victim: Victim, old: str, new: str, said: str) -> None:
    told = victim.logged(said)
    with pytest.raises(DatabaseError) as error:
        connect(from_url(victim.url().replace(old, new)))
    assert not isinstance(error.value, DatabaseUnavailable)
    victim.wait_logged(said, told + 1)
    assert victim.logged(said) == told + 1


def test_an_unknown_host_is_told_at_once_but_to_whom_it_was_known(caplog: pytest.LogCaptureFixture) -> None:
    """A container that restarts has no name for a moment: an engine that was connected waits, a command does not."""
    caplog.set_level("DEBUG", "psycopg")
    nowhere = from_url("postgresql://u:p@no.such.host.invalid/db")
    asked = []
    for patience_s in (None, 0.3):
        caplog.clear()
        with pytest.raises(DatabaseError, match="is not known"):
            connect(nowhere, patience_s=patience_s)
        asked.append(caplog.text.count("failed to resolve"))
    assert asked[0] == 1 < asked[1]


# Reading.


class Work:
    """Reads something, lets something happen, reads again."""

    def __init__(self, between: Callable[[Db, int], object]) -> None:
        self.between, self.runs, self.notes = between, 0, list[str]()

    def __call__(self, connection: Db) -> list[int]:
        self.runs += 1
        first = connection.execute("SELECT 1").fetchone()
        self.between(connection, self.runs)
        second = connection.execute("SELECT 2").fetchone()
        return [row[0] for row in (first, second) if row]


def first_time(action: Callable[[], object]) -> Callable[[Db, int], object]:
    return lambda _, run: action() if run == 1 else None


def end(connection: Db) -> None:
    """As an operator ends somebody's connection."""
    dsn, password = connection.info.dsn, connection.info.password
    with psycopg.connect(dsn, password=password, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))


@pytest.mark.parametrize("how", ["all", "postmaster", "immediate", "backend", "stop"])
def test_a_read_that_the_server_does_not_survive_is_done_again(victim: Victim, how: str) -> None:
    work = Work(first_time(lambda: victim.restart(how)))
    assert reading(victim.where, work, on_again=work.notes.append) == [1, 2]
    assert 2 <= work.runs <= reads.RUNS and len(work.notes) == work.runs - 1
    assert "read anew" in work.notes[0] and victim.where.shown in work.notes[0]


def test_a_read_waits_for_the_server_to_come_back(victim: Victim, later: ThreadPoolExecutor) -> None:
    started: list[Future[None]] = []

    def leave() -> None:
        victim.kill("all")
        wait_until(lambda: "refused" in refusal(victim.where), "the server never ended")
        started.append(later.submit(victim.start))

    work = Work(first_time(leave))
    assert reading(victim.where, work) == [1, 2]
    started[0].result()


def test_a_server_that_stays_away_is_told_at_last(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "RETURN_S", 0.3)
    work = Work(lambda connection, run: stop(victim.home))
    with pytest.raises(DatabaseUnavailable, match=r"was stopped\. It did not come back: .*connection refused") as error:
        reading(victim.where, work, on_again=work.notes.append)
    assert "atb db start" in error.value.hint
    assert (work.runs, work.notes) == (1, [])


def test_a_read_that_ends_its_connection_each_time_is_not_done_for_ever(victim: Victim) -> None:
    work = Work(lambda connection, run: end(connection))
    with pytest.raises(DatabaseUnavailable, match="was stopped"):
        reading(victim.where, work)
    assert work.runs == 3


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        (b"SELECT 1 / 0", psycopg.errors.DivisionByZero),
        (b"SELECT pg_sleep(60)", psycopg.errors.QueryCanceled),
        (b"CREATE TABLE mine (a int)", psycopg.errors.ReadOnlySqlTransaction),
    ],
)
def test_a_statement_that_fails_is_not_tried_again(
    victim: Victim, statement: bytes, error: type[psycopg.Error]
) -> None:
    work = Work(lambda connection, run: connection.execute(statement))
    with pytest.raises(error):
        reading(victim.where, work, statement_timeout_s=0.2)
    assert work.runs == 1


# A command that writes.


def test_a_command_whose_connection_breaks_each_time_ends_and_says_that_it_does_not_know(victim: Victim) -> None:
    work = Work(lambda connection, run: end(connection))
    with Line(victim.where, patience_s=0.3) as line, pytest.raises(OutcomeUnknown) as error:
        line.surely(work)
    assert work.runs > 1 and "see what was booked" in error.value.hint


def test_what_a_command_did_is_done_though_the_event_of_its_outage_cannot_be_written(victim: Victim) -> None:
    said: list[str] = []
    rename(victim.where, "events", "hidden")
    try:
        with Line(victim.where, say=said.append) as line:
            work = Work(lambda connection, run: end(connection) if run == 1 else None)
            assert line.surely(work) == [1, 2]
    finally:
        rename(victim.where, "hidden", "events")
    assert len(said) == 1 and "all is written once" in said[0]


# A process that runs for long.


class Engine:
    """A steady journal of an account of its own, and what it said of outages."""

    def __init__(self, where: Where, name: str, patience_s: float = LONG_S) -> None:
        with connect(where) as connection:
            self.account = open_account(connection, name, venue="paper", environment="paper", quote="USDT")
            connection.commit()
            epoch = take_authority(connection, self.account.id)
        self.where, self.outages = where, list[str]()
        self.journal = SteadyJournal(where, self.account.id, epoch, patience_s=patience_s, on_outage=self._heard)
        self.journal.append([buy(1)])

    def _heard(self, error: DatabaseError) -> None:
        self.outages.append(error.what)

    def events(self) -> list[str]:
        with connect(self.where) as connection:
            rows = connection.execute("SELECT code, message FROM events WHERE account_id = %s", (self.account.id,))
            return [message for code, message in rows if code == "database_outage"]

    def whole(self, entries: int) -> bool:
        with connect(self.where) as connection:
            found = audit(connection, self.account)
        return (found.problems, found.entries) == ([], entries)


@pytest.fixture
def engine(victim: Victim, request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = Engine(victim.where, request.node.name)
    yield engine
    engine.journal.close()


def test_a_restart_between_two_reads_is_not_noticed(victim: Victim, engine: Engine) -> None:
    both = threading.Barrier(2)

    def meet(connection: Db) -> int:
        both.wait(LONG_S)
        return connection.info.backend_pid

    with ThreadPoolExecutor(2) as threads:
        before = {future.result() for future in [threads.submit(engine.journal.read, meet) for _ in range(2)]}
        victim.restart("stop")
        after = {future.result() for future in [threads.submit(engine.journal.read, meet) for _ in range(2)]}
    assert len(before) == len(after) == 2 and not before & after
    assert (engine.outages, engine.events()) == ([], [])


@pytest.mark.parametrize("how", ["all", "backend", "stop"])
def test_a_read_of_an_engine_survives_its_server_and_an_event_tells(victim: Victim, engine: Engine, how: str) -> None:
    work = Work(first_time(lambda: victim.restart(how)))
    assert engine.journal.read(work) == [1, 2]
    assert work.runs >= 2 and engine.outages
    (message,) = engine.events()
    assert message.startswith("Back after ") and message.endswith(engine.outages[0])
    engine.journal.append([buy(1), buy(2)])
    assert engine.whole(2) and len(engine.events()) == 1


def test_what_an_engine_reads_cannot_write_and_what_it_appends_can(engine: Engine) -> None:
    engine.journal.patience_s = 0
    with pytest.raises(DatabaseError, match="read-only transaction"):
        engine.journal.read(lambda connection: connection.execute("DELETE FROM events"))
    engine.outages.clear()
    assert engine.journal.read(Work(lambda connection, run: None)) == [1, 2]
    assert len(engine.journal.append([buy(2)])) == 1
    assert engine.outages == []


def test_a_connection_that_saw_an_error_is_used_by_nobody_again(engine: Engine) -> None:
    """Whatever it was: only a new connection is known to be good."""

    def backend(connection: Db) -> int:
        return connection.info.backend_pid

    first = engine.journal.read(backend)
    assert engine.journal.read(backend) == first  # a good one is kept
    with pytest.raises(DatabaseError, match="A table is missing"):
        engine.journal.read(lambda connection: connection.execute("SELECT * FROM nothing"))
    second = engine.journal.read(backend)
    with pytest.raises(UsageError):
        engine.journal.append([buy(1)._replace(body={**buy(1).body, "qty": Decimal(7)})])
    third = engine.journal.read(backend)
    assert len({first, second, third}) == 3


def test_an_engine_that_lost_its_patience_tells_of_the_outage_when_it_is_over(victim: Victim, engine: Engine) -> None:
    engine.journal.patience_s = 0.3
    stop(victim.home)
    with pytest.raises(DatabaseUnavailable, match=r"connection refused|was lost"):  # lost: no time for another attempt
        engine.journal.append([buy(2)])
    victim.start()
    engine.journal.patience_s = LONG_S
    assert len(engine.journal.append([buy(2)])) == 1
    (message,) = engine.events()
    assert message.startswith("The database stayed away for ") and engine.whole(2)


def test_an_event_that_cannot_be_written_fails_no_append_and_is_written_later(victim: Victim, engine: Engine) -> None:
    stop(victim.home)
    engine.journal.on_outage = lambda error: hide_events(victim)
    assert len(engine.journal.append([buy(2)])) == 1
    rename(victim.where, "hidden", "events")
    assert len(engine.journal.append([buy(3)])) == 1
    assert len(engine.events()) == 1 and engine.whole(3)


def hide_events(victim: Victim) -> None:
    victim.start()
    with connect(victim.where) as connection:
        there = connection.execute("SELECT to_regclass('events') IS NOT NULL").fetchone()
    if there == (True,):
        rename(victim.where, "events", "hidden")


def rename(where: Where, old: str, new: str) -> None:
    with connect(where) as connection:
        connection.execute(f"ALTER TABLE {old} RENAME TO {new}".encode())


def test_what_waiting_does_not_mend_is_told_to_an_engine_at_once(victim: Victim, engine: Engine) -> None:
    rename(victim.where, "orders", "gone")
    try:
        with pytest.raises(DatabaseError, match="Nothing was written") as error:
            engine.journal.append([buy(2)])
    finally:
        rename(victim.where, "gone", "orders")
    assert not isinstance(error.value, DatabaseUnavailable)
    assert engine.outages == [] and engine.whole(1)


def test_an_engine_whose_connections_are_all_in_use_waits_for_one(
    where: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "CONNECT_TIMEOUT_S", 1)
    engine = Engine(where, "busy")
    release_them, taken = threading.Event(), threading.Semaphore(0)

    def hold(connection: Db) -> bool:
        taken.release()
        return release_them.wait(LONG_S)

    with ThreadPoolExecutor(connecting.POOL_SIZE + 1) as threads:
        holders = [threads.submit(engine.journal.read, hold) for _ in range(connecting.POOL_SIZE)]
        for _ in holders:
            assert taken.acquire(timeout=LONG_S)
        one_more = threads.submit(engine.journal.append, [buy(2)])
        wait_until(lambda: engine.outages, "nobody was told that no connection is free")
        release_them.set()
        assert all(future.result() for future in holders) and len(one_more.result()) == 1
    assert "All 10 connections of this process" in engine.outages[0]
    assert "All 10 connections of this process" in engine.events()[0]
    engine.journal.close()


def test_an_engine_of_a_full_server_waits_for_a_connection(victim: Victim, engine: Engine) -> None:
    engine.journal.close()  # of its pool: it has no connection
    taken = all_connections(victim.where)
    engine.journal.on_outage = lambda error: release(taken)
    assert len(engine.journal.append([buy(2)])) == 1
    assert "has no connection left" in engine.events()[0]
