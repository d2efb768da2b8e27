"""How good a stored series is: what is missing and why, what looks wrong, and what another exchange says of the same time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from atb.core.timeframe import timeframe_ms
from atb.data.corrections import Correction, read
from atb.data.layout import SeriesKey
from atb.data.store import CandleStore
from atb.data.validation import Gap, assess
from atb.engine.candles import Candles, Floats

BLOCK = 500  # candles, whose median move is what is usual for the next so many
FAR = 25.0  # such moves: beyond it a candle is an outlier
MOST = 20  # outliers that are kept, the largest first


class Outlier(NamedTuple):
    """A candle that moved much farther than those before it. what: move, upper wick, lower wick; share: of the close before;
    times: how many usual moves that is."""

    open_ms: int
    what: str
    share: float
    times: float


class Disagreement(NamedTuple):
    """The closes of the same candles at another exchange. bps: basis points of the price, without their sign."""

    venue: str
    symbol: str
    candles: int
    median_bps: float
    p99_bps: float
    worst_bps: float
    worst_ms: int
    correlation: float  # of the moves from close to close


class Report(NamedTuple):
    """gaps: that the exchange has itself; not_fetched: ranges (ms) that nobody asked for; repeated: candles that several parts
    hold, the same each time. outliers: how many, and the largest."""

    rows: int
    first_ms: int
    last_ms: int
    gaps: list[Gap]
    missing: int
    not_fetched: list[tuple[int, int]]
    not_fetched_candles: int
    completeness: float
    zero_volume: int
    repeated: int
    outliers: int
    largest: list[Outlier]
    corrections: list[Correction]
    others: list[Disagreement]


def report(store: CandleStore, key: SeriesKey, others: list[SeriesKey]) -> Report | None:
    """None where nothing is stored. others: the same asset elsewhere, as far as that is stored."""
    candles = store.read(key)
    if candles is None:
        return None
    step = timeframe_ms(key.timeframe)
    first, end = int(candles.open_time[0]), int(candles.open_time[-1]) + step
    unasked = store.missing_ranges(key, first, end)
    gaps = _without(assess(candles).gaps, unasked, step)
    not_fetched = sum(-((low - high) // step) for low, high in unasked)
    missing = sum(gap.missing for gap in gaps)
    found = outliers(candles)
    return Report(
        len(candles), first, end - step, gaps, missing, unasked, not_fetched,
        len(candles) / (len(candles) + missing + not_fetched), int(np.count_nonzero(candles.volume == 0)),
        _stored(store, key) - len(candles), len(found), sorted(found, key=lambda o: -o.times)[:MOST],
        read(store, key), [each for other in others if (each := _compared(candles, store, other)) is not None],
    )  # fmt: skip


def outliers(candles: Candles) -> list[Outlier]:
    """By the median absolute move of the block of candles before: robust against the outliers themselves."""
    close = candles.close
    if len(close) < BLOCK + 1:
        return []
    before = close[:-1]
    top = np.maximum(candles.open, candles.close)[1:]
    bottom = np.minimum(candles.open, candles.close)[1:]
    usual = _usual(np.abs(np.diff(close)) / before)
    shares = {
        "move": np.diff(close) / before,
        "upper wick": (candles.high[1:] - top) / before,
        "lower wick": (candles.low[1:] - bottom) / before,
    }
    found = []
    for what, share in shares.items():
        times = np.abs(share) / usual
        for i in np.flatnonzero(times > FAR):
            found.append(Outlier(int(candles.open_time[i + 1]), what, float(share[i]), float(times[i])))  # noqa: PERF401
    return found


def _usual(moves: Floats) -> Floats:
    """For each move the median of the block before its own; for the first block its own."""
    blocks = [moves[i : i + BLOCK] for i in range(0, len(moves), BLOCK)]
    medians = np.array([np.median(block) for block in blocks])
    known = np.concatenate([medians[:1], medians[:-1]])
    known = np.maximum(known, np.median(moves) / 10)  # a market that stood still makes no outlier of each later move
    repeated = np.repeat(known, [len(block) for block in blocks])
    return np.asarray(np.maximum(repeated, np.finfo(float).tiny))


def _without(gaps: list[Gap], unasked: list[tuple[int, int]], step: int) -> list[Gap]:
    """The gaps that are the exchange's own: what nobody asked for is cut out of them."""
    left = []
    for gap in gaps:
        end = gap.start_ms + gap.missing * step
        lost = sum(max(0, min(end, high) - max(gap.start_ms, low)) for low, high in unasked)
        if gap.missing - lost // step > 0:
            left.append(Gap(gap.start_ms, gap.missing - lost // step))
    return left


def _stored(store: CandleStore, key: SeriesKey) -> int:
    return sum(store.facts(part).rows for part in store.parts(key))


def _compared(candles: Candles, store: CandleStore, other: SeriesKey) -> Disagreement | None:
    theirs = store.read(other, int(candles.open_time[0]), int(candles.open_time[-1]) + 1)
    if theirs is None:
        return None
    times, mine, their = np.intersect1d(candles.open_time, theirs.open_time, assume_unique=True, return_indices=True)
    if len(times) < 3:
        return None
    a, b = candles.close[mine], theirs.close[their]
    bps = 20_000 * np.abs(a - b) / (a + b)
    worst = int(np.argmax(bps))
    moves = np.diff(np.log(a)), np.diff(np.log(b))
    still = not (moves[0].any() and moves[1].any())
    correlation = float("nan") if still else float(np.corrcoef(*moves)[0, 1])
    return Disagreement(
        other.venue, other.symbol, len(times), float(np.median(bps)), float(np.quantile(bps, 0.99)), float(bps[worst]),
        int(times[worst]), correlation,
    )  # fmt: skip
