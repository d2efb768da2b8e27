"""Open or resume a session: the account, authority over it, and the state that its ledger tells."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from atb.core.errors import UsageError
from atb.core.timeframe import Clock, moment
from atb.engine.records import Rules
from atb.execution.executor import Event, Executor, catch_up
from atb.execution.state import TradingState
from atb.execution.traded import Traded, market_config
from atb.ledger.accounts import AccountRow, next_session_id, open_account, take_authority
from atb.ledger.connect import Where, connect
from atb.ledger.entries import Entry
from atb.ledger.migrate import check_schema
from atb.ledger.steady import SteadyJournal
from atb.venue.broker import Broker


@dataclass(frozen=True)
class Wish:
    """What a session is to trade, and as whom. config: all that it follows, for the ledger."""

    account: str
    venue: str
    environment: str  # paper, testnet or real
    traded: Sequence[Traded]
    rules: Rules
    strategy: str
    timeframe: str
    config: Mapping[str, Any]
    initial_balance: Decimal
    key_identity: str = ""

    @property
    def quote(self) -> str:
        return self.traded[0].symbol.quote

    @property
    def identity(self) -> str:
        """What client order ids are made with: the account as the exchange knows it, on paper its name."""
        key = self.key_identity or self.account
        return f"{self.venue}:{self.traded[0].symbol.market}:{self.environment}:{key}"


@dataclass(frozen=True)
class Session:
    """A session that is open."""

    id: int
    account: AccountRow
    epoch: int
    executor: Executor
    journal: SteadyJournal

    @property
    def state(self) -> TradingState:
        return self.executor.state

    def end(self, status: str, at: datetime) -> None:
        """The session is over; what is held stays held, and protected."""
        body = {"action": "close", "session_id": self.id, "status": status}
        self.executor.append([Entry(f"session:{self.id}:end", "session", at, body)])
        self.journal.close()


def open_session(
    where: Where, wish: Wish, clock: Clock, broker: Callable[[TradingState], Broker],
    tell: Callable[[Event], None] = lambda _: None, *, patience_s: float = 30.0,
) -> Session:  # fmt: skip
    """Take authority over the account, fold its ledger, and write that a session begins.

    `broker` makes the exchange's side from the state: on paper it is what the ledger knows.
    """
    with connect(where) as connection:
        check_schema(connection, where)
        connection.rollback()
        account = open_account(
            connection, wish.account, venue=wish.venue, environment=wish.environment, quote=wish.quote,
            market=wish.traded[0].symbol.market, key_identity=wish.key_identity,
        )  # fmt: skip
        epoch = take_authority(connection, account.id)
        number = next_session_id(connection)
        connection.commit()
    journal = SteadyJournal(where, account.id, epoch, patience_s=patience_s)
    state = TradingState(wish.traded, wish.rules, wish.quote)
    _replay(journal, state, wish, number, moment(clock.now_ms()))
    return Session(
        number, account, epoch, Executor(broker(state), journal, state, wish.identity, number, tell), journal
    )


def _replay(journal: SteadyJournal, state: TradingState, wish: Wish, number: int, at: datetime) -> None:
    """Fold what is there; then the account's first money, if it is on paper and has none, and the beginning."""
    catch_up(journal, state)
    _refuse_unmanaged(state, wish)
    entries = []
    if state.seq == 0 and wish.environment == "paper":
        deposit = {
            "type": "deposit", "asset": wish.quote, "amount": wish.initial_balance, "reason": "initial balance",
            "evidence": "paper",
        }  # fmt: skip
        entries.append(Entry("deposit:initial", "adjustment", at, deposit))
    rules = dict(zip((name for name, _ in Rules.fields), wish.rules.as_tuple(), strict=True))
    markets = [market_config(traded) for traded in wish.traded]
    config = json.dumps({**wish.config, "rules": rules, "markets": markets}, sort_keys=True)
    opening = {
        "action": "open", "session_id": number, "strategy": wish.strategy, "mode": wish.environment,
        "symbols": " ".join(t.symbol.id for t in wish.traded), "timeframe": wish.timeframe, "config": config,
    }  # fmt: skip
    entries.append(Entry(f"session:{number}", "session", at, opening, number))
    journal.append(entries)
    catch_up(journal, state)


def _refuse_unmanaged(state: TradingState, wish: Wish) -> None:
    """What an account holds is traded, or at least protected, by whoever trades it."""
    left = [t.symbol.id for s, t in enumerate(state.traded) if s >= state.count and (state.held(s) or state.working[s])]
    known = {(t.symbol.market, t.symbol.id) for t in state.traded}
    left += [name for market, name in state.books.positions if (market, name) not in known]
    if left:
        names = ", ".join(left)
        raise UsageError(
            f"{wish.account} holds or has orders of {names}, which would be left without anybody to manage it.",
            "Add: " + " ".join(f"--symbol {name}" for name in left) + ", or close it: atb db close-position",
        )
