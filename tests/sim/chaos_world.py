"""A world in which everything goes wrong that can: what, and how often, follows from a seed.

Beside the faults of the exchange and deaths at every boundary: processes that stay away for a while and then find candles that
closed meanwhile, a database that is out, wrong clocks, an operator with his commands, an owner who trades by hand.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from atb.core.errors import DatabaseUnavailable, ExchangeRefused, ExchangeUnavailable
from atb.core.orders import SeenOrder
from atb.core.timeframe import in_ms
from atb.engine.candles import Candles
from atb.execution.executor import SETTLE_MS, WINDOW_MS
from atb.execution.reconcile import differences
from atb.execution.reconciler import Reconciler
from atb.execution.session import Session
from atb.ledger.connect import Where
from atb.live.trader import Trader
from atb.venue.faults import Fault
from tests.property.test_engine_equals_reference import Case
from tests.sim.mortal import Crash
from tests.sim.operator_acts import Operator
from tests.sim.owner import Owner
from tests.sim.weather import Door, Weather
from tests.sim.world import FAULTS, World

PASSES = (DatabaseUnavailable, ExchangeUnavailable, ExchangeRefused)  # told by the loop, and tried again
MORE_FAULTS = (
    Fault("fills", "late", 0.05, ms=400_000), Fault("*", "held_up", 0.1, ms=1_900),
    Fault("*", "refused", 0.2, types=("stop", "take_limit")),
    Fault("place", "refused", 0.05, types=("stop",), reason="would_trigger"),
    Fault("place", "refused", 0.05, types=("stop",), reason="insufficient_balance"),
    Fault("*", "vanishes", 0.2, ms=4_000, types=("stop",)), Fault("*", "partial", 0.3, parts=3),
)  # fmt: skip
MOST_STARTS = 300  # 25 minutes: every outage is over by then
UNKNOWN = ("intent", "unknown")
LONGEST_ROWS = 20
LEAST = 5.0
LOOKS_S = (0, 1, 6, 300)  # after an open, and half-way to the next
RESTART_S = 5  # until another process is started where one could not


class Draw(NamedTuple):
    """How bad a day is: all of it follows from the seed."""

    rows: int
    deaths: float
    kill_at: frozenset[int]  # one at least is certain
    faults: Sequence[Fault]
    stays_away: float
    reconciles: bool
    owner: float
    operator: float
    outages: float
    skew_ms: int


def drawn(seed: int) -> Draw:
    rng = random.Random(f"chaos {seed}")
    owner = rng.choice((0.0, 0.0, 0.08))
    return Draw(
        rng.randint(8, LONGEST_ROWS), rng.choice((0.001, 0.003, 0.012)), frozenset({rng.randint(1, 300)}),
        [f for f in (*FAULTS, *MORE_FAULTS) if rng.random() < 0.6 and not (owner and f.kind == "overlooked")],
        rng.choice((0.0, 0.0, 0.2)),
        owner > 0 or rng.random() < 0.5, owner, rng.choice((0.0, 0.05)), rng.choice((0.0, 0.0, 0.01, 0.03)),
        rng.choice((0, 0, 300, 900)),
    )  # fmt: skip


def owned(draw: Draw, often: float) -> Draw:
    """The same day with an owner who acts so often."""
    faults = [fault for fault in draw.faults if fault.kind != "overlooked"]
    return draw._replace(owner=often, reconciles=True, faults=faults)


class ChaosWorld(World):
    """`bare`: (symbol, time) of checks that nothing disturbed and that left a position without its stop. owner: how often he
    acts, 0 for what the seed says."""

    def __init__(self, where: Where, seed: int, home: Path, owner: float = 0.0) -> None:
        self.draw = draw = owned(drawn(seed), owner) if owner else drawn(seed)
        self.random = random.Random(f"chaos life {seed}")
        self.missed: list[tuple[int, Mapping[str, Candles]]] = []
        self.down = self.quiet = self.looks = 0
        self.bare: list[str] = []
        self.bare_looks: Counter[int] = Counter()
        self.worst_bare = 0
        weather = Weather(Door(seed), seed, draw.outages, 80) if draw.outages else None
        super().__init__(
            where, seed, deaths=draw.deaths, faults=draw.faults, home=home, weather=weather, kill_at=draw.kill_at
        )
        self.owner = Owner(self.exchange, self.traded, self.last, seed, draw.owner)
        self.operator = Operator(self, home, seed, draw.operator)

    def made(self, seed: int) -> Case:
        """A market that takes no order of next to nothing: the fee of one has more digits than any exchange tells."""
        case = super().made(seed)
        for market in case.markets:
            market.min_notional = max(market.min_notional, LEAST)
        return case

    # Processes come and go.

    def begin(self) -> tuple[Session, Trader]:
        self.skew_ms = self.random.randint(-self.draw.skew_ms, self.draw.skew_ms)
        session, trader = super().begin()
        try:
            trader.begin()
            self.reconciler = Reconciler(session.executor, pause=self._pause)
            if self.draw.reconciles:
                self.reconciler.start()
        except BaseException:
            session.journal.close()
            raise
        return session, trader

    def _pause(self, seconds: float) -> None:
        self.clock.time_ms += round(1000 * seconds)

    def start(self) -> None:
        """Again and again, until one does not die on the way and finds exchange and database."""
        for left in reversed(range(MOST_STARTS)):
            try:
                super().start()
                return
            except PASSES:
                if not left:
                    raise RuntimeError(f"None of {MOST_STARTS} starts in a row came to trade.") from None
                self._pause(RESTART_S)
                if self.fate.weather is not None:
                    self.fate.weather.clear_up()

    def present(self) -> bool:
        """Whether a process is there, or can be started."""
        if self.down:
            self.down -= 1
            if not self.down:
                self.restart()
        return not self.down

    def act(self, work: str) -> None:
        """Let the process do it; if it dies, it stays away for a while, or another one does it."""
        while self.present():
            try:
                getattr(self, work)()
                return
            except Crash:
                self.quiet = 0
                self.down = self.random.randint(2, 12) if self.random.random() < self.draw.stays_away else 1
            except PASSES:
                self.quiet = 0
                return

    # What it does.

    def look(self, from_ms: int, after_s: Sequence[int]) -> None:
        for seconds in after_s if len(after_s) < 5 else LOOKS_S:
            self.clock.time_ms = max(self.clock.time_ms, from_ms + 1000 * seconds)
            if self.owner.may_act() | self.operator.may_act():
                self.quiet = 0
            self.act("cycle")

    def close(self, open_ms: int, windows: Mapping[str, Candles]) -> None:
        self.quiet = 0
        self.missed.append((open_ms, windows))
        self.act("decide")

    def decide(self) -> None:
        """On what has closed since the last decision; of several only the last is acted on."""
        while self.missed:
            open_ms, windows = self.missed[0]
            if open_ms > (self.session.state.last_open_ms or 0):
                self.trader.close(open_ms, windows, act=len(self.missed) == 1)
            self.missed.pop(0)

    def cycle(self) -> None:
        """As live/loop.py does it."""
        struck = len(self.plan.struck)
        self.executor.catch_up()
        self.decide()
        self.trader.look(self.clock.now_ms())
        if self.draw.reconciles:
            self.reconciler.look()
        self.executor.watch(self.last)
        self.looks += 1
        undisturbed = struck == len(self.plan.struck) and self.broker.tells_all() and not self.executor.journal.away
        self.quiet = self.quiet + 1 if undisturbed else 0
        self._note_bare()

    # Whether what is held has its stop.

    def _note_bare(self) -> None:
        for s, traded in enumerate(self.traded):
            self.bare_looks[s] = self.bare_looks[s] + 1 if self._is_bare(s) else 0
            self.worst_bare = max(self.worst_bare, self.bare_looks[s])
            if self.bare_looks[s] and self.quiet > 1:
                self.bare.append(f"{traded.symbol.id} at {self.clock.now_ms()} ms")

    def _is_bare(self, s: int) -> bool:
        """A position that should have a stop, and is not being sold or completed, lacks one for what could be sold.

        Not while an order is of unknown fate, but no longer than that takes to be found out.
        """
        state, p, (symbol, rules) = self.session.state, self.session.state.position(s), self.traded[s]
        if p.qty <= 0 or p.stop != p.stop or p.target_qty != p.qty or s in state.flattening or state.waits(s):
            return False
        oldest_ms = self.clock.now_ms() - WINDOW_MS - SETTLE_MS - 2 * self.draw.skew_ms
        if any(o.state in UNKNOWN and in_ms(o.created_at) >= oldest_ms for o in state.working[s].values()):
            return False
        orders = self.exchange.open_orders([symbol])
        if not ours_alone(orders, state.books.orders) or differences(
            state.books, "simulated", self.exchange.balances()
        ):
            return False
        stops = sum(o.qty - o.filled_qty for o in orders if o.type in ("stop", "stop_limit"))
        return stops < state.held(s) // rules.lot * rules.lot

    # The end of the day.

    @property
    def sent(self) -> int:
        """How many orders the exchange has taken."""
        return sum(len(self.exchange.orders(traded.symbol, 0)) for traded in self.traded)

    @property
    def owns_alone(self) -> bool:
        """Nobody else's orders lock anything: what they lock is asked for at each check."""
        known = self.session.state.books.orders
        return all(ours_alone(self.exchange.open_orders([traded.symbol]), known) for traded in self.traded)

    def calm_down(self) -> None:
        self.owner.often = self.operator.often = 0.0
        self.fate.at, self.down = set(), min(self.down, 1)
        super().calm_down()


def ours_alone(orders: Sequence[SeenOrder], known: Collection[str]) -> bool:
    return all(order.client_order_id in known for order in orders)
