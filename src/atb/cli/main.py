"""The `atb` command: its groups, and how errors reach the shell."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import atb
from atb.cli import backtest, data, models, strategies
from atb.cli.lean import LeanGroup
from atb.core.errors import AtbError

app = typer.Typer(
    cls=LeanGroup,
    name="atb",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    help=(
        "Trade crypto: backtests, market data, strategies and models.\n\n"
        "\b\nExamples:\n"
        "  atb backtest ml_basic --symbol BTCUSDT --timeframe 1h --days 365\n"
        "  atb backtest sma_cross --symbol BTCUSDT --data candles.csv\n"
        "  atb backtest ml_basic --symbol BTCUSDT --provider simulated --seed 7\n"
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
app.add_typer(data.app, name="data")
app.add_typer(strategies.app, name="strategies")
app.add_typer(models.app, name="models")


def main() -> None:
    """Run the command line; every foreseen failure ends with its own exit code and no traceback."""
    try:
        app()
    except AtbError as error:
        _print_error(error.what, error.hint)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _print_error("Interrupted.", "")
        sys.exit(130)
    except BrokenPipeError:  # `atb ... | head`: the reader has seen enough
        _silence_stdout()
        sys.exit(0)


def _print_error(what: str, hint: str) -> None:
    colour = sys.stderr.isatty()
    typer.echo(f"{typer.style('Error:', fg='red', bold=True) if colour else 'Error:'} {what}", err=True)
    if hint:
        typer.echo(f"  {hint}", err=True)


def _silence_stdout() -> None:
    """Keep the interpreter from complaining about the closed pipe when it flushes at exit."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
