"""A fill that replaces a record by hand stands where the record stood, and says of how much it has. No peak is NULL.

Also: a backup of a restored database leaves known from which dump it was restored.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v1.1.0"
down_revision = "v1.0.0"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("fills", sa.Column("place", sa.BigInteger(), nullable=True))
    op.add_column("fills", sa.Column("replaced_qty", sa.Numeric(), nullable=True))
    op.execute("UPDATE fills SET place = seq, replaced_qty = 0")  # until the tables are rebuilt
    op.alter_column("fills", "place", nullable=False)
    op.alter_column("fills", "replaced_qty", nullable=False)
    _index(["account_id", "market", "symbol", "place", "seq"])
    op.alter_column("trading_sessions", "peak_balance", nullable=True)
    op.add_column("backup_stamp", sa.Column("restored_from", sa.Text(), nullable=True))
    op.add_column("backup_stamp", sa.Column("restored_tables", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("backup_stamp", "restored_tables")
    op.drop_column("backup_stamp", "restored_from")
    op.execute("UPDATE trading_sessions SET peak_balance = 0 WHERE peak_balance IS NULL")
    op.alter_column("trading_sessions", "peak_balance", nullable=False)
    _index(["account_id", "market", "symbol", "seq"])
    op.drop_column("fills", "replaced_qty")
    op.drop_column("fills", "place")


def _index(columns: list[str]) -> None:
    op.drop_index("fills_symbol", table_name="fills")
    op.create_index("fills_symbol", "fills", columns)
