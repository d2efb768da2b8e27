"""The gate: does a strategy peek into the future, remember more than it says, or answer a candle late?

Three tests, each of which a strategy passes or fails at a named candle:

- *future*: candles after t are replaced by wild ones; the signal at t must not move;
- *memory*: the signal at t from the `lookback_bars` candles that end with t must equal the signal from the whole series;
- *lag*: changing the last candle must be able to change the signal at it (otherwise it answers a candle late).

Loading runs the first two on samples; `atb strategies check` runs all of them on every candle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from atb.core.errors import StrategyError
from atb.core.timeframe import iso_minute
from atb.engine.candles import Candles, Floats, Ints, Mask
from atb.strategy.contract import Strategy
from atb.strategy.signals import compute_signals, lookback_of, place

LOAD_SAMPLES = 12
SEGMENT_BARS = 400
FUTURE_CUTS = 64
LAG_SAMPLES = 200
TOLERANCE = 1e-9
WILD = (3.0, 0.3)  # factors for the prices after a cut: what looks ahead cannot miss them
NUDGES = (0.5, 0.9, 0.97, 1.03, 1.1, 2.0)  # factors for the last candle


class Finding(NamedTuple):
    """A test that failed. kind: future, memory, warm-up, unstable or lag; t: the first candle; fatal: refuses the strategy."""

    kind: str
    t: int
    open_ms: int
    message: str
    fatal: bool = True


class GateReport(NamedTuple):
    """What was found, and how many candles were looked at."""

    findings: list[Finding]
    candles: int
    checked: int

    @property
    def passed(self) -> bool:
        return not any(finding.fatal for finding in self.findings)


def refuse(strategy: Strategy, report: GateReport) -> None:
    """Raise a StrategyError for the first fatal finding."""
    for finding in report.findings:
        if finding.fatal:
            raise StrategyError(
                f"{place(strategy)}: {finding.message}",
                f"All findings: atb strategies check {strategy.title()} --data FILE",
            )


def check_on_load(strategy: Strategy, candles: Candles, signals: Floats, min_confidence: float, exact: bool) -> None:
    """The quick gate before a run: a few short stretches of the series, a future test and some windows in each."""
    lookback = lookback_of(strategy)
    n = len(candles)
    length = min(n, lookback + SEGMENT_BARS)
    for start in sorted({0, (n - length) // 2, n - length}):
        segment = candles.window(start, start + length)
        whole = compute_signals(strategy, segment)
        findings = _compare_stretch(candles, signals, whole, start, lookback, min_confidence, exact)
        gate = _Gate(strategy, segment, whole, min_confidence, exact, offset=start, whole=candles)
        findings += gate.future(_spread(lookback, length, 3)) or gate.memory(
            _spread(lookback - 1, length, LOAD_SAMPLES)
        )
        refuse(strategy, GateReport(findings, n, length))


def _compare_stretch(
    candles: Candles, signals: Floats, part: Floats, start: int, lookback: int, min_confidence: float, exact: bool
) -> list[Finding]:
    """A stretch that begins later must give the same signals once its own warm-up is over."""
    skip = 0 if start == 0 else lookback - 1
    differs = different(signals[start + skip : start + len(part)], part[skip:], min_confidence, exact)
    if not differs.any():
        return []
    t = start + skip + int(np.argmax(differs))
    return [_finding("memory", t, candles, _memory_message(t, candles, lookback))]


def check_fully(
    strategy: Strategy,
    candles: Candles,
    min_confidence: float = 0.1,
    *,
    exact: bool,
    lag_is_fatal: bool,
    on_progress: Callable[[int, int], None] | None = None,
) -> GateReport:
    """The full gate: every candle. `exact`: bitwise, else to 1e-9 with equal decisions. For shipped strategies a lag is fatal."""
    lookback, n = lookback_of(strategy), len(candles)
    if n < lookback + 2:
        raise StrategyError(
            f"{strategy.title()} looks back {lookback} candles; {n} are too few to check it.", "Give it more candles."
        )
    signals = compute_signals(strategy, candles)
    gate = _Gate(strategy, candles, signals, min_confidence, exact)
    findings = gate.unstable() + gate.warm_up()
    findings += gate.future(_spread(lookback - 1, n, FUTURE_CUTS))
    findings += gate.memory(range(lookback - 1, n), on_progress)
    findings += gate.lag(_spread(lookback - 1, n, LAG_SAMPLES), lag_is_fatal)
    order = {"future": 0, "unstable": 1, "warm-up": 2, "memory": 3, "lag": 4}
    return GateReport(sorted(findings, key=lambda f: order[f.kind]), n, n - lookback + 1)


def different(a: Floats, b: Floats, min_confidence: float, exact: bool) -> Mask:
    """Where two answers differ: in any bit, or (not exact) by more than 1e-9 or in the decision they stand for."""
    both_nan = np.isnan(a) & np.isnan(b)
    if exact:
        return np.asarray(~((a == b) | both_nan))
    with np.errstate(invalid="ignore"):
        near = np.abs(a - b) <= TOLERANCE
        same_zone = ((a >= min_confidence) == (b >= min_confidence)) & (
            (a <= -min_confidence) == (b <= -min_confidence)
        )
    return np.asarray(~((near & same_zone) | both_nan))


class _Gate:
    """The tests, over one series and its signals. `offset` and `whole` translate positions for messages."""

    def __init__(
        self,
        strategy: Strategy,
        candles: Candles,
        signals: Floats,
        min_confidence: float,
        exact: bool,
        *,
        offset: int = 0,
        whole: Candles | None = None,
    ) -> None:
        self.strategy, self.candles, self.signals = strategy, candles, signals
        self.min_confidence, self.exact = min_confidence, exact
        self.lookback = lookback_of(strategy)
        self.offset, self.whole = offset, whole or candles

    def _differs(self, a: Floats, b: Floats) -> Mask:
        return different(a, b, self.min_confidence, self.exact)

    def _found(self, kind: str, t: int, message: str) -> list[Finding]:
        return [_finding(kind, t + self.offset, self.whole, message)]

    def unstable(self) -> list[Finding]:
        """Asking twice must give the same answer (and must not have changed the candles)."""
        differs = self._differs(self.signals, compute_signals(self.strategy, self.candles))
        if not differs.any():
            return []
        t = int(np.argmax(differs))
        return self._found(
            "unstable", t, f"asked twice for the same candles, the signal at {_when(self.candles, t)} differs."
        )

    def warm_up(self) -> list[Finding]:
        """Before its lookback is filled a strategy has no signal."""
        early = ~np.isnan(self.signals[: self.lookback - 1])
        if not early.any():
            return []
        t = int(np.argmax(early))
        return self._found(
            "warm-up", t, f"candle {t} ({_when(self.candles, t)}) has a signal before the {self.lookback} candles of "
            "lookback_bars; it must be NaN.",
        )  # fmt: skip

    def future(self, cuts: Iterable[int]) -> list[Finding]:
        """Replace what follows a cut by a wild market; nothing up to the cut may move."""
        first = None
        for cut in cuts:
            for factor in WILD:
                moved = self._differs(self.signals[: cut + 1], self._signals_with_future(cut, factor)[: cut + 1])
                if moved.any():
                    t = int(np.argmax(moved))
                    first = t if first is None else min(first, t)
        if first is None:
            return []
        return self._found(
            "future", first, f"look-ahead: the signal of candle {first + self.offset} ({_when(self.candles, first)}) "
            "changes with candles that come after it.",
        )  # fmt: skip

    def _signals_with_future(self, cut: int, factor: float) -> Floats:
        c = self.candles
        wild = np.ones(len(c))
        after = np.arange(len(c) - cut - 1)
        wild[cut + 1 :] = factor * (1.0 + 0.2 * ((after * 7919) % 13 - 6) / 6)
        columns = {name: getattr(c, name) * wild for name in ("open", "high", "low", "close", "volume")}
        # Cut off at a finite look-ahead as well as at the end: the changed series may also be a shorter one.
        stop = min(len(c), cut + 1 + 3 * self.lookback + 50)
        return self._tolerant(c.replace(**columns).window(0, stop))

    def _tolerant(self, candles: Candles) -> Floats:
        """Signals of an artificial series; what a strategy refuses to answer there is not held against it."""
        try:
            return compute_signals(self.strategy, candles)
        except StrategyError:
            return np.array(self.signals[: len(candles)])

    def memory(self, ts: Iterable[int], on_progress: Callable[[int, int], None] | None = None) -> list[Finding]:
        """The signal from exactly `lookback_bars` candles must be the signal from all of them."""
        points = list(ts)
        for i, t in enumerate(points):
            if on_progress is not None and i % 256 == 0:
                on_progress(i, len(points))
            window = self.candles.window(t - self.lookback + 1, t + 1)
            alone = compute_signals(self.strategy, window)[-1:]
            if self._differs(self.signals[t : t + 1], alone).any():
                return self._found("memory", t, _memory_message(t + self.offset, self.whole, self.lookback))
        return []

    def lag(self, ts: Ints, fatal: bool) -> list[Finding]:
        """Some change of some last candle must change its signal, or the strategy does not look at it."""
        known = self.signals[~np.isnan(self.signals)]
        if len(known) == 0 or bool(np.all(known == known[0])):
            return []  # a constant answer cannot be late
        for t in ts:
            window = self.candles.window(t - self.lookback + 1, t + 1)
            for nudged in _nudged(window):
                if self._differs(self.signals[t : t + 1], self._tolerant(nudged)[-1:]).any():
                    return []
        t = int(ts[0])
        message = (
            "lag: no change of the last candle ever changes its signal; the strategy answers at least one candle late."
        )
        return [f._replace(fatal=fatal) for f in self._found("lag", t, message)]


def _nudged(window: Candles) -> Iterable[Candles]:
    """The window with another last candle: higher, lower, with more volume, with less."""
    for factor in NUDGES:
        columns = {}
        for name in ("open", "high", "low", "close"):
            columns[name] = np.array(getattr(window, name))
            columns[name][-1] *= factor
        yield window.replace(**columns)
    for factor in (0.0, 20.0):
        volume = np.array(window.volume)
        volume[-1] *= factor
        yield window.replace(volume=volume)


def _spread(start: int, stop: int, count: int) -> Ints:
    """Up to `count` positions from start to stop - 1, ends included, the same ones each time."""
    return np.unique(np.linspace(start, stop - 1, min(count, max(0, stop - start))).astype(np.int64))


def _finding(kind: str, t: int, candles: Candles, message: str) -> Finding:
    return Finding(kind, t, int(candles.open_time[t]), message)


def _memory_message(t: int, candles: Candles, lookback: int) -> str:
    return (
        f"memory: the signal of candle {t} ({_when(candles, t)}) depends on more than the {lookback} candles of "
        "lookback_bars, or on where the series starts."
    )


def _when(candles: Candles, t: int) -> str:
    return iso_minute(int(candles.open_time[t]))
