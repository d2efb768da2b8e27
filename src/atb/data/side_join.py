"""Candles with the side series that a strategy declares, from the store, as of each candle's close."""

from __future__ import annotations

from collections.abc import Sequence

from atb.core.timeframe import timeframe_ms
from atb.data.layout import Part
from atb.data.side_store import SideKey, SideStore
from atb.engine.candles import Candles
from atb.engine.sides import Side, SideRows, as_of


class SideJoin:
    """Reads a series again only when its files are others: live trading asks at each close."""

    def __init__(self, store: SideStore) -> None:
        self.store = store
        self._known: dict[SideKey, tuple[list[Part], SideRows]] = {}

    def keys(self, declared: Sequence[Side], symbol: str) -> list[SideKey]:
        """The stored series that are meant. DataError where one is not stored."""
        return [self.store.find(side, symbol) for side in declared]

    def __call__(self, declared: Sequence[Side], candles: Candles) -> Candles:
        """float64 columns beside the candles, NaN where nothing was known. DataError where a series is not stored."""
        if not declared:
            return candles
        closes = candles.open_time + timeframe_ms(candles.timeframe)
        keys = self.keys(declared, candles.symbol)
        pairs = zip(declared, keys, strict=True)
        return candles.with_sides({side.name: as_of(self._rows(key), closes, side.max_age_ms) for side, key in pairs})

    def _rows(self, key: SideKey) -> SideRows:
        parts = self.store.parts(key)
        if key not in self._known or self._known[key][0] != parts:
            self._known[key] = (parts, self.store.read(key))
        return self._known[key][1]
