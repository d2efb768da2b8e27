"""What a simulated exchange has seen an account do that it should not have done: for tests, and for rehearsals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal, localcontext
from typing import NamedTuple

from atb.core.money import DIGITS, floor_to
from atb.core.orders import SeenFill
from atb.core.types import Symbol
from atb.venue.simulated_market import Instrument
from atb.venue.simulated_orders import Resting

Intervals = dict[Symbol, list[tuple[int, int]]]


class AuditReport(NamedTuple):
    """duplicates: client ids that more than one order was taken for. oversold: base quantity sold beyond what had been bought
    here. unprotected: from when to when (ms) a position lacked a working stop for all that could be sold of it."""

    duplicates: list[str]
    oversold: dict[Symbol, Decimal]
    unprotected: Intervals


class Audit:
    """Told of every order that is taken and every execution; looks at a symbol after each change."""

    def __init__(self, bought: Mapping[Symbol, Decimal] | None = None) -> None:
        self.bought = dict(bought or {})  # what is left of it; coins that were there before are not counted
        self._taken: Counter[str] = Counter()
        self._oversold: dict[Symbol, Decimal] = {}
        self._bare_since: dict[Symbol, int] = {}
        self._bare: Intervals = {}

    def took(self, client_order_id: str) -> None:
        self._taken[client_order_id] += 1

    def traded(self, fill: SeenFill) -> None:
        s = fill.symbol
        with localcontext(prec=DIGITS):
            change = fill.qty if fill.side == "buy" else -fill.qty
            left = self.bought.get(s, Decimal(0)) + change - (fill.fee if fill.fee_asset == s.base else 0)
            if left < 0:
                self._oversold[s] = self._oversold.get(s, Decimal(0)) - left
            self.bought[s] = max(left, Decimal(0))

    def look(self, i: Instrument, orders: Iterable[Resting], now_ms: int) -> None:
        """Whether working stops cover what could be sold of the symbol."""
        stopped = sum((o.left for o in orders if o.asked.symbol == i.symbol and o.is_stop), Decimal(0))
        if self._sellable(i) > stopped:
            self._bare_since.setdefault(i.symbol, now_ms)
        elif i.symbol in self._bare_since:
            since = self._bare_since.pop(i.symbol)
            if now_ms > since:
                self._bare.setdefault(i.symbol, []).append((since, now_ms))

    def report(self, now_ms: int) -> AuditReport:
        bare = {symbol: list(intervals) for symbol, intervals in self._bare.items()}
        for symbol, since in self._bare_since.items():
            if now_ms > since:
                bare.setdefault(symbol, []).append((since, now_ms))
        duplicates = sorted(name for name, count in self._taken.items() if count > 1)
        return AuditReport(duplicates, dict(self._oversold), bare)

    def _sellable(self, i: Instrument) -> Decimal:
        """What is left of the bought coins, in whole lots; none where the exchange would not take an order for it."""
        qty = floor_to(self.bought.get(i.symbol, Decimal(0)), i.rules.lot)
        worth = float(qty) * i.candle.last if i.candle is not None else 0.0
        return qty if worth >= i.market.min_notional else Decimal(0)
