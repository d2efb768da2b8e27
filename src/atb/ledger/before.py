"""What is known of an account before entries are taken in: its head, and as much of its state as they touch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from atb.core.errors import DatabaseError
from atb.ledger import projections as tables
from atb.ledger.accounts import COLUMNS as ACCOUNT
from atb.ledger.accounts import AccountRow
from atb.ledger.attributing import Naming
from atb.ledger.entries import Entry, check, encode, genesis
from atb.ledger.fold import Account, latest_of
from atb.ledger.projections import Projection
from atb.ledger.records import EXACT, ZERO, Fill, Key, Order, Position, Session, amount
from atb.ledger.replacing import keys_to_fold_anew

if TYPE_CHECKING:
    from psycopg import Connection

LOCK = (
    f"SELECT epoch, quote, {ACCOUNT} FROM authority JOIN accounts ON accounts.id = account_id WHERE account_id = %s "
    "FOR UPDATE OF authority"
)
SESSIONS = f"""SELECT {", ".join(tables.SESSIONS.columns)} FROM trading_sessions WHERE id = ANY(%s) OR id =
    (SELECT id FROM trading_sessions WHERE account_id = %s ORDER BY start_time DESC, id DESC LIMIT 1)"""

# Fills that count for no order, of those that are named by an entry.
UNORDERED = (
    "AND NOT provisional AND {} AND NOT EXISTS (SELECT FROM orders AS o "
    "WHERE o.account_id = fills.account_id AND o.client_order_id = fills.client_order_id)"
)
TOLD_AGAIN = UNORDERED.format("seq IN (SELECT e.seq FROM entries AS e WHERE e.account_id = %s AND e.id = ANY(%s))")
OF_AN_INTENT = UNORDERED.format("client_order_id <> '' AND client_order_id = ANY(%s)")


class Before(NamedTuple):
    """head: number and hash of the last entry; missing: the entries that are not there yet; ours: client ids of our
    orders in the symbols whose fills may be folded anew."""

    epoch: int
    head: tuple[int, bytes]
    state: Account
    missing: list[Entry]
    ours: set[str]


def read_before(connection: Connection[Any], account_id: int, entries: Sequence[Entry]) -> Before:
    """Lock the account's authority and read. A ValueError for an id that was given to another fact before."""
    ids = [check(entry).id for entry in entries]
    names = [e.body["client_order_id"] for e in entries if "client_order_id" in e.body]
    sessions = [e.session_id for e in entries if e.session_id is not None]
    sessions += [int(e.body["session_id"]) for e in entries if e.kind == "session"]
    queries: list[tuple[str, Sequence[Any]]] = [
        (LOCK, (account_id,)),
        ("SELECT id, kind, body FROM entries WHERE account_id = %s AND id = ANY(%s)", (account_id, ids)),
        (_select(tables.STATE), (account_id,)),
        (_select(tables.ASSETS), (account_id,)),
        (_select(tables.PRICES), (account_id,)),
        (_select(tables.POSITIONS, "AND status = 'OPEN'"), (account_id,)),
        (_select(tables.ORDERS, "AND client_order_id = ANY(%s)"), (account_id, names)),
        (SESSIONS, (sessions, account_id)),
        (_select(tables.FILLS, "AND provisional AND effective_qty > 0"), (account_id,)),
    ]
    with connection.pipeline():
        cursors = [connection.execute(query, values) for query, values in queries]
        of_orders = [connection.execute(*each) for each in _unordered(account_id, entries)]
    locked, there, *parts = (cursor.fetchall() for cursor in cursors)
    if not locked:
        raise DatabaseError(f"There is no account {account_id} in this database.", "See: atb db sessions")
    epoch, quote, *account = locked[0]
    state = _state(account_id, quote, *parts)
    unordered = {fill.id: fill for cursor in of_orders for fill in map(fill_from, cursor.fetchall())}
    facts = {name: (kind, json.loads(text)) for name, kind, text in there}
    missing = list(_missing(entries, facts, Naming(state.orders, unordered.values())))
    keys = keys_to_fold_anew(state, missing)
    ours = _load_histories(connection, account_id, state, keys)
    known = {fill.id: fill for fills in state.history.values() for fill in fills}
    for fill in unordered.values():
        state.unordered.add(known.get(fill.id, fill))  # what is folded anew is the same fill
    head = (parts[0][0][1], parts[0][0][2]) if parts[0] else (0, genesis(AccountRow(*account)))
    return Before(epoch, head, state, missing, ours)


def _unordered(account_id: int, entries: Sequence[Entry]) -> Iterator[tuple[str, Sequence[Any]]]:
    """The queries for fills that count for no order and may count for one after these entries."""
    told = [e.id for e in entries if e.kind == "fill" and e.body.get("client_order_id")]
    told += [e.body["fill_id"] for e in entries if e.kind == "attribution"]
    intended = [e.body["client_order_id"] for e in entries if e.kind == "intent"]
    if told:
        yield _select(tables.FILLS, TOLD_AGAIN), (account_id, account_id, told)
    if intended:
        yield _select(tables.FILLS, OF_AN_INTENT), (account_id, intended)


def _missing(entries: Iterable[Entry], facts: dict[str, tuple[str, Any]], naming: Naming) -> Iterator[Entry]:
    """What is not written yet, each id once. facts: kind and body of what is there by id."""
    for entry in entries:
        if entry.id not in facts:
            facts[entry.id] = entry.kind, entry.body
            naming.new(entry)
            yield entry
            continue
        _check_same(entry, *facts[entry.id])
        attribution = naming.again(entry)
        if attribution is not None:
            yield attribution


