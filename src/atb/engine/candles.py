"""Candles: what a strategy sees. One symbol, one timeframe, contiguous read-only columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from atb.core.errors import StrategyError, nearest

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

COLUMNS = ("open", "high", "low", "close", "volume")
MAX_SCALE = 10  # decimal places that an exact column keeps
MAX_EXACT = float(2**53)
NO_SIDES: Mapping[str, Floats] = MappingProxyType({})


class Candles:
    """Closed candles in order of time.

    open_time: int64[n], ms UTC. open, high, low, close (quote per base), volume (base): float64[n]. `price_scale` and
    `volume_scale` are the series' own decimal places: `exact("close")` is `close * 10**price_scale` as int64, the
    base of rolling sums that are exact wherever they start. `price_exact` tells whether no price needed rounding for that.
    `sides`: the side series that a strategy declares, each as of the close of its candle (sides.py).
    """

    symbol: str
    timeframe: str
    open_time: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    price_scale: int | None
    volume_scale: int | None
    sides: Mapping[str, Floats]

    __slots__ = (
        "symbol",
        "timeframe",
        "open_time",
        *COLUMNS,
        "price_scale",
        "volume_scale",
        "sides",
        "_exact",
        "_step",
    )

    def __init__(
        self,
        symbol: str,
        timeframe: str,
        open_time: Ints,
        open: Floats,
        high: Floats,
        low: Floats,
        close: Floats,
        volume: Floats,
        *,
        price_scale: int | None = None,
        volume_scale: int | None = None,
        sides: Mapping[str, Floats] = NO_SIDES,
    ) -> None:
        self.symbol = symbol
        self.timeframe = timeframe
        self.open_time = _read_only(open_time, np.int64)
        self.open = _read_only(open, np.float64)
        self.high = _read_only(high, np.float64)
        self.low = _read_only(low, np.float64)
        self.close = _read_only(close, np.float64)
        self.volume = _read_only(volume, np.float64)
        self.price_scale = price_scale
        self.volume_scale = volume_scale
        self.sides = _columns(sides, len(self.open_time))
        self._exact: dict[str, Ints] = {}
        self._step: int | None = None

    @property
    def step_ms(self) -> int:
        """Time from each candle to the next where it is always the same, else 0. Looked at once."""
        if self._step is None:
            steps = np.diff(self.open_time)
            self._step = int(steps[0]) if len(steps) and bool(np.all(steps == steps[0])) else 0
        return self._step

    def __len__(self) -> int:
        return len(self.open_time)

    def window(self, start: int, stop: int) -> Candles:
        """Rows `start` to `stop` (exclusive) as Candles of their own: views, with the scales of the whole series."""
        part = Candles.__new__(Candles)
        part.symbol, part.timeframe = self.symbol, self.timeframe
        part.price_scale, part.volume_scale = self._scale("close"), self._scale("volume")
        for name in ("open_time", *COLUMNS):
            setattr(part, name, getattr(self, name)[start:stop])
        part.sides = {name: column[start:stop] for name, column in self.sides.items()} if self.sides else NO_SIDES
        part._exact = {name: column[start:stop] for name, column in self._exact.items()}
        part._step = None
        return part

    def take(self, rows: npt.NDArray[Any]) -> Candles:
        """Some rows, by their numbers."""
        sides = {name: column[rows] for name, column in self.sides.items()}
        return self.replace(sides, **{name: getattr(self, name)[rows] for name in ("open_time", *COLUMNS)})

    def side(self, name: str) -> Floats:
        """A side series as it was known at each candle's close: float64[n], NaN where nothing was. StrategyError without it."""
        column = self.sides.get(name)
        if column is None:
            declare = f'Declare it in the class: sides = ("{name}",)'
            hint = f"{declare}. {nearest(name, sorted(self.sides))}" if self.sides else declare
            raise StrategyError(f"The candles carry no side series '{name}'.", hint)
        return column

    def with_sides(self, sides: Mapping[str, Floats]) -> Candles:
        """The same candles with these side series, and no others."""
        same = self.window(0, len(self))
        same.sides = _columns(sides, len(self))
        return same

    def exact(self, name: str) -> Ints:
        """A column as whole multiples of `10**-scale`: int64[n]."""
        column = self._exact.get(name)
        if column is None:
            scaled = np.rint(getattr(self, name) * 10.0 ** self._scale(name))
            column = scaled.astype(np.int64)
            column.setflags(write=False)
            self._exact[name] = column
        return column

    def unit(self, name: str) -> float:
        """What one of `exact(name)` is worth, as the divisor: `exact / unit` is the column's own number."""
        return float(10.0 ** self._scale(name))

    def replace(self, sides: Mapping[str, Floats] | None = None, /, **columns: npt.NDArray[Any]) -> Candles:
        """A copy with other columns or side series (None: the same), keeping the scales."""
        kept = [columns.get(name, getattr(self, name)) for name in ("open_time", *COLUMNS)]
        return Candles(
            self.symbol,
            self.timeframe,
            *kept,
            price_scale=self._scale("close"),
            volume_scale=self._scale("volume"),
            sides=self.sides if sides is None else sides,
        )

    def _scale(self, name: str) -> int:
        if name == "volume":
            if self.volume_scale is None:
                self.volume_scale = decimal_scale(lambda: [self.volume])
            return self.volume_scale
        if self.price_scale is None:
            self.price_scale = decimal_scale(lambda: [self.open, self.high, self.low, self.close])
        return self.price_scale


def decimal_scale(columns: Callable[[], list[Floats]]) -> int:
    """The fewest decimal places in which every number is whole, at most MAX_SCALE and at most 2**53 as an integer.

    Numbers without a short decimal form (computed ones) get the most places that still fit: rounding them then moves
    them by less than a float's own precision allows to see in a sum.
    """
    data = [c for c in columns() if len(c)]
    largest = max((float(np.max(np.abs(c))) for c in data), default=0.0)
    fits = MAX_SCALE
    while fits > 0 and largest * 10.0**fits >= MAX_EXACT:
        fits -= 1
    for scale in range(fits):
        if all(_whole_at(c, scale) for c in data):
            return scale
    return fits


def _whole_at(column: Floats, scale: int) -> bool:
    """Whether every number has at most `scale` decimal places (checked on a sample first: most scales fail there)."""
    for part in (column[:: max(1, len(column) // 64)], column):
        scaled = part * 10.0**scale
        if not bool(np.all(np.rint(scaled) / 10.0**scale == part)):
            return False
    return True


def _columns(sides: Mapping[str, Floats], rows: int) -> Mapping[str, Floats]:
    """Side series as read-only columns of so many rows."""
    if not sides:
        return NO_SIDES
    columns = {name: _read_only(column, np.float64) for name, column in sides.items()}
    for name, column in columns.items():
        if column.shape != (rows,):
            raise ValueError(f"{name}: {column.shape} beside {rows} candles")
    return columns


def _read_only(column: npt.NDArray[Any], kind: type) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.ascontiguousarray(column, dtype=kind)
    if array is column and array.flags.writeable:
        array = array.view()
    array.setflags(write=False)
    return array
