"""Small files that must survive a crash of the machine: written whole, synced, private, one writer at a time."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

PRIVATE, PRIVATE_FOLDER = 0o600, 0o700


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among all processes of this host. The lock ends with its process, however that ends."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


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
