"""`atb backtest`: parse, run, render."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atb.cli.lean import LeanCommand
from atb.cli.policy_options import with_policy_options

if TYPE_CHECKING:
    from atb.app import App
    from atb.backtest.request import Request
    from atb.backtest.result import BacktestResult
    from atb.core.errors import AtbError
    from atb.ledger.connect import Where

HELP = """Run a strategy over past candles and tell the truth about it.

Decisions use closed candles only and fill at the next open or worse; every fill pays fee and slippage; stops rest
inside the candle (docs/backtest-rules.md). The candles come from the exchange through the local store, from your own
file (--data), or from the seeded simulator. A policy value comes from the strategy, then --policy FILE, then flags;
limits that the strategy brings can only be tightened. Percentages are fractions: 0.05 is 5 %.

\b
Examples:
  atb backtest ml_basic --symbol BTCUSDT --timeframe 1h --days 365
  atb backtest ml_basic --symbol BTCUSDT --symbol ETHUSDT --start 2024-01-01
  atb backtest my_idea --data candles.parquet --symbol BTCUSDT -p window=10
  atb backtest sma_cross --symbol BTCUSDT --provider simulated --stop-loss 0.1
  atb backtest sma_cross --symbol BTC-USD --provider coinbase --export out
  atb backtest buy_and_hold --symbol BTCUSDT --years 2 --json > result.json
