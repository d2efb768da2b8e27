"""Whom an emergency close concerns, and its one procedure over all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from atb.core.errors import AtbError, DatabaseError, Disagreement, UsageError
from atb.core.keys import account_identity
from atb.ledger.accounts import AccountRow, all_accounts
from atb.ledger.lease import read_standing, release
from atb.ledger.line import Line
from atb.ops.closing import (
    AtLastMark,
    Closer,
    Held,
    RecordOnly,
    close_all,
    fence_and_halt,
    open_positions,
    parse_prices,
    working_orders,
)
from atb.ops.status import read_status

if TYPE_CHECKING:
    from psycopg import Connection

    from atb.ops.closing_at_exchange import Desk
    from atb.ops.receipt import Receipt

SHOWN = 5  # accounts that a message names
LATEST = "The latest: atb db sessions"


def account_of(connection: Connection[Any], session_id: str, shown: str) -> AccountRow:
    """The account of a session. A UsageError for what is no session's number: empty where a sub-command failed.

    `shown`: the database that was asked, for whoever meant another.
    """
    check_session(session_id)
    text = session_id.strip()
    row = connection.execute("SELECT account_id FROM trading_sessions WHERE id = %s", (int(text),)).fetchone()
    if row is None:
        raise UsageError(
            f"There is no session {text} in {shown}.", f"{LATEST}. If another database was meant: DATABASE_URL"
        )
    return next(account for account in all_accounts(connection) if account.id == row[0])


def check_session(session_id: str | None) -> None:
    """A UsageError for what is no session's number: empty where a sub-command failed."""
    text = None if session_id is None else session_id.strip()
    if text == "":
        raise UsageError(
            "--session-id is empty: did the command that should have told it fail?",
            f"{LATEST}. To close every account, also while the database is out: atb db emergency-close-all",
        )
    if text is not None and (not text.isascii() or not text.isdigit() or len(text) > 18):
        raise UsageError(f"--session-id '{text}' is no number of a session.", LATEST)


