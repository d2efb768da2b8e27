"""Is the ledger whole, and do the tables tell what it tells? Also: write the tables anew from the ledger.

The chain shows an entry that was changed, removed or inserted. The fold over all entries gives every row that should be
there; each is compared exactly.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from atb.core.words import counted
from atb.ledger import projections as tables
from atb.ledger.accounts import AccountRow, all_accounts
from atb.ledger.entries import Chained, Entry, digest, genesis
from atb.ledger.fold import Account
from atb.ledger.projections import Projection, Row
from atb.ledger.records import EXACT, Touched

if TYPE_CHECKING:
    from psycopg import Connection


READ = (
    "SELECT seq, epoch, id, kind, at, session_id, body, recorded_at, prev_hash, hash FROM entries "
    "WHERE account_id = %s{after} ORDER BY seq"
)
DECODE = json.JSONDecoder().raw_decode  # bodies have no blanks around them: loads looks for some, twice
READ_ENTRIES = "SELECT seq, id, kind, at, session_id, body FROM entries WHERE account_id = %s AND seq > %s ORDER BY seq"
AUTHORITY = (
    "SELECT u.epoch, u.halted, u.halt_reason, coalesce(s.halted, '') FROM authority u "
    "LEFT JOIN account_state s USING (account_id) WHERE account_id = %s"
)
# An epoch below that of an entry is raised above all that ever were: nobody keeps an authority that may be another's.
MEND_AUTHORITY = (
    "INSERT INTO authority (account_id, epoch) VALUES (%(id)s, 0) ON CONFLICT DO NOTHING",
    "UPDATE authority SET epoch = GREATEST(%(epoch)s + 1, EXTRACT(epoch FROM now())::bigint) "
    "WHERE account_id = %(id)s AND epoch < %(epoch)s",
    "UPDATE authority u SET halted = s.halted <> '', halt_reason = s.halted FROM account_state s "
    "WHERE u.account_id = %(id)s AND s.account_id = u.account_id",
)
STRAYS = " UNION ALL ".join(
    f"SELECT '{name}', account_id, count(*) FROM {name} WHERE account_id NOT IN (SELECT id FROM accounts) "
    "GROUP BY account_id"
    for name in ("entries", "authority", *(table.name for table in tables.ALL))
)
NUMBERS = (
    "SELECT last_value + is_called::int, (SELECT max(id) FROM trading_sessions) FROM trading_sessions_id_seq "
    "WHERE last_value + is_called::int <= (SELECT max(id) FROM trading_sessions)"
)
MEND_NUMBERS = f"SELECT setval('trading_sessions_id_seq', highest) FROM ({NUMBERS}) AS found (next, highest)"
SHOWN = 20  # differences of a table that are told one by one

Expected = dict[str, dict[Row, Row]]  # by table and key


class Problem(NamedTuple):
    """Something that is not as the ledger says. place: a table or the chain."""

    account: str
    place: str
    message: str

    @property
    def said(self) -> str:
        return f"{self.account}, {self.place}: {self.message}"


class Audit(NamedTuple):
    """What was found in one account, and how much was looked at."""

    entries: int
    fills: int
    problems: list[Problem]


def audit(connection: Connection[Any], account: AccountRow) -> Audit:
    """Check one account's chain and compare every row that follows from it. Reads one snapshot."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        chain, expected, problems = _unfolded(connection, account)
        if not problems:
            problems = list(_differences(connection, account, expected))
            problems += [
                Problem(account.name, "authority", text) for text in _wrong_authority(connection, account, chain)
            ]
    return Audit(len(chain), sum(c.entry.kind == "fill" for c in chain), problems)


def audit_common(connection: Connection[Any]) -> list[Problem]:
    """What belongs to no account that is there, and whether the next session's number is free."""
    rows = connection.execute(f"{STRAYS} ORDER BY 2, 1").fetchall()
    out = [
        Problem(f"account {number}", name, f"{counted(count, 'row')} of an account that is gone.")
        for name, number, count in rows
    ]
    for number, highest in connection.execute(NUMBERS).fetchall():
        text = f"the next session would be number {number}, but there is a session {highest} already."
        out.append(Problem("sessions", "trading_sessions_id_seq", text))
    connection.rollback()
    return out


def _wrong_authority(connection: Connection[Any], account: AccountRow, chain: list[Chained]) -> Iterator[str]:
    """The epoch is above all that entries have; the halt stands here, too, where it is read with the lock."""
    row = connection.execute(AUTHORITY, (account.id,)).fetchone()
    if row is None:
        yield "its row is missing."
        return
    epoch, halted, reason, told = row
    last = max(chain, key=lambda link: link.epoch, default=None)
    if last is not None and epoch < last.epoch:
        yield f"epoch is {epoch}, but entry {last.seq} ({last.entry.id}) was written at epoch {last.epoch}."
    if halted != bool(told):
        yield f"By the ledger the account is {'halted' if told else 'not halted'}, here it is the other way round."
    elif reason != told:
        yield f"halt_reason is {reason!r}, by the ledger {told!r}."


