"""Where side series are downloaded from, how the answers are read, and from when on each value counts as known.

An answer of the wrong shape (HTML, cut JSON, a number missing, a time in the future, a wrong order, none at all) is no answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from atb.core.errors import UsageError, nearest
from atb.core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS, iso, timeframe_ms
from atb.engine.sides import SideRows, joined_rows
from atb.venue.ccxt_errors import unusable
from atb.venue.ccxt_session import Session
from atb.venue.plain_http import get_json

FUNDING_DELAY_MS = MINUTE_MS  # after the funding time
INTEREST_DELAY_MS = 5 * MINUTE_MS  # after the end of the period
FEAR_DELAY_MS = 6 * HOUR_MS  # after the beginning of its day: it is published then, without a promise at which hour
FUNDING_SINCE_MS = 1_567_900_800_000  # 2019-09-08, when Binance began with perpetuals
INTEREST_REACH_MS = 30 * DAY_MS  # Binance tells of no more
FEAR_SINCE_MS = 1_517_443_200_000  # 2018-02-01
PERIODS = ("5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d")
FUNDING_PAGE, INTEREST_PAGE = 1000, 500
AHEAD_MS = MINUTE_MS  # by so much our clock may be behind
FEAR_GREED_URL = "https://api.alternative.me/fng/"
Fields = tuple[str, str]  # of the time, of the value


def funding_rates(session: Session, symbol: str, start_ms: int, now_ms: int) -> SideRows:
    """Funding rates (fraction of the notional, paid at their time) from `start_ms` on, to the newest."""
    what = f"Funding rates of {symbol}"
    pages: list[SideRows] = []
    while True:
        cursor = int(pages[-1].time_ms[-1]) + 1 if pages else max(start_ms, FUNDING_SINCE_MS)
        params = {"symbol": symbol, "startTime": cursor, "limit": FUNDING_PAGE}
        read = _reader(("fundingTime", "fundingRate"), symbol, (cursor, now_ms), FUNDING_DELAY_MS, FUNDING_PAGE)
        page = session.ask(what, "fapiPublicGetFundingRate", params, read if pages else _some(read, cursor))
        pages.append(page)
        if len(page.time_ms) < FUNDING_PAGE:
            return joined_rows(pages)


def open_interests(session: Session, symbol: str, start_ms: int, now_ms: int, period: str = "1h") -> SideRows:
    """Open interest (base units) at the ends of periods, of the last 30 days at the most."""
    if period not in PERIODS:
        raise UsageError(f"There is no open interest by '{period}'.", nearest(period, list(PERIODS)))
    length = timeframe_ms(period)
    first = max(start_ms, -(-(now_ms - INTEREST_REACH_MS) // length) * length + length)
    pages = list(_interest_pages(session, symbol, (first, now_ms), period))
    return joined_rows(pages)


def _interest_pages(session: Session, symbol: str, span: tuple[int, int], period: str) -> Iterator[SideRows]:
    """Spans of so many periods as fit into a page: what is cut off of a longer one is not said anywhere."""
    what, length = f"Open interest of {symbol}", timeframe_ms(period)
    empty = True
    for low in range(span[0], span[1], (INTEREST_PAGE - 1) * length):
        high = min(span[1], low + (INTEREST_PAGE - 1) * length - 1)
        params = {"symbol": symbol, "period": period, "startTime": low, "endTime": high, "limit": INTEREST_PAGE}
        read = _reader(
            ("timestamp", "sumOpenInterest"), symbol, (low, span[1]), length + INTEREST_DELAY_MS, INTEREST_PAGE
        )
        page = session.ask(what, "fapiDataGetOpenInterestHist", params, read)
        if (
            len(page.time_ms) == 0
        ):  # nobody asks for this span again: it is believed when it is said twice, and not at the end
            last = empty and high == span[1]
            page = session.ask(what, "fapiDataGetOpenInterestHist", params, _some(read, span[0]) if last else read)
        empty = empty and len(page.time_ms) == 0
        yield page


def fear_greed(url: str | None, start_ms: int, now_ms: int, timeout_s: float) -> SideRows:
    """The index of fear and greed (0 to 100) of each day from `start_ms` on."""
    read = _fear_reader(start_ms, now_ms)
    return get_json("Fear and greed", f"{(url or FEAR_GREED_URL).rstrip('/')}/?limit=0", timeout_s, read)


def _fear_reader(start_ms: int, now_ms: int) -> Callable[[Any], SideRows]:
    def read(answer: Any) -> SideRows:
        if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
            raise unusable("gave an answer that is no list of days")
        pairs = [_pair(each, ("timestamp", "value"), 1000) for each in reversed(answer["data"])]
        rows = _rows(pairs, (0, now_ms), FEAR_DELAY_MS)
        if len(pairs) == 0 or bool(np.any((rows.value < 0) | (rows.value > 100))):
            raise unusable("gave no values, or others than from 0 to 100")
        return rows.select(rows.time_ms >= start_ms)

    return read


def _reader(
    fields: Fields, symbol: str, span: tuple[int, int], delay_ms: int, most: int
) -> Callable[[Any], SideRows]:  # fmt: skip
    def read(answer: Any) -> SideRows:
        if not isinstance(answer, list) or len(answer) > most:
            raise unusable(f"gave an answer that is no list of at most {most}")
        if any(not isinstance(each, dict) or each.get("symbol") != symbol for each in answer):
            raise unusable(f"gave an answer that is not about {symbol}")
        return _rows([_pair(each, fields, 1) for each in answer], span, delay_ms)

    return read


def _some(read: Callable[[Any], SideRows], start_ms: int) -> Callable[[Any], SideRows]:
    def read_some(answer: Any) -> SideRows:
        rows = read(answer)
        if len(rows.time_ms) == 0:
            raise unusable(f"has none from {iso(start_ms)} on")
        return rows

    return read_some


def _pair(each: Any, fields: Fields, unit_ms: int) -> tuple[int, float]:
    """(ms, value) of one element; numbers may be text."""
    try:
        at, value = int(each[fields[0]]) * unit_ms, float(each[fields[1]])
    except (LookupError, TypeError, ValueError):
        raise unusable(f"gave an element without {' or '.join(fields)}") from None
    if not math.isfinite(value):
        raise unusable(f"gave {value} as {fields[1]}")
    return at, value


def _rows(pairs: list[tuple[int, float]], span: tuple[int, int], delay_ms: int) -> SideRows:
    """Rows in order of time, each once, within `span` (ms)."""
    times = np.array([at for at, _ in pairs], np.int64)
    if bool(np.any(np.diff(times) <= 0)):
        raise unusable("gave values out of order")
    if len(times) and int(times[0]) < span[0]:
        raise unusable(f"gave a value of {iso(int(times[0]))}, before what was asked for")
    if len(times) and int(times[-1]) > span[1] + AHEAD_MS:
        raise unusable(f"gave a value of {iso(int(times[-1]))}, which is in the future")
    return SideRows(times, times + delay_ms, np.array([value for _, value in pairs], float))


class SideSource(NamedTuple):
    """What is known of a series that can be downloaded. every_s: how often a session asks for news."""

    venue: str
    since_ms: int
    every_s: float
    has_symbol: bool = True


SOURCES = {
    "funding_rate": SideSource("binanceusdm", FUNDING_SINCE_MS, 60.0),
    "open_interest": SideSource("binanceusdm", 0, 60.0),
    "fear_greed": SideSource("alternative.me", FEAR_SINCE_MS, 600.0, has_symbol=False),
}
