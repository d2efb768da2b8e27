"""`atb db verify` finds what was changed behind the ledger's back: in the schema, in its facts, at the end of its chain."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from atb.core.errors import DatabaseError
from atb.ledger.connect import connect
from atb.ledger.version import FINGERPRINT, fingerprint
from atb.ops.verify import verify_database
from tests.database import Postgres, postgres


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with postgres(tmp_path_factory.mktemp("verify")) as running:
        yield running


def test_the_fingerprint_is_that_of_the_migrations(server: Postgres) -> None:
    with connect(server.where(server.database())) as connection:
        assert fingerprint(connection) == FINGERPRINT


GUARD = "trigger public.entries entries_are_final"
ANOTHER = "a constraint, a check, a rule or a sequence differs"
MADE_AGAIN = "DROP TRIGGER entries_are_final ON entries; CREATE TRIGGER entries_are_final BEFORE {} ON entries {}"
SCHEMA = {
    "guard disabled": ("ALTER TABLE entries DISABLE TRIGGER entries_are_final", f"{GUARD} is disabled"),
    "guard for replicas only": ("ALTER TABLE entries ENABLE REPLICA TRIGGER entries_are_final", f"{GUARD} is not always"),
    "guard gone": ("DROP TRIGGER entries_are_final ON entries", f"{GUARD} is missing"),
    "guard that does nothing": (
        "CREATE OR REPLACE FUNCTION entries_are_final() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$",
        f"{GUARD} or its function differs"),
    "guard of some columns": (
        MADE_AGAIN.format("DELETE OR UPDATE OF kind OR TRUNCATE", "EXECUTE FUNCTION entries_are_final()"),
        f"{GUARD} or its function differs"),
    "guard under a condition": (
        MADE_AGAIN.format("DELETE OR UPDATE OR TRUNCATE", "WHEN (false) EXECUTE FUNCTION entries_are_final()"),
        f"{GUARD} or its function differs"),
    "trigger on a table": (
        "CREATE TRIGGER mine BEFORE INSERT ON trades FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "trigger public.trades mine should not be there"),
    "keys that are not checked": (
        "ALTER TABLE trades DISABLE TRIGGER ALL", "trigger public.trades trades_account_id_fkey is disabled"),
    "rule": ("CREATE RULE mine AS ON INSERT TO entries DO INSTEAD NOTHING", ANOTHER),
    "rows hidden": ("ALTER TABLE trades ENABLE ROW LEVEL SECURITY", ANOTHER),
    "table that a crash empties": ("ALTER TABLE trades SET UNLOGGED", ANOTHER),
    "numbers gone": ("DROP SEQUENCE trading_sessions_id_seq", ANOTHER),
    "other tables first": ("ALTER DATABASE {} SET search_path = backtest, public",
                           "search_path leads to schema backtest, not public"),
    "no triggers": ("ALTER DATABASE {} SET session_replication_role = replica",
                    "session_replication_role is replica"),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMA)
def test_what_was_changed_in_the_schema_is_named(server: Postgres, name: str) -> None:
    statement, expected = SCHEMA[name]
    where = server.where(database := server.database())
    assert verify_database(where, lambda good, text: None).error is None
    with psycopg.connect(server.url(database)) as connection:
        connection.execute(statement.format(database))
    said: list[str] = []
    report = verify_database(where, lambda good, text: None if good else said.append(text))
    assert isinstance(report.error, DatabaseError) and report.error.exit_code == 6
    assert expected in said[0] and expected in report.error.what, said
