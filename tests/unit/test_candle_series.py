"""When a candle is taken for final."""

from __future__ import annotations

import numpy as np

from atb.core.types import Symbol
from atb.live.candle_series import CandleSeries
from atb.venue.candle_tail import Tail

HOUR = 3_600_000
AT = 1_704_067_200_000
NO_ROWS = np.empty((0, 6))


def row(k: int, close: float = 100.0) -> list[float]:
    return [AT + k * HOUR, 100.0, 105.0, 95.0, close, 7.0]


def rows(*numbers: list[float]) -> np.ndarray:
    return np.array(numbers).reshape(-1, 6)


def series(lookback: int = 2) -> CandleSeries:
    """One hour of history."""
    made = CandleSeries(Symbol("BTCUSDT", "BTC", "USDT"), "1h", HOUR, lookback)
    made.begin(rows(row(0)), AT + HOUR)
    return made


def tail(after_close_ms: int, *closed: list[float], running: list[float] | None = None) -> Tail:
    """An answer so long after the close of the second candle."""
    return Tail(rows(*closed), None if running is None else np.array(running), AT + 2 * HOUR + after_close_ms)


def test_two_answers_of_one_moment_are_one() -> None:
    s = series()
    for _ in range(3):  # as a cache gives them: of the same age each
        assert s.take(tail(500, row(0), row(1))).candles == 0
    assert s.take(tail(1_499, row(0), row(1))).candles == 0
    assert s.take(tail(1_500, row(0), row(1))).candles == 1
    assert s.until_ms == AT + 2 * HOUR and not s.unsettled


def test_an_answer_that_differs_begins_anew() -> None:
    s = series()
    for wait, close in ((500, 100.0), (1_600, 101.0), (2_000, 101.0)):
        assert s.take(tail(wait, row(0), row(1, close))).candles == 0
    assert s.take(tail(2_700, row(0), row(1, 101.0))).candles == 1
    assert s.window(AT + HOUR).close.tolist() == [100.0, 101.0]


def test_history_is_believed_at_once_but_not_its_holes() -> None:
    s = series()
    assert s.take(tail(9_999, row(0), row(1))).candles == 0
    assert s.take(tail(10_000, row(0), row(1))).candles == 1
    s = series()
    assert s.take(tail(12 * HOUR, row(0), row(1), row(4))).candles == 1
    news = s.take(tail(12 * HOUR + 1_000, row(1), row(4)))
    assert (news.candles, news.gaps) == (1, [(AT + 2 * HOUR, 2)])
    assert [s.has(AT + k * HOUR) for k in range(5)] == [True, True, False, False, True]


def test_a_time_without_a_candle_is_open_until_a_later_one_is_seen() -> None:
    s = series()
    for wait in (1_000, 5_000, 50 * HOUR):
        assert s.take(tail(wait, row(0))).gaps == []
    s.take(tail(51 * HOUR, row(0), running=row(3)))
    assert s.take(tail(51 * HOUR + 1_000, row(0), running=row(3))).gaps == [(AT + HOUR, 2)]


def test_a_candle_that_turns_up_where_there_was_none_is_a_correction_told_once() -> None:
    s = series()
    for wait in (HOUR, HOUR + 1_000):
        s.take(tail(wait, row(0), row(2)))
    late = tail(HOUR + 5_000, row(0), row(1), row(2))
    (told,) = s.take(late).corrections
    assert (told.open_ms, told.had) == (AT + HOUR, None) and list(told.has) == row(1)
    assert s.take(late).corrections == []
    assert not s.has(AT + HOUR), "what was given without it stays"


def test_what_was_before_the_history_is_no_correction() -> None:
    s = series()
    s.begin(NO_ROWS, AT + HOUR)
    assert s.take(tail(20_000, row(0), row(1))).corrections == []
    assert s.between(0, AT + 9 * HOUR)[:, 0].tolist() == [AT + HOUR]


def test_old_candles_are_forgotten_and_windows_stay() -> None:
    s = series(lookback=3)
    s.take(tail(5_000 * HOUR, *(row(k, 99.0 + k % 3) for k in range(4_000))))
    before = s.window(AT + 3_900 * HOUR).close.tolist()
    s.drop_before(AT + 3_900 * HOUR)
    assert len(s.rows) < 200 and s.window(AT + 3_900 * HOUR).close.tolist() == before
    assert s.take(tail(5_000 * HOUR, row(5, 1.0))).corrections == []
