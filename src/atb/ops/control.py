"""What an operator tells an account beside its engine: halt, resume, a tighter stop.

Each is an entry at the epoch that counts now, so no engine is fenced; one that runs folds it within a check interval, one that
starts later, then. A halt counts at once: it is read in the transaction that commits an entry intent.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from atb.core.errors import UsageError, nearest
from atb.core.money import floor_to
from atb.core.types import MarketRules
from atb.ledger.accounts import AccountRow
from atb.ledger.entries import Entry
from atb.ledger.fold import OPERATOR
from atb.ledger.line import Line
from atb.ops.closing import Held
from atb.ops.emergency import account_of
from atb.ops.status import AccountStatus, read_status

if TYPE_CHECKING:
    from psycopg import Connection


class Moved(NamedTuple):
    """A stop. before: None where there was none; it is where it was if `stop` is the same."""

    stop: Decimal
    before: Decimal | None


def account_meant(connection: Connection[Any], shown: str, name: str | None, session_id: str | None) -> AccountStatus:
    """The account that is named, that of a session, or the only one. A UsageError lists them where it could be any."""
    if name is not None and session_id is not None:
        raise UsageError("--account and --session-id both say which account is meant.", "Give one of them.")
    statuses = read_status(connection)
    if session_id is not None:
        name = account_of(connection, session_id, shown).name
        connection.rollback()
    if name is None:
        return _only(statuses, shown)
    found = next((status for status in statuses if status.account.name == name), None)
    if found is None:
        known = [status.account.name for status in statuses]
        raise UsageError(f"There is no account {name} in {shown}.", nearest(name, known) if known else "")
    return found


def _only(statuses: list[AccountStatus], shown: str) -> AccountStatus:
    current = [status for status in statuses if status.is_current]
    if len(current) == 1:
        return current[0]
    if not current:
        raise UsageError(f"Nothing is traded in {shown}.", "If another database was meant: DATABASE_URL")
    names = "; ".join(f"{s.account.name} ({s.account.environment}, engine: {s.engine})" for s in current)
    raise UsageError(f"More than one account could be meant: {names}.", "Say which: --account NAME")


def halt(line: Line, status: AccountStatus, *, reason: str, by: str) -> bool:
    """No entries from here on, until a resume. False where the account was halted already: nothing is written then."""
    if status.halted:
        return False
    _control(line, status.account, "halt", reason, by)
    return True


def resume(line: Line, status: AccountStatus, *, reason: str, by: str) -> bool:
    """Entries again, and a drawdown that begins anew. False where the account was not halted: nothing is written then."""
    if not status.halted:
        return False
    _control(line, status.account, "resume", reason, by)
    return True


def _control(line: Line, account: AccountRow, action: str, reason: str, by: str) -> None:
    body = {"action": action, "reason": reason, "by": by}
    entry = Entry(f"{action}:{uuid.uuid4().hex}", "control", datetime.now(UTC), body)
    line.append_beside(account.id, [entry])


def set_stop(line: Line, held: Held, price: Decimal, rules: MarketRules, by: str) -> Moved:
    """A tighter stop for a long position, on the tick. A UsageError for what would not protect it better."""
    stop = floor_to(price, rules.tick) if rules.source != "assumed" else price  # never nearer than was asked for
    before, take = _levels(line, held)
    _check_stop(held, price, stop, before)
    if stop != before:
        body = {
            "symbol": held.symbol, "market": held.market, "stop": stop, "take": take, "by": OPERATOR, "evidence": by,
        }  # fmt: skip
        name = f"level:{held.symbol}:{OPERATOR}:{uuid.uuid4().hex}"
        line.append_beside(held.account.id, [Entry(name, "level", datetime.now(UTC), body, held.session_id)])
    return Moved(stop, before)


def _levels(line: Line, held: Held) -> tuple[Decimal | None, Decimal | None]:
    def work(connection: Connection[Any]) -> tuple[Decimal | None, Decimal | None]:
        row = connection.execute(
            "SELECT stop_loss, take_profit FROM positions WHERE account_id = %s AND market = %s AND symbol = %s "
            "AND status = 'OPEN'",
            (held.account.id, held.market, held.symbol),
        ).fetchone()
        connection.rollback()
        if row is None:
            raise UsageError(f"{held.symbol} is not held any more.", "See: atb db trades")
        return row[0], row[1]

    return line.surely(work)


def _check_stop(held: Held, price: Decimal, stop: Decimal, before: Decimal | None) -> None:
    if held.side != "LONG":
        raise UsageError(f"{held.symbol} is held short: set-stop is for long positions.")
    if stop <= 0:
        raise UsageError(f"--price {price:f} is no price for a stop.", "It must be above 0, and on the tick.")
    if stop >= held.current_price:
        raise UsageError(
            f"A stop at {stop.normalize():f} is not below the last mark of {held.symbol}, "
            f"{held.current_price.normalize():f}: it would sell at once.",
            "Choose a lower one.",
        )
    if before is not None and stop < before:
        raise UsageError(
            f"The stop of {held.symbol} is at {before.normalize():f}; {stop.normalize():f} is looser: nothing was changed.",
            f"Choose one above {before.normalize():f}.",
        )
