"""`atb models`: list, show, verify, train."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, verify and train models.")
