"""Amounts of the ledger: exact, bounded, and the same number however it is written."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atb.ledger.records import DIGITS, EXACT, PLACES, amount, rounded

TOO_LONG = ("1e24", "1" + "0" * 30, "1e-25", "0." + "1" * (DIGITS + 1), "0." + "0" * 200 + "1", "0." + "1" * 500)


@pytest.mark.parametrize("zeros", [0, 1, 30])
def test_zeros_at_the_end_are_no_digits(zeros: int) -> None:
    text = "0.5887027404854475669430" + "0" * zeros
    assert amount(text) == amount(Decimal(text)) == Decimal("0.588702740485447566943")


@pytest.mark.parametrize("text", TOO_LONG)
def test_what_cannot_be_told_exactly_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="digits before or after"):
        amount(text)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "x", "", 1.5, True, None, []])
def test_nor_is_anything_else_a_number(value: object) -> None:
    with pytest.raises(ValueError, match="is no amount"):
        amount(value)


@settings(deadline=None)
@example(Decimal("1E-18"))
@example(Decimal("1E-19"))
@example(Decimal("0." + "1" * 18))
@example(Decimal("0." + "1" * 19))
@example(Decimal("9." + "5" * 19))
@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**24), max_value=10**24))
def test_what_has_18_places_is_left_as_it_is_and_more_is_rounded(value: Decimal) -> None:
    places = -int(value.as_tuple().exponent)
    result = rounded(value)
    assert str(result) == str(value if places <= 18 else EXACT.quantize(value, PLACES))
