"""The ledger: accounts, entries, and the tables that follow from them; logged backtests in a schema of their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v1.0.0"
down_revision = None
branch_labels = None
depends_on = None

FINAL = """
CREATE FUNCTION entries_are_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'Entries of the ledger are only ever added: a correction is another entry.';
END $$
"""


def upgrade() -> None:
    op.execute("CREATE SCHEMA backtest")
    op.execute("CREATE SEQUENCE trading_sessions_id_seq")
    op.create_table(
        "accounts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("venue", sa.Text(), nullable=False),
        sa.Column("market", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("key_identity", sa.Text(), server_default="", nullable=False),
        sa.Column("quote", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("environment IN ('paper', 'testnet', 'real')", name="accounts_environment_check"),
        sa.PrimaryKeyConstraint("id", name="accounts_pkey"),
        sa.UniqueConstraint("name", name="accounts_name_key"),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("strategy", sa.Text(), nullable=False),
        sa.Column("symbols", sa.Text(), nullable=False),
        sa.Column("timeframe", sa.Text(), nullable=False),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("initial_balance", sa.Numeric(), nullable=False),
        sa.Column("final_balance", sa.Numeric(), nullable=False),
        sa.Column("max_drawdown", sa.Numeric(), nullable=False),
        sa.Column("config_hash", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="runs_pkey"),
        schema="backtest",
    )
    op.create_table(
        "backup_stamp",
        sa.Column("one", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("dump_id", sa.Text(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.CheckConstraint("state IN ('in_dump', 'in_database')", name="backup_stamp_state_check"),
        sa.CheckConstraint("one", name="backup_stamp_one_check"),
        sa.PrimaryKeyConstraint("one", name="backup_stamp_pkey"),
    )
    op.create_table(
        "account_assets",
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("qty", sa.Numeric(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="account_assets_account_id_fkey"),
        sa.PrimaryKeyConstraint("account_id", "asset", name="account_assets_pkey"),
    )
    op.create_table(
        "account_state",
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("paid_in", sa.Numeric(), nullable=False),
        sa.Column("cash", sa.Numeric(), nullable=False),
        sa.Column("realized", sa.Numeric(), nullable=False),
        sa.Column("fees", sa.Numeric(), nullable=False),
        sa.Column("equity", sa.Numeric(), nullable=False),
        sa.Column("peak", sa.Numeric(), nullable=False),
        sa.Column("halted", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="account_state_account_id_fkey"),
        sa.PrimaryKeyConstraint("account_id", name="account_state_pkey"),
    )
    op.create_table(
        "authority",
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.Text(), server_default="", nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("halted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("halt_reason", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="authority_account_id_fkey"),
        sa.PrimaryKeyConstraint("account_id", name="authority_pkey"),
    )
    op.create_table(
        "trades",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("side", sa.Text(), nullable=False),
        sa.Column("size", sa.Numeric(), nullable=False),
        sa.Column("entry_price", sa.Numeric(), nullable=False),
        sa.Column("exit_price", sa.Numeric(), nullable=False),
        sa.Column("pnl", sa.Numeric(), nullable=False),
        sa.Column("fees", sa.Numeric(), nullable=False),
        sa.Column("exit_reason", sa.Text(), nullable=False),
        sa.Column("entry_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("exit_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["backtest.runs.id"], name="trades_run_id_fkey", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "number", name="trades_pkey"),
        schema="backtest",
    )
    op.create_table(
        "entries",
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("session_id", sa.BigInteger(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("prev_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="entries_account_id_fkey"),
        sa.PrimaryKeyConstraint("account_id", "seq", name="entries_pkey"),
        sa.UniqueConstraint("account_id", "id", name="entries_account_id_key"),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("component", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=True),
        sa.Column("session_id", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "severity IN ('debug', 'info', 'warning', 'error', 'critical')", name="events_severity_check"
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="events_account_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="events_pkey"),
    )
    op.create_table(
        "positions",
        sa.Column(
            "id", sa.BigInteger(), sa.Computed("account_id * 1000000000000 + opened_seq", persisted=True), nullable=True
        ),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("opened_seq", sa.BigInteger(), nullable=False),
        sa.Column("session_id", sa.BigInteger(), nullable=True),
        sa.Column("market", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("side", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("size", sa.Numeric(), nullable=False),
        sa.Column("entry_price", sa.Numeric(), nullable=False),
        sa.Column("current_price", sa.Numeric(), nullable=False),
        sa.Column("unrealized_pnl", sa.Numeric(), nullable=False),
        sa.Column("stop_loss", sa.Numeric(), nullable=True),
        sa.Column("take_profit", sa.Numeric(), nullable=True),
        sa.Column("entry_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cost", sa.Numeric(), nullable=False),
        sa.Column("realized_pnl", sa.Numeric(), nullable=False),
        sa.Column("fees", sa.Numeric(), nullable=False),
        sa.Column("entered_qty", sa.Numeric(), nullable=False),
        sa.Column("entered_value", sa.Numeric(), nullable=False),
        sa.Column("exited_qty", sa.Numeric(), nullable=False),
        sa.Column("exited_value", sa.Numeric(), nullable=False),
        sa.Column("provisional", sa.Boolean(), nullable=False),
        sa.CheckConstraint("side IN ('LONG', 'SHORT')", name="positions_side_check"),
        sa.CheckConstraint("status IN ('OPEN', 'CLOSED')", name="positions_status_check"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="positions_account_id_fkey"),
        sa.PrimaryKeyConstraint("account_id", "opened_seq", name="positions_pkey"),
    )
    op.create_index(
        "positions_one_open",
        "positions",
        ["account_id", "market", "symbol"],
        unique=True,
        postgresql_where=sa.text("status = 'OPEN'"),
    )
    op.create_table(
        "prices",
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("market", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("price", sa.Numeric(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="prices_account_id_fkey"),
        sa.PrimaryKeyConstraint("account_id", "market", "symbol", name="prices_pkey"),
    )
    op.create_table(
        "trading_sessions",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("strategy", sa.Text(), nullable=False),
        sa.Column("symbols", sa.Text(), nullable=False),
        sa.Column("timeframe", sa.Text(), nullable=False),
        sa.Column("initial_balance", sa.Numeric(), nullable=False),
        sa.Column("current_balance", sa.Numeric(), nullable=False),
        sa.Column("peak_balance", sa.Numeric(), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("config_hash", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "status IN ('RUNNING', 'STOPPED', 'FAILED', 'FENCED')", name="trading_sessions_status_check"
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="trading_sessions_account_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="trading_sessions_pkey"),
    )
    op.create_table(
        "account_balances",
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("session_id", sa.BigInteger(), nullable=True),
        sa.Column("balance", sa.Numeric(), nullable=False),
        sa.Column("cash", sa.Numeric(), nullable=False),
        sa.Column("exposure", sa.Numeric(), nullable=False),
        sa.Column("peak", sa.Numeric(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "seq"], ["entries.account_id", "entries.seq"], name="account_balances_entry_fkey"
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="account_balances_account_id_fkey"),
        sa.PrimaryKeyConstraint("account_id", "seq", name="account_balances_pkey"),
    )
    op.create_index("account_balances_timestamp", "account_balances", ["timestamp"], unique=False)
    op.create_table(
        "adjustments",
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("amount", sa.Numeric(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "seq"], ["entries.account_id", "entries.seq"], name="adjustments_entry_fkey"
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="adjustments_account_id_fkey"),
        sa.PrimaryKeyConstraint("account_id", "seq", name="adjustments_pkey"),
    )
    op.create_table(
        "decisions",
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("session_id", sa.BigInteger(), nullable=True),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("timeframe", sa.Text(), nullable=False),
        sa.Column("open_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("signal", sa.Float(), nullable=True),
        sa.Column("target_qty", sa.Numeric(), nullable=True),
        sa.Column("stop", sa.Numeric(), nullable=True),
        sa.Column("take", sa.Numeric(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "seq"], ["entries.account_id", "entries.seq"], name="decisions_entry_fkey"
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="decisions_account_id_fkey"),
        sa.PrimaryKeyConstraint("account_id", "seq", name="decisions_pkey"),
    )
    op.create_table(
        "fills",
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("session_id", sa.BigInteger(), nullable=True),
        sa.Column("market", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("side", sa.Text(), nullable=False),
        sa.Column("qty", sa.Numeric(), nullable=False),
        sa.Column("price", sa.Numeric(), nullable=False),
        sa.Column("fee", sa.Numeric(), nullable=False),
        sa.Column("fee_asset", sa.Text(), nullable=False),
        sa.Column("fee_quote", sa.Numeric(), nullable=False),
        sa.Column("fee_kind", sa.Text(), nullable=False),
        sa.Column("venue_trade_id", sa.Text(), nullable=False),
        sa.Column("client_order_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("provisional", sa.Boolean(), nullable=False),
        sa.Column("effective_qty", sa.Numeric(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.CheckConstraint("side IN ('buy', 'sell')", name="fills_side_check"),
        sa.ForeignKeyConstraint(["account_id", "seq"], ["entries.account_id", "entries.seq"], name="fills_entry_fkey"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fills_account_id_fkey"),
        sa.PrimaryKeyConstraint("account_id", "seq", name="fills_pkey"),
        sa.UniqueConstraint("account_id", "market", "symbol", "side", "venue_trade_id", name="fills_account_id_key"),
    )
    op.create_index(
        "fills_provisional",
        "fills",
        ["account_id"],
        unique=False,
        postgresql_where=sa.text("provisional AND effective_qty > 0"),
    )
    op.create_index("fills_symbol", "fills", ["account_id", "market", "symbol", "seq"], unique=False)
    op.create_table(
        "orders",
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("client_order_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("session_id", sa.BigInteger(), nullable=True),
        sa.Column("market", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("side", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("qty", sa.Numeric(), nullable=False),
        sa.Column("price", sa.Numeric(), nullable=True),
        sa.Column("stop_price", sa.Numeric(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("filled_qty", sa.Numeric(), nullable=False),
        sa.Column("venue_order_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("side IN ('buy', 'sell')", name="orders_side_check"),
        sa.CheckConstraint(
            "state IN ('intent', 'open', 'partially_filled', 'filled', 'cancelled', 'rejected', 'expired', 'unknown', 'denied')",
            name="orders_state_check",
        ),
        sa.ForeignKeyConstraint(["account_id", "seq"], ["entries.account_id", "entries.seq"], name="orders_entry_fkey"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="orders_account_id_fkey"),
        sa.PrimaryKeyConstraint("account_id", "client_order_id", name="orders_pkey"),
    )
    op.create_table(
        "trades",
        sa.Column(
            "id", sa.BigInteger(), sa.Computed("account_id * 1000000000000 + seq", persisted=True), nullable=True
        ),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("opened_seq", sa.BigInteger(), nullable=False),
        sa.Column("session_id", sa.BigInteger(), nullable=True),
        sa.Column("market", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("side", sa.Text(), nullable=False),
        sa.Column("size", sa.Numeric(), nullable=False),
        sa.Column("entry_price", sa.Numeric(), nullable=False),
        sa.Column("exit_price", sa.Numeric(), nullable=False),
        sa.Column("pnl", sa.Numeric(), nullable=False),
        sa.Column("fees", sa.Numeric(), nullable=False),
        sa.Column("return_frac", sa.Numeric(), nullable=False),
        sa.Column("exit_reason", sa.Text(), nullable=False),
        sa.Column("entry_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("exit_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("provisional", sa.Boolean(), nullable=False),
        sa.CheckConstraint("side IN ('LONG', 'SHORT')", name="trades_side_check"),
        sa.ForeignKeyConstraint(["account_id", "seq"], ["entries.account_id", "entries.seq"], name="trades_entry_fkey"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="trades_account_id_fkey"),
        sa.PrimaryKeyConstraint("account_id", "seq", name="trades_pkey"),
    )
    op.create_index("trades_exit_time", "trades", ["exit_time"], unique=False)
    op.execute(FINAL)
    op.execute(
        "CREATE TRIGGER entries_are_final BEFORE UPDATE OR DELETE OR TRUNCATE ON entries "
        "FOR EACH STATEMENT EXECUTE FUNCTION entries_are_final()"
    )


def downgrade() -> None:
    op.drop_index("trades_exit_time", table_name="trades")
    op.drop_table("trades")
    op.drop_table("orders")
    op.drop_index("fills_symbol", table_name="fills")
    op.drop_index(
        "fills_provisional", table_name="fills", postgresql_where=sa.text("provisional AND effective_qty > 0")
    )
    op.drop_table("fills")
    op.drop_table("decisions")
    op.drop_table("adjustments")
    op.drop_index("account_balances_timestamp", table_name="account_balances")
    op.drop_table("account_balances")
    op.drop_table("trading_sessions")
    op.drop_table("prices")
    op.drop_index("positions_one_open", table_name="positions", postgresql_where=sa.text("status = 'OPEN'"))
    op.drop_table("positions")
    op.drop_table("events")
    op.drop_table("entries")
    op.drop_table("trades", schema="backtest")
    op.drop_table("authority")
    op.drop_table("account_state")
    op.drop_table("account_assets")
    op.drop_table("backup_stamp")
    op.drop_table("runs", schema="backtest")
    op.drop_table("accounts")
    op.execute("DROP FUNCTION entries_are_final")
    op.execute("DROP SEQUENCE trading_sessions_id_seq")
    op.execute("DROP SCHEMA backtest")
