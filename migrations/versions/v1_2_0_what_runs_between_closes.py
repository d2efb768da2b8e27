"""What an account is worth between closes: one row each, overwritten, that no entry knows of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v1.2.0"
down_revision = "v1.1.0"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "running_marks",
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("session_id", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("equity", sa.Numeric(), nullable=False),
        sa.Column("peak", sa.Numeric(), nullable=False),
        sa.Column("unrealized_pnl", sa.Numeric(), nullable=False),
        sa.Column("prices", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="running_marks_account_id_fkey"),
        sa.PrimaryKeyConstraint("account_id", name="running_marks_pkey"),
    )


def downgrade() -> None:
    op.drop_table("running_marks")
