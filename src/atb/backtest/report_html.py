"""The report as one HTML file that needs no network: styles, script and data are inside, and nothing else may load.

The same result gives the same bytes: how long the run took and how its loop was executed are not in it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from atb.backtest import report_facts, report_histogram, report_months, report_statistics, report_tables
from atb.backtest.report_data import chart_data
from atb.backtest.report_format import Markup, change, count, esc, moment, note, percent, section
from atb.backtest.report_words import segment_title
from atb.backtest.result import BacktestResult
from atb.core.words import counted

Pair = tuple[str, str]
Button = tuple[str, str, str]

FOLDER = Path(__file__).parent
SCRIPTS = ("report_base.js", "report_view.js", "report_equity.js", "report_candles.js", "report.js")
NAVIGATION = (
    ("equity", "Equity"), ("candles", "Candles"), ("months", "Months"), ("statistics", "Statistics"),
    ("exits", "Exits"), ("trades", "Trades"), ("ambiguous", "Ambiguous candles"), ("facts", "Facts"),
)  # fmt: skip


def render_html(result: BacktestResult) -> str:
    """The whole report."""
    style, script = (FOLDER / "report.css").read_text(encoding="utf-8"), load_script()
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{content_policy(style, script)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{esc(title(result))}</title>
<style>{style}</style>
</head>
<body>
{_header(result)}
<main>
{_body(result)}
</main>
<footer>Written by atb. Past or simulated results are no promise of future ones.</footer>
<script type="application/json" id="data">{embed_json(chart_data(result))}</script>
<script>{script}</script>
</body>
</html>
"""


def title(result: BacktestResult) -> str:
    """Strategy, symbols, timeframe and range in one line."""
    marks = "SIMULATED " if result.simulated else ""
    name = result.strategy.get("name", "strategy")
    return f"{marks}{name} on {', '.join(result.symbols)} {result.timeframe}, {_range(result)}"