def _check_same(entry: Entry, kind: str, body: Any) -> None:
    """An id stands for one fact. How a fill came to be known may differ, and so what else is said of it."""
    said, there = entry.body, body
    if entry.kind == kind == "fill":
        said, there = _traded(said), _traded(there)
    differs = [name for name in {**said, **there} if name != "evidence" and _text(said, name) != _text(there, name)]
    if entry.kind != kind or differs:
        what = differs[0] if differs else "kind"
        raise ValueError(f"{entry.id} was written before, with another {what} ({kind}: {encode(there)[:200]}).")


def _traded(body: Any) -> dict[str, Any]:
    """What makes two reports of a fill the same."""
    out = {name: body.get(name) for name in ("symbol", "side", "venue_trade_id")}
    amounts = {name: amount(body[name]).normalize(EXACT) for name in ("qty", "price")}
    return {**out, **amounts, "market": body.get("market", "spot")}


def _text(body: Any, name: str) -> str:
    return encode({name: body.get(name)})


def _select(table: Projection, where: str = "") -> str:
    return f"SELECT {', '.join(table.columns)} FROM {table.name} WHERE account_id = %s {where}"


def _state(
    account_id: int, quote: str, state: Any, assets: Any, prices: Any, positions: Any, orders: Any, sessions: Any,
    fills: Any,
) -> Account:  # fmt: skip
    account = Account(quote)
    for row in state:
        (
            account.paid_in, account.cash, account.realized, account.fees, account.equity, account.peak, account.halted,
        ) = row[3:]  # fmt: skip
    account.assets = {row[1]: row[2] for row in assets}
    account.prices = {(row[1], row[2]): row[3] for row in prices}
    account.positions = {position.key: position for position in map(position_from, positions)}
    account.orders = {row[1]: order_from(row) for row in orders}
    foreign = [row[0] for row in sessions if row[1] != account_id]
    if foreign:
        raise ValueError(f"Session {foreign[0]} is another account's.")
    account.sessions = {row[0]: session_from(row) for row in sessions}
    account.latest = latest_of(account.sessions.values())
    account.provisional = {fill.id: fill for fill in map(fill_from, fills)}
    return account


def position_from(row: Sequence[Any]) -> Position:
    """The position that a row of POSITIONS tells of."""
    r = dict(zip(tables.POSITIONS.columns, row, strict=True))
    qty = r["size"] if r["side"] == "LONG" else -r["size"]
    return Position(
        (r["market"], r["symbol"]), r["opened_seq"], r["entry_time"], r["session_id"], qty, r["cost"],
        r["realized_pnl"], r["fees"], r["entered_qty"], r["entered_value"], r["exited_qty"], r["exited_value"],
        r["stop_loss"], r["take_profit"], r["provisional"],
    )  # fmt: skip


def order_from(row: Sequence[Any]) -> Order:
    r = dict(zip(tables.ORDERS.columns, row, strict=True))
    return Order(
        r["client_order_id"], r["seq"], r["created_at"], r["updated_at"], r["session_id"], (r["market"], r["symbol"]),
        r["side"], r["type"], r["qty"], r["price"], r["stop_price"], r["purpose"], r["state"], r["venue_order_id"],
        r["reason"], r["filled_qty"],
    )  # fmt: skip


def session_from(row: Sequence[Any]) -> Session:
    r = dict(zip(tables.SESSIONS.columns, row, strict=True))
    return Session(
        r["id"], r["start_time"], r["strategy"], r["symbols"], r["timeframe"], r["mode"], r["initial_balance"],
        r["config"], r["config_hash"], r["current_balance"], r["peak_balance"] or ZERO, r["end_time"], r["status"],
    )  # fmt: skip


def fill_from(row: Sequence[Any]) -> Fill:
    r = dict(zip(tables.FILLS.columns, row, strict=True))
    return Fill(
        r["id"], r["seq"], r["at"], r["session_id"], (r["market"], r["symbol"]), r["side"], r["qty"], r["price"],
        r["fee"], r["fee_asset"], r["fee_quote"], r["fee_kind"], r["reason"], r["client_order_id"],
        r["venue_trade_id"], r["provisional"], r["evidence"], r["effective_qty"], r["place"], r["replaced_qty"],
    )  # fmt: skip


def _load_histories(connection: Connection[Any], account_id: int, state: Account, keys: Iterable[Key]) -> set[str]:
    """All fills of the symbols of which one may be taken back, and their levels: a reversal folds them anew.

    Returns the client ids of our orders in these symbols.
    """
    ours: set[str] = set()
    for key in keys:
        values, where = (account_id, *key), "AND market = %s AND symbol = %s"
        fills = connection.execute(_select(tables.FILLS, f"{where} ORDER BY place, seq"), values)
        state.history[key] = [fill_from(row) for row in fills]
        state.provisional |= {fill.id: fill for fill in state.history[key] if fill.provisional}
        levels = connection.execute(
            f"SELECT opened_seq, stop_loss, take_profit FROM positions WHERE account_id = %s {where}", values
        )
        state.levels[key] = {seq: (stop, take) for seq, stop, take in levels}
        orders = connection.execute(f"SELECT client_order_id FROM orders WHERE account_id = %s {where}", values)
        ours |= {row[0] for row in orders}
    return ours
