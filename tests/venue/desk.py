"""A simulated exchange with one symbol and a clock, and short ways of asking it for something."""

from __future__ import annotations

from decimal import Decimal

from atb.core.orders import NewOrder
from atb.core.timeframe import ManualClock
from atb.core.types import MarketRules, Symbol
from atb.venue.broker import Window
from atb.venue.faults import Fault, FaultPlan
from atb.venue.faulty_broker import FaultyBroker
from atb.venue.simulated_book import Setup
from atb.venue.simulated_broker import SimulatedBroker

BTC = Symbol("BTCUSDT", "BTC", "USDT")
RULES = MarketRules("BTCUSDT", Decimal("0.001"), Decimal("0.1"), Decimal(10), "test", "2024-01-01")
START_MS, MINUTE_MS = 1_704_067_200_000, 60_000
SETUP = Setup(fee=0.001, slip=0.01)


class Desk:
    """`row` is the number of the running candle; the account has 1,000 USDT and `btc`."""

    def __init__(self, *faults: Fault, setup: Setup = SETUP, btc: str = "0", seed: int = 1) -> None:
        self.clock = ManualClock(START_MS)
        self.exchange = SimulatedBroker({BTC: RULES}, setup, self.clock, {"USDT": Decimal(1000), "BTC": Decimal(btc)})
        self.broker = FaultyBroker(self.exchange, FaultPlan(seed, *faults))
        self.row = -1

    @property
    def open_ms(self) -> int:
        return START_MS + self.row * MINUTE_MS

    def open(self, price: float) -> None:
        """The next candle opens."""
        self.row += 1
        self.clock.time_ms = max(self.clock.time_ms, self.open_ms)
        self.broker.opened(BTC, self.open_ms, price)
        self.broker.match_open()

    def range(self, high: float, low: float, last: float) -> None:
        self.broker.ranged(BTC, self.open_ms, high, low, last)

    def candle(self, open_: float, high: float, low: float, close: float) -> None:
        """A whole one."""
        self.open(open_)
        self.range(high, low, close)
        self.broker.closed(BTC, self.open_ms, close)
        self.clock.time_ms = self.open_ms + MINUTE_MS

    def pass_time(self, ms: int) -> None:
        self.clock.time_ms += ms

    def window(self, length_ms: int = 2000) -> Window:
        return Window(self.broker.now_ms(), length_ms)

    def place(self, order: NewOrder) -> str:
        """The state it is told in."""
        return self.broker.place(order, self.window()).state

    def state(self, name: str) -> str:
        """What the exchange itself knows of an order."""
        seen = self.exchange.find(BTC, name)
        return "unknown" if seen is None else seen.state

    def told(self) -> list[tuple[str, str, float]]:
        """Executions: trade id, quantity, price."""
        return [(f.venue_trade_id, str(f.qty), float(f.price)) for f in self.exchange.fills(BTC, 0)]

    def free(self, asset: str) -> Decimal:
        return self.exchange.balances()[asset].free


def buy(name: str = "b", qty: str = "1", price: str | None = None) -> NewOrder:
    """At the market, or with a limit."""
    return NewOrder(name, BTC, "buy", "market" if price is None else "limit", Decimal(qty), _or_none(price))


def sell(name: str = "x", qty: str = "1") -> NewOrder:
    return NewOrder(name, BTC, "sell", "market", Decimal(qty))


def stop(name: str = "s", qty: str = "1", at: str = "90", limit: str | None = None) -> NewOrder:
    type_ = "stop" if limit is None else "stop_limit"
    return NewOrder(name, BTC, "sell", type_, Decimal(qty), _or_none(limit), Decimal(at))


def take(name: str = "t", qty: str = "1", price: str = "110", type_: str = "take_limit") -> NewOrder:
    return NewOrder(name, BTC, "sell", type_, Decimal(qty), Decimal(price))


def _or_none(number: str | None) -> Decimal | None:
    return None if number is None else Decimal(number)
