"""Append, audit and rebuild on a real Postgres: what is written is what the fold says, and nothing else ever is."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from random import Random
from typing import Any

import psycopg
import pytest

from atb.core.errors import DatabaseError, Fenced, UsageError
from atb.ledger import projections as tables
from atb.ledger.accounts import AccountRow, next_session_id, take_authority
from atb.ledger.audit import audit, read_chain, rebuild
from atb.ledger.connect import Where, connect
from atb.ledger.entries import Entry, fill_id, link
from atb.ledger.journal import append
from tests.ledger.conftest import NewAccount
from tests.ledger.histories import BEGIN, QUOTE, Histories
from tests.seeds import seeds

Db = psycopg.Connection[Any]
HOUR = timedelta(hours=1)


def fill(name: str, side: str, qty: str, price: str, **more: Any) -> Entry:
    symbol = more.get("symbol", "BTCUSDT")
    body = {"symbol": symbol, "base": "BTC", "side": side, "qty": Decimal(qty), "price": Decimal(price)}
    return Entry(fill_id(symbol, side, name), "fill", more.pop("at", BEGIN), {**body, "venue_trade_id": name, **more})


def deposit(name: str, amount: int) -> Entry:
    body = {"type": "deposit", "asset": QUOTE, "amount": Decimal(amount), "reason": "start", "evidence": "none"}
    return Entry(name, "adjustment", BEGIN, body)


def told(connection: Db, account: AccountRow) -> list[str]:
    found = audit(connection, account)
    return [f"{problem.place}: {problem.message}" for problem in found.problems]


def contents(connection: Db, account: AccountRow) -> dict[str, list[Any]]:
    """Every row of the account in every table, and its entries."""
    out = {
        table.name: sorted(connection.execute(table.select, (account.id,)).fetchall(), key=repr) for table in tables.ALL
    }
    out["entries"] = connection.execute(
        "SELECT * FROM entries WHERE account_id = %s ORDER BY seq", (account.id,)
    ).fetchall()
    connection.rollback()
    return out


def one(connection: Db, query: str, *values: Any) -> Any:
    row = connection.execute(query, values).fetchone()
    connection.rollback()
    assert row is not None
    return row[0] if len(row) == 1 else row


def in_batches(connection: Db, account: AccountRow, epoch: int, entries: Sequence[Entry], random: Random) -> None:
    at = 0
    while at < len(entries):
        size = random.choice((1, 1, 2, 5, 20))
        append(connection, account.id, epoch, entries[at : at + size])
        at += size


def check_against(connection: Db, account: AccountRow, histories: Histories) -> None:
    """The tables against the recomputation with fractions."""
    should = histories.account
    cash, equity, peak = one(
        connection, "SELECT cash, equity, peak FROM account_state WHERE account_id = %s", account.id
    )
    assert (Fraction(cash), Fraction(equity), Fraction(peak)) == (should.cash(), should.equity, should.peak)
    held = connection.execute(
        "SELECT symbol, CASE side WHEN 'LONG' THEN size ELSE -size END FROM positions WHERE account_id = %s AND status = 'OPEN'",
        (account.id,),
    ).fetchall()
    assert {s: Fraction(q) for s, q in held} == {k[1]: should.qty(k) for k in should.prices if should.qty(k)}
    pnls = connection.execute(
        "SELECT symbol, pnl FROM trades JOIN fills USING (account_id, seq, symbol) WHERE account_id = %s "
        "ORDER BY place, seq",
        (account.id,),
    ).fetchall()
    for key in should.prices:
        mine, rounds = [Fraction(pnl) for symbol, pnl in pnls if symbol == key[1]], list(should.rounds(key))
        assert len(mine) == len(rounds)
        assert all(abs(a - b.pnl) < Fraction(1, 10**15) for a, b in zip(mine, rounds, strict=True))
    orders = connection.execute(
        "SELECT client_order_id, filled_qty, state = 'filled', filled_qty >= qty FROM orders WHERE account_id = %s",
        (account.id,),
    ).fetchall()
    assert {name: Fraction(qty) for name, qty, _, _ in orders} == {name: should.filled(name) for name in should.ordered}
    assert all(filled == whole for _, _, filled, whole in orders)
    if histories.opened:
        latest = (
            "SELECT current_balance, peak_balance FROM trading_sessions WHERE account_id = %s "
            "ORDER BY start_time DESC, id DESC LIMIT 1"
        )
        assert one(connection, latest, account.id) == (should.equity, should.peak or None)
    connection.rollback()


@pytest.mark.parametrize("seed", range(14))
def test_the_tables_are_what_the_fold_says(connection: Db, new_account: NewAccount, seed: int) -> None:
    account, epoch = new_account()
    histories = Histories(seed, replacing=True, sessions=iter(lambda: next_session_id(connection), -1), again=True)
    for _ in range(3):
        in_batches(connection, account, epoch, histories.take(25), Random(seed))
        assert told(connection, account) == []
        check_against(connection, account, histories)


@pytest.mark.parametrize("seed", range(40, 48))
def test_a_clock_that_is_set_back_changes_no_amount(connection: Db, new_account: NewAccount, seed: int) -> None:
    """The order of entries is that of their numbers; times are only what they tell."""
    account, epoch = new_account()
    sessions = iter(lambda: next_session_id(connection), -1)
    histories = Histories(seed, replacing=True, sessions=sessions, again=True, set_back=True)
    in_batches(connection, account, epoch, entries := histories.take(90), Random(seed))
    assert any(after.at < before.at for before, after in pairwise(entries))
    assert told(connection, account) == []
    check_against(connection, account, histories)
    before = contents(connection, account)
    assert rebuild(connection, account).problems == [] and contents(connection, account) == before


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(1000, 40))
def test_the_tables_are_what_the_fold_says_over_long_histories(
    connection: Db, new_account: NewAccount, seed: int
) -> None:
    account, epoch = new_account()
    histories = Histories(seed, replacing=True, sessions=iter(lambda: next_session_id(connection), -1), again=True)
    in_batches(connection, account, epoch, histories.take(250), Random(seed))
    assert told(connection, account) == []
    check_against(connection, account, histories)


@pytest.mark.parametrize("seed", range(20, 23))
def test_rebuilt_tables_are_the_same_and_stay_so(connection: Db, new_account: NewAccount, seed: int) -> None:
    account, epoch = new_account()
    histories = Histories(seed, replacing=True, sessions=iter(lambda: next_session_id(connection), -1), again=True)
    in_batches(connection, account, epoch, histories.take(120), Random(seed))
    before = contents(connection, account)
    for _ in range(2):
        assert rebuild(connection, account).problems == []
        assert contents(connection, account) == before
    append(connection, account.id, epoch, histories.take(10))
    assert told(connection, account) == []


def test_a_chain_is_read_on_from_where_it_was_left(connection: Db, new_account: NewAccount) -> None:
    account, epoch = new_account()
    appended = append(connection, account.id, epoch, [deposit(name, 1) for name in ("one", "two", "three")])
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    whole = read_chain(connection, account.id)
    assert [link.hash for link in whole] == [link.hash for link in appended]
    assert [read_chain(connection, account.id, seq) for seq in range(5)] == [whole, whole[1:], whole[2:], [], []]
    assert {link.entry.at.utcoffset() for link in whole} == {timedelta(0)}
    connection.rollback()


def test_an_id_is_written_once(connection: Db, new_account: NewAccount) -> None:
    account, epoch = new_account()
    history = Histories(3, replacing=False).take(90)
    entries = [e._replace(session_id=None) for e in history if e.kind in ("fill", "adjustment", "mark")][:30]
    first = append(connection, account.id, epoch, entries[:20])
    before = contents(connection, account)
    assert append(connection, account.id, epoch, entries[:20]) == []
    assert contents(connection, account) == before
    # An overlap, backwards, and one id twice in the batch: the first of the two counts.
    last = next(entry for entry in entries[20:] if entry.kind == "fill")
    other = last._replace(body={**last.body, "more": "other"})
    second = append(connection, account.id, epoch, [*entries[19:4:-1], *entries[20:], other])
    ids = [c.entry.id for c in (*first, *second)]
    assert len(ids) == len(set(ids))
    assert [name for name in ids if not name.startswith("r")] == [entry.id for entry in entries]
    assert "other" not in one(connection, "SELECT body FROM entries WHERE id = %s", other.id)
    assert told(connection, account) == []
    assert append(connection, account.id, epoch, []) == []


def test_an_older_epoch_is_fenced_and_writes_nothing(connection: Db, new_account: NewAccount) -> None:
    account, old = new_account()
    append(connection, account.id, old, [deposit("a", 1)])
    new = take_authority(connection, account.id)
    before = contents(connection, account)
    for epoch in (old, new + 1):
        with pytest.raises(Fenced) as error:
            append(connection, account.id, epoch, [deposit("b", 1)])
        assert error.value.exit_code == 9
    assert contents(connection, account) == before
    append(connection, account.id, new, [deposit("b", 1)])
    assert [row[2] for row in contents(connection, account)["entries"]] == [old, new]


def test_whoever_was_fenced_meanwhile_may_ask_again_what_it_wrote(connection: Db, new_account: NewAccount) -> None:
    """A commit whose answer was lost: the same entries again are no error, and nothing is written."""
    account, old = new_account()
    entries = [deposit("a", 1), fill("7", "buy", "1", "10")]
    append(connection, account.id, old, entries)
    take_authority(connection, account.id)
    before = contents(connection, account)
    assert append(connection, account.id, old, entries) == []
    with pytest.raises(Fenced):
        append(connection, account.id, old, [*entries, deposit("b", 1)])
    assert contents(connection, account) == before


def test_an_id_stands_for_one_fact(connection: Db, new_account: NewAccount) -> None:
    account, epoch = new_account()
    bought = fill("7", "buy", "1", "10", evidence="told by the exchange", reason="signal")
    append(connection, account.id, epoch, [deposit("a", 1), bought])
    before = contents(connection, account)
    again = fill("7", "buy", "1.000", "1E+1", evidence="fills.csv, line 2", fee=Decimal("0.01"), at=BEGIN + HOUR)
    assert append(connection, account.id, epoch, [again]) == []  # told once more, by another
    others = [fill("7", "buy", "1.1", "10"), fill("7", "buy", "1", "11"), deposit("a", 2), deposit(bought.id, 1)]
    for other in others:
        for batch in ([other], [deposit("new", 1), other]):
            with pytest.raises(UsageError, match=f"{other.id} was written before, with another"):
                append(connection, account.id, epoch, batch)
    with pytest.raises(UsageError, match="new was written before, with another amount"):
        append(connection, account.id, epoch, [deposit("new", 1), deposit("new", 3)])
    assert contents(connection, account) == before


def test_no_such_account(connection: Db) -> None:
    with pytest.raises(DatabaseError, match="no account 987654"):
        append(connection, 987654, 1, [deposit("a", 1)])


def test_two_accounts_and_two_symbols_share_trade_ids(connection: Db, new_account: NewAccount) -> None:
    """One owner's accounts that trade with each other: the buyer's and the seller's fill have one trade id."""
    (buyer, one_epoch), (seller, other_epoch) = new_account(), new_account()
    append(connection, buyer.id, one_epoch, [fill("7", "buy", "1", "10"), fill("7", "sell", "1", "10")])
    append(connection, seller.id, other_epoch, [fill("7", "sell", "1", "10")])
    append(connection, buyer.id, one_epoch, [fill("7", "buy", "1", "10", symbol="ETHUSDT")])
    counts = [len(contents(connection, account)["fills"]) for account in (buyer, seller)]
    assert counts == [3, 1]
    assert told(connection, buyer) == told(connection, seller) == []


