"""`atb db backup` and `restore`, and the programs of Postgres that incremental backups need."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atb.cli.changing import confirm
from atb.cli.lean import LeanCommand

if TYPE_CHECKING:
    from atb.app import App
    from atb.ops.backup_verify import Verified

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
# Programs beside psql and pg_dump; one with False works on files and needs no server.
TOOLS = {"pg_basebackup": True, "pg_combinebackup": False}


def register(app: typer.Typer) -> None:
    app.command(
        "backup",
        cls=LeanCommand,
        help="Dump the database into a compressed file, check it, then delete those older than --keep-days.\n\n"
        "With --verify: restore the newest dump (or FILE) into a scratch database, audit it and compare it with the "
        "live one. Exit code 3: the dump is truncated or altered; 6: the database.\n\n\b\n"
        "Examples:\n  atb db backup --dir backups --keep-days 30\n  atb db backup --verify",
    )(backup)
    app.command(
        "restore",
        cls=LeanCommand,
        help="Put a dump (.sql.gz or .sql) in the place of the database.\n\n"
        "It is restored and checked beside it first; the old database is kept under another name. Refused while a "
        "session is alive.\n\n\b\nExample:\n  atb db restore backups/backup_20251121_020000.sql.gz",
    )(restore)
    app.command(
        "check-base",
        cls=LeanCommand,
        help="Compare a base backup, full or incremental, with its manifest (ops/incremental.sh makes them).\n\n\b\n"
        "Example:\n  atb db check-base backups/base/base_20251121_020000_full",
    )(check_base)
    for name, needs_server in TOOLS.items():
        _register_tool(app, name, needs_server)


def backup(
    file: Annotated[Path | None, typer.Argument(help="With --verify: the dump. [default: the newest]")] = None,
    dir: Annotated[Path, typer.Option(help="Folder of the backups.")] = Path("backups"),
    keep_days: Annotated[int, typer.Option(help="Delete backups that are older.")] = 30,
    verify: Annotated[bool, typer.Option("--verify", help="Make none; check one.")] = False,
    json: Json = False,
) -> None:
    from atb.cli.console import print_json, warn
    from atb.core.errors import UsageError
    from atb.core.words import counted
    from atb.ops.backup import back_up

    if verify:
        _verify(file, dir, json)
        return
    if file is not None:
        raise UsageError(f"A backup names its file itself; {file} means nothing.", "Did you mean --verify?")
    app = _app()
    done = back_up(lambda: (app.database_to("check", warn), app.tool_environment()), dir, keep_days, app.settings.home)
    if json:
        print_json(done._asdict() | {"path": str(done.path)})
        return
    for note in done.notes:
        warn(note)
    removed = f"; {len(done.removed)} older removed" if done.removed else ""
    typer.echo(f"{done.path}  {done.size_bytes} bytes, {counted(done.rows, 'row')}, dump id {done.dump_id}{removed}")


def _verify(file: Path | None, folder: Path, json: bool) -> None:
    from atb.cli.console import print_json, warn
    from atb.core.errors import Disagreement
    from atb.ops.backup_verify import newest_backup, verify_dump

    app = _app()
    done = verify_dump(
        app.database_to("check", warn), app.tool_environment(), file or newest_backup(folder), _migrate(app)
    )
    if json:
        print_json(done._asdict() | {"path": str(done.path)})
    else:
        _say_verified(done)
    damaged = next((line for line in done.live if "DAMAGED" in line), None)
    if damaged is not None:
        raise Disagreement(damaged, f"Stop what trades on it, then: atb db restore {done.path}")


def _say_verified(done: Verified) -> None:
    from atb.cli.console import warn

    for note in done.notes:
        warn(note)
    typer.echo(f"✅ {done.path} is whole" + (f", dump id {done.dump_id} of {done.made_at}" if done.dump_id else ""))
    typer.echo(f"✅ Restored into a scratch database: {done.tables} tables, {done.rows} rows")
    typer.echo(f"✅ Ledger whole: {done.entries} entries, {done.fills} fills; tables agree")
    for line in done.live:
        typer.echo(f"{'❌' if 'DAMAGED' in line or 'cannot' in line else '✅'} {line}")


def restore(
    file: Annotated[Path, typer.Argument(help="The dump.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Go on where it cannot be asked whether a session is alive; never while one is."),
    ] = False,
    json: Json = False,
) -> None:
    from atb.cli.console import print_json, warn
    from atb.ops.restore import restore as run

    app = _app()
    where = app.database_to("change", warn)
    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        confirm(f"Put {file} in the place of {where.shown}? The old one is kept aside.")
    done = run(where, app.tool_environment(), file, _migrate(app), force=force)
    app.remember(where)
    if json:
        print_json(done._asdict() | {"path": str(done.path)})
        return
    for note in done.notes:
        warn(note)
    dump = f"dump {done.dump_id} of {done.made_at}" if done.dump_id else str(done.path)
    typer.echo(f"{done.database} is restored from {dump}: {done.entries} entries, {done.fills} fills, checked.")
    if done.kept:
        _say_kept(done.kept, done.database.rpartition("/")[2])


def _say_kept(kept: str, database: str) -> None:
    typer.echo(f"The old database is kept as {kept}.")
    typer.echo(f"  drop it:  atb db psql -d postgres -c 'DROP DATABASE \"{kept}\"'")
    away, back = (
        f'ALTER DATABASE "{a}" RENAME TO "{b}"' for a, b in ((database, f"{database}_undone"), (kept, database))
    )
    typer.echo(f"  go back:  atb db psql -d postgres -1 -c '{away}' -c '{back}' && atb db verify --anew")


def check_base(folder: Annotated[Path, typer.Argument(help="The base backup.")]) -> None:
    from atb.ops.base_check import check_base as run

    found = run(folder)
    typer.echo(f"✅ {folder} is whole: {found.files} files, {found.size_bytes / 1e6:.1f} MB")


def _app() -> App:
    from atb.app import App

    return App()


def _migrate(app: App) -> Any:
    """Bring a restored database up to this version's schema; nothing to do, and nothing imported, when it is."""

    def migrate(where: Any) -> None:
        from atb.ledger.connect import connect
        from atb.ledger.version import REVISION, revision_of

        with connect(where) as connection:
            revision = revision_of(connection)
        if revision != REVISION:
            from atb.ledger.migrate import migrate as run

            run(where, app.settings.migrations)

    return migrate


def _register_tool(app: typer.Typer, name: str, needs_server: bool) -> None:
    @app.command(
        name,
        cls=LeanCommand,
        help=f"Run {name}; what follows is passed on. See docs/backup.md.\n\n\b\nExample:\n  atb db {name} --version",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    )
    def run(context: typer.Context) -> None:
        if needs_server:
            _app().run_tool(name, context.args)
        import os

        from atb.ledger.embedded import tool

        program = str(tool(name))  # its whole path: it looks for others beside itself
        os.execv(program, [program, *context.args])
