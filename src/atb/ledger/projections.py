"""The rows that follow from an account's state, table by table. The journal writes those that an entry touched,
`atb db rebuild` all of them, and `atb db verify` compares all of them with what is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

from atb.ledger.entries import Entry
from atb.ledger.fold import Account
from atb.ledger.records import (
    EXACT,
    ZERO,
    Fill,
    Key,
    Mark,
    Order,
    Position,
    Session,
    Touched,
    Trade,
    amount,
    moment,
    optional,
    rounded,
    strength,
)


class Projection(NamedTuple):
    """A table: its columns as the rows below have them, and how many of the first ones are its key."""

    name: str
    columns: tuple[str, ...]
    keys: int

    @property
    def select(self) -> str:
        return f"SELECT {', '.join(self.columns)} FROM {self.name} WHERE account_id = %s"


@cache
def upsert(table: Projection) -> str:
    keys, rest = table.columns[: table.keys], table.columns[table.keys :]
    change = ", ".join(f"{name} = EXCLUDED.{name}" for name in rest)
    return (
        f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES ({', '.join(['%s'] * len(table.columns))}) "
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {change}"
    )


def _table(name: str, keys: int, columns: str) -> Projection:
    return Projection(name, tuple(columns.split()), keys)


STATE = _table("account_state", 1, "account_id seq hash paid_in cash realized fees equity peak halted")
ASSETS = _table("account_assets", 2, "account_id asset qty")
PRICES = _table("prices", 3, "account_id market symbol price")
SESSIONS = _table(
    "trading_sessions", 1,
    "id account_id start_time end_time status mode strategy symbols timeframe initial_balance current_balance "
    "peak_balance config config_hash",
)  # fmt: skip
ORDERS = _table(
    "orders", 2,
    "account_id client_order_id seq session_id market symbol side type purpose qty price stop_price state filled_qty "
    "venue_order_id reason created_at updated_at",
)  # fmt: skip
FILLS = _table(
    "fills", 2,
    "account_id seq session_id market symbol side qty price fee fee_asset fee_quote fee_kind venue_trade_id "
    "client_order_id reason provisional effective_qty evidence at id place replaced_qty",
)  # fmt: skip
POSITIONS = _table(
    "positions", 2,
    "account_id opened_seq session_id market symbol side status size entry_price current_price unrealized_pnl stop_loss "
    "take_profit entry_time cost realized_pnl fees entered_qty entered_value exited_qty exited_value provisional",
)  # fmt: skip
TRADES = _table(
    "trades", 2,
    "account_id seq opened_seq session_id market symbol side size entry_price exit_price pnl fees return_frac "
    "exit_reason entry_time exit_time provisional",
)  # fmt: skip
BALANCES = _table(
    "account_balances", 2, "account_id seq timestamp session_id balance cash exposure peak why"
)  # fmt: skip
ADJUSTMENTS = _table("adjustments", 2, "account_id seq at type asset amount reason evidence")
DECISIONS = _table(
    "decisions", 2, "account_id seq session_id symbol timeframe open_time signal target_qty stop take reason"
)  # fmt: skip
ALL = (STATE, ASSETS, PRICES, SESSIONS, ORDERS, FILLS, POSITIONS, TRADES, BALANCES, ADJUSTMENTS, DECISIONS)

Row = tuple[Any, ...]


def state_row(account_id: int, seq: int, digest: bytes, state: Account) -> Row:
    return (
        account_id, seq, digest, state.paid_in, state.cash, state.realized, state.fees, state.equity, state.peak,
        state.halted,
    )  # fmt: skip


def position_row(account_id: int, p: Position, price: Decimal, status: str) -> Row:
    worth = p.qty * price
    return (
        account_id, p.opened_seq, p.session_id, *p.key, p.side, status, abs(p.qty),
        average(abs(p.entered_value), p.entered_qty), price, rounded(worth - p.cost) if status == "OPEN" else ZERO, p.stop,
        p.take, p.opened_at, p.cost, p.realized, p.fees, p.entered_qty, p.entered_value, p.exited_qty, p.exited_value,
        p.provisional,
    )  # fmt: skip


def trade_row(account_id: int, trade: Trade) -> Row:
    p = trade.position
    pnl = p.realized - p.fees
    return (
        account_id, trade.seq, p.opened_seq, p.session_id, *p.key, p.side, p.entered_qty,
        average(abs(p.entered_value), p.entered_qty), average(abs(p.exited_value), p.exited_qty), pnl, p.fees,
        average(pnl, abs(p.entered_value)), trade.reason, p.opened_at, trade.closed_at, p.provisional,
    )  # fmt: skip


def order_row(account_id: int, o: Order) -> Row:
    return (
        account_id, o.client_order_id, o.seq, o.session_id, *o.key, o.side, o.type, o.purpose, o.qty, o.price,
        o.stop_price, o.state, o.filled_qty, o.venue_order_id, o.reason, o.created_at, o.updated_at,
    )  # fmt: skip


def fill_row(account_id: int, f: Fill) -> Row:
    return (
        account_id, f.seq, f.session_id, *f.key, f.side, f.qty, f.price, f.fee, f.fee_asset, f.fee_quote, f.fee_kind,
        f.venue_trade_id, f.client_order_id, f.reason, f.provisional, f.effective, f.evidence, f.at, f.id,
        f.place, f.replaced,
    )  # fmt: skip


def session_row(account_id: int, s: Session) -> Row:
    """No peak is NULL: a drawdown from 0 is no number, and a query of it must not end in a division by it."""
    return (
        s.id, account_id, s.opened_at, s.closed_at, s.status, s.mode, s.strategy, s.symbols, s.timeframe,
        s.initial_balance, s.current_balance, s.peak_balance or None, s.config, s.config_hash,
    )  # fmt: skip


def balance_row(account_id: int, m: Mark) -> Row:
    return account_id, m.seq, m.at, m.session_id, m.equity, m.cash, m.exposure, m.peak, m.why


def adjustment_row(account_id: int, seq: int, entry: Entry) -> Row:
    body = entry.body
    return (
        account_id, seq, entry.at, body["type"], body["asset"], amount(body["amount"]), body["reason"],
        body["evidence"],
    )  # fmt: skip


def decision_row(account_id: int, seq: int, entry: Entry) -> Row:
    body = entry.body
    return (
        account_id, seq, entry.session_id, body["symbol"], body["timeframe"], moment(body["open_time"]),
        strength(body["signal"]), *(optional(body.get(name)) for name in ("target_qty", "stop", "take")), body["reason"],
    )  # fmt: skip


def average(value: Decimal, qty: Decimal) -> Decimal:
    """value / qty to 18 places; 0 where nothing was."""
    return rounded(EXACT.divide(value, qty)) if qty else ZERO


def _price(state: Account, key: Key) -> Decimal:
    return state.prices.get(key, ZERO)


def touched_rows(
    account_id: int, seq: int, entry: Entry, state: Account, touched: Touched
) -> Iterator[tuple[Projection, Row]]:
    """The rows that one entry makes or changes, in an order that the tables' constraints accept."""
    for fill in touched.fills:
        yield FILLS, fill_row(account_id, fill)
    for position in touched.closed:
        yield POSITIONS, position_row(account_id, position, position.last_price, "CLOSED")
    for key in sorted(touched.positions):
        if key in state.positions:
            yield POSITIONS, position_row(account_id, state.positions[key], _price(state, key), "OPEN")
    for trade in touched.trades:
        yield TRADES, trade_row(account_id, trade)
    for name in sorted(touched.orders):
        yield ORDERS, order_row(account_id, state.orders[name])
    for number in sorted(touched.sessions):
        yield SESSIONS, session_row(account_id, state.sessions[number])
    for mark in touched.marks:
        yield BALANCES, balance_row(account_id, mark)
    if entry.kind == "adjustment":
        yield ADJUSTMENTS, adjustment_row(account_id, seq, entry)
    if entry.kind == "decision":
        yield DECISIONS, decision_row(account_id, seq, entry)
