"""The gate: does a strategy peek into the future, remember more than it says, or answer a candle late?

What is tested is the contract: the signal at t is a function of the `lookback_bars` candles that end with t, and of
nothing else. The exact test of it asks for each such window alone. That is one call a candle, too slow for a strategy
that needs a millisecond for any answer, so candles are tried in these ways:

- *patchworks*: one series of many exact windows at their true times, with foreign candles in the gaps between them. Each
  candle is the last of its window in one patchwork. There everything that must not matter is different: the candles
  before the window and after it, what they add up to, the row number, the length and the start of the series. So any
  dependence on these shows at the very candle where it is at work, however rare: a leak that acts on the next candle's
  jump meets a market that stands still. It is as many calls as a window and a gap have candles, not as there are candles.
- *windows*: some exact windows alone, as in live trading, and each one whose patchwork cannot be answered.
- *futures*: everything after a cut is replaced by a wild market that ends early, which also reaches what is far ahead,
  where a patchwork may show the real candle of another window. It tries the candles before a cut, so there are many cuts.

- *side series* are changed outside of windows and after cuts as candles are: a look at the next value of one is a look ahead.
  As they change rarely, candles just before they do are among the windows.
- *decimals*: some windows with the decimal scale that they alone have.

A candle that differs in any of them is a suspect. Suspects are asked for by their exact windows, in order of time, and
the first that differs there is named: so the test can afford to be severe. Candles before it (2,000 at most) are asked
for, too, so that the one named is nearly always the true first. Where none differs on the real candles the strategy
still depends on what it must not: the first suspect is named.

What no series can show stays unseen: what a strategy keeps outside of itself and its file (on disk, in another module),
or reads from the clock. And a look far ahead at very few candles may find the real price in a patchwork by chance.

Besides: *unstable* (asked twice, or after other questions, it answers differently), *warm-up* (it answers too early) and
*lag* (changing the last candle never changes its signal). Loading tries samples; `atb strategies check` every candle.
No verdict depends on the clock or on chance.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

import numpy as np

from atb.core.errors import StrategyError
from atb.core.words import are, counted
from atb.engine.candles import Candles, Floats
from atb.strategy.contract import Strategy
from atb.strategy.gate_series import gaps_of, patchwork_points, spread
from atb.strategy.gate_tests import HOLES, Finding, Gate, Progress
from atb.strategy.signals import ask, check_values, lookback_of, place

SEGMENT_BARS = 400  # candles of a stretch at loading, beyond the lookback
LOAD_CUTS, LOAD_PHASES, LOAD_WINDOWS = 3, 2, 8  # in each of three stretches
CUTS, WINDOWS, DECIMALS = 32, 300, 64


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
    """The quick gate before a run: three short stretches of the series, with a sample of each test in them."""
    n, lookback = len(candles), lookback_of(strategy)
    gate = Gate(strategy, candles, signals, min_confidence, exact)
    length = min(n, lookback + SEGMENT_BARS)
    with _quiet():
        for start in sorted({0, (n - length) // 2, n - length}):
            gate.windows(spread(start + lookback - 1, start + length, LOAD_WINDOWS))
            gate.windows(gate.before_news(start, start + length, LOAD_WINDOWS))
            gate.decimals(spread(start + lookback - 1, start + length, 1))
            gate.patchworks(patchwork_points(start, start + length, lookback, gaps_of(lookback)[0], LOAD_PHASES))
            gate.futures(start, start + length, LOAD_CUTS)
            gate.stretch(start, start + length)
        refuse(strategy, GateReport(gate.outside(), n, length))


def check_fully(
    strategy: Strategy,
    candles: Candles,
    min_confidence: float = 0.1,
    *,
    exact: bool,
    lag_is_fatal: bool,
    on_progress: Progress | None = None,
) -> GateReport:
    """The full gate: every candle. `exact`: bitwise, else to 1e-9 with equal decisions, and a warning about the bits.

    For shipped strategies a lag is fatal. `on_progress` is told the candles done, and of how many.
    """
    lookback, n = lookback_of(strategy), len(candles)
    if n < lookback + 2:
        raise StrategyError(
            f"{strategy.title()} looks back {counted(lookback, 'candle')}; {n} {are(n)} too few to check it.",
            "Give it more candles.",
        )
    with _quiet():
        gate = Gate(strategy, candles, ask(strategy, candles), min_confidence, exact)
        findings = gate.unstable()
        if not findings:
            gate.windows(spread(lookback - 1, n, WINDOWS))
            gate.windows(gate.holes())
            gate.windows(gate.before_news(0, n, HOLES))
            gate.decimals(spread(lookback - 1, n, DECIMALS))
            batches = chain(*(patchwork_points(0, n, lookback, gap) for gap in gaps_of(lookback)))
            gate.patchworks(batches, on_progress)
            gate.futures(0, n, CUTS)
            findings = gate.outside()
        findings += gate.warm_up() + gate.lag(lag_is_fatal)
    report = GateReport(findings, n, n - lookback + 1)
    if report.passed:
        check_values(gate.signals, candles, strategy)
    return report


@contextmanager
def _quiet() -> Iterator[None]:
    """What numpy or pandas say about candles that never were is of no interest."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
