"""A database that answers and takes nothing, or falls silent, in the middle of simulated days: as if it were out."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from atb.core.errors import DatabaseUnavailable, Fenced
from atb.ledger import connect as connecting
from atb.ledger.accounts import take_authority
from atb.ledger.connect import Where, from_url
from atb.ledger.embedded import stop
from tests.database import Postgres
from tests.ledger.test_outages import Engine
from tests.ledger.test_races import buy
from tests.ledger.victim import Victim, children
from tests.sim.test_simulation import check
from tests.sim.world import World

SEED = 7  # with stops and exits while nothing is entered
TRIGGER = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'told by a test' USING ERRCODE = '{}'; END $$;
CREATE TRIGGER fail BEFORE INSERT ON entries EXECUTE FUNCTION fail()
"""


@contextmanager
def told(where: Where, *begin: str, end: str) -> Iterator[None]:
    """An operator's statements at the beginning and at the end; each time everybody has to connect anew."""
    for statements in (begin, (end,)):
        with psycopg.connect(where.conninfo, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            for each in statements:
                connection.execute(each.encode())
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        if statements is begin:
            yield


def read_only(where: Where) -> object:
    name = where.conninfo.rpartition("/")[2]
    change = f'ALTER DATABASE "{name}" '
    return told(
        where, change + "SET default_transaction_read_only = on", end=change + "RESET default_transaction_read_only"
    )


def failing(sqlstate: str) -> Callable[[Where], object]:
    return lambda where: told(where, TRIGGER.format(sqlstate), end="DROP FUNCTION fail CASCADE")


def without_a_table(where: Where) -> object:
    return told(where, "ALTER TABLE orders RENAME TO gone", end="ALTER TABLE gone RENAME TO orders")


class Proxy:
    """A way to the server on which what is sent is confirmed and, while it is `dead`, goes nowhere. What was swallowed once
    is lost: such connections are cut when the way is there again."""

    def __init__(self, port: int) -> None:
        self.server, self.dead = port, False
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            pair = client, socket.create_connection(("127.0.0.1", self.server))
            self.pairs.append(pair)
            threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, *pair: socket.socket) -> None:
        swallowed = False
        with pair[0], pair[1]:
            while True:
                for source in select.select(pair, [], [], 0.05)[0]:
                    content = source.recv(65_536)
                    if not content:
                        return
                    swallowed = swallowed or self.dead
                    if not swallowed:
                        pair[source is pair[0]].sendall(content)
                if swallowed and not self.dead:
                    return

    @contextmanager
    def silent(self, where: Where) -> Iterator[None]:
        self.dead = True
        yield
        self.dead = False

    def close(self) -> None:
        self.listener.close()


@pytest.fixture
def proxy(server: Postgres) -> Iterator[Proxy]:
    with closing(Proxy(server.port)) as proxy:
        yield proxy


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "SILENCE_S", 0.3)
    monkeypatch.setattr(connecting, "ENGINE_CONNECT_S", 2)  # the least that there is


def hold_something(world: World) -> list[int]:
    """Live until something is held. Returns the rows that are left."""
    rows = sorted({int(at) for candles in world.series for at in candles.open_time})
    while not any(world.session.state.held(s) for s in range(world.session.state.count)):
        world.row(rows.pop(0))
    return rows


def through(world: World, sick: object) -> None:
    """A day on which the database is sick from the first purchase until the end."""
    rows, spooling = hold_something(world), world.session.spooling
    assert spooling is not None
    with sick:  # type: ignore[attr-defined]
        spooling.retry_s = 600.0  # asking anew is of other tests, and takes its time
        for open_ms in rows:
            world.row(open_ms)
        assert (spooling.away, spooling.spool.waits) == (True, True)
        with pytest.raises(DatabaseUnavailable):
            world.session.renew()
    spooling._next_s = spooling.retry_s = 0.0
    world.calm_down()
    world.session.renew()
    assert (spooling.away, spooling.spool.waits) == (False, False) and not spooling.spool.refused_path.exists()
    assert world.placed_while_away and "entry" not in world.placed_while_away
    check(world)
    orders = len(world.session.state.books.orders)
    world.restart()
    world.look(world.clock.now_ms(), (1,))
    assert len(world.session.state.books.orders) == orders
    check(world)
    world.session.journal.close()


def severities(world: World) -> set[str]:
    return {event.severity for event in world.events if event.code == "database_out"}


@pytest.mark.parametrize(
    ("sick", "severity"),
    [
        pytest.param(read_only, "error", id="read-only"),
        pytest.param(without_a_table, "critical", id="no-table"),
        pytest.param(failing("57014"), "error", id="times-out", marks=pytest.mark.slow),
        pytest.param(failing("58030"), "error", id="disk", marks=pytest.mark.slow),
        pytest.param(failing("42501"), "critical", id="no-right", marks=pytest.mark.slow),
    ],
)
def test_a_database_that_takes_nothing_is_out(
    server: Postgres, tmp_path: Path, sick: Callable[[Where], object], severity: str
) -> None:
    where = server.where(server.database())
    world = World(where, SEED, deaths=0, faults=(), home=tmp_path)
    through(world, sick(where))
    assert severity in severities(world) and (severity == "critical" or "critical" not in severities(world))


def test_a_database_that_falls_silent_is_out(server: Postgres, proxy: Proxy, tmp_path: Path, impatient: None) -> None:
    name = server.database()
    where = from_url(server.url(name).replace(f":{server.port}/", f":{proxy.port}/"))
    world = World(where, SEED, deaths=0, faults=(), home=tmp_path)
    through(world, proxy.silent(where))
    assert severities(world) == {"error"}


def test_whoever_was_taken_over_meanwhile_is_fenced_afterwards(server: Postgres, tmp_path: Path) -> None:
    where = server.where(server.database())
    world = World(where, SEED, deaths=0, faults=(), home=tmp_path)
    (next_row, *_) = hold_something(world)
    with failing("57014")(where):  # type: ignore[attr-defined]
        world.row(next_row)
        with psycopg.connect(where.conninfo) as connection:
            take_authority(connection, world.session.account.id)
    with pytest.raises(Fenced):
        world.look(world.clock.now_ms(), (1,))
    world.session.journal.close()


@pytest.mark.slow
def test_a_server_whose_processes_are_stopped_is_away(
    tmp_path_factory: pytest.TempPathFactory, impatient: None
) -> None:
    """Its host confirms all that is sent: no time-out of TCP sees that nobody is there."""
    victim = Victim(tmp_path_factory.mktemp("stopped"))
    engine = Engine(victim.where, "stopped", patience_s=0.0)
    processes = [victim.server.pid, *children(victim.server.pid)]
    try:
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        with pytest.raises(DatabaseUnavailable, match="does not answer"):
            engine.journal.append([buy(2)])
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
    engine.journal.append([buy(2)])
    assert engine.whole(2)
    engine.journal.close()
    stop(victim.home)
