"""What the store lacks of a series, from its exchange into the store: one range after the other, over one connection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from atb.core.timeframe import timeframe_ms
from atb.core.types import Symbol
from atb.data.layout import SeriesKey
from atb.data.part_writer import Stored, store_pages
from atb.data.store import CandleStore

ATTEMPTS = 4  # for each request


class Asking(NamedTuple):
    """How exchanges are asked. url: the root of a venue's API, None for the real one; rates: the folder of the budget of
    requests that all processes share; attempts, timeout_s: for each request."""

    url: Callable[[str], str | None]
    rates: Path | None = None
    attempts: int = ATTEMPTS
    timeout_s: float = 10.0


def fill(
    store: CandleStore, key: SeriesKey, symbol: Symbol, span: tuple[int, int], now_ms: int, asking: Asking,
    progress: Callable[[float], None] = lambda _: None,
) -> Stored:  # fmt: skip
    """Fetch the closed candles that open in `span` (ms, end exclusive) into the store.

    Parts are written as pages come in, so that what was fetched stays, whatever happens next. The stored candle before the
    span is asked for, too: where the exchange tells it otherwise, that is recorded. now_ms: what closes later is left alone.
    """
    from atb.venue.ccxt_candles import fetch_candles

    start_ms, end_ms = overlapping(store, key, span)
    known_ms = [now_ms]  # the exchange's clock comes with the last page
    pages = fetch_candles(
        key.venue, symbol, key.timeframe, start_ms, end_ms, base_url=asking.url(key.venue), now_ms=lambda: now_ms,
        timeout_s=asking.timeout_s, attempts=asking.attempts, rates=asking.rates,
        hear_known_ms=known_ms.append,
    )  # fmt: skip
    rows = (page.rows for page in pages)
    return store_pages(store, key, rows, (start_ms, end_ms), now_ms, lambda: known_ms[-1], progress)


def overlapping(store: CandleStore, key: SeriesKey, span: tuple[int, int]) -> tuple[int, int]:
    """The span from the stored candle before it on, where there is one."""
    before = span[0] - timeframe_ms(key.timeframe)
    has_it = before >= 0 and not store.missing_ranges(key, before, span[0])
    return (before if has_it else span[0]), span[1]
