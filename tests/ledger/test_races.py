"""Writers against each other: whoever was fenced writes nothing more, and one chain is never forked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any

import psycopg
import pytest

from atb.core.errors import Fenced
from atb.ledger.accounts import AccountRow, take_authority
from atb.ledger.audit import audit
from atb.ledger.connect import Where, connect
from atb.ledger.entries import Entry, fill_id
from atb.ledger.journal import append
from tests.ledger.conftest import NewAccount
from tests.ledger.histories import BEGIN, QUOTE

Db = psycopg.Connection[Any]


def deposit(name: str) -> Entry:
    body = {"type": "deposit", "asset": QUOTE, "amount": Decimal(1), "reason": "race", "evidence": "none"}
    return Entry(name, "adjustment", BEGIN, body)


def buy(number: int) -> Entry:
    name = str(number)
    body = {
        "symbol": "BTCUSDT",
        "side": "buy",
        "qty": Decimal(1),
        "price": Decimal(1 + number % 7),
        "venue_trade_id": name,
    }
    return Entry(fill_id("BTCUSDT", "buy", name), "fill", BEGIN + timedelta(seconds=number), body)


def until_fenced(connection: Db, account: AccountRow, epoch: int, race: int, start: threading.Barrier) -> int:
    """Append until somebody else has authority. Returns how many were written."""
    start.wait()
    for number in range(10_000):
        try:
            append(connection, account.id, epoch, [deposit(f"old:{race}:{number}")])
        except Fenced:
            return number
    raise AssertionError("never fenced")


def race(number: int, old: Db, new: Db, account: AccountRow, epoch: int, pool: ThreadPoolExecutor) -> int:
    """One take-over while the other writes. Returns the new epoch."""
    start = threading.Barrier(2)
    loser = pool.submit(until_fenced, old, account, epoch, number, start)
    start.wait()
    time.sleep(Random(number).uniform(0, 0.004))
    bumped = take_authority(new, account.id)
    row = new.execute("SELECT coalesce(max(seq), 0) FROM entries WHERE account_id = %s", (account.id,)).fetchone()
    new.rollback()
    append(new, account.id, bumped, [deposit(f"new:{number}")])
    written = loser.result(timeout=30)
    assert row is not None
    count, last = new.execute(
        "SELECT count(*), coalesce(max(seq), 0) FROM entries WHERE account_id = %s AND epoch = %s AND id LIKE 'old:%%'",
        (account.id, epoch),
    ).fetchone() or (0, 0)
    new.rollback()
    assert count == written, f"race {number}: acknowledged {written}, stored {count}"
    assert last <= row[0], f"race {number}: entry {last} was written by the loser after the bump, at {row[0]}"
    return bumped


def run_races(where: Where, account: AccountRow, epoch: int, count: int) -> None:
    with connect(where) as first, connect(where) as second, ThreadPoolExecutor(1) as pool:
        for number in range(count):
            old, new = (first, second) if number % 2 else (second, first)
            epoch = race(number, old, new, account, epoch, pool)
        assert audit(first, account).problems == []


def test_the_loser_of_200_races_writes_nothing_after_the_bump(where: Where, new_account: NewAccount) -> None:
    run_races(where, *new_account(), count=200)


@pytest.mark.slow
def test_the_loser_of_1000_races_writes_nothing_after_the_bump(where: Where, new_account: NewAccount) -> None:
    run_races(where, *new_account(), count=1000)


def side_by_side(where: Where, works: list[Callable[[Db], None]]) -> None:
    """Each on a connection of its own, at once."""

    def run(work: Callable[[Db], None]) -> None:
        with connect(where) as connection:
            work(connection)

    with ThreadPoolExecutor(len(works)) as pool:
        for future in [pool.submit(run, work) for work in works]:
            future.result(timeout=60)


def test_appenders_of_one_epoch_write_each_id_once_in_one_chain(
    where: Where, shared: Db, new_account: NewAccount
) -> None:
    account, epoch = new_account()

    def writer(seed: int) -> Callable[[Db], None]:
        def work(connection: Db) -> None:
            random = Random(seed)
            for _ in range(60):
                batch = [buy(n) for n in random.sample(range(80), random.randint(1, 3))]
                append(connection, account.id, epoch, batch)

        return work

    side_by_side(where, [writer(seed) for seed in range(4)])
    append(shared, account.id, epoch, [buy(n) for n in range(80)])
    found = audit(shared, account)
    assert (found.problems, found.entries, found.fills) == ([], 80, 80)


def test_appenders_to_several_accounts_and_a_reader_do_not_wait_for_each_other(
    where: Where, shared: Db, new_account: NewAccount
) -> None:
    accounts = [new_account() for _ in range(3)]

    def writer(account: AccountRow, epoch: int) -> Callable[[Db], None]:
        def work(connection: Db) -> None:
            for number in range(40):
                append(connection, account.id, epoch, [buy(number)])

        return work

    def reader(connection: Db) -> None:
        for _ in range(10):
            for account, _ in accounts:
                assert audit(connection, account).problems == []

    side_by_side(where, [reader, *(writer(account, epoch) for account, epoch in accounts)])
    assert [audit(shared, account).entries for account, _ in accounts] == [40, 40, 40]
