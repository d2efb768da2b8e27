"""A backtest on the terminal: facts, figures, a small equity chart. In a pipe: the same rows without decoration."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import typer

from atb.cli.console import columns_of_terminal, draws_blocks, narrowest, print_table
from atb.core.words import counted

if TYPE_CHECKING:
    from atb.backtest.result import BacktestResult, Segment, Statistics

CHART_ROWS = 9
CHART_COLUMNS = 72
CHART_LABEL = 14
EIGHTHS, ASCII_EIGHTHS = " ▁▂▃▄▅▆▇█", " __--==##"
BETWEEN, ASCII_BETWEEN = "░", ":"  # from the lowest to the highest equity within a column
NAMES = {"all": "whole run", "in_sample": "IN-SAMPLE", "validation": "validation", "out_of_sample": "out-of-sample"}


def percent(x: float | None) -> str:
    return "n/a" if x is None else f"{x:+.2%}"


def number(x: float | None) -> str:
    return "n/a" if x is None else f"{x:,.2f}"


def count(x: float) -> str:
    return f"{x:,.0f}"


def print_report(result: BacktestResult) -> None:
    """Everything a person wants at first sight; the rest is in --json and --export."""
    if result.simulated:
        typer.echo("*** SIMULATED MARKET: these candles are made up; the result proves nothing. ***")
    _print_facts(result)
    _print_samples(result)
    _print_chart(result)
    _print_statistics(result)
    _print_reasons(result)
    for note in result.notes:
        typer.echo(f"Note: {note}")
    if result.simulated:
        typer.echo("*** SIMULATED MARKET ***")


def _print_facts(result: BacktestResult) -> None:
    total = result.total
    rows = [
        ["strategy", f"{result.strategy['name']} {_params(result)}".strip()],
        ["symbols", f"{', '.join(result.symbols)} {result.timeframe}"],
        ["range", f"{total.start} to {total.end} ({_days(total.days)})"],
        ["costs", f"fee {result.costs['fee_bps']:g} bps, slippage {result.costs['slippage_bps']:g} bps"],
        ["policy", _policy_line(result)],
    ]
    for facts in result.data:
        gaps = f", {facts.missing_candles:,} missing in {counted(facts.gaps, 'gap')}" if facts.gaps else ""
        rows.append(["data", f"{facts.source}: {counted(facts.rows, 'candle')}{gaps}, sha256 {facts.sha256[:12]}"])
    for rules in result.market_rules:
        text = f"lot {rules.lot:f}, tick {rules.tick:f}, minimum {rules.min_notional:f} ({rules.source}, {rules.date})"
        rows.append([f"rules {rules.symbol}", text])
    rows += [
        ["model", f"{model.id}, trained to {model.training_end[:10]}, validated to {model.validation_end[:10]}"]
        for model in result.models
    ]
    print_table(["run", ""], rows)


def _days(days: float) -> str:
    return counted(round(days), "day")


def _params(result: BacktestResult) -> str:
    return " ".join(f"{name}={value:g}" for name, value in result.strategy["params"].items())


def _policy_line(result: BacktestResult) -> str:
    """The policy's values that differ from the defaults, and its hash."""
    from atb.core.policy import FIELDS

    values = result.policy.as_dict()
    changed = [f"{f.name} {values[f.name]}" for f in FIELDS if getattr(result.policy, f.name) != f.default]
    return f"{', '.join(changed) or 'defaults'} (hash {result.policy.digest()})"


def _print_samples(result: BacktestResult) -> None:
    """Say it loudly when figures come from a model's own training data."""
    if warning := sample_warning(result):
        typer.echo(warning)


def sample_warning(result: BacktestResult) -> str:
    """Which figures are no evidence, and which are or how to get them; empty without a part that is in-sample."""
    parts = [segment.name for segment in result.segments[1:]]
    if "in_sample" not in parts:
        return ""
    how_much = "all" if parts == ["in_sample"] else "part"
    lies = f"WARNING: {how_much} of this run lies in the model's own training data (IN-SAMPLE)"
    if "out_of_sample" in parts:
        return f"{lies}; trust the out-of-sample column."
    seen = max(model.validation_end for model in result.models)[:10]
    return f"{lies}, and none is out-of-sample: no figure here is evidence. Use candles after {seen}: --start {seen}"


