"""The HTML report: its numbers, what it must say, that nothing gets in from outside, and that a browser can draw it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atb.backtest import report_data, report_histogram, report_html
from atb.backtest.report_format import hours, money_decimals, number, percent, price, quantity
from atb.backtest.report_html import render_html
from atb.backtest.result import BacktestResult, Segment
from atb.cli.backtest_report import Bucket, buckets, chart, sample_warning
from atb.core.timeframe import iso
from atb.engine.reasons import RULE_NAMES
from tests.unit.report_case import BUSY, START_MS, Held, Idle, candles, make_result, model

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HALTING = {"max_drawdown": 0.1, "fraction": 1.0, "max_position": 1.0, "cooldown": 2, "daily_loss_limit": 0.0}


@pytest.fixture(scope="module")
def busy() -> BacktestResult:
    """A run with winners, losers, ambiguous candles and all three stretches of a model's dates."""
    return make_result(candles(2000), with_model=model(training_end_day=30, validation_end_day=50))


@pytest.fixture(scope="module")
def page(busy: BacktestResult) -> str:
    return render_html(busy)


class _Tables(HTMLParser):
    """Rows of text of every table, by the section they are in; all scripts; all attributes."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: dict[str, list[list[str]]] = {}
        self.section, self.scripts = "", 0
        self.attributes: list[tuple[str, str, str | None]] = []
        self.in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.scripts += tag == "script"
        if tag == "section":
            self.section = dict(attrs).get("id") or ""
            self.rows[self.section] = []
        if tag == "tr":
            self.rows[self.section].append([])
        if tag in ("td", "th"):
            self.in_cell = True
            self.rows[self.section][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.in_cell:
            self.rows[self.section][-1][-1] += data


def parse(text: str) -> _Tables:
    parser = _Tables()
    parser.feed(text)
    return parser


def rows_of(text: str, section: str) -> dict[str, list[str]]:
    """The rows of a section's tables by their first cell."""
    return {row[0]: row[1:] for row in parse(text).rows[section]}


