"""The balances of an account at the simulated exchange, exact to the last digit, and what its orders lock of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal, localcontext

from atb.core.money import DIGITS
from atb.core.orders import Balance, NewOrder, SeenFill
from atb.venue.simulated_orders import Resting


class Wallet:
    """Totals by asset. What is locked follows from the orders, so that it cannot disagree with them.

    `cash` is the same money as the engine counts it, in floats, fill by fill: whether it pays one lot more must not depend
    on a digit that only the exact total has. (So the exact total may fall below 0 by what floats round.)
    """

    def __init__(
        self, totals: Mapping[str, Decimal], cash: Mapping[str, float] | None = None, fee: float = 0.0
    ) -> None:
        self.totals = dict(totals)
        self.cash = {asset: float(total) for asset, total in totals.items()} | dict(cash or {})
        self.fee = Decimal(repr(fee))

    def total(self, asset: str) -> Decimal:
        return self.totals.get(asset, Decimal(0))

    def locked(self, asset: str, orders: Iterable[Resting]) -> Decimal:
        with localcontext(prec=DIGITS):
            return sum((self._locks(o) for o in orders if _asset(o.asked) == asset), Decimal(0))

    def free(self, asset: str, orders: Iterable[Resting]) -> Decimal:
        with localcontext(prec=DIGITS):
            return self.total(asset) - self.locked(asset, orders)

    def spendable(self, asset: str, orders: Iterable[Resting]) -> float:
        """What a market order may spend, in the engine's float."""
        return self.cash.get(asset, 0.0) - float(self.locked(asset, orders))

    def needed(self, order: NewOrder) -> tuple[str, Decimal]:
        """Which asset a new order needs, and how much of it."""
        return _asset(order), self._lock(order, order.qty)

    def balances(self, orders: Collection[Resting]) -> dict[str, Balance]:
        return {asset: Balance(asset, self.free(asset, orders), self.locked(asset, orders)) for asset in self.totals}

    def move(self, asset: str, amount: Decimal) -> None:
        """A deposit, or below 0 a withdrawal."""
        with localcontext(prec=DIGITS):
            self.totals[asset] = self.total(asset) + amount
        self.cash[asset] = self.cash.get(asset, 0.0) + float(amount)

    def book(self, fill: SeenFill, value: float, fee: float) -> None:
        """Book an execution. value (signed like the quantity) and fee: in quote, as the engine computes them."""
        base, quote = fill.symbol.base, fill.symbol.quote
        with localcontext(prec=DIGITS):
            qty = fill.qty if fill.side == "buy" else -fill.qty
            self.totals[base] = self.total(base) + qty
            self.totals[quote] = self.total(quote) - qty * fill.price
            self.totals[fill.fee_asset] = self.total(fill.fee_asset) - fill.fee
        cash = self.cash.get(quote, 0.0)
        self.cash[quote] = cash - value - fee if fill.fee_asset == quote else cash - value

    def _locks(self, o: Resting) -> Decimal:
        return Decimal(0) if o.second else self._lock(o.asked, o.left)

    def _lock(self, order: NewOrder, left: Decimal) -> Decimal:
        """A market order to buy locks nothing: it is cut to what there is when it fills."""
        if order.side == "sell":
            return left
        if order.type == "market" or order.price is None:
            return Decimal(0)
        with localcontext(prec=DIGITS):
            return left * order.price * (1 + self.fee)


def _asset(order: NewOrder) -> str:
    return order.symbol.quote if order.side == "buy" else order.symbol.base
