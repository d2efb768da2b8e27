"""From the plan to the wire and back: the intent is committed first, then sent, then what came of it is recorded.

Every append is folded into the state before anything else happens, so the state is never more than the ledger says. A crash at
any point leaves a ledger from which `cycle` goes on: an order that may have been sent is found by its client id, never sent
again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, TypeVar

from atb.core.errors import DatabaseUnavailable, ExchangeRefused, ExchangeUnavailable
from atb.core.order_id import client_order_id
from atb.core.orders import FINAL, NewOrder, SeenFill, SeenOrder
from atb.engine.reasons import REASON_NAMES
from atb.execution.adopting import fill_entry
from atb.execution.plan import NOTHING, Step, Wanted, next_step
from atb.execution.state import TradingState
from atb.ledger.audit import READ
from atb.ledger.entries import Chained, Entry
from atb.ledger.records import FINAL_STATES, Order
from atb.venue.broker import Broker, OrderUnknown, Window

T = TypeVar("T")
WINDOW_MS = 2_000  # the exchange may take a request this long after its intent
SETTLE_MS = 3_000  # after the window, until "not found" means "never arrived"
NOT_TOLD = (ExchangeUnavailable, ExchangeRefused)  # of what only asks
MOST_STEPS = 12  # in one cycle and symbol; a plan needs at most four
PROVISIONAL = 0  # the number of an entry that is not in the ledger yet, but in a spool
OVERLAP_MS = 3_600_000  # how far back fills are asked for again: clocks differ, and some are told late


class Journal(Protocol):
    """Where entries go, and come from (ledger.steady.SteadyJournal, execution.spooling_journal.SpoolingJournal).

    away: the database is out, and what is appended is kept elsewhere. merges: how often such entries came into the ledger,
    perhaps among those of others: whoever folded them folds anew.
    """

    account_id: int

    @property
    def away(self) -> bool: ...

    @property
    def merges(self) -> int: ...

    def append(self, entries: Sequence[Entry]) -> list[Chained]: ...

    def read(self, work: Callable[[Any], T]) -> T: ...


class Event(NamedTuple):
    """Something an operator may want to know. severity: debug, info, warning, error or critical."""

    severity: str
    code: str
    message: str


def catch_up(journal: Journal, state: TradingState) -> None:
    """Fold the entries that are in the ledger and not yet in the state."""
    for seq, entry in entries_after(journal, state.seq):
        state.take(seq, entry)


def entries_after(journal: Journal, last: int) -> list[tuple[int, Entry]]:
    query = READ.replace("WHERE account_id = %s", "WHERE account_id = %s AND seq > %s")

    def entries(connection: Any) -> list[Any]:
        connection.execute("SET LOCAL TimeZone = 'UTC'")
        return list(connection.execute(query, (journal.account_id, last)).fetchall())

    rows = journal.read(entries)
    return [
        (seq, Entry(name, kind, at, json.loads(text), session)) for seq, _, name, kind, at, session, text, *_ in rows
    ]


class Executor:
    """One account at one venue. `identity`: what its client order ids are made with. `tell` gets events; `halted` says why
    nothing may be entered, if so (halt_file.HaltFile.why)."""

    def __init__(
        self, broker: Broker, journal: Journal, state: TradingState, identity: str, session_id: int | None,
        tell: Callable[[Event], None] = lambda _: None, halted: Callable[[], str] = lambda: "",
    ) -> None:  # fmt: skip
        self.broker, self.journal, self.state = broker, journal, state
        self.identity, self.session_id, self.tell, self.halted = identity, session_id, tell, halted
        self.merges = journal.merges  # as of which the state was folded

    # The ledger.

    def append(self, entries: Sequence[Entry]) -> None:
        """Append, and fold all that is new: also what others appended in between."""
        written = self.journal.append(entries)
        if self._folds_anew():
            return
        if not self._provisional and (not written or written[0].seq != self.state.seq + 1):
            self.catch_up()
            return
        for chained in written:
            self.state.take(self.state.seq + 1, chained.entry._replace(body=json.loads(chained.text)))

    def catch_up(self) -> None:
        """Fold what others appended: an operator's command beside this process. While the database is out, nothing."""
        try:
            entries = entries_after(self.journal, self.state.seq)
        except DatabaseUnavailable:
            if not self.journal.away:
                raise
            return
        if self._provisional:  # the state's numbers are not the ledger's
            self._folds_anew()
            return
        for seq, entry in entries:
            self.state.take(seq, entry)

    @property
    def _provisional(self) -> bool:
        """Whether something is folded that was not in the ledger then."""
        return self.journal.away or self.journal.merges != self.merges

    def _folds_anew(self) -> bool:
        """After a merge, fold the ledger from its first entry. False where there was none, or the database is out again."""
        if self.journal.away or self.journal.merges == self.merges:
            return False
        fresh, merges = self.state.fresh(), self.journal.merges
        try:
            catch_up(self.journal, fresh)
        except DatabaseUnavailable:
            return False
        self.state, self.merges = fresh, merges
        return True

    # One cycle: what happened, then what is left to do.

    def cycle(self) -> None:
        if self._provisional:
            self.catch_up()
        self.pull()
        for s in range(len(self.state.traded)):
            self.carry_on(s)

    def pull(self) -> None:
        """Book what happened at the exchange: orders of unknown fate, executions, orders that came to their end."""
        for s in range(len(self.state.traded)):
            self._find([o for o in self.state.working[s].values() if o.state in ("intent", "unknown")])
            if any(o.state in ("intent", "unknown") for o in self.state.working[s].values()):
                continue  # a fill of an order that is not known yet would seem foreign
            self._book_fills(s)  # also of what somebody else sold
            self._book_ends(s)

    def carry_on(self, s: int) -> None:
        """Do what is left to do for symbol s, step by step, until nothing is or something must be waited for."""
        for _ in range(MOST_STEPS):
            step = next_step(self.state, s, self.broker.features.pairs)
            if step == NOTHING or not self._carry_out(s, step):
                return

    def _carry_out(self, s: int, step: Step) -> bool:
        """Whether something changed, so that the plan may go on."""
        if step.find:
            return self._find(step.find)
        if step.cancel:
            cancelled = [self._cancel(s, order) for order in step.cancel]  # each, also after one that failed
            return all(cancelled)
        return self._place(step.place)

    # Each of these ends with the outcome in the ledger.

    def _place(self, wanted: Sequence[Wanted]) -> bool:
        enters = any(w.purpose == "entry" for w in wanted)
        if enters and (self.state.books.halted or self.journal.away or self.halted()):
            return False  # the next close forgets it
        named = [w.order._replace(client_order_id=self._name(w)) for w in wanted]
        window = Window(self.broker.now_ms(), WINDOW_MS)  # before the commit: a fence comes after it
        try:
            self.append([self._intent(w.purpose, order) for w, order in zip(wanted, named, strict=True)])
        except DatabaseUnavailable:
            if not self.journal.away:
                raise
            return False  # it is written nowhere, so it is not sent
        if enters and (why := self.halted()):  # since a moment ago
            self._conclude(named, "denied", why)
            return False
        return self._send(wanted, named, window)

    def _send(self, wanted: Sequence[Wanted], named: Sequence[NewOrder], window: Window) -> bool:
        """Send what the ledger knows of, once, and record what came of it."""
        try:
            if len(named) == 2:
                seen = list(self.broker.place_pair(named[0], named[1], window))
            else:
                seen = [self.broker.place(named[0], window)]
        except OrderUnknown as error:
            self._conclude(named, "unknown", error.what)
            return False
        except ExchangeRefused as error:
            self._conclude(named, "rejected", error.what)
            self.refused(wanted, error)
            return False
        except ExchangeUnavailable as error:  # not sent, or certainly not taken
            self._conclude(named, "denied", error.what)
            return False
        recorded = [self._record(order) for order in seen]
        return all(recorded)

    def refused(self, wanted: Sequence[Wanted], error: ExchangeRefused) -> None:
        """The exchange certainly does not take this."""
        what = f"{wanted[0].purpose} of {wanted[0].order.symbol.id}: {error.what}"
        self.tell(Event("warning", "order_refused", what))

    def _cancel(self, s: int, order: Order) -> bool:
        symbol = self.state.traded[s].symbol
        try:
            seen = self.broker.cancel(symbol, order.client_order_id)
        except OrderUnknown as error:
            self._note(order.client_order_id, "unknown", error.what)
            return False
        except ExchangeRefused:  # it is at its end already, or another's
            return self._find([order])
        except ExchangeUnavailable:
            return False
        return self._record(seen)

    def _record(self, seen: SeenOrder) -> bool:
        """Write what the exchange says of an order. Whether all of it could be: an end counts only when every execution
        that it speaks of is booked, and these may be told later."""
        name, s = seen.client_order_id, self.state.index[seen.symbol.market, seen.symbol.id]
        known = self._known(name)
        if known.state in ("intent", "unknown") or known.venue_order_id != seen.venue_order_id:
            self.append(
                [self._order_entry({"client_order_id": name, "state": "open", "venue_order_id": seen.venue_order_id})]
            )
        if self._known(name).filled_qty < seen.filled_qty:
            self._book_fills(s)
        if self._known(name).filled_qty < seen.filled_qty:
            return False
        if seen.state in FINAL and self._known(name).state not in FINAL_STATES:
            self._note(name, seen.state, "")
        return True

    def _known(self, name: str) -> Order:
        """As of now: the state may have been folded anew since."""
        return self.state.books.orders[name]

    def _find(self, orders: Sequence[Order]) -> bool:
        """Look orders up by their client ids. Whether all of them are known now."""
        known = True
        for order in orders:
            s = self.state.index[order.key]
            try:
                seen = self.broker.find(self.state.traded[s].symbol, order.client_order_id)
            except NOT_TOLD:
                return False
            if seen is not None:
                known = self._record(seen) and known
            elif not order.venue_order_id and self._long_ago(order):  # what was seen once is there, whatever is said
                self._note(order.client_order_id, "denied", "the exchange has never heard of it")
            else:
                known = False
        return known

    def _long_ago(self, order: Order) -> bool:
        sent_ms = order.created_at.timestamp() * 1000
        return self.broker.now_ms() > sent_ms + WINDOW_MS + SETTLE_MS

    def _book_fills(self, s: int) -> None:
        symbol, books = self.state.traded[s].symbol, self.state.books
        history = books.history.get((symbol.market, symbol.id), [])
        since = round(history[-1].at.timestamp() * 1000) - OVERLAP_MS if history else 0
        try:
            fills = self.broker.fills(symbol, since)
        except NOT_TOLD:
            return
        known = {fill.venue_trade_id for fill in history}
        new = [self._filled(s, fill) for fill in fills if fill.venue_trade_id not in known]
        if new:
            self.append(new)

    def _book_ends(self, s: int) -> None:
        """Orders that work by the books and do not at the exchange: what became of them."""
        symbol = self.state.traded[s].symbol
        if not self.state.working[s]:
            return
        try:
            there = {order.client_order_id for order in self.broker.open_orders([symbol])}
        except NOT_TOLD:
            return
        gone = [order for name, order in self.state.working[s].items() if name not in there]
        if gone:
            self._find(gone)
            self._book_fills(s)

    # Entries.

    def _name(self, wanted: Wanted) -> str:
        """The first id for this purpose and candle that was never used."""
        attempt, candle_ms = 0, self.state.last_open_ms or 0
        while True:
            name = client_order_id(self.identity, wanted.order.symbol.id, candle_ms, wanted.purpose, attempt)
            if name not in self.state.books.orders:
                return name
            attempt += 1

    def _intent(self, purpose: str, order: NewOrder) -> Entry:
        body = {
            "client_order_id": order.client_order_id, "symbol": order.symbol.id, "market": order.symbol.market,
            "side": order.side, "type": order.type, "qty": order.qty, "price": order.price,
            "stop_price": order.stop_price, "purpose": purpose,
        }  # fmt: skip
        return Entry(f"intent:{order.client_order_id}", "intent", self._now(), body, self.session_id)

    def _conclude(self, orders: Sequence[NewOrder], state: str, reason: str) -> None:
        for order in orders:
            self._note(order.client_order_id, state, reason)

    def _note(self, name: str, state: str, reason: str) -> None:
        self.append([self._order_entry({"client_order_id": name, "state": state, "reason": reason})])

    def _order_entry(self, body: dict[str, Any]) -> Entry:
        """The same state again, later, is another fact: an order may be unknown, open, and unknown again."""
        count = self.state.seq + 1
        return Entry(
            f"order:{body['client_order_id']}:{body['state']}:{count}", "order", self._now(), body, self.session_id
        )

    def _filled(self, s: int, fill: SeenFill) -> Entry:
        key = (fill.symbol.market, fill.symbol.id)
        name = self.state.by_venue.get((key, fill.venue_order_id), "")
        entry = fill_entry(fill, self.session_id, name)
        order = self.state.books.orders.get(name)
        reason = "foreign" if order is None else self._reason(s, order.purpose)
        return entry._replace(body={**entry.body, "reason": reason})

    def _reason(self, s: int, purpose: str) -> str:
        p = self.state.position(s)
        codes = {"exit": p.target_reason, "partial": p.target_reason, "stop": p.stop_reason}
        names = {"entry": "entry", "take": "take_profit", "emergency": "emergency_close"}
        return names.get(purpose) or REASON_NAMES[codes[purpose]]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.broker.now_ms() / 1000, UTC)
