"""The log file: one event a line, appended whole. Nothing that happens to it stops who writes.

The file may be moved away at any time, as a rotation does: the next line begins a new one. A line that was written while it was
moved is in both, rather than in none. Lines that cannot be written wait, the newest of them, until they can.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from pathlib import Path

WAITING = 1_000
NAME = "trading.log"


class LogFile:
    """Appends lines to `path`. `problem`: why the last one could not be written; empty when all is well."""

    def __init__(self, path: Path) -> None:
        self.path, self.problem = path, ""
        self.dropped = 0  # lines that waited for too long a time
        self._file: int | None = None
        self._torn = False
        self._waiting: deque[str] = deque()

    def write(self, line: str) -> bool:
        """Whether this line and all that waited are in the file."""
        self._waiting.append(line)
        if len(self._waiting) > WAITING:
            self._waiting.popleft()
            self.dropped += 1
        return self.retry()

    def retry(self) -> bool:
        """Write what waits."""
        try:
            while self._waiting:
                self._append(self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            self.problem = f"{self.path}: {error.strerror or error}"
            self._close()
            return False
        self.problem = ""
        return True

    def close(self) -> None:
        self.retry()
        self._close()

    def _append(self, line: str) -> None:
        data = (line + "\n").encode("utf-8", "backslashreplace")
        self._put(self._current(), data)
        if not self._is_at_its_place():  # moved in between
            self._put(self._current(), data)

    def _put(self, file: int, data: bytes) -> None:
        """In one piece, so that two engines can share a file. A full disk may take half of it."""
        whole = (b"\n" if self._torn else b"") + data
        written = os.write(file, whole)
        self._torn = (self._torn and written == 0) or 0 < written < len(whole)
        if written < len(whole):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _current(self) -> int:
        if self._file is None or not self._is_at_its_place():
            self._close()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        return self._file

    def _is_at_its_place(self) -> bool:
        if self._file is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._file), self.path.stat())
        except OSError:  # nothing is there
            return False

    def _close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None
