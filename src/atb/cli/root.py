"""The command line: its groups, and how errors reach the shell."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Never, TextIO

import typer

import atb
from atb.cli import backtest, data, db, health, live, models, strategies
from atb.cli.lean import LeanGroup
from atb.core.errors import AtbError, DataError, Interrupted


class Terminated(KeyboardInterrupt):
    """SIGTERM: what Ctrl-C cleans up, it cleans up too."""


class Ended(Exception):
    """The same, past Typer, which takes every KeyboardInterrupt for Ctrl-C."""


class ReaderLeft(Exception):
    """`atb ... | head`: the reader has seen enough."""


class Root(LeanGroup):
    """Sees Ctrl-C, a closed pipe and a full disk before Typer does, which has no words for them."""

    def make_context(self, *args: Any, **more: Any) -> Any:
        with _in_our_words():  # --help and --version print here
            return super().make_context(*args, **more)

    def invoke(self, ctx: Any) -> Any:
        with _in_our_words():
            return super().invoke(ctx)


def _of_the_database(error: Exception) -> AtbError | None:
    """What an error of the driver means, wherever in a command it came up; None for any other error."""
    if not type(error).__module__.startswith("psycopg"):
        return None
    from atb.app import App
    from atb.ledger.connect import explained

    return explained(error, App().database())


@contextlib.contextmanager
def _in_our_words() -> Iterator[None]:
    """The system's exceptions as ours."""
    try:
        yield
    except Terminated:
        raise Ended from None
    except KeyboardInterrupt:
        raise Interrupted("Interrupted.") from None
    except BrokenPipeError:
        raise ReaderLeft from None
    except OSError as error:
        place = error.filename or "The output"
        hint = f"Who may: ls -ld '{place}'" if isinstance(error, PermissionError) else ""
        raise DataError(f"{place} cannot be read or written: {error.strerror or error}.", hint) from None
    except Exception as error:
        told = _of_the_database(error)
        if told is None:
            raise
        raise told from error


app = typer.Typer(
    cls=Root,
    name="atb",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    help=(
        "Trade crypto: backtests, live trading on paper or with money, its database and health, market data, strategies and "
        "models.\n\n"
        "\b\nExamples:\n"
        "  atb backtest ml_basic --symbol BTCUSDT --timeframe 1h --days 365\n"
        "  atb backtest sma_cross --symbol BTCUSDT --data candles.csv\n"
        "  atb backtest ml_basic --symbol BTCUSDT --provider simulated --seed 7\n"
        "  atb live ml_basic --symbol BTCUSDT --paper-trading\n"
        "  atb db verify\n"
        "  atb health check\n"
        "  atb strategies list"
    ),
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"atb {atb.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


backtest.register(app)
app.add_typer(live.app, name="live")
app.add_typer(data.app, name="data")
app.add_typer(strategies.app, name="strategies")
app.add_typer(models.app, name="models")
app.add_typer(db.app, name="db")
app.add_typer(health.app, name="health")


def run() -> None:
    """Run the command line; every foreseen failure ends with its own exit code and no traceback."""
    _prepare()
    try:
        app()
    except AtbError as error:
        _silence(sys.stdout)
        _print_error(error.what, error.hint)
        sys.exit(error.exit_code)
    except Ended:
        _print_error("Terminated.", "")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)  # so that whoever sent it sees that it worked
    except ReaderLeft:
        _silence(sys.stdout)
        sys.exit(0)


def _prepare() -> None:
    """Make SIGTERM an exception, and standard streams that are closed or cannot show a character no reason to fail."""
    signal.signal(signal.SIGTERM, _terminate)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _terminate(*_: object) -> Never:
    raise Terminated


def _print_error(what: str, hint: str) -> None:
    from atb.cli.console import label

    with contextlib.suppress(OSError):  # stderr on a full disk: the exit code is all that is left to say
        typer.echo(f"{label('Error:', fg='red', bold=True)} {what}", err=True)
        if hint:
            typer.echo(f"  {hint}", err=True)
    _silence(sys.stderr)


def _silence(stream: TextIO) -> None:
    """What could not be written is not tried again at exit, where the interpreter would complain."""
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
