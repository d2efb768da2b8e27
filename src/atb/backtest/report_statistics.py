"""The report's statistics: the headline, and every figure of each stretch with its definition."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

from atb.backtest.report_format import (
    NA,
    Cell,
    Column,
    Markup,
    change,
    count,
    days,
    esc,
    hours,
    moment,
    money_decimals,
    note,
    number,
    percent,
    table,
    tone,
)
from atb.backtest.report_words import DEFINITIONS, segment_title
from atb.backtest.result import BacktestResult, Segment, Statistics
from atb.core.timeframe import iso


class Line(NamedTuple):
    """One statistic: its name, where it is in Statistics, how it is written (see `texts`) and what it means."""

    title: str
    path: str
    kind: str
    meaning: str


LINES: dict[str, tuple[Line, ...]] = {
    "Period": (
        Line("Start", "start", "time", "Open of the first candle, UTC."),
        Line("End", "end", "time", "Close of the last candle, UTC."),
        Line("Days", "days", "tenths", "From the first open to the last close."),
    ),
    "Return": (
        Line("Start equity", "start_equity", "money", "Cash and marked positions at the start."),
        Line("End equity", "end_equity", "money", "Cash and marked positions at the last close."),
        Line("Total return", "total_return", "change", "End equity / start equity - 1."),
        Line("Buy and hold", "market_change", "change", "Equal shares of each symbol over the same time, no costs."),
        Line("CAGR", "cagr", "change", "(end / start)^(365 / days) - 1; n/a under 30 days."),
        Line("Best day", "best_day", "change", "Largest daily return."),
        Line("Worst day", "worst_day", "change", "Smallest daily return."),
    ),
    "Risk": (
        Line("Volatility", "volatility", "percent", "Standard deviation of daily returns x sqrt(365)."),
        Line("Sharpe", "sharpe", "number", "Mean / standard deviation of daily returns x sqrt(365)."),
        Line("Sortino", "sortino", "number", "Mean / sqrt(sum(min(r, 0)^2) / n) x sqrt(365)."),
        Line("Calmar", "calmar", "number", "CAGR / max drawdown."),
        Line("Max drawdown", "drawdown.depth", "percent", "Deepest fall from a peak of equity, at closes."),
        Line("Drawdown from", "drawdown.peak_ms", "ms", "The peak before it."),
        Line("Drawdown trough", "drawdown.trough_ms", "ms", "Its deepest close."),
        Line("Drawdown recovered", "drawdown", "recovery", "The close that was back at the peak."),
        Line("Drawdown duration", "drawdown.duration_days", "days", "From the peak to the recovery, or to the end."),
        Line("Exposure", "exposure", "percent", "Share of closes with a position."),
    ),
    "Trades": (
        Line("Closed trades", "trades.closed", "count", "From flat to flat."),
        Line("Open trades", "open_trades", "count", "Still held at the end, marked at the last close."),
        Line("Wins", "trades.wins", "count", "Closed trades with a pnl above 0 after fees."),
        Line("Win rate", "trades.win_rate", "percent", "Wins / closed trades."),
        Line("Profit factor", "trades.profit_factor", "number", "Gross win / gross loss."),
        Line("Expectancy", "trades.expectancy", "pnl", "Mean pnl per closed trade after fees."),
        Line("SQN", "trades", "sqn", "Mean / standard deviation of pnl x sqrt(n), with its n."),
        Line("Average win", "trades.average_win", "pnl", "Mean pnl of the winning trades."),
        Line("Average loss", "trades.average_loss", "pnl", "Mean pnl of the losing trades."),
        Line("Best trade", "trades.best", "pnl", "Largest pnl."),
        Line("Worst trade", "trades.worst", "pnl", "Smallest pnl."),
        Line("Average duration", "trades.average_duration_h", "hours", "Open of entry candle to close of exit candle."),
        Line("Median duration", "trades.median_duration_h", "hours", "Half of the trades took no longer."),
    ),
    "Costs": (
        Line("Fees paid", "fees", "money", "Of all fills."),
        Line("Turnover", "turnover", "number", "Value of all fills / mean equity."),
    ),
}
SIGNED = ("change", "pnl")  # kinds that are coloured by their sign


def texts(decimals: int) -> dict[str, Callable[[Any], str]]:
    """How each kind of figure is written. `decimals`: of money."""
    return {
        "time": moment,
        "ms": lambda ms: moment(iso(ms)),
        "tenths": lambda value: number(value, 1),
        "days": lambda value: f"{number(value, 1)} days",
        "hours": hours,
        "count": count,
        "number": number,
        "percent": percent,
        "change": change,
        "money": lambda value: number(value, decimals),
        "pnl": lambda value: number(value, decimals, signed=True),
        "recovery": _recovery,
        "sqn": lambda t: NA if t.sqn is None else f"{number(t.sqn)} (n = {count(t.closed)})",
    }


def _recovery(drawdown: Any) -> str:
    if drawdown.depth == 0:
        return NA
    return "not yet" if drawdown.recovered_ms is None else moment(iso(drawdown.recovered_ms))


def statistics_table(result: BacktestResult) -> Markup:
    """Every statistic, a column for each stretch, its definition beside it."""
    stretches = [Column(segment_title(segment.name)) for segment in result.segments]
    columns = [Column("", number=False), *stretches, Column("Definition", number=False)]
    write = texts(money_decimals(result.initial_balance))
    rows: list[list[Cell | str]] = []
    for group, lines in LINES.items():
        rows.append([Cell(group, css="group"), *[Cell("", css="group")] * (len(columns) - 1)])
        rows += [_row(line, result.segments, write[line.kind]) for line in lines]
    meanings = " ".join(f"{name}: {text}" for name, text in DEFINITIONS.items())
    return Markup(table(columns, rows, "stats") + note(meanings))


def _row(line: Line, segments: list[Segment], write: Callable[[Any], str]) -> list[Cell | str]:
    cells: list[Cell | str] = [line.title]
    for segment in segments:
        value = attrgetter(line.path)(segment.statistics)
        cells.append(Cell(write(value), css=tone(value) if line.kind in SIGNED else ""))
    return [*cells, Cell(line.meaning, css="meaning")]


class Card(NamedTuple):
    """One headline figure: a path and kind as in Line, small print below; `outside` repeats it for out-of-sample."""

    title: str
    path: str
    kind: str
    below: str
    outside: bool = True


def headline(result: BacktestResult) -> Markup:
    """The few figures to read first; those of the out-of-sample stretch below them where there is one."""
    outside = [segment.statistics for segment in result.segments[1:] if segment.name == "out_of_sample"]
    write = texts(money_decimals(result.initial_balance))
    cards = "\n".join(_card(card, result.total, outside, write) for card in _cards(result.total, write["money"]))
    return Markup(f'<div class="cards">\n{cards}\n</div>')


def _cards(s: Statistics, money: Callable[[Any], str]) -> tuple[Card, ...]:
    return (
        Card("Total return", "total_return", "change", f"buy and hold {change(s.market_change)}"),
        Card("Final equity", "end_equity", "money", f"from {money(s.start_equity)}", outside=False),
        Card("CAGR", "cagr", "change", f"over {days(s.days)}"),
        Card("Max drawdown", "drawdown.depth", "percent", f"lasting {days(s.drawdown.duration_days)}"),
        Card("Sharpe", "sharpe", "number", f"Sortino {number(s.sortino)}"),
        Card("Profit factor", "trades.profit_factor", "number", f"win rate {percent(s.trades.win_rate, 1)}"),
        Card("Closed trades", "trades.closed", "count", f"{count(s.open_trades)} open at the end"),
        Card("Fees paid", "fees", "money", f"exposure {percent(s.exposure, 1)}", outside=False),
    )


def _card(card: Card, s: Statistics, outside: list[Statistics], write: dict[str, Callable[[Any], str]]) -> str:
    read, text = attrgetter(card.path), write[card.kind]
    below = [card.below] + [f"out of sample {text(read(o))}" for o in outside if card.outside]
    css = f"value {tone(read(s)) if card.kind in SIGNED else ''}".strip()
    small = "".join(f'<span class="sub">{esc(line)}</span>' for line in below)
    name = f'<span class="name">{esc(card.title)}</span>'
    return f'<div class="card">{name}<span class="{css}">{esc(text(read(s)))}</span>{small}</div>'