def _unfolded(connection: Connection[Any], account: AccountRow) -> tuple[list[Chained], Expected, list[Problem]]:
    """All entries, and the rows that follow from them unless something is wrong with the entries themselves."""
    chain = read_chain(connection, account.id)
    problems = _chain_problems(connection, account, chain)
    if problems:
        return chain, {}, problems
    try:
        return chain, expected_rows(account, chain), []
    except ValueError as error:
        return chain, {}, [Problem(account.name, "entries", str(error))]


def _chain_problems(connection: Connection[Any], account: AccountRow, chain: list[Chained]) -> list[Problem]:
    """What is wrong with the chain, or missing at its end: account_state knows how long it was."""
    texts = list(broken_links(chain, account))
    row = connection.execute("SELECT seq FROM account_state WHERE account_id = %s", (account.id,)).fetchone()
    if row is not None and row[0] > len(chain) and not texts:
        texts = [f"Entry {len(chain) + 1} is missing: the last that was written is number {row[0]}."]
    return [Problem(account.name, "entries", text) for text in texts]


def read_chain(connection: Connection[Any], account_id: int, after_seq: int | None = None) -> list[Chained]:
    """The entries of an account in order, as they are stored: those after number `after_seq`, or all that are there."""
    connection.execute("SET LOCAL TimeZone = 'UTC'")
    if after_seq is None:  # also what a meddler numbered below 1
        rows = _fetched(connection, READ.format(after=""), account_id)
    else:
        rows = _fetched(connection, READ.format(after=" AND seq > %s"), account_id, after_seq)
    return [
        Chained(seq, epoch, Entry(name, kind, at, _body(text), session), text, recorded_at, prev_hash, stored)
        for seq, epoch, name, kind, at, session, text, recorded_at, prev_hash, stored in rows
    ]


def read_entries(connection: Connection[Any], account_id: int, after_seq: int) -> list[tuple[int, Entry]]:
    """The same with their numbers, for whoever folds them and asks for no proof."""
    connection.execute("SET LOCAL TimeZone = 'UTC'")
    return [
        (seq, Entry(name, kind, at, _body(text), session))
        for seq, name, kind, at, session, text in _fetched(connection, READ_ENTRIES, account_id, after_seq)
    ]


def _fetched(connection: Connection[Any], query: str, *values: int) -> list[Row]:
    """All rows. A time that Python does not know (`infinity`, the year 20000) is the last one that it does."""
    from psycopg import DataError

    cursor = connection.cursor(binary=True)
    try:
        return cursor.execute(query, values).fetchall()
    except DataError:  # the lenient loader is slow, and only a meddler writes such a time
        cursor.adapters.register_loader("timestamptz", _lenient_loader())
        return cursor.execute(query, values).fetchall()


def _lenient_loader() -> Any:
    from psycopg import DataError
    from psycopg.types.datetime import TimestamptzBinaryLoader

    class Lenient(TimestamptzBinaryLoader):
        def load(self, data: Any) -> datetime:
            try:
                return super().load(data)
            except DataError:
                return datetime.max.replace(tzinfo=UTC)

    return Lenient


def _body(text: str) -> Any:
    try:
        return DECODE(text)[0]
    except ValueError:
        return {}  # not what was written: its hash will tell


def broken_links(chain: Iterable[Chained], account: AccountRow) -> Iterator[str]:
    """What is wrong with the chain, in words; the first fault only, for what follows it proves nothing."""
    previous, seq = genesis(account), 0
    for link in chain:
        if link.seq != seq + 1:
            yield f"Entry {seq + 1} is missing: after {seq} comes {link.seq} ({link.entry.id})."
            return
        if link.prev_hash != previous:
            what = "does not follow from the one before it: one was changed, removed or inserted"
            yield f"Entry {link.seq} ({link.entry.id}) {what if seq else _not_of(account)}."
            return
        if digest(previous, link.seq, link.epoch, link.entry, link.text, link.recorded_at) != link.hash:
            yield f"Entry {link.seq} ({link.entry.id}) was changed after it was written."
            return
        previous, seq = link.hash, link.seq


def _not_of(account: AccountRow) -> str:
    """What is wrong with a first entry: the account's facts stand before it in the chain."""
    key = f" with key {account.key_identity}" if account.key_identity else ""
    facts = f"{account.environment} {account.market} at {account.venue} in {account.quote}{key}"
    return (
        f"does not follow from the account's facts (number {account.id}, {account.name}, {facts}): its row in accounts "
        "was changed, or this entry was"
    )


def expected_rows(account: AccountRow, chain: list[Chained]) -> Expected:
    """Every row that follows from the entries, by table and key. A ValueError names an entry that contradicts the others."""
    state = Account(account.quote)
    out: Expected = {table.name: {} for table in tables.ALL}
    with localcontext(EXACT):
        for link in chain:
            try:
                touched = state.take(link.seq, link.entry)
            except (ValueError, LookupError, TypeError, ArithmeticError) as error:
                raise ValueError(f"Entry {link.seq} ({link.entry.id}) cannot be: {error}") from error
            _put_passing_rows(out, account.id, link, touched)
        state.finish()
        for table, row in _final_rows(account.id, chain, state):
            out[table.name][row[: table.keys]] = row
    return out


