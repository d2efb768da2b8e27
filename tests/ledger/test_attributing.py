"""A fill counts for its order in whichever order the two come to be known, and only once."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from atb.core.errors import Fenced, UsageError
from atb.ledger.accounts import AccountRow, take_authority
from atb.ledger.audit import audit, rebuild
from atb.ledger.entries import Entry
from atb.ledger.journal import append
from tests.ledger.conftest import NewAccount
from tests.ledger.histories import BEGIN
from tests.ledger.test_journal import Db, contents, fill, one

MINUTE = timedelta(minutes=1)
IMPORTED = {"reason": "import", "evidence": "fills.csv, line 2"}


def intent(name: str, qty: str = "1", side: str = "buy", at: int = 0) -> Entry:
    body = {"client_order_id": name, "symbol": "BTCUSDT", "side": side, "type": "market", "qty": Decimal(qty)}
    return Entry(f"i:{name}", "intent", BEGIN + at * MINUTE, body)


def bought(order: str = "", name: str = "7", qty: str = "1", **more: Any) -> Entry:
    return fill(name, "buy", qty, "100", **IMPORTED, **({"client_order_id": order} if order else {}), **more)


def attribution(order: str, name: str = "7") -> Entry:
    body = {"fill_id": f"fill:spot:BTCUSDT:buy:{name}", "client_order_id": order, "evidence": "test"}
    return Entry(f"w:{name}:{order}", "attribution", BEGIN, body)


class Book:
    """One account; after each append all tables agree, and so do those that are written anew."""

    def __init__(self, connection: Db, account: AccountRow, epoch: int) -> None:
        self.connection, self.account, self.epoch = connection, account, epoch

    def __call__(self, *entries: Entry) -> list[str]:
        """The kinds of what was written."""
        written = append(self.connection, self.account.id, self.epoch, entries)
        assert audit(self.connection, self.account).problems == []
        before = contents(self.connection, self.account)
        assert rebuild(self.connection, self.account).problems == []
        assert contents(self.connection, self.account) == before
        return [chained.entry.kind for chained in written]

    def order(self, name: str) -> tuple[Any, ...]:
        found: tuple[Any, ...] = one(
            self.connection, "SELECT state, filled_qty FROM orders WHERE account_id = %s AND client_order_id = %s",
            self.account.id, name,
        )  # fmt: skip
        return found

    def of(self, name: str = "7") -> str:
        query = "SELECT client_order_id FROM fills WHERE account_id = %s AND venue_trade_id = %s"
        return str(one(self.connection, query, self.account.id, name))

    def cash(self) -> Decimal:
        return Decimal(one(self.connection, "SELECT cash FROM account_state WHERE account_id = %s", self.account.id))


@pytest.fixture
def book(connection: Db, new_account: NewAccount) -> Book:
    return Book(connection, *new_account())


def test_an_imported_fill_counts_for_its_order_when_the_engine_tells_of_it(book: Book) -> None:
    book(intent("atb-1"), bought(qty="0.4"), bought(name="8", qty="0.6"))
    assert book.order("atb-1") == ("intent", 0)
    assert book(bought("atb-1", qty="0.4")) == ["attribution"]
    assert book.order("atb-1") == ("partially_filled", Decimal("0.4"))
    for _ in range(2):
        assert book(bought("atb-1", qty="0.4")) == []  # told again, and again
    assert book(bought("atb-1", name="8", qty="0.6")) == ["attribution"]
    assert book.order("atb-1") == ("filled", 1) and book.of() == book.of("8") == "atb-1"
    assert book.cash() == -100
    late = Entry("o:late", "order", BEGIN, {"client_order_id": "atb-1", "state": "cancelled"})
    book(late)
    assert book.order("atb-1") == ("filled", 1)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    "steps",
    [
        [bought("atb-1"), intent("atb-1")],  # its name was known, the order was not
        [bought(), intent("atb-1"), bought("atb-1")],
        [bought(), bought("atb-1"), intent("atb-1")],
        [intent("atb-1"), bought(), bought("atb-1")],
        [bought(), attribution("atb-1"), intent("atb-1"), bought("atb-1")],
        [bought("typed-wrongly"), bought(), intent("atb-1"), bought("atb-1")],
    ],
)
def test_in_whichever_order_they_come_to_be_known(book: Book, steps: list[Entry], together: bool) -> None:
    for batch in [steps] if together else [[step] for step in steps]:
        book(*batch)
    assert book.order("atb-1") == ("filled", 1) and book.of() == "atb-1" and book.cash() == -100
    assert book(*steps) == []


def test_an_adopted_order_that_was_updated_later_stays_so(book: Book) -> None:
    book(bought("atb-1"), intent("atb-1", qty="2", at=5))
    query = "SELECT state, updated_at FROM orders WHERE account_id = %s"
    assert one(book.connection, query, book.account.id) == ("partially_filled", BEGIN + 5 * MINUTE)


def test_it_counts_for_one_order_and_for_good(book: Book) -> None:
    book(intent("atb-1"), intent("atb-2"), bought())
    assert book(bought("atb-1")) == ["attribution"]
    assert book(bought("atb-2"), bought("unknown")) == []
    assert (book.order("atb-1")[1], book.order("atb-2")[1]) == (1, 0)
    with pytest.raises(UsageError, match=r"buy:7 is no fill that counts for no order"):
        book(attribution("atb-2"))
    with pytest.raises(UsageError, match="buy:99 is no fill that counts for no order"):
        book(attribution("atb-2", "99"))


def test_what_one_append_tells_twice_counts_once(book: Book) -> None:
    orders = [intent("atb-1"), intent("atb-2")]
    assert book(*orders, bought("atb-1"), bought("atb-2")) == ["intent", "intent", "fill"]
    book(bought(name="8"))
    assert book(bought("atb-2", name="8"), bought("atb-2", name="8"), bought("atb-1", name="8")) == ["attribution"]
    book(bought("atb-3", name="9"))
    assert book(intent("atb-3"), bought("atb-1", name="9")) == ["intent"]
    assert [book.order(f"atb-{n}")[1] for n in (1, 2, 3)] == [1, 1, 1]


def test_the_name_of_an_unknown_order_gives_way_to_a_known_one_only(book: Book) -> None:
    book(bought("theirs"), intent("atb-1"))
    assert book(bought("others")) == [] and book.of() == "theirs"
    assert book(bought("atb-1")) == ["attribution"] and book.of() == "atb-1"
    book(intent("theirs"))
    assert book.order("theirs") == ("intent", 0) and book.order("atb-1") == ("filled", 1)


def test_what_cannot_be_of_the_order_does_not_keep_it_from_being_told(book: Book) -> None:
    """A file had the name of a sale on a purchase."""
    book(bought("atb-1"), intent("atb-1", side="sell"))
    assert book.order("atb-1") == ("intent", 0)
    book(bought(name="8"))
    with pytest.raises(UsageError, match="Order atb-1 is to sell BTCUSDT, not what fill:spot:BTCUSDT:buy:8 says"):
        book(attribution("atb-1", "8"))


def test_whoever_was_fenced_attributes_nothing(book: Book) -> None:
    book(intent("atb-1"), bought())
    take_authority(book.connection, book.account.id)
    assert book(bought()) == []
    with pytest.raises(Fenced):
        book(bought("atb-1"))


def test_a_fill_that_stands_for_a_record_too_keeps_its_place(book: Book) -> None:
    """Folded anew and attributed by one append: both are of the same fill."""
    sale = fill("9", "sell", "0.5", "110", at=BEGIN + 2 * MINUTE, **IMPORTED)
    more: Any = {"provisional": True, "reduce_only": True, "evidence": "typed", "may_be_booked": True}
    record = fill("hand", "sell", "0.5", "110", at=BEGIN + 3 * MINUTE, **more)
    book(intent("atb-9", "0.5", "sell"), bought(), sale)
    again = sale._replace(body={**sale.body, "client_order_id": "atb-9"})
    assert book(record, again) == ["fill", "reversal", "attribution"]
    row = "SELECT replaced_qty, client_order_id FROM fills WHERE account_id = %s AND venue_trade_id = '9'"
    assert one(book.connection, row, book.account.id) == (Decimal("0.5"), "atb-9")
    assert book.order("atb-9") == ("filled", Decimal("0.5"))


def test_what_is_known_to_be_of_our_order_is_no_exit_that_was_made_by_hand(book: Book) -> None:
    sale = fill("9", "sell", "0.5", "110", at=BEGIN + 2 * MINUTE, **IMPORTED)
    more: Any = {"provisional": True, "reduce_only": True, "evidence": "typed", "may_be_booked": True}
    book(intent("atb-9", "0.5", "sell"), bought(), sale)
    book(sale._replace(body={**sale.body, "client_order_id": "atb-9"}))
    assert book(fill("hand", "sell", "0.5", "110", at=BEGIN + 3 * MINUTE, **more)) == ["fill"]


def test_what_two_accounts_share_is_each_ones_own(book: Book, new_account: NewAccount) -> None:
    """They traded with each other, or one's fills were imported to both: ids of fills and orders are the same."""
    other = Book(book.connection, *new_account())
    for each in (book, other):
        each(intent("atb-1"), bought())
    assert book(bought("atb-1")) == ["attribution"]
    assert book.order("atb-1") == ("filled", 1) and other.order("atb-1") == ("intent", 0)
