"""The candles of one series as they close, looked for again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from atb.core.errors import ExchangeRefused, ExchangeUnavailable
from atb.core.timeframe import align_down
from atb.core.types import Symbol
from atb.venue.candle_tail import CandleTail

SETTLE_MS = 1_000  # after a close, until its last trades are told


def watch(
    tail: CandleTail, symbol: Symbol, timeframe: str, every_s: float,
    running: Callable[[list[float]], None], trouble: Callable[[str], None],
) -> Iterator[list[float]]:  # fmt: skip
    """Rows (open time in ms, open, high, low, close, volume): the last closed one, then each as it closes. running: hears of the
    one that is not closed yet; trouble: of an exchange that does not answer, which is asked again. Without end."""
    step = tail.length_ms(timeframe)
    following = align_down(tail.clock_ms(symbol, timeframe), timeframe) - step
    while True:
        try:
            told = tail.look(symbol, timeframe, following)
        except (ExchangeUnavailable, ExchangeRefused) as error:
            trouble(error.what)
            time.sleep(every_s)
            continue
        for row in told.closed:
            if following <= row[0] and row[0] + step + SETTLE_MS <= told.exchange_ms:
                following = int(row[0]) + step
                yield row.tolist()
        if told.running is not None:
            running(told.running.tolist())
        time.sleep(every_s)
