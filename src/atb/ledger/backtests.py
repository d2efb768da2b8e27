"""Log a backtest into the schema `backtest`, apart from everything that an account did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psycopg import Connection

RUN_COLUMNS = (
    "strategy", "symbols", "timeframe", "start_time", "end_time", "initial_balance", "final_balance", "max_drawdown",
    "config_hash", "result",
)  # fmt: skip
TRADE_COLUMNS = (
    "symbol", "side", "size", "entry_price", "exit_price", "pnl", "fees", "exit_reason", "entry_time", "exit_time",
)  # fmt: skip


def _exact(value: Any) -> Any:
    """A float with all its digits: Postgres keeps 15 of one that is turned into NUMERIC."""
    return Decimal(repr(value)) if isinstance(value, float) else value


def log_backtest(connection: Connection[Any], run: Mapping[str, Any], trades: Sequence[Mapping[str, Any]]) -> int:
    """Write a run and its trades in one transaction; returns the run's id."""
    with connection.transaction():
        row = connection.execute(
            f"INSERT INTO backtest.runs ({', '.join(RUN_COLUMNS)}) VALUES ({', '.join(['%s'] * len(RUN_COLUMNS))}) "
            "RETURNING id",
            [_exact(run[name]) for name in RUN_COLUMNS],
        ).fetchone()
        assert row is not None
        with connection.cursor().copy(
            f"COPY backtest.trades (run_id, number, {', '.join(TRADE_COLUMNS)}) FROM STDIN"
        ) as copy:
            for number, trade in enumerate(trades, 1):
                copy.write_row((row[0], number, *(_exact(trade[name]) for name in TRADE_COLUMNS)))
    return int(row[0])