def test_one_trade_under_two_ids_is_refused(connection: Db, new_account: NewAccount) -> None:
    account, epoch = new_account()
    append(connection, account.id, epoch, [fill("7", "buy", "1", "10")])
    before = contents(connection, account)
    with pytest.raises(UsageError, match=r"under two ids.*\(.*7\)"):
        append(connection, account.id, epoch, [deposit("d", 5), fill("7", "buy", "1", "10")._replace(id="other")])
    assert contents(connection, account) == before


def adjusted(**body: Any) -> Entry:
    whole = {"type": "deposit", "asset": QUOTE, "amount": Decimal(1), "reason": "r", "evidence": "e"}
    return Entry("x", "adjustment", BEGIN, {k: v for k, v in {**whole, **body}.items() if v is not ...})


def intended(**body: Any) -> Entry:
    whole = {"client_order_id": "new", "symbol": "BTCUSDT", "side": "buy", "type": "market", "qty": Decimal(1)}
    return Entry("x", "intent", BEGIN, {**whole, **body})


def decided(**body: Any) -> Entry:
    whole = {"symbol": "BTCUSDT", "timeframe": "1h", "open_time": BEGIN, "signal": 0.5, "reason": "r"}
    return Entry("x", "decision", BEGIN, {**whole, **body})


