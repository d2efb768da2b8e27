"""The file HALT, by which `atb live halt` works without a database and which `resume` clears."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from atb.cli.changing import typed_here
from atb.cli.console import open_app, warn
from atb.execution.halt_file import EVERY, NAME, blocks, clear, write

if TYPE_CHECKING:
    from atb.core.errors import DatabaseError


def halt_here(error: DatabaseError, account: str | None, reason: str) -> None:
    """Nobody can be told by the ledger: whoever trades on this host asks a file before each entry."""
    home = open_app().settings.home
    path = write(home, account or EVERY, by=typed_here(), reason=reason.strip())
    warn(f"{error.what} Engines on other hosts are not halted.")
    whom = account or "Every account of this host"
    typer.echo(f"{whom} is halted by the file {path}: no entries until atb live resume. Exits and stops go on.")


def clear_here(account: str) -> None:
    """A file that halts this account alone is over, too; one that halts all is somebody else's to remove."""
    home = open_app().settings.home
    if not blocks(home, account):
        return
    if left := clear(home, account):
        warn(f"{home / NAME} halts every account of this host still ({left}). When that is over: rm {home / NAME}")
    else:
        typer.echo(f"{home / NAME} does not halt {account} any more.")