STATISTICS: list[tuple[str, Callable[[Statistics], str]]] = [
    ("start equity", lambda s: number(s.start_equity)),
    ("end equity", lambda s: number(s.end_equity)),
    ("total return", lambda s: percent(s.total_return)),
    ("market change (no costs)", lambda s: percent(s.market_change)),
    ("CAGR", lambda s: percent(s.cagr)),
    ("Sharpe", lambda s: number(s.sharpe)),
    ("Sortino", lambda s: number(s.sortino)),
    ("Calmar", lambda s: number(s.calmar)),
    ("volatility (annual)", lambda s: percent(s.volatility).lstrip("+")),
    ("max drawdown", lambda s: f"{s.drawdown.depth:.2%}"),
    ("  peak", lambda s: _date(s.drawdown.peak_ms)),
    ("  trough", lambda s: _date(s.drawdown.trough_ms)),
    ("  recovered", lambda s: "not yet" if s.drawdown.recovered_ms is None else _date(s.drawdown.recovered_ms)),
    ("  duration, days", lambda s: f"{s.drawdown.duration_days:,.1f}"),
    ("closed trades", lambda s: count(s.trades.closed)),
    ("open trades", lambda s: count(s.open_trades)),
    ("win rate", lambda s: percent(s.trades.win_rate).lstrip("+")),
    ("profit factor", lambda s: number(s.trades.profit_factor)),
    ("expectancy a trade", lambda s: number(s.trades.expectancy)),
    ("SQN", lambda s: f"{number(s.trades.sqn)} (n={s.trades.closed})"),
    ("best / worst trade", lambda s: f"{number(s.trades.best)} / {number(s.trades.worst)}"),
    (
        "average / median hours",
        lambda s: f"{number(s.trades.average_duration_h)} / {number(s.trades.median_duration_h)}",
    ),
    ("exposure", lambda s: percent(s.exposure).lstrip("+")),
    ("turnover (x equity)", lambda s: number(s.turnover)),
    ("fees paid", lambda s: number(s.fees)),
    ("best / worst day", lambda s: f"{percent(s.best_day)} / {percent(s.worst_day)}"),
]


def _date(ms: int) -> str:
    from atb.core.timeframe import iso_minute

    return iso_minute(ms)


def _print_statistics(result: BacktestResult) -> None:
    """The parts of the run beside each other, or one below the other where that would break numbers."""
    segments = result.segments
    if sys.stdout.isatty() and narrowest(*_statistics(segments)) > columns_of_terminal():
        for segment in segments:
            print_table(*_statistics([segment]), whole_words=True)
    else:
        print_table(*_statistics(segments), whole_words=True)


def _statistics(segments: list[Segment]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the statistics of some parts."""
    header = ["statistic", *(NAMES[segment.name] for segment in segments)]
    return header, [[label, *(show(segment.statistics) for segment in segments)] for label, show in STATISTICS]


def _print_reasons(result: BacktestResult) -> None:
    exits: dict[str, list[float]] = {}
    for row in result.trade_rows():
        exits.setdefault(row["exit_reason"], []).append(row["pnl"])
    rows = [["exit", reason, count(len(pnl)), number(sum(pnl))] for reason, pnl in sorted(exits.items())]
    rows += [["rejected signal", reason, count(n), ""] for reason, n in result.rejected().items()]
    if rows:
        print_table(["what", "reason", "count", "pnl"], rows)
    best = result.best_case
    if best.ambiguous_exits:
        exits_hang = f"{counted(best.ambiguous_exits, 'exit')} hang{'s' if best.ambiguous_exits == 1 else ''}"
        typer.echo(
            f"{exits_hang} on an ambiguous candle (stop and take both touched). Counted as stops: "
            f"{percent(result.total.total_return)}; had all been takes: {percent(best.total_return)}."
        )


class Bucket(NamedTuple):
    """The lowest and the highest equity of the candles that share a column of the chart."""

    low: float
    high: float


def _print_chart(result: BacktestResult) -> None:
    """Equity over time as rows of block characters; only where somebody looks."""
    if not sys.stdout.isatty():
        return
    width = max(10, min(CHART_COLUMNS, columns_of_terminal() - CHART_LABEL - 2))
    for line in chart(buckets(result.curve.equity.tolist(), width), draws_blocks(sys.stdout)):
        typer.echo(line)


def buckets(equity: list[float], width: int) -> list[Bucket]:
    """`equity` in at most `width` columns of about as many candles each: nothing is left out."""
    columns = min(width, len(equity))
    edges = [i * len(equity) // columns for i in range(columns + 1)]
    parts = [equity[low:high] for low, high in pairwise(edges)]
    return [Bucket(min(part), max(part)) for part in parts]


def chart(columns: list[Bucket], blocks: bool = True) -> list[str]:
    """Rows of characters between the lowest and the highest equity, which are the labels.

    A column is solid up to its lowest equity and light from there to its highest.
    """
    low, high = min(c.low for c in columns), max(c.high for c in columns)
    scale = CHART_ROWS * 8 / ((high - low) or 1.0)
    heights = [(round((c.low - low) * scale), round((c.high - low) * scale)) for c in columns]
    lines = []
    for row in range(CHART_ROWS - 1, -1, -1):
        label = number(high) if row == CHART_ROWS - 1 else number(low) if row == 0 else ""
        cells = "".join(_cell(bottom - row * 8, top - row * 8, blocks) for bottom, top in heights)
        lines.append(f"{label:>{CHART_LABEL}} {cells}".rstrip())
    return ["equity", *lines]


def _cell(bottom: int, top: int, blocks: bool) -> str:
    """One character of a column; `bottom` and `top` are eighths above the lower edge of the character."""
    eighths, between = (EIGHTHS, BETWEEN) if blocks else (ASCII_EIGHTHS, ASCII_BETWEEN)
    if top <= 0:
        return " "
    if bottom <= 0:
        return between
    return eighths[min(8, top if top <= 8 else bottom)]
