"""Bring a database's schema to the revision this atb needs, or back. Imports Alembic, which takes half a second."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from atb.core.errors import DatabaseError, UsageError
from atb.ledger.connect import Where, connect, explained
from atb.ledger.version import FINGERPRINT, REVISION, fingerprint, order_of, revision_of, wrong_settings, wrong_triggers

if TYPE_CHECKING:
    from alembic.config import Config
    from psycopg import Connection
    from sqlalchemy.exc import SQLAlchemyError

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
    """Run the migrations to `target`; returns the revision before and after. Two at once wait for each other.

    Upwards, the tables are then written anew: what a new column tells follows from the entries, too.
    """
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
            if down:
                _check_way_down(before, target, _revisions(config), where)
            config.attributes["connection"] = connection
            (command.downgrade if down else command.upgrade)(config, target)
            after = revision_of(driver)
    except CommandError as error:
        raise DatabaseError(f"{where.shown} cannot be migrated: {error}.", "See: atb db verify") from None
    except SQLAlchemyError as error:
        raise _of_the_driver(error, where) from None
    if before is not None and before != after == REVISION:
        _write_anew(where)
    return before, after


def _of_the_driver(error: SQLAlchemyError, where: Where) -> Exception:
    """The driver's error that SQLAlchemy wraps, in words; what is SQLAlchemy's own stays as it is."""
    import psycopg

    original = getattr(error, "orig", None)
    return explained(original, where) if isinstance(original, psycopg.Error) else error


def _write_anew(where: Where) -> None:
    """Where a chain is broken, its tables stay as they are: verify names the fault."""
    from atb.ledger.audit import rebuild_all

    with connect(where, statement_timeout_s=3600) as connection:
        for _ in rebuild_all(connection):
            pass


def _revisions(config: Config) -> list[str]:
    """The schema versions this atb has migrations for, the oldest first."""
    from alembic.script import ScriptDirectory

    return [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]


def _check_way_down(current: str | None, target: str, known: list[str], where: Where) -> None:
    """Alembic would speak of revisions that it cannot locate, or do nothing."""
    if target != "base" and target not in known:
        raise UsageError(f"This atb knows no schema version '{target}'.", f"Known: {', '.join(known)}, base.")
    if current is not None and current not in known:
        raise DatabaseError(
            f"The schema of {where.shown} is {current}, which this atb does not know.",
            f"Take it back with the atb that made it (this one knows {', '.join(known)}).",
        )
    if target != "base" and (current is None or known.index(target) > known.index(current)):
        raise UsageError(
            f"{target} is newer than the schema of {where.shown}, which is {current or 'none: it has no tables yet'}.",
            "To bring it up to date: atb db migrate",
        )


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
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    from atb.ledger.schema import metadata

    engine = create_engine("postgresql+psycopg://", creator=lambda: connect(where), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            options = {"compare_type": True, "include_schemas": True}
            return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))
    except SQLAlchemyError as error:
        raise _of_the_driver(error, where) from None


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
