"""The exchange's clock, read from here: by the answer that took the shortest, which leaves the least room for error."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

SAMPLES = 3
HOLDS_S = 3600.0  # a quartz drifts some 50 ms an hour at worst
STEP_S = 0.5  # how far this machine's clock may run from its own steady count before somebody must have moved it


class Sample(NamedTuple):
    """One answer: the exchange's time, and the steady count when it was asked and when it answered."""

    exchange_ms: int
    asked_s: float
    answered_s: float

    @property
    def round_trip_s(self) -> float:
        return self.answered_s - self.asked_s


class Skew(NamedTuple):
    """How far the exchange's clock is ahead of this machine's, and within which error."""

    ahead_ms: float
    within_ms: float


class ExchangeClock:
    """Counts on from the last measurement by the machine's steady count, so that setting its clock changes nothing."""

    def __init__(self, sample: Callable[[], Sample]) -> None:
        self._sample = sample
        self._base_ms = 0.0  # the exchange's time when the steady count was zero
        self._wall_s = 0.0  # this machine's time then
        self._measured_s = 0.0
        self._doubted = False
        self.skew: Skew | None = None

    def now_ms(self) -> int:
        """Measured at the first call, which may raise ExchangeUnavailable; after that counted, which asks nobody."""
        if self.skew is None:
            self.measure()
        return round(self._base_ms + time.monotonic() * 1000)

    def measure(self) -> Skew:
        best = min((self._sample() for _ in range(SAMPLES)), key=lambda sample: sample.round_trip_s)
        middle_s = (best.asked_s + best.answered_s) / 2
        self._base_ms = best.exchange_ms - middle_s * 1000
        self._measured_s = time.monotonic()
        self._wall_s = time.time() - self._measured_s
        self._doubted = False
        self.skew = Skew(self._base_ms - self._wall_s * 1000, best.round_trip_s * 500)
        return self.skew

    def doubt(self) -> None:
        """The exchange found our time wrong: it is old, whatever its age."""
        self._doubted = True

    def is_old(self) -> bool:
        """Whether it should be measured again: an hour has passed, or the machine's clock was set, or it slept."""
        moved_s = abs(time.time() - time.monotonic() - self._wall_s)
        return self._doubted or moved_s > STEP_S or time.monotonic() - self._measured_s > HOLDS_S
