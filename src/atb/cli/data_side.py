"""`atb data side`: what strategies may know beside candles (funding, open interest, sentiment, the user's own)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atb.cli.data_options import Json
from atb.cli.lean import LeanCommand, LeanGroup

if TYPE_CHECKING:
    from atb.data.side_store import SideKey, SideStore
    from atb.engine.sides import SideRows

app = typer.Typer(
    cls=LeanGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Side series: what strategies may know beside candles.\n\nEach value has a time that it is about, and one from when on "
    "it was known; no strategy sees it before.\n\n\b\nExamples:\n"
    "  atb data side download funding_rate BTCUSDT\n"
    "  atb data side import mine.csv --name mine --symbol BTCUSDT --delay 1d\n"
    "  atb data side list\n  atb data side show funding_rate --symbol BTCUSDT",
)

Name = Annotated[str, typer.Argument(help="funding_rate, open_interest, fear_greed, or one of your own.")]
Of = Annotated[str | None, typer.Option("--symbol", help="Whose series, where several are stored.", metavar="SYMBOL")]
Venue = Annotated[str | None, typer.Option("--venue", help="Of which venue, where several are.", metavar="NAME")]


@app.command("list", cls=LeanCommand, help="The series that are stored.\n\n\b\nExample:\n  atb data side list --json")
def list_series(json: Json = False) -> None:
    from atb.cli.console import open_app, print_rows

    store = open_app().sides()
    found = [_facts(key, store.read(key)) for key in store.keys()]  # noqa: SIM118 - a method, not a dictionary
    shown = found if json else [{name: "" if value is None else value for name, value in row.items()} for row in found]
    print_rows(shown, json, f"No side series are stored under {store.shown}.")


def _facts(key: SideKey, rows: SideRows) -> dict[str, Any]:
    """first, last: what times it is about; known: since when its last value is."""
    import numpy as np

    from atb.core.timeframe import iso
    from atb.data.side_store import last_known

    last = last_known(rows)
    assert last is not None
    count = len(rows.time_ms)
    return {
        "name": key.name, "venue": key.venue, "symbol": key.symbol or None, "rows": count,
        "revisions": count - len(np.unique(rows.time_ms)), "first": iso(int(rows.time_ms.min())), "last": iso(last[0]),
        "known": iso(last[1]), "value": last[2],
    }  # fmt: skip


@app.command(
    "show",
    cls=LeanCommand,
    help="The last values of a series: what each is about, from when on it was known.\n\nA time that stands there twice was "
    "told otherwise later.\n\n\b\nExamples:\n  atb data side show fear_greed\n"
    "  atb data side show funding_rate --symbol BTCUSDT --rows 5 --json",
)
def show(
    name: Name,
    symbol: Of = None,
    venue: Venue = None,
    rows: Annotated[int, typer.Option("--rows", help="How many; 0: all.", metavar="N")] = 20,
    json: Json = False,
) -> None:
    from atb.cli.console import open_app, print_json, print_table
    from atb.core.errors import UsageError
    from atb.core.timeframe import iso

    if rows < 0:
        raise UsageError(f"--rows must be 0 or more, not {rows}.")
    store = open_app().sides()
    key = _one(store, name, symbol, venue)
    columns = (column[-rows:].tolist() for column in store.read(key))
    found = [
        {"time": iso(at), "available": iso(known), "value": value}
        for at, known, value in zip(*columns, strict=True)
    ]  # fmt: skip
    if json:
        print_json({"name": key.name, "venue": key.venue, "symbol": key.symbol or None, "rows": found})
    else:
        print_table(
            ["time", "available", "value"], [[row["time"], row["available"], f"{row['value']!r}"] for row in found]
        )


@app.command(
    "import",
    cls=LeanCommand,
    help="Put the values of a Parquet or CSV file into the store.\n\nColumns: time, value, and available (from when on it was "
    "known). Without the last, --delay says how long after its time each value was there. A value that is stored otherwise "
    "counts from now on: what was known before stays.\n\n\b\nExamples:\n"
    "  atb data side import mine.csv --name mine --delay 1d\n"
    "  atb data side import funding.parquet --name funding_rate --symbol BTCUSDT --venue binanceusdm \\\n"
    "    --time-column funding_time --value-column funding_rate --delay 1m",
)
def import_file(
    file: Annotated[Path, typer.Argument(help="Parquet or CSV.")],
    name: Annotated[str, typer.Option(help="What the series is called: small letters, digits, _.", metavar="NAME")],
    symbol: Annotated[
        str | None,
        typer.Option(help="Whose it is, as the exchange writes it. [default: it is of no symbol]", metavar="SYMBOL"),
    ] = None,
    venue: Annotated[str, typer.Option(help="Where it is from.", metavar="NAME")] = "file",
    delay: Annotated[
        str | None, typer.Option(help="How long after its time a value was known: 1m, 8h, 1d.", metavar="LENGTH")
    ] = None,
    time_column: Annotated[str, typer.Option(help="[default: time]", show_default=False, metavar="NAME")] = "",
    value_column: Annotated[str, typer.Option(help="[default: value]", show_default=False, metavar="NAME")] = "",
    available_column: Annotated[
        str, typer.Option(help="[default: available, where there is one]", show_default=False, metavar="NAME")
    ] = "",
) -> None:
    from atb.cli.console import open_app
    from atb.core.timeframe import SystemClock, parse_duration_ms
    from atb.core.words import counted
    from atb.data.layout import IMPORTED
    from atb.data.side_files import Columns, load_side_file
    from atb.data.side_store import checked_key
    from atb.strategy.contract import check_side_name

    key = checked_key(check_side_name(name), venue, symbol)
    delay_ms = None if delay is None else parse_duration_ms(delay, "--delay")
    rows, told = load_side_file(file, Columns(time_column, value_column, available_column), delay_ms)
    store = open_app().sides()
    new = store.add(key, rows, None if told else SystemClock().now_ms(), IMPORTED)
    there = len(rows.time_ms) - new
    known = f"; {there:,} {'was' if there == 1 else 'were'} there already" if there else ""
    typer.echo(f"Stored {counted(new, 'value')} of {key.shown}{known}, under {store.where(key)}", err=True)


@app.command(
    "download",
    cls=LeanCommand,
    help="Fetch what is new of funding_rate or open_interest (of Binance's USD-M perpetuals), or fear_greed "
    "(alternative.me).\n\nOf open interest Binance tells the last 30 days only: download it regularly.\n\n\b\nExamples:\n"
    "  atb data side download funding_rate BTCUSDT\n"
    "  atb data side download open_interest BTCUSDT --period 1h\n  atb data side download fear_greed",
)
def download(
    name: Annotated[str, typer.Argument(help="funding_rate, open_interest or fear_greed.")],
    symbol: Annotated[str | None, typer.Argument(help="BTCUSDT or BTC/USDT.", show_default=False)] = None,
    start: Annotated[
        str | None, typer.Option(help="From this day on. [default: the last that is stored, else all]", metavar="DATE")
    ] = None,
    period: Annotated[
        str | None,
        typer.Option(help="Of open interest: 5m to 1d. [default: as it is stored, else 1h]", metavar="TIMEFRAME"),
    ] = None,
    json: Json = False,
) -> None:
    from atb.cli.console import open_app, print_json
    from atb.core.errors import UsageError
    from atb.core.timeframe import parse_time_ms
    from atb.core.words import counted

    key = _downloadable(name, symbol)
    if period is not None and name != "open_interest":
        raise UsageError(f"--period means nothing for {name}.", "Leave it out.")
    application = open_app()
    done = application.download_side(key, parse_time_ms(start, "--start") if start else None, period)
    if json:
        print_json({"name": key.name, "venue": key.venue, "symbol": key.symbol or None, **done._asdict()})
        return
    typer.echo(f"Stored {counted(done.new, 'value')} of {key.shown}; {counted(done.told, 'value')} came.", err=True)


@app.command(
    "remove",
    cls=LeanCommand,
    help="Remove a series.\n\n\b\nExample:\n  atb data side remove mine --yes",
)
def remove(
    name: Name,
    symbol: Of = None,
    venue: Venue = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    import sys

    from atb.cli.console import open_app
    from atb.core.errors import UsageError
    from atb.core.words import counted

    store = open_app().sides()
    key = _one(store, name, symbol, venue)
    count = counted(len(store.read(key).time_ms), "value")
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"{count} of {key.shown} would be removed.", "Say so with --yes.")
        typer.confirm(f"Remove {count} of {key.shown}?", abort=True, err=True)
    store.remove(key)
    typer.echo(f"Removed {count} of {key.shown}.", err=True)


def _one(store: SideStore, name: str, symbol: str | None, venue: str | None) -> SideKey:
    """The series that is meant. DataError where there is none, UsageError where there are several."""
    from atb.core.errors import DataError, UsageError, nearest

    keys = store.keys()
    found = [k for k in keys if k.name == name and symbol in (None, k.symbol) and venue in (None, k.venue)]
    if len(found) == 1:
        return found[0]
    if found:
        names = "; ".join(key.shown for key in found)
        raise UsageError(f"Several series are called {name}: {names}.", "Say which with --symbol and --venue.")
    asked = " ".join(filter(None, (name, venue, symbol)))
    hint = (
        nearest(asked, [key.shown for key in keys]) if keys else "Nothing is stored yet: atb data side download --help"
    )
    raise DataError(f"No side series {asked} is stored.", hint)


def _downloadable(name: str, symbol: str | None) -> SideKey:
    from atb.core.errors import UsageError, nearest
    from atb.core.types import symbol_for
    from atb.market.side_download import key_of
    from atb.venue.side_sources import SOURCES

    if name not in SOURCES:
        raise UsageError(
            f"'{name}' cannot be downloaded.", f"{nearest(name, list(SOURCES))} Others: atb data side import"
        )
    if SOURCES[name].has_symbol and symbol is None:
        raise UsageError(f"{name} is of a symbol.", f"Say which: atb data side download {name} BTCUSDT")
    if not SOURCES[name].has_symbol and symbol is not None:
        raise UsageError(f"{name} is of no symbol.", f"Leave {symbol} out.")
    return key_of(name, symbol_for("binance", symbol).id if symbol else "")
