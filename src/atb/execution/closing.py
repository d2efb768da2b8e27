"""Everything of an account is cancelled and sold at its exchange: by the plan and the executor that trade it, until it is flat.

Flat means: no order of ours works or may be on its way, and nothing of ours is left that could be sold. Coins that are the
owner's are not touched. What is too little to be sold is dust: kept apart, and told.
"""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from atb.core.errors import DatabaseUnavailable, DataError, ExchangeUnavailable
from atb.core.money import floor_to
from atb.core.timeframe import in_ms
from atb.core.types import Symbol
from atb.execution.adopting import unknown_entries
from atb.execution.copying import NotingJournal
from atb.execution.dust import dust_back, dust_change, is_dust
from atb.execution.executor import WINDOW_MS, Executor
from atb.execution.fills import NOT_TOLD, OVERLAP_MS
from atb.execution.reconciler import Reconciler
from atb.execution.state import TradingState
from atb.execution.traded import Traded
from atb.ledger.entries import Entry
from atb.venue.ccxt_session import Barred

TRYING_S = 60.0
PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0  # between looks, while something is left,
UNKNOWN_PAUSE_S = 0.4  # or while it is not known whether an order arrived
UNKNOWN = ("intent", "unknown")
MARGIN_MS = (
    1_500  # two measurements of the exchange's clock may differ, and at Coinbase a sale ends with a whole second
)
ENOUGH = 6  # looks at coins that are not there
COMPARE_FROM = 2  # looks that leave something, after which what came and went is asked for


class Sold(NamedTuple):
    """What was executed of one symbol, for one reason. qty in base; value and fee in quote."""

    symbol: str
    market: str
    reason: str
    qty: Decimal
    value: Decimal
    fee: Decimal

    @property
    def price(self) -> Decimal:
        return self.value / self.qty


class Left(NamedTuple):
    """What is not flat. orders: client ids of those that work, or may. missing: the exchange has less of it than the books."""

    symbol: Symbol
    qty: Decimal
    orders: Sequence[str]
    why: str
    missing: bool = False


class Outcome(NamedTuple):
    """What an account's close came to. flat_after_s: None where it is not flat."""

    sold: Sequence[Sold]
    left: Sequence[Left]
    dust: Sequence[tuple[Symbol, Decimal]]
    cancelled: Sequence[str]
    flat_after_s: float | None


