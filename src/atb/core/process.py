"""Which process this is, in words that another process can check: whether it lives, or only its number does.

A pid says little: it is given to another process later, and each container counts its own. So a process is known by its pid,
the time it was started, and the place where that pid counts: the running kernel and its pid namespace. Containers may share a
host's name and machine-id, clones of a machine too; a running kernel's boot id is its own.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

ENDED = "ZX"  # a zombie is only what its parent has not asked about yet
_TEXT = re.compile(r"(\S+) pid (\d{1,10}) started (\S+) at (\S+)")


class Process(NamedTuple):
    """A process. host: its name, for people. started: as its system tells it. place: where its pid counts."""

    host: str
    pid: int
    started: str
    place: str

    def __str__(self) -> str:
        return f"{self.host} pid {self.pid} started {self.started} at {self.place}"

    @property
    def shown(self) -> str:
        return f"{self.host} pid {self.pid}"

    @property
    def is_here(self) -> bool:
        """Whether its pid means here what it means there."""
        return self.place == this_place()

    @property
    def was_before_restart(self) -> bool:
        """Whether it ran before this host was last started. By the host's name, which clones share: for tidying only."""
        boot, here = (place.partition("/")[0] for place in (self.place, this_place()))
        return self.host == _word(socket.gethostname()) and boot != here

    @property
    def is_gone(self) -> bool:
        """Whether it has certainly ended. False where that cannot be told from here."""
        if not self.is_here or self.pid <= 0:
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            pass  # it is there, and another user's
        state, started = _look(self.pid)
        return bool(state) and (state in ENDED or started != self.started)


def this_process() -> Process:
    return Process(_word(socket.gethostname()), os.getpid(), _look(os.getpid())[1] or "-", this_place())


def parse_process(text: str) -> Process | None:
    """The process that a text begins with, written by `str`."""
    found = _TEXT.match(text)
    return None if found is None else Process(found[1], int(found[2]), found[3], found[4])


@cache
def this_place() -> str:
    """Of processes with the same, pids and start times mean the same."""
    boot = _read("/proc/sys/kernel/random/boot_id") or _read("/etc/machine-id") or socket.gethostname()
    return _word("/".join((boot, _namespace("pid"), _namespace("time"))))  # start times are told by the time namespace


def _look(pid: int) -> tuple[str, str]:
    """State and start of a process: two empty texts where they cannot be seen."""
    if not sys.platform.startswith("linux"):  # pragma: no cover (macOS)
        return _ask_ps(pid)
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:  # hidden from other users, or gone just now
        return "", ""
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return fields[0], fields[19]


def _ask_ps(pid: int) -> tuple[str, str]:  # pragma: no cover (macOS)
    import subprocess

    asked = ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)]
    told = subprocess.run(asked, capture_output=True, text=True, check=False, env={"LC_ALL": "C"}).stdout.split()
    return (told[0][:1], "_".join(told[1:])) if len(told) > 1 else ("", "")


def _namespace(kind: str) -> str:
    try:
        return re.sub(r"\D", "", str(Path(f"/proc/self/ns/{kind}").readlink()))
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def _word(text: str) -> str:
    return re.sub(r"\s+", "_", text.strip()) or "-"
