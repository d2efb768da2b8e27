"""What a backtest found, and its form as a dictionary (docs/json.md): the same for --json, the report and the tests."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from atb.core.policy import Policy
from atb.core.timeframe import DAY_MS, iso, iso_date
from atb.core.types import MarketRules
from atb.engine.candles import Candles, Floats
from atb.engine.metrics import Curve, Drawdown, TradeStats, daily_equity, max_drawdown
from atb.engine.reasons import FIRST_REFUSAL, REASON_NAMES, RULE_NAMES
from atb.engine.simulation import Run, Timeline
from atb.engine.trades import Trades

SCHEMA = 1


class DataFacts(NamedTuple):
    """One symbol's candles: where they came from and what was wrong with them. sides: of each side series beside them, at how
    many candles it has no value, and the sha256 of its values."""

    symbol: str
    venue: str
    source: str
    simulated: bool
    rows: int
    first: str
    last: str
    gaps: int
    missing_candles: int
    missing_share: float
    largest_gap_candles: int
    zero_volume_candles: int
    history_candles: int
    sha256: str
    sides: dict[str, dict[str, Any]]


class ModelFacts(NamedTuple):
    """The model behind a symbol's signals and the dates that split its history."""

    symbol: str
    id: str
    version: str
    training_start: str
    training_end: str
    validation_end: str


class Statistics(NamedTuple):
    """docs/statistics.md defines each. Fractions, not percent; None for n/a."""

    start: str
    end: str
    days: float
    start_equity: float
    end_equity: float
    total_return: float
    market_change: float
    cagr: float | None
    sharpe: float | None
    sortino: float | None
    calmar: float | None
    volatility: float | None
    drawdown: Drawdown
    trades: TradeStats
    open_trades: int
    exposure: float | None
    turnover: float
    fees: float
    best_day: float | None
    worst_day: float | None


class Segment(NamedTuple):
    """A stretch of the run: in_sample, validation or out_of_sample of a model; `all` where there is none."""

    name: str
    statistics: Statistics


class BestCase(NamedTuple):
    """Ambiguous candles: exits that hang on the order of stop and take, and the result had it been the take each time."""

    ambiguous_exits: int
    end_equity: float
    total_return: float


class Halt(NamedTuple):
    """A drawdown halt: when, and how deep."""

    time: str
    drawdown: float

    @property
    def message(self) -> str:
        return f"Maximum drawdown exceeded ({self.drawdown:.1%}). Stopping backtest."


