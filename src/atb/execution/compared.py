"""The verdict on an account without a session of it, on a copy of its ledger: for whoever looks from beside."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from atb.core.errors import UsageError
from atb.core.policy import make_policy
from atb.core.types import Symbol
from atb.engine.rules import make_rules
from atb.execution.copying import CopyJournal
from atb.execution.executor import Executor
from atb.execution.journaled import Journal
from atb.execution.reconcile import Line, Verdict, order_lines
from atb.execution.reconciler import Reconciler
from atb.execution.state import TradingState
from atb.execution.traded import Traded
from atb.ledger.accounts import AccountRow
from atb.ledger.audit import read_chain
from atb.ledger.entries import Chained, Entry
from atb.venue.broker import Broker


class Compared(NamedTuple):
    """verdict: as a start would have it, with what it would book. entries: those that would be written."""

    verdict: Verdict
    reconciler: Reconciler
    journal: CopyJournal

    @property
    def entries(self) -> list[Entry]:
        """Without what the ledger adds of its own accord."""
        return [entry for entry in self.journal.entries if entry.kind != "reversal"]


def identity_of(account: AccountRow) -> str:
    """What the client order ids of a real account are made with."""
    return f"{account.venue}:{account.market}:{account.environment}:{account.key_identity}"


class Chain(NamedTuple):
    """An account's entries, and what it has ever traded."""

    entries: list[Chained]
    traded: list[Traded]

    @property
    def symbols(self) -> list[Symbol]:
        return [traded.symbol for traded in self.traded]


def read_account(journal: Journal, account: AccountRow) -> Chain:
    chain = journal.read(lambda connection: read_chain(connection, account.id))
    return Chain(chain, _folded(chain, account, ()).traded)


def compare(
    journal: Journal, account: AccountRow, chain: Chain, broker: Broker, pause: Callable[[float], object] = time.sleep
) -> Compared:  # fmt: skip
    """Ask the exchange, and write nothing."""
    state, copy = _folded(chain.entries, account, chain.traded), CopyJournal(journal, account.quote, chain.entries)
    if state.begun is None or not chain.traded or state.books.latest is None:
        raise UsageError(
            f"{account.name} has not begun to trade: there is nothing to compare.",
            "Its first start takes what is there.",
        )
    executor = CopyExecutor(broker, copy, state, identity_of(account), state.books.latest.id)
    reconciler = Reconciler(executor, pause)
    verdict = reconciler.start()
    lines: tuple[Line, ...] = (*order_lines(copy.entries), *verdict.lines)
    return Compared(verdict._replace(lines=lines), reconciler, copy)


class CopyExecutor(Executor):
    """It knows what was there at the beginning, and asks the exchange for the rest."""

    def catch_up(self) -> bool:
        return True


def _folded(chain: Sequence[Chained], account: AccountRow, traded: Sequence[Traded]) -> TradingState:
    """Sessions say themselves what they traded, and by which rules."""
    state = TradingState(traded, make_rules(make_policy({}), 0.0, 0.0), account.quote)
    for link in chain:
        state.take(link.seq, link.entry)
    return state
