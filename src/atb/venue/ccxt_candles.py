"""Public candles of Binance and Coinbase over REST: page by page, closed candles only, never garbage.

How far an answer is believed:
- One of the wrong shape (HTML, cut JSON, a number missing, a candle from the future) is asked for again, then refused.
- One that does not begin with the candle asked for may be a gap, a listing date or a fault: it must be said twice.
- "Nothing more" is checked against the newest candle or trade that the exchange knows.
A page that is wrong the same way each time but well formed cannot be told from a gap; the gap report shows it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from atb.core.errors import UsageError
from atb.core.timeframe import align_down
from atb.core.types import Symbol
from atb.core.words import counted
from atb.venue.candle_sources import Floats, Source, aligned, length_ms, open_source, settled
from atb.venue.ccxt_markets import explained
from atb.venue.ccxt_session import VENUES, Patience, Session

__all__ = ["VENUES", "CandlePage", "fetch_candles"]


class CandlePage(NamedTuple):
    """Closed candles, sorted and unique.

    rows: float64 (n, 6) of open_time (ms UTC), open, high, low, close (quote per base), volume (base).
    """

    rows: Floats


def fetch_candles(
    venue: str,
    symbol: Symbol,
    timeframe: str,
    start_ms: int,
    end_ms: int,
    *,
    base_url: str | None,
    now_ms: Callable[[], int],
    timeout_s: float = 10.0,
    attempts: int = 4,
    backoff_s: float = 0.5,
    max_wait_s: float = 65.0,
    rates: Path | None = None,
    hear_known_ms: Callable[[int], None] = lambda _: None,
) -> Iterator[CandlePage]:
    """The closed candles that open in [start_ms, end_ms), in pages, oldest first; holes of the exchange stay holes.

    `timeout_s` and `attempts` are for one request; `backoff_s` is waited before the second attempt and doubles;
    a Retry-After of up to `max_wait_s` is obeyed, a longer one is an error; `rates`: the folder of the budget that all
    processes share; `hear_known_ms` is told after the last page up to when (ms) the answers can be believed to be all there is.
    Raises UsageError (venue, timeframe or symbol unknown), ExchangeUnavailable, ExchangeRefused; pages already given stay good.
    """
    if symbol.market != "spot":
        raise UsageError(f"'{symbol.id}' is not a spot symbol; only spot candles can be fetched.")
    session = Session(venue, base_url, Patience(timeout_s, attempts, backoff_s, max_wait_s), rates=rates)
    length_ms(session, timeframe)
    # The clock is read before the first request: what was closed by then is closed in every answer.
    now = now_ms()
    return _closing(session, candle_pages(session, symbol, timeframe, start_ms, end_ms, now), now, hear_known_ms)


def candle_pages(
    session: Session, symbol: Symbol, timeframe: str, start_ms: int, end_ms: int, now: int
) -> Iterator[CandlePage]:
    """`fetch_candles` over a session that goes on. now: ms, by this machine's clock; what closes later is left alone."""
    step_ms = length_ms(session, timeframe)
    cursor, end = align_down(start_ms + step_ms - 1, timeframe), min(end_ms, align_down(now, timeframe))
    source = open_source(session, symbol, timeframe, now)
    fetched = misaligned = 0
    with explained(session, symbol):
        while cursor < end:  # every turn moves the cursor, so it ends
            count = min(source.per_page, -((cursor - end) // source.length_ms))
            rows = settled(session, source, cursor, count)
            end = min(end, _closed_by_exchange(session, source))
            inside = rows[rows[:, 0] < end]
            good = inside[aligned(inside, source.timeframe)]
            fetched, misaligned = fetched + len(good), misaligned + len(inside) - len(good)
            if len(good):
                yield CandlePage(good)
            following = source.after(cursor, rows, count)
            assert following > cursor
            cursor = following
    if misaligned and not fetched:
        raise source.unavailable(
            f"gave {counted(misaligned, 'candle')}, none opening where a {source.timeframe} candle does"
        )


def _closing(
    session: Session, pages: Iterator[CandlePage], now: int, hear_known_ms: Callable[[int], None]
) -> Iterator[CandlePage]:
    with contextlib.closing(session):
        yield from pages
        hear_known_ms(session.known_ms(now))


def _closed_by_exchange(session: Session, source: Source) -> int:
    """The open time of the candle still open by the exchange's clock (ms): a machine's clock may be ahead."""
    clock = session.exchange_ms()
    return source.now if clock is None else align_down(clock, source.timeframe)
