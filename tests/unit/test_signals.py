"""What a strategy answers, and what is refused as an answer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from atb.core.errors import DataError, StrategyError
from atb.engine.candles import Candles
from atb.strategy.contract import Strategy
from atb.strategy.signals import compute_signals, lookback_of, place, source_path
from tests.conftest import random_candles

CANDLES = random_candles(30)
HERE = f"{__file__}, line "


def answering(answer: Callable[[Candles], Any], lookback: Any = 5, **members: Any) -> Strategy:
    """A strategy that gives `answer`."""

    def signals(self: Strategy, candles: Candles) -> Any:
        return answer(candles)

    own = {"signals": signals, "lookback_bars": lookback, "__module__": __name__, **members}
    made: Strategy = type("Idea", (Strategy,), own)()
    return made


def told(strategy: Strategy) -> str:
    with pytest.raises(StrategyError) as caught:
        compute_signals(strategy, CANDLES)
    assert caught.value.what.startswith(HERE)
    return caught.value.what.split(": ", 1)[1]


def warm(values: Any) -> Callable[[Candles], Any]:
    """NaN for four candles, then `values`."""
    return lambda candles: np.where(np.arange(len(candles)) < 4, np.nan, values)


def raising(error: BaseException) -> Callable[[Candles], Any]:
    def answer(candles: Candles) -> Any:
        raise error

    return answer


@pytest.mark.parametrize(
    "answer", [warm(1.0), warm(-1), warm(0.25), lambda c: [0] * len(c), lambda c: np.zeros(len(c), np.float32)]
)
def test_an_answer_becomes_contiguous_floats(answer: Callable[[Candles], Any]) -> None:
    signals = compute_signals(answering(answer), CANDLES)
    assert signals.dtype == np.float64 and signals.shape == (30,) and signals.flags.c_contiguous


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda c: np.zeros(3), "signals() returned shape (3,) for 30 candles."),
        (lambda c: np.zeros((30, 1)), "signals() returned shape (30, 1) for 30 candles."),
        (lambda c: 1.0, "signals() returned shape (1,) for 30 candles."),
        (lambda c: None, "signals() returned shape (1,) for 30 candles."),
        (lambda c: ["a"] * 30, "signals() did not return numbers"),
        (lambda c: [[1], [1, 2]], "signals() did not return numbers"),
        (lambda c: object(), "signals() did not return numbers"),
        (warm(1.5), "the signal of candle 4 (2024-01-01 04:00) is 1.5, outside [-1, 1]."),
        (warm(-np.inf), "the signal of candle 4 (2024-01-01 04:00) is -inf, outside [-1, 1]."),
        (
            lambda c: np.full(30, np.nan),
            "the signal of candle 4 (2024-01-01 04:00) is NaN, after the warm-up of 5 candles (26 such candles).",
        ),
        (
            lambda c: np.where(np.arange(30) == 9, np.nan, 0.0),
            "the signal of candle 9 (2024-01-01 09:00) is NaN, after the warm-up of 5 candles (1 such candle).",
        ),
        (raising(ZeroDivisionError("by nothing")), "ZeroDivisionError: by nothing"),
        (raising(SystemExit(3)), "SystemExit: 3"),
        (raising(MemoryError()), "MemoryError: "),
        (lambda c: c.close.__setitem__(0, 1.0), "ValueError: assignment destination is read-only"),
    ],
)
def test_what_is_no_answer_is_refused_with_file_line_and_reason(answer: Callable[[Candles], Any], message: str) -> None:
    assert told(answering(answer)).startswith(message)


def test_an_interruption_is_no_answer_either() -> None:
    with pytest.raises(KeyboardInterrupt):
        compute_signals(answering(raising(KeyboardInterrupt())), CANDLES)


def test_an_error_of_ours_passes_as_it_is() -> None:
    with pytest.raises(DataError, match=r"^too few$"):
        compute_signals(answering(raising(DataError("too few"))), CANDLES)


def test_silence_may_be_meant() -> None:
    strategy = answering(lambda c: np.full(30, np.nan), silent_at_times=True)
    assert np.isnan(compute_signals(strategy, CANDLES)).all()


def test_silence_while_warming_up_is_right_up_to_the_lookback() -> None:
    compute_signals(answering(warm(0.0), lookback=5), CANDLES)
    with pytest.raises(StrategyError, match="candle 3"):
        compute_signals(answering(warm(0.0), lookback=4), CANDLES)


@pytest.mark.parametrize("bars", [1, 5, np.int64(7)])
def test_a_lookback(bars: Any) -> None:
    assert lookback_of(answering(warm(0.0), bars)) == bars


@pytest.mark.parametrize("bars", [0, -1, 2.0, "5", None, True, np.nan])
def test_what_is_no_lookback_is_refused(bars: Any) -> None:
    with pytest.raises(StrategyError, match=r"lookback_bars must be a whole number of at least 1, not "):
        lookback_of(answering(warm(0.0), bars))


def test_a_lookback_that_fails_is_told_with_line_and_reason() -> None:
    def fails(self: Strategy) -> int:
        raise KeyError("window")

    with pytest.raises(StrategyError, match=r"test_signals\.py, line \d+: KeyError: 'window'"):
        lookback_of(answering(warm(0.0), property(fails)))


def test_what_a_strategy_prints_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    compute_signals(answering(lambda c: [print("thinking")] and [0] * len(c)), CANDLES)  # noqa: T201
    assert capsys.readouterr() == ("", "thinking\n")


def test_the_place_of_signals_that_are_no_plain_function() -> None:
    strategy = answering(warm(0.0), signals=functools.partial(lambda candles: [0] * 30))
    assert str(source_path(strategy)) == __file__
    assert place(strategy) == __file__
    assert compute_signals(strategy, CANDLES).tolist() == [0.0] * 30
