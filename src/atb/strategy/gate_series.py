"""The series that the gate asks strategies about: real windows in another market, wild futures, other last candles.

Each of them leaves the `lookback_bars` candles that end with some t as they are, at their true times, and changes what
lies outside (or, to find a lag, the last candle alone).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from atb.engine.candles import COLUMNS, Candles, Floats, Ints

PRICES = ("open", "high", "low", "close")
WILD = (3.0, 0.3)  # factors for the market after a cut: what looks ahead cannot miss them
GAP = 128  # candles between two windows of a patchwork, at least
FAR = 256  # candles: the longest lookback for which the second gap is tried
PATCHWORK_ROWS = 16_384  # candles in one patchwork, about
CALM = 0.5  # share of a gap, from its start, in which the market stands still
SWING = 0.2  # of the price, either way, in the rest of it
NUDGES = (0.75, 0.9, 0.97, 1.03, 1.1, 1.25)  # factors for the prices of the last candle
SIDE_NUDGES = (-10.0, -3.0, -1.0, -0.3, 0.3, 1.0, 3.0, 10.0)  # times the usual size, added to a side series' last value
VOLUMES = (0.05, 20.0)  # and for its volume: a candle without trades would be another kind of candle


def wild_future(candles: Candles, cut: int, factor: float, lookback: int) -> Candles:
    """Rows up to `cut` as they are, and after them a market of `factor` times the prices and volumes, up and down.

    It also ends early, so that the number of candles differs and what lies far ahead is missing. Where it is dearer each
    candle stands still: factors alone leave the shape of a candle, by which a jump would still be known.
    """
    series = candles.window(0, min(len(candles), cut + 1 + 3 * lookback + GAP))
    after = np.arange(len(series) - cut - 1)
    factors = np.ones(len(series))
    factors[cut + 1 :] = factor * _swing(after)
    columns = {name: getattr(series, name) * factors for name in COLUMNS}
    for name in PRICES if factor > 1.0 else ():
        columns[name][cut + 1 :] = columns["close"][cut + 1 :]
    return series.replace({name: _wild(column, cut, factors) for name, column in series.sides.items()}, **columns)


def _wild(side: Floats, cut: int, factors: Floats) -> Floats:
    """A side series with what follows the cut moved: by factors, and by its size, since it may be 0, below it, or missing."""
    out = np.array(side)
    moved, after = np.nan_to_num(side[cut + 1 :]), factors[cut + 1 :]
    out[cut + 1 :] = moved * after + size_of(side) * (after - 1.0)
    return out


def size_of(side: Floats) -> float:
    """How large the numbers of a side series are; 1 where nothing tells."""
    known = np.abs(side[~np.isnan(side) & (side != 0.0)])
    return float(np.median(known)) if len(known) else 1.0


def patchwork_points(start: int, stop: int, lookback: int, gap: int, phases: int | None = None) -> Iterator[Ints]:
    """The t of one patchwork after another: together each t from start + lookback - 1 to stop - 1 once.

    `phases`: only so many of them, spread evenly.
    """
    first, period = start + lookback - 1, lookback + gap
    count = max(0, min(period, stop - first))
    for phase in range(count) if phases is None else spread(0, count, phases):
        points = np.arange(first + phase, stop, period)
        yield from np.array_split(points, -(-len(points) * period // PATCHWORK_ROWS))


def patchwork(candles: Candles, points: Ints, lookback: int) -> tuple[Ints, Candles]:
    """The windows that end at `points`, and foreign candles in the gaps between them. Also: the row of each point.

    The series begins with the first window and ends with the last. After each window the market first stands still at
    its close, then swings around the price of the next window.
    """
    start, rows = int(points[0]) - lookback + 1, points - points[0] + lookback - 1
    series = candles.window(start, int(points[-1]) + 1)
    if len(points) == 1:
        return rows, series
    gap = int(points[1] - points[0]) - lookback
    holes = (rows[:-1, None] + np.arange(1, gap + 1)).ravel()
    foreign = _foreign(series, rows[:-1], gap)
    columns = {}
    for name in COLUMNS:
        columns[name] = np.array(getattr(series, name))
        columns[name][holes] = foreign[name].ravel()
    sides = {name: np.array(column) for name, column in series.sides.items()}
    for column in sides.values():
        column[holes] = _foreign_side(column, rows[:-1], gap).ravel()
    return rows, series.replace(sides, **columns)


def gaps_of(lookback: int) -> tuple[int, ...]:
    """Candles between two windows of a patchwork.

    A far look-ahead may reach over the gap into the next window, which is real. The second, wider gap is where that is:
    together they hide the next lookback + 256 candles at least. For a long lookback it would cost too much.
    """
    gap = max(GAP, lookback // 4)
    return (gap, gap + lookback + 1) if lookback <= FAR else (gap,)


def _foreign(series: Candles, ends: Ints, gap: int) -> dict[str, Floats]:
    """The columns of the gaps after `ends`, float64[len(ends), gap]."""
    calm = np.arange(gap) < CALM * gap
    swing = _swing(np.arange(gap))
    close = np.where(calm, series.close[ends, None], series.open[ends + gap + 1, None] * swing)
    reach = np.where(calm, 1.0, 1.0 + SWING / 4)
    volume = np.where(calm, series.volume[ends, None], series.volume[ends + gap + 1, None] * swing)
    return {"open": close, "high": close * reach, "low": close / reach, "close": close, "volume": volume}


def _foreign_side(side: Floats, ends: Ints, gap: int) -> Floats:
    """A side series in the gaps, float64[len(ends), gap]: as it was, then up and down around what it is next."""
    then = np.nan_to_num(side[ends + gap + 1, None])
    moved = then + (size_of(side) + np.abs(then)) * (_swing(np.arange(gap)) - 1.0) / SWING
    return np.where(np.arange(gap) < CALM * gap, side[ends, None], moved)


def _swing(places: Ints) -> Floats:
    """Factors from 1 - SWING to 1 + SWING without a pattern to speak of."""
    return np.asarray(1.0 + SWING * ((places * 7919) % 13 - 6) / 6)


def nudged(window: Candles) -> Iterator[Candles]:
    """The window with another last candle: higher, lower, closing elsewhere, with more volume, with less."""
    for factor in NUDGES:
        yield window.replace(**{name: _with_last(window, name, factor) for name in PRICES})
    for name in ("open", "high", "low"):
        close = np.array(window.close)
        close[-1] = getattr(window, name)[-1]
        yield window.replace(close=close)
    for factor in VOLUMES:
        yield window.replace(volume=_with_last(window, "volume", factor))
    for name, side in window.sides.items():
        for change in SIDE_NUDGES:
            column = np.array(side)
            column[-1] = np.nan_to_num(side[-1]) + change * size_of(side)
            yield window.replace({**window.sides, name: column})


def _with_last(window: Candles, name: str, factor: float) -> npt.NDArray[np.float64]:
    column = np.array(getattr(window, name))
    column[-1] *= factor
    return column


def another_market(candles: Candles) -> Candles:
    """The same times with the prices, volumes and side series of other times."""
    half = len(candles) // 2
    sides = {name: np.roll(column, half) for name, column in candles.sides.items()}
    return candles.replace(sides, **{name: np.roll(getattr(candles, name), half) for name in COLUMNS})


def spread(start: int, stop: int, count: int) -> Ints:
    """Up to `count` positions from start to stop - 1, ends included, the same ones each time."""
    return np.unique(np.linspace(start, stop - 1, min(count, max(0, stop - start))).astype(np.int64))
