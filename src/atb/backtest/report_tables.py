"""The report's tables: trades, exits, rejected signals, ambiguous candles."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from atb.backtest.report_data import trade_of_fill
from atb.backtest.report_format import (
    Cell,
    Column,
    Markup,
    change,
    count,
    hours,
    money_decimals,
    note,
    number,
    percent,
    price,
    quantity,
    table,
    tone,
    words,
)
from atb.backtest.report_words import EXITS, REJECTIONS, RULES
from atb.backtest.result import BacktestResult
from atb.core.timeframe import iso_minute
from atb.engine.candles import Ints
from atb.engine.reasons import PARTIAL_EXIT, REASON_NAMES, RULE_NAMES

MOST_TRADES = 500
EXTREMES = 5
TRADE_COLUMNS = (
    Column("#"), Column("Symbol", False), Column("Entry", False), Column("Exit", False), Column("Held"),
    Column("Quantity"), Column("Entry price"), Column("Exit price"), Column("Fees"), Column("Pnl"), Column("Return"),
    Column("Exit reason", False), Column("Fill rule", False),
)  # fmt: skip


class TradeBook(NamedTuple):
    """A result with what its trade rows need besides: the rule of each trade's last fill and the decimals of money."""

    result: BacktestResult
    last_rule: Ints
    decimals: int


def trade_book(result: BacktestResult) -> TradeBook:
    """Look up the rule of the last fill of each trade."""
    last_rule = np.zeros(len(result.trades), dtype=np.int64)
    if len(result.trades):
        last_rule[trade_of_fill(result)] = result.run.fills["rule"]  # fills are in order: the last one stays
    return TradeBook(result, last_rule, money_decimals(result.initial_balance))


def all_trades(book: TradeBook) -> Markup:
    """The first trades in order of exit, to be sorted in the browser."""
    total = len(book.result.trades)
    if total == 0:
        return note("No trades.")
    shown = min(total, MOST_TRADES)
    rows = [_trade_row(book, i) for i in range(shown)]
    said = "Click a heading to sort, a number to see the trade in the candles. Times: open of the candle, UTC."
    if total > shown:
        said = f"The first {count(shown)} of {count(total)} trades; trades.csv of an export holds all of them. " + said
    return Markup(note(said) + table(TRADE_COLUMNS, rows, "trades sortable", tall=True))


def extreme_trades(book: TradeBook) -> Markup:
    """The trades with the largest gains and the largest losses."""
    pnl = book.result.trades.pnl
    if len(pnl) == 0:
        return note("No trades.")
    order = np.argsort(-pnl, kind="stable")
    best = [int(i) for i in order[:EXTREMES] if pnl[i] > 0]
    worst = [int(i) for i in order[::-1][:EXTREMES] if pnl[i] < 0]
    parts = []
    for title, rows in (("Best", best), ("Worst", worst)):
        body = table(TRADE_COLUMNS, [_trade_row(book, i) for i in rows], "trades") if rows else note("None.")
        parts.append(f"<h3>{title}</h3>{body}")
    return Markup("\n".join(parts))


def _trade_row(book: TradeBook, i: int) -> list[Cell | str]:
    t, times = book.result.trades, book.result.line.open_time
    entry, exit_ = int(times[t.entry_t[i]]), int(times[t.exit_t[i]])
    held_h = (exit_ + book.result.curve.length_ms - entry) / 3_600_000
    lot = book.result.market_rules[int(t.symbol[i])].lot
    is_open = bool(t.open[i])
    reason = "open" if is_open else words(REASON_NAMES[int(t.reason[i])])
    rule = "" if is_open else words(RULE_NAMES[int(book.last_rule[i])])
    go = f'<button type="button" class="go" data-row="{i}" title="Show in the candles">{i + 1}</button>'
    return [
        Cell(Markup(go), i),
        book.result.symbols[int(t.symbol[i])],
        Cell(iso_minute(entry), entry),
        Cell("open" if is_open else iso_minute(exit_), exit_),
        Cell(hours(held_h), round(held_h, 6)),
        Cell(quantity(float(t.qty[i]), lot), float(t.qty[i])),
        Cell(price(float(t.entry_price[i])), float(t.entry_price[i])),
        Cell(price(float(t.exit_price[i])), float(t.exit_price[i])),
        Cell(number(float(t.fees[i]), book.decimals), float(t.fees[i])),
        Cell(number(float(t.pnl[i]), book.decimals, signed=True), float(t.pnl[i]), tone(float(t.pnl[i]))),
        Cell(change(float(t.return_frac[i])), float(t.return_frac[i]), tone(float(t.return_frac[i]))),
        reason,
        rule,
    ]


