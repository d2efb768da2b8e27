"""What commands print: data to stdout, the rest to stderr; tables on a terminal, plain rows in a pipe."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import typer

if TYPE_CHECKING:
    from atb.app import App
    from atb.live.screen import Looks

BLOCKS = "░▁▂▃▄▅▆▇█"


def open_app() -> App:
    """The App of a command; what is odd about the settings is said once."""
    from atb.app import App

    app = App()
    for text in app.settings.notes:
        warn(text)
    return app


def label(text: str, **style: Any) -> str:
    """The word before a message on stderr, coloured where somebody looks and wants colour."""
    from atb.settings import colour_is_wanted

    return typer.style(text, **style) if sys.stderr.isatty() and colour_is_wanted() else text


def warn(text: str) -> None:
    """A remark that is not data."""
    typer.echo(f"{label('Note:', fg='yellow')} {text}", err=True)


def draws_blocks(stream: TextIO) -> bool:
    """Whether block characters arrive: the stream's encoding has them, and the locale is not plain C."""
    import locale

    try:
        BLOCKS.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    # Python writes UTF-8 in the locale C too, where the terminal may show nothing of it.
    return locale.setlocale(locale.LC_CTYPE) not in ("C", "POSIX")


def looks() -> Looks:
    """What stdout can show of a running engine."""
    from atb.live.screen import Looks
    from atb.settings import colour_is_wanted, terminal_moves

    if not sys.stdout.isatty():
        return Looks(blocks=draws_blocks(sys.stdout))
    return Looks(terminal_moves(), colour_is_wanted(), draws_blocks(sys.stdout))


def columns_of_terminal() -> int:
    return shutil.get_terminal_size().columns


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", whole_words: bool = False
) -> None:
    """A table on a terminal; in a pipe the header and the rows, separated by tabs.

    Numbers are never broken, and with `whole_words` no word is, so long as `narrowest` fits.
    """
    if not sys.stdout.isatty():
        for row in [header, *rows]:
            typer.echo("\t".join(row))
        return
    from rich.box import SIMPLE_HEAD, Box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    box = SIMPLE_HEAD if draws_blocks(sys.stdout) else Box(str(SIMPLE_HEAD).replace("─", "-"), ascii=True)
    table = Table(title=title or None, title_justify="left", header_style="bold", box=box)
    for i, name in enumerate(header):
        numeric = bool(rows) and all(_is_number(row[i]) for row in rows if row[i])
        least = _longest_word(i, header, rows) if whole_words else None
        table.add_column(
            name, overflow="fold", justify="right" if numeric else "left", no_wrap=numeric, min_width=least
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool = False, otherwise: str = "") -> None:
    """Rows with the same names, as JSON or as a table; where there are none, a table is `otherwise` on stderr."""
    if as_json:
        print_json(rows)
    elif rows:
        print_table(list(rows[0]), [[str(value) for value in row.values()] for row in rows])
    elif otherwise:
        typer.echo(otherwise, err=True)


def narrowest(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """The columns of a terminal that a table needs at least for its words to stay whole."""
    return sum(_longest_word(i, header, rows) + 3 for i in range(len(header))) + 1


def _longest_word(column: int, header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    return max(len(word) for row in [header, *rows] for word in row[column].split() or [""])


def _is_number(text: str) -> bool:
    return text.strip("+-%x ").replace(",", "").replace(".", "", 1).isdigit() or text == "n/a"


class ProgressLine:
    """Progress of long work on stderr: one moving line on a terminal, a line every few seconds in a log.

    Work that reports a share of 0 is announced at once.
    """

    def __init__(self) -> None:
        from atb.settings import terminal_moves

        self.moving = sys.stderr.isatty() and terminal_moves()
        self.started: dict[str, float] = {}
        self.last = 0.0
        self.shown = False

    def __call__(self, what: str, share: float, note: str = "") -> None:
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
        text += f"  {note}" if note else ""
        if self.moving:
            shown = text[: max(10, columns_of_terminal() - 1)]  # a wrapped line could not be taken back
            sys.stderr.write(f"\r\x1b[2K{shown}" + ("\n" if share >= 1 else ""))
            sys.stderr.flush()
        else:
            typer.echo(text, err=True)

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End a line that still moves, so that what follows starts on its own."""
        if self.moving and self.shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def bar(share: float, width: int = 24) -> str:
    filled = round(max(0.0, min(1.0, share)) * width)
    done, left = "█░" if draws_blocks(sys.stderr) else "#."
    return done * filled + left * (width - filled)
