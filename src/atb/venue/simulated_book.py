"""The orders and executions of the simulated exchange, and the one place where an order there is executed."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection
from decimal import Decimal, localcontext
from typing import NamedTuple

from atb.core.money import DIGITS, lots_to_base
from atb.core.orders import NewOrder, SeenFill
from atb.core.timeframe import in_ms, moment
from atb.core.types import Symbol
from atb.engine.fills import affordable_lots, fill_fee, fill_value
from atb.venue.broker import Features
from atb.venue.simulated_audit import Audit
from atb.venue.simulated_market import Instrument
from atb.venue.simulated_orders import STOPS, Resting, in_lots
from atb.venue.simulated_wallet import Wallet


class Setup(NamedTuple):
    """What kind of exchange it is. fee, slip: fractions.

    fee_in_base: a buy is charged in the coins it bought. strict_sells: a sale below the minimum notional is refused too, as real
    exchanges do; the backtest makes it. skew_ms: how far the exchange's clock is ahead of the caller's.
    """

    venue: str = "simulated"
    fee: float = 0.0
    slip: float = 0.0
    features: Features = Features(STOPS, 5, True)
    fee_in_base: bool = False
    strict_sells: bool = False
    skew_ms: int = 0


class Pieces(NamedTuple):
    """In how many executions an order fills; expires: what is left after the first is given up."""

    parts: int = 1
    expires: bool = False


class Book:
    """What the exchange has taken and done."""

    def __init__(self, setup: Setup, wallet: Wallet, audit: Audit, symbols: Collection[Symbol]) -> None:
        self.setup, self.wallet, self.audit = setup, wallet, audit
        self.orders: dict[str, Resting] = {}  # by venue order id, in the order in which they were taken
        self.latest: dict[str, Resting] = {}  # by client order id
        self.fills: dict[Symbol, list[SeenFill]] = {symbol: [] for symbol in symbols}
        self._newest_ms: dict[Symbol, list[int]] = {
            symbol: [] for symbol in symbols
        }  # up to each fill: they may be told late
        self._working: dict[str, Resting] = {}
        # Orders and executions by client order id: a final order's id may be used again.
        self._taken: Counter[str] = Counter()
        self._executed: Counter[str] = Counter()

    def working(self, symbol: Symbol | None = None) -> list[Resting]:
        """The working orders, oldest first."""
        return [o for o in self._working.values() if symbol is None or o.asked.symbol == symbol]

    def take(self, order: NewOrder, pieces: Pieces, now_ms: int) -> Resting:
        """A new order, that was not refused."""
        name = order.client_order_id
        again = f":{self._taken[name] + 1}" if self._taken[name] else ""
        o = Resting(order, f"sim:{name}{again}", now_ms, now_ms, parts=pieces.parts, expires=pieces.expires)
        self.audit.took(name)
        self.keep(o)
        return o

    def keep(self, o: Resting) -> None:
        name = o.asked.client_order_id
        self._taken[name] += 1
        self.orders[o.venue_order_id] = self.latest[name] = o
        if o.working:
            self._working[o.venue_order_id] = o

    def record(self, fill: SeenFill) -> None:
        newest, at_ms = self._newest_ms[fill.symbol], in_ms(fill.at)
        newest.append(max(newest[-1], at_ms) if newest else at_ms)
        self.fills[fill.symbol].append(fill)
        self._executed[client_id_of(fill)] += 1

    def fills_since(self, symbol: Symbol, since_ms: int) -> list[SeenFill]:
        """Without a look at all that was before: a long life is asked every few seconds."""
        first = bisect_left(self._newest_ms[symbol], since_ms)
        return [fill for fill in self.fills[symbol][first:] if in_ms(fill.at) >= since_ms]

    def end(self, o: Resting, state: str, now_ms: int) -> None:
        """An order's end. The other of a pair locks the coins from now on."""
        o.end(state, now_ms)
        self._working.pop(o.venue_order_id, None)
        partner = self.orders.get(o.partner)
        if partner is not None:
            partner.second = False

    def end_partner(self, o: Resting, now_ms: int) -> None:
        partner = self.orders.get(o.partner)
        if partner is not None and partner.working:
            self.end(partner, "cancelled", now_ms)

    def execute(self, i: Instrument, o: Resting, price: float, now_ms: int) -> None:
        """Execute the order, or its next part, as far as the cash goes."""
        left = in_lots(o.left, i.rules.lot)
        wanted = left if o.parts <= 1 else max(1, left // o.parts)
        lots = wanted
        if o.buys and o.asked.type == "market":
            cash = self.wallet.spendable(i.symbol.quote, self.working())
            lots = affordable_lots(wanted, price, cash, i.market, self.setup.fee)
        if lots:
            self._fill(i, o, lots, price, now_ms)
            self.end_partner(o, now_ms)
        self._settle(o, now_ms, cut=lots < wanted)

    def _settle(self, o: Resting, now_ms: int, cut: bool) -> None:
        o.updated_ms = now_ms
        o.parts -= 1
        if not o.left:
            self.end(o, "filled", now_ms)
        elif cut or o.expires:
            self.end(o, "expired", now_ms)
        else:
            o.state = "partially_filled"

    def _fill(self, i: Instrument, o: Resting, lots: int, price: float, now_ms: int) -> None:
        value = fill_value(lots if o.buys else -lots, price, i.market)
        fee = fill_fee(value, self.setup.fee)
        qty = lots_to_base(lots, i.rules.lot)
        charged, asset = Decimal(repr(fee)), i.symbol.quote
        if o.buys and self.setup.fee_in_base:
            with localcontext(prec=DIGITS):
                charged, asset = qty * self.wallet.fee, i.symbol.base
        name = o.asked.client_order_id
        trade_id = f"{name}:{self._executed[name] + 1}"
        fill = SeenFill(
            trade_id, o.venue_order_id, i.symbol, o.asked.side, qty, Decimal(repr(price)), charged, asset, None,
            moment(now_ms),
        )  # fmt: skip
        self.record(fill)
        self.wallet.book(fill, value, fee)
        self.audit.traded(fill)
        with localcontext(prec=DIGITS):
            o.filled_qty += qty


def client_id_of(fill: SeenFill) -> str:
    """Whose order was executed: a trade id is the client order id and a count."""
    return fill.venue_trade_id.rpartition(":")[0]
