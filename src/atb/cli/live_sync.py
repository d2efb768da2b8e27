"""`atb live sync-balance`: the ledger against the exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from atb.cli.changing import open_line, typed_here
from atb.cli.console import open_app
from atb.cli.lean import LeanCommand

if TYPE_CHECKING:
    from atb.app import App
    from atb.core.errors import AtbError
    from atb.ops.syncing import Synced

HELP = """What the exchange says of an account against what its ledger says: balances, executions, orders, transfers.

It shows what a start would book, and what nothing explains. --accept books the latter as a correction, with your reason.
No engine is fenced by it. Exit code 0: both are the same; 7: they are not. Paper accounts have no other side: 0.

\b
Examples:
  atb live sync-balance --provider binance
  atb live sync-balance --provider binance --accept --reason "sent to the cold wallet"
"""


def register(app: typer.Typer) -> None:
    app.command("sync-balance", cls=LeanCommand, help=HELP)(sync_balance)


def sync_balance(
    provider: Annotated[str, typer.Option(help="binance or coinbase.", metavar="NAME")],
    accept: Annotated[bool, typer.Option("--accept", help="Book what nothing explains.")] = False,
    reason: Annotated[str | None, typer.Option(help="With --accept: why; it is stored.", metavar="TEXT")] = None,
    account: Annotated[str | None, typer.Option(help="Account. [default: that of the key]", metavar="NAME")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    import time

    from atb.ops.status import read_status
    from atb.ops.syncing import account_at, sync

    venue, why = _checked(provider, accept, reason)
    application = open_app()
    with open_line(application) as line:
        statuses = line.surely(read_status)
        status = account_at(statuses, venue, account, _identity(application, venue))
        if status.account.environment == "paper":
            _say_paper(status.account.name, json)
            return
        by = typed_here()
        synced = sync(line, status, lambda symbols: application.broker(venue, symbols), why, by, time.sleep)
    _print(synced, json)
    if not synced.equal:
        raise _differs(synced, venue)


def _checked(provider: str, accept: bool, reason: str | None) -> tuple[str, str | None]:
    """The venue, and why what differs is accepted; None: it is not."""
    from atb.core.errors import UsageError, nearest
    from atb.settings import VENUES

    venue = provider.strip().lower()
    if venue not in VENUES:
        raise UsageError(
            f"'{provider}' is no exchange whose balances could be asked for.", nearest(venue, list(VENUES))
        )
    if reason is not None and not accept:
        raise UsageError("--reason says why a difference is accepted.", "Add --accept.")
    if accept and not (reason or "").strip():
        raise UsageError("--accept books a correction: it needs a reason, which is stored.", "Add --reason TEXT.")
    return venue, reason.strip() if reason else None


def _identity(application: App, venue: str) -> str:
    """Of the key that is set; empty where none is."""
    return application.account_identity(venue) if venue in application.settings.keys else ""


def _say_paper(name: str, json: bool) -> None:
    from atb.cli.console import print_json

    if json:
        print_json({"account": name, "mode": "paper", "equal": True, "lines": []})
    else:
        typer.echo(f"{name} is a paper account: its ledger is all there is, so there is nothing to compare it with.")


def _print(synced: Synced, json: bool) -> None:
    from atb.cli.console import print_json
    from atb.cli.verdict import print_verdict, verdict_rows

    account = synced.account
    if json:
        told = {"account": account.name, "mode": account.environment, "equal": synced.equal, "written": synced.written}
        print_json(told | {"lines": verdict_rows(synced.verdict)})
        return
    print_verdict(synced.verdict)
    if synced.written:
        typer.echo(f'Booked: {synced.written} entries. See: atb db query "SELECT * FROM adjustments"', err=True)
    if synced.equal and not synced.written:
        typer.echo(f"{account.name}: the ledger and {account.venue} agree.", err=True)


def _differs(synced: Synced, venue: str) -> AtbError:
    from atb.core.errors import Disagreement

    command = f'atb live sync-balance --provider {venue} --accept --reason "..."'
    if synced.verdict.unexplained:
        return synced.verdict.refusal(command)
    what = f"{synced.account.name}: the exchange tells of what is not in the ledger yet."
    if synced.running:
        return Disagreement(what, "The engine that runs books it within a cycle.")
    return Disagreement(what, f"The next start books it. Or now: {command}")
