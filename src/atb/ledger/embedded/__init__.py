"""The embedded Postgres: one server of one user's, on loopback, that runs until it is stopped.

    server = start(home)     made on the first start; the same server for all who ask
    running(home)            the server, if there is one: a few milliseconds, starts nothing
    living(home)             the same, also while it starts or ends
    stop(home)

Everything is below `home/postgres`: `18/data` (pinned to its major version), `18/log`, and `pgpass` with the password.
Why each of its settings is as it is stands beside it in cluster.py.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from atb.core.errors import DatabaseError
from atb.ledger.embedded.place import (
    DATABASES,
    MAJOR,
    ROLE,
    START,
    Note,
    Place,
    exclusive,
    explained,
    place_of,
)
from atb.ledger.embedded.process import Postmaster, is_server, postmaster

HOST = "127.0.0.1"
DATABASE = DATABASES[0]
FIRST_PORT = 5432
STOP_S = 30.0
QUIT_S = 10.0


class Server(NamedTuple):
    """A running server. folder: its data. socket: the folder of its Unix socket. password_file: in pgpass format."""

    folder: Path
    port: int
    pid: int
    version: str
    socket: str
    password_file: Path

    def url(self, database: str = DATABASE) -> str:
        """Its URL, without the password."""
        from urllib.parse import quote

        return f"postgresql://{ROLE}@{HOST}:{self.port}/{quote(database, safe='')}"

    def conninfo(self, database: str = DATABASE) -> dict[str, str]:
        """Keywords for psycopg.connect. What PG* variables of the environment could turn elsewhere is said here."""
        return {
            "host": HOST,
            "hostaddr": HOST,
            "port": str(self.port),
            "user": ROLE,
            "dbname": database,
            "passfile": str(self.password_file),
            "sslmode": "disable",
            "gssencmode": "disable",
        }


def exists(home: Path) -> bool:
    """Whether a database has been made in `home`, running or not."""
    place = place_of(home)
    with explained(place):
        return (place.data / "PG_VERSION").is_file()


def running(home: Path) -> Server | None:
    """The server that accepts connections now. Starts and creates nothing."""
    place = place_of(home)
    found = _found(place)
    return _server(place, found) if found is not None and found.status == "ready" else None


def living(home: Path) -> Server | None:
    """The server also while it starts, recovers or ends: who connects is told so, and may wait."""
    place = place_of(home)
    found = _found(place)
    return _server(place, found) if found is not None and found.port else None


def _found(place: Place) -> Postmaster | None:
    with explained(place):
        return postmaster(place)


def _server(place: Place, found: Postmaster) -> Server:
    return Server(place.data, found.port, found.pid, MAJOR, found.socket, place.pgpass)


def tool(name: str) -> Path:
    """The path of psql, pg_dump, pg_basebackup, ... that belong to the embedded server."""
    from atb.ledger.embedded.launch import tool as find

    return find(name)


def tool_env(server: Server, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables with which its tools find the server and the password; `base` without its own PG* variables."""
    own = {
        "PGHOST": HOST,
        "PGPORT": str(server.port),
        "PGUSER": ROLE,
        "PGDATABASE": DATABASE,
        "PGPASSFILE": str(server.password_file),
        "PGSSLMODE": "disable",
        "PGGSSENCMODE": "disable",
    }
    return {name: value for name, value in (base or {}).items() if not name.startswith("PG")} | own


def start(home: Path, on_note: Note = lambda _: None, first_port: int = FIRST_PORT) -> Server:
    """The running server of `home`: found, started or made. Returns when it accepts connections."""
    place = place_of(home)
    found = running(home)
    with explained(place):
        if found is not None and place.pgpass.is_file():
            return found
        from atb.ledger.embedded import cluster
        from atb.ledger.embedded.launch import server_user
        from atb.ledger.embedded.startup import start_alone

        tool("postgres")
        _check_version(place)
        cluster.check_is_cluster(place)
        user = server_user(place)
        cluster.make_folders(place, user)
        with exclusive(place, on_note) as lock:
            return _server(place, start_alone(place, user, lock, on_note, first_port))


def _check_version(place: Place) -> None:
    from atb.ledger.embedded.process import other_version

    other = other_version(place)
    if other is not None:
        raise DatabaseError(
            f"{place.root} holds a database of Postgres {other}; this atb brings Postgres {MAJOR}, which cannot open it.",
            f"Dump it with Postgres {other} (pg_dumpall), move its folder away, then: {START}",
        )


def stop(home: Path, timeout_s: float = STOP_S) -> bool:
    """End the server: clients are disconnected, everything is on the disk. False when none was running."""
    place = place_of(home)
    with explained(place):
        found = postmaster(place)
        if found is None:
            return False
        # SIGINT: Postgres' fast shutdown. SIGQUIT: at once; the next start recovers what was committed.
        for number, patience_s in ((signal.SIGINT, timeout_s), (signal.SIGQUIT, QUIT_S)):
            if _ended(place, found.pid, number, patience_s):
                return True
    raise DatabaseError(
        f"Postgres (pid {found.pid}) on {place.data} does not stop.", f"Read {place.log}, then: kill -9 {found.pid}"
    )


def _ended(place: Place, pid: int, number: int, patience_s: float) -> bool:
    """Send the signal and wait for the end. What the pid is, is looked at each time: it may become another program's."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return True
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        if not is_server(pid, place):
            return True
        time.sleep(0.01)
    return False
