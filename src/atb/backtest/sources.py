"""Where a backtest's candles come from: a file, the store (filled from an exchange), or the simulator.

A source knows its timeframe and which span it can serve before the strategy's lookback is known; `read` then gives the
span and the history before it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from atb.backtest.request import DEFAULT_DAYS, DEFAULT_SEED, Request, Span
from atb.core.errors import DataError, UsageError, nearest
from atb.core.timeframe import DAY_MS, align_down, check_timeframe, iso_minute, timeframe_ms
from atb.core.types import Symbol, symbol_for
from atb.core.words import are, counted, often
from atb.data.layout import SeriesKey, series_key
from atb.data.store import CandleStore
from atb.engine.candles import Candles

Report = Callable[[str], None]
Progress = Callable[[str, float], None]  # what is being done, share done

DEFAULT_TIMEFRAME = "1h"
LONGEST_DAYS = 36_500
MOST_SIMULATED = 100_000_000  # candles: 5 GB of columns


class Surroundings(NamedTuple):
    """What sources need from outside: the store, API roots, a clock, and where to say things."""

    store: CandleStore
    url: Callable[[str], str | None]  # of a venue's API, None: the real one
    now_ms: Callable[[], int]
    warn: Report
    progress: Progress
    rates: Path | None = None  # the folder of the budget of requests that all processes share
    timeout_s: Callable[[], float] = lambda: 10.0  # for each request


class Source(Protocol):
    """One symbol's candles."""

    symbol: Symbol
    venue: str  # where the candles are from
    rules_venue: str  # whose market rules apply
    timeframe: str
    simulated: bool

    def span(self) -> tuple[int, int]:
        """The run's range: open times, ms, end exclusive."""

    def read(self, history_bars: int) -> Candles:
        """The candles of the span and up to `history_bars` before it."""

    def describe(self) -> str:
        """Where the candles come from, in a few words."""


def open_sources(request: Request, around: Surroundings) -> list[Source]:
    """A source for each symbol of the request. UsageError where flags contradict each other."""
    request = _of_one_provider(request, around)
    _check(request)
    venue = "coinbase" if request.provider == "coinbase" else "binance"
    symbols = [symbol_for(venue, name) for name in request.symbols]
    doubled = {s.id for s in symbols if symbols.count(s) > 1}
    if doubled:
        raise UsageError(f"--symbol {', '.join(sorted(doubled))} was given more than once.")
    if request.data:
        _warn_of_one_file_for_two(symbols, request.data, around)
        return _align([FileSource(s, venue, p, request, around) for s, p in zip(symbols, request.data, strict=True)])
    if request.provider == "simulated":
        return [SimulatedSource(s, venue, request, around) for s in symbols]
    return _align([StoreSource(s, venue, request, around) for s in symbols])


def _of_one_provider(request: Request, around: Surroundings) -> Request:
    """Of several providers the first that answers, for all symbols."""
    if "," not in request.provider:
        return request
    from atb.market.fallback import first_that_answers, providers_of
    from atb.venue.reachable import reachable

    names = providers_of(request.provider)

    def answers(venue: str) -> bool:
        return request.offline or reachable(venue, around.url(venue), rates=around.rates)

    return request._replace(provider=first_that_answers(names, answers, around.warn))


def _check(request: Request) -> None:
    from atb.backtest.request import PROVIDERS

    if request.provider not in PROVIDERS:
        raise UsageError(f"Unknown provider '{request.provider}'.", nearest(request.provider, list(PROVIDERS)))
    if request.timeframe is not None:
        check_timeframe(request.timeframe)
    if request.provider == "file" and not request.data:
        raise UsageError("--provider file needs a file.", "Add --data candles.parquet.")
    if request.data and request.provider == "simulated":
        raise UsageError("--data and --provider simulated exclude each other.", "Leave one of them out.")
    if request.data and len(request.data) != len(request.symbols):
        raise UsageError(
            f"--symbol was given {often(len(request.symbols))}, --data {often(len(request.data))}.",
            "Give one --data for each --symbol, in order.",
        )
    if (request.scenario != "normal" or request.correlation) and request.provider != "simulated":
        raise UsageError(
            "--scenario and --correlation mean nothing here: the candles are not simulated.",
            "Leave them out, or use --provider simulated.",
        )
    if request.seed is not None and request.provider != "simulated":
        raise UsageError(
            f"--seed {request.seed} means nothing here: the candles are not simulated.",
            "Leave it out, or use --provider simulated without --data.",
        )
    _check_span(request.span)


def _warn_of_one_file_for_two(symbols: list[Symbol], paths: Sequence[Path], around: Surroundings) -> None:
    """A slip of the hand that would otherwise look like two symbols that move alike."""
    owners: dict[Path, list[str]] = {}
    for symbol, path in zip(symbols, paths, strict=True):
        owners.setdefault(path.absolute(), []).append(symbol.id)
    for path, names in owners.items():
        if len(names) > 1:
            around.warn(f"{' and '.join(names)} get the same candles: --data {path} was given {often(len(names))}.")


