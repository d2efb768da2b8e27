"""Bring a database's schema to the revision this atb needs, or back. Imports Alembic, which takes half a second."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from atb.core.errors import DatabaseError
from atb.ledger.connect import Where, connect, explained
from atb.ledger.version import FINGERPRINT, REVISION, fingerprint, order_of, revision_of, wrong_settings, wrong_triggers

if TYPE_CHECKING:
    from psycopg import Connection

LOCK = 7_204_513  # any number: whoever migrates holds the advisory lock of it


def check_schema(connection: Connection[Any], where: Where) -> None:
    """A DatabaseError unless the schema is of the revision that this atb needs."""
    revision = revision_of(connection)
    if revision is None:
        raise DatabaseError(f"{where.shown} has no tables of atb yet.", "Make them: atb db migrate")
    if revision != REVISION:
        if order_of(revision) > order_of(REVISION):
            raise DatabaseError(
                f"The schema of {where.shown} is {revision}, newer than this atb ({REVISION}).",
                f"Upgrade atb, or with the newer one: atb db downgrade {REVISION}",
            )
        raise DatabaseError(
            f"The schema of {where.shown} is {revision}; this atb needs {REVISION}.", "Run: atb db migrate"
        )


def migrate(where: Where, scripts: Path, target: str = "head", *, down: bool = False) -> tuple[str | None, str | None]:
    """Run the migrations to `target`; returns the revision before and after. Two at once wait for each other."""
    import psycopg
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: connect(where, statement_timeout_s=3600), poolclass=NullPool
    )
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    try:
        with engine.begin() as connection:
            driver: Any = connection.connection.driver_connection
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
            before = revision_of(driver)
            config.attributes["connection"] = connection
            (command.downgrade if down else command.upgrade)(config, target)
            return before, revision_of(driver)
    except CommandError as error:
        raise DatabaseError(f"{where.shown} cannot be migrated: {error}.", "See: atb db verify") from None
    except SQLAlchemyError as error:
        original = getattr(error, "orig", None)
        raise (explained(original, where) if isinstance(original, psycopg.Error) else error) from None


def create_database(where: Where) -> bool:
    """Make the database that `where` names, over the server's `postgres` one. False if it is there already."""
    import psycopg
    from psycopg import sql
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    wanted = conninfo_to_dict(where.conninfo)
    name = str(wanted["dbname"])
    maintenance = where._replace(conninfo=make_conninfo(where.conninfo, dbname="postgres"))
    with connect(maintenance, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
            return False
        try:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except psycopg.Error as error:
            raise explained(error, where) from None
        return True


def schema_differences(connection: Connection[Any], where: Where) -> list[str]:
    """What in the database is not as this atb's tables are; nothing in the usual case, found by one query."""
    if fingerprint(connection) == FINGERPRINT:
        return []
    found = wrong_settings(connection) + wrong_triggers(connection)
    found += [_said(difference) for difference in _compared(where)]
    return found or ["a constraint, a check, a rule, a sequence or a column's precision differs"]


def _compared(where: Where) -> list[Any]:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    from atb.ledger.schema import metadata

    engine = create_engine("postgresql+psycopg://", creator=lambda: connect(where), poolclass=NullPool)
    with engine.connect() as connection:
        options = {"compare_type": True, "include_schemas": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def _said(difference: Any) -> str:
    """One of Alembic's differences in words."""
    if isinstance(difference, list):
        return "; ".join(_said(each) for each in difference)
    kind, *what = difference
    names = [
        str(getattr(each, "name", None) or each) for each in what if isinstance(each, str) or hasattr(each, "name")
    ]
    verb = {"add": "is missing", "remove": "should not be there", "modify": "differs"}.get(kind.split("_")[0], kind)
    return f"{kind.split('_', 1)[-1]} {' '.join(names)} {verb}"
