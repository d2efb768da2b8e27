"""Everything of an account is cancelled and sold at its exchange: by the plan and the executor that trade it, until it is flat.

Flat means: no order of ours works or may be on its way, and nothing of ours is left that could be sold by the exchange's rules.
Coins that are the owner's are not touched. What is too little to be sold is dust: kept apart, and told. What could not be sold
in time has its stop again.
"""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal

from atb.core.errors import AtbError, DatabaseUnavailable, DataError, Disagreement, ExchangeRefused, ExchangeUnavailable
from atb.core.timeframe import in_ms
from atb.core.types import Symbol
from atb.execution.adopting import unknown_entries
from atb.execution.closing_executor import ClosingExecutor
from atb.execution.closing_outcome import Left, Outcome, cancelled, sold
from atb.execution.copying import NotingJournal
from atb.execution.dust import dust_back, dust_change
from atb.execution.executor import WINDOW_MS
from atb.execution.fills import NOT_TOLD, OVERLAP_MS, Event
from atb.execution.reconciler import Reconciler
from atb.execution.state import TradingState
from atb.execution.traded import Traded
from atb.ledger.entries import Entry
from atb.venue.ccxt_session import Barred, UnknownSymbol

TRYING_S = 60.0
PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0  # between looks, while something is left,
UNKNOWN_PAUSE_S = 0.4  # or while it is not known whether an order arrived
UNKNOWN = ("intent", "unknown")
# Two measurements of the exchange's clock may differ, and at Coinbase a sale ends with a whole second.
MARGIN_MS = 1_500
ENOUGH = 6  # looks at coins that are not there
COMPARE_FROM = 2  # looks that leave something, after which what came and went is asked for


