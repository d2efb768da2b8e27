"""`atb data prefill-cache`, `download` and `derive`: from an exchange, or from a shorter timeframe, into the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from atb.cli.data_options import (
    Json,
    Provider,
    Providers,
    SymbolList,
    SymbolName,
    TimeframeOption,
    nothing_stored,
    series_of,
)
from atb.cli.lean import LeanCommand
from atb.cli.lists import ListCommand

if TYPE_CHECKING:
    from atb.app import App
    from atb.data.layout import SeriesKey
    from atb.market.prefill import Done, Job, Outcome

DAY_MS = 86_400_000
Workers = Annotated[int, typer.Option(help="Requests side by side, within the exchange's limits.", metavar="N")]


def register(app: typer.Typer) -> None:
    app.command(
        "prefill-cache",
        cls=ListCommand,
        help="Fetch what the store lacks of several series, so that backtests find it there.\n\n"
        "Lists are separated by spaces or commas. It may be ended at any time, and goes on where it was.\n\n\b\nExamples:\n"
        "  atb data prefill-cache --symbols BTCUSDT ETHUSDT --timeframes 1h 4h --years 2\n"
        "  atb data prefill-cache --symbols BTC-USD,ETH-USD --timeframes 1d --provider coinbase",
    )(prefill_cache)
    app.command(
        "download",
        cls=LeanCommand,
        help="Fetch what the store lacks of one series.\n\n\b\nExamples:\n"
        "  atb data download BTCUSDT --timeframe 1m --start 2024-01-01\n"
        "  atb data download BTC-USD --provider coinbase --days 30",
    )(download)
    app.command(
        "derive",
        cls=LeanCommand,
        help="Make candles of a longer timeframe of stored ones of a shorter one, where the store lacks them.\n\n"
        "Only where all of the shorter ones were asked for. The store knows them as derived; what an exchange gave stays.\n\n"
        "\b\nExample:\n  atb data derive BTCUSDT 4h --from 1h",
    )(derive)


def derive(
    symbol: SymbolName,
    timeframe: Annotated[str, typer.Argument(help="The longer one: 4h, 1d, ...")],
    lower: Annotated[str, typer.Option("--from", help="The stored timeframe to make it of.", metavar="TIMEFRAME")],
    provider: Provider = "binance",
) -> None:
    from atb.cli.console import open_app
    from atb.core.timeframe import check_timeframe
    from atb.core.words import counted
    from atb.data.deriving import derive as derive_candles

    app = open_app()
    key, _ = series_of(app, provider, symbol, lower)
    check_timeframe(timeframe)
    store = app.store()
    if not store.parts(key):
        raise nothing_stored(app, key)
    made = derive_candles(store, key, timeframe)
    typer.echo(f"Made {counted(made, 'candle')} of {key.symbol} {timeframe} of those of {lower}.", err=True)


def prefill_cache(
    symbols: SymbolList,
    timeframes: Annotated[list[str], typer.Option("--timeframes", help="1h 4h ...", metavar="TIMEFRAME...")],
    years: Annotated[float, typer.Option(help="How far back from now.", metavar="YEARS")] = 2.0,
    provider: Providers = "binance",
    workers: Workers = 16,
    json: Json = False,
) -> None:
    from atb.cli.console import open_app
    from atb.core.errors import UsageError

    if not 0 < years <= 100:
        raise UsageError(f"--years must be above 0 and at most 100, not {years:g}.")
    app = open_app()
    now_ms = _now_ms()
    jobs = _jobs(app, provider, symbols, timeframes, now_ms - round(years * 365.25 * DAY_MS), now_ms)
    _run(app, jobs, now_ms, workers, json)


def download(
    symbol: SymbolName,
    timeframe: TimeframeOption = "1h",
    start: Annotated[str | None, typer.Option(help="From this day or time on, UTC.", metavar="DATE")] = None,
    end: Annotated[str | None, typer.Option(help="Up to there, exclusive. [default: now]", metavar="DATE")] = None,
    days: Annotated[float | None, typer.Option(help="So far back from the end. [default: 365]", metavar="DAYS")] = None,
    provider: Providers = "binance",
    workers: Workers = 16,
    json: Json = False,
) -> None:
    from atb.cli.console import open_app
    from atb.core.errors import UsageError
    from atb.core.timeframe import iso_minute, parse_time_ms

    now_ms = _now_ms()
    end_ms = min(now_ms, parse_time_ms(end, "--end")) if end else now_ms
    if start and days is not None:
        raise UsageError("--days and --start exclude each other.", "Leave one of them out.")
    if days is not None and not 0 < days <= 36_500:
        raise UsageError(f"--days must be above 0 and at most 36500, not {days:g}.")
    start_ms = parse_time_ms(start, "--start") if start else end_ms - round((days or 365.0) * DAY_MS)
    if start_ms >= end_ms:
        raise UsageError(f"--start {iso_minute(start_ms)} is not before {iso_minute(end_ms)}.", "The end is exclusive.")
    app = open_app()
    _run(app, _jobs(app, provider, [symbol], [timeframe], start_ms, end_ms), now_ms, workers, json)


def fetch_again(app: App, ranges: dict[SeriesKey, tuple[int, int]]) -> None:
    """What is missing of these ranges."""
    from atb.core.types import symbol_for
    from atb.market.prefill import Job

    jobs = [Job(key, symbol_for(key.venue, key.symbol), *span) for key, span in ranges.items()]
    if jobs:
        _run(app, jobs, _now_ms(), 16, json=False)


def _now_ms() -> int:
    from atb.core.timeframe import SystemClock

    return SystemClock().now_ms()


def _jobs(
    app: App, provider: str, symbols: list[str], timeframes: list[str], start_ms: int, end_ms: int
) -> list[Job]:  # fmt: skip
    """Each symbol in each timeframe, once."""
    from atb.cli.console import warn
    from atb.core.timeframe import check_timeframe
    from atb.core.types import symbol_for
    from atb.data.layout import series_key
    from atb.market.prefill import Job

    provider = app.provider(provider, warn)
    names = dict.fromkeys(symbol_for(provider, name) for name in symbols)
    frames = dict.fromkeys(check_timeframe(name) for name in timeframes)
    return [
        Job(series_key(provider, symbol, frame), symbol, max(0, start_ms), end_ms)
        for symbol in names
        for frame in frames
    ]


def _run(app: App, jobs: list[Job], now_ms: int, workers: int, json: bool) -> None:
    from atb.cli.console import print_json, warn
    from atb.core.errors import UsageError
    from atb.core.timeframe import iso_minute

    if not 1 <= workers <= 64:
        raise UsageError(f"--workers must be between 1 and 64, not {workers}.")
    with _Bar() as bar:
        outcomes = app.prefill(jobs, now_ms, workers, bar)
    rows = [_row(app, outcome) for outcome in outcomes]
    if json:
        print_json(rows)
    else:
        _print(rows)
    for outcome in outcomes:
        for each in outcome.corrections:
            at = iso_minute(each.open_ms)
            warn(f"{outcome.job.key.shown} of {at} is stored with {each.changed}; what is stored stays.")
    for note in app.evict():
        warn(note)
    _fail(outcomes)


def _row(app: App, outcome: Outcome) -> dict[str, Any]:
    """What there is of the range that was wanted."""
    from atb.core.timeframe import align_down, iso, timeframe_ms

    job, store = outcome.job, app.store()
    step = timeframe_ms(job.key.timeframe)
    start, end = align_down(job.start_ms + step - 1, job.key.timeframe), align_down(job.end_ms, job.key.timeframe)
    first = store.first_ms(job.key, start)
    if first is not None and first >= end:  # listed only after what was asked for
        first = None
    # The newest candle that has closed may not be told yet.
    missing = sum(high - low for low, high in store.missing_ranges(job.key, start, end - step))
    return {
        "symbol": job.key.symbol, "timeframe": job.key.timeframe, "fetched": outcome.candles,
        "from": iso(first) if first is not None else None,
        "listed_later": first is not None and first > start and not missing,
        "complete": outcome.trouble is None and not missing,
        "trouble": outcome.trouble.what if outcome.trouble else None,
    }  # fmt: skip


def _print(rows: list[dict[str, Any]]) -> None:
    from atb.cli.console import print_table

    def words(row: dict[str, Any]) -> str:
        if row["trouble"]:
            return str(row["trouble"])
        if row["from"] is None:
            return "there are no candles in that time"
        begin = f"from {row['from'][:16].replace('T', ' ')}"
        return f"{begin}, where it was listed" if row["listed_later"] else begin

    print_table(
        ["symbol", "timeframe", "fetched", "there is"],
        [[row["symbol"], row["timeframe"], f"{row['fetched']:,}", words(row)] for row in rows],
    )


def _fail(outcomes: list[Outcome]) -> None:
    """With the exit code of the first that failed; the others were done."""
    failed = [outcome for outcome in outcomes if outcome.trouble is not None]
    if not failed:
        return
    trouble = failed[0].trouble
    assert trouble is not None
    if len(outcomes) > 1:
        done = len(outcomes) - len(failed)
        trouble.what = f"{len(failed)} of {len(outcomes)} series could not be completed, {done} could. {trouble.what}"
    trouble.hint = trouble.hint or "Run it again: what was fetched is stored."
    raise trouble


class _Bar:
    """The progress of all of it: share, candles a second, time left."""

    def __init__(self) -> None:
        import time

        from atb.cli.console import ProgressLine

        self.line, self.clock, self.began_s = ProgressLine(), time.monotonic, time.monotonic()
        self.ended = False

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.line.close()

    def __call__(self, done: Done) -> None:
        if self.ended:
            return
        self.ended = done.share >= 1.0
        seconds = self.clock() - self.began_s
        rate = f"{done.candles / seconds:,.0f} candles/s" if seconds > 0.5 else ""
        self.line("fetching candles", done.share, done.resting or rate)
