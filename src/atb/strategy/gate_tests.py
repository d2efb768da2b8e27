"""The gate's tests of one series, see gate.py for what they show and why they are enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from atb.core.errors import StrategyError
from atb.core.timeframe import iso_minute
from atb.core.words import counted
from atb.engine.candles import COLUMNS, Candles, Floats, Ints, Mask
from atb.strategy.contract import Strategy
from atb.strategy.gate_series import WILD, another_market, gaps_of, nudged, patchwork, spread, wild_future
from atb.strategy.loader import load_again
from atb.strategy.signals import ask, lookback_of, source_path

CONFIRMED = 1_000  # suspects whose exact windows are asked for, at most
EARLIER = 2_000  # and candles before the first of them that is confirmed
LAG_WINDOWS = 25
HOLES = 200  # candles beside gaps in time that are asked for alone
TOLERANCE = 1e-9
GRAVE = 1e-6  # a difference that is no rounding, whatever the candles
UNSTABLE = "unstable: asked again for the same candles, the signal of {} differs."

Progress = Callable[[int, int], None]


class Finding(NamedTuple):
    """A test that failed, at t, the first candle of it. kind: future, memory, unstable, warm-up, lag or rounding.

    fatal: refuses the strategy; the others are warnings.
    """

    kind: str
    t: int
    open_ms: int
    message: str
    fatal: bool = True


def different(a: Floats, b: Floats, min_confidence: float, exact: bool) -> Mask:
    """Where two answers differ: in any bit, or (not exact) by more than 1e-9 or in the decision they stand for."""
    both_nan = np.isnan(a) & np.isnan(b)
    if exact:
        return np.asarray(~((a == b) | both_nan))
    with np.errstate(invalid="ignore"):
        near = (a == b) | (np.abs(a - b) <= TOLERANCE)
        same_zone = ((a >= min_confidence) == (b >= min_confidence)) & (
            (a <= -min_confidence) == (b <= -min_confidence)
        )
    return np.asarray(~((near & same_zone) | both_nan))


class Gate:
    """The tests, over one series and its signals. They gather suspects; `outside` names the one to report.

    They ask a newcomer: what `strategy`, who gave the signals, may have kept of the series would hide what it leaks.
    For the same reason single windows, in order of time, come before longer series.
    """

    def __init__(
        self, strategy: Strategy, candles: Candles, signals: Floats, min_confidence: float, exact: bool
    ) -> None:
        self.witness, self.strategy = strategy, newcomer(strategy)
        self.candles, self.signals = candles, signals
        self.min_confidence, self.exact = min_confidence, exact
        self.lookback = lookback_of(strategy)
        self.alone, self.suspects, self.grave, self.inexact = np.zeros((4, len(candles)), bool)

    def windows(self, points: Iterable[int]) -> None:
        """The exact window of each point, alone."""
        for t in points:
            if not self.alone[t]:
                self.alone[t] = True
                self._compare(np.array([t]), np.array([self._alone(t)]))

    def decimals(self, points: Iterable[int]) -> None:
        """Windows with the decimal scale that they alone have, as in live trading, not that of the whole series.

        Sums of numbers of other scales may round otherwise, so only what is more than rounding counts.
        """
        for t in points:
            answers = self._tolerant(self._with_own_scale(t))
            answer = np.array([np.nan if answers is None else answers[-1]])
            differs = different(self.signals[t : t + 1], answer, self.min_confidence, exact=False)
            self.suspects[t] |= differs[0]
            self.grave[t] |= differs[0]

    def holes(self) -> Ints:
        """Candles beside a gap in time, where a look at the next one's time would show; some, if there are many."""
        steps = np.diff(self.candles.open_time)
        after = np.flatnonzero(steps != np.min(steps)) if len(steps) else np.zeros(0, dtype=np.int64)
        points = np.unique(np.concatenate([after, after + 1]))
        points = points[(points >= self.lookback - 1) & (points < len(self.candles))]
        return np.asarray(points[spread(0, len(points), HOLES)])

    def before_news(self, start: int, stop: int, count: int) -> Ints:
        """Candles just before a side series changes, where a look at its next value would show; some, if there are many."""
        changes = np.zeros(max(0, stop - start - 1), bool)
        for side in self.candles.sides.values():
            column = side[start:stop]
            changes |= (column[1:] != column[:-1]) & ~(np.isnan(column[1:]) & np.isnan(column[:-1]))
        points = np.flatnonzero(changes) + start
        points = points[points >= start + self.lookback - 1]
        return np.asarray(points[spread(0, len(points), count)])

    def patchworks(self, batches: Iterator[Ints], on_progress: Progress | None = None) -> None:
        """Many windows at once, in foreign surroundings."""
        done, total = 0, len(gaps_of(self.lookback)) * (len(self.candles) - self.lookback + 1)
        for points in batches:
            rows, series = patchwork(self.candles, points, self.lookback)
            answers = self._tolerant(series)
            if answers is None:
                self.windows(points)
            else:
                self._compare(points, answers[rows])
            done += len(points)
            if on_progress is not None:
                on_progress(done, total)

    def futures(self, start: int, stop: int, cuts: int) -> None:
        """Replace what follows a cut by a wild market; nothing up to the cut may move."""
        part = self.candles.window(start, stop)
        for cut in spread(self.lookback - 1, stop - start, cuts):
            for factor in WILD:
                self._compare_part(start, self._tolerant(wild_future(part, int(cut), factor, self.lookback)), int(cut))

    def stretch(self, start: int, stop: int) -> None:
        """A series that begins later must give the same signals once its own warm-up is over."""
        self._compare_part(start, self._tolerant(self.candles.window(start, stop)), stop - start - 1)

    def outside(self) -> list[Finding]:
        """The first candle whose signal depends on anything but its window: future, memory, or a matter of rounding."""
        t = self._first(self.suspects, self.grave, self.exact)
        if t is not None:
            return [self._finding(*self._explained(t), t)]
        t = self._first(self.inexact, self.grave, exact=True)
        if t is None:
            return []
        text = "asked for alone, the signal of {} differs in its last digits (by up to 1e-9), with the same decision."
        return [self._finding("rounding", text, t, fatal=False)]

    def unstable(self) -> list[Finding]:
        """Asked again, or asked other things before, a strategy must answer the same."""
        other = newcomer(self.witness)
        self._tolerant(self.candles.window(len(self.candles) - self.lookback, len(self.candles)), other)
        for asked in (self.witness, other):
            differs = self._differs(self.signals, ask(asked, self.candles))
            if differs.any():
                return [self._finding("unstable", UNSTABLE, int(np.argmax(differs)))]
        return []

    def warm_up(self) -> list[Finding]:
        """Before its lookback is filled a strategy has no signal."""
        early = ~np.isnan(self.signals[: self.lookback - 1])
        if not early.any():
            return []
        text = f"warm-up: {{}} has a signal before the {counted(self.lookback, 'candle')} of lookback_bars; it must be NaN."
        return [self._finding("warm-up", text, int(np.argmax(early)))]

    def lag(self, fatal: bool) -> list[Finding]:
        """Some change of some last candle must change its signal, or the strategy does not look at it.

        Tried where signals change, and just before, with changes that are large but of the kind that happens.
        """
        if self._constant():
            return []
        for t in self._turns():
            window = self._window(t)
            for series in nudged(window):
                answers = self._tolerant(series)
                if answers is not None and self._differs(self.signals[t : t + 1], answers[-1:]).any():
                    return []
        text = (
            "lag: no change of the last candle's prices, volume or side series changes its signal (tried from {} on); "
        )
        text += "the strategy answers at least one candle late."
        return [self._finding("lag", text, self.lookback - 1, fatal)]

    def _constant(self) -> bool:
        """Whether one answer is all there is, or another market would change none: such a signal cannot be late."""
        known = self.signals[~np.isnan(self.signals)]
        if len(known) == 0 or bool(np.all(known == known[0])):
            return True
        strange = self._tolerant(another_market(self.candles))
        return strange is not None and not self._differs(self.signals, strange).any()

    def _turns(self) -> Ints:
        """Candles where the signal changes, those before them, and some others."""
        first, n = self.lookback - 1, len(self.signals)
        turns = np.flatnonzero(self.signals[first + 1 :] != self.signals[first:-1]) + first + 1
        turns = turns[spread(0, len(turns), LAG_WINDOWS)]
        return np.unique(np.concatenate([turns, turns - 1, spread(first, n, LAG_WINDOWS)]))

    def _first(self, suspects: Mask, grave: Mask, exact: bool) -> int | None:
        """The first candle whose exact window contradicts its signal; if no suspect's does, the first grave one."""
        points = np.flatnonzero(suspects)[:CONFIRMED]
        found = next((int(t) for t in points if self._contradicted(t, exact)), None)
        if found is None:
            return int(np.argmax(grave)) if grave.any() else None
        earlier = range(self.lookback - 1, min(found, self.lookback + EARLIER))
        return next((t for t in earlier if self._contradicted(t, exact)), found)

    def _contradicted(self, t: int, exact: bool) -> bool:
        alone = np.array([self._alone(t)])
        return bool(different(self.signals[t : t + 1], alone, self.min_confidence, exact)[0])

    def _explained(self, t: int) -> tuple[str, str]:
        """The kind of what is wrong at t, and the words for it."""
        asked = (self.strategy, self.strategy, self.witness, newcomer(self.witness))
        first, *others = (np.array([self._alone(t, strategy)]) for strategy in asked)
        if any(self._differs(first, other)[0] for other in others):
            return "unstable", UNSTABLE
        if self._looks_ahead(t):
            return "future", "look-ahead: the signal of {} changes with candles that come after it."
        scaled = self._tolerant(self._with_own_scale(t))
        if scaled is not None and different(self.signals[t : t + 1], scaled[-1:], self.min_confidence, exact=False)[0]:
            return "memory", "memory: the signal of {} changes with the number of decimals that other candles have."
        text = (
            f"memory: the signal of {{}} depends on more than the {counted(self.lookback, 'candle')} of lookback_bars, "
        )
        try:
            ask(self.strategy, self._window(t))
        except StrategyError as error:
            return "memory", text + f"from which alone it cannot be computed: {error.what}"
        return "memory", text + "or on where the series starts."

    def _looks_ahead(self, t: int) -> bool:
        """Whether other futures change the signal of t, with the same past."""
        start = t - self.lookback + 1
        pairs = [(self._tolerant(self._window(t)), self._tolerant(self.candles.window(start, len(self.candles))))]
        past = self.signals[start:]
        for series in self._other_futures(t):
            answers = self._tolerant(series)
            pairs.append((past, None if answers is None else answers[start:]))
        row = self.lookback - 1
        return any(
            a is not None and b is not None and bool(self._differs(a[row : row + 1], b[row : row + 1])[0])
            for a, b in pairs
        )

    def _other_futures(self, t: int) -> Iterator[Candles]:
        yield self.candles.window(0, t + 1)
        for factor in WILD:
            yield wild_future(self.candles, t, factor, self.lookback)

    def _alone(self, t: int, strategy: Strategy | None = None) -> float:
        """The signal of t from its exact window; NaN if it cannot be had."""
        answers = self._tolerant(self._window(t), strategy)
        return float("nan") if answers is None else float(answers[-1])

    def _with_own_scale(self, t: int) -> Candles:
        window = self._window(t)
        columns = [getattr(window, name) for name in COLUMNS]
        return Candles(window.symbol, window.timeframe, window.open_time, *columns, sides=window.sides)

    def _window(self, t: int) -> Candles:
        return self.candles.window(t - self.lookback + 1, t + 1)

    def _tolerant(self, candles: Candles, strategy: Strategy | None = None) -> Floats | None:
        """The answer, or None where there is none: a strategy may refuse an artificial series."""
        try:
            return ask(strategy or self.strategy, candles)
        except StrategyError:
            return None

    def _compare_part(self, start: int, answers: Floats | None, last: int) -> None:
        """Compare a series that begins at `start`, from its own warm-up to its row `last`."""
        if answers is not None:
            rows = np.arange(self.lookback - 1, last + 1)
            self._compare(start + rows, answers[rows])

    def _compare(self, points: Ints, answers: Floats) -> None:
        """Mark the candles that differ. Foreign candles enlarge rounding errors: alone they prove only what is grave."""
        signals = self.signals[points]
        unequal = different(signals, answers, self.min_confidence, exact=True)
        self.inexact[points] |= unequal
        self.suspects[points] |= self._differs(signals, answers)
        self.grave[points] |= unequal & (self.exact | ~(np.abs(signals - answers) <= GRAVE))

    def _differs(self, a: Floats, b: Floats) -> Mask:
        return different(a, b, self.min_confidence, self.exact)

    def _finding(self, kind: str, text: str, t: int, fatal: bool = True) -> Finding:
        """`text` has {} where the candle is to be named."""
        open_ms = int(self.candles.open_time[t])
        return Finding(kind, t, open_ms, text.replace("{}", f"candle {t} ({iso_minute(open_ms)})"), fatal)


def newcomer(strategy: Strategy) -> Strategy:
    """The same strategy from a fresh load of its file, so that nothing it keeps in itself or its module is shared."""
    return _twin(strategy, load_again(type(strategy), source_path(strategy)))


def _twin(strategy: Strategy, cls: type[Strategy]) -> Strategy:
    """A new `cls` with the parameters and the model of `strategy`."""
    twin = cls(**strategy.values())
    twin.model = strategy.model
    return twin
