"""`atb db emergency-close-all`: everything is sold at the exchange, then booked. It needs no strategy, no model, no policy, and
where it must be no database."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atb.cli.changing import confirm, open_line, typed_here
from atb.cli.db_closing import Json, _fee, _print_receipt, _reason
from atb.cli.lean import LeanCommand

if TYPE_CHECKING:
    from atb.app import App
    from atb.core.errors import DatabaseError
    from atb.ledger.accounts import AccountRow
    from atb.ledger.line import Line
    from atb.ops.closing import Closer
    from atb.ops.closing_at_exchange import Desk
    from atb.ops.receipt import Receipt
    from atb.venue.broker import Broker

HELP = """Halt and fence an account, then sell all that it holds: at the exchange, and in the ledger.

Engines of this host are ended, those of others can write nothing any more. Working orders are cancelled, what is held is sold at
the market, and it is looked again until all is flat. Paper accounts close at their last mark. Without --session-id every
account is closed that has something open. What cannot be sold within a minute has its stop again. The account stays halted, also
where nothing was open, until: atb live resume. Run it again as often as you like. While the database is out or takes nothing,
it goes by what this host knows of the account. Exit code 0 only when nothing is left open.

\b
Examples:
  atb db emergency-close-all --session-id 7 --dry-run
  atb db emergency-close-all --session-id $(atb db query "SELECT id FROM trading_sessions
    ORDER BY start_time DESC LIMIT 1;")
  atb db emergency-close-all
  atb db emergency-close-all --session-id 7 --record-only --exit-price BTCUSDT=50000
"""


def register(app: typer.Typer) -> None:
    app.command("emergency-close-all", cls=LeanCommand, help=HELP)(emergency_close_all)


def emergency_close_all(
    session_id: Annotated[
        str | None, typer.Option(help="Session whose account is closed. [default: all accounts]", metavar="N")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="With --session-id: every other real account, too.")
    ] = False,
    record_only: Annotated[
        bool, typer.Option("--record-only", help="Book what was closed by hand; send nothing.")
    ] = False,
    exit_price: Annotated[
        list[str] | None, typer.Option(help="With --record-only: PRICE or SYMBOL=PRICE.", metavar="[SYMBOL=]PRICE")
    ] = None,
    exit_reason: Annotated[str, typer.Option(help="Why; it is stored.")] = "emergency_close",
    fee_bps: Annotated[
        str,
        typer.Option(
            help="Fee of what is booked on paper or by --record-only; an exchange tells its own.", metavar="NUMBER"
        ),
    ] = "10",
    json: Json = False,
) -> None:
    from atb.core.errors import DatabaseError, UsageError
    from atb.ops.emergency import check_session, recorder_for
    from atb.ops.receipt import Receipt

    if exit_price and not record_only:
        raise UsageError("--exit-price says what was closed by hand.", "Add --record-only.")
    if record_only and session_id is None:
        raise UsageError("--record-only books what was closed by hand of one account.", "Say which: --session-id N")
    check_session(session_id)
    application, recorder, fee = _open(), recorder_for(record_only, exit_price or []), _fee(fee_bps)
    desk, receipt = _desk(application, _reason(exit_reason)), Receipt.empty()
    try:
        orders = _with_ledger(application, session_id, dry_run, everything, recorder, fee, desk, receipt, json)
    except DatabaseError as error:
        if record_only and receipt.is_empty:
            raise
        if receipt.is_empty:
            orders = _without_ledger(session_id, dry_run, error, desk, receipt, json)
        else:  # what was done is told all the same
            receipt.failures.append(error)
            orders = []
    if orders is not None:
        _print(receipt, orders, json)


def _open() -> App:
    """With what of the settings can be read: nothing that is wrong with the rest may keep anybody from this."""
    from atb.app import App
    from atb.cli.console import warn
    from atb.settings import load_settings

    application = App(load_settings(forgiving=True))
    for text in application.settings.notes:
        warn(text)
    return application


def _desk(application: App, reason: str) -> Desk:
    from atb.ops.closing_at_exchange import Desk
    from atb.ops.emergency import key_is_of

    def broker(account: AccountRow) -> Broker:
        application.settings.check_venue(account.venue)
        application.settings.key(account.venue)
        key_is_of(account, application.account_identity(account.venue, account.market))
        return application.broker(account.venue, ())

    return Desk(application.settings.home, broker, lambda text: typer.echo(text, err=True), reason, typed_here())


def _with_ledger(
    application: App, session_id: str | None, dry_run: bool, everything: bool, recorder: Closer | None, fee: Any,
    desk: Desk, receipt: Receipt, json: bool,
) -> list[tuple[str, str]] | None:  # fmt: skip
    """Accounts and client ids of orders that may work still; None where nothing was to be done."""
    from atb.ops.emergency import (
        Stopped,
        account_of,
        check_prices,
        close_accounts,
        concerned,
        plan_lines,
        still_working,
        stop_account,
    )

    with _line(application) as line:
        named = account_of(line.connection, session_id, line.where.shown) if session_id is not None else None
        line.connection.rollback()
        stopped: dict[AccountRow, Stopped] = {}
        if (
            named is not None and not dry_run and not _asks()
        ):  # it was typed: nothing that is read below may keep it trading
            stopped[named] = stop_account(line, named, desk, receipt)
        accounts = concerned(line.connection, named, everything, _keyed(application))
        plans = plan_lines(line.connection, accounts)
        if dry_run:
            _print_plan(plans, json)
            check_prices(line.connection, accounts, recorder)
            return None
        if plans and _asks():
            _print_plan(plans, False)
            confirm("Close all of this?")
        close_accounts(line, accounts, recorder, desk, fee_bps=fee, stopped=stopped, receipt=receipt)
        return still_working(line, accounts, receipt)


def _line(application: App) -> Line:
    """Where the settings name no database, or not the one that is meant, there is none as far as this is concerned."""
    from atb.core.errors import DatabaseError, UsageError

    class NotMeant(DatabaseError):
        exit_code = UsageError.exit_code

    try:
        return open_line(application)
    except UsageError as error:
        raise NotMeant(error.what, error.hint) from None


def _without_ledger(
    session_id: str | None, dry_run: bool, why: DatabaseError, desk: Desk, receipt: Receipt, json: bool
) -> list[tuple[str, str]] | None:
    from atb.core.errors import AtbError
    from atb.ops.closing_at_exchange import close_without_ledger, known_here, plan_here
    from atb.ops.emergency import not_closed

    typer.echo(why.what, err=True)
    accounts = known_here(desk, session_id, why, dry_run)
    plans = [line for known in accounts for line in plan_here(known)]
    if dry_run:
        _print_plan(plans, json)
        return None
    if plans and _asks():
        _print_plan(plans, False)
        confirm("Close all of this?")
    for known in accounts:
        try:
            close_without_ledger(known, why, desk, receipt)
        except AtbError as error:
            receipt.failures.append(not_closed(known.account, error))
    return []


def _keyed(application: App) -> list[str]:
    """The names of the accounts that the keys open."""
    return [application.account_identity(venue) for venue in application.settings.keys]


def _asks() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _print_plan(plans: list[dict[str, Any]], json: bool) -> None:
    from atb.cli.console import print_rows

    print_rows(plans, json, "Nothing is open.")


def _print(receipt: Receipt, orders: list[tuple[str, str]], json: bool) -> None:
    """The receipt, and then the exit code of the first thing that was not done."""
    for text in [*receipt.notes, *_told(receipt)]:
        typer.echo(text, err=True)
    more = {
        "dust": [{"account": name, "asset": asset, "qty": f"{qty:f}"} for name, asset, qty in receipt.dust],
        "cancelled": [{"account": account, "order": name} for account, name in receipt.cancelled],
        "flat_after_s": {name: round(seconds, 3) for name, seconds in receipt.flat_after_s.items()},
        "notes": receipt.notes, "failed": [error.what for error in receipt.failures],
    }  # fmt: skip
    _print_receipt(receipt.closed, receipt.left, json, more)
    if receipt.failures:
        raise receipt.failures[0]
    _refuse_working(orders)


def _told(receipt: Receipt) -> list[str]:
    dust = [
        f"{qty.normalize():f} {asset} of {name} is dust, too little to be sold." for name, asset, qty in receipt.dust
    ]
    cancelled = [f"{account}: {name} was cancelled." for account, name in receipt.cancelled]
    return [*cancelled, *dust]


def _refuse_working(orders: list[tuple[str, str]]) -> None:
    """An order that still works may open what was closed."""
    from atb.core.errors import ExchangeUnavailable

    if orders:
        raise ExchangeUnavailable(
            f"{len(orders)} orders of {orders[0][0]} may still work at the exchange ({orders[0][1]}).",
            "Run this again. Or cancel them at the exchange, then add --record-only.",
        )
