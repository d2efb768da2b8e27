"""Append to the ledger: entries and the rows that follow from them in one transaction, fenced and idempotent.

Two round trips: one locks the account's authority and reads what the fold needs, one writes and commits. Whoever does not
know whether an append was committed (the connection broke) appends the same entries again: an id is written once.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import localcontext
from typing import TYPE_CHECKING, Any

from atb.core.errors import AtbError, DatabaseError, Fenced, UsageError
from atb.ledger import projections as tables
from atb.ledger.accounts import COLUMNS as ACCOUNT
from atb.ledger.accounts import AccountRow
from atb.ledger.entries import Chained, Entry, check, genesis, link
from atb.ledger.fold import Account, latest_of
from atb.ledger.projections import Projection
from atb.ledger.records import EXACT, ZERO, Fill, Key, Order, Position, Session, amount, key_of

if TYPE_CHECKING:
    from psycopg import Connection, Error

Statements = list[tuple[str, Sequence[Any]]]
SAME_EXIT = timedelta(hours=1)  # an execution later than this after a record by hand is not what was recorded

INSERT_ENTRY = (
    "INSERT INTO entries (account_id, seq, epoch, id, kind, at, session_id, body, recorded_at, prev_hash, hash) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)
CONTROL = "UPDATE authority SET halted = coalesce(%s, halted), halt_reason = %s WHERE account_id = %s"
LOCK = (
    f"SELECT epoch, quote, {ACCOUNT} FROM authority JOIN accounts ON accounts.id = account_id WHERE account_id = %s "
    "FOR UPDATE OF authority"
)
SESSIONS = f"""SELECT {", ".join(tables.SESSIONS.columns)} FROM trading_sessions WHERE id = ANY(%s) OR id =
    (SELECT id FROM trading_sessions WHERE account_id = %s ORDER BY start_time DESC, id DESC LIMIT 1)"""


def append(connection: Connection[Any], account_id: int, epoch: int, entries: Sequence[Entry]) -> list[Chained]:
    """Write those of `entries` that are not there yet, and commit. Returns what was written.

    Fenced if the account's epoch is not `epoch` any more: then nothing is written. A UsageError for an entry that
    contradicts the account: then none of them is written.
    """
    import psycopg

    assert not connection.autocommit, "the lock on the account's authority must last until the commit"
    try:
        head, state, missing = _read(connection, account_id, epoch, entries)
        written = _chain(account_id, epoch, head, state, missing)
        _write(connection, [statement for _, statements in written for statement in statements])
    except (ValueError, ArithmeticError) as error:
        _abandon(connection)
        raise UsageError(f"The ledger of account {account_id} refuses an entry: {error}") from None
    except psycopg.Error as error:
        _abandon(connection)
        raise _explained(error, account_id) from error
    except BaseException:
        _abandon(connection)
        raise
    return [chained for chained, _ in written]


def _abandon(connection: Connection[Any]) -> None:
    import psycopg

    with contextlib.suppress(psycopg.Error):
        connection.rollback()


def _explained(error: Error, account_id: int) -> AtbError:
    """What an error of the database means for the append: whether something was written, and what to do."""
    from psycopg import DataError

    state, where = error.sqlstate or "", f"the ledger of account {account_id}"
    constraint, first = error.diag.constraint_name or "", (str(error).strip() or "no reason given").splitlines()[0]
    if constraint == "fills_account_id_key":
        return UsageError(
            f"One trade of the exchange under two ids: {where} has it already. {error.diag.message_detail}"
        )
    if state == "23505":
        return DatabaseError(
            f"The tables of account {account_id} are not those of its entries: {first}", "atb db verify"
        )
    if state[:2] in ("22", "23") or isinstance(error, DataError):
        return UsageError(f"{where.capitalize()} refuses an entry: {first}")
    if not state or state.startswith(("08", "57P")):
        return DatabaseError(
            f"The connection broke while {where} was written ({first}): whether it was is not known.",
            "Append the same entries again: an id is written once.",
        )
    return DatabaseError(f"Nothing was written to {where}: {first}", "See the server's log, then try again.")


def _chain(
    account_id: int, epoch: int, head: tuple[int, bytes], state: Account, missing: Iterable[Entry]
) -> list[tuple[Chained, Statements]]:
    """The entries at their places in the chain, each with the statements that write it and what follows from it."""
    assets, prices = dict(state.assets), dict(state.prices)
    now = datetime.now(UTC)
    written: list[tuple[Chained, Statements]] = []
    with localcontext(EXACT):
        for entry in missing:
            for each in _with_replacements(state, entry):
                chained = link(head[0] + 1, epoch, each, head[1], now)
                written.append((chained, _statements(account_id, chained, state)))
                head = chained.seq, chained.hash
    if written:
        last = written[-1][1]
        last.append((tables.upsert(tables.STATE), tables.state_row(account_id, *head, state)))
        last += [
            (tables.upsert(tables.ASSETS), (account_id, asset, qty))
            for asset, qty in sorted(state.assets.items()) if assets.get(asset) != qty
        ]  # fmt: skip
        last += [
            (tables.upsert(tables.PRICES), (account_id, *key, price))
            for key, price in sorted(state.prices.items()) if prices.get(key) != price
        ]  # fmt: skip
    return written


def _read(
    connection: Connection[Any], account_id: int, epoch: int, entries: Sequence[Entry]
) -> tuple[tuple[int, bytes], Account, list[Entry]]:
    """The head of the chain, the state that the entries touch, and the entries that are not there yet."""
    batch: dict[str, Entry] = {}
    for entry in entries:
        batch.setdefault(check(entry).id, entry)
    names = [e.body["client_order_id"] for e in entries if "client_order_id" in e.body]
    sessions = [e.session_id for e in entries if e.session_id is not None]
    sessions += [int(e.body["session_id"]) for e in entries if e.kind == "session"]
    queries: list[tuple[str, Sequence[Any]]] = [
        (LOCK, (account_id,)),
        ("SELECT id FROM entries WHERE account_id = %s AND id = ANY(%s)", (account_id, list(batch))),
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
    locked, there, *parts = (cursor.fetchall() for cursor in cursors)
    if not locked:
        raise DatabaseError(f"There is no account {account_id} in this database.", "See: atb db sessions")
    if locked[0][0] != epoch:
        raise Fenced(
            f"Account {account_id} is at epoch {locked[0][0]}, this process has {epoch}: another has authority over it."
        )
    state = _state(account_id, locked[0][1], *parts)
    known = {row[0] for row in there}
    missing = [entry for entry in batch.values() if entry.id not in known]
    _load_histories(connection, account_id, state, missing)
    head = (parts[0][0][1], parts[0][0][2]) if parts[0] else (0, genesis(AccountRow(*locked[0][2:])))
    return head, state, missing


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
        r["config"], r["config_hash"], r["current_balance"], r["peak_balance"], r["end_time"], r["status"],
    )  # fmt: skip


def fill_from(row: Sequence[Any]) -> Fill:
    r = dict(zip(tables.FILLS.columns, row, strict=True))
    return Fill(
        r["id"], r["seq"], r["at"], r["session_id"], (r["market"], r["symbol"]), r["side"], r["qty"], r["price"],
        r["fee"], r["fee_asset"], r["fee_quote"], r["fee_kind"], r["reason"], r["client_order_id"],
        r["venue_trade_id"], r["provisional"], r["evidence"], r["effective_qty"],
    )  # fmt: skip


def _load_histories(connection: Connection[Any], account_id: int, state: Account, missing: Sequence[Entry]) -> None:
    """All fills of the symbols of which one may be taken back, and their levels: a reversal folds them anew."""
    for key in _refolded_keys(state, missing):
        where = "AND market = %s AND symbol = %s"
        fills = connection.execute(_select(tables.FILLS, f"{where} ORDER BY seq"), (account_id, *key))
        state.history[key] = [fill_from(row) for row in fills]
        state.provisional |= {fill.id: fill for fill in state.history[key] if fill.provisional}
        levels = connection.execute(
            f"SELECT opened_seq, stop_loss, take_profit FROM positions WHERE account_id = %s {where}",
            (account_id, *key),
        )
        state.levels[key] = {seq: (stop, take) for seq, stop, take in levels}


def _refolded_keys(state: Account, missing: Sequence[Entry]) -> set[Key]:
    fills = {entry.id: entry for entry in missing if entry.kind == "fill"}
    by_hand = [(fill.key, fill.side, fill.at) for fill in state.provisional.values()]
    by_hand += [(key_of(e.body), e.body["side"], e.at) for e in fills.values() if e.body.get("provisional")]
    keys = {
        key for key, side, at in by_hand for e in fills.values()
        if (key_of(e.body), e.body["side"]) == (key, side) and e.at <= at + SAME_EXIT
    }  # fmt: skip
    for entry in missing:
        if entry.kind == "reversal":
            name = entry.body["fill_id"]
            keys |= {state.provisional[name].key} if name in state.provisional else set()
            keys |= {key_of(fills[name].body)} if name in fills else set()
    return keys


def _is_of(state: Account, fill: Fill, entry: Entry) -> bool:
    """Whether an exchange's fill may be the exit that was recorded by hand as `fill`.

    It must be of the same side, be made while that position was held, be made at most an hour after the record, before
    any new entry, and not by an order that we placed after the record.
    """
    if not fill.provisional or fill.side != entry.body["side"]:
        return False
    others = [other for other in state.history[fill.key] if other.side != fill.side and not other.provisional]
    entered = [other.at for other in others if other.seq < fill.seq]
    entered_again = [other.at for other in others if other.seq > fill.seq]
    order = state.orders.get(entry.body.get("client_order_id", ""))
    return (
        (not entered or max(entered) <= entry.at)
        and entry.at <= fill.at + SAME_EXIT
        and (not entered_again or entry.at < min(entered_again))
        and (order is None or order.seq < fill.seq)
    )


def _with_replacements(state: Account, entry: Entry) -> Iterable[Entry]:
    """`entry`, and before it what the exchange's own fill takes back of the provisional ones that stood for it."""
    if entry.kind == "fill" and not entry.body.get("provisional"):
        left = amount(entry.body["qty"])
        for fill in list(state.history.get(key_of(entry.body), ())):
            qty = min(left, fill.effective) if _is_of(state, fill, entry) else ZERO
            if qty > 0:
                left -= qty
                body = {"fill_id": fill.id, "qty": qty, "reason": f"replaced by {entry.id}"}
                yield Entry(f"reversal:{fill.id}:{entry.id}", "reversal", entry.at, body, entry.session_id)
    yield entry


def _statements(account_id: int, chained: Chained, state: Account) -> Statements:
    """Fold one entry in; the statements that write it and the rows that it touched."""
    seq, epoch, entry, text, *rest = chained
    values = (account_id, seq, epoch, entry.id, entry.kind, entry.at, entry.session_id, text, *rest)
    out: Statements = [(INSERT_ENTRY, values)]
    read = entry._replace(body=json.loads(text))  # what every later fold will see
    touched = state.apply(seq, read)
    for key in touched.refolded:
        for table in (tables.POSITIONS, tables.TRADES):
            where = "account_id = %s AND market = %s AND symbol = %s"
            out.append((f"DELETE FROM {table.name} WHERE {where}", (account_id, *key)))
    out += [(tables.upsert(t), row) for t, row in tables.touched_rows(account_id, seq, read, state, touched)]
    if entry.kind == "control":
        halted = {"halt": True, "resume": False}.get(entry.body["action"])
        out.append((CONTROL, (halted, state.halted, account_id)))
    return out


def _write(connection: Connection[Any], statements: Statements) -> None:
    with connection.pipeline():
        for query, values in statements:
            connection.execute(query, values)
        connection.commit()
