"""What the report's charts draw, packed: whole numbers as base64 of variable-length integers, about 10 bytes a candle.

`report_base.js` holds the other half. All numbers of a series are whole multiples of 10**-scale and stored as steps
from one to the next; of times, what each step is longer than the usual one.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from atb.backtest.report_format import money_decimals, parse_ms
from atb.backtest.result import BacktestResult
from atb.core.timeframe import TIMEFRAMES, timeframe_ms
from atb.engine.candles import Candles, Floats, Ints, decimal_scale
from atb.engine.reasons import REASON_NAMES, RULE_NAMES

MAX_CANDLES = 100_000  # of all symbols together; longer series are aggregated
MIN_CANDLES = 4_000  # of one symbol, however many symbols there are
MAX_POINTS = 6_000  # of the equity chart
MAX_TRADES = 10_000  # drawn into the candles, of all symbols together
PRICE_DIGITS = 6
MONEY_DIGITS = 6
DRAWDOWN_SCALE = 6


class Series(NamedTuple):
    """Candles as drawn: `length_ms` each, named `label`; `merged`: made from the run's own, shorter ones."""

    label: str
    length_ms: int
    merged: bool
    open_time: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats


def chart_data(result: BacktestResult) -> dict[str, Any]:
    """Everything the charts need, without a NaN in it."""
    share = max(MIN_CANDLES, MAX_CANDLES // len(result.symbols))
    trades_share = max(100, MAX_TRADES // len(result.symbols))
    return {
        "decimals": money_decimals(result.initial_balance),
        "segments": segment_spans(result),
        "equity": _equity_data(result),
        "reasons": list_names(REASON_NAMES),
        "rules": list_names(RULE_NAMES),
        "symbols": [_symbol_data(result, s, share, trades_share) for s in range(len(result.symbols))],
    }


def list_names(names: dict[int, str]) -> list[str]:
    """Names by code, with blanks where a code is not used."""
    return [names.get(code, "").replace("_", " ") for code in range(max(names) + 1)]


def segment_spans(result: BacktestResult) -> list[dict[str, Any]]:
    """The stretches of the run by name, with their times in ms; none where the run has only one."""
    spans = []
    for segment in result.segments[1:]:
        start, end = parse_ms(segment.statistics.start), parse_ms(segment.statistics.end)
        if start is not None and end is not None:
            spans.append({"name": segment.name, "start": start, "end": end})
    return spans


def trade_of_fill(result: BacktestResult) -> Ints:
    """The index into `result.trades` of each fill of the run. Trades of one symbol never overlap."""
    fills, trades = result.run.fills, result.trades
    owner = np.zeros(len(fills), dtype=np.int64)
    for s in range(len(result.symbols)):
        mine = np.flatnonzero(trades.symbol == s)
        mine = mine[np.argsort(trades.entry_t[mine], kind="stable")]
        here = fills["symbol"] == s
        owner[here] = mine[np.searchsorted(trades.entry_t[mine], fills["t"][here], side="right") - 1]
    return owner


def drawdowns(result: BacktestResult) -> Floats:
    """Fall from the highest equity so far at each close, a fraction (the initial balance counts as the first)."""
    equity = result.run.equity
    peaks = np.maximum(np.maximum.accumulate(equity), result.initial_balance)
    fallen: Floats = 1.0 - equity / peaks
    return fallen


def _equity_data(result: BacktestResult) -> dict[str, Any]:
    """Equity and market at each point, the start being the first, and the deepest drawdown since the point before."""
    rows = result.run.rows
    every = max(1, -(-rows // MAX_POINTS))
    starts = np.arange(0, rows, every)
    ends = np.append(starts[1:], rows) - 1
    close_time = result.line.open_time[:rows] + result.curve.length_ms
    times = np.concatenate([result.line.open_time[:1], close_time[ends]])
    scale = max(0, MONEY_DIGITS - math.floor(math.log10(result.initial_balance)))
    begin = [result.initial_balance]
    return {
        "every": every,
        "scale": scale,
        "drawdownScale": DRAWDOWN_SCALE,
        "time": pack_times(times, every * result.curve.length_ms),
        "equity": pack_steps(_whole(np.concatenate([begin, result.run.equity[ends]]), scale)),
        "market": pack_steps(_whole(np.concatenate([begin, result.market_equity[ends]]), scale)),
        "drawdown": pack_steps(_whole(np.append(0.0, np.maximum.reduceat(drawdowns(result), starts)), DRAWDOWN_SCALE)),
    }


def _symbol_data(result: BacktestResult, s: int, max_candles: int, max_trades: int) -> dict[str, Any]:
    candles = result.candles[s]
    last = int(result.line.open_time[result.run.rows - 1])
    shown = candles.window(0, int(np.searchsorted(candles.open_time, last, side="right")))
    series = aggregate(shown, result.timeframe, result.curve.length_ms, max_candles)
    return {"name": result.symbols[s]} | _candle_data(series) | _trade_data(result, s, max_trades)


def aggregate(candles: Candles, timeframe: str, length_ms: int, most: int) -> Series:
    """At most about `most` candles: those given, or of the shortest timeframe of which so few cover the same time."""
    columns = (candles.open, candles.high, candles.low, candles.close)
    if len(candles) <= most:
        return Series(timeframe, length_ms, False, candles.open_time, *columns)
    covered = int(candles.open_time[-1] - candles.open_time[0]) + length_ms
    label, length = _longer(timeframe, length_ms, covered / most)
    group = candles.open_time // length
    starts = np.flatnonzero(np.append(True, np.diff(group) != 0))
    ends = np.append(starts[1:], len(candles)) - 1
    high, low = np.maximum.reduceat(candles.high, starts), np.minimum.reduceat(candles.low, starts)
    return Series(label, length, True, group[starts] * length, candles.open[starts], high, low, candles.close[ends])


def _longer(timeframe: str, length_ms: int, at_least_ms: float) -> tuple[str, int]:
    """The shortest usual timeframe of at least that length that is made of whole candles; else a plain multiple."""
    for name in TIMEFRAMES[:-2]:  # weeks and months have an anchor of their own
        length = timeframe_ms(name)
        if length >= at_least_ms and length % length_ms == 0:
            return name, length
    times = math.ceil(at_least_ms / length_ms)
    return f"{times} x {timeframe}", times * length_ms


def _candle_data(series: Series) -> dict[str, Any]:
    prices = [series.open, series.high, series.low, series.close]
    lowest = max(float(np.min(series.low)), 1e-12) if len(series.low) else 1.0
    fine = max(0, PRICE_DIGITS - math.floor(math.log10(lowest)))
    scale = min(fine, decimal_scale(lambda: prices))
    open_, high, low, close = (_whole(column, scale) for column in prices)
    before = np.append(0, close[:-1])
    return {
        "label": series.label,
        "merged": series.merged,
        "step": series.length_ms,
        "scale": scale,
        "time": pack_times(series.open_time, series.length_ms),
        "open": pack_ints(open_ - before),
        "high": pack_ints(high - np.maximum(open_, close)),
        "low": pack_ints(np.minimum(open_, close) - low),
        "close": pack_ints(close - open_),
    }


def _trade_data(result: BacktestResult, s: int, most: int) -> dict[str, Any]:
    """The symbol's first `most` trades in order of entry, and their fills: fill i belongs to trade `of[i]`."""
    trades, times = result.trades, result.line.open_time
    mine = np.flatnonzero(trades.symbol == s)
    total = len(mine)
    mine = mine[np.argsort(trades.entry_t[mine], kind="stable")][:most]
    place = np.full(len(trades), -1)
    place[mine] = np.arange(len(mine))
    of = place[trade_of_fill(result)] if len(trades) else np.zeros(0, dtype=np.int64)
    kept = np.flatnonzero((result.run.fills["symbol"] == s) & (of >= 0))
    fills = result.run.fills[kept]
    lot = float(result.market_rules[s].lot)
    return {
        "tradesTotal": total,
        "trades": {
            "row": mine.tolist(),
            "entryTime": pack_steps(times[trades.entry_t[mine]]),
            "exitTime": pack_steps(times[trades.exit_t[mine]]),
            "entryPrice": _short(trades.entry_price[mine]),
            "exitPrice": _short(trades.exit_price[mine]),
            "pnl": _short(trades.pnl[mine]),
            "return": _short(trades.return_frac[mine]),
            "open": trades.open[mine].astype(int).tolist(),
        },
        "fills": {
            "of": of[kept].tolist(),
            "time": pack_steps(times[fills["t"]]),
            "price": _short(fills["price"]),
            "qty": _short(fills["qty"] * lot),
            "reason": fills["reason"].tolist(),
            "rule": fills["rule"].tolist(),
        },
    }


def pack_times(times: Ints, step: int) -> dict[str, Any]:
    """Times that are mostly `step` apart: the first one, and how much longer than that each step is."""
    first = int(times[0]) if len(times) else 0
    return {"first": first, "step": step, "longer": pack_ints(np.diff(times, prepend=first - step) - step)}


def pack_steps(values: Ints) -> str:
    """The first value and the steps between values, packed."""
    return pack_ints(np.diff(values, prepend=0))


def pack_ints(values: npt.NDArray[Any]) -> str:
    """Signed integers as base64 of zigzag LEB128: 7 bits a byte, lowest first, the high bit set in all but the last."""
    signed = np.asarray(values, dtype=np.int64)
    left = ((signed << 1) ^ (signed >> 63)).astype(np.uint64)
    size = np.ones(len(left), dtype=np.int64)
    for k in range(1, 10):
        size += left >= np.uint64(1) << np.uint64(7 * k)
    at = np.cumsum(size) - size
    out = np.zeros(int(size.sum()), dtype=np.uint8)
    for k in range(int(size.max(initial=0))):
        has = size > k
        more = np.where(size[has] > k + 1, 128, 0)
        out[at[has] + k] = ((left[has] >> np.uint64(7 * k)) & np.uint64(127)) | more.astype(np.uint64)
    return base64.b64encode(out.tobytes()).decode("ascii")


def _whole(values: Floats, scale: int) -> Ints:
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    return np.rint(finite * 10.0**scale).astype(np.int64)


def _short(values: Floats) -> list[float | None]:
    """Floats with eight significant digits, None for what is not finite."""
    return [float(f"{v:.8g}") if math.isfinite(v) else None for v in _listed(values)]


def _listed(values: Floats) -> Sequence[float]:
    listed: list[float] = values.tolist()
    return listed
