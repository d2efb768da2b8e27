"""What commands print: data to stdout, the rest to stderr; tables on a terminal, plain rows in a pipe."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

import typer


def warn(text: str) -> None:
    """A remark that is not data."""
    label = typer.style("Note:", fg="yellow") if sys.stderr.isatty() else "Note:"
    typer.echo(f"{label} {text}", err=True)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table on a terminal; in a pipe the header and the rows, separated by tabs."""
    if not sys.stdout.isatty():
        for row in [header, *rows]:
            typer.echo("\t".join(row))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for i, name in enumerate(header):
        numeric = bool(rows) and all(_is_number(row[i]) for row in rows if row[i])
        table.add_column(name, overflow="fold", justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _is_number(text: str) -> bool:
    return text.strip("+-%x ").replace(",", "").replace(".", "", 1).isdigit() or text == "n/a"


class ProgressLine:
    """Progress of long work on stderr: one moving line on a terminal, a line every few seconds in a log.

    Work that reports a share of 0 is announced at once.
    """

    def __init__(self) -> None:
        self.moving = sys.stderr.isatty()
        self.started: dict[str, float] = {}
        self.last = 0.0
        self.shown = False

    def __call__(self, what: str, share: float) -> None:
        now = time.monotonic()
        begun = self.started.setdefault(what, now)
        since = now - max(self.last, begun)
        if 0.0 < share < 1.0 and since < (0.1 if self.moving else 5.0):
            return
        if share >= 1.0 and not self.shown and now - begun < 0.5:
            return  # short work needs no bar
        self.last, self.shown = now, True
        left = (now - begun) / share * (1 - share) if share > 0.02 else None
        text = f"{what}  {bar(share)} {share:4.0%}" + (f"  {left:.0f} s left" if left and share < 1 else "")
        if self.moving:
            shown = text[: max(10, shutil.get_terminal_size().columns - 1)]  # a wrapped line could not be taken back
            sys.stderr.write(f"\r\x1b[2K{shown}" + ("\n" if share >= 1 else ""))
            sys.stderr.flush()
        else:
            typer.echo(text, err=True)

    def close(self) -> None:
        """End a line that still moves, so that what follows starts on its own."""
        if self.moving and self.shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def bar(share: float, width: int = 24) -> str:
    filled = round(max(0.0, min(1.0, share)) * width)
    return "█" * filled + "░" * (width - filled)
