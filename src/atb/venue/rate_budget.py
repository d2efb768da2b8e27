"""One budget of requests for all processes of this machine: exchanges count by address, not by program.

A small file for each host (and, where an exchange counts them apart, for private requests) holds the weight taken in the
current window, what others at this address use by the exchange's own count, and until when the exchange wants silence.
Everybody who asks takes from it under a lock. A more urgent request may fill more of the budget than a less urgent one,
so that a download never stands in the way of a stop.

The file is a help, not a truth: where it is damaged, cannot be written, or its lock is held by a stopped process, each
process counts for itself, and the exchange's own refusal (429) has the last word.
"""

from __future__ import annotations

import contextlib
import enum
import os
import re
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple


class Priority(enum.Enum):
    """Why a request is made. The value: which share of the budget it may fill, also what others have taken counted."""

    PROTECT = 1.0  # cancels, stops and exits
    RECONCILE = 0.85
    ENTRY = 0.7
    DATA = 0.5


class Limit(NamedTuple):
    """How much weight an exchange allows in a window; windows begin at multiples of their length since 1970."""

    weight: int
    window_s: int


class Tally(NamedTuple):
    """What the file holds. foreign: the weight that others at this address used, by the exchange's count."""

    window: int = 0
    taken: int = 0
    foreign: int = 0
    silent_until_ms: int = 0


LIMITS = {
    "binance": Limit(6000, 60),
    "binanceusdm": Limit(2400, 60),
    "coinbase": Limit(10, 1),
    "coinbase private": Limit(30, 1),
}
LONGEST_SILENCE_S = (
    3 * 86_400
)  # the longest ban that Binance gives: a later time is a mistake, or a clock that was wrong
LOCK_PATIENCE_S = 0.1  # holders need microseconds; one that was stopped while holding must not stop everybody
_RECORD = struct.Struct("<4sqqqqI")
_MAGIC = b"atb1"


class RateBudget:
    """The budget for one host. `folder` None, or one that cannot be used: this process alone."""

    def __init__(self, folder: Path | None, name: str, limit: Limit, clock: Callable[[], float] = time.time) -> None:
        self.limit = limit
        self._clock = clock
        self._path = None if folder is None else folder / re.sub(r"[^\w.-]", "_", name)
        self._fd = -1
        self._owner = 0  # a lock belongs to an open file, which a forked child would share
        self._own = Tally()
        self._threads = threading.Lock()

    def take(self, weight: int, priority: Priority) -> float:
        """Takes `weight` and returns 0.0; or takes nothing and returns the seconds until it is worth asking again."""
        with self._tally() as (tally, write):
            now = self._clock()
            tally = self._current(tally, now)
            if silent_s := _silence_left(tally, now):
                return silent_s
            used = tally.taken + tally.foreign
            if used + weight > self.limit.weight * priority.value and used > 0:
                return (tally.window + 1) * self.limit.window_s - now
            write(tally._replace(taken=tally.taken + weight))
            return 0.0

    def left(self) -> int:
        """The weight that may still be taken in the current window."""
        with self._tally() as (tally, _):
            tally = self._current(tally, self._clock())
            return max(0, self.limit.weight - tally.taken - tally.foreign)

    def silent_s(self) -> float:
        """For how many seconds from now the exchange wants no request at all."""
        with self._tally() as (tally, _):
            now = self._clock()
            return _silence_left(self._current(tally, now), now)

    def note(self, used: int, asked_at: float) -> None:
        """The exchange's own count as of the answer to a request of `asked_at` (this machine's clock)."""
        with self._tally() as (tally, write):
            tally = self._current(tally, self._clock())
            if int(asked_at // self.limit.window_s) == tally.window:  # else it speaks of a window that is over
                write(tally._replace(foreign=max(0, used - tally.taken)))

    def silence(self, seconds: float) -> None:
        """The exchange wants no request at all for so long; 0: until the next window."""
        with self._tally() as (tally, write):
            now = self._clock()
            tally = self._current(tally, now)
            rest = (tally.window + 1) * self.limit.window_s - now
            until_ms = round((now + min(seconds or rest, LONGEST_SILENCE_S)) * 1000)
            write(tally._replace(silent_until_ms=max(until_ms, tally.silent_until_ms)))

    def _current(self, tally: Tally, now: float) -> Tally:
        """The tally as of now: a new window begins empty, and a silence that cannot be is none."""
        window = int(now // self.limit.window_s)
        until = tally.silent_until_ms if tally.silent_until_ms / 1000 - now <= LONGEST_SILENCE_S else 0
        if window != tally.window:
            return Tally(window, 0, 0, until)
        return tally if until else tally._replace(silent_until_ms=0)

    @contextlib.contextmanager
    def _tally(self) -> Iterator[tuple[Tally, Callable[[Tally], None]]]:
        """The tally under the lock, and how to change it."""
        with self._threads:
            fd = self._locked()
            try:
                yield self._read(fd), lambda tally: self._write(fd, tally)
            finally:
                if fd >= 0:
                    self._unlock(fd)

    def _read(self, fd: int) -> Tally:
        """What the file says; what this process knows itself where the file says nothing."""
        if fd < 0:
            return self._own
        try:
            record = os.pread(fd, _RECORD.size, 0)
        except OSError:
            return self._own
        return _decoded(record) or self._own

    def _write(self, fd: int, tally: Tally) -> None:
        self._own = tally
        if fd >= 0:
            with contextlib.suppress(OSError):  # a full disk: each for itself
                os.pwrite(fd, _encoded(tally), 0)

    def _locked(self) -> int:
        """The file, locked; -1 where that cannot be."""
        try:
            fd = self._opened()
            return fd if fd >= 0 and _lock(fd) else -1
        except (OSError, ImportError):  # ImportError: a system without such locks
            return -1

    def _unlock(self, fd: int) -> None:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_UN)

    def _opened(self) -> int:
        if self._path is None:
            return -1
        if self._fd >= 0 and self._owner == os.getpid() and os.fstat(self._fd).st_nlink:  # 0: somebody removed it
            return self._fd
        if self._fd >= 0 and self._owner == os.getpid():
            os.close(self._fd)
        self._fd = -1
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._owner = os.getpid()
        return self._fd


def _silence_left(tally: Tally, now: float) -> float:
    return max(0.0, tally.silent_until_ms / 1000 - now)


def _lock(fd: int) -> bool:
    import fcntl

    deadline = 0.0
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            now = time.monotonic()
            deadline = deadline or now + LOCK_PATIENCE_S
            if now > deadline:
                return False
            time.sleep(0.0002)


def _encoded(tally: Tally) -> bytes:
    head = _RECORD.pack(_MAGIC, *tally, 0)[:-4]
    return head + zlib.crc32(head).to_bytes(4, "little")


def _decoded(record: bytes) -> Tally | None:
    """None: the file is new, or not what we wrote."""
    if len(record) != _RECORD.size or zlib.crc32(record[:-4]) != int.from_bytes(record[-4:], "little"):
        return None
    return Tally(*_RECORD.unpack(record)[1:-1])
