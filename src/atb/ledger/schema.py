"""The tables, as SQLAlchemy sees them: for migrations and for naming what differs. Running commands write plain SQL.

Money is NUMERIC, times are timestamptz, enumerations are checked text. `accounts`, `authority`, `entries` and `events` are
facts; `running_marks` is what a running engine last saw (ledger/running.py), and no more than that; every other table of
`public` follows from the entries and can be rebuilt. Backtests that are logged live in the
schema `backtest`: the runbook finds "the latest session" by plain SQL.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

NOW = text("now()")


def _time(name: str, **options: Any) -> Column[Any]:
    return Column(name, DateTime(timezone=True), **options)


def _number(name: str, **options: Any) -> Column[Any]:
    return Column(name, Numeric, nullable=options.pop("nullable", False), **options)


def _word(name: str, **options: Any) -> Column[Any]:
    return Column(name, Text, nullable=options.pop("nullable", False), **options)


def _account() -> Column[Any]:
    return Column("account_id", BigInteger, ForeignKey("accounts.id"), nullable=False)


def _whole(name: str, **options: Any) -> Column[Any]:
    return Column(name, BigInteger, nullable=options.pop("nullable", False), **options)


def _one_of(column: str, *values: str) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


accounts = Table(
    "accounts", metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _word("name"), _word("venue"), _word("market"), _word("environment"), _word("key_identity", server_default=""),
    _word("quote"), _time("created_at", nullable=False, server_default=NOW),
    UniqueConstraint("name"), _one_of("environment", "paper", "testnet", "real"),
)  # fmt: skip

authority = Table(
    "authority", metadata,
    Column("account_id", BigInteger, ForeignKey("accounts.id"), primary_key=True),
    _whole("epoch"), _word("holder", server_default=""), _time("heartbeat_at"), _time("expires_at"),
    Column("halted", Boolean, nullable=False, server_default=text("false")), _word("halt_reason", server_default=""),
)  # fmt: skip

entries = Table(
    "entries", metadata,
    _account(), _whole("seq"), _whole("epoch"), _word("id"), _word("kind"), _time("at", nullable=False),
    _whole("session_id", nullable=True), _word("body"),
    Column("prev_hash", LargeBinary, nullable=False), Column("hash", LargeBinary, nullable=False),
    _time("recorded_at", nullable=False, server_default=NOW),
    PrimaryKeyConstraint("account_id", "seq"), UniqueConstraint("account_id", "id"),
)  # fmt: skip

events = Table(
    "events", metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _time("at", nullable=False, server_default=NOW), _word("severity"), _word("component"), _word("code"),
    _word("message"), Column("account_id", BigInteger, ForeignKey("accounts.id")), _whole("session_id", nullable=True),
    _one_of("severity", "debug", "info", "warning", "error", "critical"),
)  # fmt: skip

account_state = Table(
    "account_state", metadata,
    Column("account_id", BigInteger, ForeignKey("accounts.id"), primary_key=True),
    _whole("seq"), Column("hash", LargeBinary, nullable=False), _number("paid_in"), _number("cash"),
    _number("realized"), _number("fees"), _number("equity"), _number("peak"), _word("halted"),
)  # fmt: skip

account_assets = Table(
    "account_assets", metadata,
    _account(), _word("asset"), _number("qty"), PrimaryKeyConstraint("account_id", "asset"),
)  # fmt: skip

prices = Table(
    "prices", metadata,
    _account(), _word("market"), _word("symbol"), _number("price"),
    PrimaryKeyConstraint("account_id", "market", "symbol"),
)  # fmt: skip

trading_sessions = Table(
    "trading_sessions", metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False), _account(),
    _time("start_time", nullable=False), _time("end_time"),
    _word("status"), _word("mode"), _word("strategy"), _word("symbols"), _word("timeframe"),
    _number("initial_balance"), _number("current_balance"), _number("peak_balance", nullable=True),
    _word("config"), _word("config_hash"),
    _one_of("status", "RUNNING", "STOPPED", "FAILED", "FENCED"),
)  # fmt: skip

orders = Table(
    "orders", metadata,
    _account(), _word("client_order_id"), _whole("seq"), _whole("session_id", nullable=True), _word("market"),
    _word("symbol"), _word("side"), _word("type"), _word("purpose"), _number("qty"), _number("price", nullable=True),
    _number("stop_price", nullable=True), _word("state"), _number("filled_qty"), _word("venue_order_id"),
    _word("reason"), _time("created_at", nullable=False), _time("updated_at", nullable=False),
    PrimaryKeyConstraint("account_id", "client_order_id"), _one_of("side", "buy", "sell"),
    _one_of(
        "state", "intent", "open", "partially_filled", "filled", "cancelled", "rejected", "expired", "unknown", "denied",
    ),
)  # fmt: skip

fills = Table(
    "fills", metadata,
    _account(), _whole("seq"), _whole("session_id", nullable=True), _word("market"), _word("symbol"), _word("side"),
    _number("qty"), _number("price"), _number("fee"), _word("fee_asset"), _number("fee_quote"), _word("fee_kind"),
    _word("venue_trade_id"), _word("client_order_id"), _word("reason"),
    Column("provisional", Boolean, nullable=False), _number("effective_qty"), _word("evidence"),
    _time("at", nullable=False), _word("id"), _whole("place"), _number("replaced_qty"),
    PrimaryKeyConstraint("account_id", "seq"),
    UniqueConstraint("account_id", "market", "symbol", "side", "venue_trade_id"),
    _one_of("side", "buy", "sell"),
    Index("fills_symbol", "account_id", "market", "symbol", "place", "seq"),
    Index("fills_order", "account_id", "client_order_id", postgresql_where=text("client_order_id <> ''")),
    Index("fills_provisional", "account_id", postgresql_where=text("provisional AND effective_qty > 0")),
)  # fmt: skip

positions = Table(
    "positions", metadata,
    Column("id", BigInteger, Computed("account_id * 1000000000000 + opened_seq", persisted=True)),
    _account(), _whole("opened_seq"), _whole("session_id", nullable=True), _word("market"), _word("symbol"),
    _word("side"), _word("status"), _number("size"), _number("entry_price"), _number("current_price"),
    _number("unrealized_pnl"), _number("stop_loss", nullable=True), _number("take_profit", nullable=True),
    _time("entry_time", nullable=False), _number("cost"), _number("realized_pnl"), _number("fees"),
    _number("entered_qty"), _number("entered_value"), _number("exited_qty"), _number("exited_value"),
    Column("provisional", Boolean, nullable=False),
    PrimaryKeyConstraint("account_id", "opened_seq"),
    _one_of("side", "LONG", "SHORT"), _one_of("status", "OPEN", "CLOSED"),
    Index(
        "positions_one_open", "account_id", "market", "symbol", unique=True, postgresql_where=text("status = 'OPEN'")
    ),
)  # fmt: skip

trades = Table(
    "trades", metadata,
    Column("id", BigInteger, Computed("account_id * 1000000000000 + seq", persisted=True)),
    _account(), _whole("seq"), _whole("opened_seq"), _whole("session_id", nullable=True), _word("market"),
    _word("symbol"), _word("side"), _number("size"), _number("entry_price"), _number("exit_price"), _number("pnl"),
    _number("fees"), _number("return_frac"), _word("exit_reason"), _time("entry_time", nullable=False),
    _time("exit_time", nullable=False), Column("provisional", Boolean, nullable=False),
    PrimaryKeyConstraint("account_id", "seq"), _one_of("side", "LONG", "SHORT"),
    Index("trades_exit_time", "exit_time"),
)  # fmt: skip

account_balances = Table(
    "account_balances", metadata,
    _account(), _whole("seq"), _time("timestamp", nullable=False), _whole("session_id", nullable=True),
    _number("balance"), _number("cash"), _number("exposure"), _number("peak"), _word("why"),
    PrimaryKeyConstraint("account_id", "seq"), Index("account_balances_timestamp", "timestamp"),
)  # fmt: skip

adjustments = Table(
    "adjustments", metadata,
    _account(), _whole("seq"), _time("at", nullable=False), _word("type"), _word("asset"), _number("amount"),
    _word("reason"), _word("evidence"), PrimaryKeyConstraint("account_id", "seq"),
)  # fmt: skip

decisions = Table(
    "decisions", metadata,
    _account(), _whole("seq"), _whole("session_id", nullable=True), _word("symbol"), _word("timeframe"),
    _time("open_time", nullable=False), Column("signal", Float, nullable=True), _number("target_qty", nullable=True),
    _number("stop", nullable=True), _number("take", nullable=True), _word("reason"),
    PrimaryKeyConstraint("account_id", "seq"),
)  # fmt: skip

running_marks = Table(
    "running_marks", metadata,
    Column("account_id", BigInteger, ForeignKey("accounts.id"), primary_key=True, autoincrement=False),
    _whole("seq"), _whole("session_id", nullable=True), _time("at", nullable=False), _number("equity"), _number("peak"),
    _number("unrealized_pnl"), _word("prices"),
)  # fmt: skip

backup_stamp = Table(
    "backup_stamp", metadata,
    Column("one", Boolean, primary_key=True, server_default=text("true")),
    _word("dump_id"), _time("made_at", nullable=False), _word("state"),
    _word("restored_from", nullable=True), _word("restored_tables", nullable=True),  # a dump, and what it made
    CheckConstraint("one", name="one"), _one_of("state", "in_dump", "in_database"),
)  # fmt: skip

backtest_runs = Table(
    "runs", metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True), _time("at", nullable=False, server_default=NOW),
    _word("strategy"), _word("symbols"), _word("timeframe"), _time("start_time", nullable=False),
    _time("end_time", nullable=False), _number("initial_balance"), _number("final_balance"), _number("max_drawdown"),
    _word("config_hash"), _word("result"),
    schema="backtest",
)  # fmt: skip

backtest_trades = Table(
    "trades", metadata,
    Column("run_id", BigInteger, ForeignKey("backtest.runs.id", ondelete="CASCADE"), nullable=False),
    _whole("number"), _word("symbol"), _word("side"), _number("size"), _number("entry_price"), _number("exit_price"),
    _number("pnl"), _number("fees"), _word("exit_reason"), _time("entry_time", nullable=False),
    _time("exit_time", nullable=False), PrimaryKeyConstraint("run_id", "number"),
    schema="backtest",
)  # fmt: skip

for _child in (trading_sessions, orders, fills, positions, trades, account_balances, adjustments, decisions):
    if "seq" in _child.c:
        _child.append_constraint(
            ForeignKeyConstraint(
                ["account_id", "seq"], ["entries.account_id", "entries.seq"], name=f"{_child.name}_entry_fkey"
            )
        )
