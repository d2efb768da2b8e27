"""Alembic's environment: migrates over the connection that `atb db migrate` hands it, else over DATABASE_URL."""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import Connection, create_engine

from atb.ledger.schema import metadata


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, compare_type=True, include_schemas=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    url = (
        os.environ["DATABASE_URL"]
        .replace("postgres://", "postgresql://")
        .replace("postgresql://", "postgresql+psycopg://")
    )
    with create_engine(url).connect() as opened:
        migrate(opened)
        opened.commit()
