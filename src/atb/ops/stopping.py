"""End the engines of this host, and say what stays open. Works without the database, as far as files tell."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from atb.core.errors import Fenced, UsageError
from atb.execution.authority import described
from atb.execution.engines import Engine
from atb.ledger.reading import reading
from atb.ops.emergency import account_of
from atb.ops.status import RUNNING, AccountStatus, read_status

if TYPE_CHECKING:
    from psycopg import Connection

    from atb.ledger.connect import Where


class StaysOpen(NamedTuple):
    """A position that a stopped engine left. resting: whether its stop works at the exchange, as far as the ledger knows."""

    account: str
    environment: str
    symbol: str
    size: Decimal
    stop: Decimal | None
    resting: bool

    @property
    def told(self) -> str:
        what = f"{self.size.normalize():f} {self.symbol} of {self.account} stays open"
        if self.environment == "paper":
            return f"{what}: on paper, where nothing happens to it until the next start."
        if not self.resting:
            return f"{what} WITHOUT a working stop at the exchange."
        return f"{what}, and its stop{'' if self.stop is None else f' at {self.stop.normalize():f}'} rests at the exchange."


def chosen(
    engines: Sequence[Engine], account: str | None, session_id: str | None, everything: bool,
    account_of_session: Callable[[str], str],
) -> list[Engine]:  # fmt: skip
    """Which of the engines that run here are meant; empty where none is. A UsageError where it could be one of several."""
    if sum((account is not None, session_id is not None, everything)) > 1:
        raise UsageError("--account, --session-id and --all each say what is meant.", "Give one of them.")
    found = list(engines)
    if session_id is not None:
        found = [engine for engine in engines if str(engine.session_id) == session_id.strip()]
        account = None if found else account_of_session(session_id)
    if account is not None:
        found = [engine for engine in engines if engine.account == account]
    if len(found) > 1 and not everything:
        names = "; ".join(f"{engine.account} (pid {engine.pid}, {engine.database})" for engine in found)
        raise UsageError(f"More than one engine runs here: {names}.", "Say which: --account NAME, or --all")
    return found


def session_s_account(where: Where, session_id: str) -> str:
    return reading(where, lambda connection: account_of(connection, session_id, where.shown)).name


def refuse_elsewhere(where: Where, account: str | None) -> None:
    """Fenced where an engine trades the account, or any, and is none of those that were found here."""
    statuses = reading(where, read_status)
    for status in statuses:
        if status.engine == RUNNING and account in (None, status.account.name):
            raise _elsewhere(status)
    if account is not None and account not in [status.account.name for status in statuses]:
        raise UsageError(f"There is no account {account} in {where.shown}.", "See: atb live status")


def _elsewhere(status: AccountStatus) -> Fenced:
    process, name = status.standing.process, shlex.quote(status.account.name)
    who = f"{status.account.name} is held by {described(status.standing)}"
    if process is not None and process.is_here:
        what = f"{who}: a process of this host that is no engine of this ATB_HOME. Nothing was stopped."
        return Fenced(what, f"If it is an engine with an ATB_HOME of its own, set that, or: kill -TERM {process.pid}")
    where = f"on {process.host}" if process is not None else "there"
    return Fenced(
        f"{who}: it does not run here. Nothing was stopped.", f"Stop it {where}: atb live stop --account {name}"
    )


def left_open(where: Where, accounts: Sequence[str]) -> list[StaysOpen]:
    """What these accounts hold now."""

    def work(connection: Connection[Any]) -> list[StaysOpen]:
        query = (
            "SELECT a.name, a.environment, p.symbol, p.size, p.stop_loss, EXISTS (SELECT 1 FROM orders o WHERE "
            "(o.account_id, o.market, o.symbol) = (p.account_id, p.market, p.symbol) AND o.purpose = 'stop' "
            "AND o.state IN ('open', 'partially_filled')) "
            "FROM positions p JOIN accounts a ON a.id = p.account_id WHERE p.status = 'OPEN' AND a.name = ANY(%s) "
            "ORDER BY a.id, p.symbol"
        )
        return [StaysOpen(*row) for row in connection.execute(query, (list(accounts),))]

    return reading(where, work)
