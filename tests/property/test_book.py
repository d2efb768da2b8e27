"""`apply_fill` on Decimal and on floats with integer lots: the identities of accounting (lesson 1, lesson 3)."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from atb.engine.book import Book, apply_fill

# Signed quantity, price, fee: small whole numbers of lots and prices with cents.
FILLS = st.lists(
    st.tuples(
        st.integers(-50, 50).filter(lambda n: n != 0), st.integers(1, 10**6), st.integers(0, 1000)
    ),
    max_size=30,
)  # fmt: skip


def decimal_book(fills: list[tuple[int, int, int]]) -> Book:
    book = Book(*(Decimal(0) for _ in range(5)))
    for qty, cents, fee in fills:
        price = Decimal(cents) / 100
        book = apply_fill(book, Decimal(qty), qty * price, Decimal(fee) / 100)
    return book


@given(FILLS)
def test_cash_is_what_was_received_less_what_was_paid(fills: list[tuple[int, int, int]]) -> None:
    book = decimal_book(fills)
    assert book.cash == -sum(Decimal(q * c) / 100 + Decimal(f) / 100 for q, c, f in fills)
    assert book.fees == sum((Decimal(f) / 100 for _, _, f in fills), Decimal(0))


@given(FILLS, st.integers(1, 10**6))
def test_equity_is_cash_plus_value_and_splits_into_realised_unrealised_and_fees(
    fills: list[tuple[int, int, int]], mark_cents: int
) -> None:
    book = decimal_book(fills)
    mark = Decimal(mark_cents) / 100
    equity = book.cash + book.qty * mark
    unrealised = book.qty * mark - book.cost
    # The cost that a partial exit releases is a quotient: rounded in its 28th digit, everything else is exact.
    assert abs(equity - (book.realized + unrealised - book.fees)) < Decimal("1e-12")


@given(FILLS)
def test_flat_means_zero(fills: list[tuple[int, int, int]]) -> None:
    book = decimal_book(fills)
    closed = apply_fill(book, -book.qty, -book.qty * 7, Decimal(0)) if book.qty else book
    assert closed.qty == 0 and closed.cost == 0
    assert (book.qty > 0) == (book.cost > 0) and (book.qty < 0) == (book.cost < 0)


@given(FILLS)
def test_floats_with_whole_lots_agree_with_decimals(fills: list[tuple[int, int, int]]) -> None:
    book = Book(0, 0.0, 0.0, 0.0, 0.0)
    for qty, cents, fee in fills:
        book = apply_fill(book, qty, qty * (cents / 100), fee / 100)
    exact = decimal_book(fills)
    assert book.qty == int(exact.qty)
    for ours, theirs in zip(book[1:], exact[1:], strict=True):
        assert abs(ours - float(theirs)) <= 1e-9 * max(1.0, abs(float(theirs)), float(abs(exact.cash)) * 10)
    if book.qty == 0:
        assert book.cost == 0.0