def _check_span(span: Span) -> None:
    if span.days is not None and not 0 < span.days <= LONGEST_DAYS:
        raise UsageError(f"--days (or --years) must be above 0 and at most {LONGEST_DAYS} days, not {span.days:g}.")
    if span.days is not None and span.start_ms is not None:
        raise UsageError(
            "--days (or --years) and --start exclude each other.", "Use --start with --end, or --days with --end."
        )
    if span.start_ms is not None and span.end_ms is not None and span.start_ms >= span.end_ms:
        raise UsageError(
            f"--start {iso_minute(span.start_ms)} is not before --end {iso_minute(span.end_ms)}.",
            "The end is exclusive.",
        )


def _align(sources: list[Source]) -> list[Source]:
    """All symbols of a run share one timeframe."""
    frames = {source.timeframe for source in sources}
    if len(frames) > 1:
        raise UsageError(
            f"The symbols have different timeframes: {', '.join(sorted(frames))}.", "A run has one timeframe."
        )
    return sources


def clip_span(span: Span, first_ms: int, end_ms: int, what: str) -> tuple[int, int]:
    """The part of [first_ms, end_ms) that `span` asks for. DataError when that is nothing."""
    end = end_ms if span.end_ms is None else min(span.end_ms, end_ms)
    start = first_ms if span.start_ms is None else max(span.start_ms, first_ms)
    if span.days is not None:
        start = max(first_ms, end - round(span.days * DAY_MS))
    if start >= end:
        raise DataError(
            f"{what} has candles from {iso_minute(first_ms)} to {iso_minute(end_ms)}, none in the range asked for.",
            "Change --start, --end or --days.",
        )
    return start, end


class FileSource:
    """The user's own Parquet or CSV file."""

    simulated = False
    venue = "file"

    def __init__(self, symbol: Symbol, rules_venue: str, path: Path, request: Request, around: Surroundings) -> None:
        from atb.data.files import load_file
        from atb.data.importing import drop_unfinished

        self.symbol, self.rules_venue, self.path, self.request = symbol, rules_venue, path, request
        candles = load_file(path, symbol.id, request.timeframe)
        self.candles, unfinished = drop_unfinished(candles, around.now_ms())
        if unfinished:
            have = "has" if unfinished == 1 else "have"
            around.warn(
                f"{path}: the last {counted(unfinished, 'candle')} {have} not closed yet and {are(unfinished)} left out."
            )
        self.timeframe = self.candles.timeframe

    def span(self) -> tuple[int, int]:
        times = self.candles.open_time
        end = int(times[-1]) + timeframe_ms(self.timeframe)
        return clip_span(self.request.span, int(times[0]), end, str(self.path))

    def read(self, history_bars: int) -> Candles:
        start, end = self.span()
        low, high = (int(i) for i in np.searchsorted(self.candles.open_time, (start, end)))
        return self.candles.window(max(0, low - history_bars), high)

    def describe(self) -> str:
        return f"file {self.path}"


class SimulatedSource:
    """The seeded market simulator."""

    simulated = True
    venue = "simulated"

    def __init__(self, symbol: Symbol, rules_venue: str, request: Request, around: Surroundings) -> None:
        self.symbol, self.rules_venue, self.request, self.around = symbol, rules_venue, request, around
        self.seed = DEFAULT_SEED if request.seed is None else request.seed
        self.timeframe = request.timeframe or DEFAULT_TIMEFRAME

    def span(self) -> tuple[int, int]:
        from atb.venue.simulated import SIMULATED_START_MS

        span = self.request.span
        length = timeframe_ms(self.timeframe)
        days = round((span.days or DEFAULT_DAYS) * DAY_MS)
        if span.start_ms is None and span.end_ms is not None:
            start = align_down(span.end_ms - days, self.timeframe)
        else:
            start = align_down(SIMULATED_START_MS if span.start_ms is None else span.start_ms, self.timeframe)
        end = align_down(start + days if span.end_ms is None else span.end_ms, self.timeframe)
        if (end - start) // length > MOST_SIMULATED:
            raise UsageError(
                f"More than {MOST_SIMULATED:,} simulated candles.", "Ask for fewer days or a longer timeframe."
            )
        return start, max(end, start + length)

    def read(self, history_bars: int) -> Candles:
        from atb.venue.scenarios import simulate_scenario

        start, end = self.span()
        count = (end - start) // timeframe_ms(self.timeframe)
        title = f"simulating {self.symbol.id} {self.timeframe}"
        (candles,) = simulate_scenario(
            [self.symbol.id], self.timeframe, start, count, self.seed, scenario=self.request.scenario,
            correlation=self.request.correlation, on_progress=partial(self.around.progress, title),
        )  # fmt: skip
        return candles

    def describe(self) -> str:
        happens = "" if self.request.scenario == "normal" else f", scenario {self.request.scenario}"
        return f"SIMULATED market, seed {self.seed}{happens}"


