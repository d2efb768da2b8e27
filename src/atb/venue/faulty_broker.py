"""The simulated broker behind a bad line, at an exchange with bad days: for rehearsals.

    broker = FaultyBroker(SimulatedBroker(...), FaultPlan(seed, Fault("place", "unknown_after", 0.1)))

Show it the market as one shows it to the simulated broker: what was held up happens in between.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar

from atb.core.errors import ExchangeRefused, ExchangeUnavailable
from atb.core.orders import WORKING, Balance, KeyRights, NewOrder, SeenFill, SeenOrder, SeenTransfer
from atb.core.timeframe import moment
from atb.core.types import MarketRules, Symbol
from atb.venue.broker import OrderRefused, OrderUnknown, Window
from atb.venue.faults import CHANGING, Fault, FaultPlan
from atb.venue.simulated_audit import AuditReport
from atb.venue.simulated_book import Pieces, client_id_of
from atb.venue.simulated_broker import WHOLE, SimulatedBroker

T = TypeVar("T")
Faults = dict[str, Fault]


class FaultyBroker:
    """A venue.broker.Broker whose calls go wrong as the plan says."""

    def __init__(self, broker: SimulatedBroker, plan: FaultPlan) -> None:
        self.broker, self.plan = broker, plan
        self.venue, self.features = broker.venue, broker.features
        self.down_until_ms = 0  # of the exchange's clock; may be set
        self._hidden_until: dict[str, int] = {}  # by client order id
        self._later: list[tuple[int, Callable[[], object]]] = []  # what the exchange does at a time of its clock

    # The market, as the caller shows it.

    def opened(self, symbol: Symbol, open_ms: int, open_: float) -> None:
        self._catch_up()
        self.broker.opened(symbol, open_ms, open_)

    def match_open(self) -> None:
        self._catch_up()
        self.broker.match_open()

    def ranged(self, symbol: Symbol, open_ms: int, high_so_far: float, low_so_far: float, last: float) -> None:
        self._catch_up()
        self.broker.ranged(symbol, open_ms, high_so_far, low_so_far, last)

    def closed(self, symbol: Symbol, open_ms: int, close: float) -> None:
        self._catch_up()
        self.broker.closed(symbol, open_ms, close)

    # The port. What does not ask the exchange does not fail.

    def now_ms(self) -> int:
        return self.broker.now_ms()

    def market_rules(self, symbol: Symbol, fresh: bool = False) -> MarketRules:
        return self.broker.market_rules(symbol, fresh)

    def rights(self) -> KeyRights:
        return self.broker.rights()

    def tells_all(self) -> bool:
        """Whether it answers now and hides nothing that is there."""
        now = self.now_ms()
        return now >= self.down_until_ms and all(now >= until_ms for until_ms in self._hidden_until.values())

    def audit(self) -> AuditReport:
        self._catch_up()
        return self.broker.audit()

    def place(self, order: NewOrder, window: Window) -> SeenOrder:
        faults = self._call("place", order.type)

        def do() -> SeenOrder:
            seen = self.broker.place(order, window, _pieces(faults))
            self._afterwards(faults, seen)
            return seen

        return self._send(faults, do)

    def place_pair(self, take: NewOrder, stop: NewOrder, window: Window) -> tuple[SeenOrder, SeenOrder]:
        faults = self._call("place_pair", take.type, stop.type)

        def do() -> tuple[SeenOrder, SeenOrder]:
            seen = self.broker.place_pair(take, stop, window, _pieces(faults))
            self._afterwards(faults, *seen)
            return seen

        return self._send(faults, do)

    def cancel(self, symbol: Symbol, client_order_id: str) -> SeenOrder:
        faults = self._call("cancel")
        seen = self.broker.find(symbol, client_order_id)
        if "finished_refused" in faults and seen is not None and seen.state not in WORKING:
            raise ExchangeRefused(f"The simulated exchange knows no working order {client_order_id}.")
        return self._send(faults, lambda: self.broker.cancel(symbol, client_order_id))

    def find(self, symbol: Symbol, client_order_id: str) -> SeenOrder | None:
        seen = self._visible(self._call("find"), [self.broker.find(symbol, client_order_id)])
        return seen[0] if seen else None

    def open_orders(self, symbols: Sequence[Symbol]) -> list[SeenOrder]:
        return self._visible(self._call("open_orders"), self.broker.open_orders(symbols))

    def fills(self, symbol: Symbol, since_ms: int) -> list[SeenFill]:
        newest = self._newest(self._call("fills"))
        fills = self.broker.fills(symbol, since_ms)
        return [f for f in fills if not self._hidden(client_id_of(f)) and f.at <= newest]

    def orders(self, symbol: Symbol, since_ms: int) -> list[SeenOrder]:
        return self._visible(self._call("orders"), self.broker.orders(symbol, since_ms))

    def transfers(self, since_ms: int) -> list[SeenTransfer] | None:
        newest = self._newest(self._call("transfers"))
        told = self.broker.transfers(since_ms)
        return None if told is None else [transfer for transfer in told if transfer.at <= newest]

    def balances(self) -> dict[str, Balance]:
        self._call("balances")
        return self.broker.balances()

    def _call(self, operation: str, *types: str) -> Faults:
        """What strikes this call; raises where it gets nowhere."""
        self._catch_up()
        nowhere = OrderUnknown if operation in CHANGING else ExchangeUnavailable
        if self.now_ms() < self.down_until_ms:
            raise nowhere("The simulated exchange does not answer.")
        faults = self.plan.strike(operation, *types)
        if "outage" in faults:
            self.down_until_ms = self.now_ms() + faults["outage"].ms
        if "refused" in faults:
            what = f"The simulated exchange refuses: {operation} was struck by a fault."
            raise OrderRefused(what, faults["refused"].reason)
        if not faults.keys().isdisjoint(("outage", "unavailable", "unknown_before")):
            raise nowhere(f"The simulated exchange did not answer: {operation}.")
        return faults

    def _send(self, faults: Faults, do: Callable[[], T]) -> T:
        if "held_up" in faults:
            self._at(faults["held_up"].ms, do)
            raise OrderUnknown("The simulated exchange did not answer in time.")
        if not faults.keys().isdisjoint(("unknown_after", "overlooked")):
            with contextlib.suppress(ExchangeRefused):  # a refusal is lost like any other answer
                do()
            raise OrderUnknown("The simulated exchange's answer was lost.")
        return do()

    def _afterwards(self, faults: Faults, *placed: SeenOrder) -> None:
        for seen in placed:
            name = seen.client_order_id
            hidden_ms = max((faults[kind].ms for kind in ("invisible", "overlooked") if kind in faults), default=0)
            self._hidden_until[name] = self.now_ms() + hidden_ms
            if "vanishes" in faults:
                self._at(faults["vanishes"].ms, partial(self.broker.give_up, name))

    def _at(self, after_ms: int, do: Callable[[], object]) -> None:
        self._later.append((self.now_ms() + after_ms, do))
        self._later.sort(key=lambda due: due[0])

    def _catch_up(self) -> None:
        """Do what the exchange has done by now, at the time at which it did it. Nobody hears of a refusal."""
        while self._later and self._later[0][0] <= self.now_ms():
            due_ms, do = self._later.pop(0)
            with self.broker.as_of(due_ms), contextlib.suppress(ExchangeRefused):
                do()

    def _visible(self, faults: Faults, orders: Sequence[SeenOrder | None]) -> list[SeenOrder]:
        newest = self._newest(faults)
        return [o for o in orders if o is not None and not self._hidden(o.client_order_id) and o.created_at <= newest]

    def _newest(self, faults: Faults) -> datetime:
        """The latest time of which the answer tells."""
        late_ms = faults["late"].ms if "late" in faults else 0
        return moment(self.now_ms() - late_ms)

    def _hidden(self, client_order_id: str) -> bool:
        return self.now_ms() < self._hidden_until.get(client_order_id, 0)


def _pieces(faults: Faults) -> Pieces:
    for kind in ("partial_expires", "partial"):
        if kind in faults:
            return Pieces(faults[kind].parts, kind == "partial_expires")
    return WHOLE
