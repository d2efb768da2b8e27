"""`atb db close-position` and `import-trades`: what an operator did by hand."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atb.cli.changing import open_line, typed_here
from atb.cli.console import open_app, warn
from atb.cli.lean import LeanCommand

if TYPE_CHECKING:
    from atb.core.errors import AtbError
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


def _print_receipt(
    closed: list[Closed], left: list[tuple[Held, AtbError]], json: bool, more: dict[str, Any] | None = None
) -> None:
    """What was done, and then an exit code that tells whether anything is left open. more: for programs."""
    from atb.cli.console import print_json, print_rows
    from atb.core.errors import Fenced

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
        print_json({"closed": rows, "left_open": open_, **(more or {})})
    elif rows:
        print_rows(rows)
    elif not left and not (more or {}).get("failed"):
        typer.echo("Nothing was open.", err=True)
    if left:
        held, why = left[0]
        others = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        what = f"{held.size:f} {held.symbol} of {held.account.name} is still open{others}: {why.what}"
        if isinstance(why, Fenced):  # such as the same command, typed twice: that one closes
            raise Fenced(what, "See who has it: atb db positions, atb db events")
        raise type(why)(what, f"{why.hint} {_next(held)}".strip())


def _next(held: Held) -> str:
    if held.account.environment == "paper":
        return "See: atb db positions, then run this again."
    session = "N" if held.session_id is None else held.session_id  # of an import, say
    return (
        f"Run this again. Or close it at the exchange, then: atb db emergency-close-all --session-id {session} "
        f"--record-only --exit-price {held.symbol}=PRICE"
    )
