"""The exchange's clock is read by the quickest answer, counted on steadily, and doubted when it must be."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from atb.core.errors import ExchangeUnavailable
from atb.venue.exchange_clock import SAMPLES, ExchangeClock, Sample


class Machine:
    """A machine's two clocks, in seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steady, self.wall = 1000.0, 1_700_000_000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.steady)
        monkeypatch.setattr(time, "time", lambda: self.wall)

    def passes(self, seconds: float) -> None:
        self.steady += seconds
        self.wall += seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def asked(machine: Machine, ahead_s: float, ways: Iterator[tuple[float, float]]) -> Sample:
    """An exchange whose clock is ahead, over a line that takes so long there and back."""
    there, back = next(ways)
    began = machine.steady
    machine.passes(there)
    told = round((machine.wall + ahead_s) * 1000)
    machine.passes(back)
    return Sample(told, began, machine.steady)


def test_the_quickest_answer_is_believed_to_half_its_round_trip(machine: Machine) -> None:
    ways = iter([(0.5, 0.1), (0.03, 0.01), (0.2, 0.9)])
    clock = ExchangeClock(lambda: asked(machine, 7.0, ways))
    now_ms = clock.now_ms()
    assert clock.skew is not None and clock.skew.within_ms == pytest.approx(20)
    assert abs(now_ms - (machine.wall + 7) * 1000) <= clock.skew.within_ms
    assert clock.skew.ahead_ms == pytest.approx(7000, abs=20)


def test_it_is_counted_on_by_the_steady_count_alone(machine: Machine) -> None:
    clock = ExchangeClock(lambda: asked(machine, 7.0, iter([(0.0, 0.0)])))
    first = clock.now_ms()
    assert not clock.is_old()
    machine.passes(100)
    machine.wall += 86_400  # somebody sets it
    assert clock.now_ms() == first + 100_000
    assert clock.is_old(), "or the machine slept: then the count stood still"


@pytest.mark.parametrize("seconds", [3500, 3700])
def test_it_is_old_after_an_hour(machine: Machine, seconds: int) -> None:
    clock = ExchangeClock(lambda: asked(machine, 0.0, iter([(0.0, 0.0)])))
    clock.now_ms()
    machine.passes(seconds)
    assert clock.is_old() == (seconds > 3600)


def test_to_doubt_it_asks_nobody_and_a_failed_measurement_changes_nothing(machine: Machine) -> None:
    line = iter([(0.0, 0.0)] * SAMPLES)

    def sample() -> Sample:
        try:
            return asked(machine, 1.0, line)
        except StopIteration:
            raise ExchangeUnavailable("nobody answers") from None

    clock = ExchangeClock(sample)
    first = clock.now_ms()
    clock.doubt()
    assert clock.is_old() and clock.now_ms() == first
    with pytest.raises(ExchangeUnavailable):
        clock.measure()
    assert clock.is_old() and clock.now_ms() == first
