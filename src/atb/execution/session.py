"""Open or resume a session: the account, authority over it, and the state that its ledger tells."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from atb.core.errors import DatabaseError, UsageError
from atb.core.timeframe import Clock, moment
from atb.engine.records import Rules
from atb.execution.account_file import AccountFile
from atb.execution.authority import WAIT_S, wait_for_authority
from atb.execution.executor import Event, Executor, catch_up
from atb.execution.halt_file import HaltFile
from atb.execution.offers import OFFSET
from atb.execution.spool import Spool
from atb.execution.spooling_journal import PATIENCE_S, SpoolingJournal
from atb.execution.state import TradingState
from atb.execution.traded import Traded, market_config
from atb.ledger.accounts import AccountRow, next_session_id, open_account
from atb.ledger.connect import Where, connect
from atb.ledger.entries import Entry
from atb.ledger.lease import release, renew
from atb.ledger.migrate import check_schema
from atb.ledger.steady import SteadyJournal
from atb.venue.broker import Broker

LEASE_S = 60.0  # of a session that nobody says otherwise of


@dataclass(frozen=True)
class Wish:
    """What a session is to trade, and as whom. config: all that it follows, for the ledger. stop_offset: of stop-limits, how
    far the limit is below the stop, as a share of it."""

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
    stop_offset: Decimal = OFFSET

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
    """A session that is open. spooling: its way to the journal, where it goes on without the database."""

    id: int
    account: AccountRow
    epoch: int
    executor: Executor
    journal: SteadyJournal
    lease_s: float = LEASE_S
    spooling: SpoolingJournal | None = None

    @property
    def state(self) -> TradingState:
        return self.executor.state

    def renew(self) -> None:
        """Hold the account for another lease: once in each cycle. Fenced where another has taken over."""
        if self.spooling is None:
            self._renew()
        else:
            self.spooling.ask(self._renew)

    def _renew(self) -> None:
        self.journal.surely(lambda connection: renew(connection, self.account.id, self.epoch, self.lease_s))

    def renewal(self) -> Callable[[], None]:
        """To be called often: it renews when a third of the lease has passed."""
        due = time.monotonic() + self.lease_s / 3

        def renew_when_due() -> None:
            nonlocal due
            if time.monotonic() >= due:
                self.renew()
                due = time.monotonic() + self.lease_s / 3

        return renew_when_due

    def end(self, status: str, at: datetime) -> None:
        """The session is over; what is held stays held, and protected. Whoever waits for the account may have it."""
        body = {"action": "close", "session_id": self.id, "status": status}
        self.executor.append([Entry(f"session:{self.id}:end", "session", at, body)])
        self.release()

    def release(self) -> None:
        """Let go of the account, as the last thing that this session does."""
        _let_go(self.journal, self.epoch)


def open_session(
    where: Where, wish: Wish, clock: Clock, broker: Callable[[TradingState], Broker],
    tell: Callable[[Event], None] = lambda _: None, *, patience_s: float = 30.0, lease_s: float = LEASE_S,
    wait_s: float = WAIT_S, home: Path | None = None,
) -> Session:  # fmt: skip
    """Take authority over the account, fold its ledger, and write that a session begins.

    Whoever holds the account is waited for, for up to `wait_s` seconds; then it is held for `lease_s` seconds at a time.
    `broker` makes the exchange's side from the state: on paper it is what the ledger knows. `home`: the folder of the
    spool, of the file HALT and of what is known here; with it the session goes on while the database is out.
    """
    with connect(where) as connection:
        check_schema(connection, where)
        connection.rollback()
        account = open_account(
            connection, wish.account, venue=wish.venue, environment=wish.environment, quote=wish.quote,
            market=wish.traded[0].symbol.market, key_identity=wish.key_identity,
        )  # fmt: skip
        connection.commit()
        epoch = wait_for_authority(connection, account, lease_s=lease_s, wait_s=wait_s, tell=tell)
        number = next_session_id(connection)
        connection.commit()
    journal = SteadyJournal(where, account.id, epoch, patience_s=patience_s)
    try:
        spooling = None if home is None else _spooling(journal, account, home, tell)
        state = TradingState(wish.traded, wish.rules, wish.quote)
        _replay(journal, state, wish, number, moment(clock.now_ms()))
        executor = Executor(broker(state), spooling or journal, state, wish.identity, number, tell, wish.stop_offset)
        if home is not None:
            journal.patience_s = min(patience_s, PATIENCE_S)
            executor.halted = HaltFile(home, account.name).why
            if wish.environment != "paper":
                executor.keep = AccountFile(home, account, number).keep
    except BaseException:
        _let_go(journal, epoch)
        raise
    return Session(number, account, epoch, executor, journal, lease_s, spooling)


def _spooling(
    journal: SteadyJournal, account: AccountRow, home: Path, tell: Callable[[Event], None]
) -> SpoolingJournal:
    """The journal for the time when the database is out; what a process before this one could not write is merged."""
    spooling = SpoolingJournal(journal, Spool.of(home, account), tell)
    spooling.merge()
    return spooling


def _let_go(journal: SteadyJournal, epoch: int) -> None:
    """The account is free again. Where that fails its lease runs out, or its process is seen to have ended."""
    with contextlib.suppress(DatabaseError):
        journal.surely(lambda connection: release(connection, journal.account_id, epoch))
    journal.close()


def _replay(journal: SteadyJournal, state: TradingState, wish: Wish, number: int, at: datetime) -> None:
    """Fold what is there; then the account's first money, if it is on paper and has none, and the beginning."""
    catch_up(journal, state)
    at = _after_all(state, at)
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


def _after_all(state: TradingState, at: datetime) -> datetime:
    """`at`; where the clock was set back, a moment after the last beginning: the latest session is the one begun last."""
    latest = state.books.latest
    return at if latest is None else max(at, latest.opened_at + timedelta(microseconds=1))


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
