"""Candles as they close, for a live trader: asked of the exchange by REST, given once, in order, with their windows.

    feed = Feed(tail, history, symbols, "1h", lookback, clock, tell, after_ms=state.last_open_ms)
    feed.prepare()                       # lookbacks, from the store and the exchange
    while trading:
        for row in feed.poll(): ...      # closed candles: row.open_ms, row.windows
        feed.running()                   # the candles that have not closed
        wait until feed.next_due_ms()

With a stream (live/listener.py) closes are seen as they are told, and what runs is asked for less often.

A window is what a backtest of the exchange's history sees at that candle, bit for bit: the `lookback` candles that exist,
whatever the times between them. When a candle counts as closed and final: venue/candle_tail.py, live/candle_series.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from atb.core.errors import DataError, ExchangeRefused, ExchangeUnavailable
from atb.core.timeframe import Clock, align_down, iso_minute
from atb.core.types import Symbol
from atb.core.words import counted
from atb.engine.candles import COLUMNS, Candles, Floats
from atb.execution.executor import Event
from atb.live.candle_history import PART_MS, History
from atb.live.candle_series import FINAL_AFTER_MS, CandleSeries, Correction, News, Numbers
from atb.live.listener import Listener, Stream
from atb.live.looks import Look
from atb.venue.candle_tail import DATE_MS, CandleTail

if TYPE_CHECKING:
    from atb.venue.candle_stream import Link

DELAY_MS = 1_000  # after a close, until it is worth looking
AGAIN_MS = 1_000  # between two looks at what is not settled
AWAITED_MS = 250  # and where a stream has told already what it will be
HEARD_MS = 300_000  # between two looks at what a stream tells
PATIENT_MS = 10_000  # after a close, for how long a missing candle is looked for so often
LONGEST_BACKOFF_MS = 30_000
MOST_PAGES = 200  # in one poll and symbol: a year of 5m at Binance
MOST_FAILURES = 2  # in one poll, one after the other: the rest would only wait, too
HURRY_MS = 2_000
FRESH_MS = 15 * 60_000


class Row(NamedTuple):
    """The candles of one time that have closed: by symbol the window that ends with it."""

    open_ms: int
    windows: Mapping[str, Candles]


class Running(NamedTuple):
    """A candle as far as it has come."""

    open_ms: int
    open: float
    high: float
    low: float
    last: float


class Feed:
    """Symbols of one timeframe at one venue. Not for several threads.

    stirred: set when a stream tells of a close; who waits for it clears it.

    lookback: candles a symbol's window has. after_ms: the open time of the last row that was decided; None: rows begin with what
    closes from now on. look_every_s: between closes. grace_s: how long a row waits for a late symbol. stale_after_s: see `stale`.
    """

    def __init__(
        self, tail: CandleTail, history: History, symbols: Sequence[Symbol], timeframe: str, lookback: Sequence[int],
        clock: Clock, tell: Callable[[Event], None] = lambda _: None, *, after_ms: int | None = None,
        look_every_s: float = 60.0, grace_s: float = 5.0, stale_after_s: float | None = None, stream: Stream | None = None,
    ) -> None:  # fmt: skip
        self.timeframe, self.step_ms = timeframe, tail.length_ms(timeframe)
        self.series = [CandleSeries(s, timeframe, self.step_ms, n) for s, n in zip(symbols, lookback, strict=True)]
        self.trouble: dict[str, str] = {}  # by symbol, why there is nothing new of it
        self.grace_ms = round(grace_s * 1000)
        self.stale_after_s = stale_after_s or max(2 * look_every_s, min(self.step_ms, FRESH_MS) / 1000)
        self._tail, self._history, self._clock, self._tell = tail, history, clock, tell
        self._every_ms = round(look_every_s * 1000)
        # Symbols that are looked at more often: nothing rests for what is held of them.
        self.hurried: Collection[str] = ()
        self._next_ms = 0 if after_ms is None else after_ms + self.step_ms  # the next row
        self._ahead_ms = 0
        self._looks = {s.symbol.id: Look() for s in self.series}
        self.stirred = threading.Event()
        self._listener = None if stream is None else Listener(stream, self.series, self._looks, tell)

    def prepare(self) -> None:
        """Load what the windows look back on. DataError, ExchangeUnavailable, ExchangeRefused, UsageError: no trading yet.

        May be called again.
        """
        for series in self.series:
            asked = self._clock.now_ms()
            self._measure(self._tail.clock_ms(series.symbol, self.timeframe), asked)
        now = self.exchange_now_ms()
        end = align_down(now - FINAL_AFTER_MS, self.timeframe)  # what closed just now is not history yet
        first = self._next_ms or end
        for series in self.series:
            bars = series.lookback - 1
            rows, until = self._history.load(series.symbol, self.timeframe, min(first, end), end, bars, now)
            series.begin(rows, until)
            self._looks[series.symbol.id] = Look(stored_ms=until)
            if missing := _missing(rows, self.step_ms):
                self._say("info", "candle_gap", f"{series.symbol.id}: the exchange has no candle for {missing} of the "
                          f"{len(rows) + missing} times since {iso_minute(int(rows[0, 0]))}.")  # fmt: skip
        self._next_ms = first

    def poll(self) -> list[Row]:
        """Ask for what is due; the rows that are complete, in order. What passes by itself is told, not raised."""
        now = self._clock.now_ms()
        if self._listener is not None:
            self._listener.hear(now, self.exchange_now_ms())
        due = sorted((s for s in self.series if self._due_ms(s) <= now), key=lambda s: self._look_of(s).failures)
        failed: list[str] = []  # one after the other
        for series in due:
            if len(failed) == MOST_FAILURES:
                self._look_of(series).failed(now, failed[-1])
            else:
                failed = [] if self._ask(series) else [*failed, self._look_of(series).trouble]
        self._tell_trouble(now)
        rows = self._rows(now)
        for series in () if rows else self.series:  # whoever decides on rows does not wait for a disk
            self._store(series)
        return rows

    def listen(self) -> None:
        """Open the stream, where there is one. May be called again."""
        if self._listener is not None:
            self._listener.start(self.stirred.set)

    @property
    def stream(self) -> Link | None:
        """Whether the stream is heard; None where there is none."""
        return None if self._listener is None else self._listener.link

    def next_due_ms(self) -> int:
        """When to poll next, by this machine's clock: soon after a close, else as often as it was asked for."""
        dues = [self._due_ms(series) for series in self.series]
        graces = [look.waited_ms + self.grace_ms for look in self._looks.values() if look.waited_ms is not None]
        now = self._clock.now_ms()
        return min(dues + [due for due in graces if due > now])

    def running(self) -> dict[str, Running]:
        """The candles that have opened, of symbols of which all before was given: not while a close is being settled."""
        rows = {s.symbol.id: s.running for s in self.series if s.running is not None and s.until_ms == self._next_ms}
        return {
            name: Running(self._next_ms, *row[1:5].tolist()) for name, row in rows.items() if row[0] == self._next_ms
        }

    def closed_after(self, symbol_id: str, open_ms: int) -> Floats:
        """The rows (open time, open, high, low, close, volume) of a symbol after one time, of rows that were given or that it
        was late for."""
        series = next(s for s in self.series if s.symbol.id == symbol_id)
        return series.between(open_ms, self._next_ms)

    def stale(self, now_ms: int) -> dict[str, float]:
        """Symbols of which nothing is known for too long, and for how many seconds: no entries, but every exit.

        Too long: by default the timeframe, at most 15 minutes, at least two looks. A candle that runs counts as known.
        """
        now = now_ms + self._ahead_ms
        ages = {s.symbol.id: (now - s.fresh_ms) / 1000 for s in self.series}
        return {name: age for name, age in ages.items() if age > self.stale_after_s}

    @property
    def next_open_ms(self) -> int:
        """The open time of the row that comes next: of the candles that run."""
        return self._next_ms

    def exchange_now_ms(self) -> int:
        """This machine's clock, put right by as much as the exchange's answers prove it wrong."""
        return self._clock.now_ms() + self._ahead_ms

    def close(self) -> None:
        """Store what is not stored yet, and close the connections."""
        if self._listener is not None:
            self._listener.close()
        for series in self.series:
            self._store(series, at_once=True)
        self._history.close()
        self._tail.close()

    # Asking.

    def _look_of(self, series: CandleSeries) -> Look:
        return self._looks[series.symbol.id]

    def _due_ms(self, series: CandleSeries) -> int:
        look = self._look_of(series)
        every_ms = min(self._every_ms, HURRY_MS) if series.symbol.id in self.hurried else self._every_ms
        if look.tried_ms is None:
            return 0
        if look.failures:
            return look.tried_ms + min(AGAIN_MS << min(look.failures - 1, 9), LONGEST_BACKOFF_MS)
        if look.called:
            return 0
        close = series.until_ms + self.step_ms - self._ahead_ms + DELAY_MS
        if series.awaited and look.tried_ms < close + DELAY_MS:
            # The exchange may be a second further than its answers prove; a stream that is more so is not waited for so often.
            return max(look.tried_ms + min(AWAITED_MS, every_ms), close - 2 * DELAY_MS)
        if look.tried_ms < close:
            heard = min(look.heard_ms + every_ms, look.tried_ms + max(every_ms, HEARD_MS))
            return min(max(look.tried_ms + every_ms, heard), close)
        soon = series.unsettled or look.tried_ms < close + PATIENT_MS
        return look.tried_ms + (min(AGAIN_MS, every_ms) if soon else every_ms)

    def _ask(self, series: CandleSeries) -> bool:
        """Whether there was an answer."""
        look = self._look_of(series)
        for _ in range(MOST_PAGES):
            asked, before = self._clock.now_ms(), series.until_ms
            try:
                tail = self._tail.look(series.symbol, self.timeframe, series.since_ms)
            except (ExchangeUnavailable, ExchangeRefused) as error:
                look.failed(asked, error.what)
                return False
            self._measure(tail.exchange_ms, asked)
            self._tell_news(series, series.take(tail))
            if not tail.more or series.until_ms == before:
                break
        look.answered(self._clock.now_ms())
        return True

    def _measure(self, exchange_ms: int, asked_ms: int) -> None:
        """How far the exchange's clock is ahead (below zero: behind) for certain: it names whole seconds, answers take time."""
        least, most = exchange_ms - self._clock.now_ms(), exchange_ms + DATE_MS - asked_ms
        self._ahead_ms = max(least, min(most, 0))

    def _store(self, series: CandleSeries, at_once: bool = False) -> None:
        look = self._look_of(series)
        start, end = look.stored_ms, series.until_ms
        if end <= start or (end - start < PART_MS and not at_once):
            return
        try:
            self._history.append(series.symbol, self.timeframe, series.between(start - 1, end), start, end)
            look.stored_ms = end
        except DataError as error:  # trading needs no store: the exchange has them, too
            if not look.unstored:
                self._say("warning", "candles_not_stored", error.what)
            look.unstored = True
        else:
            look.unstored = False

    # Rows.

    def _rows(self, now: int) -> list[Row]:
        rows: list[Row] = []
        while (settled := self._settled(now)) is not None:
            at = self._next_ms
            windows = {s.symbol.id: s.window(at) for s in settled if s.has(at)}
            if windows:
                rows.append(Row(at, windows))
            self._next_ms += self.step_ms
        for series in self.series:
            series.drop_before(self._next_ms - self.step_ms)
        return rows

    def _settled(self, now: int) -> list[CandleSeries] | None:
        """Of whom the next row consists; None while it waits."""
        at = self._next_ms
        settled = [s for s in self.series if s.until_ms > at]
        for series in settled:
            self._look_of(series).came()
        late = [s for s in self.series if s.until_ms <= at]
        waits = [self._waits(s, now) for s in late if settled]  # each is noted
        if not settled or any(waits):
            return None
        for series in late:
            if self._look_of(series).is_late():
                self._say("warning", "candle_late", f"{series.symbol.id} {self.timeframe} of {iso_minute(at)} did not come "
                          f"in {self.grace_ms / 1000:g} s: nothing is decided for it until it has caught up.")  # fmt: skip
        return settled

    def _waits(self, series: CandleSeries, now: int) -> bool:
        """A symbol that was waited for once is not waited for again until it has caught up."""
        look = self._look_of(series)
        if look.waited_ms is None:
            look.waited_ms = now
        return now < look.waited_ms + self.grace_ms

    # What an operator should know.

    def _say(self, severity: str, code: str, message: str) -> None:
        self._tell(Event(severity, code, message))

    def _tell_news(self, series: CandleSeries, news: News) -> None:
        name = f"{series.symbol.id} {self.timeframe}"
        for at, count in news.gaps:
            self._say("info", "candle_gap", f"{name}: the exchange has {_no(count)} from {iso_minute(at)} on.")
        if news.corrections:
            self._history.corrected(series.symbol, self.timeframe, news.corrections, self._clock.now_ms())
        for correction in news.corrections:
            self._say("warning", "candle_corrected", f"{name} {_corrected(correction)}")
        for other in news.otherwise:
            changed = _changed(other.had or (), other.has)
            self._say("warning", "stream_differs", f"{name} of {iso_minute(other.open_ms)} was told by the stream with "
                      f"{changed}, which was taken.")  # fmt: skip

    def _tell_trouble(self, now: int) -> None:
        """When it begins, and when it ends: once for all symbols that it has in common."""
        trouble = {s.symbol.id: look.trouble for s in self.series if (look := self._look_of(s)).failures}
        began, ended = sorted(trouble.keys() - self.trouble), sorted(self.trouble.keys() - trouble.keys())
        self.trouble = trouble
        if began:
            self._say("warning", "candles_unavailable", f"No candles of {', '.join(began)}: {trouble[began[0]]}")
        if ended:
            since = min(self._looks[name].began_ms for name in ended)
            self._say(
                "info", "candles_available", f"Candles of {', '.join(ended)} again, after {(now - since) // 1000} s."
            )


def _missing(rows: Floats, step_ms: int) -> int:
    return round(float(rows[-1, 0] - rows[0, 0]) / step_ms) + 1 - len(rows) if len(rows) else 0


def _no(count: int) -> str:
    return "no candle" if count == 1 else f"none of {counted(count, 'candle')}"


def _corrected(c: Correction) -> str:
    if c.had is None:
        return f"of {iso_minute(c.open_ms)}: there is one after all; it was decided without it."
    return f"of {iso_minute(c.open_ms)} was given with {_changed(c.had, c.has)}; what was given stays."


def _changed(had: Numbers, has: Numbers) -> str:
    columns = zip(COLUMNS, had[1:], has[1:], strict=True)
    return ", ".join(f"{name} {before!r}, now {after!r}" for name, before, after in columns if before != after)
