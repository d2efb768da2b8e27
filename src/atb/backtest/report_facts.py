"""The facts behind a run: costs, rules, Policy, market rules, candles, models, versions; and what is said loudly."""

from __future__ import annotations

from typing import Any

from atb.backtest.report_format import (
    Cell,
    Column,
    Markup,
    count,
    esc,
    facts,
    moment,
    number,
    parse_ms,
    percent,
    plain,
    table,
    words,
)
from atb.backtest.report_words import GENERAL
from atb.backtest.result import BacktestResult
from atb.core.policy import FIELDS

NOT_SHARES = ("min_confidence", "cooldown", "max_hold", "max_open_positions", "partial_exits")
SHARES = frozenset(f.name for f in FIELDS if not isinstance(f.default, str) and f.name not in NOT_SHARES)


def banners(result: BacktestResult) -> Markup:
    """What a reader must not miss, above everything else."""
    parts = [_simulated_banner(result), _in_sample_banner(result), _halt_banner(result)]
    return Markup("\n".join(part for part in parts if part))


def _banner(css: str, title: str, text: str) -> str:
    return f'<div class="banner {css}" role="note"><strong>{esc(title)}</strong><span>{esc(text)}</span></div>'


def _simulated_banner(result: BacktestResult) -> str:
    if not result.simulated:
        return ""
    made_up = [facts.symbol for facts in result.data if facts.simulated]
    whose = "These candles" if len(made_up) == len(result.data) else f"The candles of {', '.join(made_up)}"
    text = f"{whose} come from a seeded market simulator. No figure here says anything about a real market."
    return _banner("simulated", "SIMULATED", text)


def _in_sample_banner(result: BacktestResult) -> str:
    inside = [segment for segment in result.segments[1:] if segment.name == "in_sample"]
    if not inside and not _starts_in_training(result):
        return ""
    if not inside:
        return _banner("insample", "IN SAMPLE", "A part of this run lies in its model's training period.")
    s = inside[0].statistics
    share = s.days / result.total.days
    span = f"{moment(s.start)} to {moment(s.end)}, {percent(share, 0)} of this run, lies"
    text = (
        f"{'All of this run lies' if len(result.segments) == 2 else span} in its model's training period: the model has "
        "seen these candles, and no result on them is evidence. "
    )
    outside = any(segment.name == "out_of_sample" for segment in result.segments)
    after = max(model.validation_end for model in result.models)[:10]
    lacking = f"There is no out-of-sample stretch in this run; candles after {after} make one (--start {after})."
    return _banner("insample", "IN SAMPLE", text + ("Read the out-of-sample figures." if outside else lacking))


def _starts_in_training(result: BacktestResult) -> bool:
    start, end = parse_ms(result.total.start), parse_ms(result.total.end)
    for model in result.models:
        first, last = parse_ms(model.training_start), parse_ms(model.training_end)
        if None not in (start, end, first, last) and start < last and end > first:  # type: ignore[operator]
            return True
    return False


def _halt_banner(result: BacktestResult) -> str:
    if result.halt is None:
        return ""
    return _banner("halt", "HALTED", f"{result.halt.message} ({moment(result.halt.time)} UTC)")


def notes(result: BacktestResult) -> Markup:
    """The run's own notes."""
    if not result.notes:
        return Markup("")
    items = "".join(f"<li>{esc(text)}</li>" for text in result.notes)
    return Markup(f'<ul class="notes">{items}</ul>')


def strategy_facts(result: BacktestResult) -> Markup:
    """The strategy and what orders cost."""
    pairs = [(words(str(name)), plain(value)) for name, value in result.strategy.items()]
    costs = [(words(name), _cost(name, value)) for name, value in result.costs.items()]
    return facts([*pairs, ("initial balance", number(result.initial_balance, 2)), *costs])


def _cost(name: str, value: float) -> str:
    if name.endswith("_bps"):
        return f"{value:g} ({percent(value / 10_000, 3)} of each fill's value)"
    return plain(value)


def general_rules() -> Markup:
    """The rules of fills and accounting that hold for every run."""
    return Markup("<ol class='rules'>" + "".join(f"<li>{esc(rule)}</li>" for rule in GENERAL) + "</ol>")


def policy_table(result: BacktestResult) -> Markup:
    """Every field of the Policy in force."""
    values = result.policy.as_dict()
    columns = [Column("Policy", False), Column("Value"), Column("Meaning", False)]
    rows: list[list[Cell | str]] = [
        [words(f.name), _policy_value(f.name, values[f.name]), Cell(f.help, css="meaning")] for f in FIELDS
    ]
    rows.append(["hash", result.policy.digest(), Cell("Names this policy: equal values, equal hash.", css="meaning")])
    return table(columns, rows)


def _policy_value(name: str, value: Any) -> str:
    if name == "partial_exits":
        return ", ".join(f"{percent(share, 0)} at {percent(gain, 2, signed=True)}" for gain, share in value) or "none"
    if name in SHARES:
        return percent(value)
    return f"{value:,}" if isinstance(value, int) else plain(value)


def market_rules_table(result: BacktestResult) -> Markup:
    """Lot, tick and smallest notional of each symbol, and where and when they were read."""
    columns = [
        Column("Market rules", False), Column("Lot"), Column("Tick"), Column("Min. notional"),
        Column("As of", False), Column("Source", False),
    ]  # fmt: skip
    rules = result.market_rules
    rows = [[r.symbol, f"{r.lot:f}", f"{r.tick:f}", f"{r.min_notional:f}", r.date, r.source] for r in rules]
    return table(columns, rows)


def data_table(result: BacktestResult) -> Markup:
    """Each symbol's candles: source, extent, gaps and hash."""
    columns = [
        Column("Candles", False), Column("Venue", False), Column("First", False), Column("Last", False), Column("Rows"),
        Column("Gaps"), Column("Missing"), Column("Largest gap"), Column("No volume"), Column("Source", False),
        Column("sha256", False),
    ]  # fmt: skip
    rows: list[list[Cell | str]] = [
        [
            d.symbol, d.venue + (" (SIMULATED)" if d.simulated else ""), moment(d.first), moment(d.last), count(d.rows),
            count(d.gaps), f"{count(d.missing_candles)} ({percent(d.missing_share)})", count(d.largest_gap_candles),
            count(d.zero_volume_candles), Cell(d.source, css="long"), Cell(d.sha256, css="hash"),
        ]
        for d in result.data
    ]  # fmt: skip
    return table(columns, rows)


def models_table(result: BacktestResult) -> Markup:
    """The models behind the signals and the dates that split their history."""
    if not result.models:
        return Markup("")
    titles = ("Model of", "Model", "Version", "Training from", "Training to", "Validation to")
    rows = [
        [m.symbol, m.id, m.version, moment(m.training_start), moment(m.training_end), moment(m.validation_end)]
        for m in result.models
    ]
    return table([Column(title, False) for title in titles], rows)


def versions(result: BacktestResult) -> Markup:
    """The software that ran."""
    return facts((name, str(value)) for name, value in result.versions.items())
