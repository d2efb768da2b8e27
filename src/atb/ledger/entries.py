"""What the ledger is made of: entries with one text form each, chained by sha256, one chain an account.

An entry is never changed. A correction is another entry, with its reason and its evidence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from atb.ledger.records import amount

if TYPE_CHECKING:
    from atb.ledger.accounts import AccountRow

UNIX, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
BETWEEN = "\0"  # the parts of what is hashed: Postgres' text holds none, so no part can pass for two

# kind: the fields of its body that must be there. All amounts are Decimal, all times aware.
KINDS: Mapping[str, tuple[str, ...]] = {
    "session": ("action", "session_id"),  # open: strategy, mode, ...; close: status
    "intent": ("client_order_id", "symbol", "side", "type", "qty"),  # an order about to be sent
    "order": ("client_order_id", "state"),  # what became of it
    # external_qty: how much of it moved coins that are not the account's; what it did to those are adjustments
    "fill": ("symbol", "side", "qty", "price", "venue_trade_id"),
    "reversal": ("fill_id", "qty", "reason"),  # takes back so much of a provisional fill
    "attribution": ("fill_id", "client_order_id", "evidence"),  # of a fill that counts for no order: whose it is
    "level": ("symbol", "stop", "take"),  # where a position's stop and take belong; by "operator": a tighter stop
    # deposit (above 0), withdrawal (below 0), correction, conversion: paid in or out; funding: earned or lost;
    # external: of what is at the exchange and not the account's: never traded, never counted
    "adjustment": ("type", "asset", "amount", "reason", "evidence"),
    "mark": ("prices", "why"),  # closes by symbol, and so the account's equity
    "decision": ("symbol", "timeframe", "open_time", "signal", "reason"),
    "control": ("action", "reason", "by"),  # halt, resume, fence, flatten (nothing is to be held any more)
}


class Entry(NamedTuple):
    """One fact about an account. `id` makes it idempotent: the same id twice is one entry."""

    id: str
    kind: str
    at: datetime
    body: Mapping[str, Any]
    session_id: int | None = None


class Chained(NamedTuple):
    """An entry at its place in the account's chain."""

    seq: int
    epoch: int
    entry: Entry
    text: str
    recorded_at: datetime
    prev_hash: bytes
    hash: bytes


def genesis(account: AccountRow) -> bytes:
    """What stands before an account's first entry: a chain belongs to its account, and to all that is said of it."""
    return hashlib.sha256(BETWEEN.join(["the ledger of account", *map(str, account)]).encode()).digest()


def fill_id(symbol: str, side: str, venue_trade_id: str, market: str = "spot") -> str:
    """The id of an exchange's fill. Trade ids count by symbol and market, and one owner's accounts share them."""
    return f"fill:{market}:{symbol}:{side}:{venue_trade_id}"


def encode(body: Mapping[str, Any]) -> str:
    """The one text of a body: keys sorted, Decimals as plain text, times in UTC."""
    try:
        return json.dumps(body, sort_keys=True, separators=(",", ":"), default=_plain, allow_nan=False)
    except TypeError as error:
        raise ValueError(f"{error}.") from None


def _plain(value: Any) -> str:
    if isinstance(value, Decimal):
        return f"{amount(value):f}"
    if isinstance(value, datetime):
        return utc_text(value)
    raise TypeError(f"{value!r} ({type(value).__name__}) cannot be in an entry")


def utc_text(at: datetime) -> str:
    """`2024-05-01T12:00:00.000000Z`; a time without its zone is refused."""
    offset = at.utcoffset()
    if offset is None:
        raise ValueError(f"{at} does not say its time zone.")
    if offset:
        at = at.astimezone(UTC)
    return at.isoformat(timespec="microseconds")[:26] + "Z"


def link(seq: int, epoch: int, entry: Entry, prev_hash: bytes, recorded_at: datetime) -> Chained:
    """`entry` as number `seq` of its account's chain, after the entry whose hash is `prev_hash`."""
    text = encode(entry.body)
    hashed = digest(prev_hash, seq, epoch, entry, text, recorded_at)
    return Chained(seq, epoch, entry, text, recorded_at, prev_hash, hashed)


def digest(prev_hash: bytes, seq: int, epoch: int, entry: Entry, text: str, recorded_at: datetime) -> bytes:
    """sha256 over every column of an entry's row, and the hash of the entry before it."""
    at, recorded = (entry.at - UNIX) // MICROSECOND, (recorded_at - UNIX) // MICROSECOND  # in half the time of a text
    parts = (seq, epoch, entry.id, entry.kind, at, entry.session_id, text, recorded)
    return hashlib.sha256(prev_hash + BETWEEN.join(map(str, parts)).encode()).digest()


WORDS = (
    "symbol", "market", "side", "type", "client_order_id", "venue_order_id", "venue_trade_id", "purpose", "state", "reason",
    "base", "fee_asset", "asset", "evidence", "fill_id", "why", "timeframe", "action", "by", "strategy", "symbols", "mode",
    "status", "config", "config_hash",
)  # fmt: skip
NEVER_EMPTY = ("symbol", "client_order_id", "venue_trade_id", "asset")


def check(entry: Entry) -> Entry:
    """The entry itself if it is complete, else a ValueError that says what is missing."""
    fields = KINDS.get(entry.kind)
    if fields is None:
        raise ValueError(f"'{entry.kind}' is no kind of entry (known: {', '.join(KINDS)}).")
    if not entry.id or not isinstance(entry.id, str):
        raise ValueError("An entry needs an id.")
    if not isinstance(entry.at, datetime) or not isinstance(entry.session_id, int | None):
        raise ValueError(f"Entry {entry.id} needs a time, and the number of its session or None.")
    utc_text(entry.at)
    if not isinstance(entry.body, Mapping) or not isinstance(entry.body.get("prices", {}), Mapping):
        raise ValueError(f"The body of entry {entry.id} is no mapping, or its prices are none.")
    missing = [name for name in fields if name not in entry.body]
    if missing:
        raise ValueError(f"A {entry.kind} entry needs {', '.join(missing)} (id {entry.id}).")
    for name in WORDS:
        value = entry.body.get(name, "-")
        if not isinstance(value, str) or (not value and name in NEVER_EMPTY and name in fields):
            raise ValueError(f"{name} of entry {entry.id} is {value!r}, which is no text.")
    return entry
