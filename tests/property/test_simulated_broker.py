"""Orders placed at the simulated broker fill as the backtest's do: random markets, the same fills to the last bit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple, Self

import pytest

from atb.core.money import lots_to_base, price_to_decimal
from atb.core.order_id import client_order_id, parse_order_id
from atb.core.orders import FINAL, NewOrder, SeenFill
from atb.core.timeframe import ManualClock
from atb.core.types import MarketRules, Symbol
from atb.engine.reasons import TAKE_PROFIT
from atb.engine.records import Market
from atb.engine.rules import make_rules
from atb.engine.simulation import Run, Timeline, timeline
from atb.engine.stepper import Stepper
from atb.venue.broker import Window
from atb.venue.simulated_book import Setup
from atb.venue.simulated_broker import SimulatedBroker
from atb.venue.simulated_state import known_state
from tests.property.test_engine_equals_reference import Case
from tests.seeds import seeds

CASES = 200
Told = tuple[int, int, int, float, float, int]  # row, symbol, lots, price, fee, reason
Between = Callable[["Driver"], None]


class Levels(NamedTuple):
    """What protects a position: its orders are replaced when this changes."""

    qty: int
    stop: float
    take: float


def same(a: Levels | None, b: Levels | None) -> bool:
    return repr(a) == repr(b)  # NaN is no level, and equals itself


class Driver:
    """Targets to orders, and executions back to the stepper: the least that trades."""

    def __init__(self, case: Case, line: Timeline, between: Between | None = None) -> None:
        self.case, self.line, self.between = case, line, between
        self.rules = [market_rules(s, market) for s, market in enumerate(case.markets)]
        self.symbols = [Symbol(known.symbol, known.symbol[:-4], "USDT") for known in self.rules]
        self.known = dict(zip(self.symbols, self.rules, strict=True))
        self.stepper = Stepper(case.markets, make_rules(case.policy, *case.costs), case.balance)
        self.clock = ManualClock(int(line.open_time[0]))
        self.setup = Setup(fee=self.stepper.rules.fee, slip=self.stepper.rules.slip)
        self.broker = SimulatedBroker(self.known, self.setup, self.clock, {"USDT": Decimal(repr(case.balance))})
        self.asked: dict[int, str] = {}  # client id of the market order that waits
        self.protected: dict[int, tuple[Levels, list[str]]] = {}
        self.heard: set[str] = set()
        self.fills: list[Told] = []
        self.attempts = 0
        self.t = 0

    def run(self) -> Self:
        a = self.stepper.account
        for t in range(len(self.line.open_time)):
            self.t, self.clock.time_ms = t, int(self.line.open_time[t])
            self.row(t)
            if a.halted and not a.open_positions:
                break
            if self.between is not None:
                self.between(self)
        return self

    def row(self, t: int) -> None:
        open_, high, low, close, signal = (
            [float(column[t]) for column in self.line.columns[name]]
            for name in ("open", "high", "low", "close", "signal")
        )
        present = [s for s in range(len(self.symbols)) if close[s] == close[s]]
        self.open(present, open_)
        for s in present:
            self.show(s, open_[s], high[s], low[s], close[s])
            self.hear([s])
        for s in present:
            self.broker.closed(self.symbols[s], self.clock.time_ms, close[s])
        self.stepper.close(self.clock.time_ms, close, signal)
        for s in present:
            self.follow(s)

    def show(self, s: int, open_: float, high: float, low: float, close: float) -> None:
        self.broker.ranged(self.symbols[s], self.clock.time_ms, high, low, close)

    def open(self, present: list[int], open_: list[float]) -> None:
        for s in present:
            if self.stepper.account.halted and self.stepper.positions[s].target_qty > self.stepper.positions[s].qty:
                self.broker.cancel(self.symbols[s], self.asked[s])
            self.broker.opened(self.symbols[s], self.clock.time_ms, open_[s])
        self.broker.match_open()
        self.hear(present)
        for s in present:
            self.protect(s)

    def hear(self, symbols: list[int]) -> None:
        """Executions to the stepper, sales first; then whether an order came to its end."""
        new = [(fill.side == "buy", s, fill) for s in symbols for fill in self.news(s)]
        for _, s, fill in sorted(new, key=lambda x: x[:2]):
            self.tell(s, fill)
        for s in symbols:
            if s in self.asked:
                seen = self.broker.find(self.symbols[s], self.asked[s])
                assert seen is not None
                if seen.state in FINAL:
                    del self.asked[s]
                    self.stepper.settled(s)

    def news(self, s: int) -> list[SeenFill]:
        fills = self.broker.fills(self.symbols[s], self.clock.time_ms)
        fills = [fill for fill in fills if fill.venue_trade_id not in self.heard]
        self.heard.update(fill.venue_trade_id for fill in fills)
        return fills

    def tell(self, s: int, fill: SeenFill) -> None:
        p, market = self.stepper.positions[s], self.case.markets[s]
        lots = int(fill.qty / self.rules[s].lot) * (1 if fill.side == "buy" else -1)
        order = parse_order_id(fill.venue_trade_id.split(":")[0])
        assert order is not None
        reason = {"stop": p.stop_reason, "take": TAKE_PROFIT}.get(order.purpose, p.target_reason)
        price, fee = float(fill.price), float(fill.fee)
        self.fills.append((self.t, s, lots, price, fee, reason))
        self.stepper.executed(s, lots, (lots * market.lot) * price, fee, reason)

    def follow(self, s: int) -> None:
        """After a close: an order for what the target lacks, or orders at the levels."""
        p = self.stepper.positions[s]
        if p.target_qty == p.qty or s in self.asked:
            self.protect(s)
            return
        self.unprotect(s)
        side, purpose = ("buy", "entry") if p.target_qty > p.qty else ("sell", "exit")
        order = self.order(s, purpose, side, "market", abs(p.target_qty - p.qty))
        self.broker.place(order, self.window())
        self.asked[s] = order.client_order_id

    def protect(self, s: int) -> None:
        p = self.stepper.positions[s]
        if s in self.asked and p.target_qty < p.qty:
            return
        stop = p.stop if p.stop > 0 else math.nan  # a stop that a coarse tick rounds down to 0 is none
        levels = Levels(p.qty, stop, p.take) if p.qty else None
        if same(levels, self.protected[s][0] if s in self.protected else None):
            return
        self.unprotect(s)
        if levels is not None:
            self.protected[s] = (levels, self.place_levels(s, levels))

    def unprotect(self, s: int) -> None:
        for name in self.protected.pop(s, (None, []))[1]:
            self.broker.cancel(self.symbols[s], name)

    def place_levels(self, s: int, levels: Levels) -> list[str]:
        orders = []
        if levels.take == levels.take:
            orders.append(self.order(s, "take", "sell", "take_limit", levels.qty, price=levels.take))
        if levels.stop == levels.stop:
            orders.append(self.order(s, "stop", "sell", "stop", levels.qty, stop=levels.stop))
        if len(orders) == 2:
            self.broker.place_pair(orders[0], orders[1], self.window())
        elif orders:
            self.broker.place(orders[0], self.window())
        return [order.client_order_id for order in orders]

    def order(
        self, s: int, purpose: str, side: str, type_: str, lots: int, price: float | None = None,
        stop: float | None = None,
    ) -> NewOrder:  # fmt: skip
        rules, self.attempts = self.rules[s], self.attempts + 1
        name = client_order_id("test", rules.symbol, self.clock.time_ms, purpose, self.attempts)
        at = None if price is None else price_to_decimal(price, rules.tick)
        stop_at = None if stop is None else price_to_decimal(stop, rules.tick)
        return NewOrder(name, self.symbols[s], side, type_, lots_to_base(lots, rules.lot), at, stop_at)

    def window(self) -> Window:
        return Window(self.broker.now_ms(), 2000)


def market_rules(s: int, m: Market) -> MarketRules:
    lot, tick, least = (Decimal(repr(x)) for x in (m.lot, m.tick, m.min_notional))
    return MarketRules(f"S{s}USDT", lot, tick, least, "test", "2024-01-01")


def expected(run: Run) -> list[Told]:
    return [tuple(f[name].item() for name in ("t", "symbol", "qty", "price", "fee", "reason")) for f in run.fills]


def compare(seeds: range, between: Between | None = None, driver: type[Driver] = Driver) -> int:
    told = 0
    for seed in seeds:
        case = Case(seed)
        run = case.engine("plain")
        driven = driver(case, timeline(*case.series()), between).run()
        assert driven.fills == expected(run), f"seed {seed}"
        assert driven.stepper.account.cash == run.account.cash, f"seed {seed}"
        check_money(driven)
        told += len(driven.fills)
    return told


def check_money(driver: Driver) -> None:
    """What the exchange says is there is what was put in and traded, exactly, and what the engine counts."""
    balances = driver.broker.balances()
    fills = [fill for symbol in driver.symbols for fill in driver.broker.fills(symbol, 0)]
    spent = sum((f.qty * f.price * (1 if f.side == "buy" else -1) + f.fee for f in fills), Decimal(0))
    assert abs(balances["USDT"].total - (Decimal(repr(driver.case.balance)) - spent)) < Decimal("1e-15")
    assert float(balances["USDT"].total) == pytest.approx(driver.stepper.account.cash, rel=1e-9, abs=1e-9)
    for s, symbol in enumerate(driver.symbols):
        if symbol.base in balances:
            held = lots_to_base(driver.stepper.positions[s].qty, driver.rules[s].lot)
            assert balances[symbol.base].total == held
    assert driver.broker.audit()[:2] == ([], {})


class Polling(Driver):
    """Looks at each candle several times while it forms, sees its low before its high, and some things twice or late.

    (Who looks before the low of a candle that opens above the take sees the take fill; the backtest counts the stop.)
    """

    def show(self, s: int, open_: float, high: float, low: float, close: float) -> None:
        at, symbol, broker = self.clock.time_ms, self.symbols[s], self.broker
        before = at - self.case.step_ms
        broker.ranged(symbol, at, open_, low, (low + open_) / 2)
        broker.opened(symbol, at, open_)
        broker.ranged(symbol, at, open_, low, (low + open_) / 2)
        broker.ranged(symbol, at, high, low, close)
        broker.ranged(symbol, at, open_, low, low)
        broker.ranged(symbol, at, high, low, close)
        if self.t:
            broker.opened(symbol, before, 1e-3)
            broker.ranged(symbol, before, 1e9, 1e-3, 1.0)
            broker.closed(symbol, before, 1.0)


def revive(driver: Driver) -> None:
    state = json.loads(json.dumps(driver.broker.state()))
    driver.broker = SimulatedBroker.restored(driver.known, driver.setup, driver.clock, state)


def revive_from_ledger(driver: Driver) -> None:
    """A new exchange from what a ledger knows: no more than the port has told."""
    told = driver.broker
    pairs = [(names[0], names[1]) for _, names in driver.protected.values() if len(names) == 2]
    last = driver.stepper.positions
    state = known_state(
        told.open_orders(driver.symbols),
        {asset: balance.total for asset, balance in told.balances().items()},
        {symbol: (driver.clock.time_ms, p.last_close or 1.0) for symbol, p in zip(driver.symbols, last, strict=True)},
        pairs=pairs,
        cash={"USDT": driver.stepper.account.cash},
    )
    driver.broker = SimulatedBroker.restored(driver.known, driver.setup, driver.clock, json.loads(json.dumps(state)))


def test_the_broker_fills_as_the_backtest() -> None:
    assert compare(range(CASES)) > CASES


def test_looking_often_sees_the_same() -> None:
    assert compare(range(0, CASES, 3), driver=Polling) > CASES // 3


def test_state_out_and_in_again_changes_nothing() -> None:
    assert compare(range(0, CASES, 20), revive) > CASES // 20


def test_an_exchange_made_from_the_ledger_goes_on_alike() -> None:
    fills = 0
    for seed in range(0, CASES, 10):
        case = Case(seed)
        driven = Driver(case, timeline(*case.series()), revive_from_ledger).run()
        assert driven.fills == expected(case.engine("plain")), f"seed {seed}"
        fills += len(driven.fills)
    assert fills > CASES // 10


@pytest.mark.slow
def test_the_broker_fills_as_the_backtest_many_times() -> None:
    compare(seeds(CASES, 4 * CASES))
    compare(seeds(CASES, CASES), driver=Polling)
