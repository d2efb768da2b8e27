"""Which schema a database has: its revision, and a fingerprint that shows any change to it in one query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psycopg import Connection

REVISION = "v1.1.0"
FINGERPRINT = "05067327d810fbde79b653d0ea4defad"

# Columns, checks, keys and indexes of our tables, as one hash. Names of types and texts of constraints are the same from
# Postgres 15 to 18; what is not (NOT NULL as a constraint, since 18) is left out.
_FINGERPRINT_SQL = """
SELECT md5(string_agg(line, chr(10) ORDER BY line COLLATE "C")) FROM (
    SELECT table_schema || '.' || table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' '
        || coalesce(column_default, '') || coalesce(generation_expression, '') AS line
    FROM information_schema.columns WHERE table_schema IN ('public', 'backtest')
        AND table_name NOT IN ('alembic_version', 'pg_stat_statements', 'pg_stat_statements_info')
    UNION ALL
    SELECT n.nspname || '.' || t.relname || ' ' || c.conname || ' ' || pg_get_constraintdef(c.oid)
    FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
    WHERE n.nspname IN ('public', 'backtest') AND c.contype IN ('p', 'u', 'f', 'c') AND t.relname <> 'alembic_version'
    UNION ALL
    SELECT schemaname || '.' || tablename || ' ' || indexdef FROM pg_indexes
    WHERE schemaname IN ('public', 'backtest') AND tablename <> 'alembic_version'
    UNION ALL
    SELECT event_object_table || ' ' || trigger_name || ' ' || event_manipulation FROM information_schema.triggers
    WHERE event_object_schema = 'public'
) AS lines
"""


def revision_of(connection: Connection[Any]) -> str | None:
    """The revision a database is at; None where no migration ever ran."""
    there = connection.execute("SELECT to_regclass('public.alembic_version')").fetchone()
    if there is None or there[0] is None:
        return None
    row = connection.execute("SELECT version_num FROM public.alembic_version").fetchone()
    return None if row is None else str(row[0])


def fingerprint(connection: Connection[Any]) -> str:
    row = connection.execute(_FINGERPRINT_SQL).fetchone()
    assert row is not None
    return str(row[0])


def order_of(revision: str) -> tuple[int, ...]:
    """`v1.10.0` after `v1.9.0`."""
    return tuple(int(part) for part in revision.removeprefix("v").split(".") if part.isdigit())