def bare(kind: str, **body: Any) -> Entry:
    return Entry("x", kind, BEGIN, body)


IMPOSSIBLE = {
    "level without a position": bare("level", symbol="ETHUSDT", stop=None, take=None),
    "level below zero": bare("level", symbol="BTCUSDT", stop=Decimal(-1), take=None),
    "order without an intent": bare("order", client_order_id="nobody's", state="open"),
    "unknown state": bare("order", client_order_id="known", state="lost"),
    "second intent": intended(client_order_id="known"),
    "intent of nothing": intended(qty=Decimal(0)),
    "intent to hold": intended(side="hold"),
    "close of an unknown session": bare("session", action="close", session_id=999_999),
    "session that is neither opened nor closed": bare("session", action="pause", session_id=999_999),
    "second opening": bare("session", action="open", session_id=999_041),
    "session without a number": bare("session", action="open", session_id="x"),
    "entry of an unknown session": deposit("x", 1)._replace(session_id=999_999),
    "reversal of an unknown fill": bare("reversal", fill_id="nobody's", qty=Decimal(1), reason="r"),
    "reversal of the exchange's fill": bare("reversal", fill_id=fill_id("BTCUSDT", "buy", "1"), qty=Decimal(1), reason="r"),
    "reversal of too much": bare("reversal", fill_id=fill_id("BTCUSDT", "sell", "p"), qty=Decimal("0.2"), reason="r"),
    "float": adjusted(amount=0.1),
    "true": adjusted(amount=True),
    "no number": adjusted(amount="many"),
    "NaN": adjusted(amount=Decimal("NaN")),
    "infinite": adjusted(amount="Infinity"),
    "enormous": adjusted(amount=Decimal("1e400000")),
    "too fine": adjusted(amount=Decimal("1e-25")),
    "deposit of less than nothing": adjusted(amount=Decimal(-1)),
    "withdrawal of less than nothing": adjusted(type="withdrawal"),
    "no evidence": adjusted(evidence=...),
    "evidence that is no text": adjusted(evidence={"a": 1}),
    "text with a NUL": adjusted(reason="a\0b"),
    "half a character": adjusted(reason="\ud800"),
    "asset without a name": adjusted(asset=""),
    "not JSON": adjusted(more=object()),
    "NaN in JSON": adjusted(more=float("nan")),
    "naive time": deposit("x", 1)._replace(at=datetime(2024, 1, 1)),
    "naive time of what replaces": fill("x", "sell", "0.1", "10", at=datetime(2024, 1, 1)),
    "naive time inside": adjusted(more=datetime(2024, 1, 1)),
    "time as text": deposit("x", 1)._replace(at="2024-01-01"),  # type: ignore[arg-type]
    "no id": deposit("", 1),
    "unknown kind": bare("wish", amount=1),
    "body that is none": Entry("x", "mark", BEGIN, [1]),  # type: ignore[arg-type]
    "marks that are none": bare("mark", prices=[1], why="w"),
    "mark at nothing": bare("mark", prices={"BTCUSDT": Decimal(0)}, why="w"),
    "fill of nothing": fill("x", "buy", "0", "1"),
    "fill for nothing": fill("x", "buy", "1", "0"),
    "fill to the left": fill("x", "left", "1", "1"),
    "fill without a trade id": fill("", "buy", "1", "1"),
    "trade id as a number": fill("x", "buy", "1", "1", venue_trade_id=7),
    "fee in what nobody knows": fill("x", "buy", "1", "1", base="", fee=Decimal(1), fee_asset="BTC"),
    "fill of an order for something else": fill("x", "sell", "1", "1", client_order_id="known"),
    "signal that is none": decided(signal="strong"),
    "signal NaN": decided(signal="nan"),
    "candle without a zone": decided(open_time="2024-01-01T00:00:00"),
    "candle of no time": decided(open_time=5),
    "control without a reason": bare("control", action="halt", reason="", by="me"),
    "unknown control": bare("control", action="panic", reason="r", by="me"),
}  # fmt: skip