def data_of(text: str) -> dict[str, Any]:
    """The embedded data; NaN and Infinity are errors."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in the data")

    data: dict[str, Any] = json.loads(found[1], parse_constant=refuse)
    return data


def unpack(text: str) -> list[int]:
    """The inverse of `pack_ints`, written from its description."""
    out, value, shift = [], 0, 0
    for byte in base64.b64decode(text):
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            out.append((value >> 1) ^ -(value & 1))
            value, shift = 0, 0
    return out


def unpack_steps(text: str) -> list[int]:
    return [int(value) for value in np.cumsum(unpack(text))]


def unpack_times(packed: dict[str, Any]) -> list[int]:
    steps = np.array(unpack(packed["longer"])) + packed["step"]
    return [int(time) for time in packed["first"] - packed["step"] + np.cumsum(steps)]


def pct(value: float | None, *, plus: bool = False) -> str:
    """A fraction as the report writes it, computed another way."""
    if value is None:
        return "n/a"
    text = format(value * 100, ("+" if plus else "") + ",.2f") + "%" if abs(value) < 10 else format(value * 100, ",.0f")
    return "0.00%" if text in ("-0.00%", "+0.00%") else text.replace("-", "\u2212")


def num(value: float | None, *, plus: bool = False) -> str:
    if value is None:
        return "n/a"
    return format(value, ("+" if plus and value else "") + ",.2f").replace("-", "\u2212")


def when(ms: int) -> str:
    return iso(ms).replace("T", " ").removesuffix("Z").removesuffix(":00").removesuffix(" 00:00")


def expected_statistics(segment: Segment) -> dict[str, str]:
    """Every figure of a stretch, by the name of its row."""
    s, d, t = segment.statistics, segment.statistics.drawdown, segment.statistics.trades
    return {
        "Start": s.start.replace("T", " ").removesuffix(":00Z").removesuffix(" 00:00"),
        "End": s.end.replace("T", " ").removesuffix(":00Z").removesuffix(" 00:00"),
        "Days": f"{s.days:,.1f}",
        "Start equity": num(s.start_equity),
        "End equity": num(s.end_equity),
        "Total return": pct(s.total_return, plus=True),
        "Buy and hold": pct(s.market_change, plus=True),
        "CAGR": pct(s.cagr, plus=True),
        "Best day": pct(s.best_day, plus=True),
        "Worst day": pct(s.worst_day, plus=True),
        "Volatility": pct(s.volatility),
        "Sharpe": num(s.sharpe),
        "Sortino": num(s.sortino),
        "Calmar": num(s.calmar),
        "Max drawdown": pct(d.depth),
        "Drawdown from": when(d.peak_ms),
        "Drawdown trough": when(d.trough_ms),
        "Drawdown recovered": "not yet" if d.recovered_ms is None else when(d.recovered_ms),
        "Drawdown duration": f"{d.duration_days:,.1f} days",
        "Exposure": pct(s.exposure),
        "Closed trades": f"{t.closed:,}",
        "Open trades": f"{s.open_trades:,}",
        "Wins": f"{t.wins:,}",
        "Win rate": pct(t.win_rate),
        "Profit factor": num(t.profit_factor),
        "Expectancy": num(t.expectancy, plus=True),
        "SQN": "n/a" if t.sqn is None else f"{num(t.sqn)} (n = {t.closed:,})",
        "Average win": num(t.average_win, plus=True),
        "Average loss": num(t.average_loss, plus=True),
        "Best trade": num(t.best, plus=True),
        "Worst trade": num(t.worst, plus=True),
        "Average duration": f"{t.average_duration_h:,.1f} h",
        "Median duration": f"{t.median_duration_h:,.1f} h",
        "Fees paid": num(s.fees),
        "Turnover": num(s.turnover),
    }


def test_every_statistic_of_every_stretch_is_in_the_table(busy: BacktestResult, page: str) -> None:
    rows = rows_of(page, "statistics")
    assert rows[""][:-1] == ["Whole run", "In sample", "Validation", "Out of sample"]
    columns = [expected_statistics(segment) for segment in busy.segments]
    for name in columns[0]:
        assert rows[name][:-1] == [column[name] for column in columns], name
        assert len(rows[name][-1]) > 5, f"{name} has no definition"


def test_headline_repeats_the_out_of_sample_figures(busy: BacktestResult, page: str) -> None:
    cards = re.findall(r'<div class="card">(.*?)</div>', page, re.DOTALL)
    outside = busy.segments[-1].statistics
    assert busy.segments[-1].name == "out_of_sample"
    assert any(pct(busy.total.total_return, plus=True) in c and "Total return" in c for c in cards)
    assert any(f"out of sample {pct(outside.total_return, plus=True)}" in c for c in cards)
    assert any(num(busy.total.end_equity) in c and "Final equity" in c for c in cards)


def test_the_in_sample_part_is_said_loudly_with_its_dates(page: str) -> None:
    banner = re.search(r'<div class="banner insample".*?</div>', page, re.DOTALL)
    assert banner and "2024-01-01 to 2024-01-31, 36% of this run" in banner[0]
    assert "banner insample" not in render_html(make_result())


def test_a_run_wholly_inside_the_training_says_that_nothing_is_out_of_sample() -> None:
    text = render_html(make_result(with_model=model(training_end_day=400, validation_end_day=500)))
    assert "no out-of-sample stretch" in text
    assert "All of this run lies in its model" in text and "100% of this run" not in text
    assert "--start 2025-05-15" in text  # the end of the validation
    assert "Read the out-of-sample figures" not in text


def test_stretches_are_handed_to_the_chart_with_their_times(page: str) -> None:
    day = 86_400_000
    end = START_MS + 2000 * 3_600_000
    assert data_of(page)["segments"] == [
        {"name": "in_sample", "start": START_MS, "end": START_MS + 30 * day},
        {"name": "validation", "start": START_MS + 30 * day, "end": START_MS + 50 * day},
        {"name": "out_of_sample", "start": START_MS + 50 * day, "end": end},
    ]


def test_simulated_runs_carry_a_banner_and_a_title() -> None:
    text = render_html(make_result(simulated=True))
    assert "<title>SIMULATED momentum on BTCUSDT 1h" in text
    assert re.search(r'<div class="banner simulated" role="note"><strong>SIMULATED</strong>', text)
    real = render_html(make_result())
    assert "SIMULATED" not in re.sub(r"<(style|script).*?</\1>", "", real, flags=re.DOTALL)


def test_a_halt_is_shown_with_its_message() -> None:
    result = make_result(candles(800, drift=-0.003), strategy=Held, policy=HALTING)
    assert result.halt is not None
    text = render_html(result)
    assert html.escape(result.halt.message) in text
    shown = unpack_times(data_of(text)["symbols"][0]["time"])
    assert len(shown) == result.run.rows < 800  # the chart ends where the run ended


def test_a_run_without_trades_renders_and_says_so() -> None:
    result = make_result(strategy=Idle)
    text = render_html(result)
    rows = rows_of(text, "statistics")
    assert len(result.trades) == 0
    assert [rows[name][0] for name in ("Closed trades", "Win rate", "Profit factor", "SQN", "Sharpe")] == [
        "0",
        *["n/a"] * 4,
    ]
    assert text.count("No trades.") == 3 and "No closed trades." in text and "No signal was refused." in text
    assert data_of(text)["symbols"][0]["trades"]["row"] == []


@pytest.mark.parametrize("count", [7, 24])
def test_a_day_of_candles_renders(count: int) -> None:
    text = render_html(make_result(candles(count)))
    assert rows_of(text, "statistics")["CAGR"][0] == "n/a"
    assert len(unpack_times(data_of(text)["equity"]["time"])) == count + 1


def test_the_same_result_gives_the_same_bytes() -> None:
    first, second = make_result(), make_result()
    assert first.timing != second.timing
    assert render_html(first) == render_html(second)
    other_engine = first._replace(run=first.run._replace(engine="another"), timing={"load_s": 12345.678})
    assert render_html(other_engine) == render_html(first)
    assert render_html(make_result(candles(400, seed=2))) != render_html(first)


def test_nothing_is_loaded_from_outside(page: str) -> None:
    for tag, name, value in parse(page).attributes:
        if name in ("src", "href", "srcset", "action", "data", "poster"):
            assert (tag, name) == ("a", "href") and (value or "").startswith("#"), (tag, name, value)
    code = "".join(re.findall(r"<style>(.*?)</style>|<script>(.*?)</script>", page, re.DOTALL)[i][i] for i in (0, 1))
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|fetch\(|XMLHttpRequest|import\(|innerHTML", code)


def test_the_content_policy_names_exactly_the_style_and_the_script_inside(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy and "default-src 'none'" in policy[1] and "unsafe" not in policy[1]
    for tag in ("style", "script"):
        body = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert body
        digest = base64.b64encode(hashlib.sha256(body[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert not any(name == "style" or name.startswith("on") for _, name, _ in parse(page).attributes)


def test_what_comes_from_outside_is_escaped() -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror='alert(2)'>\"&"
    result = make_result(with_model=model(training_end_day=5, validation_end_day=10))
    result = result._replace(
        strategy=result.strategy | {"name": evil, "summary": evil, "params": {evil: evil}},
        symbols=(evil,),
        notes=[evil],
        versions={evil: evil},
        data=[result.data[0]._replace(symbol=evil, source=evil, venue=evil, sha256=evil, simulated=True)],
        models=[result.models[0]._replace(id=evil, version=evil, symbol=evil)],
        market_rules=[result.market_rules[0]._replace(symbol=evil, source=evil, date=evil)],
        segments=[*result.segments[:-1], result.segments[-1]._replace(name=evil)],
    )
    text = render_html(result)
    parsed = parse(text)
    assert "<img" not in text and "</script><" not in text
    assert parsed.scripts == 2
    assert not any(name.startswith("on") for _, name, _ in parsed.attributes)
    assert data_of(text)["symbols"][0]["name"] == evil
    assert text.count(html.escape(evil, quote=True)) >= 12


def test_the_data_holds_no_nan_even_where_a_trade_does(busy: BacktestResult) -> None:
    pnl = busy.trades.pnl.copy()
    pnl[3] = np.nan
    text = render_html(busy._replace(trades=replace(busy.trades, pnl=pnl, return_frac=pnl)))
    assert None in data_of(text)["symbols"][0]["trades"]["pnl"]


def test_the_candles_survive_packing(busy: BacktestResult, page: str) -> None:
    packed, c = data_of(page)["symbols"][0], busy.candles[0]
    body, wick_up, wick_down = (np.array(unpack(packed[name])) for name in ("close", "high", "low"))
    gap = np.array(unpack(packed["open"]))
    close = np.cumsum(gap + body)
    open_ = close - body
    unit = 10.0 ** packed["scale"]
    assert unpack_times(packed["time"]) == c.open_time.tolist()
    assert (open_ / unit).tolist() == c.open.tolist()
    assert (close / unit).tolist() == c.close.tolist()
    assert ((np.maximum(open_, close) + wick_up) / unit).tolist() == c.high.tolist()
    assert ((np.minimum(open_, close) - wick_down) / unit).tolist() == c.low.tolist()


def test_packed_integers_come_back() -> None:
    values = [0, 1, -1, 63, 64, -64, -65, 8191, 8192, 2**31, -(2**31) - 1, 2**40, -(2**52)]
    assert unpack(report_data.pack_ints(np.array(values))) == values
    assert report_data.pack_ints(np.array([], dtype=np.int64)) == ""
    assert unpack_steps(report_data.pack_steps(np.array(values))) == values


def test_times_with_a_hole_come_back() -> None:
    times = START_MS + 3_600_000 * np.array([0, 1, 2, 50, 51, 52])
    assert unpack_times(report_data.pack_times(times, 3_600_000)) == times.tolist()


def test_the_equity_curve_starts_at_the_balance_and_keeps_the_deepest_drawdown(busy: BacktestResult, page: str) -> None:
    packed = data_of(page)["equity"]
    equity = np.array(unpack_steps(packed["equity"])) / 10.0 ** packed["scale"]
    market = np.array(unpack_steps(packed["market"])) / 10.0 ** packed["scale"]
    fallen = np.array(unpack_steps(packed["drawdown"])) / 10.0 ** packed["drawdownScale"]
    assert equity[0] == market[0] == busy.initial_balance
    assert np.allclose(equity[1:], busy.run.equity, atol=0.005)
    assert np.allclose(market[1:], busy.market_equity, atol=0.005)
    assert fallen.max() == pytest.approx(busy.total.drawdown.depth, abs=1e-6)


def test_a_long_curve_is_thinned_without_losing_its_end_or_its_depth(
    busy: BacktestResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_data, "MAX_POINTS", 100)
    packed = report_data.chart_data(busy)["equity"]
    equity = np.array(unpack_steps(packed["equity"])) / 10.0 ** packed["scale"]
    fallen = np.array(unpack_steps(packed["drawdown"])) / 10.0 ** packed["drawdownScale"]
    assert packed["every"] == 20 and len(equity) == 101
    assert equity[-1] == pytest.approx(busy.total.end_equity, abs=0.005)
    assert fallen.max() == pytest.approx(busy.total.drawdown.depth, abs=1e-6)
    assert unpack_times(packed["time"])[-1] == START_MS + 2000 * 3_600_000


def test_long_series_are_aggregated_to_a_usual_timeframe() -> None:
    c = candles(1000)
    merged = report_data.aggregate(c, "1h", 3_600_000, 300)
    assert (merged.label, merged.merged, len(merged.open)) == ("4h", True, 250)
    assert merged.high.tolist() == c.high.reshape(250, 4).max(axis=1).tolist()
    assert merged.low.tolist() == c.low.reshape(250, 4).min(axis=1).tolist()
    assert merged.open.tolist() == c.open[::4].tolist() and merged.close.tolist() == c.close[3::4].tolist()
    assert merged.open_time.tolist() == c.open_time[::4].tolist()
    assert report_data.aggregate(c, "1h", 3_600_000, 1000).merged is False
    assert report_data.aggregate(c, "1h", 3_600_000, 3).label == "334 x 1h"


def test_fills_belong_to_their_trades(busy: BacktestResult, page: str) -> None:
    packed = data_of(page)["symbols"][0]
    fills, trades, lot = packed["fills"], packed["trades"], float(busy.market_rules[0].lot)
    assert len(fills["of"]) == len(busy.run.fills) and packed["tradesTotal"] == len(busy.trades)
    bought = np.zeros(len(busy.trades))
    np.add.at(bought, fills["of"], np.maximum(fills["qty"], 0.0))
    assert np.allclose(bought, busy.trades.qty[trades["row"]], atol=lot / 2)
    assert np.allclose(trades["pnl"], busy.trades.pnl[trades["row"]], rtol=1e-7)
    assert unpack_steps(trades["exitTime"]) == busy.line.open_time[busy.trades.exit_t[trades["row"]]].tolist()
    assert unpack_steps(fills["time"]) == busy.line.open_time[busy.run.fills["t"]].tolist()
    assert [data_of(page)["rules"][r] for r in fills["rule"]] == [
        RULE_NAMES[r].replace("_", " ") for r in busy.run.fills["rule"].tolist()
    ]


def test_only_the_first_trades_are_drawn_when_there_are_too_many(
    busy: BacktestResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_data, "MAX_TRADES", 100)
    packed = report_data.chart_data(busy)["symbols"][0]
    assert len(packed["trades"]["row"]) == 100 < packed["tradesTotal"] == len(busy.trades)
    assert packed["trades"]["row"] == np.argsort(busy.trades.entry_t, kind="stable")[:100].tolist()
    assert set(packed["fills"]["of"]) == set(range(100))


def test_the_trades_are_listed(busy: BacktestResult, page: str) -> None:
    rows = parse(page).rows["trades"]
    assert len(rows) == 1 + len(busy.trades)
    first, row = busy.trade_rows()[0], rows[1]
    assert row[0] == "1" and row[1] == first["symbol"]
    assert row[2] == first["entry_time"][:16].replace("T", " ") and row[3] == first["exit_time"][:16].replace("T", " ")
    assert row[5] == f"{first['qty_base']:.5f}"
    assert row[6] == f"{first['entry_price']:,.2f}" and row[9] == num(first["pnl"], plus=True)
    assert row[10] == pct(first["return_frac"], plus=True) and row[11] == first["exit_reason"].replace("_", " ")
    last_rules = {}
    for owner, fill in zip(report_data.trade_of_fill(busy).tolist(), busy.fill_rows(), strict=True):
        last_rules[owner] = fill["rule"].replace("_", " ")
    assert [r[12] for r in rows[1:]] == [last_rules[i] for i in range(len(busy.trades))]


def test_five_hundred_trades_are_listed_and_the_rest_is_said() -> None:
    result = make_result(candles(5200))
    rows = parse(text := render_html(result)).rows["trades"]
    assert len(result.trades) > 500 and len(rows) == 501
    assert f"The first 500 of {len(result.trades):,} trades" in text


def test_exits_and_rejections_add_up(busy: BacktestResult, page: str) -> None:
    exits = rows_of(page, "exits")
    exits.pop("Reason")
    assert sum(int(row[0]) for row in exits.values()) == len(busy.trades)
    total = sum(float(row[2].replace(",", "").replace("\u2212", "-")) for row in exits.values())
    assert total == pytest.approx(float(busy.trades.pnl.sum()), abs=0.02)
    rejected = rows_of(page, "rejected")
    rejected.pop("Reason")
    assert {k: int(v[0].replace(",", "")) for k, v in rejected.items()} == {
        k.replace("_", " "): v for k, v in busy.rejected().items()
    }
    assert all(row[-1] for row in (*exits.values(), *rejected.values())), "a reason without its sentence"


def test_ambiguous_candles_show_the_worst_and_the_best_outcome(busy: BacktestResult, page: str) -> None:
    rows = rows_of(page, "ambiguous")
    assert busy.best_case.ambiguous_exits > 0 and busy.best_case.end_equity != busy.total.end_equity
    assert rows["Worst (reported): the stop first"] == [
        num(busy.total.end_equity),
        pct(busy.total.total_return, plus=True),
    ]
    assert rows["Best: the take first"] == [num(busy.best_case.end_equity), pct(busy.best_case.total_return, plus=True)]


def test_best_and_worst_trades_lead_by_pnl(busy: BacktestResult, page: str) -> None:
    rows = [row for row in parse(page).rows["extremes"] if row[0] != "#"]
    order = np.argsort(-busy.trades.pnl, kind="stable")
    assert [int(row[0]) - 1 for row in rows] == [*order[:5].tolist(), *order[::-1][:5].tolist()]


def test_months_are_those_of_the_result_and_compound_to_the_year(busy: BacktestResult, page: str) -> None:
    months = rows_of(page, "months")["2024"]
    returns = [row["return_frac"] for row in busy.monthly_rows()]
    assert months[:3] == [format(r * 100, "+.1f").replace("-", "\u2212") for r in returns]
    assert months[3:12] == [""] * 9
    assert months[12] == format(busy.total.total_return * 100, "+.1f").replace("-", "\u2212")


def test_the_histogram_counts_every_trade_and_zero_is_an_edge(busy: BacktestResult, page: str) -> None:
    returns = busy.trades.return_frac[~busy.trades.open]
    counts, first, width, cut = report_histogram.histogram(returns)
    assert counts.sum() == len(returns)
    assert counts[: max(0, -first)].sum() == np.count_nonzero(returns < 0)
    drawn = [int(n.replace(",", "")) for n in re.findall(r"<title>[^<]* to [^<]*: ([\d,]+)</title>", page)]
    assert sum(drawn) == len(returns)
    outlier = report_histogram.histogram(np.append(returns, 5.0))
    assert outlier[3] and not cut and len(outlier[0]) < 100 and outlier[2] == width


def test_facts_are_all_there(busy: BacktestResult, page: str) -> None:
    rows = rows_of(page, "facts")
    facts = busy.data[0]
    assert facts.sha256 in page and busy.policy.digest() in rows["hash"][0]
    assert rows["stop loss"][0] == "2.00%" and rows["max open positions"][0] == "5"
    assert ["BTCUSDT", "basic", "2024-01", "2024-01-01", "2024-01-31", "2024-02-20"] in parse(page).rows["facts"]
    flat = [cell for row in parse(page).rows["facts"] for cell in row]
    rules = busy.market_rules[0]
    assert {facts.source, rules.source, rules.date, f"{rules.lot:f}", f"{rules.tick:f}", f"{facts.rows:,}"} <= set(flat)
    assert "10 (0.100% of each fill" in page and busy.versions["atb"] in page
    used = {RULE_NAMES[code].replace("_", " ") for code in set(busy.run.fills["rule"].tolist())}
    assert all(int(rows[name][0].replace(",", "")) > 0 and rows[name][1] for name in used)


def test_partial_exits_are_percentages() -> None:
    text = render_html(make_result(policy=BUSY | {"partial_exits": [[0.01, 0.5]]}))
    assert rows_of(text, "facts")["partial exits"][0] == "50% at +1.00%"
    assert "Partial exits:" in text


def test_several_symbols_share_one_chart_with_a_choice() -> None:
    text = render_html(make_result(candles(300), candles(200, seed=3, symbol="ETHUSDT")))
    assert '<option value="0">BTCUSDT</option><option value="1">ETHUSDT</option>' in text
    assert [len(unpack_times(s["time"])) for s in data_of(text)["symbols"]] == [300, 200]
    assert "<select" not in render_html(make_result())


def test_seventy_thousand_candles_stay_small() -> None:
    result = make_result(candles(70_000, spread=0.004), policy={"max_drawdown": 1.0})
    text = render_html(result)
    assert len(unpack_times(data_of(text)["symbols"][0]["time"])) == 70_000
    assert len(text) < 3_000_000


def test_numbers_are_written_for_people() -> None:
    assert number(-1234.5) == "\u22121,234.50" and number(float("nan")) == "n/a" and number(-0.001) == "0.00"
    assert percent(0.12345) == "12.35%" and percent(24.1387) == "2,414%" and percent(None) == "n/a"
    assert price(61234.5678) == "61,234.57" and price(0.0000123456) == "0.0000123456"
    assert hours(0.25) == "15.0 min" and hours(36) == "36.0 h" and hours(96) == "4.0 days"
    assert (money_decimals(10_000), money_decimals(1), money_decimals(0.05)) == (2, 6, 8)
    assert quantity(0.5, Decimal("0.00001")) == "0.50000" and quantity(1200, Decimal("1")) == "1,200"


def test_the_parts_of_the_script_ship_with_the_package() -> None:
    for name in (*report_html.SCRIPTS, "report.css"):
        assert (report_html.FOLDER / name).is_file()


@pytest.mark.skipif(CHROMIUM is None, reason="NO BROWSER: chromium not found, the report's script was NOT run")
@pytest.mark.parametrize("case", ["busy", "idle", "several"])
def test_a_browser_draws_it_without_errors(case: str, busy: BacktestResult, tmp_path: Path) -> None:
    result = busy
    if case == "idle":
        result = make_result(strategy=Idle)
    elif case == "several":
        result = make_result(candles(300), candles(200, seed=3, symbol="ETHUSDT"))
    dom, log = _open(render_html(result), tmp_path)
    assert 'data-ready="yes"' in dom, log
    assert "CONSOLE" not in log, log
    readouts = re.findall(r'class="readout"[^>]*>([^<]*)<', dom)
    last = result.candles[0].close[-1]
    assert f"Strategy\xa0{num(result.total.end_equity)}" in html.unescape(readouts[0])
    assert f"C\xa0{last:,.2f}" in html.unescape(readouts[1])


@pytest.mark.skipif(CHROMIUM is None, reason="NO BROWSER: chromium not found, the report's script was NOT run")
def test_a_broken_script_would_be_noticed(busy: BacktestResult, tmp_path: Path) -> None:
    text = render_html(busy).replace('id="data">{', 'id="data">{{', 1)
    dom, log = _open(text, tmp_path)
    assert 'data-ready="yes"' not in dom and "CONSOLE" in log


def _open(text: str, folder: Path) -> tuple[str, str]:
    """The page's DOM after its script ran, and the browser's log."""
    page = folder / "report.html"
    page.write_text(text, encoding="utf-8")
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--window-size=1200,900",
            "--virtual-time-budget=3000", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, done.stderr


# --- the terminal


def test_the_warning_about_the_training_s_own_candles_names_what_can_be_trusted() -> None:
    def warning(training_end_day: int, validation_end_day: int) -> str:
        dates = model(training_end_day=training_end_day, validation_end_day=validation_end_day)
        return sample_warning(make_result(candles(600), with_model=dates))

    assert warning(400, 500) == (
        "WARNING: all of this run lies in the model's own training data (IN-SAMPLE), and none is out-of-sample: no figure "
        "here is evidence. Use candles after 2025-05-15: --start 2025-05-15"
    )
    assert warning(10, 500).startswith("WARNING: part of this run lies")
    assert "none is out-of-sample" in warning(10, 500) and "--start 2025-05-15" in warning(10, 500)
    assert warning(10, 15).endswith("(IN-SAMPLE); trust the out-of-sample column.")
    assert sample_warning(make_result()) == ""


def test_the_chart_s_labels_are_the_highest_and_the_lowest_equity() -> None:
    equity = [10_000.0 + i % 7 for i in range(10_000)]
    equity[5_001], equity[7_003] = 15_432.1, 8_765.4  # between the candles that a sample would take
    columns = buckets(equity, 60)
    assert len(columns) == 60
    lines = chart(columns)
    assert lines[1].startswith("     15,432.10 ") and lines[-1].startswith("      8,765.40 ")
    assert lines[1].index("░") == 15 + 5_001 * 60 // 10_000  # the peak is drawn where it was
    assert lines[-1][15 + 7_003 * 60 // 10_000] == "░"  # and nothing is solid below the trough
    assert buckets([1.0, 3.0, 2.0], 60) == [Bucket(1.0, 1.0), Bucket(3.0, 3.0), Bucket(2.0, 2.0)]


def test_the_chart_in_ascii_has_no_other_character() -> None:
    assert "\n".join(chart(buckets([1.0, 5.0, 2.5, 4.0, 3.3, 9.0], 3), blocks=False)).isascii()