def _put_passing_rows(out: Expected, account_id: int, link: Chained, touched: Touched) -> None:
    """The rows that no later entry writes again, unless a reversal folds its symbol anew."""
    if touched.refolded:
        _forget(out, touched)
    seq = link.seq
    for position in touched.closed:
        row = tables.position_row(account_id, position, position.last_price, "CLOSED")
        out["positions"][account_id, position.opened_seq] = row
    for trade in touched.trades:
        out["trades"][account_id, trade.seq] = tables.trade_row(account_id, trade)
    for mark in touched.marks:
        out["account_balances"][account_id, seq] = tables.balance_row(account_id, mark)
    if link.entry.kind == "adjustment":
        out["adjustments"][account_id, seq] = tables.adjustment_row(account_id, seq, link.entry)
    elif link.entry.kind == "decision":
        out["decisions"][account_id, seq] = tables.decision_row(account_id, seq, link.entry)


def _forget(out: Expected, touched: Touched) -> None:
    """A reversal folded these symbols anew: all their trades and positions are told again."""
    for key in touched.refolded:
        for table in (tables.POSITIONS, tables.TRADES):
            at = table.columns.index("market")
            out[table.name] = {k: row for k, row in out[table.name].items() if row[at : at + 2] != key}


def _final_rows(account_id: int, chain: list[Chained], state: Account) -> Iterator[tuple[Projection, Row]]:
    if chain:
        yield tables.STATE, tables.state_row(account_id, chain[-1].seq, chain[-1].hash, state)
    for asset, qty in state.assets.items():
        yield tables.ASSETS, (account_id, asset, qty)
    for key, price in state.prices.items():
        yield tables.PRICES, (account_id, *key, price)
    for fills in state.history.values():
        for fill in fills:
            yield tables.FILLS, tables.fill_row(account_id, fill)
    for key, position in state.positions.items():
        yield tables.POSITIONS, tables.position_row(account_id, position, state.prices[key], "OPEN")
    for order in state.orders.values():
        yield tables.ORDERS, tables.order_row(account_id, order)
    for session in state.sessions.values():
        yield tables.SESSIONS, tables.session_row(account_id, session)


def _differences(connection: Connection[Any], account: AccountRow, expected: Expected) -> Iterator[Problem]:
    for table in tables.ALL:
        should = expected[table.name]
        rows = _fetched(connection, table.select, account.id)
        there = {row[: table.keys]: row for row in rows}
        if there == should:
            continue
        keys = sorted(k for k in {**should, **there} if there.get(k) != should.get(k))
        for key in keys[:SHOWN]:
            yield Problem(account.name, table.name, _told(table, key, there.get(key), should.get(key)))
        if len(keys) > SHOWN:
            yield Problem(account.name, table.name, f"{len(keys) - SHOWN} more rows differ.")


def _told(table: Projection, key: Row, there: Row | None, expected: Row | None) -> str:
    names = ", ".join(
        f"{name} {value}" for name, value in zip(table.columns, key, strict=False) if name != "account_id"
    )
    names = names or "its row"
    if there is None:
        return f"{names}: is missing."
    if expected is None:
        return f"{names}: follows from no entry."
    wrong = [
        f"{name} is {_plain(is_)}, by the ledger {_plain(should)}"
        for name, is_, should in zip(table.columns, there, expected, strict=True)
        if is_ != should
    ]
    return f"{names}: {'; '.join(wrong)}."


def _plain(value: Any) -> str:
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    return value.hex() if isinstance(value, bytes) else str(value)


def rebuild(connection: Connection[Any], account: AccountRow) -> Audit:
    """Write all tables of an account anew from its entries, in one transaction. Refuses where the chain is broken."""
    with connection.transaction():
        connection.execute("SELECT epoch FROM authority WHERE account_id = %s FOR UPDATE", (account.id,))
        chain, expected, problems = _unfolded(connection, account)
        if problems:
            return Audit(len(chain), 0, problems)
        for table in reversed(tables.ALL):
            connection.execute(f"DELETE FROM {table.name} WHERE account_id = %s", (account.id,))
        for table in tables.ALL:
            _copy(connection, table, expected[table.name].values())
        highest = max((link.epoch for link in chain), default=0)
        for statement in MEND_AUTHORITY:
            connection.execute(statement, {"id": account.id, "epoch": highest})
        connection.execute(MEND_NUMBERS)
    return Audit(len(chain), sum(c.entry.kind == "fill" for c in chain), [])


def rebuild_all(connection: Connection[Any]) -> Iterator[tuple[AccountRow, Audit]]:
    """Rebuild one account after the other."""
    accounts = all_accounts(connection)
    connection.rollback()
    for account in accounts:
        yield account, rebuild(connection, account)


def _copy(connection: Connection[Any], table: Projection, rows: Iterable[Row]) -> None:
    with connection.cursor().copy(f"COPY {table.name} ({', '.join(table.columns)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