@pytest.fixture(scope="module")
def furnished(shared: Db, new_account: NewAccount) -> tuple[AccountRow, int]:
    account, epoch = new_account()
    known = intended(client_order_id="known")._replace(id="known")
    session = bare("session", action="open", session_id=999_041)._replace(id="session")
    hand = fill("p", "sell", "0.1", "10", provisional=True)
    append(shared, account.id, epoch, [known, session, fill("1", "buy", "1", "10"), hand])
    return account, epoch


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_contradicts_the_account_is_refused_whole(
    connection: Db, furnished: tuple[AccountRow, int], name: str
) -> None:
    account, epoch = furnished
    before = contents(connection, account)
    with pytest.raises(UsageError) as error:
        append(connection, account.id, epoch, [deposit("good", 1), IMPOSSIBLE[name]])
    assert len(error.value.what) < 500
    assert contents(connection, account) == before
    assert told(connection, account) == []


def test_another_accounts_session_cannot_be_opened(
    connection: Db, furnished: tuple[AccountRow, int], new_account: NewAccount
) -> None:
    account, epoch = new_account()
    for entry in (IMPOSSIBLE["second opening"], deposit("x", 1)._replace(session_id=999_041)):
        with pytest.raises(UsageError, match="999041"):
            append(connection, account.id, epoch, [entry])
    assert told(connection, furnished[0]) == told(connection, account) == []


