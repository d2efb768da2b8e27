"""The newest candles of a series, asked for again and again: what has closed, with proof, and the one that runs.

    tail = CandleTail("binance", base_url=None, now_ms=clock.now_ms)
    closed, running, exchange_ms = tail.look(symbol, "1h", since_ms)

A candle has closed when the exchange's own clock (the Date of the same answer, less its age in a cache) is at or past its end,
or when a later candle exists. This machine's clock proves nothing. Where an answer has no Date, only a later candle does.

That it has closed does not mean that it is final: for a moment the exchange may still show what it was before its last trades.
Who trades on it asks again (live/candle_series.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from atb.core.timeframe import align_down, iso
from atb.core.types import Symbol
from atb.venue.candle_sources import Floats, Source, aligned, length_ms, open_source
from atb.venue.ccxt_markets import explained
from atb.venue.ccxt_session import Patience, Session
from atb.venue.rate_budget import Priority

DATE_MS = 1_000  # a Date names whole seconds: the exchange's clock may be this much ahead of it
LIVE = Patience(timeout_s=5.0, attempts=2, backoff_s=0.25, max_wait_s=2.0)  # whoever trades cannot wait long
LIVE_HINT = "Trading goes on with what is known: stops rest, entries wait. It is asked again."


class Tail(NamedTuple):
    """What an exchange shows of a series from some time on.

    closed: rows (n, 6) as of candle_sources, sorted and unique; running: the row of the one that has opened and not closed.
    exchange_ms: the exchange's clock as of the answer; this machine's where it did not say.
    more: the answer was cut, closed candles may follow.
    """

    closed: Floats
    running: Floats | None
    exchange_ms: int
    more: bool = False


class CandleTail:
    """One venue, without keys, over one connection that is kept. Not for several threads."""

    def __init__(
        self, venue: str, *, base_url: str | None, now_ms: Callable[[], int], patience: Patience = LIVE,
        rates: Path | None = None,
    ) -> None:  # fmt: skip
        self.venue = venue
        self._now_ms = now_ms
        self._session = Session(venue, base_url, patience, LIVE_HINT, rates, Priority.ENTRY)

    def length_ms(self, timeframe: str) -> int:
        """How long a candle is; a UsageError where the venue has none of that length."""
        return length_ms(self._session, timeframe)

    def look(self, symbol: Symbol, timeframe: str, since_ms: int) -> Tail:
        """The candles that open at `since_ms` (on the grid) or later; one request, more only after a long hole.

        Raises ExchangeUnavailable, ExchangeRefused.
        """
        now = self._now_ms()
        source = open_source(self._session, symbol, timeframe, now)
        count = min(source.per_page, max(0, now - since_ms) // source.length_ms + 2)
        rows = _pages_from(source, since_ms, count)
        clock = self._session.exchange_ms()
        rows = rows[aligned(rows, timeframe)]
        # What has not opened yet by the exchange's clock proves nothing, whatever it is.
        rows = rows[rows[:, 0] <= (now if clock is None else clock + DATE_MS)]
        _check_shape(source, rows)
        closed = _closed(rows, source.length_ms, clock)
        running = rows[closed:][-1] if closed < len(rows) else None
        more = running is None and len(rows) > 0 and count == source.per_page
        return Tail(rows[:closed], running, now if clock is None else clock, more)

    def clock_ms(self, symbol: Symbol, timeframe: str) -> int:
        """The exchange's clock, told with a symbol's newest candle. A UsageError for a symbol that it does not know."""
        with explained(self._session, symbol):
            return self.look(symbol, timeframe, align_down(self._now_ms(), timeframe)).exchange_ms

    def close(self) -> None:
        """Close the connection."""
        self._session.close()


def _pages_from(source: Source, since_ms: int, count: int) -> Floats:
    """From `since_ms` on to the first page with more than that candle: an exchange of windows has empty ones in a long hole."""
    cursor, rows = since_ms, source.page(since_ms, count)
    page = rows
    while not (rows[:, 0] > since_ms).any() and cursor + count * source.length_ms <= source.now:
        cursor = source.after(cursor, page, count)
        page = source.page(cursor, count) if cursor < source.now else rows[:0]
        rows = np.concatenate([rows, page])
    return rows


def _closed(rows: Floats, length: int, clock: int | None) -> int:
    """How many of the rows have closed: all but the last by that there is a later one, the last by the clock."""
    if not len(rows):
        return 0
    return len(rows) if clock is not None and rows[-1, 0] + length <= clock else len(rows) - 1


def _check_shape(source: Source, rows: Floats) -> None:
    """Nothing is traded on a candle whose high or low its own open and close contradict."""
    opened, high, low, close = rows[:, 1], rows[:, 2], rows[:, 3], rows[:, 4]
    wrong = (high < np.maximum(opened, close)) | (low > np.minimum(opened, close))
    if wrong.any():
        at = iso(int(rows[np.argmax(wrong), 0]))
        raise source.unavailable(f"gave a candle of {at} whose high or low contradicts its open or close")
