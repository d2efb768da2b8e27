"""Which process listens on a port of this machine, where the system tells (Linux, one's own processes)."""

from __future__ import annotations

import os
from pathlib import Path

LISTENING = "0A"


def port_owner(port: int, proc: Path = Path("/proc")) -> str:
    """`process 1234 (atb)`; empty where nobody can say. Never its arguments, which may hold secrets."""
    sockets = {f"socket:[{inode}]" for name in ("tcp", "tcp6") for inode in _inodes(proc / "net" / name, port)}
    if not sockets:
        return ""
    for folder in proc.glob("[0-9]*"):
        if _holds(folder / "fd", sockets):
            return f"process {folder.name} ({_name(folder)})"
    return ""


def _inodes(table: Path, port: int) -> list[str]:
    """Of the sockets that listen on `port`: the tenth column of each line whose second ends with it, in hex."""
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []
    return [row[9] for row in rows if row[3] == LISTENING and int(row[1].rpartition(":")[2], 16) == port]


def _holds(folder: Path, sockets: set[str]) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(_target(entry.path) in sockets for entry in entries)
    except OSError:  # another user's, or gone
        return False


def _target(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 - of a process with many files this is four times as fast
    except OSError:
        return ""


def _name(folder: Path) -> str:
    try:
        return (folder / "comm").read_text().strip()
    except OSError:
        return "gone by now"