def test_a_provisional_exit_is_replaced_by_the_exchanges_fills(connection: Db, new_account: NewAccount) -> None:
    account, epoch = new_account()
    append(connection, account.id, epoch, [fill("1", "buy", "1", "100")])
    hand = fill("hand", "sell", "1", "110", provisional=True, at=BEGIN + HOUR)
    append(connection, account.id, epoch, [hand])
    assert one(connection, "SELECT pnl, provisional FROM trades WHERE account_id = %s", account.id) == (10, True)
    real = [fill("2", "sell", "0.4", "108"), fill("3", "sell", "0.6", "109")]
    for _ in range(2):
        append(connection, account.id, epoch, real[:1])
        append(connection, account.id, epoch, real)
    assert one(connection, "SELECT pnl, provisional FROM trades WHERE account_id = %s", account.id) == (
        Decimal("8.6"),
        False,
    )
    assert one(connection, "SELECT count(*) FROM positions WHERE account_id = %s AND status = 'OPEN'", account.id) == 0
    assert told(connection, account) == []


def test_all_of_it_in_one_batch(connection: Db, new_account: NewAccount) -> None:
    account, epoch = new_account()
    append(connection, account.id, epoch, [fill("1", "buy", "1", "100")])
    hand, real = fill("hand", "sell", "1", "110", provisional=True), fill("2", "sell", "1", "108")
    append(connection, account.id, epoch, [hand, real])
    assert one(connection, "SELECT pnl FROM trades WHERE account_id = %s", account.id) == 8
    assert told(connection, account) == []


def test_a_later_execution_is_not_what_was_recorded_by_hand(connection: Db, new_account: NewAccount) -> None:
    """What a sale left of the recorded quantity must not eat a part of the next trade."""
    account, epoch = new_account()
    append(connection, account.id, epoch, [fill("1", "buy", "1", "100")])
    append(connection, account.id, epoch, [fill("hand", "sell", "1", "110", provisional=True)])
    append(connection, account.id, epoch, [fill("2", "sell", "0.999", "110")])
    append(connection, account.id, epoch, [fill("3", "buy", "1", "100", at=BEGIN + 30 * HOUR)])
    append(connection, account.id, epoch, [fill("4", "sell", "1", "120", at=BEGIN + 40 * HOUR)])
    assert one(connection, "SELECT count(*) FROM positions WHERE account_id = %s AND status = 'OPEN'", account.id) == 0
    assert told(connection, account) == []


def test_a_reversal_keeps_the_stops_of_what_was_closed(connection: Db, new_account: NewAccount) -> None:
    account, epoch = new_account()
    levels = bare("level", symbol="BTCUSDT", stop=Decimal(90), take=None)
    append(connection, account.id, epoch, [fill("1", "buy", "1", "100"), levels, fill("2", "sell", "1", "99")])
    append(connection, account.id, epoch, [fill("3", "buy", "1", "100"), levels._replace(id="y")])
    append(connection, account.id, epoch, [fill("hand", "sell", "1", "110", provisional=True)])
    append(connection, account.id, epoch, [fill("4", "sell", "1", "108")])
    stops = connection.execute("SELECT stop_loss FROM positions WHERE account_id = %s", (account.id,)).fetchall()
    connection.rollback()
    assert stops == [(90,), (90,)]
    assert told(connection, account) == []


