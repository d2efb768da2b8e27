"""The side series of a run: joined with the candles that were read, wherever these are from."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from atb.backtest.sources import SimulatedSource, Source
from atb.core.errors import DataError
from atb.core.timeframe import iso_minute
from atb.engine.candles import Candles
from atb.engine.sides import Join
from atb.strategy.contract import Strategy, sides_of


def with_sides(candles: Candles, strategy: Strategy, source: Source, join: Join) -> Candles:
    """The candles with what the strategy declares: simulated beside simulated ones, else what is stored.

    DataError where a series is not stored, or has no value at any of the candles.
    """
    declared = sides_of(type(strategy))
    if isinstance(source, SimulatedSource):
        from atb.venue.simulated_sides import simulated_sides

        return simulated_sides(declared, candles, source.seed)
    joined = join(declared, candles)
    for name, column in joined.sides.items():
        if bool(np.isnan(column).all()):
            first, last = (iso_minute(int(candles.open_time[i])) for i in (0, -1))
            raise DataError(
                f"{name} has no value at any of the candles of {candles.symbol} from {first} to {last}.",
                "What is stored, and from when to when: atb data side list",
            )
    return joined


def side_facts(candles: Candles) -> dict[str, dict[str, Any]]:
    """Of each series beside the candles, at how many it has no value, and what names its values."""
    return {
        name: {
            "missing": int(np.count_nonzero(np.isnan(column))),
            "sha256": hashlib.sha256(column.tobytes()).hexdigest(),
        }
        for name, column in candles.sides.items()
    }
