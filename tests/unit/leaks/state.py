"""Planted strategies that answer the same question differently, or change their candles."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from atb.engine.candles import Candles, Floats
from atb.strategy import to_pandas
from tests.unit.leaks.base import Planted, shifted, trend


class Unstable(Planted):
    kind = "unstable"


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


class CountsCalls(Unstable):
    """Changes its mind with each call."""

    calls = 0

    def view(self, candles: Candles) -> Any:
        self.calls += 1
        return np.sign(trend(candles, 20)) * (1.0 if self.calls % 2 else 0.5)


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


UNSTABLE = [FittedOnce, SharedCache, CountsCalls, Random, SeededOnce]
MUTATING = [ScalesInPlace, ForcesWriting, ExchangesColumn, FillsFrame]
