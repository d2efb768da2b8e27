"""Side series are kept fresh beside trading: each trouble is told once, and nobody waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from atb.core.errors import ExchangeUnavailable
from atb.execution.executor import Event
from atb.live.side_refresh import Fresh, kept_fresh


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 10.0
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("error", [ExchangeUnavailable("It does not answer."), ValueError("a bug")])
def test_trouble_is_told_when_it_begins_and_when_it_is_over(error: Exception) -> None:
    asked, told = [], list[Event]()
    failing = threading.Event()

    def refresh() -> None:
        asked.append(time.monotonic())
        if failing.is_set():
            raise error

    with kept_fresh([Fresh("funding_rate BTCUSDT", 0.005, refresh)], told.append):
        until(lambda: len(asked) > 3)
        assert told == []
        failing.set()
        count = len(asked)
        until(lambda: len(asked) > count + 5)
        failing.clear()
        until(lambda: len(told) == 2)
        count = len(asked)
        until(lambda: len(asked) > count + 3)
    assert [(event.severity, event.code) for event in told] == [
        ("warning", "side_series_stale"), ("info", "side_series_fresh"),
    ]  # fmt: skip
    assert told[0].message.startswith("funding_rate BTCUSDT is not fresh: ") and str(error) in told[0].message
    time.sleep(0.05)
    count = len(asked)
    time.sleep(0.05)
    assert len(asked) == count  # it ends with the session


def test_a_source_that_hangs_delays_nobody() -> None:
    forever = threading.Event()
    begin = time.monotonic()
    with kept_fresh([Fresh("fear_greed", 1.0, forever.wait)], lambda event: None):
        pass
    assert time.monotonic() - begin < 1.0
    forever.set()