"""


StrategyName = Annotated[str, typer.Argument(help="A strategy's name; see: atb strategies list")]
Symbols = Annotated[
    list[str], typer.Option("--symbol", help="BTCUSDT, BTC-USD or BTC/USDT; repeatable.", metavar="SYMBOL")
]
TimeframeName = Annotated[
    str | None, typer.Option(help="1m, 5m, 1h, 4h, 1d, ... [default: 1h, or that of --data]", metavar="TIMEFRAME")
]
Provider = Annotated[
    str,
    typer.Option(
        help="binance, coinbase, file or simulated; binance,coinbase: the first that answers.", metavar="NAME"
    ),
]
Scenario = Annotated[str, typer.Option(help="Of a simulated market: normal, crash, flat or gap.", metavar="NAME")]
Correlation = Annotated[float, typer.Option(help="Of the moves of simulated symbols, 0 to 1.", metavar="SHARE")]
Files = Annotated[
    list[Path] | None, typer.Option("--data", help="Parquet or CSV file; one for each --symbol.", metavar="FILE")
]
Days = Annotated[
    float | None, typer.Option(help="Days before the end. [default: all that --data or the store has, else 365]")
]
Years = Annotated[float | None, typer.Option(help="Years (of 365 days) before the end.")]
Start = Annotated[str | None, typer.Option(help="First day or time, ISO, UTC.", metavar="DATE")]
End = Annotated[
    str | None, typer.Option(help="End, exclusive, ISO, UTC. [default: now, or where the data ends]", metavar="DATE")
]
Seed = Annotated[int | None, typer.Option(help="Seed of the simulator. [default: 7]")]
Balance = Annotated[float, typer.Option(help="Quote currency to start with.")]
FeeBps = Annotated[float, typer.Option(help="Fee of each fill, basis points.")]
SlippageBps = Annotated[float, typer.Option(help="Slippage of each market order and stop, basis points.")]
Params = Annotated[
    list[str] | None, typer.Option("--param", "-p", help="Strategy parameter; repeatable.", metavar="NAME=VALUE")
]
ModelVersion = Annotated[
    str | None, typer.Option(help="Model version. [default: as of the start of the range]", metavar="VERSION")
]
PolicyFile = Annotated[
    Path | None, typer.Option(help="TOML file of the policy values below, as in stop_loss = 0.03.", metavar="FILE")
]
MaxGaps = Annotated[float, typer.Option(help="Largest share of missing candles.")]
AllowGaps = Annotated[bool, typer.Option("--allow-gaps", help="Run all the same when more is missing.")]
Offline = Annotated[bool, typer.Option("--offline", help="Ask no exchange: use stored candles only.")]
Engine = Annotated[
    str, typer.Option(help="auto, plain or compiled: the same numbers at different speed.", metavar="NAME")
]
Export = Annotated[
    Path | None,
    typer.Option(help="Folder for report.html, trades.csv, fills.csv, equity.csv, result.json.", metavar="FOLDER"),
]
LogToDb = Annotated[bool, typer.Option("--log-to-db", help="Log run and trades into the database's schema backtest.")]
Json = Annotated[bool, typer.Option("--json", help="Print everything as JSON (docs/json.md).")]


def register(app: typer.Typer) -> None:
    app.command("backtest", cls=LeanCommand, help=HELP, no_args_is_help=True)(with_policy_options(backtest))


def backtest(
    *,
    strategy: StrategyName,
    symbol: Symbols,
    timeframe: TimeframeName = None,
    provider: Provider = "binance",
    data: Files = None,
    days: Days = None,
    years: Years = None,
    start: Start = None,
    end: End = None,
    seed: Seed = None,
    scenario: Scenario = "normal",
    correlation: Correlation = 0.0,
    initial_balance: Balance = 10_000.0,
    fee_bps: FeeBps = 10.0,
    slippage_bps: SlippageBps = 5.0,
    param: Params = None,
    model_version: ModelVersion = None,
    policy: PolicyFile = None,
    max_gaps: MaxGaps = 0.02,
    allow_gaps: AllowGaps = False,
    offline: Offline = False,
    engine: Engine = "auto",
    export: Export = None,
    log_to_db: LogToDb = False,
    json: Json = False,
    policy_flags: dict[str, Any],
) -> None:
    from atb.cli.console import open_app, warn

    request = make_request(locals())
    _refuse_file(export)
    application = open_app()
    # No database is told before the work, not after it.
    where = application.database_to("change", warn) if log_to_db else None
    result = _run(application, request)
    failure = _export(result, export)
    _print(result, json)
    if where is not None:
        _log(result, where)
        application.remember(where)
    if failure is not None:
        raise failure


def _run(application: App, request: Request) -> BacktestResult:
    from atb.cli.console import ProgressLine, warn

    progress = ProgressLine()
    try:
        result = application.backtest(request, warn, progress)
    finally:
        progress.close()
    if result.halt is not None:
        typer.echo(f"ERROR: {result.halt.message}", err=True)
    return result


def _log(result: BacktestResult, where: Where) -> None:
    from atb.ledger.backtests import log_backtest
    from atb.ledger.connect import connect
    from atb.ledger.migrate import check_schema

    run, trades = result.logged()
    with connect(where) as connection:
        check_schema(connection, where)
        number = log_backtest(connection, run, trades)
    typer.echo(f"Logged as run {number} of the schema backtest in {where.shown}", err=True)


def _refuse_file(folder: Path | None) -> None:
    """Before the work, not after it."""
    if folder is not None:
        from atb.backtest.export import refuse_file

        refuse_file(folder)


def _export(result: BacktestResult, folder: Path | None) -> AtbError | None:
    """Write the files; why they could not be written, for after the result, which is too dear to be lost for that."""
    if folder is None:
        return None
    from atb.backtest.export import export
    from atb.core.errors import DataError

    try:
        paths = export(result, folder)
    except DataError as error:
        return error
    for path in paths:
        typer.echo(f"Wrote {path}", err=True)
    return None


def _print(result: BacktestResult, json: bool) -> None:
    if json:
        from atb.cli.console import print_json

        print_json(result.to_dict())
    else:
        from atb.cli.backtest_report import print_report

        print_report(result)


def make_request(values: dict[str, Any]) -> Request:
    from atb.backtest.request import Request, Span
    from atb.core.errors import UsageError
    from atb.core.policy import load_policy
    from atb.core.timeframe import parse_time_ms

    if values["days"] is not None and values["years"] is not None:
        raise UsageError("--days and --years exclude each other.", "Leave one of them out.")
    days = values["days"] if values["years"] is None else values["years"] * 365
    start, end = values["start"], values["end"]
    if values["engine"] not in ("auto", "plain", "compiled"):
        raise UsageError(f"--engine must be auto, plain or compiled, not '{values['engine']}'.")
    return Request(
        strategy=values["strategy"],
        symbols=tuple(values["symbol"]),
        timeframe=values["timeframe"],
        provider=values["provider"],
        data=tuple(values["data"] or ()),
        span=Span(
            start_ms=None if start is None else parse_time_ms(start, "--start"),
            end_ms=None if end is None else parse_time_ms(end, "--end"),
            days=days,
        ),
        seed=values["seed"],
        scenario=values.get("scenario", "normal"),
        correlation=values.get("correlation", 0.0),
        initial_balance=values["initial_balance"],
        fee_bps=values["fee_bps"],
        slippage_bps=values["slippage_bps"],
        params=parse_params(values["param"] or []),
        policy_file=load_policy(str(values["policy"])) if values["policy"] else {},
        policy_flags=values["policy_flags"],
        model_version=values["model_version"],
        max_gap_share=values["max_gaps"],
        allow_gaps=values["allow_gaps"],
        offline=values["offline"],
        engine=values["engine"],
    )


def parse_params(texts: list[str]) -> dict[str, float]:
    """`["fast=10"]` as numbers by name."""
    from atb.core.errors import UsageError

    params = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if name in params:
            raise UsageError(f"--param {name} was given more than once.")
        try:
            params[name] = float(value)
        except ValueError:
            raise UsageError(f"--param '{text}' is not NAME=NUMBER.", "Write -p fast=10") from None
    return params
