"""When what was too little to be sold is kept apart, and when it comes back."""

from __future__ import annotations

from decimal import Decimal

from atb.execution.dust import dust_entries
from tests.unit.test_plan import AT, Books

LEFT = Decimal("0.0008")


def move(books: Books, *, too_little: bool = False) -> bool:
    """Move what is to be moved now. Whether anything was."""
    moved = dust_entries(books.state, 0, too_little, AT, None)
    for entry in moved:
        books.state.take(books.state.seq + 1, entry)
    return bool(moved)


def with_dust() -> Books:
    """A trade has ended, and less than a lot of it is left."""
    books = Books()
    books.hold("1.0008")
    sold(books, "2", "1")
    assert move(books) and books.state.dust == {"BTC": LEFT} and not books.state.held(0)
    return books


def sold(books: Books, trade: str, qty: str) -> None:
    books.state.position(0).target_qty = 0
    books.order(f"x{trade}", "exit", "sell", qty)
    books.fill(trade, "sell", qty, "100", f"x{trade}")


def bought(books: Books, target: str, qty: str) -> None:
    """An entry for `target`, of which `qty` was executed, and the rest was cancelled."""
    books.state.position(0).target_qty = int(Decimal(target) / Decimal("0.001"))
    books.order("e2", "entry", "buy", target)
    books.fill("3", "buy", qty, "100", "e2")
    if qty != target:
        books.tell("order", {"client_order_id": "e2", "state": "cancelled", "reason": ""})


def test_a_position_that_has_all_it_was_to_have_takes_it() -> None:
    books = with_dust()
    bought(books, "1", "1")
    assert move(books) and not books.state.dust["BTC"] and books.state.held(0) == 1 + LEFT
    assert not move(books)


def test_so_does_one_that_is_to_be_sold_before_it_had_all() -> None:
    """Else less than a lot of each trade adds up to more than one."""
    books = with_dust()
    bought(books, "2", "0.5008")
    books.tell("control", {"action": "exit", "symbol": "BTCUSDT", "reason": "signal", "by": "engine"})
    assert move(books) and not books.state.dust["BTC"] and books.state.position(0).qty == 501
    assert not move(books)
    sold(books, "4", "0.501")
    assert move(books) and books.state.dust == {"BTC": Decimal("0.0006")}


def test_not_one_that_is_too_little_itself() -> None:
    books = with_dust()
    bought(books, "2", "0.5")
    books.tell("control", {"action": "exit", "symbol": "BTCUSDT", "reason": "signal", "by": "engine"})
    assert move(books, too_little=True) and books.state.dust == {"BTC": Decimal("0.5") + LEFT}
    assert not move(books, too_little=True)
