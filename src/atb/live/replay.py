"""History as if it happened now: candles open, move and close, and the trader meets each of these moments.

The exchange is a simulated one that fills by the backtest's rules; everything else is what runs with real money. Speed: seconds
of history in one of ours, or None for as fast as it goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from atb.core.timeframe import ManualClock
from atb.engine.candles import Candles
from atb.live.trader import Trader
from atb.venue.simulated_broker import SimulatedBroker

LOOK_EVERY_S = 0.2  # whether the end is asked for


class Replay:
    """Candles of the trader's symbols, in its order. first: the open time of the first candle that is traded; those before
    it are only looked back at."""

    def __init__(
        self, trader: Trader, broker: SimulatedBroker, clock: ManualClock, series: Sequence[Candles], lookback: Sequence[int],
        first_ms: int, speed: float | None = None,
    ) -> None:  # fmt: skip
        self.trader, self.broker, self.clock = trader, broker, clock
        self.series, self.lookback, self.speed = list(series), list(lookback), speed
        times = np.unique(np.concatenate([candles.open_time for candles in series]))
        self.times = times[times >= first_ms]
        self.rows = [np.searchsorted(candles.open_time, self.times) for candles in series]

    def run(self, progress: Callable[[float], None] = lambda _: None, stop: Callable[[], bool] = lambda: False) -> int:
        """Play until the candles end or `stop` says so; returns how many rows were played."""
        for k, open_ms in enumerate(self.times.tolist()):
            if stop():
                return k
            self._row(k, open_ms, stop)
            progress((k + 1) / len(self.times))
        return len(self.times)

    def _row(self, k: int, open_ms: int, stop: Callable[[], bool]) -> None:
        symbols = [traded.symbol for traded in self.trader.state.traded]
        present = [s for s in range(len(symbols)) if self._has(s, k, open_ms)]
        at = {s: int(self.rows[s][k]) for s in present}
        self.clock.time_ms = open_ms
        for s in present:
            self.broker.opened(symbols[s], open_ms, float(self.series[s].open[at[s]]))
        self.broker.match_open()
        self.trader.look(open_ms)
        self._wait(stop)
        for s in present:
            c, i = self.series[s], at[s]
            self.broker.ranged(symbols[s], open_ms, float(c.high[i]), float(c.low[i]), float(c.close[i]))
        self.trader.look(open_ms)
        self.clock.time_ms = open_ms + self.trader.length_ms
        for s in present:
            self.broker.closed(symbols[s], open_ms, float(self.series[s].close[at[s]]))
        self.trader.close(open_ms, {symbols[s].id: self._window(s, at[s]) for s in present})

    def _has(self, s: int, k: int, open_ms: int) -> bool:
        i = int(self.rows[s][k])
        return i < len(self.series[s]) and int(self.series[s].open_time[i]) == open_ms

    def _window(self, s: int, i: int) -> Candles:
        return self.series[s].window(max(0, i + 1 - self.lookback[s]), i + 1)

    def _wait(self, stop: Callable[[], bool]) -> None:
        """The length of a candle in our time; the rest of it at once, where the end is asked for."""
        until = time.monotonic() + (self.trader.length_ms / 1000 / self.speed if self.speed else 0.0)
        while (left_s := until - time.monotonic()) > 0 and not stop():
            time.sleep(min(left_s, LOOK_EVERY_S))