class StoreSource:
    """An exchange's candles: from the store, and what it lacks from the exchange into the store."""

    simulated = False

    def __init__(self, symbol: Symbol, venue: str, request: Request, around: Surroundings) -> None:
        self.symbol, self.venue, self.rules_venue, self.request, self.around = symbol, venue, venue, request, around
        self.timeframe = request.timeframe or DEFAULT_TIMEFRAME
        self.key: SeriesKey = series_key(venue, symbol, self.timeframe)
        self._span: tuple[int, int] | None = None
        self._reachable: bool | None = None

    def span(self) -> tuple[int, int]:
        if self._span is None:
            self._span = self._choose_span()
        return self._span

    def _choose_span(self) -> tuple[int, int]:
        """Fixed dates as they are; a span that ends "now" ends at the last stored candle where no exchange answers."""
        span = self.request.span
        now = align_down(self.around.now_ms(), self.timeframe)
        stored = self._stored_end()
        if span.start_ms is None and span.days is None and stored is not None:
            start, end = clip_span(span, self._stored_start(), stored, self._stored_name())
            if span.end_ms is None and end < now:
                self._tell(f"ends with the last stored candle, {iso_minute(end)}; --days N asks for newer ones")
            return start, end
        end = now if span.end_ms is None else min(span.end_ms, now)
        if span.end_ms is None and stored is not None and stored < now and not self._can_fetch():
            who = "is not asked" if self.request.offline else "does not answer"
            self._tell(f"ends with the last stored candle, {iso_minute(stored)}: {self.venue} {who}")
            end = stored
        days = round((span.days or DEFAULT_DAYS) * DAY_MS)
        start = max(0, end - days) if span.start_ms is None else span.start_ms
        if start >= end:
            raise DataError(f"--start {iso_minute(start)} is not before {iso_minute(end)}, where the candles end.")
        return start, end

    def _tell(self, text: str) -> None:
        self.around.warn(f"{self.symbol.id} {text}.")

    def _can_fetch(self) -> bool:
        """Whether the exchange may be asked and answers; asked once a run."""
        if self._reachable is None:
            from atb.venue.reachable import reachable

            self._reachable = not self.request.offline and reachable(
                self.venue, self.around.url(self.venue), rates=self.around.rates
            )
        return self._reachable

    def read(self, history_bars: int) -> Candles:
        start, end = self.span()
        start = max(0, align_down(start - history_bars * timeframe_ms(self.timeframe), self.timeframe))
        for low, high in self.around.store.wanted(self.key, start, end, self.around.now_ms()):
            self._fill(low, high)
        candles = self.around.store.read(self.key, start, end)
        if candles is None:
            raise DataError(
                f"There are no {self.timeframe} candles of {self.symbol.id} at {self.venue} from {iso_minute(start)} to "
                f"{iso_minute(end)}.",
                "Change --start, --end or --days.",
            )
        return candles

    def _fill(self, low: int, high: int) -> None:
        """Fetch a missing range into the store, page by page: what was fetched stays, whatever happens next."""
        if high <= self.span()[0] and not self._wants_history():
            return  # only history for the warm-up is missing; the report says that the strategy warms up inside the range
        if self.request.offline:
            raise DataError(
                f"The store lacks {self.symbol.id} {self.timeframe} from {iso_minute(max(low, self.span()[0]))} "
                f"to {iso_minute(high)}.",
                "Leave out --offline to fetch it, or give --data FILE. What there is: atb data list",
            )
        from atb.backtest.download import download
        from atb.market.filling import ATTEMPTS

        # Where nobody answers a ping, one attempt tells why; the usual patience would take most of a minute.
        download(self.key, self.symbol, low, high, self.around, ATTEMPTS if self._can_fetch() else 1)

    def _wants_history(self) -> bool:
        """History before a given start is worth asking for; before all that is stored it is not, nor of a dead exchange, nor
        where its proxy cannot be used."""
        span = self.request.span
        with contextlib.suppress(UsageError):
            return (span.start_ms is not None or span.days is not None) and self._can_fetch()
        return False

    def describe(self) -> str:
        return f"{self.venue} candles, stored under {self.around.store.where(self.key)}"

    def _stored_start(self) -> int:
        return self.around.store.parts(self.key)[0].start_ms

    def _stored_end(self) -> int | None:
        parts = self.around.store.parts(self.key)
        return max(part.end_ms for part in parts) if parts else None

    def _stored_name(self) -> str:
        return f"The store of {self.venue} {self.symbol.id} {self.timeframe}"
