"""Planted strategies that answer the same question differently, or change their candles."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from atb.core.timeframe import timeframe_ms
from atb.engine.candles import Candles, Floats
from atb.strategy import to_pandas
from tests.unit.leaks.base import Planted, shifted, trend


class Unstable(Planted):
    kind = "unstable"


def next_close_in(diary: dict[int, float], candles: Candles, at_least: float = 0.0) -> Floats:
    """Sign of the move to the next close as the diary has it; 0.0 where it has none."""
    times, step = candles.open_time.tolist(), timeframe_ms(candles.timeframe)
    for time, close in zip(times, candles.close.tolist(), strict=True):
        diary.setdefault(time, close)
    moves = np.array([diary.get(time + step, diary[time]) / diary[time] - 1.0 for time in times])
    return np.asarray(np.where(np.abs(moves) >= at_least, np.sign(moves), 0.0))


class FittedOnce(Unstable):
    """Fits its mean on the first series it sees, in self: each later window gets what the whole series taught."""

    def view(self, candles: Candles) -> Any:
        if not hasattr(self, "cache"):
            self.cache = float(np.median(candles.close))
        return np.sign(candles.close - self.cache)


class SharedCache(Unstable):
    """The same in a dictionary that all objects of the class share."""

    cache: ClassVar[dict[str, float]] = {}

    def view(self, candles: Candles) -> Any:
        return np.sign(candles.close - self.cache.setdefault("mean", float(candles.close.mean())))


class Diary(Unstable):
    """Writes down each close it is shown, and later trades on what it has read there of the next candle."""

    def view(self, candles: Candles) -> Any:
        return next_close_in(vars(self).setdefault("diary", {}), candles)


SEEN: dict[int, float] = {}


class DiaryOfTheModule(Unstable):
    """The same in a dictionary of the module."""

    def view(self, candles: Candles) -> Any:
        return next_close_in(SEEN, candles)


class RareDiary(Unstable):
    """The same, where the next close is 2 % away only."""

    def view(self, candles: Candles) -> Any:
        tomorrow = next_close_in(vars(self).setdefault("diary", {}), candles, at_least=0.02)
        return np.where(tomorrow, tomorrow, trend(candles, 20))


class CountsCalls(Unstable):
    """Changes its mind with each call."""

    calls = 0

    def view(self, candles: Candles) -> Any:
        self.calls += 1
        return np.sign(trend(candles, 20)) * (1.0 if self.calls % 2 else 0.5)


class SecondThoughts(Unstable):
    """Asked for the whole series a second time, it knows each next candle. What a run asked for first is honest."""

    def view(self, candles: Candles) -> Any:
        honest, asked = np.sign(trend(candles, 20)), vars(self).setdefault("asked", set())
        if len(candles) <= 1_000:
            return honest
        again = candles.close.tobytes() in asked
        asked.add(candles.close.tobytes())
        return shifted(honest, -1) if again else honest


class Random(Unstable):
    """Ties are broken by chance, without a seed."""

    def view(self, candles: Candles) -> Any:
        return np.where(np.random.random(len(candles)) < 0.01, 1.0, np.sign(trend(candles, 20)))


class SeededOnce(Unstable):
    """A generator with a seed, which goes on from call to call."""

    random: Any = None

    def view(self, candles: Candles) -> Any:
        self.random = self.random or np.random.default_rng(1)
        return self.random.uniform(-1.0, 1.0, len(candles))


class RandomWhenShort(Unstable):
    """Chance only fills in where there is little history: in live trading."""

    def view(self, candles: Candles) -> Any:
        signal = np.sign(trend(candles, 20))
        return signal if len(candles) > 100 else signal * np.random.random(len(candles))


class SeededEachTime(Planted):
    """The same random numbers for each call: they belong to the row, not to the candle."""

    kind = "memory"

    def view(self, candles: Candles) -> Any:
        return np.random.default_rng(1).uniform(-1.0, 1.0, len(candles))


class ScalesInPlace(Planted):
    """Divides the candles' own close."""

    def view(self, candles: Candles) -> Any:
        candles.close[:] = candles.close / candles.close[0]
        return np.sign(candles.close - 1.0)


class ForcesWriting(Planted):
    """The same after it has been told that the array is read-only."""

    def view(self, candles: Candles) -> Any:
        candles.close.setflags(write=True)
        candles.close[5] *= 1.0
        return np.sign(candles.close - 1.0)


class ExchangesColumn(Planted):
    """Puts a scaled column in the place of the close that the engine trades on."""

    def view(self, candles: Candles) -> Any:
        candles.close = candles.close / candles.close.max()
        return np.sign(candles.close - 0.5)


class FillsFrame(Planted):
    """Writes through pandas."""

    def view(self, candles: Candles) -> Any:
        values: Floats = to_pandas(candles)["close"].to_numpy()
        values[0] = 0.0
        return np.sign(values - shifted(values, 1))


UNSTABLE = [
    FittedOnce,
    SharedCache,
    Diary,
    DiaryOfTheModule,
    RareDiary,
    CountsCalls,
    SecondThoughts,
    Random,
    SeededOnce,
    RandomWhenShort,
]
MUTATING = [ScalesInPlace, ForcesWriting, ExchangesColumn, FillsFrame]
