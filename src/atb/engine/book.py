"""The accounting rule: what a fill does to a position and to the cash beside it. Written once.

The same function runs on `decimal.Decimal` (the ledger) and on floats with integer lots (the backtest, plain and
compiled). It therefore uses only + - * / and comparisons with 0, and never a literal of either kind.
"""

from typing import Any, NamedTuple


class Book(NamedTuple):
    """A position and its cash.

    qty: signed quantity held (integer lots, or Decimal units of the base asset). cost: what that quantity was bought
    for, in quote, signed like qty. cash, realized, fees: quote; `realized` is before fees.
    """

    qty: Any
    cost: Any
    cash: Any
    realized: Any
    fees: Any


def apply_fill(book: Book, qty: Any, value: Any, fee: Any) -> Book:
    """The book after a fill of signed `qty` whose signed quote value (quantity times price) is `value`, costing `fee`.

    A fill in the direction of the position adds to its cost. One against it releases the same share of the cost as of
    the quantity, and realises the difference; what goes beyond zero opens the other side. A position that is closed
    exactly has a cost of exactly zero.
    """
    held = book.qty
    cash = book.cash - value - fee
    fees = book.fees + fee
    if (held >= 0 and qty >= 0) or (held <= 0 and qty <= 0):
        return Book(held + qty, book.cost + value, cash, book.realized, fees)
    left = held + qty
    if left == 0:
        return Book(left, value - value, cash, book.realized - value - book.cost, fees)
    if (left > 0) == (held > 0):
        released = book.cost * -qty / held
        return Book(left, book.cost - released, cash, book.realized - value - released, fees)
    closing = value * -held / qty
    return Book(left, value - closing, cash, book.realized - closing - book.cost, fees)
