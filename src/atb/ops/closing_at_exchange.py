"""Accounts with real money are closed at their exchange, then in the ledger; without a database by what this host knows.

Whoever trades the account is stopped first: the file HALT for the engines of this host, a higher epoch for those of any host,
and those that run here are ended. What was signed before that is waited out.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from atb.core.errors import DatabaseError, DatabaseUnavailable, UsageError
from atb.execution import halt_file
from atb.execution.account_file import AccountFile, Known, known
from atb.execution.closing import Closing
from atb.execution.closing_executor import ClosingExecutor, executor_of, executor_over
from atb.execution.engines import end_all, living
from atb.execution.executor import Event
from atb.execution.spool import Spool
from atb.execution.spooling_journal import PATIENCE_S, SpoolingJournal
from atb.ledger.accounts import AccountRow
from atb.ledger.entries import Chained, Entry
from atb.ledger.lease import release, renew
from atb.ops.receipt import Receipt, add
from atb.venue.broker import Broker

if TYPE_CHECKING:
    from psycopg import Connection

    from atb.ledger.line import Line

T = TypeVar("T")
GRACE_S = 1.0  # for an engine's cycle: it can write nothing any more, and killing it is safe
LEASE_S = 60.0
QUIET = ("debug", "info")
PNL = "SELECT market, symbol, sum(pnl) FROM trades WHERE account_id = %s AND seq > %s GROUP BY market, symbol"


class Desk(NamedTuple):
    """home: the state folder. broker: an account at its exchange; a UsageError where there is no key for it."""

    home: Path
    broker: Callable[[AccountRow], Broker]
    say: Callable[[str], object]
    reason: str
    by: str

    def tell(self, event: Event) -> None:
        if event.severity not in QUIET:
            self.say(event.message)


def halt_here(desk: Desk, account: str) -> list[str]:
    """No engine of this host enters anything for the account from now on. Returns what kept it from being so."""
    try:
        halt_file.write(desk.home, account, by=desk.by, reason=desk.reason)
    except OSError as error:
        return [f"{desk.home / halt_file.NAME} cannot be written: {error.strerror}."]
    return []


def halted_note(account: AccountRow) -> str:
    """For the receipt, also where nothing was open: whoever typed it must know what holds from now on."""
    again = f"atb live resume --account {shlex.quote(account.name)} --reason TEXT"
    return f"{account.name} is halted: nothing is entered until {again}"


def end_engines(home: Path, account: str) -> list[str]:
    """End those that trade the account on this host. Returns what was done, in words."""
    engines = [engine for engine in living(home) if engine.account == account]
    try:
        killed = end_all(engines, GRACE_S)
    except UsageError as error:
        return [error.what]
    notes = []
    for engine in engines:
        how = (
            "does not end: its kernel holds it"
            if not engine.process.is_gone
            else "was killed"
            if engine in killed
            else "ended"
        )
        notes.append(f"The engine of {account} on this host (pid {engine.pid}) {how}.")
    return notes


class LineJournal:
    """One account's journal over a command's line to the database."""

    away, merges = False, 0

    def __init__(self, line: Line, account_id: int, epoch: int) -> None:
        self.line, self.account_id, self.epoch = line, account_id, epoch

    def append(self, entries: Sequence[Entry]) -> list[Chained]:
        return self.line.append(self.account_id, self.epoch, entries)

    def read(self, work: Callable[[Any], T]) -> T:
        def reader(connection: Connection[Any]) -> T:
            found = work(connection)
            connection.rollback()
            return found

        return self.line.surely(reader)


def close_with_ledger(line: Line, account: AccountRow, epoch: int, others: bool, desk: Desk, receipt: Receipt) -> None:
    """An account that is fenced and halted, of which this process has the epoch. others: somebody had it before."""
    journal, patience_s, line.patience_s = LineJournal(line, account.id, epoch), line.patience_s, PATIENCE_S
    try:
        slow_s = ClosingExecutor.window_ms / 1000
        through = SpoolingJournal(journal, Spool.of(desk.home, account), desk.tell, slow_s=slow_s)
        through.merge()
        executor = executor_of(account, desk.broker(account), through, desk.tell)
        begun, since = executor.state.seq, _heard_of(executor)
        closing = _closing(executor, account, desk, since, lambda: _hold(journal))
        outcome = closing.run(others=others)
        add(receipt, account, executor, outcome, _pnl(journal, account, begun))
    finally:
        _let_go(journal)
        line.patience_s = patience_s


def close_by_what_is_known(account: AccountRow, why: DatabaseError, desk: Desk, receipt: Receipt) -> None:
    """An account of which the database can tell, but not take, anything."""
    here = next((each for each in known(desk.home) if each.account.name == account.name), None)
    if here is None:
        raise type(why)(f"{why.what} This host knows nothing of it: nothing was sent.", why.hint)
    close_without_ledger(here, why, desk, receipt)


def close_without_ledger(here: Known, why: DatabaseError, desk: Desk, receipt: Receipt) -> None:
    """By what this host knows. What is done goes into the spool, and from there into the ledger once that is back."""
    account = here.account
    receipt.notes.extend([*halt_here(desk, account.name), *end_engines(desk.home, account.name)])
    spool = Spool.of(desk.home, account)
    journal = SpoolingJournal(_NoLedger(account.id, why), spool)
    executor = executor_over(account, desk.broker(account), journal, here.state(), desk.tell)
    _take_spooled(executor, spool)
    closing = _closing(executor, account, desk, here.at)
    if not any(_halts(entry) for entry in spool.read()):
        halt = {"action": "halt", "reason": desk.reason, "by": desk.by}
        name = f"halt:{account.name}:{datetime.now(UTC).isoformat()}"
        executor.append([Entry(name, "control", datetime.now(UTC), halt)])
    outcome = closing.run(others=True)
    add(receipt, account, executor, outcome, {})
    receipt.notes.append(
        f"{account.name} was closed without its database, by what this host knew of it at {here.at:%Y-%m-%d %H:%M:%S} UTC: "
        "engines on other hosts are not fenced."
    )
    receipt.notes.append(halted_note(account))
    if spool.waits:
        receipt.notes.append(f"What was done is in {spool.path}. Once the database is back: atb db emergency-close-all")


def _halts(entry: Entry) -> bool:
    return entry.kind == "control" and entry.body["action"] == "halt"


def _closing(
    executor: ClosingExecutor,
    account: AccountRow,
    desk: Desk,
    since: datetime,
    alive: Callable[[], object] = lambda: None,
) -> Closing:
    executor.keep = AccountFile(desk.home, account, executor.session_id).keep
    return Closing(executor, reason=desk.reason, by=desk.by, since=since, alive=alive)


def _heard_of(executor: ClosingExecutor) -> datetime:
    """When the exchange was last heard of: an order that the ledger does not know is younger."""
    books = executor.state.books
    fills = [history[-1].at for history in books.history.values() if history]
    orders = [order.created_at for order in books.orders.values()]
    return max([*fills, *orders], default=executor.state.begun or datetime.now(UTC) - timedelta(days=90))


class _NoLedger:
    """The journal of a database that is away, and is not asked again."""

    away, merges = False, 0

    def __init__(self, account_id: int, why: DatabaseError) -> None:
        self.account_id, self.why = account_id, DatabaseUnavailable(why.what, why.hint)

    def append(self, entries: Sequence[Entry]) -> list[Chained]:
        raise self.why

    def read(self, work: Callable[[Any], T]) -> T:
        raise self.why


def _take_spooled(executor: ClosingExecutor, spool: Spool) -> None:
    """What an engine did while the database was away, and the file of the account does not have yet."""
    state = executor.state
    known_orders = set(state.books.orders)
    for entry in spool.read():
        body = entry.body
        if entry.kind == "intent" and body["client_order_id"] not in known_orders:
            state.take(state.seq + 1, entry)


def _hold(journal: LineJournal) -> None:
    """For another lease. While the database is away nobody else takes it either."""
    with contextlib.suppress(DatabaseUnavailable):
        journal.line.surely(lambda connection: renew(connection, journal.account_id, journal.epoch, LEASE_S))


def _let_go(journal: LineJournal) -> None:
    with contextlib.suppress(DatabaseError):
        journal.line.surely(lambda connection: release(connection, journal.account_id, journal.epoch))


def _pnl(journal: LineJournal, account: AccountRow, after: int) -> dict[tuple[str, str], Decimal]:
    """Of the trades that ended meanwhile."""

    def read(connection: Connection[Any]) -> dict[tuple[str, str], Decimal]:
        rows = connection.execute(PNL, (account.id, after)).fetchall()
        return {(market, symbol): pnl for market, symbol, pnl in rows}

    try:
        return journal.read(read)
    except DatabaseError:
        return {}


def known_here(desk: Desk, session_id: str | None, why: DatabaseError, dry_run: bool) -> list[Known]:
    """The accounts with real money that this host knows: all, or that of a session. The database's error where there is none;
    engines of the session are ended all the same."""
    running = {e.account for e in living(desk.home) if session_id in (None, str(e.session_id)) and _is_real(e.account)}
    every = [each for each in known(desk.home) if each.account.environment != "paper"]
    found = [e for e in every if session_id in (None, str(e.session_id)) or e.account.name in running]
    if found:
        return found
    notes = []
    for name in () if dry_run else sorted(running):
        notes += [*halt_here(desk, name), *end_engines(desk.home, name)]
    others = (
        f" It knows {', '.join(e.account.name for e in every)}: leave --session-id out to close that." if every else ""
    )
    whose = "an account with real money" if session_id is None else f"the account of session {session_id}"
    what = " ".join([why.what, *notes, f"This host knows nothing of {whose}: nothing was sent.{others}"])
    raise type(why)(what, f"Close it at the exchange by hand, or bring the database back. {why.hint}".strip())


def _is_real(name: str) -> bool:
    return name.split(":")[2:3] in (["real"], ["testnet"])


def plan_here(here: Known) -> list[dict[str, Any]]:
    """What would be closed and cancelled, a line each, as far as this host knows."""
    state, lines = here.state(), list[dict[str, Any]]()
    for s, traded in enumerate(state.traded):
        what = [("close", f"{state.held(s):f}")] if state.held(s) else []
        what += [(f"cancel {name} ({order.state})", "") for name, order in state.working[s].items()]
        for text, qty in what:
            lines.append(
                {"account": here.account.name, "what": text, "symbol": traded.symbol.id, "qty": qty, "last_mark": ""}
            )
    return lines
