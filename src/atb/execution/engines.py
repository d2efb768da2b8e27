"""The engines that run on this host: each says so in a small private file, from its start to its end.

So they can be found and ended without the database. A file whose process has ended is swept; one of another container or host
that shares the folder is left alone: its pid means nothing here.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from atb.core.errors import UsageError
from atb.core.local_files import replace
from atb.core.process import Process, this_process

FOLDER = "engines"
GRACE_S = 30.0  # for a cycle that runs to come to its end
KILLED_WITHIN_S = 5.0  # the kernel needs that long at most, but for a process in an uninterruptible wait
LOOK_EVERY_S = 0.05


class Engine(NamedTuple):
    """An engine that runs here. health_port: None where it serves no health; started_at: in UTC."""

    process: Process
    account: str
    session_id: int
    database: str
    health_port: int | None
    started_at: str

    @property
    def pid(self) -> int:
        return self.process.pid


@contextlib.contextmanager
def registered(
    home: Path, *, account: str, session_id: int, database: str, health_port: int | None = None
) -> Iterator[Engine]:
    """This process is an engine for as long as the context lasts. database: as it is shown, without its password."""
    engine = Engine(
        this_process(), account, session_id, database, health_port, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    )
    path = _path(home, engine.process)
    _sweep(home, account)
    _write(path, engine)
    try:
        yield engine
    finally:
        path.unlink(missing_ok=True)


def living(home: Path) -> list[Engine]:
    """The engines that run here, the longest running first. Files of those that were killed stay: they tell of it."""
    engines = [engine for path in _files(home) if (engine := _read(path)) is not None]
    here = [engine for engine in engines if engine.process.is_here and not _has_ended(engine)]
    return sorted(here, key=lambda engine: (engine.started_at, engine.pid))


def _files(home: Path) -> list[Path]:
    return sorted((home / FOLDER).glob("*.json"))


def _has_ended(engine: Engine) -> bool:
    return engine.process.is_gone or engine.process.was_before_restart


def _sweep(home: Path, account: str) -> None:
    """Another engine of the account begins: those that were killed are history."""
    for path in _files(home):
        engine = _read(path)
        if engine is not None and engine.account == account and _has_ended(engine):
            path.unlink(missing_ok=True)


def end(engine: Engine, grace_s: float = GRACE_S) -> bool:
    """As `end_all`, for one: whether it ended by itself."""
    return not end_all([engine], grace_s)


def end_all(
    engines: Sequence[Engine], grace_s: float = GRACE_S, waiting: Callable[[Sequence[Engine], float], object] | None = None
) -> list[Engine]:  # fmt: skip
    """SIGTERM to each, SIGKILL to those that have not ended after `grace_s` seconds: they are returned.

    `waiting` is told which still run, and for how many seconds they have had time. A UsageError for another user's process.
    """
    began = time.monotonic()
    left = [engine for engine in engines if _send(engine, signal.SIGTERM)]
    while (left := [engine for engine in left if not engine.process.is_gone]) and time.monotonic() < began + grace_s:
        if waiting is not None:
            waiting(left, time.monotonic() - began)
        time.sleep(LOOK_EVERY_S)
    killed = [engine for engine in left if _send(engine, signal.SIGKILL)]
    until = time.monotonic() + KILLED_WITHIN_S
    while any(not engine.process.is_gone for engine in killed) and time.monotonic() < until:
        time.sleep(LOOK_EVERY_S)
    return killed


def _send(engine: Engine, number: signal.Signals) -> bool:
    """Whether the signal was sent: never to another process that has the same pid by now."""
    handle = _handle(engine.pid)
    try:
        if engine.process.is_gone:
            return False
        if handle is None:
            os.kill(engine.pid, number)
        else:
            signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    except PermissionError:
        raise UsageError(
            f"The engine of {engine.account} (pid {engine.pid}) is another user's: it cannot be ended from here.",
            "Run this as that user, or as root.",
        ) from None
    finally:
        if handle is not None:
            os.close(handle)


def _handle(pid: int) -> int | None:
    """What stays the process of now, whatever its number is given to later; None where the system has no such thing."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _path(home: Path, process: Process) -> Path:
    """Containers that share the folder count their pids alike: the place tells them apart."""
    return home / FOLDER / f"{process.pid}-{zlib.crc32(process.place.encode()):08x}.json"


def _write(path: Path, engine: Engine) -> None:
    told = engine._asdict() | {"process": engine.process._asdict()}
    replace(path, json.dumps(told).encode(), sync=False)  # it is of no use after a crash of the machine


def _read(path: Path) -> Engine | None:
    """What a file says; None where it is gone by now, or no engine wrote it."""
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        process = Process(**told["process"])
        return Engine(**{**told, "process": process._replace(pid=int(process.pid))})
    except (OSError, ValueError, TypeError, LookupError):
        return None
