"""`atb data cache-manager`: what the store holds, whether it is whole, and what of it may go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from atb.cli.data_options import DryRun, Json, nothing_under
from atb.cli.lean import LeanCommand, LeanGroup

if TYPE_CHECKING:
    from atb.app import App
    from atb.data.checking import Checked, Fault
    from atb.data.keeping import Going
    from atb.data.layout import SeriesKey
    from atb.data.overview import Series

HOUR_MS = 3_600_000
OnlyProvider = Annotated[str | None, typer.Option(help="Only this provider's series.", metavar="NAME")]
OnlySymbol = Annotated[str | None, typer.Option(help="Only this symbol's series.", metavar="SYMBOL")]
OnlyTimeframe = Annotated[str | None, typer.Option(help="Only this timeframe.", metavar="TIMEFRAME")]

manager = typer.Typer(
    cls=LeanGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The store of candles: what is in it, whether it is whole, what may go.\n\n\b\nExamples:\n"
    "  atb data cache-manager info\n  atb data cache-manager clear-old --hours 48 --dry-run\n"
    "  atb data cache-manager verify",
)


@manager.command(
    "info",
    cls=LeanCommand,
    help="How much is stored, how new it is, how often it was of use.\n\nfresh: at most the newest closed candle of its "
    "timeframe is missing. Hit rate: of the candles that commands wanted, those that were stored already.\n\n\b\nExamples:\n"
    "  atb data cache-manager info\n  atb data cache-manager info --json",
)
def info(json: Json = False) -> None:
    from atb.cli.console import open_app, print_json, print_table
    from atb.core.timeframe import SystemClock, iso_minute, iso_second
    from atb.core.words import counted, duration, in_bytes

    app = open_app()
    now_ms, store = SystemClock().now_ms(), app.store()
    rows = _overview(app, now_ms, _chosen(app, None, None, None))
    hits = app.usage().read()
    found, wanted = sum(h.found for h in hits.values()), sum(h.wanted for h in hits.values())
    rate = found / wanted if wanted else None
    updated = max((row.updated_ms for row in rows), default=None)
    total = sum(row.bytes for row in rows)
    if json:
        print_json({
            "location": store.shown, "series": [_facts(row) for row in rows], "bytes": total,
            "symbols": len({(row.key.venue, row.key.symbol) for row in rows}), "hit_rate": rate,
            "hits": {venue: h._asdict() | {"rate": h.rate} for venue, h in hits.items()},
            "last_update": iso_second(updated) if updated else None, "limit_bytes": app.settings.candles_limit_bytes,
        })  # fmt: skip
        return
    if not rows:
        typer.echo(nothing_under(store), err=True)
        return
    symbols = len({(row.key.venue, row.key.symbol) for row in rows})
    print_table(["what", "value"], [
        ["location", store.shown],
        ["last update", f"{iso_minute(updated or 0)} UTC, {duration(now_ms - (updated or 0))} ago"],
        ["hit rate", "not known yet" if rate is None else f"{rate:.1%} of {counted(wanted, 'candle')}"],
        ["cached symbols", str(symbols)], ["series", str(len(rows))], ["candles", f"{sum(r.rows for r in rows):,}"],
        ["size", in_bytes(total)],
    ])  # fmt: skip
    print_table(
        ["provider", "symbol", "timeframe", "candles", "size", "first", "last", "gaps", "not fetched", "freshness"],
        [_cells(row) for row in rows],
    )


@manager.command(
    "list", cls=LeanCommand, help="The parts of the store, file by file.\n\n\b\nExample:\n  atb data cache-manager list"
)
def list_parts(
    provider: OnlyProvider = None, symbol: OnlySymbol = None, timeframe: OnlyTimeframe = None, json: Json = False
) -> None:
    from atb.cli.console import open_app, print_rows
    from atb.core.timeframe import iso, iso_second

    app = open_app()
    store = app.store()
    rows = [
        {
            **key._asdict(), "kind": part.kind, "from": iso(part.start_ms), "to": iso(part.end_ms),
            "bytes": part.size, "written": iso_second(part.written_ms), "read": iso_second(part.read_ms), "file": part.path,
        }
        for key in _chosen(app, provider, symbol, timeframe)
        for part in store.parts(key)
    ]  # fmt: skip
    print_rows(rows, json, nothing_under(store))


@manager.command(
    "verify",
    cls=LeanCommand,
    help="Read every part to its last byte: checksums, names, rules of candles, parts that contradict each other. Exit code 3 "
    "when something is bad.\n\n\b\nExample:\n  atb data cache-manager verify",
)
def verify(
    provider: OnlyProvider = None, symbol: OnlySymbol = None, timeframe: OnlyTimeframe = None, json: Json = False
) -> None:
    from atb.cli.console import open_app, print_json, print_table
    from atb.core.errors import DataError
    from atb.core.words import counted

    app = open_app()
    parts, candles, faults = _checked(app, _chosen(app, provider, symbol, timeframe))
    if json:
        rows = [{**f.key._asdict(), "file": f.part.path, "what": f.what} for f in faults]
        print_json({"parts": parts, "candles": candles, "faults": rows})
    elif faults:
        print_table(["series", "file", "what"], [[f.key.shown, f.part.name, f.what] for f in faults])
    if faults:
        bad = "1 part is" if len(faults) == 1 else f"{len(faults)} parts are"
        raise DataError(f"{bad} bad of {counted(parts, 'part')}.", "Mend it: atb data cache-manager repair")
    typer.echo(f"{counted(parts, 'part')} with {counted(candles, 'candle')}: all good.", err=True)


@manager.command(
    "repair",
    cls=LeanCommand,
    help="Set bad parts aside and fetch again what was in them.\n\nOne that was imported or derived is set aside, too; how "
    "to have it again is said. Nothing is deleted.\n\n\b\nExamples:\n  atb data cache-manager repair --dry-run\n"
    "  atb data cache-manager repair",
)
def repair(
    provider: OnlyProvider = None, symbol: OnlySymbol = None, timeframe: OnlyTimeframe = None, dry_run: DryRun = False
) -> None:
    from atb.cli.console import open_app, warn
    from atb.cli.data_fetch import fetch_again
    from atb.core.words import counted
    from atb.market.mending import ranges, set_aside

    app = open_app()
    parts, _, faults = _checked(app, _chosen(app, provider, symbol, timeframe))
    for fault in faults:
        typer.echo(f"{fault.key.shown}: {fault.part.name}: {fault.what}")
    if not faults:
        typer.echo(f"{counted(parts, 'part')}: all good, nothing to mend.", err=True)
        return
    if dry_run:
        typer.echo(f"{counted(len(faults), 'part')} would be set aside and fetched again.", err=True)
        return
    mended = set_aside(app.store(), faults)
    for each in mended:
        typer.echo(f"Set aside: {each.aside}", err=True)
        if how := _to_be_made_again(each.fault):
            warn(how)
    fetch_again(app, ranges(mended))


def _to_be_made_again(fault: Fault) -> str:
    """What the user can do where no exchange gave a part; empty where one did, and is asked again."""
    from atb.data.layout import DERIVED, IMPORTED

    key, part = fault.key, fault.part
    whose = f"--provider {key.venue}"
    commands = {
        IMPORTED: f"came from a file; import that again: atb data import FILE --symbol {key.symbol} {whose}",
        DERIVED: "was derived from a shorter timeframe; do that again: "
        f"atb data derive {key.symbol} {key.timeframe} --from TIMEFRAME {whose}",
    }
    return f"{part.name} {commands[part.kind]}" if part.kind in commands else ""


@manager.command(
    "clear-old",
    cls=LeanCommand,
    help="Remove parts that were neither read nor written for so long.\n\nImported files stay, and so does what a live session "
    "looks back on.\n\n\b\nExamples:\n  atb data cache-manager clear-old --hours 48\n"
    "  atb data cache-manager clear-old --hours 48 --dry-run",
)
def clear_old(
    hours: Annotated[float, typer.Option(help="Unused for so long.", metavar="HOURS")] = 48.0,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    from atb.cli.console import open_app
    from atb.core.errors import UsageError
    from atb.core.timeframe import SystemClock
    from atb.data.keeping import unused

    if not 0 <= hours <= 10**6:
        raise UsageError(f"--hours must be from 0 to 1000000, not {hours:g}.")
    app, now_ms = open_app(), SystemClock().now_ms()
    going = unused(app.store(), now_ms - round(hours * HOUR_MS), app.pins().held(now_ms))
    _remove(app, going, dry_run, json)


@manager.command(
    "clear",
    cls=LeanCommand,
    help="Remove what is stored of some series, or of all: also imported files, and what a live session looks back on, with "
    "--all or a symbol.\n\n\b\nExamples:\n  atb data cache-manager clear --symbol BTCUSDT --timeframe 1m\n"
    "  atb data cache-manager clear --all --yes",
)
def clear(
    provider: OnlyProvider = None,
    symbol: OnlySymbol = None,
    timeframe: OnlyTimeframe = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    from atb.cli.console import open_app
    from atb.core.errors import UsageError
    from atb.data.keeping import Going

    if everything == bool(provider or symbol or timeframe):
        raise UsageError("What shall go?", "Name it with --symbol, --timeframe or --provider; or say --all.")
    app = open_app()
    store = app.store()
    going = [Going(key, part) for key in _chosen(app, provider, symbol, timeframe) for part in store.parts(key)]
    if going and not dry_run and not yes:
        _confirm(len(going), store.shown)
    _remove(app, going, dry_run, json)


def _confirm(count: int, where: str) -> None:
    import sys

    from atb.core.errors import UsageError
    from atb.core.words import counted

    if not sys.stdin.isatty():
        raise UsageError(f"{counted(count, 'part')} under {where} would be removed.", "Say so with --yes.")
    typer.confirm(f"Remove {counted(count, 'part')} under {where}?", abort=True, err=True)


def _remove(app: App, going: list[Going], dry_run: bool, json: bool) -> None:
    from atb.cli.console import print_json, print_rows
    from atb.core.timeframe import iso, iso_second
    from atb.core.words import counted, in_bytes
    from atb.data.keeping import remove

    if not dry_run:
        remove(app.store(), going)
    rows: list[dict[str, Any]] = [
        {
            **each.key._asdict(), "from": iso(each.part.start_ms), "to": iso(each.part.end_ms), "bytes": each.part.size,
            "read": iso_second(each.part.read_ms),
        }
        for each in going
    ]  # fmt: skip
    if json:
        print_json({"removed": not dry_run, "parts": rows})
    else:
        print_rows(rows)
    size = in_bytes(sum(each.part.size for each in going))
    done = "would be removed" if dry_run else "removed"
    typer.echo(f"{counted(len(going), 'part')} ({size}) {done}.", err=True)


def _chosen(app: App, provider: str | None, symbol: str | None, timeframe: str | None) -> list[SeriesKey]:
    """The stored series that are meant. UsageError where a name means none."""
    from atb.core.errors import UsageError, nearest
    from atb.core.timeframe import check_timeframe
    from atb.core.types import symbol_for

    if provider is not None:
        app.settings.check_venue(provider)
    if timeframe is not None:
        check_timeframe(timeframe)
    keys = [key for key in app.store().keys() if provider in (None, key.venue)]  # noqa: SIM118 - a method
    if symbol is not None:
        named = [key for key in keys if key.symbol == symbol_for(key.venue, symbol).id]
        if keys and not named:
            raise UsageError(f"Nothing is stored of '{symbol}'.", nearest(symbol, sorted({k.symbol for k in keys})))
        keys = named
    return [key for key in keys if timeframe in (None, key.timeframe)]


def _overview(app: App, now_ms: int, keys: list[SeriesKey]) -> list[Series]:
    from atb.cli.console import warn
    from atb.core.errors import DataError
    from atb.data.overview import look_at

    store, rows = app.store(), []
    for key in keys:
        try:
            row = look_at(store, key, now_ms)
        except DataError as error:  # the others can be told of
            warn(f"{error.what} {error.hint}")
            continue
        if row is not None:
            rows.append(row)
    return rows


def _facts(row: Series) -> dict[str, Any]:
    from atb.core.timeframe import iso, iso_second

    times = {name: None if at is None else iso(at) for name, at in (("first", row.first_ms), ("last", row.last_ms))}
    facts = {
        name: value for name, value in row._asdict().items() if name not in ("key", "first_ms", "last_ms", "updated_ms")
    }
    return {
        **row.key._asdict(),
        **facts,
        **times,
        "last_update": iso_second(row.updated_ms),
        "freshness": row.freshness,
    }


def _cells(row: Series) -> list[str]:
    from atb.core.timeframe import iso_minute
    from atb.core.words import counted, in_bytes

    first, last = ("" if at is None else iso_minute(at) for at in (row.first_ms, row.last_ms))
    behind = f", {counted(row.behind, 'candle')} behind" if row.freshness == "stale" else ""
    return [
        row.key.venue, row.key.symbol, row.key.timeframe, f"{row.rows:,}", in_bytes(row.bytes), first, last,
        f"{row.gaps:,}", f"{row.not_fetched:,}", row.freshness + behind,
    ]  # fmt: skip


def _checked(app: App, keys: list[SeriesKey]) -> Checked:
    from atb.cli.console import ProgressLine
    from atb.data.checking import check_store

    with ProgressLine() as line:
        return check_store(app.store(), keys, lambda key, share: line(f"checking {key.shown}", share))