def test_a_halt_is_told_where_authority_is(connection: Db, new_account: NewAccount) -> None:
    account, epoch = new_account()
    query = "SELECT halted, halt_reason FROM authority WHERE account_id = %s"
    for action, expected in (("halt", (True, "loss")), ("fence", (True, "loss")), ("resume", (False, ""))):
        append(
            connection, account.id, epoch, [bare("control", action=action, reason="loss", by="me")._replace(id=action)]
        )
        assert one(connection, query, account.id) == expected
    assert told(connection, account) == []


def test_sessions_tell_the_marked_worth_and_hand_it_on(connection: Db, new_account: NewAccount) -> None:
    account, epoch = new_account()
    first, second = next_session_id(connection), next_session_id(connection)
    query = "SELECT initial_balance, current_balance, peak_balance FROM trading_sessions WHERE id = %s"

    def opened(number: int, hours: int) -> Entry:
        body = {"action": "open", "session_id": number}
        return Entry(f"open{number}", "session", BEGIN + hours * HOUR, body, number)

    def mark(price: int) -> Entry:
        return Entry(f"m{price}", "mark", BEGIN, {"prices": {"BTCUSDT": Decimal(price)}, "why": "close"})

    append(
        connection, account.id, epoch, [deposit("d", 1000), opened(first, 0), fill("1", "buy", "5", "100"), mark(120)]
    )
    append(connection, account.id, epoch, [mark(80)])  # an entry of no session
    assert one(connection, query, first) == (1000, 900, 1100)
    append(connection, account.id, epoch, [opened(second, 1), mark(100)])
    assert one(connection, query, first) == (1000, 900, 1100)
    assert one(connection, query, second) == (900, 1000, 1100)
    append(connection, account.id, epoch, [deposit("e", 1000)])  # the share below the peak stays
    assert one(connection, query, second) == (900, 2000, 2200)
    assert told(connection, account) == []


def test_events_are_facts_that_follow_from_nothing(connection: Db, new_account: NewAccount) -> None:
    account, _ = new_account()
    insert = "INSERT INTO events (severity, component, code, message, account_id) VALUES (%s, 'journal', 'c', 'm', %s)"
    connection.execute(insert, ("warning", account.id))
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(insert, ("loud", account.id))
    connection.rollback()
    assert told(connection, account) == []


def test_the_database_allows_one_open_position_of_a_symbol(connection: Db, furnished: tuple[AccountRow, int]) -> None:
    names = ", ".join(name for name in tables.POSITIONS.columns if name != "opened_seq")
    with pytest.raises(psycopg.errors.UniqueViolation, match="positions_one_open"):
        connection.execute(
            f"INSERT INTO positions (opened_seq, {names}) SELECT 4, {names} FROM positions WHERE account_id = %s",
            (furnished[0].id,),
        )


@pytest.mark.parametrize(
    "statement", ["UPDATE entries SET body = '{}'", "DELETE FROM entries", "TRUNCATE entries CASCADE"]
)
def test_entries_are_final(connection: Db, statement: str) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match="only ever added"):
        connection.execute(statement)


def test_a_connection_that_commits_by_itself_is_not_taken(where: Where) -> None:
    with connect(where, autocommit=True) as connection, pytest.raises(AssertionError):
        append(connection, 1, 1, [])


# Tampering, with the trigger and the foreign keys switched off. Each returns what the audit must say.

