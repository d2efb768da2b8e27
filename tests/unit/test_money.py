"""Quantising: exact, over every order of magnitude that prices and quantities have."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from atb.core.money import ceil_to, floor_to, lots_to_base, price_to_decimal
from atb.engine.risk import ticks

steps = st.one_of(
    st.integers(-12, 4).map(lambda power: Decimal(1).scaleb(power)),
    st.decimals("0.00000001", "1000", places=8).filter(lambda d: d > 0),
)
values = st.decimals(-(10**15), 10**15, allow_nan=False, allow_infinity=False, places=18)
prices = st.floats(1e-9, 1e12, allow_nan=False)


def is_multiple(value: Decimal, step: Decimal) -> bool:
    return (Fraction(value) / Fraction(step)).denominator == 1


@given(values, steps)
def test_floor_is_the_largest_multiple_not_above(value: Decimal, step: Decimal) -> None:
    floor = floor_to(value, step)
    assert is_multiple(floor, step)
    assert Fraction(floor) <= Fraction(value) < Fraction(floor) + Fraction(step)


@given(values, steps)
def test_ceil_is_the_smallest_multiple_not_below(value: Decimal, step: Decimal) -> None:
    ceil = ceil_to(value, step)
    assert is_multiple(ceil, step)
    assert Fraction(ceil) - Fraction(step) < Fraction(value) <= Fraction(ceil)


@given(st.integers(-(10**18), 10**18), steps)
def test_a_multiple_stays_what_it_is(count: int, step: Decimal) -> None:
    value = lots_to_base(count, step)
    assert Fraction(value) == count * Fraction(step)
    assert floor_to(value, step) == value == ceil_to(value, step)


def test_a_number_of_more_than_28_digits_is_not_rounded_up_to_the_next_step() -> None:
    almost = Decimal("0." + "9" * 40)
    assert floor_to(almost, Decimal(1)) == 0
    assert ceil_to(almost.copy_negate(), Decimal(1)) == 0
    assert floor_to(almost.copy_negate(), Decimal(1)) == -1
    assert ceil_to(Decimal("1E-40"), Decimal("0.01")) == Decimal("0.01")


def test_the_caller_s_precision_does_not_matter() -> None:
    with localcontext(prec=5):
        assert floor_to(Decimal("123456.789"), Decimal("0.01")) == Decimal("123456.78")
        assert lots_to_base(123_456_789, Decimal("0.00001")) == Decimal("1234.56789")
        assert price_to_decimal(123456.789, Decimal("0.01")) == Decimal("123456.79")


@given(prices, steps)
def test_a_price_becomes_the_nearest_multiple_of_the_tick(price: float, tick: Decimal) -> None:
    found = price_to_decimal(price, tick)
    assert is_multiple(found, tick)
    assert abs(Fraction(found) - Fraction(Decimal(repr(price)))) <= Fraction(tick) / 2


@given(st.integers(1, 10**9), st.integers(0, 8))
def test_a_price_on_the_grid_crosses_without_a_trace(count: int, places: int) -> None:
    tick = Decimal(1).scaleb(-places)
    exact = count * tick
    assert price_to_decimal(float(exact), tick) == exact


@given(st.integers(1, 2**40), st.sampled_from(["0.1", "0.01", "0.05", "0.00001", "0.00000001", "2.5E-7", "25"]))
def test_a_level_comes_back_from_the_exchange_as_the_engine_computed_it(count: int, tick: str) -> None:
    level = ticks(count, float(tick))
    assert float(price_to_decimal(level, Decimal(tick))) == level
