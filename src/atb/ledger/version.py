"""Which schema a database has: its revision, and a fingerprint that shows any change to it in one query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psycopg import Connection

REVISION = "v1.2.0"
FINGERPRINT = "9bf4e55b29fa43e55ad85bd2e0f787d5"
TRIGGERS = {"public.entries entries_are_final": "cf740499e50df2a34df9c5c2485d55f5"}

# What could make a session see other tables, or fire no triggers.
_SESSION_SQL = "SELECT coalesce(current_schema(), 'none') AS first, current_setting('session_replication_role') AS role"

# Each trigger, whether it fires (O), and what it runs. Those that Postgres makes itself for foreign keys only when they do
# not fire as they should.
_TRIGGERS_SQL = """
SELECT n.nspname || '.' || t.relname || ' ' || coalesce(c.conname, g.tgname) AS name, g.tgenabled::text AS fires,
    md5(pg_get_triggerdef(g.oid) || p.prosrc) AS what
FROM pg_trigger g JOIN pg_class t ON t.oid = g.tgrelid JOIN pg_namespace n ON n.oid = t.relnamespace
    JOIN pg_proc p ON p.oid = g.tgfoid LEFT JOIN pg_constraint c ON c.oid = g.tgconstraint AND g.tgisinternal
WHERE n.nspname IN ('public', 'backtest') AND (NOT g.tgisinternal OR g.tgenabled <> 'O')
"""

# Columns, checks, keys, indexes, rules and triggers of our tables, as one hash. Names of types and texts of constraints are
# the same from Postgres 15 to 18; what is not (NOT NULL as a constraint, since 18) is left out.
_FINGERPRINT_SQL = f"""
SELECT md5(string_agg(line, chr(10) ORDER BY line COLLATE "C")) FROM (
    SELECT table_schema || '.' || table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' '
        || coalesce(column_default, '') || coalesce(generation_expression, '') || ' '
        || coalesce(character_maximum_length, numeric_scale, datetime_precision, -1) AS line
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
    SELECT name || ' ' || fires || ' ' || what FROM ({_TRIGGERS_SQL}) AS triggers
    UNION ALL
    SELECT n.nspname || '.' || t.relname || ' ' || r.rulename || ' ' || pg_get_ruledef(r.oid)
    FROM pg_rewrite r JOIN pg_class t ON t.oid = r.ev_class JOIN pg_namespace n ON n.oid = t.relnamespace
    WHERE n.nspname IN ('public', 'backtest') AND t.relkind IN ('r', 'p')
    UNION ALL
    SELECT n.nspname || '.' || t.relname || ' ' || t.relkind::text || t.relpersistence::text || t.relrowsecurity
        || coalesce(s.seqstart || ' ' || s.seqincrement || ' ' || s.seqmin || ' ' || s.seqmax || s.seqcycle, '')
    FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace LEFT JOIN pg_sequence s ON s.seqrelid = t.oid
    WHERE n.nspname IN ('public', 'backtest') AND t.relkind IN ('r', 'p', 'S') AND t.relname <> 'alembic_version'
    UNION ALL
    SELECT first || ' ' || role FROM ({_SESSION_SQL}) AS session
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


def wrong_settings(connection: Connection[Any]) -> list[str]:
    """What keeps a session from seeing our tables, or their triggers from firing, in words."""
    ((first, role),) = connection.execute(_SESSION_SQL).fetchall()
    out = [] if first == "public" else [f"search_path leads to schema {first}, not public"]
    return out if role == "origin" else [*out, f"session_replication_role is {role}, so no trigger fires"]


def wrong_triggers(connection: Connection[Any]) -> list[str]:
    """Which triggers are not as the migrations made them, in words."""
    there = {name: (fires, what) for name, fires, what in connection.execute(_TRIGGERS_SQL).fetchall()}
    out = [f"trigger {name} is missing" for name in TRIGGERS if name not in there]
    for name, (fires, what) in sorted(there.items()):
        if fires != "O":
            out.append(f"trigger {name} is {'disabled' if fires == 'D' else 'not always fired'}")
        elif name not in TRIGGERS:
            out.append(f"trigger {name} should not be there")
        elif what != TRIGGERS[name]:
            out.append(f"trigger {name} or its function differs")
    return out


def order_of(revision: str) -> tuple[int, ...]:
    """`v1.10.0` after `v1.9.0`."""
    return tuple(int(part) for part in revision.removeprefix("v").split(".") if part.isdigit())