def load_script() -> str:
    """The report's own script, all parts in one closure."""
    parts = [(FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "\n})();\n"


def content_policy(style: str, script: str) -> str:
    """Only this style and this script may run; nothing may be loaded from anywhere."""
    own = f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    return f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'"


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def embed_json(data: Any) -> str:
    """JSON that cannot end its script element, whatever is in it; a NaN is an error."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _range(result: BacktestResult) -> str:
    return f"{moment(result.total.start)} to {moment(result.total.end)}"


def _header(result: BacktestResult) -> str:
    links = " ".join(f'<a href="#{anchor}">{esc(text)}</a>' for anchor, text in NAVIGATION)
    name, summary = result.strategy.get("name", "strategy"), result.strategy.get("summary", "")
    return f"""<header>
<p class="kicker">Backtest</p>
<h1>{esc(name)} <span>{esc(", ".join(result.symbols))} · {esc(result.timeframe)}</span></h1>
<p class="range">{esc(_range(result))} UTC · {count(result.run.rows)} candles{_summary(summary)}</p>
{report_facts.banners(result)}
{report_statistics.headline(result)}
{report_facts.notes(result)}
<nav aria-label="Sections">{links}</nav>
</header>"""


def _summary(text: Any) -> str:
    return f" · {esc(text)}" if text else ""


def _body(result: BacktestResult) -> str:
    book = report_tables.trade_book(result)
    return "\n".join(
        (
            section("equity", "Equity and drawdown", _equity_chart(result)),
            section("candles", "Candles, entries and exits", _candle_chart(result)),
            '<div class="columns">',
            section("months", "Monthly returns", report_months.monthly_table(result), note(_MONTHS_NOTE)),
            section("distribution", "Distribution of trades", report_histogram.distribution(result)),
            "</div>",
            section("statistics", "Statistics", report_statistics.statistics_table(result)),
            section("exits", "Exits", report_tables.exit_reasons(result)),
            section("rejected", "Rejected signals", report_tables.rejected_signals(result)),
            section("ambiguous", "Ambiguous candles", report_tables.ambiguous_candles(book)),
            section("extremes", "Best and worst trades", report_tables.extreme_trades(book)),
            section("trades", "Trades", report_tables.all_trades(book)),
            _facts(result),
        )
    )


_MONTHS_NOTE = (
    "Percent, from daily equity (UTC); the first and the last month may be parts of one. "
    "Blue: gain, orange: loss; stronger: larger."
)


def _facts(result: BacktestResult) -> Markup:
    return section(
        "facts",
        "Facts",
        Markup("<h3>Strategy and costs</h3>"),
        report_facts.strategy_facts(result),
        report_facts.models_table(result),
        Markup("<h3>Data</h3>"),
        report_facts.data_table(result),
        report_facts.market_rules_table(result),
        Markup("<h3>Rules</h3>"),
        report_facts.general_rules(),
        report_tables.fill_rules(result),
        Markup("<h3>Policy</h3>"),
        report_facts.policy_table(result),
        Markup("<h3>Versions</h3>"),
        report_facts.versions(result),
    )


def _equity_chart(result: BacktestResult) -> Markup:
    total = result.total
    label = (
        f"Equity against buy and hold, and drawdown. Strategy {change(total.total_return)}, buy and hold "
        f"{change(total.market_change)}, deepest drawdown {percent(total.drawdown.depth)}."
    )
    legend = [("equity", "Strategy"), ("market", "Buy and hold"), ("drawdown", "Drawdown")]
    legend += [(f"seg-{s.name}", segment_title(s.name)) for s in result.segments[1:]]
    return _chart("equity", label, legend, [])


def _candle_chart(result: BacktestResult) -> Markup:
    names, trades = ", ".join(result.symbols), counted(len(result.trades), "trade")
    label = f"Candles of {names} with the entries and exits of {trades}, listed under Trades."
    legend = [("entry", "Entry"), ("exit-gain", "Exit with gain"), ("exit-loss", "Exit with loss")]
    more = [("prev", "‹ Trade", "Previous trade (P)"), ("next", "Trade ›", "Next trade (N)")]
    return _chart("price", label, legend, more, _symbol_choice(result))


def _symbol_choice(result: BacktestResult) -> str:
    if len(result.symbols) == 1:
        return ""
    options = "".join(f'<option value="{i}">{esc(name)}</option>' for i, name in enumerate(result.symbols))
    return f'<label class="choice">Symbol <select id="symbol">{options}</select></label>'


BUTTONS = (
    ("left", "←", "Earlier"), ("right", "→", "Later"), ("in", "+", "Zoom in"), ("out", "−", "Zoom out"),
    ("all", "All", "Whole run"), ("log", "Log scale", "Logarithmic scale on or off"),
)  # fmt: skip


NO_SCRIPT = "The charts are drawn by this file's own script, which is switched off here; the tables work without it."


def _chart(name: str, label: str, legend: list[Pair], more: list[Button], choice: str = "") -> Markup:
    """A chart's place: legend, canvas, read-out and buttons; the script draws."""
    keys = "".join(f'<span class="key {esc(css)}"><i></i>{esc(text)}</span>' for css, text in legend)
    buttons = "".join(_button(*button) for button in (*BUTTONS, *more))
    return Markup(f"""<figure class="chart" id="{name}-chart">
<div class="bar">{choice}<div class="legend">{keys}</div><div class="tools">{buttons}</div></div>
<div class="readout" aria-live="polite"></div>
<div class="plot">
<canvas tabindex="0" role="img" aria-label="{esc(label)}"></canvas>
<div class="tip" hidden></div>
</div>
<figcaption class="note"></figcaption>
<noscript><p class="note">{esc(NO_SCRIPT)}</p></noscript>
</figure>""")


def _button(act: str, text: str, hint: str) -> str:
    return f'<button type="button" data-act="{act}" title="{hint}" aria-label="{hint}">{text}</button>'
