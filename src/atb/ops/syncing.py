"""`atb live sync-balance`: what the exchange says of an account against what its ledger says, and to accept what differs.

Nothing is fenced. Beside a running engine only what is accepted is written: the engine books what explains itself, within a
cycle. Where none runs, that is written, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from atb.core.errors import UsageError
from atb.core.types import Symbol
from atb.execution.compared import Compared, compare, identity_of, read_account
from atb.execution.reconcile import Verdict
from atb.ledger.accounts import AccountRow
from atb.ledger.line import Line
from atb.ledger.steady import SteadyJournal
from atb.ops.status import RUNNING, AccountStatus
from atb.venue.broker import Broker

Open = Callable[[Sequence[Symbol]], Broker]


class Synced(NamedTuple):
    """verdict: as it was found. accepted: nothing is left unexplained, and `written` entries were booked; running: an engine
    trades the account, and books itself what explains itself."""

    account: AccountRow
    verdict: Verdict
    running: bool
    accepted: bool = False
    written: int = 0

    @property
    def equal(self) -> bool:
        return self.verdict.equal or self.accepted


def account_at(statuses: Sequence[AccountStatus], venue: str, name: str | None, identity: str) -> AccountStatus:
    """The account that is named, or that the key opens. identity: of the key; empty where there is none."""
    there = [status for status in statuses if status.account.venue == venue]
    if name is not None:
        found = [status for status in there if status.account.name == name]
    else:
        found = [s for s in there if s.account.environment != "paper" and identity_of(s.account) == identity]
        if not found and not identity:
            found = [s for s in there if s.account.environment == "paper"][:1]
    if not found:
        known = ", ".join(s.account.name for s in there) or "none"
        nobodys = "no account of the key that is set" if identity else "no account on paper, and no key is set,"
        what = f"no account {name}" if name is not None else nobodys
        raise UsageError(f"This database has {what} at {venue} (known there: {known}).", "See: atb live status")
    account = found[0].account
    if account.environment != "paper" and identity_of(account) != identity:
        key = f"that of {identity}" if identity else "not set"
        raise UsageError(
            f"{account.name} is opened by another key: the one in the environment is {key}.",
            f"Set the key of {identity_of(account)}.",
        )
    return found[0]


def sync(
    line: Line, status: AccountStatus, broker: Open, reason: str | None, by: str, pause: Callable[[float], object]
) -> Synced:  # fmt: skip
    """Compare; with a `reason` accept what nothing explains."""
    account, running = status.account, status.engine == RUNNING
    journal = SteadyJournal(line.where, account.id, status.standing.epoch, patience_s=30.0)  # it only reads
    try:
        chain = read_account(journal, account)
        compared = compare(journal, account, chain, broker(chain.symbols), pause)
    finally:
        journal.close()
    if reason is None:
        return Synced(account, compared.verdict, running)
    written = _accept(line, account, compared, running, reason, by)
    return Synced(account, compared.verdict, running, True, written)


def _accept(line: Line, account: AccountRow, compared: Compared, running: bool, reason: str, by: str) -> int:
    explained = compared.entries
    compared.reconciler.accept(compared.verdict, reason, by)
    entries = compared.entries[len(explained) :] if running else compared.entries
    return len(line.append_beside(account.id, entries)) if entries else 0
