"""The file HALT in the state folder: no entry is sent from this host while it says so, whatever any database says.

Each line is a JSON object with `account`, `by`, `reason` and `at`. Anything else counts, too, so that `touch HALT` and
`echo wait > HALT` do what they look like: a file without a line, and a line that is no such object, halt every account.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from atb.core.local_files import locked, replace

NAME, LOCK = "HALT", ".HALT.lock"
EVERY = ""  # stands for all accounts


class Halt(NamedTuple):
    """Why an account may not enter, or EVERY account."""

    account: str
    by: str
    reason: str
    at: str

    @property
    def said(self) -> str:
        who = f" ({self.by})" if self.by else ""
        when = f" at {self.at}" if self.at else ""
        return f"halted{who}{when}: {self.reason}"


def write(home: Path, account: str, *, by: str, reason: str) -> Path:
    """Halt one account, or EVERY one. On disk when this returns."""
    halt = Halt(account, by, reason, datetime.now(UTC).isoformat(timespec="seconds"))
    with locked(home / LOCK):
        _replace(home / NAME, [*(other for other in read(home) if other.account != account), halt])
    return home / NAME


def read(home: Path) -> list[Halt]:
    """All that is said. A file that is there and cannot be read halts everything."""
    path = home / NAME
    try:
        lines = path.read_bytes().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        return [Halt(EVERY, "", f"{path} cannot be read: {error.strerror}", "")]
    return [_read(line) for line in lines if line.strip()] or [Halt(EVERY, "", f"{path} is there", "")]


def blocks(home: Path, account: str) -> str:
    """Why this account may not enter; empty where it may."""
    return next((halt.said for halt in read(home) if halt.account in (account, EVERY)), "")


def clear(home: Path, account: str) -> str:
    """End the halt of one account; that of EVERY account only when EVERY is meant. Returns what blocks it still."""
    if not (home / NAME).exists():
        return ""
    with locked(home / LOCK):
        halts = read(home)
        left = [halt for halt in halts if halt.account != account]
        if len(left) < len(halts):
            _replace(home / NAME, left)
    return blocks(home, account)


class HaltFile:
    """What an executor asks before each entry: as cheap as asking whether the file is there."""

    def __init__(self, home: Path, account: str) -> None:
        self.home, self.account = home, account
        self._seen: tuple[int, int, int] | None = None
        self._why = ""

    def why(self) -> str:
        """Why no entry may be sent; empty where one may."""
        try:
            found = (self.home / NAME).stat()
        except FileNotFoundError:
            self._seen = None
            return ""
        except OSError as error:
            return f"{self.home / NAME} cannot be looked at: {error.strerror}"
        seen = (found.st_mtime_ns, found.st_size, found.st_ino)
        if seen != self._seen:
            self._why, self._seen = blocks(self.home, self.account), seen
        return self._why


def _read(line: str) -> Halt:
    try:
        told = json.loads(line)
        return Halt(*(str(told[name]) for name in Halt._fields))
    except (ValueError, LookupError, TypeError, RecursionError):
        return Halt(EVERY, "", line.strip()[:200], "")


def _replace(path: Path, halts: list[Halt]) -> None:
    if not halts:
        path.unlink(missing_ok=True)
        return
    lines = "".join(json.dumps(halt._asdict()) + "\n" for halt in halts)
    try:
        replace(path, lines.encode())
    except OSError:  # a full disk has room for a name: then everything is halted
        path.touch()
