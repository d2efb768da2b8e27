"""`atb db close-position`, `emergency-close-all` and `import-trades`: what an operator closes, or did by hand."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atb.cli.changing import confirm, open_line, typed_here
from atb.cli.console import open_app, warn
from atb.cli.lean import LeanCommand

if TYPE_CHECKING:
    from atb.core.errors import AtbError
    from atb.ledger.accounts import AccountRow
    from atb.ops.closing import Closed, Held

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AccountName = Annotated[str | None, typer.Option(help="Account, where more than one could be meant.")]
FeeBps = Annotated[str, typer.Option(help="Fee in hundredths of a percent of the value.", metavar="NUMBER")]


def register(app: typer.Typer) -> None:
    app.command(
        "close-position",
        cls=LeanCommand,
        help="Record an exit that was made by hand. It is provisional: the exchange's own fill replaces it when it "
        "is seen. Nothing is sent to the exchange.\n\n\b\n"
        'Example:\n  atb db close-position --symbol BTCUSDT --exit-price 50000 --exit-reason "manual_close"',
    )(close_position)
    app.command(
        "emergency-close-all",
        cls=LeanCommand,
        help="Halt and fence the account of a session, then close all that it holds.\n\n"
        "Paper accounts close at their last mark. For real money this version sends nothing: close at the exchange, "
        "then --record-only. Exit code 0 only when nothing is left open.\n\n\b\n"
        "Examples:\n  atb db emergency-close-all --session-id 7 --dry-run\n"
        '  atb db emergency-close-all --session-id $(atb db query "SELECT id FROM trading_sessions\n'
        '    ORDER BY start_time DESC LIMIT 1;")\n'
        "  atb db emergency-close-all --session-id 7 --record-only --exit-price BTCUSDT=50000",
    )(emergency_close_all)
    app.command(
        "import-trades",
        cls=LeanCommand,
        help="Book executions from a CSV file: time, symbol, side, qty, price, trade_id and, where known, fee and "
        "fee_asset. Those that are booked already are left out.\n\n\b\n"
        "Example:\n  atb db import-trades fills.csv --account binance-main",
    )(import_trades)


def close_position(
    symbol: Annotated[str, typer.Option(help="BTCUSDT, BTC-USD or BTC/USDT.")],
    exit_price: Annotated[str, typer.Option(help="Price in quote.", metavar="PRICE")],
    exit_reason: Annotated[str, typer.Option(help="Why.")] = "manual_close",
    quantity: Annotated[str | None, typer.Option(help="Base quantity. [default: all]", metavar="QTY")] = None,
    account: AccountName = None,
    evidence: Annotated[str | None, typer.Option(help="How it is known. [default: who typed this]")] = None,
    another: Annotated[
        bool, typer.Option("--another", help="This exit is none of those that the exchange told of already.")
    ] = False,
    fee_bps: FeeBps = "10",
    json: Json = False,
) -> None:
    from atb.ops.closing import find_position, open_positions, parse_amount, record_exit

    with open_line(open_app()) as line:
        held = find_position(_all_positions(line.connection, open_positions), symbol.strip().upper(), account)
        receipt = record_exit(
            line, held, price=parse_amount(exit_price, "--exit-price"),
            quantity=None if quantity is None else parse_amount(quantity, "--quantity"),
            reason=_reason(exit_reason), evidence=evidence or typed_here(), another=another,
            fee_bps=_fee(fee_bps),
        )  # fmt: skip
    _print_receipt([receipt], [], json)
    if quantity is None and receipt.left:
        warn(f"{receipt.left:f} {receipt.symbol} is held still: it was entered while this was booked.")


def emergency_close_all(
    session_id: Annotated[str, typer.Option(help="Session whose account is closed.", metavar="N")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Close every other real account, too.")] = False,
    record_only: Annotated[
        bool, typer.Option("--record-only", help="Book what was closed by hand; send nothing.")
    ] = False,
    exit_price: Annotated[
        list[str] | None, typer.Option(help="With --record-only: PRICE or SYMBOL=PRICE.", metavar="[SYMBOL=]PRICE")
    ] = None,
    exit_reason: Annotated[str, typer.Option(help="Why.")] = "emergency_close",
    fee_bps: FeeBps = "10",
    json: Json = False,
) -> None:
    from atb.core.errors import UsageError
    from atb.ops.closing import fence_and_halt, working_orders
    from atb.ops.emergency import account_of, check_prices, close_accounts, closer_for, concerned, plan_lines

    if exit_price and not record_only:
        raise UsageError("--exit-price says what was closed by hand.", "Add --record-only.")
    why: dict[str, Any] = {"reason": _reason(exit_reason), "evidence": typed_here()}
    closer, fee = closer_for(record_only, exit_price or []), _fee(fee_bps)
    with open_line(open_app()) as line:
        named = account_of(line.connection, session_id, line.where.shown)
        asks = sys.stdin.isatty() and sys.stderr.isatty()
        fenced: dict[AccountRow, int] = {}
        if not dry_run and not asks:  # it was typed: nothing that is read below may keep the engine trading
            fenced[named] = fence_and_halt(line, named, **why)
        accounts = concerned(line.connection, named, everything)
        plans = plan_lines(line.connection, accounts)
        if dry_run:
            _print_plan(plans, json)
            check_prices(line.connection, accounts, closer)
            return
        if plans and asks:
            _print_plan(plans, False)
            confirm("Close all of this?")
        closed, left, failures = close_accounts(line, accounts, closer, fee_bps=fee, fenced=fenced, **why)
        orders = [(a.name, name) for a in accounts for name, _, _ in working_orders(line.connection, a)]
    _print_receipt(closed, left, json)
    if failures:
        raise failures[0]
    _refuse_working(orders)


def _refuse_working(orders: list[tuple[str, str]]) -> None:
    """An order that still works may open what was closed."""
    from atb.core.errors import ExchangeUnavailable

    if orders:
        raise ExchangeUnavailable(
            f"{len(orders)} orders of {orders[0][0]} may still work at the exchange ({orders[0][1]}): nothing was sent.",
            "Cancel them at the exchange, then run this again with --record-only.",
        )


def import_trades(
    file: Annotated[Path, typer.Argument(help="CSV file with a header.")],
    account: AccountName = None,
    json: Json = False,
) -> None:
    from atb.cli.console import print_json
    from atb.ops.importing_trades import import_file

    with open_line(open_app()) as line:
        done = import_file(line, file, account)
    if json:
        print_json({"booked": done.booked, "already_booked": done.known, "short": done.short})
    else:
        typer.echo(f"Booked {done.booked}; {done.known} were booked already.")
    if done.short:
        warn(f"More {done.short[0]} was sold than bought: purchases are missing. Import them, too: atb db positions")


def _all_positions(connection: Any, positions_of: Any) -> list[Held]:
    from atb.ledger.accounts import all_accounts

    return [held for account in all_accounts(connection) for held in positions_of(connection, account)]


def _reason(text: str) -> str:
    from atb.core.errors import UsageError

    if not text.strip():
        raise UsageError("--exit-reason is empty.", "Say why, such as manual_close.")
    return text.strip()


def _fee(text: str) -> Decimal:
    from atb.core.errors import UsageError
    from atb.ops.closing import parse_amount

    fee = parse_amount(text, "--fee-bps")
    if not 0 <= fee < 10_000:
        raise UsageError(f"--fee-bps {text} is no fee.", "It must be from 0 to less than 10000.")
    return fee


def _print_plan(plans: list[dict[str, Any]], json: bool) -> None:
    from atb.cli.console import print_json, print_table

    if json:
        print_json(plans)
    elif plans:
        print_table(list(plans[0]), [[str(value) for value in plan.values()] for plan in plans])
    else:
        typer.echo("Nothing is open.", err=True)


def _print_receipt(closed: list[Closed], left: list[tuple[Held, AtbError]], json: bool) -> None:
    """What was done, and then an exit code that tells whether anything is left open."""
    from atb.cli.console import print_json, print_table
    from atb.core.errors import Disagreement, ExchangeUnavailable, Fenced

    rows: list[dict[str, str]] = [
        {
            "account": c.account, "symbol": c.symbol, "qty": f"{c.qty:f}", "price": f"{c.price:f}", "fee": f"{c.fee:f}",
            "pnl": "" if c.pnl is None else f"{c.pnl.normalize():f}", "left": f"{c.left:f}", "how": c.how,
        }
        for c in closed
    ]  # fmt: skip
    if json:
        open_ = [
            {"account": h.account.name, "symbol": h.symbol, "qty": f"{h.size:f}", "why": why.what} for h, why in left
        ]
        print_json({"closed": rows, "left_open": open_})
    elif rows:
        print_table(list(rows[0]), [list(row.values()) for row in rows])
    elif not left:
        typer.echo("Nothing was open.", err=True)
    if left:
        held, why = left[0]
        more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        what = f"{held.size:f} {held.symbol} of {held.account.name} is still open{more}: {why.what}"
        if isinstance(why, Fenced):  # such as the same command, typed twice: that one closes
            raise Fenced(what, "See who has it: atb db positions, atb db events")
        error = ExchangeUnavailable if held.account.environment != "paper" else Disagreement
        raise error(what, _next(held))


def _next(held: Held) -> str:
    if held.account.environment == "paper":
        return "See: atb db positions, then run this again."
    session = "N" if held.session_id is None else held.session_id  # of an import, say
    return (
        f"Close it at the exchange, then: atb db emergency-close-all --session-id {session} --record-only "
        f"--exit-price {held.symbol}=PRICE"
    )
