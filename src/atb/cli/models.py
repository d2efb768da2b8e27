"""`atb models`: list, show, verify, train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atb.cli.lean import LeanCommand, LeanGroup

if TYPE_CHECKING:
    from atb.strategy.model_registry import ModelEntry

app = typer.Typer(
    cls=LeanGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, show, verify and train models.\n\nThose in ./models come before those that came with atb.\n\n\b\nExamples:\n"
    "  atb models list\n  atb models show BTCUSDT\n  atb models verify\n"
    "  atb models train basic --symbol BTCUSDT --data candles.parquet",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TRAINING_END, VALIDATION_END = "2024-07-01", "2025-01-01"


@app.command("list", cls=LeanCommand, help="Every model that is found.\n\n\b\nExample:\n  atb models list --json")
def list_(json: Json = False) -> None:
    from atb.cli.console import print_json, print_rows

    entries = _entries()
    if json:
        print_json([_summary(entry) for entry in entries])
    elif entries:
        print_rows([_row(entry) for entry in entries])
        for entry in entries:
            if entry.problem:
                typer.echo(f"{_name(entry)}: {entry.problem}", err=True)
    else:
        typer.echo("No models are found.", err=True)


@app.command(
    "show", cls=LeanCommand, help="What a model is and what it is worth.\n\n\b\nExample:\n  atb models show BTCUSDT"
)
def show(
    symbol: Annotated[str, typer.Argument(help="Symbol of the model.")],
    kind: Annotated[str, typer.Option(help="Kind of model.")] = "basic",
    version: Annotated[str | None, typer.Option(help="[default: the newest]")] = None,
    timeframe: Annotated[str | None, typer.Option(help="[default: that of the newest]")] = None,
    json: Json = False,
) -> None:
    from atb.cli.console import print_json, print_table

    entry = _find(symbol, kind, version, timeframe)
    if json:
        print_json(dict(entry.metadata))
        return
    print_table(["what", "value"], [[key, _shown(value)] for key, value in entry.metadata.items() if key != "metrics"])
    rows = []
    for part, scores in entry.metadata["metrics"].items():
        for who in ("model", "base_rate", "persistence"):
            figures = scores[who]
            rows.append([part, who, *(f"{figures[name]:.4f}" for name in ("log_loss", "brier", "auc", "accuracy"))])
    print_table(["part", "predictor", "log loss", "Brier", "AUC", "accuracy"], rows)


@app.command(
    "verify",
    cls=LeanCommand,
    help="Load and check every model.\n\nIts hash, its shapes and one answer; exit code 10 when one fails.\n\n\b\nExample:\n"
    "  atb models verify",
)
def verify(json: Json = False) -> None:
    from atb.cli.console import print_json, print_table
    from atb.core.errors import StrategyError
    from atb.strategy.model_registry import verify_model

    rows = []
    for entry in _entries():
        try:
            verify_model(entry)
            rows.append({"model": entry.id, "verdict": "ok", "problem": ""})
        except StrategyError as error:
            rows.append({"model": entry.id, "verdict": "FAILED", "problem": error.what})
    if json:
        print_json(rows)
    else:
        print_table(["model", "verdict", "problem"], [list(row.values()) for row in rows])
    if any(row["verdict"] != "ok" for row in rows) or not rows:
        raise typer.Exit(10)


@app.command(
    "train",
    cls=LeanCommand,
    help="Train a model on your candles.\n\n"
    'Needs: pip install "atb[train]". The same candles give the same file.\n\n\b\n'
    "Example:\n  atb models train basic --symbol BTCUSDT --data candles.parquet",
)
def train(
    kind: Annotated[str, typer.Argument(help="Kind of model: basic.")],
    symbol: Annotated[str, typer.Option(help="BTCUSDT, BTC-USD or BTC/USDT.")],
    data: Annotated[Path, typer.Option(help="Parquet or CSV file of candles.")],
    timeframe: Annotated[str | None, typer.Option(help="[default: told from the candles]")] = None,
    training_end: Annotated[str, typer.Option(help="End of the training, exclusive.")] = TRAINING_END,
    validation_end: Annotated[str, typer.Option(help="End of the validation, exclusive.")] = VALIDATION_END,
    horizon: Annotated[int | None, typer.Option(help="Candles ahead. [default: 12]")] = None,
    out: Annotated[Path, typer.Option(help="Folder for SYMBOL/KIND/VERSION.")] = Path("models"),
) -> None:
    from atb.cli.console import ProgressLine
    from atb.core.errors import UsageError, nearest
    from atb.core.timeframe import parse_time_ms
    from atb.core.types import symbol_for
    from atb.data.files import load_file
    from atb.research.train import HORIZON, train_basic

    if kind != "basic":
        raise UsageError(f"Unknown kind of model '{kind}'.", nearest(kind, ["basic"]))
    wanted = symbol_for("coinbase" if "-" in symbol else "binance", symbol)
    candles = load_file(data, wanted.id, timeframe)
    progress = ProgressLine()
    entry = train_basic(
        candles, symbol=wanted.id, timeframe=candles.timeframe, horizon=HORIZON if horizon is None else horizon,
        training_end_ms=parse_time_ms(training_end, "--training-end"),
        validation_end_ms=parse_time_ms(validation_end, "--validation-end"),
        out_dir=out, source=data.name, on_progress=progress,
    )  # fmt: skip
    progress.close()
    typer.echo(f"Wrote {entry.folder}", err=True)
    _say_what_is_not_measured(entry, validation_end)
    if out.absolute() == Path("models").absolute():
        typer.echo(f"See what it is worth: atb models show {entry.symbol} --version {entry.version}", err=True)
    else:
        typer.echo(f"Models are looked for in ./models, not in {out}: move it there to use it.", err=True)


def _say_what_is_not_measured(entry: ModelEntry, validation_end: str) -> None:
    """A model without scores on candles it has not seen looks better than it is."""
    from atb.cli.console import warn

    measured = entry.metadata["metrics"]
    last = str(entry.metadata["data"]["last"])[:10]
    lacking = [part.replace("_", "-") for part in ("validation", "out_of_sample") if part not in measured]
    if lacking:
        warn(
            f"No {' and no '.join(lacking)} part is left: the candles end on {last}, --validation-end is {validation_end}. "
            "How good the model is on candles it has not seen is unknown; choose earlier dates."
        )


def _entries() -> list[ModelEntry]:
    from atb.cli.console import open_app
    from atb.strategy.model_registry import list_models

    return list_models(open_app().model_roots())


def _find(symbol: str, kind: str, version: str | None, timeframe: str | None) -> ModelEntry:
    """The model that is asked for; of several the one that a backtest of today would take."""
    from atb.core.errors import StrategyError
    from atb.core.timeframe import check_timeframe
    from atb.core.types import symbol_for
    from atb.strategy.model_registry import newest

    name = symbol_for("coinbase" if "-" in symbol else "binance", symbol).id
    if timeframe is not None:
        check_timeframe(timeframe)
    asked = {"symbol": name, "kind": kind, "version": version, "timeframe": timeframe}
    fitting = _entries()
    for field, value in asked.items():
        left = [e for e in fitting if value in (None, getattr(e, field)) or (e.problem and field == "timeframe")]
        if not left:
            raise StrategyError(_lacking(name, kind, field, value), _known(fitting, field, str(value)))
        fitting = left
    sound = [e for e in fitting if not e.problem]
    if not sound:
        raise StrategyError(fitting[0].problem, "Restore the folder, or train again: atb models train")
    return newest(sound)


def _lacking(symbol: str, kind: str, field: str, value: str | None) -> str:
    more = {"version": f" in version {value}", "timeframe": f" with {value} candles"}.get(field, "")
    return f"There is no {kind} model for {symbol}{more}."


def _known(entries: list[ModelEntry], field: str, wanted: str) -> str:
    """The values of a field that there are, in words."""
    from atb.core.errors import nearest

    known = sorted({getattr(entry, field) for entry in entries} - {""})
    return f"{nearest(wanted, known)} See them with: atb models list" if known else "Train one: atb models train --help"


def _name(entry: ModelEntry) -> str:
    return f"{entry.symbol}/{entry.kind}/{entry.version}"


def _row(entry: ModelEntry) -> dict[str, str]:
    """What fits into 80 columns; folder and hash are in the JSON."""
    shown = {name: str(value) for name, value in _summary(entry).items() if name not in ("folder", "problem")}
    return shown | {"model": _name(entry), "lookback": "BROKEN" if entry.problem else shown["lookback"]}


def _summary(entry: ModelEntry) -> dict[str, Any]:
    from atb.core.timeframe import iso_date

    return {
        "model": entry.id,
        "timeframe": entry.timeframe,
        "trained_to": "" if entry.problem else iso_date(entry.training_end_ms),
        "validated_to": "" if entry.problem else iso_date(entry.validation_end_ms),
        "lookback": entry.lookback_bars,
        "folder": str(entry.folder),
        "problem": entry.problem,
    }


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_shown(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_shown(v) for v in value)
    return str(value)