def concerned(
    connection: Connection[Any], account: AccountRow | None, everything: bool, keyed: Collection[str] = ()
) -> list[AccountRow]:
    """The session's account, and with `everything` each other real one that has something open. Of no session: all that have
    something open, all that somebody holds, and those whose keys are set (`keyed`: their names).

    Without `everything`, another real one is a Disagreement: whoever closes all of one account must not believe that to be all.
    """
    if account is None:
        current = [status for status in read_status(connection) if status.is_current]
        found = [
            s.account
            for s in current
            if s.standing.holder or s.account.name in keyed or _is_open(connection, s.account)
        ]
        connection.rollback()
        return found
    others = [
        other
        for other in all_accounts(connection)
        if other.id != account.id and other.environment == "real" and _is_open(connection, other)
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


def _is_open(connection: Connection[Any], account: AccountRow) -> bool:
    return bool(open_positions(connection, account) or working_orders(connection, account))


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


class Stopped(NamedTuple):
    """An account that nobody but this process trades any more. others: somebody had it before.

    unfenced: why the ledger does not say so; then only this host knows of it.
    """

    epoch: int
    others: bool
    unfenced: DatabaseError | None = None


def stop_account(line: Line, account: AccountRow, desk: Desk, receipt: Receipt) -> Stopped:
    """Halt and fence, whoever trades it; engines of this host are ended. Where the database takes nothing, it is halted by the
    file HALT, which is enough for an account with real money to be closed."""
    from atb.ops.closing_at_exchange import end_engines, halt_here, halted_note

    real = account.environment != "paper"
    if real:
        receipt.notes.extend(halt_here(desk, account.name))
    try:
        stopped = _fenced(line, account, desk)
        receipt.notes.append(halted_note(account))
    except DatabaseError as error:
        if not real:
            raise
        desk.say(error.what)
        stopped = Stopped(0, others=True, unfenced=error)
    if real:
        receipt.notes.extend(end_engines(desk.home, account.name))
    return stopped


def _fenced(line: Line, account: AccountRow, desk: Desk) -> Stopped:
    seen = line.surely(lambda connection: read_standing(connection, account.id))
    return Stopped(fence_and_halt(line, account, reason=desk.reason, evidence=desk.by), bool(seen.holder))


def recorder_for(record_only: bool, exit_prices: Sequence[str]) -> Closer | None:
    """What books what was closed by hand; None where it is to be closed."""
    prices, only = parse_prices(exit_prices)
    return RecordOnly(prices, only) if record_only else None


def close_accounts(
    line: Line, accounts: Sequence[AccountRow], recorder: Closer | None, desk: Desk, *, fee_bps: Decimal,
    stopped: Mapping[AccountRow, Stopped], receipt: Receipt,
) -> None:  # fmt: skip
    """Stop all accounts first, then close them; one that cannot be closed does not keep the others open. `stopped`: those that
    are already.

    A UsageError for a price that is missing or for nothing: then nothing is closed, but everything is fenced and halted.
    """
    held = dict(stopped)
    for account in (each for each in accounts if each not in stopped):
        try:
            held[account] = stop_account(line, account, desk, receipt)
        except AtbError as error:
            receipt.failures.append(error)
    try:
        check_prices(line.connection, list(held), recorder)
    except UsageError as error:
        names = ", ".join(account.name for account in held)
        raise UsageError(
            f"{error.what} Nothing was closed; fenced and halted all the same: {names}.", error.hint
        ) from None
    for account in sorted(held, key=lambda each: each.environment == "paper"):  # money first
        _close(line, account, held[account], recorder, desk, fee_bps, receipt)


def _close(
    line: Line, account: AccountRow, stopped: Stopped, recorder: Closer | None, desk: Desk, fee_bps: Decimal, receipt: Receipt
) -> None:  # fmt: skip
    try:
        if recorder is None and account.environment != "paper":
            _sell(line, account, stopped, desk, receipt)
            return
        if stopped.unfenced is not None:
            raise stopped.unfenced
        done, undone = close_all(
            line, account, stopped.epoch, recorder or AtLastMark(), reason=desk.reason, evidence=desk.by, fee_bps=fee_bps
        )  # fmt: skip
        receipt.closed.extend(done)
        receipt.left.extend(undone)
        line.surely(lambda connection: release(connection, account.id, stopped.epoch))
    except AtbError as error:  # what was closed before is told all the same
        failed = not_closed(account, error)
        still = _still_open(line, account)
        receipt.left.extend((held, failed) for held in still)
        if not still:
            receipt.failures.append(failed)


def _sell(line: Line, account: AccountRow, stopped: Stopped, desk: Desk, receipt: Receipt) -> None:
    """By the ledger, and by what this host knows where that cannot be written, or read."""
    from atb.ops.closing_at_exchange import close_by_what_is_known, close_with_ledger

    why = stopped.unfenced
    if why is None:
        try:
            close_with_ledger(line, account, stopped.epoch, stopped.others, desk, receipt)
            return
        except DatabaseError as error:
            why = error
    close_by_what_is_known(account, why, desk, receipt)


def _still_open(line: Line, account: AccountRow) -> list[Held]:
    """By the ledger; nothing where it cannot be asked."""
    try:
        return line.surely(lambda connection: open_positions(connection, account))
    except DatabaseError:
        return []


def still_working(line: Line, accounts: Sequence[AccountRow], receipt: Receipt) -> list[tuple[str, str]]:
    """Account and client id of each order that may work still. Of what is flat the exchange said so, and the ledger may be told
    of it later."""
    asked = [account for account in accounts if account.name not in receipt.flat_after_s]

    def read(connection: Connection[Any]) -> list[tuple[str, str]]:
        return [(account.name, name) for account in asked for name, _, _ in working_orders(connection, account)]

    return line.surely(read)


def not_closed(account: AccountRow, error: AtbError) -> AtbError:
    """The same, with what it means."""
    what = f"{account.name} was halted, and could not be closed: {error.what}"
    return type(error)(
        f"{what} Stops that rest at the exchange go on." if isinstance(error, UsageError) else what, error.hint
    )


def check_prices(connection: Connection[Any], accounts: Sequence[AccountRow], recorder: Closer | None) -> None:
    """A UsageError unless what was given as closed by hand is what is held."""
    if isinstance(recorder, RecordOnly):
        recorder.check([h for account in accounts for h in open_positions(connection, account)])
        connection.rollback()


def key_is_of(account: AccountRow, identity: str) -> None:
    """A UsageError where the key that is set opens another account. identity: of the one that it opens."""
    mine = account_identity(account.venue, account.market, account.environment, account.key_identity)
    if mine != identity:
        raise UsageError(
            f"The key in the environment is that of {identity}, and {account.name} is {mine}.",
            f"Set the key of {mine} (and ATB_TESTNET as it was), or close it at the exchange and add --record-only.",
        )
