"""The folder of backups: their names, one run at a time, a log, and which are old enough to go."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from atb.core.errors import DatabaseError
from atb.ops.dump_file import NAME

LOCK, LOG, PARTIAL = ".backup.lock", "backup.log", ".partial"
FOR_EVER_DAYS = 365_000
TIME = "%Y%m%d_%H%M%S"


def backups_in(folder: Path) -> list[Path]:
    """The backups of a folder, the oldest first."""
    found = [(match[1], int(match[2] or 1), path) for path in _listed(folder) if (match := NAME.fullmatch(path.name))]
    return [path for _, _, path in sorted(found)]


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


@contextmanager
def explained_folder(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatabaseError(
            f"The backup cannot be written to {folder.absolute()}: {error.strerror or error}.",
            "Make room, or give another folder with --dir. Older backups are as they were.",
        ) from None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One backup at a time in a folder. The lock ends with its process, however that ends."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, 20, 0).decode().strip() or "unknown"
            raise DatabaseError(
                f"Another backup runs, pid {pid}: nothing was done in {folder.absolute()}.", "Wait until it has ended."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def free_name(folder: Path, now: datetime) -> str:
    names = (f"backup_{now:{TIME}}{suffix}.sql.gz" for suffix in ["", *(f"_{i}" for i in range(2, 1000))])
    return next(name for name in names if not (folder / name).exists())


def remove_old(folder: Path, keep_days: int, now: datetime, newest: Path) -> list[str]:
    """Delete backups that are older by their name and by their file time; never the one just made."""
    limit, removed = now - timedelta(days=min(keep_days, FOR_EVER_DAYS)), []
    for path in backups_in(folder):
        made = _time_of(path)
        if path != newest and made and made < limit and path.stat().st_mtime < limit.timestamp():
            path.unlink()
            removed.append(path.name)
    return removed


def _time_of(path: Path) -> datetime | None:
    match = NAME.fullmatch(path.name)
    with suppress(ValueError):
        return datetime.strptime(match[1], TIME).replace(tzinfo=UTC) if match else None
    return None


def log(folder: Path, now: datetime, text: str) -> None:
    with (folder / LOG).open("a") as log:
        log.write(f"{now:{TIME}}: {text}\n")