FORGE = (
    "INSERT INTO entries (account_id, seq, epoch, id, kind, at, body, recorded_at, prev_hash, hash) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)


@pytest.fixture
def tampered(connection: Db, new_account: NewAccount) -> Callable[..., list[str]]:
    account, epoch = new_account()
    entries = [
        bare("session", action="open", session_id=next_session_id(connection))._replace(id="s"),
        deposit("d", 99),
    ]
    for n in range(12):
        entries += [
            fill(f"b{n}", "buy", "1", str(10 + n)),
            fill(f"s{n}", "sell", "1", str(11 + n), fee=Decimal("0.01")),
        ]
    entries += [
        fill("last", "buy", "1", "10", fee_asset="BNB", fee=Decimal(1), fee_quote=Decimal(5)),
        intended(),
        decided()._replace(id="y"),
    ]
    append(connection, account.id, epoch, entries)
    assert told(connection, account) == []

    def change(*statements: str) -> list[str]:
        with connection.transaction():
            connection.execute("SET LOCAL session_replication_role = replica")
            for statement in statements:
                assert connection.execute(statement.replace("$A", str(account.id))).rowcount > 0
        return told(connection, account)

    change.account = account  # type: ignore[attr-defined]
    return change


CHAIN_FAULTS = {
    "changed body": (["UPDATE entries SET body = replace(body, '\"10\"', '\"9\"') WHERE account_id = $A AND seq = 3"],
                     "Entry 3 .*was changed"),
    "body that is no JSON": (["UPDATE entries SET body = 'x' WHERE account_id = $A AND seq = 3"], "Entry 3 .*was changed"),
    "changed time": (["UPDATE entries SET at = at + interval '1 microsecond' WHERE account_id = $A AND seq = 9"],
                     "Entry 9 .*was changed"),
    "changed kind": (["UPDATE entries SET kind = 'mark' WHERE account_id = $A AND seq = 9"], "Entry 9 .*was changed"),
    "changed epoch": (["UPDATE entries SET epoch = 1 WHERE account_id = $A AND seq = 9"], "Entry 9 .*was changed"),
    "changed session": (["UPDATE entries SET session_id = 1 WHERE account_id = $A AND seq = 9"], "Entry 9 .*was changed"),
    "changed id": (["UPDATE entries SET id = 'z' WHERE account_id = $A AND seq = 9"], "Entry 9 .z.*was changed"),
    "changed hash": (["UPDATE entries SET hash = sha256('x') WHERE account_id = $A AND seq = 5"], "Entry 5 .*was changed"),
    "changed last hash": (["UPDATE entries SET hash = sha256('x') WHERE account_id = $A AND seq = 29"], "Entry 29 .*was changed"),
    "changed link": (["UPDATE entries SET prev_hash = sha256('x') WHERE account_id = $A AND seq = 5"],
                     "Entry 5 .*does not follow"),
    "removed first": (["DELETE FROM entries WHERE account_id = $A AND seq = 1"], "Entry 1 is missing"),
    "removed": (["DELETE FROM entries WHERE account_id = $A AND seq = 7"], "Entry 7 is missing"),
    "removed and closed up": (["DELETE FROM entries WHERE account_id = $A AND seq = 7",
                               "UPDATE entries SET seq = seq - 1 WHERE account_id = $A AND seq > 7"],
                              "Entry 7 .*does not follow"),
    "removed last": (["DELETE FROM entries WHERE account_id = $A AND seq = 29"], "Entry 29 is missing.*number 29"),
    "removed last ten": (["DELETE FROM entries WHERE account_id = $A AND seq > 19"], "Entry 20 is missing.*number 29"),
    "removed all": (["DELETE FROM entries WHERE account_id = $A"], "Entry 1 is missing"),
    "swapped": (["UPDATE entries SET seq = -1 WHERE account_id = $A AND seq = 5",
                 "UPDATE entries SET seq = 5 WHERE account_id = $A AND seq = 6",
                 "UPDATE entries SET seq = 6 WHERE account_id = $A AND seq = -1"], "Entry 5 .*does not follow"),
    "swapped bodies": (["UPDATE entries e SET body = f.body FROM entries f WHERE e.account_id = $A AND f.account_id = $A "
                        "AND (e.seq, f.seq) IN ((3, 5), (5, 3))"], "Entry 3 .*was changed"),
    "another's": (["UPDATE entries SET account_id = 0 WHERE account_id = $A AND seq > 20"],
                  "Entry 21 is missing"),
    "inserted": (["UPDATE entries SET seq = seq + 1000 WHERE account_id = $A AND seq > 7",
                  "UPDATE entries SET seq = seq - 999 WHERE account_id = $A AND seq > 7",
                  "INSERT INTO entries (account_id, seq, epoch, id, kind, at, body, prev_hash, hash) SELECT account_id, 8, "
                  "epoch, 'more', kind, at, body, hash, sha256('x') FROM entries WHERE account_id = $A AND seq = 7"],
                 "Entry 8 .more. was changed"),
    "inserted before all": (["INSERT INTO entries (account_id, seq, epoch, id, kind, at, body, prev_hash, hash) SELECT "
                             "account_id, 0, epoch, 'more', kind, at, body, hash, hash FROM entries WHERE account_id = $A "
                             "AND seq = 7"], "Entry 1 is missing: after 0 comes 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAIN_FAULTS)
def test_tampering_with_the_chain_is_named(connection: Db, tampered: Callable[..., list[str]], name: str) -> None:
    statements, expected = CHAIN_FAULTS[name]
    found = tampered(*statements)
    assert len(found) == 1 and found[0].startswith("entries: ")
    assert re.search(expected, found[0]), found
    account = tampered.account  # type: ignore[attr-defined]
    before = contents(connection, account)
    assert rebuild(connection, account).problems != []
    assert contents(connection, account) == before  # rebuild never blesses a broken chain


def test_an_entry_forged_at_the_end_is_told_by_every_table(connection: Db, tampered: Callable[..., list[str]]) -> None:
    """With a right hash only the tables can tell: nothing of it was ever booked."""
    account = tampered.account  # type: ignore[attr-defined]
    seq, epoch, head = one(
        connection, "SELECT seq, epoch, hash FROM entries WHERE account_id = %s ORDER BY seq DESC LIMIT 1", account.id
    )
    forged = link(seq + 1, epoch, deposit("forged", 1_000_000), head, BEGIN)
    connection.execute(
        FORGE,
        (account.id, seq + 1, epoch, forged.entry.id, "adjustment", BEGIN, forged.text, BEGIN, head, forged.hash),
    )
    connection.commit()
    found = told(connection, account)
    assert {text.partition(":")[0] for text in found} == {
        "account_state", "account_balances", "adjustments", "trading_sessions",
    }  # fmt: skip
    assert any("seq is 29, by the ledger 30" in text for text in found)


def test_a_forged_entry_that_contradicts_the_others_is_named(
    connection: Db, tampered: Callable[..., list[str]]
) -> None:
    account = tampered.account  # type: ignore[attr-defined]
    seq, epoch, head = one(
        connection, "SELECT seq, epoch, hash FROM entries WHERE account_id = %s ORDER BY seq DESC LIMIT 1", account.id
    )
    order = bare("order", client_order_id="nobody's", state="open")._replace(id="forged")
    forged = link(seq + 1, epoch, order, head, BEGIN)
    connection.execute(
        FORGE,
        (account.id, seq + 1, epoch, "forged", "order", BEGIN, forged.text, BEGIN, head, forged.hash),
    )
    connection.commit()
    assert told(connection, account) == ["entries: Entry 30 (forged) cannot be: There is no order nobody's."]
    assert len(rebuild(connection, account).problems) == 1


CHANGES = {
    "account_state": "cash = cash + 0.000000000000000001", "account_assets": "qty = 0", "prices": "price = price + 1",
    "trading_sessions": "current_balance = 1", "orders": "state = 'cancelled'", "fills": "evidence = 'x'",
    "positions": "entry_price = 1", "trades": "pnl = pnl * -1", "account_balances": "balance = balance + 1",
    "adjustments": "reason = 'gift'", "decisions": "signal = 0.50000001",
}  # fmt: skip


OTHER_KEYS = {
    "account_assets": {"asset": "'more'"}, "prices": {"symbol": "'more'"}, "trading_sessions": {"id": "-5"},
    "orders": {"client_order_id": "'more'"}, "positions": {"opened_seq": "-5", "symbol": "'more'"},
    "fills": {"seq": "-5", "venue_trade_id": "'more'"},
}  # fmt: skip


@pytest.mark.parametrize("table", tables.ALL, ids=lambda table: table.name)
def test_tampering_with_a_table_is_named_and_mended(
    connection: Db, tampered: Callable[..., list[str]], table: tables.Projection
) -> None:
    account, name = tampered.account, table.name  # type: ignore[attr-defined]
    whole = contents(connection, account)
    values = {column: column for column in table.columns} | OTHER_KEYS.get(name, {"seq": "-5"})
    one_row = f"ctid = (SELECT ctid FROM {name} WHERE account_id = $A LIMIT 1)"
    tampers = {
        "by the ledger": f"UPDATE {name} SET {CHANGES[name]} WHERE {one_row}",
        "is missing": f"DELETE FROM {name} WHERE {one_row}",
        "follows from no entry": f"INSERT INTO {name} ({', '.join(values)}) SELECT {', '.join(values.values())} "
        f"FROM {name} WHERE {one_row}",
    }
    if name == "account_state":
        del tampers["follows from no entry"]  # there is one row an account
    for words, statement in tampers.items():
        found = tampered(statement)
        assert len(found) == 1 and found[0].startswith(f"{name}: ") and words in found[0], found
        assert rebuild(connection, account).problems == []
        assert contents(connection, account) == whole
        assert told(connection, account) == []
