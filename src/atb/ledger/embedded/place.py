"""Where the embedded server's files are, and how they are written: whole or not at all, for their owner only."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from atb.core.errors import DatabaseError

MAJOR = "18"  # a data folder can only be opened by the major version that made it
START = "atb db start"
ROLE = "trading_bot"
DATABASES = ("ai_trading_bot", "trading_bot")  # the second, since `psql -U trading_bot` looks for it
LOCK_WAIT_S = 330.0  # longer than any start takes before it gives up
Note = Callable[[str], None]


class Place(NamedTuple):
    """The files below `home/postgres`. `root` has no symbolic links in it: processes are recognised by their folder."""

    root: Path

    @property
    def versioned(self) -> Path:
        return self.root / MAJOR

    @property
    def data(self) -> Path:
        return self.versioned / "data"

    @property
    def log(self) -> Path:
        return self.versioned / "log"

    @property
    def startup_log(self) -> Path:
        """What the server says before its own logging has begun; each start writes it anew."""
        return self.log / "startup.log"

    @property
    def pid_file(self) -> Path:
        return self.data / "postmaster.pid"

    @property
    def state(self) -> Path:
        """Port and socket folder, kept for the next start."""
        return self.versioned / "state.json"

    @property
    def pgpass(self) -> Path:
        return self.root / "pgpass"

    @property
    def lock(self) -> Path:
        """Held while something is created or started."""
        return self.root / "start.lock"

    @property
    def guard(self) -> Path:
        """Locked by the server and all its processes for as long as one of them lives, in whatever container."""
        return self.versioned / "server.lock"

    @property
    def cluster_name(self) -> str:
        """Begins the title of each process of this server, so that they can be found when their parent is dead."""
        import hashlib

        return f"atb-{hashlib.sha256(os.fsencode(self.data)).hexdigest()[:12]}"


def place_of(home: Path) -> Place:
    return Place(Path(os.path.realpath(home)) / "postgres")


@contextlib.contextmanager
def explained(place: Place) -> Iterator[None]:
    """Turn what the operating system refuses into one sentence and a remedy."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        where = f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, str | bytes) else ""
        raise DatabaseError(
            f"The database folder {place.root} cannot be used: {reason}{where}.",
            f"Make room, or set ATB_HOME to a folder that this user can write, then: {START}",
        ) from None


def read_state(place: Place) -> dict[str, Any]:
    """The state file; empty when there is none or it is damaged, since all of it can be chosen again."""
    import json

    try:
        state = json.loads(place.state.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_private(path: Path, text: str, owner: tuple[int, int] | None = None) -> None:
    """Write a 0600 file atomically. When root writes into a user's folder, the file is that user's."""
    if owner is None and os.geteuid() == 0:
        folder = path.parent.stat()
        owner = (folder.st_uid, folder.st_gid)
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        # O_EXCL follows no link: a folder of the server's user may hold what an intruder put there.
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file, unless somebody has it. Children that inherit the descriptor share it."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """A lock file's descriptor, closed at the end. The file stays: removing it would let two in."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if os.geteuid() == 0:
            folder = path.parent.stat()
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def exclusive(place: Place, on_note: Note) -> Iterator[int]:
    """Only one process at a time creates or starts. The second waits, and finds the work done."""
    with opened(place.lock) as descriptor:
        began, noted = time.monotonic(), False
        while not try_lock(descriptor):
            waited = time.monotonic() - began
            if waited > LOCK_WAIT_S:
                raise DatabaseError(
                    f"Another process has been starting the database in {place.root} for minutes.",
                    f"Look for it (fuser {place.lock}), end it, then: {START}",
                )
            if waited > 1 and not noted:
                on_note("Another process is starting the database: waiting for it.")
                noted = True
            time.sleep(0.02)
        yield descriptor
