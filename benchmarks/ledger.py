"""The ledger: fills appended one a commit on a running embedded server, the fold, the chain, and the whole audit."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from atb.ledger.accounts import AccountRow, open_account, take_authority
from atb.ledger.audit import audit, broken_links, read_chain
from atb.ledger.connect import connect
from atb.ledger.connect import embedded as where_of
from atb.ledger.embedded import start, stop
from atb.ledger.entries import Entry, fill_id
from atb.ledger.fold import Account
from atb.ledger.journal import append
from atb.ledger.migrate import migrate
from benchmarks.measure import Row, best_of

if TYPE_CHECKING:
    from psycopg import Connection

FILLS = 20_000
FIRST_PORT = 55480
# A bare sum takes 0.26 us on a machine at rest: 50,000 folded fills a second, the least that we want, are 77 of them, and
# 15,000 read ones 3.3 such folds.
FOLD_LIMIT, READ_LIMIT, AUDIT_LIMIT = 45.0, 3.3, 3.0
MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


def appends(quick: bool) -> list[Row]:
    """Fills a second, and what a fold, a reading and an audit cost in what each is made of."""
    rounds = 3 if quick else 7
    entries = [trade_fill(number) for number in range(FILLS)]
    with served() as connection:
        one, epoch = an_account(connection, "one by one")
        count = 300 if quick else 2_000
        fills = iter(entries[: 2 * count])

        def one_by_one() -> None:
            for _ in range(count):
                append(connection, one.id, epoch, [next(fills)])

        seconds = best_of({"append": one_by_one}, 1)
        rows = [Row("appended, one a commit", count / seconds["append"], "fills/s")]
        many, epoch = an_account(connection, "many")
        for at in range(0, FILLS, 500):
            append(connection, many.id, epoch, entries[at : at + 500])
        chain = read_chain(connection, many.id)
        connection.rollback()
        numbered = [(link.seq, link.entry) for link in chain]

        def read_check_and_fold() -> None:
            links = read_chain(connection, many.id)
            connection.rollback()
            if list(broken_links(links, many)):
                raise RuntimeError("The chain is broken.")
            Account("USDT").apply_all((link.seq, link.entry) for link in links)

        def whole_audit() -> None:
            if audit(connection, many).problems:
                raise RuntimeError("The audit found something.")

        seconds = best_of(
            {
                "bare": lambda: bare_fold(entries),
                "fold": lambda: Account("USDT").apply_all(numbered),
                "read": read_check_and_fold,
                "audit": whole_audit,
            },
            rounds,
        )
    return [
        *rows,
        Row("fold alone, 20,000 fills", FILLS / seconds["fold"], "fills/s"),
        Row("read, checked and folded", FILLS / seconds["read"], "fills/s"),
        Row("audit of 20,000 fills", seconds["audit"], "s"),
        Row("fold, in bare sums of the same Decimals", seconds["fold"] / seconds["bare"], "x", FOLD_LIMIT),
        Row("read, checked and folded, in folds", seconds["read"] / seconds["fold"], "x", READ_LIMIT),
        Row("audit, in readings", seconds["audit"] / seconds["read"], "x", AUDIT_LIMIT),
    ]


def bare_fold(entries: list[Entry]) -> Decimal:
    """The least that books can cost: quantity and cash of each fill, added up, and nothing else."""
    qty = cash = Decimal(0)
    for entry in entries:
        body = entry.body
        if body["side"] == "buy":
            qty += body["qty"]
            cash -= body["qty"] * body["price"] + body["fee"]
        else:
            qty -= body["qty"]
            cash += body["qty"] * body["price"] - body["fee"]
    return cash + qty


@contextmanager
def served() -> Iterator[Connection[Any]]:
    """A connection to a fresh embedded server that waits for the disk at each commit."""
    with tempfile.TemporaryDirectory() as home:
        server = start(Path(home), first_port=FIRST_PORT)
        try:
            where = where_of(server)
            migrate(where, MIGRATIONS)
            with connect(where) as connection:
                yield connection
        finally:
            stop(Path(home))


def an_account(connection: Connection[Any], name: str) -> tuple[AccountRow, int]:
    account = open_account(connection, name, venue="paper", environment="paper", quote="USDT")
    connection.commit()
    return account, take_authority(connection, account.id)


def trade_fill(number: int) -> Entry:
    """Two buys and two sells of BTC make a trade."""
    random = Random(number)
    side = "buy" if number % 4 < 2 else "sell"
    body = {
        "symbol": "BTCUSDT", "base": "BTC", "side": side, "qty": Decimal("0.01500"),
        "price": Decimal(random.randint(2_000_000, 7_000_000)).scaleb(-2), "fee": Decimal(random.randint(1, 99_999)).scaleb(-8),
        "fee_asset": "USDT", "venue_trade_id": str(number), "client_order_id": f"atb-{number // 2}", "reason": "signal",
    }  # fmt: skip
    return Entry(fill_id("BTCUSDT", side, str(number)), "fill", BEGIN + timedelta(minutes=number), body)
