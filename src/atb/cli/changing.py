"""What each command that changes the ledger begins with: the database that is meant, who typed it, a yes where one is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from atb.app import App
    from atb.ledger.line import Line


def open_line(application: App) -> Line:
    """A line to the database that is meant: from here on it is the one that was changed last."""
    from atb.cli.console import warn
    from atb.ledger.line import Line
    from atb.ledger.migrate import check_schema

    where = application.database_to("change", warn)
    line = Line(where, say=lambda text: typer.echo(text, err=True))
    line.surely(lambda connection: check_schema(connection, where))
    line.connection.rollback()
    application.remember(where)
    return line


def typed_here() -> str:
    """The evidence of what somebody says: who, and on which host."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "somebody"
    return f"typed by {user} on {socket.gethostname()}"


def confirm(question: str) -> None:
    """Go on after a yes only. For a terminal: whoever types into a pipe is not asked."""
    from atb.core.errors import Interrupted

    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:
        agreed = False
    if not agreed:
        raise Interrupted("Not confirmed: nothing was done.")
