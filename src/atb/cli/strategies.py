"""`atb strategies`: list, show, check, new."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atb.cli.lean import LeanCommand, LeanGroup

if TYPE_CHECKING:
    from atb.app import App
    from atb.engine.candles import Candles
    from atb.strategy.contract import Strategy
    from atb.strategy.gate import GateReport
    from atb.strategy.loader import LoadedStrategy

app = typer.Typer(
    cls=LeanGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, show, check and begin strategies.\n\n\b\nExamples:\n  atb strategies list\n"
    "  atb strategies check my_idea --data candles.parquet\n  atb strategies new my_idea",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="A strategy's name; see: atb strategies list")]

TEMPLATE = '''import numpy as np

from atb.engine.candles import Candles, Floats
from atb.engine.indicators import sma
from atb.strategy import Strategy, param


class {cls}(Strategy):
    """Say in one line what is held when."""

    window: int = param(50, 2, 1000, "window of the average, candles")

    @property
    def lookback_bars(self) -> int:
        return self.window

    def signals(self, candles: Candles) -> Floats:
        # One number a candle in [-1, 1]: +1 wants to hold, -1 wants out, 0 keeps what is held; NaN while warming up.
        average = sma(candles, self.window)
        return np.sign(candles.close - average)
'''


@app.command(
    "list",
    cls=LeanCommand,
    help="The strategies that are found.\n\nThose in ./strategies come before those of the same name that came with "
    "atb.\n\n\b\nExample:\n  atb strategies list --json",
)
def list_strategies(json: Json = False) -> None:
    from atb.cli.console import open_app, print_rows
    from atb.core.errors import AtbError
    from atb.strategy.loader import load_strategy

    files = open_app().strategies()
    rows = []
    for name, file in sorted(files.items()):
        try:
            summary = load_strategy(name, files).cls.summary()
        except AtbError as error:
            summary = f"BROKEN: {error.what}"
        rows.append({"name": name, "origin": "shipped" if file.shipped else str(file.path), "summary": summary})
    print_rows(rows, json)


@app.command(
    "show",
    cls=LeanCommand,
    help="A strategy's parameters, policy and memory.\n\n\b\nExample:\n  atb strategies show sma_cross",
)
def show(name: Name, json: Json = False) -> None:
    from atb.cli.console import open_app, print_json, print_table

    loaded = open_app().load_strategy(name)
    facts = _facts(loaded)
    if json:
        print_json(facts)
        return
    shown = ("name", "summary", "file", "sha256", "lookback_bars", "model_kind")
    rows = [[key, "none" if facts[key] is None else str(facts[key])] for key in shown]
    rows += [
        [f"param {p['name']}", f"{p['default']:g}  ({p['low']:g} to {p['high']:g}) {p['help']}"]
        for p in facts["params"]
    ]
    rows += [[f"side series {each['name']}", _side_words(each)] for each in facts["sides"]]
    rows += [[f"policy {key}", str(value)] for key, value in facts["policy"].items()]
    print_table(["what", "value"], rows, title=name)


def _side_words(side: dict[str, Any]) -> str:
    from atb.core.words import duration

    age = side["max_age_ms"]
    whose = " ".join(filter(None, (side["venue"], side["symbol"]))) or "of the candles' symbol, or of none"
    return whose + ("" if age is None else f"; at most {duration(age)} old")


def _facts(loaded: LoadedStrategy) -> dict[str, Any]:
    from atb.strategy.contract import sides_of
    from atb.strategy.signals import lookback_of

    cls = loaded.cls
    lookback: object = "that of its model" if cls.model_kind else lookback_of(loaded.make({}))
    return {
        "name": loaded.file.name,
        "summary": cls.summary(),
        "file": str(loaded.file.path),
        "sha256": loaded.sha256,
        "lookback_bars": lookback,
        "model_kind": cls.model_kind,
        "sides": [each._asdict() for each in sides_of(cls)],
        "params": [{"name": n, **p._asdict()} for n, p in cls.params.items()],
        "policy": dict(cls.policy),
    }


@app.command(
    "check",
    cls=LeanCommand,
    help="Does a strategy peek into the future?\n\nOr remember more than it says, or answer late? Every candle is tried; "
    "exit code 10 when it does.\n\n\b\nExamples:\n  atb strategies check my_idea\n"
    "  atb strategies check my_idea --data candles.parquet -p window=20",
)
def check(
    name: Name,
    symbol: Annotated[str, typer.Option(help="Symbol of the candles.", metavar="SYMBOL")] = "BTCUSDT",
    timeframe: Annotated[
        str | None,
        typer.Option(help="Timeframe of the candles. [default: 1h, or that of --data]", metavar="TIMEFRAME"),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Parquet or CSV file. [default: 5,000 simulated candles]", metavar="FILE")
    ] = None,
    candles: Annotated[int, typer.Option("--candles", help="Check the last N candles; 0: all.")] = 10_000,
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="Strategy parameter; repeatable.", metavar="NAME=VALUE")
    ] = None,
    json: Json = False,
) -> None:
    from atb.cli.backtest import parse_params
    from atb.cli.console import ProgressLine, open_app
    from atb.core.types import symbol_for
    from atb.strategy.gate import check_fully

    app_ = open_app()
    loaded = app_.load_strategy(name)
    strategy = loaded.make(parse_params(param or []))
    series = _series(data, symbol_for("binance", symbol).id, timeframe, candles)
    series = _with_sides(app_, strategy, series, data)
    app_.attach_model(strategy, series.symbol, series.timeframe, int(series.open_time[-1]), None)
    _refuse_too_few(strategy, len(series))
    progress = ProgressLine()
    try:
        report = check_fully(
            strategy, series, exact=loaded.file.shipped, lag_is_fatal=loaded.file.shipped,
            on_progress=lambda done, total: progress("checking candles", (done or 1) / total),
        )  # fmt: skip
    finally:
        progress.close()
    _print_gate(strategy, report, json)
    if not report.passed:
        raise typer.Exit(10)


def _refuse_too_few(strategy: Strategy, count: int) -> None:
    from atb.core.errors import DataError
    from atb.core.words import are, counted
    from atb.strategy.signals import lookback_of

    lookback = lookback_of(strategy)
    if count < lookback + 2:
        raise DataError(
            f"{counted(count, 'candle')} {are(count)} too few to check {strategy.title()}, which looks back {lookback}.",
            f"Give it {lookback + 2} or more.",
        )


def _series(data: Path | None, symbol: str, timeframe: str | None, count: int) -> Candles:
    from atb.core.errors import UsageError

    if count < 0:
        raise UsageError(f"--candles must be 0 or more, not {count}.")
    if data is None:
        from atb.venue.simulated import SIMULATED_START_MS, simulate_candles

        return simulate_candles(symbol, timeframe or "1h", SIMULATED_START_MS, min(count or 5000, 5000), seed=7)
    from atb.data.files import load_file

    series = load_file(data, symbol, timeframe)
    return series.window(max(0, len(series) - count), len(series)) if count else series


def _with_sides(app: App, strategy: Strategy, series: Candles, data: Path | None) -> Candles:
    """Those that the strategy declares: simulated beside simulated candles, else what is stored."""
    from atb.strategy.contract import sides_of
    from atb.venue.simulated_sides import simulated_sides

    declared = sides_of(type(strategy))
    return simulated_sides(declared, series, seed=7) if data is None else app.join()(declared, series)


def _print_gate(strategy: Strategy, report: GateReport, json: bool) -> None:
    from atb.cli.console import print_json, print_table
    from atb.core.timeframe import iso

    if json:
        findings = [f._asdict() | {"open_time": iso(f.open_ms)} for f in report.findings]
        print_json(
            {"passed": report.passed, "candles": report.candles, "checked": report.checked, "findings": findings}
        )
        return
    rows = [["error" if f.fatal else "warning", f.kind, str(f.t), iso(f.open_ms), f.message] for f in report.findings]
    if rows:
        print_table(["verdict", "test", "candle", "open_time", "what"], rows)
    verdict = "passed" if report.passed else "FAILED"
    typer.echo(f"{strategy.title()}: {verdict} ({report.checked:,} of {report.candles:,} candles checked one by one)")


@app.command(
    "new",
    cls=LeanCommand,
    help="Write ./strategies/NAME.py, a working strategy to start from.\n\n\b\nExample:\n  atb strategies new my_idea",
)
def new(name: Name) -> None:
    import keyword

    from atb.cli.console import open_app
    from atb.core.errors import DataError, UsageError

    if not name.isidentifier() or name.startswith("_") or keyword.iskeyword(name):
        raise UsageError(f"'{name}' cannot be a strategy's name.", "Letters, digits and underscores, as in my_idea.")
    path = Path("strategies") / f"{name}.py"
    shipped = name in open_app().strategies()
    text = TEMPLATE.format(cls="".join(part.capitalize() for part in name.split("_")))
    if path.exists():
        raise UsageError(f"{path} exists already.", "Choose another name, or edit it.")
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    except OSError as error:
        if path.is_file():
            path.unlink()  # half of it is no strategy
        raise DataError(f"{path} cannot be written: {error.strerror}.") from None
    typer.echo(f"Wrote {path}", err=True)
    if shipped:
        typer.echo(f"From this folder it is used instead of the {name} that comes with atb.", err=True)
    typer.echo(f"Try it: atb backtest {name} --symbol BTCUSDT --provider simulated", err=True)
