"""`atb live status`, `stop`, `halt`, `resume` and `set-stop`: what an operator does beside a running engine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atb.cli.changing import open_line, typed_here
from atb.cli.console import open_app
from atb.cli.lean import LeanCommand

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from atb.app import App
    from atb.execution.engines import Engine
    from atb.ledger.connect import Where
    from atb.ops.status import AccountStatus

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AccountName = Annotated[str | None, typer.Option(help="Account. [default: the only one]", metavar="NAME")]
SessionId = Annotated[
    str | None, typer.Option(help="The account of this session. [default: the only one]", metavar="N")
]
Reason = Annotated[str, typer.Option(help="Why; it is stored.", metavar="TEXT")]


def register(app: typer.Typer) -> None:
    app.command(
        "status", cls=LeanCommand,
        help="Every account: its engine, session, halt, equity, drawdown, open positions and working orders.\n\n"
        "engine is running, none (nobody holds the account), dead (its process of this host has ended) or silent (its "
        "lease has run out). Exit code 0; 6 without a database.\n\n\b\n"
        "Examples:\n  atb live status\n  atb live status --json | jq '.accounts[] | select(.halted)'",
    )(status)  # fmt: skip
    app.command(
        "stop", cls=LeanCommand,
        help="End the engine that runs here; what it holds stays open, with its stop at the exchange.\n\n"
        "It gets SIGTERM and time for its last cycle, then SIGKILL, which is safe, too. Exit code 0 when none runs any "
        "more, also when none did; 9 when one runs elsewhere.\n\n\b\n"
        "Examples:\n  atb live stop\n  atb live stop --account paper:binance --timeout 60",
    )(stop)  # fmt: skip
    app.command(
        "halt", cls=LeanCommand,
        help="No entries from now on; exits and stops go on. It lasts until atb live resume.\n\n\b\n"
        'Example:\n  atb live halt --reason "exchange maintenance"',
    )(halt)  # fmt: skip
    app.command(
        "resume", cls=LeanCommand,
        help="Entries again after a halt. The drawdown begins anew, at the equity of now.\n\n\b\n"
        'Example:\n  atb live resume --reason "drawdown of 12 % reviewed"',
    )(resume)  # fmt: skip
    app.command(
        "set-stop", cls=LeanCommand,
        help="A tighter stop for an open long position. The engine moves the order within one check interval.\n\n"
        "Refused: a stop that is looser than the present one, or not below the last mark. A price between two ticks is "
        "rounded down.\n\n\b\n"
        "Example:\n  atb live set-stop --symbol BTCUSDT --price 48000",
    )(set_stop)  # fmt: skip


def status(
    json: Json = False,
    everything: Annotated[bool, typer.Option("--all", help="Rehearsals that have ended, too.")] = False,
) -> None:
    from atb.cli.console import print_json, warn
    from atb.core.errors import DatabaseError
    from atb.execution.engines import living
    from atb.execution.halt_file import NAME, read
    from atb.ops.status import as_json

    application = open_app()
    home = application.settings.home
    engines = living(home)
    for each in read(home):
        warn(f"{home / NAME}: {each.account or 'every account of this host'} {each.said}")
    try:
        found = _statuses(application)
    except DatabaseError:
        if engines and not json:
            _print_engines(engines)
        raise
    shown = [each for each in found if everything or each.is_current]
    if json:
        print_json({"accounts": [as_json(each) for each in shown], "engines": [_engine_json(e) for e in engines]})
        return
    _print_status(shown)
    if engines:
        _print_engines(engines)
    if len(found) > len(shown):
        warn(f"{len(found) - len(shown)} that have ended are not shown (rehearsals): --all")


def _statuses(application: App) -> list[AccountStatus]:
    from atb.cli.console import warn
    from atb.ledger.migrate import check_schema
    from atb.ledger.reading import reading
    from atb.ops.status import read_status

    where = application.database_to("read", warn)

    def work(connection: Any) -> list[AccountStatus]:
        check_schema(connection, where)
        connection.rollback()
        return read_status(connection)

    return reading(where, work)


def _print_status(statuses: Sequence[AccountStatus]) -> None:
    """Two narrow tables on a terminal, one wide one in a pipe; then what is held."""
    from atb.cli.console import print_table

    statuses = [each.at_running_prices() for each in statuses]
    rows = [_row(each) for each in statuses]
    if not rows:
        typer.echo("Nothing is traded in this database.", err=True)
        return
    names = list(rows[0])
    who = ("account", "mode", "engine", "held_by", "since", "heartbeat")
    parts = [who, ["account", *names[len(who) :]]] if sys.stdout.isatty() else [names]
    for part in parts:
        print_table([name.replace("_", " ") for name in part], [[row[name] for name in part] for row in rows])
    held = [(each.account.name, position) for each in statuses for position in each.positions]
    if held:
        _next_table()
        header = ["account", "symbol", "size", "entry", "mark", "pnl", "stop", "take"]
        print_table(header, [[name, p.symbol, *_numbers(p)] for name, p in held])


def _row(status: AccountStatus) -> dict[str, str]:
    standing, session, drawdown = status.standing, status.session, status.drawdown_frac
    age_s = standing.heartbeat_age_s if standing.holder else None
    return {
        "account": status.account.name, "mode": status.account.environment, "engine": status.engine,
        "held_by": standing.shown or "-", "since": standing.since or "-",
        "heartbeat": "-" if age_s is None else f"{max(0.0, age_s):.0f} s ago",
        "session": "-" if session is None else f"{session.id} {session.strategy} {session.symbols}",
        "halted": status.halt_reason or "yes" if status.halted else "no",
        "equity": "-" if status.equity is None else f"{status.equity:.2f}",
        "drawdown": "-" if drawdown is None else f"{drawdown:.2%}",
        "positions": str(len(status.positions)), "orders": str(status.working_orders),
    }  # fmt: skip


def _numbers(position: Any) -> list[str]:
    from atb.ops.status import text_of

    exact = [position.size, position.entry_price, position.current_price, position.stop, position.take]
    size, entry, mark, *levels = [text_of(value) or "-" for value in exact]
    return [size, entry, mark, f"{position.unrealized_pnl:.2f}", *levels]


def _print_engines(engines: Sequence[Engine]) -> None:
    from atb.cli.console import print_table

    _next_table()
    header = ["pid", "engine of", "session", "health port", "since", "database"]
    rows = [
        [str(e.pid), e.account, str(e.session_id), str(e.health_port or "-"), e.started_at, e.database] for e in engines
    ]
    print_table(header, rows)


def _next_table() -> None:
    if not sys.stdout.isatty():
        typer.echo("")


def _engine_json(engine: Engine) -> dict[str, Any]:
    return {"pid": engine.pid, "host": engine.process.host} | {
        k: v for k, v in engine._asdict().items() if k != "process"
    }


def stop(
    account: AccountName = None,
    session_id: SessionId = None,
    everything: Annotated[bool, typer.Option("--all", help="Every engine that runs here.")] = False,
    timeout: Annotated[
        float, typer.Option(help="Seconds for the last cycle, before it is killed.", metavar="SECONDS")
    ] = 30.0,
) -> None:
    from atb.cli.console import ProgressLine
    from atb.execution.engines import end_all, living
    from atb.ops.stopping import chosen, session_s_account

    grace_s = _seconds(timeout)
    application = open_app()
    engines = chosen(
        living(application.settings.home), account, session_id, everything,
        lambda number: session_s_account(_database(application), number),
    )  # fmt: skip
    if not engines:
        _none_runs(application, account, session_id)
        return
    progress = ProgressLine()
    try:
        killed = end_all(engines, grace_s, lambda left, waited_s: progress(_waiting(left), waited_s / grace_s))
    finally:
        progress.close()
    for engine in engines:
        how = f"killed: it did not end within {grace_s:g} s" if engine in killed else "stopped"
        typer.echo(f"{engine.account} (pid {engine.pid}): {how}.")
    _refuse_immortal(engines)
    _say_what_stays(application, engines)


def _waiting(left: Sequence[Engine]) -> str:
    return f"waiting for {', '.join(f'pid {engine.pid}' for engine in left)}"


def _seconds(timeout: float) -> float:
    from atb.core.errors import UsageError

    if not 0 <= timeout <= 86_400:
        raise UsageError(
            f"--timeout {timeout:g} is no number of seconds to wait.", "From 0 (kill it at once) to 86400."
        )
    return timeout


def _database(application: App) -> Where:
    from atb.cli.console import warn

    return application.database_to("read", warn)


def _none_runs(application: App, account: str | None, session_id: str | None) -> None:
    """None was found by its file. One that runs elsewhere, or cannot be asked about, is no success."""
    from atb.core.errors import DatabaseError
    from atb.ops.stopping import refuse_elsewhere, session_s_account

    try:
        where = _database(application)
        if session_id is not None:
            account = session_s_account(where, session_id)
        refuse_elsewhere(where, account)
    except DatabaseError as error:
        if application.settings.database_url:
            what = f"No engine runs here; whether one runs on another host could not be asked. {error.what}"
            raise type(error)(what, error.hint) from None
    typer.echo(f"No engine of {account} runs." if account else "No engine runs.", err=True)


def _refuse_immortal(engines: Sequence[Engine]) -> None:
    from atb.core.errors import Fenced

    for engine in engines:
        if not engine.process.is_gone:
            raise Fenced(
                f"The engine of {engine.account} (pid {engine.pid}) was killed and does not end: its kernel holds it.",
                f"Look at it: ps -o pid,stat,wchan {engine.pid}",
            )


def _say_what_stays(application: App, engines: Sequence[Engine]) -> None:
    """What they held: asked of the database that they traded on, where this is it."""
    from atb.cli.console import warn
    from atb.core.errors import AtbError
    from atb.ops.stopping import left_open

    try:
        where = application.database()
        others = sorted({engine.database for engine in engines} - {where.shown})
        open_ = left_open(where, [engine.account for engine in engines if engine.database == where.shown])
    except AtbError as error:
        warn(f"What they hold stays open; it could not be listed. {error.what}")
        return
    for position in open_:
        typer.echo(position.told)
    if others:
        warn(f"What stays open in {', '.join(others)} is not listed: DATABASE_URL is {where.shown}.")


def halt(reason: Reason, account: AccountName = None, session_id: SessionId = None) -> None:
    from atb.ops import control

    def tell(status: AccountStatus, done: bool) -> str:
        name = status.account.name
        if not done:
            return f"{name} was halted already: {status.halt_reason}."
        return f"{name} is halted: no entries until atb live resume. Exits and stops go on."

    from atb.cli.halt_here import halt_here
    from atb.core.errors import DatabaseError, DatabaseUnavailable
    from atb.execution.engines import living

    try:
        _controlled(control.halt, tell, reason, account, session_id)
    except DatabaseError as error:
        if not isinstance(error, DatabaseUnavailable) and not living(open_app().settings.home):
            raise
        halt_here(error, account, reason)


def resume(reason: Reason, account: AccountName = None, session_id: SessionId = None) -> None:
    from atb.cli.halt_here import clear_here
    from atb.ops import control

    def tell(status: AccountStatus, done: bool) -> str:
        name = status.account.name
        if not done:
            return f"{name} is not halted: there is nothing to resume."
        again = f"Entries of {name} go on. It was halted: {status.halt_reason}."
        if status.drawdown_frac is None:
            return again
        equity = f"{status.equity:,.2f} {status.account.quote}"
        return f"{again} The drawdown of {status.drawdown_frac:.2%} is over: it begins anew at {equity}."

    clear_here(_controlled(control.resume, tell, reason, account, session_id))


def _controlled(
    work: Callable[..., bool], tell: Callable[[AccountStatus, bool], str], reason: str, account: str | None,
    session_id: str | None,
) -> str:  # fmt: skip
    """Returns the account's name."""
    from atb.core.errors import UsageError
    from atb.ops.control import account_meant

    if not reason.strip():
        raise UsageError("--reason is empty.", "Say why: it is stored, and shown by atb live status.")
    with open_line(open_app()) as line:
        status = line.surely(lambda connection: account_meant(connection, line.where.shown, account, session_id))
        done = work(line, status, reason=reason.strip(), by=typed_here())
    typer.echo(tell(status, done))
    return status.account.name


