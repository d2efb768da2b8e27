"""`kill -9` of the client and of the server at every point of an append: nothing acknowledged is lost, nothing doubled.

CHAOS_RUNS sets how often the server is killed in the slow suite.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import psycopg
import pytest

from atb.core.errors import DatabaseError
from atb.ledger.accounts import AccountRow, open_account, take_authority
from atb.ledger.audit import audit
from atb.ledger.connect import Where, connect
from atb.ledger.embedded import stop
from atb.ledger.entries import Entry
from atb.ledger.journal import append
from tests.ledger.conftest import NewAccount
from tests.ledger.histories import Histories
from tests.ledger.test_races import buy
from tests.ledger.victim import Victim
from tests.seeds import seeds

Db = psycopg.Connection[Any]
CHAOS_RUNS = int(os.environ.get("CHAOS_RUNS", "50"))


class Mortal(psycopg.Connection[Any]):
    """Calls `doom` at the boundary number `countdown` of its statements; with `synced`, once the server has done them all."""

    countdown, synced = 0, False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.doom: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGKILL)

    def boundary(self) -> None:
        self.countdown -= 1
        if self.countdown == 0:
            if self.synced and self._pipeline is not None:
                self._pipeline.sync()
            self.doom()

    def execute(self, *arguments: Any, **named: Any) -> psycopg.Cursor[Any]:
        cursor = super().execute(*arguments, **named)
        self.boundary()
        return cursor

    def commit(self) -> None:
        self.boundary()
        super().commit()
        self.boundary()


def batches(entries: Sequence[Entry], random: Random) -> Iterator[Sequence[Entry]]:
    at = 0
    while at < len(entries):
        size = random.choice((1, 1, 1, 3))
        yield entries[at : at + size]
        at += size


def forked(work: Callable[[int], None]) -> tuple[int, int]:
    """Run `work` in a child with the writing end of a pipe. Returns its pid and the reading end."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            work(writer)
            code = 0
        except BaseException:  # noqa: BLE001 the parent shows it
            os.write(writer, f"!{traceback.format_exc()}".encode())
        finally:
            os._exit(code)
    os.close(writer)
    return pid, reader


def ended(pid: int, reader: int) -> tuple[int, int]:
    """Wait for a child: its status, and how many entries were acknowledged to it."""
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    status = os.waitpid(pid, 0)[1]
    assert b"!" not in said, said.decode()
    return os.waitstatus_to_exitcode(status), said.count(b".")


def stored(connection: Db, account: AccountRow) -> list[str]:
    """The ids of the entries in order, without those that the journal adds itself."""
    rows = connection.execute("SELECT id FROM entries WHERE account_id = %s ORDER BY seq", (account.id,)).fetchall()
    connection.rollback()
    return [name for (name,) in rows if not name.startswith("reversal:")]


def check_prefix_and_complete(
    connection: Db, account: AccountRow, epoch: int, entries: Sequence[Entry], acknowledged: int
) -> None:
    names = [entry.id for entry in entries]
    there = stored(connection, account)
    assert there == names[: len(there)]
    assert len(there) >= acknowledged
    assert audit(connection, account).problems == []
    append(connection, account.id, epoch, entries)
    assert stored(connection, account) == names
    assert audit(connection, account).problems == []


