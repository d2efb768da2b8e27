"""Which database was meant: the one that was used last by a command that changes something.

A cron job that lost its environment finds atb's own database where a server was meant, and would check, back up or close the
wrong one. So the last one that was reached is remembered, without its password, and a command that comes to another says so
or refuses.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from atb.core.errors import UsageError
from atb.ledger.connect import Where

NAME = "database"
OWN = "atb's own database"


def remember(home: Path, where: Where) -> None:
    """Note `where` in the state folder. A folder that cannot be written is no reason to fail."""
    from atb.ledger.embedded.place import write_private

    path, label = home / NAME, OWN if where.embedded else where.shown
    if _remembered(path) == label:
        return
    with contextlib.suppress(OSError):
        home.mkdir(parents=True, exist_ok=True)
        write_private(path, label + "\n")


def other_than_meant(home: Path, where: Where) -> str | None:
    """The database that was used last, where it is not `where`."""
    last = _remembered(home / NAME)
    return None if last in (None, where.shown, OWN if where.embedded else None) else last


def refuse_other(home: Path, where: Where) -> None:
    """A UsageError where atb's own database is at hand and a server was meant."""
    last = other_than_meant(home, where)
    if where.embedded and last is not None:
        raise UsageError(
            f"DATABASE_URL is not set, so this would use {OWN}; the one used last is {last}.",
            f"Set DATABASE_URL (in .env, or for cron in the job itself). If {OWN} is meant: atb db start",
        )


def _remembered(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
