"""Asks the exchange what there is, books what it explains, and says what nothing explains.

    reconciler = Reconciler(executor)
    verdict = reconciler.start(money=None)      # once, before anything is traded: raises nothing for a disagreement
    verdict = reconciler.look()                 # every few cycles, after the executor's pull
    reconciler.disagreement                     # "" while both sides agree, as far as anybody knows

While something is unexplained at two looks in a row, the executor enters nothing (`executor.hold`); exits and stops go on.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from atb.core.errors import Disagreement, ExchangeRefused, ExchangeUnavailable, UsageError
from atb.core.orders import CLOCKS_DIFFER, SeenTransfer
from atb.core.types import Symbol, symbol_for
from atb.execution.adopting import is_ours, unknown_entries
from atb.execution.dust import PREFIX as DUST
from atb.execution.dust import dust_back
from atb.execution.executor import Executor
from atb.execution.external import Cause, by_hand, cash, coins, first_entries, owed
from atb.execution.fills import NOT_TOLD, OVERLAP_MS, Event, was_before
from atb.execution.reconcile import BOOK, LEAVE, Line, Snapshot, Verdict, diff, differences, dust
from atb.execution.seen import SEEN
from atb.execution.state import TradingState
from atb.ledger.entries import Entry
from atb.venue.ccxt_session import UnknownSymbol

BEFORE = timedelta(days=2)  # a deposit may be told with the time at which it set out
LOOKS, PAUSE_S = 3, 1.0  # at a start, before a difference is believed
SETTLING_S = 10  # how long a start waits for orders of unknown fate
REMEMBERED = timedelta(days=90)  # how far back a first start looks for orders of an earlier life
# What came or went was asked for then; executions and marks are booked also while that cannot be asked. Dust is our own doing.
LAST = (
    "SELECT max(at) FROM entries WHERE account_id = %s AND kind = 'adjustment' "
    f"AND id NOT LIKE '{DUST}%%' AND id NOT LIKE 'fill:%%'"
)


class Reconciler:
    """One account. `disagreement`: what nothing explains, in words."""

    def __init__(self, executor: Executor, pause: Callable[[float], object] = time.sleep) -> None:
        self.executor, self.pause = executor, pause
        self.disagreement = ""
        self._since = self._last_entry() or self._now()
        self._told: dict[str, Decimal] | None = None  # the differences after the last look
        self._doubted: list[tuple[str, Decimal]] = []
        self._foreign: set[str] = set()
        self._no_market: set[str] = set()
        self._gone: set[Symbol] = set()

    @property
    def state(self) -> TradingState:
        return self.executor.state

    # At a start.

    def start(self, money: Decimal | None = None, *, resume: bool = False) -> Verdict:
        """All that must be known before anything is traded: the account's beginning, orders of ours that the ledger has
        never heard of, what was executed, what came and went.

        money: how much of the quote a first start may trade with, None: all that is free. resume: a first start is refused
        where the exchange remembers an earlier one. An ExchangeUnavailable if the exchange does not tell.
        """
        if self.state.begun is None and not self.state.books.history:
            self._begin(money, resume)
        adopted = self._adopted()
        self.executor.append(self._dust_of(adopted))
        self.executor.append(adopted)
        self._settle()
        verdict = self.look()
        for _ in range(LOOKS - 1):
            if not verdict.unsettled and not verdict.unexplained:
                break
            self.pause(PAUSE_S)  # what was executed may be told a little later than what is there
            self.executor.pull()
            again = self.look()
            verdict = again._replace(lines=(*(line for line in verdict.lines if line.action == BOOK), *again.lines))
        if verdict.unsettled:
            raise ExchangeUnavailable(f"What is at the exchange cannot be compared: {verdict.unsettled}")
        return verdict

    def _begin(self, money: Decimal | None, resume: bool) -> None:
        broker, since = self.executor.broker, self._now() - REMEMBERED
        for symbol in self._symbols:
            found = broker.orders(symbol, _ms(since)) if resume else broker.open_orders([symbol])
            ours = [o.client_order_id for o in found if is_ours(o.client_order_id, self.executor.identity, symbol.id)]
            if ours:
                what = "traded here" if resume else "has working orders here"
                raise Disagreement(
                    f"This account {what} before ({ours[-1]} in {symbol.id}), and this database knows nothing of it.",
                    "Restore it: atb db restore FILE; or cancel those orders at the exchange and begin anew.",
                )
        self.executor.append(self._first(money))

    def _first(self, money: Decimal | None) -> list[Entry]:
        """As of a moment ago: nothing may have been executed since then, or it would count twice or never."""
        broker = self.executor.broker
        for _ in range(LOOKS):
            at = self._now() - CLOCKS_DIFFER
            balances = broker.balances()
            if not any(broker.fills(symbol, _ms(at)) for symbol in self._symbols):
                return first_entries(balances, self.state.books.quote, money, at)
            self.pause(PAUSE_S + CLOCKS_DIFFER.total_seconds())
        raise ExchangeUnavailable("Somebody trades on this account just now: what was there first is not clear.")

    def _adopted(self) -> list[Entry]:
        """After an older dump was restored, the exchange remembers orders that we do not."""
        try:
            return self._unknown_orders()
        except UnknownSymbol:
            self._leave_out_what_is_gone()
            return self._unknown_orders()

    def _unknown_orders(self) -> list[Entry]:
        since = _ms(self._since) - OVERLAP_MS
        e = self.executor
        return unknown_entries(e.broker, e.identity, self._symbols, self.state.books.orders, since, e.session_id)

    def _dust_of(self, adopted: Sequence[Entry]) -> list[Entry]:
        """Positions that the ledger does not know were begun with the dust that was there, and sold with it."""
        out: dict[int, list[Entry]] = {}
        for fill in (entry for entry in adopted if entry.kind == "fill"):
            s = self.state.index[fill.body["market"], fill.body["symbol"]]
            out.setdefault(s, dust_back(self.state, s, fill.at, self.executor.session_id))
        return [entry for entries in out.values() for entry in entries]

    def _settle(self) -> None:
        """Until it is known what became of each order."""
        for _ in range(SETTLING_S):
            self.executor.pull()
            if not self._unknown():
                return
            self.pause(1.0)

    # Within a cycle.

    def look(self) -> Verdict:
        """Compare, and book what is explained. What cannot be asked is no difference."""
        try:
            verdict = self._look()
        except NOT_TOLD as error:
            if isinstance(error, UnknownSymbol):
                self._leave_out_what_is_gone()
            return Verdict(unsettled=error.what)
        if not verdict.unsettled:
            self._conclude(verdict)
        return verdict

    def accept(self, verdict: Verdict, reason: str, evidence: str) -> list[Line]:
        """Book what nothing explains, on somebody's word. Returns the lines that were."""
        orders = [line for line in verdict.unexplained if line.database is None]
        if orders:
            raise UsageError(
                f"{orders[0].subject} is {orders[0].explanation}: no booking makes that right.",
                "Cancel it at the exchange, or restore the ledger that knows it: atb db restore FILE",
            )
        for line in verdict.unexplained:
            cause = Cause(f"correction:{uuid.uuid4().hex}", self._now(), reason, evidence, "correction")
            self.executor.append(self._changed(line, cause))
        return verdict.unexplained

    def _look(self) -> Verdict:
        if unknown := self._unknown():
            return Verdict(unsettled=f"what became of order {unknown} is not known yet.")
        at, snapshot = self._now(), self._snapshot()
        if self.executor.revive(snapshot.orders):
            snapshot = self._snapshot()
        booked: list[Line] = []
        if self._is_news(snapshot):
            self.executor.pull()  # what was executed while the balances were read
            snapshot = self._snapshot(asked=True)
            if self._diff(snapshot).unexplained and self._pull_elsewhere(snapshot):
                snapshot = self._snapshot(asked=True)
            booked = self._book(self._diff(snapshot))
        left = self._diff(snapshot._replace(transfers=None if snapshot.transfers is None else ()))
        self._told = differences(self.state.books, self.executor.broker.venue, snapshot.balances)
        if not left.unexplained:
            self._since = at
            self._take_what_is_owed()
        return Verdict((*booked, *left.lines))

    def _snapshot(self, asked: bool = False) -> Snapshot:
        """asked: with the transfers that are not booked yet."""
        broker, adjusted = self.executor.broker, self.state.books.adjusted
        balances, orders = broker.balances(), broker.open_orders(self._symbols)
        transfers: list[SeenTransfer] | None = []
        if asked:
            told = broker.transfers(_ms(self._since - BEFORE))
            transfers = None if told is None else [t for t in told if _name(t) not in adjusted]
        return Snapshot(balances, orders, transfers, self._since)

    def _diff(self, snapshot: Snapshot) -> Verdict:
        e = self.executor
        return diff(self.state.books, e.broker.venue, self.state.traded, e.identity, snapshot)

    def _is_news(self, snapshot: Snapshot) -> bool:
        """Whether there is a difference to be explained that was not there last time, or matters."""
        if any(line.action not in (LEAVE,) for line in self._diff(snapshot).lines):
            return True
        return differences(self.state.books, self.executor.broker.venue, snapshot.balances) != (self._told or {})

    def _book(self, verdict: Verdict) -> list[Line]:
        lines = [line for line in verdict.lines if line.action == BOOK]
        lines.sort(key=_when)  # the latest that is booked says since when to ask, also after a crash in between
        for line in lines:
            leg = line.transfer
            if leg is None:
                cause = Cause(f"external:{uuid.uuid4().hex}", self._now(), line.explanation, SEEN)
            else:
                kind = "conversion" if leg.kind == "conversion" else ""
                cause = Cause(_name(leg), leg.at, line.explanation, f"told by {self.executor.broker.venue}", kind)
            self.executor.append(self._changed(line, cause))
            self.executor.tell(
                Event("info", "external_change", f"{line.subject} {line.difference:+f}: {line.explanation}")
            )
        return lines

    def _changed(self, line: Line, cause: Cause) -> list[Entry]:
        books = self.state.books
        if line.subject == books.quote:
            return cash(books, line.difference, cause)
        if line.symbol is not None:
            return coins(books, line.symbol, line.difference, cause)
        return [cause.adjustment(line.subject, line.difference)]

    def _take_what_is_owed(self) -> None:
        """Only where all of it is there that should be: what came may be told later than what went."""
        for symbol in self._symbols:
            least = dust(self.state.traded, symbol.base, self.state.books.quote)
            if abs((self._told or {}).get(symbol.base, Decimal(0))) >= least:
                continue
            if entries := owed(self.state.books, symbol, f"owed:{symbol.id}:{self.state.seq}", self._now()):
                self.executor.append(entries)
                self.executor.tell(Event("info", "external_change", f"{symbol.id}: {entries[0].body['reason']}"))

    # What was traded by hand in symbols that this session does not trade.

    def _pull_elsewhere(self, snapshot: Snapshot) -> bool:
        """Whether something was booked. Asked are the symbols of two assets that both differ."""
        booked = False
        for symbol in self._elsewhere(snapshot):
            try:
                fills = self.executor.broker.fills(symbol, _ms(self._since) - OVERLAP_MS)
            except ExchangeRefused:
                self._no_market.add(symbol.id)
                continue
            known = {fill.venue_trade_id for fill in self.state.books.history.get((symbol.market, symbol.id), ())}
            for fill in fills:
                if fill.venue_trade_id not in known and not was_before(self.state, fill):
                    self.executor.append(by_hand(self.state.books, fill, Decimal(0), self.executor.session_id))
                    booked = True
        return booked

    def _elsewhere(self, snapshot: Snapshot) -> Iterator[Symbol]:
        broker, books = self.executor.broker, self.state.books
        differ = list(differences(books, broker.venue, snapshot.balances))
        ours = {books.quote, *(t.symbol.base for t in self.state.traded)}
        traded = {symbol.id for symbol in self._symbols}
        for asset in (a for a in differ if a in ours):
            for other in (a for a in differ if a != asset):
                for base, quote in ((other, asset), (asset, other)):
                    symbol = Symbol(symbol_for(broker.venue, f"{base}/{quote}").id, base, quote)
                    if symbol.id not in traded and symbol.id not in self._no_market:
                        yield symbol

    # What comes of it.

    def _conclude(self, verdict: Verdict) -> None:
        for line in verdict.lines:
            if line.action == LEAVE and line.subject not in self._foreign:
                self._foreign.add(line.subject)
                self.executor.tell(Event("warning", "foreign", f"{line.subject}: {line.explanation}"))
        unexplained = [(line.subject, line.difference) for line in verdict.unexplained]
        if unexplained and unexplained == self._doubted:
            self._disagree(verdict.refusal("").what)
        elif not unexplained and self.disagreement:
            self.executor.tell(Event("info", "agreement", "The ledger and the exchange agree again."))
            self.disagreement = self.executor.hold = ""
        self._doubted = unexplained

    def _disagree(self, what: str) -> None:
        if what != self.disagreement:
            self.executor.tell(Event("error", "disagreement", f"{what} Nothing is entered until it is explained."))
        self.disagreement = self.executor.hold = what

    # Small things.

    @property
    def _symbols(self) -> list[Symbol]:
        return [traded.symbol for traded in self.state.traded if traded.symbol not in self._gone]

    def _leave_out_what_is_gone(self) -> None:
        """Symbols that the exchange has no more are not asked for, where nothing of them is left."""
        for s, (symbol, _) in enumerate(self.state.traded):
            if self.state.held(s) or self.state.working[s]:
                continue
            try:
                self.executor.broker.open_orders([symbol])
            except UnknownSymbol as error:
                self._gone.add(symbol)
                self.executor.tell(
                    Event("warning", "symbol_gone", f"{symbol.id} is not asked for any more: {error.what}")
                )

    def _unknown(self) -> str:
        every = (order for working in self.state.working for order in working.values())
        return next((order.client_order_id for order in every if order.state in ("intent", "unknown")), "")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.executor.broker.now_ms() / 1000, UTC)

    def _last_entry(self) -> datetime | None:
        def last(connection: Any) -> datetime | None:
            row = connection.execute(LAST, (self.executor.journal.account_id,)).fetchone()
            return None if row is None else row[0]

        return self.executor.journal.read(last)


def _when(line: Line) -> datetime:
    return line.transfer.at if line.transfer is not None else datetime.max.replace(tzinfo=UTC)


def _name(leg: SeenTransfer) -> str:
    return f"transfer:{leg.name}"


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
