"""What an account is worth at the prices of now: one row an account, overwritten by its engine and by nobody else.

It is no fact of the ledger: nothing is folded from it, and `atb db verify` and `rebuild` leave it alone. It counts as long as
the ledger has no entry that it does not know of (`seq`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from atb.ledger.records import Key

if TYPE_CHECKING:
    from psycopg import Connection

COLUMNS = "account_id, seq, session_id, at, equity, peak, unrealized_pnl, prices"
# Only by whoever has authority: one that was taken over tells nothing of the account any more.
WRITE = (
    f"INSERT INTO running_marks ({COLUMNS}) SELECT account_id, %s, %s, %s, %s, %s, %s, %s FROM authority "
    "WHERE account_id = %s AND epoch = %s ON CONFLICT (account_id) DO UPDATE SET seq = EXCLUDED.seq, "
    "session_id = EXCLUDED.session_id, at = EXCLUDED.at, equity = EXCLUDED.equity, peak = EXCLUDED.peak, "
    "unrealized_pnl = EXCLUDED.unrealized_pnl, prices = EXCLUDED.prices"
)
READ = (
    "SELECT account_id, m.seq, at, m.equity, m.peak, unrealized_pnl, prices FROM running_marks m "
    "JOIN account_state s USING (account_id) WHERE m.seq = s.seq"
)


class RunningMark(NamedTuple):
    """seq: the last entry that was folded. Money in quote; prices: those that were seen of what is held."""

    seq: int
    at: datetime
    equity: Decimal
    peak: Decimal
    unrealized_pnl: Decimal
    prices: Mapping[Key, Decimal]


def write_mark(connection: Connection[Any], account_id: int, epoch: int, session_id: int, mark: RunningMark) -> None:
    """Put it in the place of the one before, and commit. Without authority nothing is written."""
    prices = json.dumps({":".join(key): f"{price:f}" for key, price in mark.prices.items()})
    values = mark.seq, session_id, mark.at, mark.equity, mark.peak, mark.unrealized_pnl, prices
    connection.execute(WRITE, (*values, account_id, epoch))
    connection.commit()


def read_marks(connection: Connection[Any]) -> dict[int, RunningMark]:
    """By account, those that know of every entry."""
    return {
        number: RunningMark(seq, at, equity, peak, gained, _prices(prices))
        for number, seq, at, equity, peak, gained, prices in connection.execute(READ).fetchall()
    }


def _prices(text: str) -> dict[Key, Decimal]:
    return {_key(name): Decimal(price) for name, price in json.loads(text).items()}


def _key(name: str) -> Key:
    market, _, symbol = name.partition(":")
    return market, symbol
