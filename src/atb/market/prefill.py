"""Many series and long ranges at once: pages are asked for side by side, within the budget of requests that all share.

A chunk of pages is stored as one part as soon as all of it is there, the oldest first. Whoever is killed has lost the pages of
the chunks that were under way; the next run asks for what no part covers.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import NamedTuple

import numpy as np

from atb.core.errors import AtbError, ExchangeUnavailable
from atb.core.timeframe import DAY_MS, align_down
from atb.core.types import Symbol
from atb.data.compacting import compact
from atb.data.corrections import Correction
from atb.data.layout import SeriesKey
from atb.data.part_writer import PAGES_PER_PART, store_rows, whole_until
from atb.data.store import CandleStore, no_candles
from atb.engine.candles import Floats
from atb.market.filling import Asking, overlapping
from atb.venue.candle_sources import first_open_ms, length_ms, open_source
from atb.venue.ccxt_candles import candle_pages
from atb.venue.ccxt_markets import explained
from atb.venue.ccxt_session import Patience, Session

WORKERS = 16
ROUNDS = 4  # how often a page is asked for anew, beyond the patience of each request
LONGEST_REST_S = 30.0
LONGEST_SILENCE_S = 600.0  # that an exchange may ask for and that is sat out
LOOK_EVERY_S = 0.1
QUIET_S = 2.0  # without an answer, after which it is said what is waited for
FEW_PARTS = 4  # so many small parts are merged at the end


class Job(NamedTuple):
    """A series and the range that is wanted of it: ms, end exclusive."""

    key: SeriesKey
    symbol: Symbol
    start_ms: int
    end_ms: int


class Outcome(NamedTuple):
    """What became of a job. candles: that were fetched; trouble: why not all of it is there now."""

    job: Job
    candles: int
    corrections: list[Correction]
    trouble: AtbError | None


class Done(NamedTuple):
    """How far all is. share: of the time that was missing; resting: why and for how many seconds nothing is asked."""

    share: float
    candles: int
    resting: str = ""


class Stopped(Exception):
    """Somebody wants no more of it."""


def prefill(
    store: CandleStore, jobs: Sequence[Job], now_ms: int, asking: Asking, *, workers: int = WORKERS,
    progress: Callable[[Done], None] = lambda _: None,
) -> list[Outcome]:  # fmt: skip
    """Fetch what is missing of all jobs. One that fails does not keep the others from being done; what came is stored.

    now_ms: what closes later is left alone.
    """
    work = _Work(store, now_ms, asking, [_Series(job) for job in jobs])
    with ThreadPoolExecutor(max(1, workers), "prefill") as pool:
        try:
            waiting = {pool.submit(work.begin, series) for series in work.series}
            while waiting:
                done, waiting = wait(waiting, LOOK_EVERY_S, FIRST_COMPLETED)
                for future in done:
                    waiting |= {pool.submit(task) for task in future.result()}
                progress(work.done())
        except BaseException:
            work.stop.set()
            pool.shutdown(cancel_futures=True)
            work.keep_what_came()
            raise
        finally:
            work.close()
    for series in work.series:
        if series.candles:
            compact(store, series.job.key, FEW_PARTS)
    return [Outcome(s.job, s.candles, s.corrections, s.trouble) for s in work.series]


Task = Callable[[], "list[Task]"]  # which tasks follow it


class _Series:
    """A job under way."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.missing_ms = self.done_ms = self.candles = 0
        self.corrections: list[Correction] = []
        self.trouble: AtbError | None = None


class _Chunk:
    """Pages that become a part: what was told for each, in order of time; None: not yet."""

    def __init__(self, series: _Series, spans: list[tuple[int, int]]) -> None:
        self.series, self.spans = series, spans
        self.pages: list[Floats | None] = [None] * len(spans)