def set_stop(
    symbol: Annotated[str, typer.Option(help="BTCUSDT, BTC-USD or BTC/USDT.", metavar="SYMBOL")],
    price: Annotated[str, typer.Option(help="The stop, in quote.", metavar="PRICE")],
    account: AccountName = None,
) -> None:
    from atb.cli.console import warn
    from atb.core.types import symbol_for
    from atb.ledger.accounts import all_accounts
    from atb.ops import control
    from atb.ops.closing import find_position, open_positions, parse_amount
    from atb.ops.status import read_status
    from atb.venue.market_rules import rules_for

    asked, application = parse_amount(price, "--price"), open_app()
    with open_line(application) as line:
        connection, names = line.connection, _tradable(line.surely(read_status), account)
        held = [h for a in all_accounts(connection) if a.name in names for h in open_positions(connection, a)]
        connection.rollback()
        position = find_position(held, symbol.strip().upper(), account)
        venue = position.account.venue
        rules = rules_for(venue, symbol_for(venue, position.symbol), application.settings.market_rules)
        moved = control.set_stop(line, position, asked, rules, typed_here())
        now = line.surely(lambda c: control.account_meant(c, line.where.shown, position.account.name, None))
    if moved.stop != asked:
        warn(f"{asked:f} is between two ticks of {rules.tick:f}: rounded down to {moved.stop:f}.")
    typer.echo(_moved(position.symbol, now, moved))


def _tradable(statuses: Sequence[AccountStatus], account: str | None) -> set[str]:
    """The accounts that may be meant: rehearsals that have ended only by name."""
    return {each.account.name for each in statuses if each.is_current or each.account.name == account}


def _moved(symbol: str, status: AccountStatus, moved: Any) -> str:
    from atb.ops.status import RUNNING, text_of

    name, stop = status.account.name, text_of(moved.stop)
    if moved.stop == moved.before:
        return f"The stop of {symbol} ({name}) is at {stop} already."
    was = f"it was at {text_of(moved.before)}" if moved.before is not None else "it had none"
    if status.engine == RUNNING:
        then = f"Its engine ({status.standing.shown}) moves the order within one check interval."
    else:
        then = "No engine runs: the order is moved at the next start."
    return f"The stop of {symbol} ({name}) belongs at {stop} now; {was}. {then}"
