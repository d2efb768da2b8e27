"""One exchange's way of giving candles: what to ask for, how the answer is read, and how far it is believed.

An answer of the wrong shape (HTML, cut JSON, a number missing, a candle from the future, two that contradict each other) is no
answer. Whether high >= low and the like hold is for the store's validation: a download must not end at one odd candle of 2013.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from atb.core.errors import ExchangeUnavailable, UsageError
from atb.core.timeframe import DAY_MS, align_down, check_timeframe, iso, timeframe_ms
from atb.core.types import Symbol
from atb.venue.ccxt_errors import unusable
from atb.venue.ccxt_markets import PRODUCT
from atb.venue.ccxt_session import OFFLINE_HINT, Session

Floats = npt.NDArray[np.float64]  # (n, 6): open_time (ms UTC), open, high, low, close (quote per base), volume (base)

# No fixed grid, so closedness cannot be computed: months differ, and Binance counts 3d from each symbol's listing day.
IRREGULAR = ("3d", "1M")
FOREVER = 2**62


def open_source(session: Session, symbol: Symbol, timeframe: str, now_ms: int) -> Source:
    """The candles of one series as the session's venue gives them; now_ms: by this machine's clock."""
    return _SOURCES[session.venue](session, symbol, timeframe, now_ms)


def length_ms(session: Session, timeframe: str) -> int:
    """How long a candle is; a UsageError where the venue has none of that length."""
    offered = [name for name in session.client.timeframes if name not in IRREGULAR]
    if timeframe not in offered:
        if timeframe not in session.client.timeframes:
            check_timeframe(timeframe)
        raise UsageError(f"No {timeframe} candles at {session.venue}.", f"It has {', '.join(offered)}.")
    return timeframe_ms(timeframe)


def settled(session: Session, source: Source, cursor: int, count: int) -> Floats:
    """The page from `cursor`; one that does not begin there is asked for until two answers in a row agree."""
    previous = None
    for _ in range(max(2, session.patience.attempts)):
        rows = source.page(cursor, count)
        if len(rows) and rows[0, 0] == cursor:
            return rows
        if previous is not None and np.array_equal(rows[:, 0], previous[:, 0]):
            return rows
        previous = rows
    raise source.unavailable(f"gives another answer each time for candles from {iso(cursor)}")


def first_open_ms(session: Session, source: Source, cursor: int) -> int:
    """Where the first candle from `cursor` (aligned, ms) on opens, or a time not after that: before it there is none."""
    rows = settled(session, source, cursor, 1)
    return align_down(int(rows[0, 0]), source.timeframe) if len(rows) else source.after(cursor, rows, 1)


def aligned(rows: Floats, timeframe: str) -> npt.NDArray[np.bool_]:
    """Which rows open on the timeframe's grid. Binance has some that do not, after its outages of 2017 and 2018."""
    length, offset = timeframe_ms(timeframe), align_down(0, timeframe)
    return np.asarray((rows[:, 0] - offset) % length == 0)


class Source(Protocol):
    """One exchange's way of giving candles."""

    per_page: int
    timeframe: str
    length_ms: int
    now: int

    def page(self, cursor: int, count: int) -> Floats:
        """About `count` candles from `cursor` (ms) on, none before it."""

    def after(self, cursor: int, rows: Floats, count: int) -> int:
        """Where to go on (aligned, ms, after `cursor`), given the page from `cursor`."""

    def unavailable(self, reason: str) -> ExchangeUnavailable: ...


class _Base:
    """What both sources need: whom to ask, for what, and the checks of an answer."""

    def __init__(self, session: Session, symbol: Symbol, timeframe: str, now: int) -> None:
        self.session, self.symbol, self.timeframe, self.now = session, symbol, timeframe, now
        self.length_ms = timeframe_ms(timeframe)
        self.interval = session.client.timeframes[timeframe]
        self.what = f"Fetching {symbol.id} {timeframe} candles"

    def unavailable(self, reason: str) -> ExchangeUnavailable:
        return ExchangeUnavailable(f"{self.what}: {self.session.host} {reason}.", OFFLINE_HINT)

    def checked(self, numbers: list[list[float]], first: int, last: int) -> Floats:
        """Candles as sorted, unique rows. Raises Trouble if they cannot be candles, or not those of [first, last]."""
        rows = np.array(numbers, dtype=np.float64).reshape(len(numbers), 6)
        if not np.isfinite(rows).all() or (rows[:, 1:5] <= 0).any() or (rows[:, 5] < 0).any():
            raise unusable("gave candles with impossible numbers")
        if not len(rows):
            return rows
        rows = np.unique(rows, axis=0)  # sorts by time; equal rows become one
        if (np.diff(rows[:, 0]) == 0).any():
            raise unusable("gave two candles for one time that contradict each other")
        if rows[-1, 0] > max(self.now + self.length_ms, self.session.exchange_ms() or 0):
            raise unusable("gave candles of the future (or this machine's clock is slow)")
        if rows[0, 0] < first or rows[-1, 0] > last:  # then the rest belongs to another question too
            raise unusable(f"gave other candles than those from {iso(first)} that were asked for")
        return rows


