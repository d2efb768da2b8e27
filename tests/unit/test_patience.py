"""Pauses between attempts: short at first, then longer, never for longer than was asked, and not the same for everybody."""

from __future__ import annotations

import time

import pytest

from atb.ledger.patience import FIRST_WAIT_S, LONGEST_WAIT_S, Patience


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was slept: nobody waits for it."""
    times: list[float] = []
    monkeypatch.setattr(time, "sleep", times.append)
    return times


def test_pauses_double_up_to_the_longest(slept: list[float]) -> None:
    patience = Patience()
    assert all(patience.pause(1_000.0) for _ in range(9))
    for number, seconds in enumerate(slept):
        whole = min(FIRST_WAIT_S * 2**number, LONGEST_WAIT_S)
        assert whole / 2 <= seconds <= whole, number
    assert slept[-1] >= LONGEST_WAIT_S / 2


def test_two_that_were_refused_together_do_not_come_back_together(slept: list[float]) -> None:
    for _ in range(6):
        Patience().pause(1_000.0)
    assert len(set(slept)) == 6


def test_no_pause_is_longer_than_what_is_left_and_there_is_none_after_the_end(slept: list[float]) -> None:
    patience = Patience()
    assert patience.pause(FIRST_WAIT_S / 10) and slept[0] <= FIRST_WAIT_S / 10
    patience.began -= 100.0
    assert patience.waited_s() >= 100.0
    assert not patience.pause(100.0) and patience.pause(200.0) and len(slept) == 2
