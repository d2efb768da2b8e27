"""Open or resume a session: the account, authority over it, and the state that its ledger tells."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from atb.core.timeframe import Clock
from atb.engine.records import Rules
from atb.execution.executor import Event, Executor, Journal, catch_up
from atb.execution.halt_file import HaltFile
from atb.execution.spool import Spool
from atb.execution.spooling_journal import PATIENCE_S, SpoolingJournal
from atb.execution.state import Traded, TradingState
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
    tell: Callable[[Event], None] = lambda _: None, *, patience_s: float = 30.0, home: Path | None = None,
) -> Session:  # fmt: skip
    """Take authority over the account, fold its ledger, and write that a session begins.

    `broker` makes the exchange's side from the state: on paper it is what the ledger knows. `home`: the folder of the
    spool and of the file HALT; with it the session goes on while the database is out.
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
    through: Journal = journal
    if home is not None:
        through = SpoolingJournal(journal, Spool.of(home, account), tell)
        through.merge()  # what a process before this one could not write
    state = TradingState(wish.traded, wish.rules, wish.quote)
    _replay(journal, state, wish, number, datetime.fromtimestamp(clock.now_ms() / 1000, UTC))
    journal.patience_s = patience_s if home is None else min(patience_s, PATIENCE_S)
    halted = HaltFile(home, account.name).why if home is not None else lambda: ""
    executor = Executor(broker(state), through, state, wish.identity, number, tell, halted)
    return Session(number, account, epoch, executor, journal)


def _replay(journal: SteadyJournal, state: TradingState, wish: Wish, number: int, at: datetime) -> None:
    """Fold what is there; then the account's first money, if it is on paper and has none, and the beginning."""
    catch_up(journal, state)
    entries = []
    if state.seq == 0 and wish.environment == "paper":
        deposit = {
            "type": "deposit", "asset": wish.quote, "amount": wish.initial_balance, "reason": "initial balance",
            "evidence": "paper",
        }  # fmt: skip
        entries.append(Entry("deposit:initial", "adjustment", at, deposit))
    rules = dict(zip((name for name, _ in Rules.fields), wish.rules.as_tuple(), strict=True))
    config = json.dumps({**wish.config, "rules": rules}, sort_keys=True)
    opening = {
        "action": "open", "session_id": number, "strategy": wish.strategy, "mode": wish.environment,
        "symbols": " ".join(t.symbol.id for t in wish.traded), "timeframe": wish.timeframe, "config": config,
    }  # fmt: skip
    entries.append(Entry(f"session:{number}", "session", at, opening, number))
    journal.append(entries)
    catch_up(journal, state)