class BacktestResult(NamedTuple):
    """Everything about one run. `candles`, `line`, `run` and `trades` are the arrays, the rest are facts for people."""

    strategy: dict[str, Any]
    symbols: tuple[str, ...]
    timeframe: str
    initial_balance: float
    costs: dict[str, float]
    policy: Policy
    market_rules: list[MarketRules]
    data: list[DataFacts]
    models: list[ModelFacts]
    notes: list[str]
    versions: dict[str, str]
    segments: list[Segment]
    best_case: BestCase
    halt: Halt | None
    candles: list[Candles]
    line: Timeline
    run: Run
    trades: Trades
    curve: Curve
    market_equity: Floats  # buy and hold without costs, quote, one value a row of the run
    timing: dict[str, Any]

    @property
    def simulated(self) -> bool:
        return any(d.simulated for d in self.data)

    @property
    def total(self) -> Statistics:
        return self.segments[0].statistics

    def decisions(self) -> dict[str, int]:
        """How many decisions had which reason; refusals of a halted account count as drawdown_halt."""
        out: dict[str, int] = {}
        for code, count in enumerate(self.run.decisions.tolist()):
            if count:
                out[REASON_NAMES[code]] = out.get(REASON_NAMES[code], 0) + count
        return out

    def rejected(self) -> dict[str, int]:
        """Signals that asked for an entry and were refused, by reason."""
        counts = self.run.decisions.tolist()
        return {REASON_NAMES[code]: counts[code] for code in range(FIRST_REFUSAL, len(counts)) if counts[code]}

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON object; everything in it but "timing" is the same for the same input."""
        return {
            "schema": SCHEMA,
            "simulated": self.simulated,
            "strategy": self.strategy,
            "symbols": list(self.symbols),
            "timeframe": self.timeframe,
            "initial_balance": self.initial_balance,
            "costs": self.costs,
            "policy": self.policy.as_dict() | {"hash": self.policy.digest()},
            "market_rules": [_rules_dict(rules) for rules in self.market_rules],
            "data": [facts._asdict() for facts in self.data],
            "models": [facts._asdict() for facts in self.models],
            "notes": self.notes,
            "versions": self.versions,
            "halt": None if self.halt is None else self.halt._asdict() | {"message": self.halt.message},
            "statistics": statistics_dict(self.total),
            "segments": [{"name": s.name, "statistics": statistics_dict(s.statistics)} for s in self.segments[1:]],
            "decisions": self.decisions(),
            "rejected_signals": self.rejected(),
            "best_case": self.best_case._asdict(),
            "trades": self.trade_rows(),
            "fills": self.fill_rows(),
            "daily_equity": self.daily_rows(),
            "monthly_returns": self.monthly_rows(),
            "timing": self.timing,
        }

    def logged(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The run and its trades as a database keeps them (ledger/backtests.py); an open trade ends with the run."""
        import json

        end = iso(int(self.line.open_time[self.run.rows - 1]) + self.curve.length_ms)
        run = {
            "strategy": self.strategy["name"], "symbols": " ".join(self.symbols), "timeframe": self.timeframe,
            "start_time": iso(self.line.open_time[0]), "end_time": end, "initial_balance": self.initial_balance,
            "final_balance": self.curve.end, "max_drawdown": max_drawdown(self.curve).depth,
            "config_hash": self.policy.digest(), "result": json.dumps(self.to_dict(), allow_nan=False),
        }  # fmt: skip
        trades = [
            {**row, "size": row["qty_base"], "side": row["side"].upper(), "exit_time": row["exit_time"] or end}
            for row in self.trade_rows()
        ]
        return run, trades

    def trade_rows(self) -> list[dict[str, Any]]:
        """Trades in order of exit. Times are open times of the candles of the first and the last fill."""
        t, times = self.trades, self.line.open_time
        return [
            {
                "symbol": self.symbols[t.symbol[i]],
                "side": "long",
                "entry_time": iso(times[t.entry_t[i]]),
                "exit_time": None if t.open[i] else iso(times[t.exit_t[i]]),
                "qty_base": float(t.qty[i]),
                "entry_price": float(t.entry_price[i]),
                "exit_price": float(t.exit_price[i]),
                "fees": float(t.fees[i]),
                "pnl": float(t.pnl[i]),
                "return_frac": float(t.return_frac[i]),
                "exit_reason": "open" if t.open[i] else REASON_NAMES[int(t.reason[i])],
                "ambiguous": bool(t.ambiguous[i]),
            }
            for i in range(len(t))
        ]

    def fill_rows(self) -> list[dict[str, Any]]:
        """Fills in the order in which they were made; `time` is the open time of their candle."""
        lots = [float(rules.lot) for rules in self.market_rules]
        return [
            {
                "symbol": self.symbols[s],
                "time": iso(self.line.open_time[t]),
                "side": "buy" if qty > 0 else "sell",
                "lots": abs(qty),
                "qty_base": abs(qty) * lots[s],
                "price": price,
                "fee": fee,
                "reason": REASON_NAMES[reason],
                "rule": RULE_NAMES[rule],
            }
            for t, s, qty, price, fee, reason, rule in self.run.fills.tolist()
        ]

    def daily_rows(self) -> list[dict[str, Any]]:
        """Equity at the last close of each UTC day."""
        days, equity = daily_equity(self.curve)
        return [
            {"date": iso_date(day * DAY_MS), "equity": e} for day, e in zip(days.tolist(), equity.tolist(), strict=True)
        ]

    def monthly_rows(self) -> list[dict[str, Any]]:
        """Return of each calendar month (the first and the last may be parts of one), from daily equity."""
        rows: list[dict[str, Any]] = []
        before = self.initial_balance
        last = before
        for row in self.daily_rows():
            month = row["date"][:7]
            if not rows or rows[-1]["month"] != month:
                before = last
                rows.append({"month": month, "return_frac": 0.0})
            last = row["equity"]
            rows[-1]["return_frac"] = last / before - 1.0
        return rows


def statistics_dict(statistics: Statistics) -> dict[str, Any]:
    """Statistics with the drawdown and the trades spelled out."""
    d = statistics.drawdown
    return statistics._asdict() | {
        "drawdown": {
            "depth": d.depth,
            "peak": iso(d.peak_ms),
            "trough": iso(d.trough_ms),
            "recovered": None if d.recovered_ms is None else iso(d.recovered_ms),
            "duration_days": d.duration_days,
        },
        "trades": statistics.trades._asdict(),
    }


def _rules_dict(rules: MarketRules) -> dict[str, str]:
    """Steps as exact text without an exponent."""
    return {n: f"{value:f}" if isinstance(value, Decimal) else value for n, value in rules._asdict().items()}


def market_curve(line: Timeline, rows: int, initial_balance: float) -> Floats:
    """Equal shares of the balance in each symbol from its first open on, marked at each close, without costs."""
    n = line.symbols
    total = np.zeros(rows)
    for s in range(n):
        close = line.columns["close"][s][:rows]
        open_ = line.columns["open"][s][:rows]
        present = ~np.isnan(close)
        if not present.any():
            total += initial_balance / n
            continue
        first = int(np.argmax(present))
        last_seen = np.maximum.accumulate(np.where(present, np.arange(rows), -1))
        value = np.where(last_seen >= 0, close[np.maximum(last_seen, first)] / open_[first], 1.0)
        total += initial_balance / n * value
    return total