def exit_reasons(result: BacktestResult) -> Markup:
    """How many trades ended for which reason, and what they brought."""
    t = result.trades
    if len(t) == 0:
        return note("No trades.")
    code = np.where(t.open, -1, t.reason)
    groups = [(int(c), np.flatnonzero(code == c)) for c in np.unique(code)]
    groups.sort(key=lambda group: (group[0] < 0, -len(group[1]), group[0]))
    decimals = money_decimals(result.initial_balance)
    rows = [_exit_row("open" if c < 0 else REASON_NAMES[c], result, which, decimals) for c, which in groups]
    columns = [
        Column("Reason", False), Column("Trades"), Column("Won"), Column("Pnl"), Column("Mean return"),
        Column("Meaning", False),
    ]  # fmt: skip
    partial = int(np.count_nonzero(result.run.fills["reason"] == PARTIAL_EXIT))
    said = note(f"Partial exits: {count(partial)} fills, counted in their trades.") if partial else ""
    return Markup(table(columns, rows) + said)


def _exit_row(name: str, result: BacktestResult, which: Ints, decimals: int) -> list[Cell | str]:
    pnl, returns = result.trades.pnl[which], result.trades.return_frac[which]
    total = float(pnl.sum())
    won = float(np.count_nonzero(pnl > 0)) / len(which)
    return [
        words(name),
        count(len(which)),
        percent(won, 0),
        Cell(number(total, decimals, signed=True), css=tone(total)),
        Cell(change(float(returns.mean())), css=tone(float(returns.mean()))),
        Cell(EXITS.get(name, ""), css="meaning"),
    ]


def rejected_signals(result: BacktestResult) -> Markup:
    """Signals for an entry that were refused, by reason."""
    refused = result.rejected()
    if not refused:
        return note("No signal was refused.")
    columns = [Column("Reason", False), Column("Signals"), Column("Meaning", False)]
    rows = [_counted(name, n, REJECTIONS) for name, n in _by_size(refused)]
    return Markup(table(columns, rows) + note(f"{count(sum(refused.values()))} in all, one count a candle and symbol."))


def fill_rules(result: BacktestResult) -> Markup:
    """Which rule made how many fills, and what each says."""
    codes, times = np.unique(result.run.fills["rule"], return_counts=True)
    made = dict(zip(codes.tolist(), times.tolist(), strict=True))
    names = [(name, made.get(code, 0)) for code, name in RULE_NAMES.items() if name != "take_before_stop"]
    columns = [Column("Fill rule", False), Column("Fills"), Column("Meaning", False)]
    return table(columns, [_counted(name, n, RULES) for name, n in names])


def _counted(name: str, times: int, meanings: dict[str, str]) -> list[Cell | str]:
    return [words(name), count(times), Cell(meanings.get(name, ""), css="meaning")]


def ambiguous_candles(book: TradeBook) -> Markup:
    """What hangs on the order of stop and take inside one candle: the reported worst case and the best one."""
    result, best = book.result, book.result.best_case
    if best.ambiguous_exits == 0:
        return note("No exit hangs on the order of stop and take inside one candle.")
    exits = "exit hangs" if best.ambiguous_exits == 1 else "exits hang"
    said = note(
        f"{count(best.ambiguous_exits)} {exits} on the order of stop and take inside one candle. The report counts "
        "each as the stop; the best case is a second run in which each is the take."
    )
    columns = [Column("Outcome", False), Column("End equity"), Column("Total return")]
    cases = (
        ("Worst (reported): the stop first", result.total.end_equity, result.total.total_return),
        ("Best: the take first", best.end_equity, best.total_return),
    )
    rows: list[list[Cell | str]] = [
        [name, number(end, book.decimals), Cell(change(gain), css=tone(gain))] for name, end, gain in cases
    ]
    which = np.flatnonzero(result.trades.ambiguous)[:20]
    listed = table(TRADE_COLUMNS, [_trade_row(book, int(i)) for i in which], "trades") if len(which) else ""
    more = note("The first 20 of them.") if best.ambiguous_exits > len(which) else ""
    return Markup(said + table(columns, rows, "narrow") + listed + more)


def _by_size(counts: dict[str, Any]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
