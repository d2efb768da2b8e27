"""The candles before the first that is traded: from the store, and what it lacks from the exchange. What closes is stored."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from atb.core.errors import DataError
from atb.core.timeframe import DAY_MS, iso_minute, timeframe_ms
from atb.core.types import Symbol
from atb.core.words import counted
from atb.data.compacting import compact
from atb.data.corrections import Correction as Kept
from atb.data.corrections import keep
from atb.data.keeping import Pins
from atb.data.layout import SeriesKey, series_key
from atb.data.part_writer import candles_of
from atb.data.store import CandleStore
from atb.engine.candles import COLUMNS, Candles, Floats
from atb.live.candle_series import Correction as SeriesCorrection
from atb.live.candle_series import Numbers
from atb.market.filling import Asking, fill

PART_MS = 3_600_000  # what closes is stored once an hour: a part a candle would leave a thousand files a day
QUIET_CANDLES = 10


class History:
    """One venue's series in the store. `url`, `rates`: as for every request."""

    def __init__(
        self, store: CandleStore, venue: str, *, url: str | None, rates: Path | None, pins: Pins | None = None,
        account: str = "", timeout_s: float | None = None,
    ) -> None:  # fmt: skip
        self.store, self.venue = store, venue
        self._pins, self._account = pins, account
        self._needed: dict[SeriesKey, int] = {}  # from when on each series is looked back on
        asking = Asking(lambda _: url, rates)
        self._asking = asking if timeout_s is None else asking._replace(timeout_s=timeout_s)

    def load(
        self, symbol: Symbol, timeframe: str, first_ms: int, end_ms: int, bars: int, now_ms: int
    ) -> tuple[Floats, int]:
        """At least `bars` candles that open before `first_ms`, and all from there to `end_ms` (exclusive); and until when it
        is certain that there are no others.

        now_ms: the exchange's clock. DataError where so many do not exist, or the newest is old.
        """
        key, step = series_key(self.venue, symbol, timeframe), timeframe_ms(timeframe)
        span, found = bars, -1
        while True:
            start = max(0, first_ms - span * step)
            self._needed[key] = start
            self._hold()
            rows = self._read(symbol, key, start, end_ms, now_ms)
            have = int(np.count_nonzero(rows[:, 0] < first_ms))
            if have >= bars:
                break
            if have <= found or start == 0:
                raise _too_few(key, rows, bars, start)
            found, span = have, 2 * span + QUIET_CANDLES
        until = int(rows[-1, 0]) + step if len(rows) else end_ms
        if now_ms - until > max(DAY_MS, QUIET_CANDLES * step):
            raise DataError(f"{_name(key)}: the newest candle is of {iso_minute(until - step)}.", "Is it still traded?")
        return rows, until

    def append(self, symbol: Symbol, timeframe: str, rows: Floats, start_ms: int, end_ms: int) -> None:
        """Store what was settled for [start_ms, end_ms), as far as no other process has."""
        key = series_key(self.venue, symbol, timeframe)
        self.store.add(key, candles_of(key, rows), start_ms, end_ms)
        compact(self.store, key)
        self._hold()

    def corrected(
        self, symbol: Symbol, timeframe: str, found: Sequence[SeriesCorrection], now_ms: int
    ) -> None:  # fmt: skip
        """Keep what the exchange says otherwise now than it was given; what cannot be kept was told all the same."""
        key = series_key(self.venue, symbol, timeframe)
        with contextlib.suppress(DataError):
            keep(self.store, key, [
                Kept(c.open_ms, now_ms, {} if c.had is None else _named(c.had), _named(c.has)) for c in found
            ])  # fmt: skip

    def close(self) -> None:
        """Nothing is looked back on any more."""
        if self._pins is not None:
            with contextlib.suppress(OSError):
                self._pins.release(self._account)

    def _hold(self) -> None:
        """So that nobody removes what a session needs; one that cannot say so trades all the same."""
        if self._pins is not None:
            with contextlib.suppress(OSError):
                self._pins.hold(self._account, self._needed)

    def _read(self, symbol: Symbol, key: SeriesKey, start_ms: int, end_ms: int, now_ms: int) -> Floats:
        for low, high in self.store.wanted(key, start_ms, end_ms, now_ms):
            fill(self.store, key, symbol, (low, high), now_ms, self._asking)
        candles = self.store.read(key, start_ms, end_ms) if start_ms < end_ms else None
        return np.empty((0, 6)) if candles is None else _rows(candles)


def _named(numbers: Numbers) -> dict[str, float]:
    return dict(zip(COLUMNS, numbers[1:], strict=True))


def _rows(candles: Candles) -> Floats:
    return np.column_stack([candles.open_time.astype(np.float64), *(getattr(candles, name) for name in COLUMNS)])


def _name(key: SeriesKey) -> str:
    return f"{key.symbol} {key.timeframe} at {key.venue}"


def _too_few(key: SeriesKey, rows: Floats, bars: int, start_ms: int) -> DataError:
    if not len(rows):
        return DataError(f"{_name(key)}: there is no candle since {iso_minute(start_ms)}.", "Is it still traded?")
    return DataError(
        f"{_name(key)}: the strategy looks back on {counted(bars, 'candle')} before its first, and there "
        f"{'is' if len(rows) == 1 else 'are'} {len(rows)}, the first of {iso_minute(int(rows[0, 0]))}.",
        "Use a shorter timeframe, or a strategy or parameters with a shorter lookback.",
    )
