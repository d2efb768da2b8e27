"""Starting the server: what runs already, what a crash left, which port, and what it said when it did not start."""

from __future__ import annotations

import time
from pathlib import Path

from atb.core.errors import DatabaseError
from atb.ledger.embedded import cluster
from atb.ledger.embedded.launch import Order, User, run_detached, tool
from atb.ledger.embedded.place import START, Note, Place, opened, read_state
from atb.ledger.embedded.port import choose_port
from atb.ledger.embedded.process import (
    Postmaster,
    clear_way,
    is_alive,
    log_marks,
    log_since,
    postmaster,
    prune_logs,
    relevant_line,
)

READY_S = 300.0  # recovery after a crash may take minutes
_LOST_RACES = 5  # ports that somebody else took between our look and the server's


def start_alone(place: Place, user: User | None, lock: int, on_note: Note, first_port: int) -> Postmaster:
    """Start under the lock: whatever is found now, nobody else is changing, except the server itself."""
    cluster.remove_leftovers(place)
    with opened(place.guard) as guard:
        found = _ready_or_cleared(place, guard, on_note)
        if found is not None and not place.pgpass.is_file():
            raise DatabaseError(f"The password file {place.pgpass} is missing.", f"atb db stop, then: {START}")
        if found is not None:
            return found
        if not (place.data / "PG_VERSION").is_file():
            on_note(f"Making a database in {place.data}.")
            cluster.create(place, user, lock)
        cluster.adopt(place, user)
        cluster.include_settings(place.data, user)
        password = cluster.read_password(place) or cluster.reset_password(place, user, lock)
        return _launch(place, user, guard, password, on_note, first_port)


def _ready_or_cleared(place: Place, guard: int, on_note: Note) -> Postmaster | None:
    """The living server once it is ready. None when there is none, its remains are removed and the guard is locked."""
    for _ in range(_LOST_RACES):
        found = postmaster(place)
        if found is None and clear_way(place, guard):
            return None
        ready = _wait_ready(place, found.pid, on_note) if found is not None else None
        if ready is not None:
            return ready
    raise DatabaseError(f"The server on {place.data} keeps starting and ending.", f"Read {place.log}, then: {START}")


def _launch(place: Place, user: User | None, guard: int, password: str, on_note: Note, first_port: int) -> Postmaster:
    """Start it on its former port, or on the next ones until one is really free."""
    prune_logs(place)
    state = read_state(place)
    socket = cluster.socket_folder(place, user, str(state.get("socket", "")))
    order = Order([str(tool("postgres")), "-D", str(place.data)], [place.data, place.log, Path(socket)], (guard,))
    port = choose_port(state.get("port"), first_port, on_note)
    for attempt in range(_LOST_RACES):
        cluster.configure(place, user, password, port, socket)
        marks = log_marks(place)
        ready = _wait_ready(place, run_detached(order, user, place.startup_log, on_note), on_note)
        if ready is not None:
            return ready
        where, text = log_since(place, marks)
        lost_port = "Address already in use" in text
        # Whatever ended it without a word (the machine's memory, a stray signal) may not happen again.
        if (text.strip() and not lost_port) or attempt == _LOST_RACES - 1:
            raise _failed(place, where, relevant_line(text) or "it ended without a word")
        if lost_port:
            port = choose_port(port, first_port, on_note, taken=port)
    raise AssertionError("the last attempt returns or raises")


def _wait_ready(place: Place, pid: int, on_note: Note) -> Postmaster | None:
    """Wait until the server accepts connections; None when it ends instead."""
    began, noted = time.monotonic(), False
    while True:
        found = postmaster(place)
        if found is not None and found.pid == pid and found.status == "ready":
            return found
        if not is_alive(pid):
            return None
        waited = time.monotonic() - began
        if waited > READY_S:
            raise DatabaseError(
                f"Postgres (pid {pid}) still does not accept connections after {READY_S:.0f} s, and goes on trying.",
                f"Read {place.log}, then: {START}",
            )
        if waited > 3 and not noted:
            on_note("The database is starting; after a crash it recovers first.")
            noted = True
        time.sleep(0.005 if waited < 1 else 0.05)


def _failed(place: Place, log: Path, line: str) -> DatabaseError:
    if "No space left" in line:
        remedy = f"Free some space, then: {START}"
    elif line.startswith(("could not locate", "could not open file", "could not read", "invalid", "incorrect")):
        remedy = f"The data may be damaged: keep a copy of the folder, then restore a backup. Details: {log}"
    else:
        remedy = f"Read {log}, remove the cause, then: {START}"
    return DatabaseError(f"Postgres did not start on {place.data}: {line}. Log: {log}.", remedy)
