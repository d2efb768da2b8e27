"""`atb models`: list, show, verify, train."""

from __future__ import annotations

import typer

from atb.cli.lean import LeanGroup

app = typer.Typer(cls=LeanGroup, no_args_is_help=True, rich_markup_mode=None, help="List, verify and train models.")
