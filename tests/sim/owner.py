"""The owner of an account, who uses it beside the engine: he pays in and out, converts, buys and sells."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping, Sequence
from decimal import Decimal

from atb.core.errors import ExchangeRefused
from atb.core.money import floor_to
from atb.core.orders import NewOrder
from atb.execution.traded import Traded
from atb.venue.broker import Window
from atb.venue.simulated_broker import SimulatedBroker

ACTS = ("pay_in", "pay_out", "bring", "take_away", "convert", "buy", "sell", "rest")
LEAST = 0.001  # what an order is worth; a fee of less has more digits than any exchange tells


class Owner:
    """`often`: how likely he does something when he may. last: by symbol's index the price of now."""

    def __init__(
        self, exchange: SimulatedBroker, traded: Sequence[Traded], last: Mapping[int, float], seed: int, often: float
    ) -> None:  # fmt: skip
        self.exchange, self.traded, self.last = exchange, traded, last
        self.random, self.often, self.orders = random.Random(seed), often, 0

    def may_act(self) -> bool:
        """Whether he did something."""
        if self.random.random() >= self.often:
            return False
        with contextlib.suppress(ExchangeRefused):  # too little, or not his
            getattr(self, f"_{self.random.choice(ACTS)}")()
        return True

    def _free(self, asset: str) -> Decimal:
        balance = self.exchange.balances().get(asset)
        return max(balance.free, Decimal(0)) if balance else Decimal(0)

    def _some(self, asset: str) -> Decimal:
        share = Decimal(self.random.randint(1, 10)) / 100
        return floor_to(self._free(asset) * share, Decimal("0.00000001"))

    def _base(self) -> str:
        return self.random.choice(self.traded).symbol.base

    def _pay_in(self) -> None:
        self.exchange.move("deposit", ("USDT", Decimal(self.random.randint(1, 10**6)) / 1000))

    def _pay_out(self) -> None:
        self.exchange.move("withdrawal", ("USDT", -self._some("USDT")))

    def _bring(self) -> None:
        self.exchange.move("deposit", (self._base(), Decimal(self.random.randint(1, 10**6)) / 10**6))

    def _take_away(self) -> None:
        base = self._base()
        self.exchange.move("withdrawal", (base, -self._some(base)))

    def _convert(self) -> None:
        base = self._base()
        self.exchange.move("conversion", (base, -self._some(base)), ("BNB", Decimal("0.01")))

    def _buy(self) -> None:
        self._order("buy", None)

    def _sell(self) -> None:
        self._order("sell", None)

    def _rest(self) -> None:
        self._order("sell", Decimal(10) ** 9)

    def _order(self, side: str, price: Decimal | None) -> None:
        s = self.random.randrange(len(self.traded))
        symbol, rules = self.traded[s]
        qty = self._free(symbol.base) if side == "sell" else Decimal(self.random.randint(1, 50)) * rules.lot
        qty = floor_to(qty * Decimal(self.random.randint(1, 100)) / 100, rules.lot)
        if float(qty) * self.last.get(s, 0.0) < LEAST:
            return
        self.orders += 1
        order = NewOrder(f"web_{self.orders}", symbol, side, "limit" if price else "market", qty, price)
        self.exchange.place(order, Window(self.exchange.now_ms(), 2_000))