class Closing:
    """One account, whose authority is this process'. since: nothing that its exchange had by then is unknown.

    alive: called at each look, while it lasts. pause: what waiting is.
    """

    def __init__(
        self, executor: ClosingExecutor, *, reason: str, by: str, since: datetime | None = None,
        alive: Callable[[], object] = lambda: None, pause: Callable[[float], object] = time.sleep,
        trying_s: float = TRYING_S,
    ) -> None:  # fmt: skip
        self.executor, self.reason, self.by, self.alive, self.pause = executor, reason, by, alive, pause
        self.noting = executor.journal = NotingJournal(executor.journal)
        self.trying_s, self.since_ms = trying_s, 0 if since is None else max(0, in_ms(since) - OVERLAP_MS)
        self.trouble: dict[int, AtbError] = {}
        self._unseen: set[int] = set()
        self._is_barred = False  # was, at least once
        self._learned: TradingState | None = None  # it knows the rules of now
        self._began_s, self._random = time.monotonic(), random.Random()

    @property
    def state(self) -> TradingState:
        return self.executor.state

    def run(self, *, others: bool) -> Outcome:
        """Until it is flat, or for `trying_s` seconds. others: somebody else may have signed an order before he was fenced: so
        it is looked at again when the exchange takes none of those any more. However it ends, what it leaves has its stop."""
        try:
            after_s = self._run(others)
        except BaseException:
            self._protect()
            self._tell_left()
            raise
        is_flat, entries = self._is_flat(), self.noting.entries
        if not is_flat:
            self._protect()
        rest = self._dust() if is_flat else []
        made = sold(entries, self.state.books.quote)
        return Outcome(made, self._left(), rest, cancelled(entries), after_s if is_flat else None)

    def _run(self, others: bool) -> float:
        """Returns after how many seconds it was flat, if it is."""
        exchange_ms = self._exchange_ms()
        self._until_flat()
        after_s = time.monotonic() - self._began_s
        if others and self._is_flat():
            quiet_ms = exchange_ms + WINDOW_MS + MARGIN_MS
            self.pause(max(0.0, (quiet_ms - self.executor.broker.now_ms()) / 1000))
            before = len(self.noting.entries)
            self._until_flat()
            if len(self.noting.entries) > before:
                after_s = time.monotonic() - self._began_s
        return after_s

    def _exchange_ms(self) -> int:
        """The exchange's clock, which is asked for once: without it nothing can be signed."""
        for wait_s in self._waits():
            try:
                return self.executor.broker.now_ms()
            except NOT_TOLD:
                self.alive()
                self.pause(wait_s)
        return self.executor.broker.now_ms()

    def _rules(self) -> None:
        """Lots may be others than when they were bought; where nobody tells, they are what they were. A state that is folded
        anew has forgotten them."""
        if self._learned is self.state:
            return
        self._learned = self.state
        for traded in self.state.traded:
            with contextlib.suppress(*NOT_TOLD, DataError):
                self.state.learn(Traded(traded.symbol, self.executor.broker.market_rules(traded.symbol)))

    def _until_flat(self) -> None:
        self._unseen = set(range(self.state.count))
        for look, wait_s in enumerate(self._waits()):
            self.alive()
            self._look()
            if self._is_flat() or (look >= ENOUGH and all(self._is_missing(s) for s in self._concerned())):
                return
            if look >= COMPARE_FROM and not self.executor.journal.away:
                with contextlib.suppress(DatabaseUnavailable):
                    Reconciler(self.executor, self.pause).look()  # such as coins that were sent away
            self.pause(self._random.uniform(0.5, 1.0) * self._pause_s(wait_s))

    def _pause_s(self, wait_s: float) -> float:
        return min(wait_s, UNKNOWN_PAUSE_S) if any(map(self._is_unknown, self._open())) else wait_s

    def _is_missing(self, s: int) -> bool:
        """The exchange has nothing of it that could be sold, whatever the books say."""
        free = self.executor.told.offers(s, self.state.held(s)).most
        return free is not None and free < self.state.traded[s].rules.lot

    def _is_unknown(self, s: int) -> bool:
        return any(order.state in UNKNOWN for order in self.state.working[s].values())

    def _waits(self) -> Iterable[float]:
        """Seconds to wait, each time longer, for as long as it is tried; once in any case."""
        wait_s, until_s = PAUSE_S, time.monotonic() + self.trying_s
        yield wait_s
        while time.monotonic() < until_s:
            yield wait_s
            wait_s = min(wait_s * 1.5, LONGEST_PAUSE_S)

    def _look(self) -> None:
        """What is there; then what is left to do."""
        self._rules()
        for s in self._concerned():
            self._try(s, self._pull)
        if self._open() and len(self.state.flattening) < len(self.state.traded):
            self._flatten()
        for s in (s for s in self._concerned() if not self._is_unknown(s)):
            self._try(s, self.executor.act_on)
        self.executor.keep(self.state)

    def _concerned(self) -> list[int]:
        return sorted({*self._open(), *self._unseen})

    def _pull(self, s: int) -> None:
        if s in self._unseen:
            self._adopt(s)
        self.executor.pull_one(s)

    def _try(self, s: int, work: Callable[[int], object]) -> None:
        try:
            work(s)
            self.trouble.pop(s, None)
        except NOT_TOLD as error:
            if isinstance(error, Barred) and not self._is_barred:
                self._is_barred = True
                self.executor.tell(Event("warning", "barred", f"{error.what} It is tried again. {error.hint}".strip()))
            self.trouble[s] = error

    def _adopt(self, s: int) -> None:
        """Orders of ours that the ledger has never heard of."""
        e = self.executor
        symbol = self.state.traded[s].symbol
        try:
            found = unknown_entries(
                e.broker, e.identity, [symbol], self.state.books.orders, self.since_ms, e.session_id
            )  # fmt: skip
        except UnknownSymbol:  # it was taken off the exchange since
            if self.state.held(s) or self.state.working[s]:
                raise
            found = []
        if (fill := next((entry for entry in found if entry.kind == "fill"), None)) is not None:
            e.append(dust_back(self.state, s, fill.at, e.session_id))  # it was sold with what was bought
        if found:
            e.append(found)
        self._unseen.discard(s)

    def _flatten(self) -> None:
        body = {"action": "flatten", "reason": self.reason, "by": self.by}
        entry = Entry(f"flatten:{uuid.uuid4().hex}", "control", datetime.now(UTC), body, self.executor.session_id)
        self.executor.append([entry])

    def _protect(self) -> None:
        """What could not be sold has its stop again, as far as the exchange and the ledger let it."""
        for s in self._open():
            with contextlib.suppress(AtbError):
                self.executor.pull_one(s)
                self.executor.protect(s)
        self.executor.keep(self.state)

    def _tell_left(self) -> None:
        for left in (each for each in self._left() if each.qty):
            what = f"{left.qty:f} {left.symbol.id} is not sold; {left.protection}."
            self.executor.tell(Event("critical", "not_closed", what))

    # What is left.

    def _is_flat(self) -> bool:
        return not self._unseen and not self._open()

    def _open(self) -> list[int]:
        """Symbols with an order of ours that may work, or with something that could be sold."""
        return [s for s in range(self.state.count) if self.state.working[s] or self.executor.could_be_sold(s)]

    def _left(self) -> list[Left]:
        return [self._what_is_left(s) for s in self._concerned()]

    def _what_is_left(self, s: int) -> Left:
        symbol, held, working = self.state.traded[s].symbol, self.state.held(s), self.state.working[s]
        stop = next((o for o in working.values() if o.purpose == "stop" and o.state not in UNKNOWN), None)
        orders = [name for name, order in working.items() if order is not stop]
        why, kind = self._why(s)
        return Left(symbol, held, orders, why, kind, stop.stop_price if stop else None)

    def _why(self, s: int) -> tuple[str, type[AtbError]]:
        symbol, free = self.state.traded[s].symbol, self.executor.told.offers(s, self.state.held(s)).most
        if free is not None:
            return f"only {free.normalize():f} of it is free at the exchange.", Disagreement
        if (trouble := self.trouble.get(s)) is not None:
            return trouble.what, ExchangeRefused if isinstance(trouble, Barred) else ExchangeUnavailable
        ended = [o for o in self.state.books.orders.values() if o.key == (symbol.market, symbol.id) and o.reason]
        last = max(ended, key=lambda order: order.updated_at, default=None)
        return last.reason if last else "the exchange did not sell it in time.", ExchangeUnavailable

    def _dust(self) -> list[tuple[Symbol, Decimal]]:
        """What the executor keeps apart; while the database is away it is held still."""
        for s in range(self.state.count):
            if self.state.held(s):
                self._try(s, self.executor.carry_on)
        self.executor.keep(self.state)
        told = [change for entry in self.noting.entries if (change := dust_change(entry)) is not None and change[1] > 0]
        symbols = {traded.symbol.base: traded.symbol for traded in self.state.traded}
        held = [(t.symbol, self.state.held(s)) for s, t in enumerate(self.state.traded) if self.state.held(s)]
        return [*((symbols[asset], qty) for asset, qty in told), *held]
