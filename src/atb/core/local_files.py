"""Small files that must survive a crash of the machine: written whole, synced, private, one writer at a time."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PRIVATE, PRIVATE_FOLDER = 0o600, 0o700
LOOK_S = 0.005  # between two looks at a lock that somebody has


@contextlib.contextmanager
def locked(path: Path, patience_s: float | None = None) -> Iterator[None]:
    """Alone among all processes of this host. The lock ends with its process, however that ends.

    TimeoutError, an OSError, when another one has it for longer than `patience_s`: it may have been stopped. None: for ever.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        _lock(handle, path, patience_s)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, path: Path, patience_s: float | None) -> None:
    import fcntl

    if patience_s is None:
        fcntl.flock(handle, fcntl.LOCK_EX)
        return
    end_s = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end_s:
                raise TimeoutError(f"another process has had {path} locked for {patience_s:g} s") from None
            time.sleep(LOOK_S)


def replace(path: Path, content: bytes, *, sync: bool = True) -> None:
    """The whole file at once, so that nobody ever reads a part of it. On disk when this returns, unless not to `sync`."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
    handle, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # private
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            if sync:
                os.fsync(out.fileno())
        Path(made).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(made).unlink()
        raise
    if sync:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """The names in a folder, on disk: a file that was made or renamed is found after a crash of the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
