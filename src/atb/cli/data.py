"""`atb data`: candles in the store, and market rules."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atb.cli import data_cache, data_fetch, data_provider, data_show, data_side
from atb.cli.data_options import Json, Provider, SymbolName, SymbolOption, nothing_under, series_of, stored
from atb.cli.lean import LeanCommand, LeanGroup

if TYPE_CHECKING:
    from atb.data.validation import Quality

app = typer.Typer(
    cls=LeanGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Fetch, import and look at candles; market rules.\n\n\b\nExamples:\n"
    "  atb data prefill-cache --symbols BTCUSDT ETHUSDT --timeframes 1h 4h\n"
    "  atb data cache-manager info\n"
    "  atb data import candles.csv --symbol BTCUSDT --timeframe 1h\n  atb data list\n  atb data gaps BTCUSDT 1h\n"
    "  atb data rules BTCUSDT --refresh",
)

data_fetch.register(app)
data_provider.register(app)
data_show.register(app)
app.add_typer(data_cache.manager, name="cache-manager")
app.add_typer(data_side.app, name="side")


@app.command(
    "import",
    cls=LeanCommand,
    help="Check a Parquet or CSV file and put its candles into the store.\n\n\b\nExamples:\n"
    "  atb data import candles.csv --symbol BTCUSDT\n"
    "  atb data import btc.parquet --symbol BTC-USD --provider coinbase",
)
def import_file(
    file: Annotated[Path, typer.Argument(help="Columns open_time open high low close volume.")],
    symbol: SymbolOption,
    timeframe: Annotated[
        str | None, typer.Option(help="1h, 4h, ... [default: told from the candles]", metavar="TIMEFRAME")
    ] = None,
    provider: Provider = "binance",
    replace: Annotated[
        bool, typer.Option("--replace", help="Put the file's candles in the place of stored ones that differ.")
    ] = False,
) -> None:
    from atb.cli.console import open_app, warn
    from atb.core.timeframe import SystemClock, check_timeframe
    from atb.core.types import symbol_for
    from atb.core.words import are, counted
    from atb.data.files import load_file
    from atb.data.importing import drop_unfinished, import_candles
    from atb.data.layout import series_key
    from atb.data.validation import assess

    app = open_app()
    app.settings.check_venue(provider)
    wanted = symbol_for(provider, symbol)
    if timeframe is not None:
        check_timeframe(timeframe)
    candles = load_file(file, wanted.id, timeframe)
    candles, unfinished = drop_unfinished(candles, SystemClock().now_ms())
    if unfinished:
        have = "has" if unfinished == 1 else "have"
        warn(f"The last {counted(unfinished, 'candle')} {have} not closed yet and {are(unfinished)} left out.")
    store, key = app.store(), series_key(provider, wanted, candles.timeframe)
    new = import_candles(store, key, candles, replace=replace)
    missing = assess(candles).missing
    whose = "" if provider == "binance" else f" --provider {provider}"
    gaps = f" ({missing:,} missing; see: atb data gaps {wanted.id} {candles.timeframe}{whose})" if missing else ""
    there = len(candles) - new
    known = f"; {there:,} {'was' if there == 1 else 'were'} there already" if there else ""
    typer.echo(
        f"Stored {counted(new, 'candle')} of {wanted.id} {candles.timeframe}{gaps}{known}, under {store.where(key)}",
        err=True,
    )


@app.command("list", cls=LeanCommand, help="The series in the store.\n\n\b\nExample:\n  atb data list --json")
def list_series(json: Json = False) -> None:
    from atb.cli.console import open_app, print_rows
    from atb.core.timeframe import iso

    store = open_app().store()
    rows: list[dict[str, Any]] = []
    for key in store.keys():  # noqa: SIM118 - a method, not a dictionary
        parts = store.parts(key)
        if parts:
            size = sum(part.size for part in parts)
            span = {"from": iso(parts[0].start_ms), "to": iso(max(part.end_ms for part in parts))}
            rows.append({**key._asdict(), **span, "parts": len(parts), "bytes": size})
    print_rows(rows, json, nothing_under(store))


@app.command(
    "gaps",
    cls=LeanCommand,
    help="What is missing or odd in a stored series or a file.\n\n\b\nExamples:\n  atb data gaps BTCUSDT 4h\n"
    "  atb data gaps BTCUSDT --data candles.csv --json",
)
def gaps(
    symbol: SymbolName,
    timeframe: Annotated[
        str | None, typer.Argument(help="1h, 4h, ... [default: 1h, or that of --data]", show_default=False)
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A file instead of the store.", metavar="FILE")] = None,
    provider: Provider = "binance",
    json: Json = False,
) -> None:
    from atb.cli.console import open_app
    from atb.data.files import load_file
    from atb.data.validation import assess

    app = open_app()
    key, wanted = series_of(app, provider, symbol, timeframe or "1h")
    candles = load_file(data, wanted.id, timeframe, "the argument TIMEFRAME") if data else stored(app, key)
    _print_quality(assess(candles), wanted.id, candles.timeframe, json)


def _print_quality(quality: Quality, symbol: str, timeframe: str, json: bool) -> None:
    from atb.cli.console import print_json, print_rows
    from atb.core.timeframe import iso
    from atb.core.words import counted

    rows: list[dict[str, Any]] = [{"first_missing": iso(gap.start_ms), "missing": gap.missing} for gap in quality.gaps]
    if json:
        facts = quality._asdict() | {"gaps": rows, "first": iso(quality.first_ms), "last": iso(quality.last_ms)}
        print_json({"symbol": symbol, "timeframe": timeframe, **facts})
        return
    print_rows(rows)
    typer.echo(
        f"{symbol} {timeframe}: {counted(quality.rows, 'candle')} from {iso(quality.first_ms)} to {iso(quality.last_ms)}; "
        f"{quality.missing:,} missing ({quality.missing_share:.3%}) in {counted(len(rows), 'gap')}; "
        f"{quality.zero_volume:,} without volume.",
        err=True,
    )


@app.command(
    "rules",
    cls=LeanCommand,
    help="Lot, tick and minimum notional of a symbol.\n\nThey come from a shipped, dated table; --refresh asks the "
    "exchange and remembers its answer.\n\n\b\nExamples:\n  atb data rules BTCUSDT\n"
    "  atb data rules BTC-USD --provider coinbase --refresh",
)
def rules(
    symbol: SymbolName,
    provider: Provider = "binance",
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask the exchange and remember the answer.")] = False,
    json: Json = False,
) -> None:
    from atb.cli.console import open_app, print_json, print_table, warn
    from atb.core.types import symbol_for
    from atb.venue.market_rules import remark, rules_for

    app = open_app()
    app.settings.check_venue(provider)
    wanted = symbol_for(provider, symbol)
    if refresh:
        app.refresh_rules(provider, wanted)
    told = rules_for(provider, wanted, app.settings.market_rules)
    found = {name: f"{value:f}" if isinstance(value, Decimal) else value for name, value in told._asdict().items()}
    if json:
        print_json(found)
    else:
        known = {name: value for name, value in found.items() if value is not None}
        print_table(list(known), [list(known.values())])
    if said := remark(told, provider):
        warn(said)