class _Work:
    """What the threads share."""

    def __init__(self, store: CandleStore, now_ms: int, asking: Asking, series: list[_Series]) -> None:
        self.store, self.now_ms, self.asking, self.series = store, now_ms, asking, series
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._mine = threading.local()
        self._sessions: list[Session] = []
        self._chunks: set[_Chunk] = set()
        self._away: dict[str, ExchangeUnavailable] = {}  # by venue
        self._known_ms: dict[str, int] = {}  # by venue: up to when its answers can be complete
        self._answered_s = time.monotonic()
        self._resting: dict[int, tuple[float, float]] = {}  # by thread: since when, for how long

    def begin(self, series: _Series) -> list[Task]:
        """Which pages are missing: tasks for them."""
        job = series.job
        tasks: list[Task] = []
        with self._noted(series):
            step = length_ms(self._session(job.key.venue), job.key.timeframe)
            start = align_down(job.start_ms + step - 1, job.key.timeframe)
            end = min(job.end_ms, align_down(self.now_ms, job.key.timeframe))
            missing = self.store.wanted(job.key, start, end, self.now_ms)
            series.missing_ms = sum(high - low for low, high in missing)
            for span in missing:
                for chunk in self._chunks_of(series, span, step):
                    self._chunks.add(chunk)
                    tasks += [lambda chunk=chunk, i=i: self.fetch(chunk, i) for i in range(len(chunk.spans))]  # type: ignore[misc]
        return tasks

    def fetch(self, chunk: _Chunk, i: int) -> list[Task]:
        """A page; the last one of its chunk stores the part."""
        series = chunk.series
        if series.trouble is not None:
            return []
        with self._noted(series):
            rows = self._asked(series, chunk.spans[i])
            with self._lock:
                chunk.pages[i] = rows
                whole = all(page is not None for page in chunk.pages)
                series.candles += len(rows)
                series.done_ms += chunk.spans[i][1] - chunk.spans[i][0]
            if whole:
                self._store(chunk, len(chunk.pages))
        return []

    def done(self) -> Done:
        with self._lock:
            wanted, done = sum(s.missing_ms for s in self.series), sum(s.done_ms for s in self.series)
            rests = [since + seconds - time.monotonic() for since, seconds in self._resting.values()]
        quiet_s = time.monotonic() - self._answered_s
        resting = f"waiting {max(0.0, min(rests)):.0f} s for the exchange" if rests and quiet_s > QUIET_S else ""
        candles = sum(s.candles for s in self.series)
        return Done(min(1.0, done / wanted) if wanted else 1.0, candles, resting)

    def keep_what_came(self) -> None:
        """Of chunks that nobody finishes, the pages up to the first that did not come."""
        for chunk in list(self._chunks):
            count = next((i for i, page in enumerate(chunk.pages) if page is None), len(chunk.pages))
            if count:
                with contextlib.suppress(AtbError):
                    self._store(chunk, count)

    def close(self) -> None:
        for session in self._sessions:
            session.close()

    def _chunks_of(self, series: _Series, span: tuple[int, int], step: int) -> list[_Chunk]:
        job, (start, end) = series.job, overlapping(self.store, series.job.key, span)
        session = self._session(job.key.venue)
        source = open_source(session, job.symbol, job.key.timeframe, self.now_ms)
        length = source.per_page * step
        if start == span[0] and end - start > length:  # nothing is known of before: it may not have been listed
            with explained(session, job.symbol):
                first = min(first_open_ms(session, source, start), end)
            if first >= end:  # nothing is there; a candle that is to come yet is not missing
                first = min(end, align_down(self._known(session) - DAY_MS, job.key.timeframe))
            if first > start:
                self.store.add(job.key, no_candles(job.key), start, first)
                series.done_ms += first - start
                start = first
        spans = [(at, min(at + length, end)) for at in range(start, end, length)]
        series.done_ms -= max(0, span[0] - start)
        return [_Chunk(series, spans[i : i + PAGES_PER_PART]) for i in range(0, len(spans), PAGES_PER_PART)]

    def _asked(self, series: _Series, span: tuple[int, int]) -> Floats:
        """The candles of a span; an exchange that fails is asked again after a while."""
        job = series.job
        for left in reversed(range(ROUNDS if self.asking.attempts > 1 else 1)):
            if self.stop.is_set():
                raise Stopped
            if (away := self._away.get(job.key.venue)) is not None:
                raise away
            if not self.store.missing_ranges(job.key, *span):  # another process was faster
                return np.empty((0, 6))
            try:
                session = self._session(job.key.venue)
                pages = candle_pages(session, job.symbol, job.key.timeframe, *span, self.now_ms)
                rows = [page.rows for page in pages]
                self._known(session)
                self._answered_s = time.monotonic()
                return np.concatenate(rows) if rows else np.empty((0, 6))
            except ExchangeUnavailable as error:
                if not left:
                    self._away[job.key.venue] = error
                    raise
                self._rest(min(2.0 ** (ROUNDS - left), LONGEST_REST_S))
        raise AssertionError("the last round returns or raises")

    def _known(self, session: Session) -> int:
        """As of the first answer of all: those that follow know no less."""
        return self._known_ms.setdefault(session.venue, session.known_ms(self.now_ms))

    def _store(self, chunk: _Chunk, count: int) -> None:
        series, key = chunk.series, chunk.series.job.key
        rows = np.concatenate([page for page in chunk.pages[:count] if page is not None])
        start, end = chunk.spans[0][0], chunk.spans[count - 1][1]
        known_ms = self._known_ms.get(key.venue, self.now_ms)
        found = store_rows(self.store, key, rows, (start, whole_until(end, known_ms)), self.now_ms)
        with self._lock:
            series.corrections += found
            self._chunks.discard(chunk)

    @contextlib.contextmanager
    def _noted(self, series: _Series) -> Iterator[None]:
        """What goes wrong with a series is its own: the others go on."""
        try:
            yield
        except Stopped:
            pass
        except AtbError as error:
            series.trouble = series.trouble or error

    def _session(self, venue: str) -> Session:
        """This thread's own."""
        mine = self._mine.__dict__.setdefault("sessions", {})
        if venue not in mine:
            patience = Patience(self.asking.timeout_s, self.asking.attempts, max_wait_s=LONGEST_SILENCE_S)
            session = mine[venue] = Session(venue, self.asking.url(venue), patience, rates=self.asking.rates)
            session.sleep = self._rest
            with self._lock:
                self._sessions.append(session)
        return mine[venue]  # type: ignore[no-any-return]

    def _rest(self, seconds: float) -> None:
        me = threading.get_ident()
        with self._lock:
            self._resting[me] = time.monotonic(), seconds
        try:
            if self.stop.wait(seconds):
                raise Stopped
        finally:
            with self._lock:
                self._resting.pop(me, None)
