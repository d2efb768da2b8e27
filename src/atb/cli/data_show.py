"""`atb data export`, `quality`, `plot`, `generate` and `watch`: looking at candles, and making some."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atb.cli.data_options import (
    End,
    Json,
    Provider,
    Start,
    SymbolList,
    SymbolName,
    SymbolOption,
    TimeframeName,
    TimeframeOption,
    nothing_stored,
    series_of,
    stored,
)
from atb.cli.lean import LeanCommand
from atb.cli.lists import ListCommand

if TYPE_CHECKING:
    from collections.abc import Callable

    from atb.cli.chart import Bar
    from atb.data.layout import SeriesKey
    from atb.data.quality import Disagreement, Report
    from atb.engine.candles import Candles

DAY_MS = 86_400_000
HEIGHT, LEAST_COLUMNS, LABEL, PIPED_BARS = 18, 20, 14, 100
LOOK_EVERY_S = 2.0
MOST_GENERATED = 10_000_000
ELSEWHERE = {"binance": ("coinbase", "USD"), "coinbase": ("binance", "USDT")}


def register(app: typer.Typer) -> None:
    app.command(
        "export",
        cls=LeanCommand,
        help="Write stored candles to a file, as CSV or Parquet.\n\n\b\nExamples:\n"
        "  atb data export --symbol BTCUSDT --timeframe 1h --out btc.csv\n"
        "  atb data export --symbol BTCUSDT --format parquet --out btc.parquet",
    )(export)
    app.command(
        "quality",
        cls=LeanCommand,
        help="How good a stored series is: completeness, gaps, outliers, what another exchange says.\n\n"
        "Where the other exchange's series is stored, too (Binance against Coinbase), their closes are compared.\n\n\b\n"
        "Examples:\n  atb data quality BTCUSDT 1h\n  atb data quality BTC-USD 1h --provider coinbase --json",
    )(quality)
    app.command(
        "plot",
        cls=LeanCommand,
        help="Stored candles as a picture in the terminal; in a pipe, its numbers.\n\n\b\nExample:\n"
        "  atb data plot BTCUSDT 1h --days 30",
    )(plot)
    app.command(
        "generate",
        cls=ListCommand,
        help="Simulated candles as files, to rehearse with: seeded, several symbols that move together, and something that "
        "happens to them.\n\nScenarios: normal, crash (-36 % within hours, half of it back within days), flat (hardly any "
        "moves), gap (half a day is missing, and the price is another one after it), each from 60 % of the time on. "
        "The files are not put into the store.\n\n\b\nExamples:\n  atb data generate --symbols BTCUSDT --scenario crash\n"
        "  atb data generate --symbols BTCUSDT ETHUSDT --correlation 0.8 --seed 3",
    )(generate)
    app.command(
        "watch",
        cls=LeanCommand,
        help="Each candle as it closes, until Ctrl-C. Nothing is stored.\n\n\b\nExamples:\n  atb data watch BTCUSDT 1m\n"
        "  atb data watch BTCUSDT 1m --count 5 --json",
    )(watch)


def export(
    symbol: SymbolOption,
    timeframe: TimeframeOption = "1h",
    format_: Annotated[
        str | None, typer.Option("--format", help="csv or parquet. [default: by the file's name]", metavar="FORMAT")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file. [default: CSV to stdout]", metavar="FILE")] = None,
    start: Start = None,
    end: End = None,
    provider: Provider = "binance",
) -> None:
    from atb.cli.console import open_app
    from atb.core.errors import UsageError
    from atb.core.words import counted
    from atb.data.exporting import csv_lines, format_of, write_candles

    kind = format_of(format_, out)
    if out is None and kind == "parquet":
        raise UsageError("Parquet is not written to a terminal or pipe.", "Name a file: --out candles.parquet")
    app = open_app()
    key, _ = series_of(app, provider, symbol, timeframe)
    candles = stored(app, key, *_range(start, end))
    if out is None:
        for line in csv_lines(candles):
            typer.echo(line, nl=False)
        return
    write_candles(candles, out, kind)
    typer.echo(f"Wrote {counted(len(candles), 'candle')} of {key.symbol} {key.timeframe} to {out}", err=True)


def quality(
    symbol: SymbolName, timeframe: TimeframeName = "1h", provider: Provider = "binance", json: Json = False
) -> None:
    from atb.cli.console import open_app, print_json
    from atb.core.types import symbol_for
    from atb.data.layout import series_key
    from atb.data.quality import report

    app = open_app()
    key, _ = series_of(app, provider, symbol, timeframe)
    base = symbol_for(provider, symbol).base
    venue, quote = ELSEWHERE[provider]
    told = report(app.store(), key, [series_key(venue, symbol_for(venue, f"{base}/{quote}"), timeframe)])
    if told is None:
        raise nothing_stored(app, key)
    if json:
        print_json({**key._asdict(), **_quality_json(told)})
        return
    _print_quality(key, told)


def plot(
    symbol: SymbolName,
    timeframe: TimeframeName = "1h",
    days: Annotated[float, typer.Option(help="The last so many days that are stored.", metavar="DAYS")] = 30.0,
    provider: Provider = "binance",
) -> None:
    import sys

    from atb.cli.chart import Bar, bars_of, drawn
    from atb.cli.console import columns_of_terminal, draws_blocks, open_app, print_table
    from atb.core.errors import UsageError
    from atb.core.timeframe import iso, iso_minute

    if not 0 < days <= 36_500:
        raise UsageError(f"--days must be above 0 and at most 36500, not {days:g}.")
    app = open_app()
    key, _ = series_of(app, provider, symbol, timeframe)
    parts = app.store().parts(key)
    if not parts:
        raise nothing_stored(app, key)
    candles = stored(app, key, max(p.end_ms for p in parts) - round(days * DAY_MS))
    rows = _bars(candles)
    terminal = sys.stdout.isatty()
    bars = bars_of(rows, max(LEAST_COLUMNS, columns_of_terminal() - LABEL) if terminal else PIPED_BARS)
    if not terminal:
        header = ["open_time", *Bar._fields[1:]]
        print_table(header, [[iso(bar.open_ms), *(f"{value:.12g}" for value in bar[1:])] for bar in bars])
        return
    for line in drawn(bars, HEIGHT, draws_blocks(sys.stdout)):
        typer.echo(line)
    first, last = rows[0], rows[-1]
    typer.echo(
        f"{key.shown}: {iso_minute(first.open_ms)} to {iso_minute(last.open_ms)}, {first.open:g} to {last.close:g} "
        f"({last.close / first.open - 1:+.2%}); a column is {-(-len(rows) // len(bars))} candles."
    )


def _bars(candles: Candles) -> list[Bar]:
    from atb.cli.chart import Bar

    names = ("open_time", "open", "high", "low", "close", "volume")
    return [Bar(*row) for row in zip(*(getattr(candles, name).tolist() for name in names), strict=True)]


def generate(
    symbols: SymbolList,
    timeframe: TimeframeOption = "1h",
    days: Annotated[float, typer.Option(help="How many days.", metavar="DAYS")] = 365.0,
    seed: Annotated[int, typer.Option(help="Another seed is another market.", metavar="N")] = 1,
    scenario: Annotated[str, typer.Option(help="normal, crash, flat or gap.", metavar="NAME")] = "normal",
    correlation: Annotated[float, typer.Option(help="Of the moves of any two symbols, 0 to 1.", metavar="SHARE")] = 0.0,
    folder: Annotated[Path, typer.Option(help="Where the files go.", metavar="FOLDER")] = Path(),
    format_: Annotated[str, typer.Option("--format", help="csv or parquet.", metavar="FORMAT")] = "parquet",
) -> None:
    from atb.cli.console import ProgressLine
    from atb.core.errors import UsageError
    from atb.core.timeframe import timeframe_ms
    from atb.core.types import symbol_for
    from atb.core.words import counted
    from atb.data.exporting import format_of, write_candles
    from atb.venue.scenarios import simulate_scenario
    from atb.venue.simulated import SIMULATED_START_MS

    kind, names = format_of(format_, None), list(dict.fromkeys(symbol_for("binance", name).id for name in symbols))
    if not 0 <= days <= 36_500:
        raise UsageError(f"--days must be above 0 and at most 36500, not {days:g}.")
    count = round(days * DAY_MS) // timeframe_ms(timeframe)
    if not 1 <= count <= MOST_GENERATED:
        raise UsageError(
            f"That is {count:,} candles; it must be 1 to {MOST_GENERATED:,}.", "Change --days or --timeframe."
        )
    with ProgressLine() as line:
        made = simulate_scenario(
            names, timeframe, SIMULATED_START_MS, count, seed, scenario=scenario, correlation=correlation,
            on_progress=lambda share: line("simulating", share),
        )  # fmt: skip
    for candles in made:
        out = folder / f"SIMULATED_{candles.symbol}_{timeframe}_{scenario}_{seed}.{kind}"
        write_candles(candles, out, kind)
        typer.echo(str(out))
        typer.echo(f"{counted(len(candles), 'SIMULATED candle')} of {candles.symbol} {timeframe}, {scenario}", err=True)


def watch(
    symbol: SymbolName,
    timeframe: TimeframeName = "1m",
    provider: Provider = "binance",
    count: Annotated[int | None, typer.Option(help="End after so many closed candles.", metavar="N")] = None,
    json: Json = False,
) -> None:
    from atb.cli.console import open_app
    from atb.core.errors import UsageError

    if count is not None and count < 1:
        raise UsageError(f"--count must be at least 1, not {count}.")
    app = open_app()
    key, wanted = series_of(app, provider, symbol, timeframe)
    show = _Lines(key, json)
    for seen, candle in enumerate(app.watch(provider, wanted, timeframe, LOOK_EVERY_S, show.running, show.trouble), 1):
        show.closed(candle)
        if seen == count:
            return


class _Lines:
    """A line for each candle that has closed; on a terminal the one that runs below it."""

    def __init__(self, key: SeriesKey, json: bool) -> None:
        import sys

        from atb.settings import terminal_moves

        self.key, self.json = key, json
        self.moving = sys.stdout.isatty() and terminal_moves() and not json
        self.said = ""

    def closed(self, row: list[float]) -> None:
        from json import dumps

        from atb.core.timeframe import iso

        self._clear()
        if self.json:
            numbers = dict(zip(("open", "high", "low", "close", "volume"), row[1:], strict=True))
            typer.echo(dumps({"symbol": self.key.symbol, "open_time": iso(int(row[0])), **numbers}))
        else:
            typer.echo(self._text(row))
        self.said = ""

    def running(self, row: list[float]) -> None:
        if self.moving:
            self._clear()
            typer.echo(f"{self._text(row)}  running", nl=False)

    def trouble(self, what: str) -> None:
        if what != self.said:
            self._clear()
            typer.echo(what, err=True)
        self.said = what

    def _clear(self) -> None:
        if self.moving:
            typer.echo("\r\x1b[2K", nl=False)

    def _text(self, row: list[float]) -> str:
        from atb.core.timeframe import iso_minute

        names = zip("OHLC", row[1:5], strict=True)
        numbers = "  ".join(f"{name} {value:g}" for name, value in names)
        return f"{iso_minute(int(row[0]))}  {self.key.symbol} {self.key.timeframe}  {numbers}  V {row[5]:g}"


def _range(start: str | None, end: str | None) -> tuple[int | None, int | None]:
    from atb.core.errors import UsageError
    from atb.core.timeframe import parse_time_ms

    low = parse_time_ms(start, "--start") if start else None
    high = parse_time_ms(end, "--end") if end else None
    if low is not None and high is not None and low >= high:
        raise UsageError(f"--start {start} is not before --end {end}.", "The end is exclusive.")
    return low, high


def _quality_json(told: Report) -> dict[str, Any]:
    from atb.core.timeframe import iso

    plain = {
        name: value for name, value in told._asdict().items()
        if name in ("rows", "missing", "not_fetched_candles", "completeness", "zero_volume", "repeated", "outliers")
    }  # fmt: skip
    return {
        **plain, "first": iso(told.first_ms), "last": iso(told.last_ms),
        "gaps": [{"first_missing": iso(gap.start_ms), "missing": gap.missing} for gap in told.gaps],
        "not_fetched": [{"from": iso(low), "to": iso(high)} for low, high in told.not_fetched],
        "largest_outliers": [{**o._asdict(), "open_time": iso(o.open_ms)} for o in told.largest],
        "corrections": [{**c._asdict(), "open_time": iso(c.open_ms)} for c in told.corrections],
        "others": [
            {**d._asdict(), "worst_at": iso(d.worst_ms), "correlation": _finite(d.correlation)} for d in told.others
        ],
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if value == value else None


def _print_quality(key: SeriesKey, told: Report) -> None:
    from atb.cli.console import print_table
    from atb.core.timeframe import iso_minute

    rows = [
        ["candles", f"{told.rows:,}, from {iso_minute(told.first_ms)} to {iso_minute(told.last_ms)}"],
        ["complete", f"{told.completeness:.3%}"],
        ["missing at the exchange", f"{told.missing:,} in {len(told.gaps):,} gaps"],
        ["not fetched", f"{told.not_fetched_candles:,}"],
        ["without volume", f"{told.zero_volume:,}"],
        ["stored more than once", f"{told.repeated:,}"],
        ["outliers", f"{told.outliers:,}"],
        ["told otherwise since", f"{len(told.corrections):,}"],
    ]
    rows += [[f"against {d.venue} {d.symbol}", _apart(d)] for d in told.others]
    print_table([key.shown, "value"], rows)
    _table(
        "gaps",
        ["first missing", "candles"],
        [[iso_minute(g.start_ms), f"{g.missing:,}"] for g in told.gaps],
        print_table,
    )
    _table(
        "the largest outliers", ["candle", "what", "move", "usual moves"],
        [[iso_minute(o.open_ms), o.what, f"{o.share:+.2%}", f"{o.times:.0f}"] for o in told.largest], print_table,
    )  # fmt: skip
    _table(
        "told otherwise since", ["candle", "stored and told"],
        [[iso_minute(c.open_ms), c.changed] for c in told.corrections], print_table,
    )  # fmt: skip


def _apart(d: Disagreement) -> str:
    from atb.core.timeframe import iso_minute

    return (
        f"{d.candles:,} closes: median {d.median_bps:.1f} bps apart, 99 % within {d.p99_bps:.1f}, at worst "
        f"{d.worst_bps:.1f} at {iso_minute(d.worst_ms)}; moves correlate {d.correlation:.3f}"
    )


def _table(title: str, header: list[str], rows: list[list[str]], show: Callable[..., None]) -> None:
    if rows:
        show(header, rows, title=title)
