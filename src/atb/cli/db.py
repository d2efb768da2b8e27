"""`atb db`: the database and the ledger in it: verify, query, migrate, rebuild, and lists of what is there."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atb.cli import db_backup, db_closing, db_emergency
from atb.cli.lean import LeanCommand, LeanGroup

if TYPE_CHECKING:
    from atb.app import App
    from atb.ledger.connect import Where

app = typer.Typer(
    cls=LeanGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The ledger and its database: DATABASE_URL, or a Postgres of atb's own.\n\n\b\nExamples:\n"
    "  atb db start\n  atb db verify\n"
    "  atb db query \"SELECT * FROM positions WHERE status = 'OPEN';\"\n"
    "  atb db backup --dir backups --keep-days 30",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(help="Rows at most; 0: all.")]


def _open() -> App:
    from atb.cli.console import open_app

    return open_app()


def database() -> Where:
    from atb.cli.console import warn

    return _open().database_to("read", warn)


@app.command(
    "verify",
    cls=LeanCommand,
    help="Check connection, tables, schema version, and that every table tells what the ledger tells.\n\n"
    "Exit code 0 only when all of it holds; 6: no usable database; 7: tables and ledger disagree, or entries are gone "
    "that were there the last time.\n\n\b\n"
    "Example:\n  atb db verify",
)
def verify(
    json: Json = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Entries may be gone since the last time; remember what is there now.")
    ] = False,
) -> None:
    from atb.cli.console import print_json, warn
    from atb.ops.verify import verify_database

    def say(good: bool, text: str) -> None:
        if not json:
            typer.echo(f"{'✅' if good else '❌'} {text}")

    application = _open()
    where, home = application.database_to("check", warn), application.settings.home
    report = verify_database(where, say, home, anew=anew, on_again=warn)
    for text in report.notes:
        warn(text)
    if json:
        print_json(report.as_dict())
    if report.error is not None:
        raise report.error


@app.command(
    "query",
    cls=LeanCommand,
    help="Run one reading SQL statement: a table on a terminal, tab-separated rows in a pipe, a bare value for 1x1.\n\n\b\n"
    "Examples:\n  atb db query \"SELECT * FROM positions WHERE status = 'OPEN';\"\n"
    '  DRAWDOWN=$(atb db query "SELECT (peak_balance - current_balance) / peak_balance\n'
    '    FROM trading_sessions ORDER BY start_time DESC LIMIT 1;")',
)
def query(
    sql: Annotated[str, typer.Argument(help="The statement, in quotes.")],
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
    limit: Limit = 10_000,
) -> None:
    from atb.cli.console import warn
    from atb.core.errors import UsageError
    from atb.ledger.query import ask

    if json and csv:
        raise UsageError("--json and --csv exclude each other.", "Choose one.")
    _check_limit(limit)
    _print_answer(ask(database(), sql, limit, warn), json, csv, limit)


def _check_limit(limit: int) -> None:
    from atb.core.errors import UsageError

    if limit < 0:
        raise UsageError(f"--limit {limit} is negative.", "0 means all rows.")


def _print_answer(answer: Any, json: bool, csv: bool, limit: int) -> None:
    from atb.cli.console import print_table, warn
    from atb.ledger.query import as_json

    if json:
        typer.echo(as_json(answer))
    elif csv:
        import csv as writer

        out = writer.writer(sys.stdout, lineterminator="\n")
        out.writerow(answer.columns)
        out.writerows(answer.rows)
    elif len(answer.columns) == 1 and len(answer.rows) == 1:
        value = answer.rows[0][0]
        typer.echo("" if value is None else value)
        if value is None:
            warn("the value is NULL.")
    elif sys.stdout.isatty():
        if answer.rows:
            print_table(answer.columns, [[value or "" for value in row] for row in answer.rows])
        typer.echo(f"{len(answer.rows)} row{'' if len(answer.rows) == 1 else 's'}", err=True)
    else:
        for row in answer.rows:
            typer.echo("\t".join("" if value is None else _one_line(value) for value in row))
        if not answer.rows:
            warn("no rows.")
    if answer.more:
        warn(f"only the first {limit} {'row is' if limit == 1 else 'rows are'} shown: --limit 0 for all.")


def _one_line(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


@app.command(
    "migrate",
    cls=LeanCommand,
    help="Bring the schema to the version this atb needs.\n\n\b\nExamples:\n  atb db migrate\n  atb db migrate --check",
)
def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit code 6 unless the schema is up to date.")
    ] = False,
    create: Annotated[bool, typer.Option("--create", help="Create the database itself first.")] = False,
) -> None:
    from atb.cli.console import warn
    from atb.ledger.migrate import check_schema, create_database
    from atb.ledger.migrate import migrate as run
    from atb.ledger.reading import reading
    from atb.ledger.version import REVISION

    application = _open()
    where = application.database_to("read" if check else "change", warn)
    if check:
        reading(where, lambda connection: check_schema(connection, where), on_again=warn)
        typer.echo(f"Schema version: {REVISION}, up to date.")
        return
    if create and create_database(where):
        typer.echo(f"Created {where.shown}.", err=True)
    before, after = run(where, application.settings.migrations)
    application.remember(where)
    typer.echo(f"Schema version: {after}" + (", as it was." if before == after else f", was {before or 'none'}."))
    if before not in (None, after):
        typer.echo("The tables were written anew from the ledger. Check: atb db verify", err=True)


@app.command(
    "downgrade",
    cls=LeanCommand,
    help="Take the schema back to an older version. What the newer one added is lost: back up first.\n\n\b\n"
    "Example:\n  atb db downgrade v1.0.0",
)
def downgrade(
    revision: Annotated[str, typer.Argument(help="The version to go back to; base: no tables at all.")],
    yes: Annotated[bool, typer.Option("--yes", help="Needed for base, which drops every table.")] = False,
) -> None:
    from atb.cli.console import warn
    from atb.core.errors import UsageError
    from atb.ledger.migrate import migrate as run

    if revision == "base" and not yes:
        raise UsageError("That drops every table, the ledger too.", "Back up first (atb db backup), then add --yes.")
    application = _open()
    where = application.database_to("change", warn)
    before, after = run(where, application.settings.migrations, revision, down=True)
    application.remember(where)
    typer.echo(f"Schema version: {after or 'none'}, was {before or 'none'}.")


@app.command(
    "rebuild",
    cls=LeanCommand,
    help="Write every table anew from the ledger's entries.\n\n\b\nExample:\n  atb db rebuild",
)
def rebuild() -> None:
    from atb.cli.console import warn
    from atb.core.errors import Disagreement
    from atb.ledger.audit import rebuild_all
    from atb.ledger.connect import connect
    from atb.ledger.migrate import check_schema

    application, count = _open(), 0
    where = application.database_to("change", warn)
    with connect(where, statement_timeout_s=3600) as connection:
        check_schema(connection, where)
        application.remember(where)
        for account, done in rebuild_all(connection):
            if done.problems:
                raise Disagreement(f"{account.name}: {done.problems[0].message} Nothing was written for it.")
            typer.echo(f"{account.name}: written anew from {done.entries} entries.")
            count += 1
    if not count:
        typer.echo("There are no accounts.", err=True)


LISTS = {
    "sessions": "SELECT s.id, a.name AS account, s.status, s.mode, s.strategy, s.symbols, s.start_time, s.end_time, "
    "s.initial_balance, s.current_balance, s.peak_balance FROM trading_sessions s JOIN accounts a ON a.id = account_id "
    "ORDER BY s.start_time DESC",
    "positions": "SELECT a.name AS account, symbol, side, status, size, entry_price, current_price, unrealized_pnl, "
    "stop_loss, take_profit, entry_time FROM positions p JOIN accounts a ON a.id = account_id "
    "WHERE status = 'OPEN' ORDER BY account, symbol",
    "trades": "SELECT a.name AS account, symbol, side, size, entry_price, exit_price, pnl, fees, exit_reason, exit_time "
    "FROM trades t JOIN accounts a ON a.id = account_id ORDER BY exit_time DESC",
    "orders": "SELECT a.name AS account, client_order_id, symbol, side, type, qty, price, stop_price, state, filled_qty, "
    "o.created_at FROM orders o JOIN accounts a ON a.id = account_id ORDER BY o.created_at DESC",
    "events": "SELECT at, severity, component, code, message FROM events ORDER BY at DESC, id DESC",
}


def _list(name: str, json: bool, limit: int) -> None:
    from atb.cli.console import warn
    from atb.ledger.query import ask

    _check_limit(limit)
    _print_answer(ask(database(), LISTS[name], limit, warn), json, False, limit)


def _register_list(name: str, help: str) -> None:
    @app.command(name, cls=LeanCommand, help=f"{help}\n\n\b\nExample:\n  atb db {name} --json")
    def command(json: Json = False, limit: Limit = 50) -> None:
        _list(name, json, limit)


_register_list("sessions", "Trading sessions, the latest first.")
_register_list("positions", "Open positions.")
_register_list("trades", "Trades, the latest first.")
_register_list("orders", "Orders, the latest first.")
_register_list("events", "What happened, the latest first.")


db_closing.register(app)
db_emergency.register(app)
db_backup.register(app)


@app.command(
    "start",
    cls=LeanCommand,
    help="Start atb's own Postgres (made and migrated at the first start). It runs until atb db stop.\n\n\b\n"
    "Example:\n  atb db start",
)
def start() -> None:
    from atb.cli.console import warn
    from atb.ledger.connect import embedded
    from atb.ledger.embedded import start as run
    from atb.ledger.migrate import migrate as migrate_to

    application = _open()
    if application.settings.database_url:
        warn("DATABASE_URL is set: commands use that database, not the one started here.")
    server = run(application.settings.home, warn)
    before, after = migrate_to(embedded(server), application.settings.migrations)
    if not application.settings.database_url:
        application.remember(embedded(server))
    typer.echo(f"Postgres {server.version} runs at {server.url()}" + ("" if before == after else f", schema {after}."))


@app.command("stop", cls=LeanCommand, help="Stop atb's own Postgres.\n\n\b\nExample:\n  atb db stop")
def stop() -> None:
    from atb.ledger.embedded import stop as run

    typer.echo("Stopped." if run(_open().settings.home) else "It was not running.")


@app.command(
    "status",
    cls=LeanCommand,
    help="Which database commands use, and whether atb's own runs; exit code 6 when none can be used.\n\n\b\n"
    "Example:\n  atb db status --json",
)
def status(json: Json = False) -> None:
    from atb.cli.console import print_json, print_table, warn
    from atb.ledger.embedded import running
    from atb.ledger.reading import reading
    from atb.ledger.version import revision_of

    application = _open()
    server = running(application.settings.home)
    facts: dict[str, Any] = {"embedded_server": "stopped" if server is None else f"running at {server.url()}"}
    if server is not None:
        facts |= {"pid": server.pid, "folder": str(server.folder)}

    def work(connection: Any) -> dict[str, str]:
        version = str(connection.info.parameter_status("server_version"))
        return {"server_version": version, "schema": revision_of(connection) or "none"}

    try:
        where = application.database()
        facts["commands_use"] = where.shown
        facts |= reading(where, work, on_again=warn)
    finally:  # also of one that cannot be used
        if json:
            print_json(facts)
        else:
            print_table(["what", "value"], [[name, str(value)] for name, value in facts.items()])


@app.command(
    "url",
    cls=LeanCommand,
    help="Print the URL of the database, without its password.\n\n\b\nExample:\n  atb db url",
)
def url() -> None:
    typer.echo(database().shown)


def _tool(name: str, context: typer.Context) -> None:

    _open().run_tool(name, context.args)


for _name in ("psql", "pg_dump"):

    @app.command(
        _name,
        cls=LeanCommand,
        help=f"Run {_name} on the database; what follows is passed on.\n\n\b\nExample:\n  atb db {_name} "
        + ('-c "SELECT 1"' if _name == "psql" else "-f ledger.sql"),
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    )
    def _passed_on(context: typer.Context, _tool_name: Annotated[str, typer.Option(hidden=True)] = _name) -> None:
        _tool(_tool_name, context)