class Closing:
    """One account, whose authority is this process'. since: nothing that its exchange had by then is unknown.

    alive: called at each look, while it lasts. pause: what waiting is.
    """

    def __init__(
        self, executor: Executor, *, reason: str, by: str, since: datetime | None = None,
        alive: Callable[[], object] = lambda: None, pause: Callable[[float], object] = time.sleep,
        trying_s: float = TRYING_S,
    ) -> None:  # fmt: skip
        self.executor, self.reason, self.by, self.alive, self.pause = executor, reason, by, alive, pause
        self.noting = executor.journal = NotingJournal(executor.journal)
        self.trying_s, self.since_ms = trying_s, 0 if since is None else max(0, in_ms(since) - OVERLAP_MS)
        self.trouble: dict[int, str] = {}
        self._unseen: set[int] = set()
        self._began_s, self._random = time.monotonic(), random.Random()

    @property
    def state(self) -> TradingState:
        return self.executor.state

    def run(self, *, others: bool) -> Outcome:
        """Until it is flat, or for `trying_s` seconds. others: somebody else may have signed an order before he was fenced: so
        it is looked at again when the exchange takes none of those any more."""
        exchange_ms = self._exchange_ms()
        self._rules()
        self._until_flat()
        after_s = time.monotonic() - self._began_s
        if others and self._is_flat():
            quiet_ms = exchange_ms + WINDOW_MS + MARGIN_MS
            self.pause(max(0.0, (quiet_ms - self.executor.broker.now_ms()) / 1000))
            before = len(self.noting.entries)
            self._until_flat()
            if len(self.noting.entries) > before:
                after_s = time.monotonic() - self._began_s
        rest = self._dust() if self._is_flat() else []
        return Outcome(self._sold(), self._left(), rest, self._cancelled(), after_s if self._is_flat() else None)

    def _exchange_ms(self) -> int:
        """The exchange's clock, which is asked for once: without it nothing can be signed."""
        for wait_s in self._waits():
            try:
                return self.executor.broker.now_ms()
            except ExchangeUnavailable:
                self.alive()
                self.pause(wait_s)
        return self.executor.broker.now_ms()

    def _rules(self) -> None:
        """Lots may be others than when they were bought; where nobody tells, they are what they were."""
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
        except Barred:
            raise
        except NOT_TOLD as error:
            self.trouble[s] = error.what

    def _adopt(self, s: int) -> None:
        """Orders of ours that the ledger has never heard of."""
        e = self.executor
        symbol = self.state.traded[s].symbol
        found = unknown_entries(
            e.broker, e.identity, [symbol], self.state.books.orders, self.since_ms, e.session_id
        )  # fmt: skip
        if (fill := next((entry for entry in found if entry.kind == "fill"), None)) is not None:
            e.append(dust_back(self.state, s, fill.at, e.session_id))  # it was sold with what was bought
        if found:
            e.append(found)
        self._unseen.discard(s)

    def _flatten(self) -> None:
        body = {"action": "flatten", "reason": self.reason, "by": self.by}
        entry = Entry(f"flatten:{uuid.uuid4().hex}", "control", datetime.now(UTC), body, self.executor.session_id)
        self.executor.append([entry])

    # What is left.

    def _is_flat(self) -> bool:
        return not self._unseen and not self._open()

    def _open(self) -> list[int]:
        """Symbols with an order of ours that may work, or with something that could be sold."""
        return [s for s in range(self.state.count) if self.state.working[s] or self._sellable(s)]

    def _sellable(self, s: int) -> Decimal:
        held = self.state.held(s)
        if self.executor.told.offers(s, held).dust:
            return Decimal(0)
        return floor_to(held, self.state.traded[s].rules.lot)

    def _left(self) -> list[Left]:
        return [self._what_is_left(s) for s in self._concerned()]

    def _what_is_left(self, s: int) -> Left:
        symbol, held, working = self.state.traded[s].symbol, self.state.held(s), list(self.state.working[s])
        free = self.executor.told.offers(s, held).most
        if free is not None:
            return Left(
                symbol, held, working, f"only {free.normalize():f} of it is free at the exchange.", missing=True
            )
        ended = [o for o in self.state.books.orders.values() if o.key == (symbol.market, symbol.id) and o.reason]
        last = max(ended, key=lambda order: order.updated_at, default=None)
        why = self.trouble.get(s) or (last.reason if last else "")
        return Left(symbol, held, working, why or "the exchange did not sell it in time.")

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

    # What was done.

    def _sold(self) -> list[Sold]:
        """Of what was written meanwhile, the executions of what was sold, each symbol's by their reasons."""
        sums: dict[tuple[str, str, str], list[Decimal]] = {}
        for entry in self.noting.entries:
            body = entry.body
            if entry.kind != "fill" or body["side"] != "sell" or is_dust(body):
                continue
            qty = Decimal(body["qty"]) - Decimal(body.get("external_qty", 0))
            if qty:
                key = body["symbol"], body.get("market", "spot"), str(body.get("reason", ""))
                row = sums.setdefault(key, [Decimal(0)] * 3)
                row[0] += qty
                row[1] += qty * Decimal(body["price"])
                row[2] += _fee_in_quote(body, self.state.books.quote)
        return [Sold(*key, *row) for key, row in sorted(sums.items())]

    def _cancelled(self) -> list[str]:
        told = (
            e.body["client_order_id"]
            for e in self.noting.entries
            if e.kind == "order" and e.body["state"] == "cancelled"
        )
        return sorted(set(told))


def _fee_in_quote(body: Mapping[str, Any], quote: str) -> Decimal:
    fee, asset = Decimal(body.get("fee", 0)), body.get("fee_asset", quote)
    if asset == quote:
        return fee
    return fee * Decimal(body["price"]) if asset == body.get("base") else Decimal(body.get("fee_quote", 0))
