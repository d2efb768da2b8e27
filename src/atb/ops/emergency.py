"""Whom an emergency close concerns, and its one procedure over all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from atb.core.errors import AtbError, Disagreement, UsageError
from atb.ledger.accounts import AccountRow, all_accounts
from atb.ledger.line import Line
from atb.ops.closing import (
    AtLastMark,
    Closed,
    Closer,
    Held,
    NothingIsSent,
    RecordOnly,
    close_all,
    fence_and_halt,
    open_positions,
    parse_prices,
    working_orders,
)

if TYPE_CHECKING:
    from psycopg import Connection

SHOWN = 5  # accounts that a message names
LATEST = "The latest: atb db sessions"


def account_of(connection: Connection[Any], session_id: str, shown: str) -> AccountRow:
    """The account of a session. A UsageError for what is no session's number: empty where a sub-command failed.

    `shown`: the database that was asked, for whoever meant another.
    """
    text = session_id.strip()
    if not text:
        raise UsageError("--session-id is empty: did the command that should have told it fail?", LATEST)
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise UsageError(f"--session-id '{text}' is no number of a session.", LATEST)
    row = connection.execute("SELECT account_id FROM trading_sessions WHERE id = %s", (int(text),)).fetchone()
    if row is None:
        raise UsageError(
            f"There is no session {text} in {shown}.", f"{LATEST}. If another database was meant: DATABASE_URL"
        )
    return next(account for account in all_accounts(connection) if account.id == row[0])


def concerned(connection: Connection[Any], account: AccountRow, everything: bool) -> list[AccountRow]:
    """The session's account, and with `everything` each other real one that has something open.

    Without it, such another is a Disagreement: whoever closes all of one account must not believe that to be all.
    """
    others = [
        other
        for other in all_accounts(connection)
        if other.id != account.id
        and other.environment == "real"
        and (open_positions(connection, other) or working_orders(connection, other))
    ]
    connection.rollback()
    if others and not everything:
        names = "; ".join(f"{other.name}: {_open_text(connection, other)}" for other in others[:SHOWN])
        names += f"; and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        raise Disagreement(
            f"Another real account has positions or orders ({names}). Nothing was closed.",
            "Add --all to close these, too, or close one after the other with its own --session-id.",
        )
    return [account, *others]


def _open_text(connection: Connection[Any], account: AccountRow) -> str:
    held = [f"{h.size:f} {h.symbol}" for h in open_positions(connection, account)]
    orders = len(working_orders(connection, account))
    connection.rollback()
    return ", ".join(held + ([f"{orders} orders"] if orders else []))


def plan_lines(connection: Connection[Any], accounts: Sequence[AccountRow]) -> list[dict[str, Any]]:
    """What would be closed and cancelled, a line each."""
    lines: list[dict[str, Any]] = []
    for account in accounts:
        lines += [
            _line(account, "close", h.symbol, f"{h.size:f}", f"{h.current_price:f}")
            for h in open_positions(connection, account)
        ]
        orders = working_orders(connection, account)
        lines += [_line(account, f"cancel {name} ({state})", symbol) for name, symbol, state in orders]
    connection.rollback()
    return lines


def _line(account: AccountRow, what: str, symbol: str, qty: str = "", last_mark: str = "") -> dict[str, Any]:
    return {"account": account.name, "what": what, "symbol": symbol, "qty": qty, "last_mark": last_mark}


def closer_for(record_only: bool, exit_prices: Sequence[str]) -> Callable[[AccountRow], Closer]:
    """How each account's positions are closed."""
    prices, only = parse_prices(exit_prices)

    def closer(account: AccountRow) -> Closer:
        if record_only:
            return RecordOnly(prices, only)
        return AtLastMark() if account.environment == "paper" else NothingIsSent()

    return closer


def close_accounts(
    line: Line, accounts: Sequence[AccountRow], closer: Callable[[AccountRow], Closer], *, reason: str,
    evidence: str, fee_bps: Decimal, fenced: Mapping[AccountRow, int],
) -> tuple[list[Closed], list[tuple[Held, AtbError]], list[AtbError]]:  # fmt: skip
    """Fence and halt all accounts first, then close them; one that cannot be closed does not keep the others open.
    `fenced`: the epochs of those that are fenced and halted already.

    Returns what was closed, what is held all the same and why, and what went wrong with whole accounts. A UsageError
    for a price that is missing or for nothing: then nothing is closed, but everything is fenced and halted.
    """
    import psycopg

    from atb.ledger.connect import explained

    failures: list[AtbError] = []
    epochs = dict(fenced)
    for account in (each for each in accounts if each not in fenced):
        try:
            epochs[account] = fence_and_halt(line, account, reason=reason, evidence=evidence)
        except AtbError as error:
            line.connection.rollback()
            failures.append(error)
    try:
        check_prices(line.connection, list(epochs), closer)
    except UsageError as error:
        names = ", ".join(account.name for account in epochs)
        raise UsageError(
            f"{error.what} Nothing was closed; fenced and halted all the same: {names}.", error.hint
        ) from None
    closed: list[Closed] = []
    left: list[tuple[Held, AtbError]] = []
    for account, epoch in epochs.items():
        try:
            done, undone = close_all(
                line, account, epoch, closer(account), reason=reason, evidence=evidence, fee_bps=fee_bps
            )
        except psycopg.Error as error:  # what was closed before is told all the same
            failures.append(explained(error, line.where))
            continue
        closed += done
        left += undone
    return closed, left, failures


def check_prices(
    connection: Connection[Any], accounts: Sequence[AccountRow], closer: Callable[[AccountRow], Closer]
) -> None:
    """A UsageError unless what was given as closed by hand is what is held."""
    held = [h for account in accounts for h in open_positions(connection, account)]
    connection.rollback()
    for recorder in map(closer, accounts):
        if isinstance(recorder, RecordOnly):
            recorder.check(held)
