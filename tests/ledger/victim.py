"""A server to be killed, and what its processes are."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from atb.ledger.connect import connect
from atb.ledger.embedded import start, stop
from tests.ledger.conftest import FIRST_PORT, copy_template, make_template


class Victim:
    """A server to be killed, with a database that waits for the disk."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.server = start(home, first_port=FIRST_PORT + 50)
        make_template(self.server)
        self.where = copy_template(self.server, "victim", durable=True)

    def kill(self, how: str) -> None:
        """`postmaster`: it alone. `all`: and its processes. `backend`: one, and it restarts.

        `immediate`, `smart`: as pg_ctl does; after `smart` it runs until its last client has gone.
        """
        processes = children(self.server.pid)
        if how != "backend":
            number = {"immediate": signal.SIGQUIT, "smart": signal.SIGTERM}.get(how, signal.SIGKILL)
            os.kill(self.server.pid, number)
        clients = [pid for pid in processes if "victim" in title(pid)]
        struck = {"all": processes, "backend": clients[:1]}.get(how, [])
        for pid in struck:
            if "postgres" in title(pid):
                os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + 30
        while how == "backend" and {*struck} & {*children(self.server.pid)} and time.monotonic() < until:
            time.sleep(0.001)  # until the server knows it ends every connection soon, also those that are made now
        while how not in ("backend", "smart") and title(self.server.pid) and time.monotonic() < until:
            time.sleep(0.005)  # until it is really dead, its file says that it is ready

    def start(self) -> None:
        self.server = start(self.home, first_port=self.server.port)

    def restart(self, how: str) -> None:
        """`stop`: as an operator does; otherwise as `kill`. A server of which a backend was killed restarts by itself."""
        if how == "stop":
            stop(self.home)
        else:
            self.kill(how)
        self.start()

    def url(self) -> str:
        """With the password, for DATABASE_URL."""
        first = self.server.password_file.read_text().splitlines()[0]
        return self.server.url("victim").replace("@", f":{quote(first.rsplit(':', 1)[1], safe='')}@")

    def limit(self, connections: int) -> None:
        """At most so many from the next start on. ALTER SYSTEM takes no parameters."""
        with connect(self.where, autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET max_connections = {connections}".encode())
        self.restart("stop")

    def logged(self, text: str) -> int:
        """How often the server's log says it."""
        folder = self.server.folder.parent / "log"
        return sum(path.read_text(errors="replace").count(text) for path in folder.glob("postgresql-*.log"))

    def wait_logged(self, text: str, times: int) -> None:
        """Until the log says it so often."""
        wait_until(lambda: self.logged(text) >= times, f"the server never logged {text!r} {times} times")


def wait_until(true: Callable[[], object], otherwise: str) -> None:
    """A minute at most: a busy machine is not a failure."""
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until, otherwise
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
