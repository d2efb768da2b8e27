"""Side series beside candles: joined as of each close, by what was known then and nothing else."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atb.core.errors import StrategyError, UsageError
from atb.engine.candles import Candles, Floats
from atb.engine.sides import NO_ROWS, Side, SideRows, as_of, ordered
from atb.strategy import Strategy, side, to_pandas
from atb.strategy.contract import check_declarations, sides_of
from atb.strategy.signals import compute_signals
from tests.conftest import random_candles

DAY_MS = 86_400_000
row = st.tuples(st.integers(0, 40), st.integers(0, 30), st.floats(-1e6, 1e6))


def made(rows: list[tuple[int, int, float]]) -> SideRows:
    """Rows of (time, delay, value), each (time, availability) once."""
    known = {(time_ms, time_ms + delay): value for time_ms, delay, value in rows}
    times, available = ([key[i] for key in known] for i in (0, 1))
    return ordered(
        SideRows(np.array(times, np.int64), np.array(available, np.int64), np.array([*known.values()], float))
    )


def naive(rows: SideRows, at_ms: int, max_age: int | None) -> float:
    """The rule, word for word: of what was available, the newest time; of that, what was told last."""
    known = [each for each in zip(*(column.tolist() for column in rows), strict=True) if each[1] <= at_ms]
    if not known:
        return float("nan")
    time_ms, _, value = max(known, key=lambda each: (each[0], each[1]))
    return value if max_age is None or at_ms - time_ms <= max_age else float("nan")


@given(st.lists(row, max_size=30), st.lists(st.integers(-5, 90), max_size=20), st.none() | st.integers(0, 40))
def test_the_join_is_the_rule(rows: list[tuple[int, int, float]], moments: list[int], max_age: int | None) -> None:
    table, at_ms = made(rows), np.array(sorted(moments), np.int64)
    found = as_of(table, at_ms, max_age)
    should = [naive(table, int(at), max_age) for at in at_ms]
    assert found.tobytes() == np.array(should, float).tobytes() or np.array_equal(found, should, equal_nan=True)


@given(st.lists(row, min_size=1, max_size=30), st.lists(st.integers(-5, 90), min_size=1, max_size=20))
def test_what_becomes_known_later_changes_nothing(rows: list[tuple[int, int, float]], moments: list[int]) -> None:
    """Rows that are available after a moment may be anything, or not there."""
    table, at_ms = made(rows), np.array(sorted(moments), np.int64)
    found = as_of(table, at_ms)
    for i, at in enumerate(at_ms):
        later = table.available_ms > at
        wild = table._replace(value=np.where(later, 1e9, table.value))
        for other in (wild, table.select(~later)):
            assert np.array_equal(as_of(other, at_ms)[i], found[i], equal_nan=True)


def test_a_revision_counts_from_when_it_was_told() -> None:
    rows = made([(0, 10, 1.0), (0, 50, 2.0), (20, 5, 3.0)])
    moments = np.array([9, 10, 24, 25, 60])
    assert as_of(rows, moments).tolist()[1:] == [1.0, 1.0, 3.0, 3.0]  # a late word on an old time is no news
    assert np.isnan(as_of(rows, moments)[0]) and np.isnan(as_of(NO_ROWS, moments)).all()
    assert np.isnan(as_of(rows, moments, max_age_ms=30)).tolist() == [True, False, False, False, True]


# --- candles


def with_funding(count: int = 50) -> Candles:
    candles = random_candles(count)
    return candles.with_sides({"funding_rate": np.repeat(np.arange(count / 8 + 1), 8)[:count]})


def test_side_series_go_where_the_candles_go() -> None:
    candles = with_funding()
    column = candles.side("funding_rate")
    assert not column.flags.writeable and len(column) == 50 and random_candles(5).sides == {}
    assert candles.window(10, 20).side("funding_rate").tolist() == column[10:20].tolist()
    assert candles.take(np.array([3, 40])).side("funding_rate").tolist() == [column[3], column[40]]
    assert candles.replace(close=candles.open).side("funding_rate") is column
    assert candles.replace({}).sides == {} and candles.with_sides({}).sides == {}
    assert to_pandas(candles)["funding_rate"].tolist() == column.tolist()
    with pytest.raises(ValueError, match="beside 50 candles"):
        candles.with_sides({"short": np.zeros(3)})


def test_what_is_not_declared_is_not_there() -> None:
    with pytest.raises(StrategyError, match="no side series 'funding'") as told:
        with_funding().side("funding")
    assert 'sides = ("funding",)' in told.value.hint and "Nearest: funding_rate" in told.value.hint


def test_candles_without_side_series_cost_nothing() -> None:
    """A window is what live trading and the gate make most of."""
    candles = random_candles(10_000)
    candles.window(0, 1)  # the scales are computed once
    assert candles.window(5, 50).sides is candles.sides
    begin = time.perf_counter()
    for _ in range(1000):
        candles.window(5, 50)
    assert time.perf_counter() - begin < 1.0


# --- declarations


class Carry(Strategy):
    """Holds while funding is low."""

    sides = ("funding_rate", side("open_interest", max_age="90m", venue="binanceusdm", symbol="BTCUSDT"))
    lookback_bars = 1

    def signals(self, candles: Candles) -> Floats:
        return np.where(np.nan_to_num(candles.side("funding_rate")) > 3, -1.0, 1.0)


def test_declarations() -> None:
    rate, interest = sides_of(Carry)
    assert rate == Side("funding_rate", DAY_MS) and interest == Side(
        "open_interest", 5_400_000, "binanceusdm", "BTCUSDT"
    )
    assert side("mine").max_age_ms is None
    check_declarations(Carry)
    assert compute_signals(Carry(), with_funding())[-1] == -1.0


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (5, "must be names"), ((5,), "must be names"), (("Funding Rate",), "cannot be the name"), (("close",), "column of"),
        (("a", side("a", "1d")), "more than once"),
    ],
)  # fmt: skip
def test_bad_declarations(declared: object, words: str) -> None:
    cls = type("Bad", (Carry,), {"sides": declared})
    with pytest.raises(UsageError, match=words):
        check_declarations(cls)


def test_the_comma_that_everybody_forgets() -> None:
    for declared in ("funding_rate", side("funding_rate")):
        assert sides_of(type("One", (Carry,), {"sides": declared})) == (side("funding_rate"),)


@pytest.mark.parametrize("text", ["", "d", "1", "1.5d", "-1d", "1y", "9999999d"])
def test_ages_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="no length of time"):
        side("mine", text)


def test_a_strategy_that_changes_a_side_series_is_refused() -> None:
    class Writes(Carry):
        def signals(self, candles: Candles) -> Floats:
            candles.side("funding_rate")[:] = 0.0
            return np.zeros(len(candles))

    class Swaps(Carry):
        def signals(self, candles: Candles) -> Floats:
            candles.sides["funding_rate"] = np.zeros(len(candles))  # type: ignore[index]
            return np.zeros(len(candles))

    for cls in (Writes, Swaps):
        with pytest.raises(StrategyError):
            compute_signals(cls(), with_funding())
