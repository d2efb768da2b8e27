"""The server's processes: which are alive, which are really ours, and what they said last."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path
from typing import NamedTuple

from atb.core.errors import DatabaseError
from atb.ledger.embedded.place import MAJOR, START, Place, try_lock

PATIENCE_S = 1.0  # orphans leave by themselves within milliseconds, unless they are busy
CLEAR_S = 15.0
LOGGED_S = 10.0  # what an ended server's logger may take on a busy machine; it ends with its last word
LOG_KEPT_BYTES = 20_000_000
LOG_KEPT_S = 8 * 86_400
_HAS_PROC = Path("/proc/self/cmdline").exists()  # macOS has none, and asks ps
_SERIOUS = re.compile(r"(?:PANIC|FATAL|ERROR|error):\s+(.*)")


class Postmaster(NamedTuple):
    """What a living server wrote about itself into postmaster.pid. status: starting, ready, stopping."""

    pid: int
    port: int
    socket: str
    status: str


def postmaster(place: Place) -> Postmaster | None:
    """The server that is running on this data folder, in whatever state; None when there is none."""
    try:
        lines = place.pid_file.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    except PermissionError:
        raise DatabaseError(
            f"The database in {place.data} belongs to another user.",
            "Run this as the user who started it (or as root).",
        ) from None
    if not lines or not lines[0].isdigit() or not is_server(int(lines[0]), place):
        return None
    lines += [""] * (8 - len(lines))
    return Postmaster(int(lines[0]), int(lines[3] or 0), lines[4], lines[7].strip())


def is_server(pid: int, place: Place) -> bool:
    """Whether `pid` is a Postgres on this folder: after a crash the number may be another program's."""
    words = command_line(pid)
    return bool(words) and words[0].rsplit("/", 1)[-1] == "postgres" and str(place.data) in words[1:]


def command_line(pid: int) -> list[str]:
    """The words of a living process; empty when there is none, or only a zombie."""
    if _HAS_PROC:
        try:
            raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return []
        return os.fsdecode(raw).rstrip("\0").split("\0") if raw else []
    return _ps("-p", str(pid)).get(pid, [])  # pragma: no cover (macOS)


def _ps(*which: str) -> dict[int, list[str]]:  # pragma: no cover (macOS)
    import subprocess

    listed = subprocess.run(["ps", "-ww", *which, "-o", "pid=,stat=,command="], capture_output=True, text=True)
    found = {}
    for line in listed.stdout.splitlines():
        pid, state, command = line.strip().split(None, 2)
        program, separator, folder = command.partition(" -D ")
        if not state.startswith("Z"):
            found[int(pid)] = [program, "-D", folder] if separator else [command]
    return found


def is_alive(pid: int) -> bool:
    """Whether `pid` runs, also in the moment of an exec, when it has no words; a zombie does not."""
    if _HAS_PROC:
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            return state not in "ZX"
        return False
    return bool(command_line(pid))  # pragma: no cover (macOS)


def members(place: Place) -> list[int]:
    """Processes of this server that are not the postmaster, found by the title that they give themselves."""
    title = f"postgres: {place.cluster_name}: "
    if _HAS_PROC:
        pids = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
        return [pid for pid in pids if "".join(command_line(pid)[:1]).startswith(title)]
    return [pid for pid, words in _ps("-ax").items() if words[0].startswith(title)]  # pragma: no cover (macOS)


def _untitled(place: Place) -> list[int]:
    """Processes with the postmaster's own words: itself, or what it started a moment ago, which has no title yet."""
    pids = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()] if _HAS_PROC else list(_ps("-ax"))
    return [pid for pid in pids if is_server(pid, place)]


def clear_way(place: Place, guard: int) -> bool:
    """Remove what a killed server left: orphans, a stale pid file. False when there is a living server after all.

    `guard` is the open guard file, and locked when this returns True. The new server inherits it: so its lock is free
    exactly when no process of a former server is left, which a pid cannot tell. It may be another program's by now,
    or belong to another container.
    """
    began = time.monotonic()
    while True:
        held = not try_lock(guard)
        orphans = members(place) if held or place.pid_file.exists() else []
        if not held and not orphans:
            break
        if postmaster(place) is not None:
            return False  # somebody was killed while starting it, and it came up
        waited = time.monotonic() - began
        if waited > CLEAR_S:
            raise DatabaseError(
                f"Another Postgres uses {place.data}, started outside of atb or in another container.",
                f"Stop it there, then: {START}",
            )
        if waited > PATIENCE_S:
            _kill(orphans)  # all they could still do is an uncommitted transaction's work
        time.sleep(0.02)
    _refuse_single_user(place)
    place.pid_file.unlink(missing_ok=True)
    return True


def _refuse_single_user(place: Place) -> None:
    """Someone may be repairing the folder with `postgres --single`, whose pid file has a minus sign."""
    try:
        first = place.pid_file.read_text().split("\n", 1)[0]
    except FileNotFoundError:
        return
    if first[:1] == "-" and first[1:].isdigit() and is_server(int(first[1:]), place):
        raise DatabaseError(f"A single-user Postgres (pid {first[1:]}) uses {place.data}.", f"End it, then: {START}")


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def prune_logs(place: Place) -> None:
    """Seven files by weekday, each begun anew by the server in its week; what is older or has grown too large goes."""
    for entry in os.scandir(place.log):
        info = entry.stat(follow_symlinks=False)
        if info.st_size > LOG_KEPT_BYTES or time.time() - info.st_mtime > LOG_KEPT_S:
            Path(entry.path).unlink(missing_ok=True)


def log_marks(place: Place) -> dict[str, int]:
    """How long each log file is, to read later what was added."""
    return {entry.name: entry.stat().st_size for entry in os.scandir(place.log) if entry.name != "startup.log"}


def log_since(place: Place, marks: dict[str, int]) -> tuple[Path, str]:
    """What was logged since `marks` by a server that has ended, and the file that says most about it."""
    until = time.monotonic() + LOGGED_S
    while (members(place) or _untitled(place)) and time.monotonic() < until:
        time.sleep(0.01)  # its logger writes on for a moment when the server has ended
    text, where = "", place.startup_log
    for path in (place.startup_log, *sorted(place.log.glob("postgresql-*.log"))):
        with contextlib.suppress(OSError), path.open(errors="replace") as file:
            file.seek(marks.get(path.name, 0))
            added = file.read(200_000)
            text += added
            where = path if _SERIOUS.search(added) else where
    return where, text


def relevant_line(text: str) -> str:
    """The last serious line of a log, without its time and place; otherwise the last line."""
    found = _SERIOUS.findall(text)
    if found:
        return str(found[-1]).strip().rstrip(".")
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip().rstrip(".") if lines else "it said nothing"


def other_version(place: Place) -> str | None:
    """The major version of a data folder that this one must not open or silently replace."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        found = (place.data / "PG_VERSION").read_text().strip()
        return found if found != MAJOR else None
    others = sorted(path.parts[-3] for path in place.root.glob("*/data/PG_VERSION"))
    return others[-1] if others else None
