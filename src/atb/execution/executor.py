"""From the plan to the wire and back: the intent is committed first, then sent, then what came of it is recorded.

Every append is folded into the state before anything else happens, so the state is never more than the ledger says. A crash at
any point leaves a ledger from which `cycle` goes on: an order that may have been sent is found by its client id, never sent
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from itertools import count
from typing import Any

from atb.core.errors import DatabaseUnavailable, ExchangeRefused, ExchangeUnavailable, UsageError
from atb.core.order_id import client_order_id
from atb.core.orders import FINAL, NewOrder, SeenOrder
from atb.core.timeframe import in_ms, moment
from atb.engine.reasons import REASON_NAMES
from atb.execution.bare import BareTime
from atb.execution.dust import dust_entries
from atb.execution.fills import NOT_TOLD, book_fills
from atb.execution.fills import Event as Event
from atb.execution.journaled import Journal as Journal
from atb.execution.journaled import Journaled
from atb.execution.journaled import catch_up as catch_up
from atb.execution.narrating import narrate
from atb.execution.offers import OFFSET, Offers, Told
from atb.execution.plan import NOTHING, Step, Wanted, has_stop, next_step, overdue
from atb.execution.presumed import found_late, may_have_arrived
from atb.execution.refusals import forget_what_may_have_passed, look_at_what_is_free, reason_of, refused
from atb.execution.state import TradingState
from atb.ledger.entries import Entry
from atb.ledger.records import FINAL_STATES, NEVER_HEARD, Order
from atb.venue.broker import Broker, OrderUnknown, Window

WINDOW_MS = 2_000  # the exchange may take a request this long after its intent
SETTLE_MS = 3_000  # after the window, until "not found" means "never arrived"
MOST_STEPS = 12  # in one cycle and symbol; a plan needs at most five


class Executor(Journaled):
    """One account at one venue. `identity`: what its client order ids are made with. `tell` gets events."""

    window_ms = WINDOW_MS

    def __init__(
        self, broker: Broker, journal: Journal, state: TradingState, identity: str, session_id: int | None,
        tell: Callable[[Event], None] = lambda _: None, stop_offset: Decimal = OFFSET,
    ) -> None:  # fmt: skip
        super().__init__(journal, state)
        self.broker = broker
        self.identity, self.session_id, self.tell = identity, session_id, tell
        self.told = Told(broker.features, stop_offset)
        self.bare = BareTime()
        self.silent_until_ms = 0  # the exchange wants nothing of us before (its clock)
        # By symbol the candle in which orders that were taken for never sent were looked up.
        self._looked_ms: dict[int, int | None] = {}
        self._attempts: dict[tuple[str, int, str], int] = {}  # by symbol, candle and purpose, of its client order ids
        self.no_entries: Callable[[], str] = lambda: ""  # why nothing new may be bought now
        self.halted: Callable[[], str] = lambda: ""  # the same, as the file HALT says it (halt_file.HaltFile.why)
        self.hold = ""  # why nothing is entered, though nobody halted the account
        self.keep: Callable[[TradingState], object] = lambda _: None  # what is known, for when the database is away

    def appended(self, entry: Entry) -> None:
        if (event := narrate(entry, self.state)) is not None:
            self.tell(event)

    # One cycle: what happened, then what is left to do.

    def cycle(self) -> None:
        if self._provisional:
            self.catch_up()
        self.pull()
        self.act()

    def act(self) -> None:
        """Do what is left to do, of all that this session trades."""
        for s in range(self.state.count):
            self.act_on(s)
        self.keep(self.state)

    def act_on(self, s: int) -> None:
        if self.told.is_limited(s):
            look_at_what_is_free(self, s)
        forget_what_may_have_passed(self, s)
        self.carry_on(s)

    def pull(self) -> None:
        """Book what happened at the exchange: orders of unknown fate, executions, orders that came to their end."""
        for s in range(self.state.count):
            self.pull_one(s)

    def pull_one(self, s: int) -> None:
        self._find([o for o in self.state.working[s].values() if o.state in ("intent", "unknown")])
        if any(o.state in ("intent", "unknown") for o in self.state.working[s].values()):
            return  # a fill of an order that is not known yet would seem foreign
        with suppress(*NOT_TOLD):
            open_ms = self.state.last_open_ms
            self.revive(found_late(self, s, s not in self._looked_ms or self._looked_ms[s] != open_ms))
            self._looked_ms[s] = open_ms
        self._book_fills(s)  # also of what somebody else sold
        self._book_ends(s)

    def watch(self, last: Mapping[int, float]) -> None:
        """Sell what should have been sold by an order that the exchange does not have. last: prices by symbol's index."""
        for s, price in last.items():
            reason = overdue(self.state, s, price)
            if reason is not None:
                self.get_out(s, REASON_NAMES[reason], f"the last price is {price!r}")
                self.carry_on(s)
            elif price <= self.state.position(s).stop and self.offers(s).kept and not has_stop(self.state, s):
                self.told.sell_now(s)
                self.carry_on(s)

    def get_out(self, s: int, reason: str, evidence: str) -> None:
        """From now on nothing of symbol s is wanted. reason: that of the exit, as trades tell it."""
        symbol = self.state.traded[s].symbol
        body = {
            "action": "exit", "symbol": symbol.id, "market": symbol.market, "reason": reason, "by": "engine",
            "evidence": evidence,
        }  # fmt: skip
        name = f"exit:{symbol.id}:{self.state.seq + 1}"
        self.append([Entry(name, "control", self.now(), body, self.session_id)])
        self.tell(Event("warning", "exit", f"{symbol.id} is sold at the market ({reason}): {evidence}"))

    def carry_on(self, s: int) -> None:
        """Do what is left to do for symbol s, step by step, until nothing is or something must be waited for."""
        for _ in range(MOST_STEPS):
            self._move_dust(s)
            step = next_step(self.state, s, self.offers(s), self.broker.now_ms())
            if step == NOTHING or not self._carry_out(s, step):
                break
        self._note_protection(s)

    def offers(self, s: int) -> Offers:
        """What the exchange lets us do with symbol s now."""
        return self.told.offers(s, self.state.held(s), self.broker.now_ms())

    def _move_dust(self, s: int) -> None:
        entries = dust_entries(self.state, s, self._is_too_little(s), self.now(), self.session_id)
        if entries:
            self.append(entries)

    def _is_too_little(self, s: int) -> bool:
        """Of what is held nothing can be sold, as the exchange says."""
        return self.offers(s).dust

    def _carry_out(self, s: int, step: Step) -> bool:
        """Whether something changed, so that the plan may go on."""
        if step.find:
            return self._find(step.find)
        if step.cancel:
            cancelled = [self._cancel(s, order) for order in step.cancel]  # each, also after one that failed
            return all(cancelled)
        return self._place(s, step.place)

    # Each of these ends with the outcome in the ledger.

    def _place(self, s: int, wanted: Sequence[Wanted]) -> bool:
        enters = any(w.purpose == "entry" for w in wanted)
        if self.broker.now_ms() < self.silent_until_ms:
            return False
        if enters and self._barred(wanted[0]):
            return False  # the next close forgets it
        named = [w.order._replace(client_order_id=self._name(w)) for w in wanted]
        window = Window(self.broker.now_ms(), self.window_ms)  # before the commit: a fence comes after it
        try:
            self.append([self._intent(w.purpose, order) for w, order in zip(wanted, named, strict=True)])
        except UsageError:  # halted since the last look: the ledger takes no entry
            self.catch_up()
            if not self.state.books.halted:
                raise
            return False
        except DatabaseUnavailable:
            if not self.journal.away:
                raise
            return False  # it is written nowhere, so it is not sent
        if enters and (why := self._barred(wanted[0])):  # since a moment ago
            self._conclude(named, "denied", f"not sent: {why}")
            return False
        return self._send(s, wanted, named, window)

    def _send(self, s: int, wanted: Sequence[Wanted], named: Sequence[NewOrder], window: Window) -> bool:
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
            self._conclude(named, "rejected", error.what, refused_as=reason_of(error))
            return refused(self, s, wanted, error)
        except ExchangeUnavailable as error:  # not sent, or certainly not taken
            self._conclude(named, "denied", error.what)
            return False
        recorded = [self._record(order) for order in seen]
        return all(recorded)

    def _barred(self, entry: Wanted) -> str:
        """Why it may not be bought; empty where it may."""
        halted = self.state.books.halted
        why = f"the account is halted: {halted}" if halted else self.halted() or self.hold or self.no_entries()
        why = why or ("the database is out" if self.journal.away else "")
        if why:
            self.tell(Event("warning", "entry_blocked", f"{entry.order.symbol.id} is not bought: {why}"))
        return why

    def _note_protection(self, s: int) -> None:
        """How long what is held is without what should rest for it."""
        state, now = self.state, self.broker.now_ms()
        p = state.position(s)
        missing = p.qty > 0 and p.stop == p.stop and not has_stop(self.state, s)
        symbol = state.traded[s].symbol.id
        passed_ms = self.bare.note(s, missing, state.filled_ms.get(s, 0), now)
        if passed_ms is not None:
            self.tell(Event("info", "unprotected", f"{symbol} was without its stop for {passed_ms / 1000:.3f} s"))

    def _cancel(self, s: int, order: Order) -> bool:
        symbol = self.state.traded[s].symbol
        try:
            seen = self.broker.cancel(symbol, order.client_order_id)
        except OrderUnknown as error:
            self._note(order.client_order_id, "unknown", error.what)
            return False
        except ExchangeRefused:  # it is at its end already, or another's
            return self._find([order]) and self._known(order.client_order_id).state in FINAL_STATES
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
            self._book_fills(s, in_ms(known.created_at))
        if self._known(name).filled_qty < seen.filled_qty:
            return False
        if seen.state in FINAL and self._known(name).state not in FINAL_STATES:
            self._note(name, seen.state, "")
        return True

    def revive(self, seen: Iterable[SeenOrder]) -> bool:
        """Go on with what the exchange has and the ledger takes for never sent. Whether there was any."""
        orders = self.state.books.orders
        late = [o for o in seen if o.client_order_id in orders and orders[o.client_order_id].state == "denied"]
        for order in late:
            what = f"{order.client_order_id} ({order.side} {order.qty:f} {order.symbol.id}) did arrive: it is {order.state}"
            self.tell(Event("warning", "late_order", what))
            self._record(order)
        return bool(late)

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
                never = seen is None and self._never_arrived(order)
            except NOT_TOLD:
                return False
            if seen is not None:
                known = self._record(seen) and known
            elif never:
                self._note(order.client_order_id, "denied", NEVER_HEARD)
            else:
                known = False
        return known

    def _never_arrived(self, order: Order) -> bool:
        """Of an order that is not found. What was seen once is there, whatever is said."""
        return not order.venue_order_id and self._long_ago(order) and not may_have_arrived(self, order)

    def _long_ago(self, order: Order) -> bool:
        sent_ms = order.created_at.timestamp() * 1000
        return self.broker.now_ms() > sent_ms + WINDOW_MS + SETTLE_MS

    def _book_fills(self, s: int, since_ms: int | None = None) -> None:
        book_fills(self, s, since_ms)

    def _book_ends(self, s: int) -> None:
        """Orders that work by the books and do not at the exchange: what became of them."""
        symbol = self.state.traded[s].symbol
        if not self.state.working[s]:
            return
        try:
            seen = self.broker.open_orders([symbol])
        except NOT_TOLD:
            return
        self.revive(seen)
        there = {order.client_order_id for order in seen}
        gone = [order for name, order in self.state.working[s].items() if name not in there]
        if gone:
            self._find(gone)
            self._book_fills(s)

    # Entries.

    def _name(self, wanted: Wanted) -> str:
        """The first id for this purpose and candle that was never used."""
        symbol, candle_ms = wanted.order.symbol.id, self.state.last_open_ms or 0
        key = symbol, candle_ms, wanted.purpose
        if key not in self._attempts:
            self._attempts = {k: tried for k, tried in self._attempts.items() if k[1] == candle_ms}
        for attempt in count(self._attempts.get(key, 0)):
            name = client_order_id(self.identity, symbol, candle_ms, wanted.purpose, attempt)
            if name not in self.state.books.orders:
                break
        self._attempts[key] = attempt
        return name

    def _intent(self, purpose: str, order: NewOrder) -> Entry:
        body = {
            "client_order_id": order.client_order_id, "symbol": order.symbol.id, "market": order.symbol.market,
            "side": order.side, "type": order.type, "qty": order.qty, "price": order.price,
            "stop_price": order.stop_price, "purpose": purpose,
        }  # fmt: skip
        return Entry(f"intent:{order.client_order_id}", "intent", self.now(), body, self.session_id)

    def _conclude(self, orders: Sequence[NewOrder], state: str, reason: str, **more: str) -> None:
        for order in orders:
            self._note(order.client_order_id, state, reason, **more)

    def _note(self, name: str, state: str, reason: str, **more: str) -> None:
        self.append([self._order_entry({"client_order_id": name, "state": state, "reason": reason, **more})])

    def _order_entry(self, body: dict[str, Any]) -> Entry:
        """The same state again, later, is another fact: an order may be unknown, open, and unknown again."""
        count = self.state.seq + 1
        return Entry(
            f"order:{body['client_order_id']}:{body['state']}:{count}", "order", self.now(), body, self.session_id
        )

    def now(self) -> datetime:
        return moment(self.broker.now_ms())