def one_client_kill(where: Where, shared: Db, account: AccountRow, epoch: int, seed: int) -> bool:
    """Returns whether the client died (else it had finished before)."""
    random = Random(seed)
    histories = Histories(seed, replacing=True, sessions=iter(range(seed * 1000 + 1, seed * 1000 + 999)))
    entries = histories.take(24)
    how = ("queued", "synced", "timed")[seed % 3]

    def work(writer: int) -> None:
        with Mortal.connect(where.conninfo) as connection:
            if how == "timed":
                threading.Timer(random.uniform(0, 0.03), lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
            else:
                connection.countdown, connection.synced = random.randint(1, 300), how == "synced"
            for batch in batches(entries, random):
                append(connection, account.id, epoch, batch)
                os.write(writer, b"." * len(batch))

    code, acknowledged = ended(*forked(work))
    check_prefix_and_complete(shared, account, epoch, entries, acknowledged)
    return code == -signal.SIGKILL


def kill_clients(where: Where, shared: Db, new_account: NewAccount, seeds: range) -> None:
    killed = sum(one_client_kill(where, shared, *new_account(), seed) for seed in seeds)
    assert killed > len(seeds) * 0.6


def test_clients_killed(where: Where, shared: Db, new_account: NewAccount) -> None:
    kill_clients(where, shared, new_account, range(25))


@pytest.mark.slow
def test_many_clients_killed(where: Where, shared: Db, new_account: NewAccount) -> None:
    kill_clients(where, shared, new_account, seeds(1000, 250))


@pytest.mark.parametrize("synced", [False, True])
def test_a_client_killed_at_each_boundary_of_one_append(
    where: Where, shared: Db, new_account: NewAccount, synced: bool
) -> None:
    """One after the other, until an append lives through: the last ones are right before and right after COMMIT."""
    counts = []
    for boundary in range(1, 100):
        account, epoch = new_account()
        entries = [buy(1), buy(2)]
        append(shared, account.id, epoch, entries[:1])

        def work(writer: int, boundary: int = boundary, account: AccountRow = account, epoch: int = epoch) -> None:
            connection = Mortal.connect(where.conninfo)
            connection.countdown, connection.synced = boundary, synced
            append(connection, account.id, epoch, [buy(2)])

        code, _ = ended(*forked(work))
        counts.append(len(stored(shared, account)))
        check_prefix_and_complete(shared, account, epoch, entries, 1)
        if code == 0:
            break
    else:
        raise AssertionError("the append has no end")
    # Nothing is there before COMMIT, everything after it.
    assert len(counts) > 15
    assert counts == [1] * (len(counts) - 2) + [2, 2]


# A connection that ends under a living client.


@pytest.mark.parametrize("seed", range(25))
def test_a_connection_that_is_terminated_gives_a_clear_error_and_a_retry_succeeds(
    where: Where, shared: Db, new_account: NewAccount, seed: int
) -> None:
    account, epoch = new_account()
    entries = Histories(seed, replacing=True, sessions=iter(range(-1 - seed * 100, -9999, -1))).take(8)
    connection = Mortal.connect(where.conninfo)
    pid = connection.info.backend_pid

    def terminate() -> None:
        shared.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        shared.rollback()

    connection.countdown, connection.synced, connection.doom = seed + 1, True, terminate
    with pytest.raises(DatabaseError, match="connection broke") as error:
        for _ in range(50):
            append(connection, account.id, epoch, entries)
    assert "again" in error.value.hint
    connection.close()
    check_prefix_and_complete(shared, account, epoch, entries, 0)


def test_no_connection_left_is_a_clear_error(where: Where, shared: Db, new_account: NewAccount) -> None:
    account, epoch = new_account()
    taken: list[Db] = []
    try:
        with pytest.raises(DatabaseError, match=r"no connection left|too many clients"):
            taken.extend(connect(where, patience_s=0) for _ in range(500))
        append(taken[0], account.id, epoch, [buy(1)])  # who has one can work
    finally:
        for connection in taken:
            connection.close()
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            with connect(where) as connection:
                append(connection, account.id, epoch, [buy(1), buy(2)])
            break
        except DatabaseError:
            time.sleep(0.01)
    assert audit(shared, account).entries == 2


# The server. These have one of their own, which is killed.


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    home = tmp_path_factory.mktemp("victim")
    yield Victim(home)
    stop(home)


def connected(where: Where) -> Db:
    """A connection, as soon as there is one to be had."""
    until = time.monotonic() + 30
    while True:
        try:
            return connect(where)
        except DatabaseError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def append_whatever_happens(where: Where, account: int, epoch: int, entries: Sequence[Entry], writer: int) -> None:
    """What a client does: when the connection breaks, take another and append the same again."""
    connection = connected(where)
    for entry in entries:
        while True:
            try:
                append(connection, account, epoch, [entry])
                os.write(writer, b".")
                break
            except DatabaseError:
                connection.close()
                connection = connected(where)


def already(reader: int) -> int:
    """How many entries were acknowledged by now."""
    os.set_blocking(reader, False)
    try:
        said = os.read(reader, 4096)
    except BlockingIOError:
        said = b""
    os.set_blocking(reader, True)
    assert b"!" not in said, said.decode()
    return len(said)


def one_server_kill(victim: Victim, seed: int) -> None:
    random, how = Random(seed), ("all", "postmaster", "backend", "immediate")[seed % 4]
    with connect(victim.where) as connection:
        account = open_account(connection, f"victim {seed}", venue="paper", environment="paper", quote="USDT")
        connection.commit()
        epoch = take_authority(connection, account.id)
    entries = Histories(seed, replacing=True, sessions=iter(range(seed * 1000 + 1, seed * 1000 + 999))).take(150)
    pid, reader = forked(lambda writer: append_whatever_happens(victim.where, account.id, epoch, entries, writer))
    acknowledged = len(os.read(reader, 1))
    time.sleep(random.uniform(0, 0.15))
    victim.kill(how)
    acknowledged += already(reader)  # the client goes on when the server is back
    victim.start()
    with connected(victim.where) as connection:
        there = stored(connection, account)
        names = [entry.id for entry in entries]
        assert there == names[: len(there)] and len(there) >= acknowledged, (how, len(there), acknowledged)
        assert audit(connection, account).problems == []
    code, _ = ended(pid, reader)
    assert code == 0
    with connected(victim.where) as connection:
        check_prefix_and_complete(connection, account, epoch, entries, len(entries))


@pytest.mark.parametrize("seed", range(4))
def test_server_killed(victim: Victim, seed: int) -> None:
    one_server_kill(victim, seed)


@pytest.mark.slow
def test_server_killed_again_and_again(victim: Victim) -> None:
    for seed in range(100, 100 + CHAOS_RUNS):
        one_server_kill(victim, seed)