class _Binance(_Base):
    """Gives the next candles that exist, however far away; so no end is sent: an empty list means the end of all."""

    per_page = 1000

    def page(self, cursor: int, count: int) -> Floats:
        params = {"symbol": self.symbol.id, "interval": self.interval, "startTime": cursor, "limit": count}
        return self._klines(params, cursor)[:count]

    def after(self, cursor: int, rows: Floats, count: int) -> int:
        if len(rows):
            return align_down(int(rows[-1, 0]), self.timeframe) + self.length_ms
        newest = self._klines({"symbol": self.symbol.id, "interval": self.interval, "limit": 1}, 0)
        if not len(newest) or newest[-1, 0] >= cursor:
            raise self.unavailable(f"gave an empty list for candles from {iso(cursor)}")
        return self.now  # no longer traded

    def _klines(self, params: dict[str, Any], first: int) -> Floats:
        def read(answer: Any) -> Floats:
            return self.checked(_read_klines(answer), first, FOREVER)

        return self.session.ask(self.what, "publicGetKlines", params, read)


class _Coinbase(_Base):
    """Gives a window of fewer than 350 candles (300 here, as ccxt), newest first, and an empty list for a hole."""

    per_page = 300

    def page(self, cursor: int, count: int) -> Floats:
        stop = cursor + count * self.length_ms  # sent as the end, as ccxt does: the candle that opens there comes too
        window = {"start": str(cursor // 1000), "end": str(stop // 1000)}
        params = {"product_id": self.symbol.id, "granularity": self.interval, **window}

        def read(answer: Any) -> Floats:
            rows = self.checked(_read_buckets(answer), cursor, stop)
            return rows[rows[:, 0] < stop]

        return self.session.ask(self.what, PRODUCT + "Candles", params, read)

    def after(self, cursor: int, rows: Floats, count: int) -> int:
        stop = cursor + count * self.length_ms
        return stop if len(rows) else max(stop, self._next_day(cursor, stop))

    def _next_day(self, cursor: int, stop: int) -> int:
        """The first day with a candle from `cursor`'s day on, 300 days a request: how a long hole is stepped over."""
        days = _Coinbase(self.session, self.symbol, "1d", self.now)
        day = align_down(cursor, "1d")
        while day <= self.now:
            count = min(days.per_page, (self.now - day) // DAY_MS + 1)
            rows = settled(self.session, days, day, count)
            if len(rows):
                found = int(rows[0, 0])
                if cursor <= found <= stop - DAY_MS:
                    raise self.unavailable(f"gave an empty list although it has a 1d candle of {iso(found)}")
                return found
            day += count * DAY_MS
        params = {"product_id": self.symbol.id, "limit": 1}
        newest = self.session.ask(self.what, PRODUCT + "Ticker", params, _read_trade_ms)
        if newest is None or newest >= cursor:
            raise self.unavailable(f"gave an empty list for candles from {iso(cursor)}")
        return self.now  # no longer traded


_SOURCES: dict[str, Callable[[Session, Symbol, str, int], Source]] = {"binance": _Binance, "coinbase": _Coinbase}


def _read_klines(answer: Any) -> list[list[float]]:
    """Binance: [[open time ms, "open", "high", "low", "close", "volume", ...], ...]."""
    if not isinstance(answer, list):
        raise unusable("gave an answer that is no list of candles")
    try:
        return [[float(row[i]) for i in range(6)] for row in answer]
    except (TypeError, ValueError, LookupError):
        raise unusable("gave candles with numbers missing") from None


def _read_buckets(answer: Any) -> list[list[float]]:
    """Coinbase: {"candles": [{"start": "seconds", "low": "...", ...}, ...]}."""
    candles = answer.get("candles") if isinstance(answer, dict) else None
    if not isinstance(candles, list):
        raise unusable("gave an answer that is no list of candles")
    names = ("open", "high", "low", "close", "volume")
    try:
        return [[float(row["start"]) * 1000, *(float(row[name]) for name in names)] for row in candles]
    except (TypeError, ValueError, LookupError):
        raise unusable("gave candles with numbers missing") from None


def _read_trade_ms(answer: Any) -> int | None:
    """Coinbase: {"trades": [{"time": "2024-01-31T12:00:00.123Z", ...}]}; None without a trade."""
    try:
        trades = answer["trades"]
        return round(dt.datetime.fromisoformat(trades[0]["time"]).timestamp() * 1000) if trades else None
    except (TypeError, ValueError, LookupError):
        raise unusable("gave an answer that is no list of trades") from None
