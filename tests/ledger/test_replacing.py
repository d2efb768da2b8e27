"""A record made by hand and the exchange's own fill of it: one exit, in whichever order they are booked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from atb.core.errors import UsageError
from atb.ledger.accounts import next_session_id
from atb.ledger.audit import audit, rebuild
from atb.ledger.entries import Entry
from atb.ledger.fold import Account
from atb.ledger.journal import append
from atb.ledger.replacing import keys_to_fold_anew
from tests.ledger.conftest import NewAccount
from tests.ledger.histories import BEGIN, Histories
from tests.ledger.test_journal import HOUR, Db, fill, in_batches
from tests.seeds import thinned

MINUTE = timedelta(minutes=1)


@pytest.fixture
def book(connection: Db, new_account: NewAccount) -> Callable[..., None]:
    """Append entries to one account, and see after each that all tables agree."""
    account, epoch = new_account()

    def take(*entries: Entry) -> None:
        for entry in entries:
            append(connection, account.id, epoch, [entry])
            assert audit(connection, account).problems == []

    take.account = account  # type: ignore[attr-defined]
    return take


def rows(connection: Db, book: Any, query: str) -> list[Any]:
    out = connection.execute(query, (book.account.id,)).fetchall()
    connection.rollback()
    return [row[0] if len(row) == 1 else row for row in out]


def held(connection: Db, book: Any) -> Decimal:
    sizes = rows(connection, book, "SELECT size FROM positions WHERE account_id = %s AND status = 'OPEN'")
    return sum(sizes, Decimal(0))


def record(name: str, qty: str, price: str = "110", **more: Any) -> Entry:
    more = {"at": BEGIN + HOUR, "may_be_booked": True, **more}
    return fill(name, "sell", qty, price, provisional=True, reduce_only=True, evidence="typed", **more)


def level(name: str, stop: int) -> Entry:
    return Entry(name, "level", BEGIN, {"symbol": "BTCUSDT", "stop": Decimal(stop), "take": None})


def intent(name: str) -> Entry:
    body = {"client_order_id": name, "symbol": "BTCUSDT", "side": "sell", "type": "market", "qty": Decimal("0.3")}
    return Entry(f"i:{name}", "intent", BEGIN, body)


def test_a_sale_that_is_told_after_the_next_entry_stands_where_its_record_stood(connection: Db, book: Any) -> None:
    book(fill("1", "buy", "1", "100"), level("l1", 90), record("hand", "1", at=BEGIN + 10 * MINUTE))
    book(fill("2", "buy", "2", "120", at=BEGIN + 20 * MINUTE), level("l2", 115))
    book(fill("3", "sell", "1", "108", at=BEGIN + 9 * MINUTE))
    trades = rows(
        connection, book, "SELECT pnl, entry_price, exit_price, provisional FROM trades WHERE account_id = %s"
    )
    assert trades == [(8, 100, 108, False)]
    now = rows(
        connection, book, "SELECT size, entry_price, stop_loss FROM positions WHERE account_id=%s AND status='OPEN'"
    )
    assert now == [(2, 120, 115)]
    assert rows(connection, book, "SELECT price FROM prices WHERE account_id = %s") == [120]
    book(fill("4", "sell", "2", "130", at=BEGIN + 30 * MINUTE))
    assert rows(connection, book, "SELECT pnl FROM trades WHERE account_id = %s ORDER BY exit_time") == [8, 20]


@pytest.mark.parametrize("side", ["sell", "buy"])
def test_the_rest_of_an_entry_that_is_told_after_the_record_is_no_new_entry(
    connection: Db, book: Any, side: str
) -> None:
    """Half of an entry is known, the engine dies, all is closed by hand and recorded; then the rest is told."""
    enter = "buy" if side == "sell" else "sell"
    more: Any = {"provisional": True, "reduce_only": True, "evidence": "typed"}
    book(
        fill("1", enter, "0.5", "100"), level("l1", 90), fill("hand", side, "0.5", "101", at=BEGIN + 5 * MINUTE, **more)
    )
    book(fill("2", enter, "0.5", "100", at=BEGIN + MINUTE))
    book(fill("3", side, "0.8", "101", at=BEGIN + 2 * MINUTE))
    now = rows(connection, book, "SELECT size, stop_loss FROM positions WHERE account_id=%s AND status='OPEN'")
    assert now == [(Decimal("0.2"), 90)]  # it never was flat, and so has its stop
    book(fill("4", side, "0.2", "101", at=BEGIN + 3 * MINUTE))
    assert rows(connection, book, "SELECT size FROM trades WHERE account_id = %s") == [1]
    assert rows(connection, book, "SELECT effective_qty FROM fills WHERE account_id = %s AND provisional") == [0]
    profit = 1 if side == "sell" else -1
    assert rows(connection, book, "SELECT realized - fees FROM account_state WHERE account_id = %s") == [profit]


def test_a_sale_before_the_position_was_added_to_is_still_the_recorded_one(connection: Db, book: Any) -> None:
    book(fill("1", "buy", "1", "100"), record("hand", "0.5", at=BEGIN + 20 * MINUTE))
    book(fill("2", "sell", "0.5", "108", at=BEGIN + 5 * MINUTE))
    assert held(connection, book) == Decimal("0.5")
    book(fill("3", "buy", "1", "100", at=BEGIN + 30 * MINUTE), record("again", "0.5", at=BEGIN + 50 * MINUTE))
    book(fill("4", "sell", "0.5", "108", at=BEGIN + 25 * MINUTE))  # before the second purchase, of the same position
    assert held(connection, book) == 1


def test_what_was_booked_already_is_no_second_exit(connection: Db, book: Any) -> None:
    book(fill("1", "buy", "1", "100"), level("l1", 90), fill("2", "sell", "0.3", "108", at=BEGIN + MINUTE))
    book(record("hand", "0.3"))
    assert held(connection, book) == Decimal("0.7")
    assert rows(connection, book, "SELECT effective_qty FROM fills WHERE account_id = %s AND provisional") == [0]
    # The same fill is no second record's, too; the second record waits for its own.
    book(record("second", "0.3"))
    assert held(connection, book) == Decimal("0.4")
    book(fill("3", "sell", "0.3", "109", at=BEGIN + HOUR))
    assert held(connection, book) == Decimal("0.4")
    assert rows(connection, book, "SELECT stop_loss FROM positions WHERE account_id = %s") == [90]


def test_a_record_larger_than_what_was_booked_keeps_the_rest(connection: Db, book: Any) -> None:
    book(fill("1", "buy", "1", "100"), fill("2", "sell", "0.1", "108"), fill("3", "sell", "0.1", "108"))
    book(record("hand", "0.5"))
    assert rows(connection, book, "SELECT effective_qty FROM fills WHERE account_id = %s AND provisional") == [
        Decimal("0.3")
    ]
    assert held(connection, book) == Decimal("0.5")
    book(fill("4", "sell", "0.3", "108", at=BEGIN + HOUR))
    assert held(connection, book) == Decimal("0.5")


def test_in_either_order_it_comes_to_the_same(connection: Db, new_account: NewAccount) -> None:
    parts = [record("hand", "0.5"), fill("2", "sell", "0.2", "108"), fill("3", "sell", "0.3", "109")]
    found = set()
    for seed in range(12):
        account, epoch = new_account()
        order = parts.copy()
        Random(seed).shuffle(order)
        append(connection, account.id, epoch, [fill("1", "buy", "1", "100")])
        for entry in order:
            append(connection, account.id, epoch, [entry])
        assert audit(connection, account).problems == []
        state = "SELECT cash, realized, fees FROM account_state WHERE account_id = %s"
        found.add(connection.execute(state, (account.id,)).fetchone())
        connection.rollback()
    assert len(found) == 1


@pytest.mark.parametrize(
    "why",
    ["our own order", "another position", "all that is held", "the other side"],
)
def test_what_is_not_the_recorded_exit_is_left_alone(connection: Db, book: Any, why: str) -> None:
    if why == "another position":
        book(fill("0", "buy", "0.3", "100"), fill("2", "sell", "0.3", "108"))
    book(fill("1", "buy", "1", "100", at=BEGIN + MINUTE))
    if why == "our own order":
        book(intent("atb-1"), fill("2", "sell", "0.3", "108", client_order_id="atb-1", at=BEGIN + 2 * MINUTE))
    if why == "the other side":
        book(fill("2", "buy", "0.3", "108", at=BEGIN + 2 * MINUTE))
    if why == "all that is held":
        book(fill("2", "sell", "0.3", "108", at=BEGIN + 2 * MINUTE))
        book(record("hand", "0.7", may_be_booked=False))
        assert held(connection, book) == 0
        return
    before = held(connection, book)
    book(record("hand", "0.3"))
    assert held(connection, book) == before - Decimal("0.3")


@pytest.mark.parametrize(("late", "left"), [(timedelta(0), 0), (timedelta(microseconds=1), Decimal("0.3"))])
def test_an_exit_is_told_within_an_hour_of_its_record(
    connection: Db, book: Any, late: timedelta, left: Decimal
) -> None:
    book(fill("1", "buy", "1", "100"), record("hand", "0.3", at=BEGIN + MINUTE))
    book(fill("2", "sell", "0.3", "108", at=BEGIN + MINUTE + HOUR + late))
    assert rows(connection, book, "SELECT effective_qty FROM fills WHERE account_id = %s AND provisional") == [left]


def test_only_what_may_be_replaced_is_read_whole() -> None:
    """Of a symbol with many fills, reading all of them is for the append that may fold them anew."""

    def keys(*missing: Entry) -> set[tuple[str, str]]:
        return keys_to_fold_anew(state, missing)

    state, hand = Account("USDT"), record("hand", "0.3", at=BEGIN, may_be_booked=False)
    state.apply_all([(1, fill("1", "buy", "1", "100")), (2, hand)])
    there = {("spot", "BTCUSDT")}
    assert keys(fill("2", "sell", "0.3", "108", at=BEGIN + HOUR)) == there
    assert keys(fill("2", "sell", "0.3", "108", at=BEGIN + HOUR + timedelta(microseconds=1))) == set()
    assert keys(fill("2", "buy", "0.3", "108"), fill("3", "sell", "1", "3000", symbol="ETHUSDT")) == set()
    more = record("more", "0.3", symbol="ETHUSDT", may_be_booked=False)
    assert keys(more) == set()
    assert keys(more._replace(body={**more.body, "may_be_booked": True})) == {("spot", "ETHUSDT")}
    assert keys(more, fill("3", "sell", "1", "3000", symbol="ETHUSDT")) == {("spot", "ETHUSDT")}
    assert keys(more, taken_back(more)) == {("spot", "ETHUSDT")} and keys(taken_back(hand)) == there


def taken_back(entry: Entry) -> Entry:
    body = {"fill_id": entry.id, "qty": entry.body["qty"], "reason": "typed wrongly"}
    return Entry(f"r:{entry.id}", "reversal", BEGIN, body)


def test_a_record_is_taken_back_by_the_append_that_makes_it(connection: Db, new_account: NewAccount) -> None:
    account, epoch = new_account()
    append(connection, account.id, epoch, [fill("1", "buy", "1", "100"), level("l1", 90)])
    hand = record("hand", "1", may_be_booked=False)
    append(connection, account.id, epoch, [hand, taken_back(hand)])
    assert audit(connection, account).problems == []
    query = "SELECT size, stop_loss FROM positions WHERE account_id = %s AND status = 'OPEN'"
    assert connection.execute(query, (account.id,)).fetchall() == [(1, 90)]
    connection.rollback()


@pytest.mark.parametrize(
    ("minute", "left"), [(19, 0), (20, Decimal("0.5")), (21, Decimal("0.5")), (41, Decimal("0.5"))]
)
def test_an_exit_is_of_the_position_before_the_first_entry_that_followed(
    connection: Db, book: Any, minute: int, left: Decimal
) -> None:
    book(fill("1", "buy", "1", "100"), record("hand", "0.5", at=BEGIN + 10 * MINUTE))
    for name, at in (("2", 20), ("3", 40)):
        book(fill(name, "buy", "1", "100", at=BEGIN + at * MINUTE))
    book(fill("4", "sell", "0.5", "108", at=BEGIN + minute * MINUTE))
    assert rows(connection, book, "SELECT effective_qty FROM fills WHERE account_id = %s AND provisional") == [left]


@pytest.mark.parametrize("first", ["record", "fill"])
@pytest.mark.parametrize(("before", "left"), [(MINUTE, Decimal("0.3")), (timedelta(0), 0)])
def test_an_exit_is_of_a_position_that_was_held_then(
    connection: Db, book: Any, first: str, before: timedelta, left: Decimal
) -> None:
    book(fill("1", "buy", "1", "100", at=BEGIN + 10 * MINUTE))
    steps = [
        record("hand", "0.3", at=BEGIN + 20 * MINUTE),
        fill("2", "sell", "0.3", "108", at=BEGIN + 10 * MINUTE - before),
    ]
    book(*(steps if first == "record" else steps[::-1]))
    assert rows(connection, book, "SELECT effective_qty FROM fills WHERE account_id = %s AND provisional") == [left]


def test_the_fill_of_an_order_that_comes_with_it_is_no_exit_by_hand(connection: Db, new_account: NewAccount) -> None:
    account, epoch = new_account()
    append(connection, account.id, epoch, [fill("1", "buy", "1", "100")])
    ours = fill("2", "sell", "0.3", "108", client_order_id="atb-1", at=BEGIN + MINUTE)
    written = append(connection, account.id, epoch, [intent("atb-1"), ours, record("hand", "0.3")])
    assert [chained.entry.kind for chained in written] == ["intent", "fill", "fill"]
    assert audit(connection, account).problems == []


def test_reversals_that_say_what_is_not_so_are_refused(connection: Db, book: Any) -> None:
    def reversal(by: str, of: str = "hand", qty: str = "0.3") -> Entry:
        body = {"fill_id": f"fill:spot:BTCUSDT:sell:{of}", "qty": Decimal(qty), "reason": "x", "by": by}
        return Entry(f"r:{by}:{of}", "reversal", BEGIN, body)

    book(fill("1", "buy", "1", "100"), fill("2", "sell", "0.3", "100"))
    book(record("hand", "0.3", may_be_booked=False), record("more", "0.3", may_be_booked=False))
    with pytest.raises(UsageError, match="nowhere, which does not follow"):
        book(reversal("nowhere"))
    book(reversal("fill:spot:BTCUSDT:sell:2"))
    with pytest.raises(UsageError, match=r"it cannot replace 0\.3"):
        book(reversal("fill:spot:BTCUSDT:sell:2", "more"))
    assert held(connection, book) == Decimal("0.4")


@pytest.mark.parametrize("seed", thinned([301, 302, 304], 3))
def test_rebuilt_tables_know_the_places(connection: Db, new_account: NewAccount, seed: int) -> None:
    """Random histories do replace records out of turn, and a rebuild from the entries alone finds the same."""
    account, epoch = new_account()
    histories = Histories(seed, replacing=True, sessions=iter(lambda: next_session_id(connection), -1), again=True)
    in_batches(connection, account, epoch, histories.take(400), Random(seed))
    query = "SELECT seq, place, replaced_qty, effective_qty FROM fills WHERE account_id = %s ORDER BY seq"
    before = connection.execute(query, (account.id,)).fetchall()
    assert any(place < seq for seq, place, _, _ in before) and any(
        place == seq and got for seq, place, got, _ in before
    )
    connection.rollback()
    assert rebuild(connection, account).problems == []
    assert connection.execute(query, (account.id,)).fetchall() == before
