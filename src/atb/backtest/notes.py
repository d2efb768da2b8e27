"""The remarks of a run: what its reader should know about the candles, the rules and the strategy's file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from atb.backtest.request import Request
from atb.backtest.sides import side_facts
from atb.backtest.sources import Source
from atb.core.timeframe import iso, timeframe_ms
from atb.core.types import MarketRules
from atb.core.words import are, counted
from atb.data.validation import Quality
from atb.engine.candles import Candles, Floats
from atb.engine.simulation import Timeline
from atb.strategy.contract import Strategy
from atb.strategy.loader import StrategyFile
from atb.strategy.signals import lookback_of
from atb.venue.market_rules import remark


class Prepared(NamedTuple):
    """One symbol, ready to run: `candles` with history, of which the run begins at `first`."""

    source: Source
    strategy: Strategy
    candles: Candles
    first: int
    signals: Floats
    quality: Quality


def notes_of_run(
    file: StrategyFile, prepared: Sequence[Prepared], rules: Sequence[MarketRules], line: Timeline, request: Request
) -> list[str]:
    """All remarks, in the order in which they are shown."""
    notes = [f"{file.path} ran, not the {file.name} that comes with atb."] if file.shadows else []
    for p in prepared:
        notes += _quality_notes(p, line, request)
    for p, told in zip(prepared, rules, strict=True):
        notes += filter(None, [remark(told, "" if p.source.simulated else p.source.rules_venue)])
    if any(p.source.simulated for p in prepared) and any(p.strategy.model is not None for p in prepared):
        notes.append(
            "The model was trained on real candles; what it does on simulated ones says nothing about its worth."
        )
    return notes


def _quality_notes(p: Prepared, line: Timeline, request: Request) -> list[str]:
    name, q = p.source.symbol.id, p.quality
    notes = []
    if q.missing_share > request.max_gap_share:
        notes.append(f"{name}: {q.missing_share:.1%} of the candles are missing (allowed).")
    if q.zero_volume:
        notes.append(f"{name}: {counted(q.zero_volume, 'candle')} without volume; fills there are doubtful.")
    for series, facts in side_facts(p.candles.window(p.first, len(p.candles))).items():
        if facts["missing"]:
            notes.append(f"{name}: {series} has no value at {facts['missing']:,} of {counted(q.rows, 'candle')}.")
    missing = lookback_of(p.strategy) - 1 - p.first
    if missing > 0:
        which = "first candle" if missing == 1 else f"first {missing:,} candles"
        notes.append(f"{name}: too little history before the range; the {which} {are(missing)} warm-up.")
    return notes + _edge_notes(p, line, request)


def _edge_notes(p: Prepared, line: Timeline, request: Request) -> list[str]:
    """Say where a symbol's candles do not reach as far as was asked for, or as far as those of the others."""
    name, q, span, length_ms = p.source.symbol.id, p.quality, request.span, timeframe_ms(p.source.timeframe)
    start, end = p.source.span()
    begins = min(start, int(line.open_time[0]), start if span.start_ms is None else span.start_ms)
    ends = max(end, int(line.open_time[-1]) + length_ms, end if span.end_ms is None else span.end_ms)
    notes = []
    if q.first_ms - begins > length_ms:
        notes.append(f"{name}: its candles begin at {iso(q.first_ms)}, not at {iso(begins)}.")
    if ends - q.last_ms > 2 * length_ms:
        notes.append(
            f"{name}: its candles end at {iso(q.last_ms + length_ms)}, not at {iso(ends)}; what is held then stays at its "
            "last price."
        )
    return notes
