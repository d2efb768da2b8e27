"""The matching: orders against a market of unlimited depth or of a stated liquidity, never against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal

from tests.venue.exchange.accounts import Account, Lock
from tests.venue.exchange.history import History
from tests.venue.exchange.market import Market
from tests.venue.exchange.money import SMALLEST, ZERO, Amounts, amounts, cut
from tests.venue.exchange.orders import Order, OrderList, Trade

BNB_DISCOUNT = Decimal("0.75")


class Rejected(Exception):
    """Refused by the matching; `reason` is one of funds, would trigger, would match, prices, closed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Engine:
    """Places, triggers, fills and ends orders. `outside` is what the rest of the world has had from the accounts."""

    def __init__(self, markets: dict[str, Market], now: Callable[[], int]) -> None:
        self.markets = markets
        self.now = now
        self.orders: dict[int, Order] = {}
        self._working: list[Order] = []  # and some that have ended since
        self.lists: dict[int, OrderList] = {}
        self.history = History()
        self.outside: Amounts = amounts()
        self.fees: Amounts = amounts()

    # --- what accounts ask for

    def place(self, order: Order) -> None:
        market = self.markets[order.symbol]
        self._check(order, market)
        self._afford(order.account, self.need(order))
        self._admit(order)
        self._relock(order)
        self._take(order, market)

    def place_list(self, orders: tuple[Order, Order], client_id: str) -> OrderList:
        """Both or none; they lock what the one that needs more does."""
        account, market = orders[0].account, self.markets[orders[0].symbol]
        self._check_pair(orders, market)
        self._afford(account, self._most(orders))
        both = OrderList(len(self.lists) + 1, client_id, market.name, account, orders, self.now())
        self.lists[both.id] = both
        account.lists.append(both)
        for order in orders:
            order.list = both
            self._admit(order)
        self._relock(orders[0])
        return both

    def cancel(self, order: Order) -> list[Order]:
        """The orders that this ends: with one of a list, the other."""
        ended = [other for other in (order.list.orders if order.list else (order,)) if other.open]
        for other in ended:
            self.end(other, "CANCELED")
        return ended

    # --- what the market does

    def trade(self, market: Market, price: Decimal, volume: Decimal) -> None:
        """A trade of the market: sets off stops, fills what rests."""
        if market.status != "TRADING":
            raise ValueError(f"{market.name} is halted: nothing is traded")
        market.traded(self.now(), price, volume)
        for order in self.open(market.name):
            if order.open and order.waiting and order.reached(price):
                self._trigger(order, market)
        for order in sorted(self.open(market.name), key=_priority):
            if order.open and order.rests and order.accepts(price):
                self.fill(order, market.available(order.rest), order.price or price, maker=True)

    def end(self, order: Order, status: str) -> None:
        order.status, order.updated_ms = status, self.now()
        self._note(order, {"CANCELED": "cancelled"}.get(status, status.lower()), order.rest)
        self._relock(order)

    def fill(self, order: Order, qty: Decimal, price: Decimal, *, maker: bool) -> None:
        if qty <= 0:
            return
        self._end_partner(order)
        order.filled, order.cost, order.updated_ms = order.filled + qty, order.cost + qty * price, self.now()
        order.status = "PARTIALLY_FILLED" if order.rest else "FILLED"
        self._note(order, "traded", qty, price)
        if not order.rest:
            self._note(order, "filled", order.qty)
        self._book(order, qty, price, maker)
        self._relock(order)

    def need(self, order: Order) -> Lock:
        """What an order locks: what it may have to pay."""
        listing = self.markets[order.symbol].listing
        if order.side == "SELL":
            return listing.base, order.rest if order.open else ZERO
        if not order.open:
            return listing.quote, ZERO
        if order.quote_qty:
            return listing.quote, order.quote_qty - order.cost * order.account.surcharge
        prices = (order.price, order.afterwards, order.stop if order.price is None else None)
        worst = max((price for price in prices if price is not None), default=self.markets[order.symbol].ask)
        return listing.quote, order.rest * worst * order.account.surcharge

    def open(self, symbol: str) -> list[Order]:
        self._working = [order for order in self._working if order.open]
        return [order for order in self._working if order.symbol == symbol]

    # --- the parts of it

    def _check(self, order: Order, market: Market) -> None:
        if market.status != "TRADING":
            raise Rejected("closed")
        if order.waiting and order.reached(market.price):
            raise Rejected("would trigger")
        if order.maker_only and order.accepts(market.at(order.side)):
            raise Rejected("would match")

    def _check_pair(self, orders: Iterable[Order], market: Market) -> None:
        for order in orders:
            try:
                self._check(order, market)
            except Rejected as rejected:
                raise Rejected("closed" if rejected.reason == "closed" else "prices") from None

    def _afford(self, account: Account, need: Lock) -> None:
        asset, amount = need
        if amount > account.free(asset):
            raise Rejected("funds")

    def _admit(self, order: Order) -> None:
        order.id = len(self.orders) + 1
        order.created_ms = order.updated_ms = self.now()
        order.working_ms = -1 if order.waiting else self.now()
        self.orders[order.id] = order
        self._working.append(order)
        order.account.orders.append(order)
        self._note(order, "placed", order.qty, order.price)

    def _trigger(self, order: Order, market: Market) -> None:
        order.triggered, order.working_ms, order.updated_ms = True, self.now(), self.now()
        if order.bracket:
            order.price = order.afterwards
        self._note(order, "triggered", order.rest, order.stop)
        self._end_partner(order)
        self._take(order, market)

    def _take(self, order: Order, market: Market) -> None:
        """Trades at once what can be; ends what may not rest."""
        if order.waiting:
            return
        price = market.at(order.side)
        if order.time_in_force != "FOK" or self._takeable(order, market, price) == order.rest:
            while order.open and order.accepts(price) and (qty := self._takeable(order, market, price)):
                self.fill(order, qty if market.level is None else min(qty, market.level), price, maker=False)
                price = market.beyond(price, order.side)
        if order.open and (order.price is None or order.time_in_force in ("IOC", "FOK")):
            self.end(order, "EXPIRED")

    def _takeable(self, order: Order, market: Market, price: Decimal) -> Decimal:
        """As far as the liquidity goes, and the money: a stop that buys may cost more than it has locked."""
        wanted = market.available(order.rest)
        if order.side == "SELL":
            return wanted
        asset, locked = self.need(order)
        means = locked + (ZERO if order.quote_qty else order.account.free(asset))
        return min(wanted, cut(means / (price * order.account.surcharge), Decimal(market.listing.lot)))

    def _end_partner(self, order: Order) -> None:
        for other in order.list.orders if order.list else ():
            if other is not order and other.open:
                self.end(other, "EXPIRED")

    def _relock(self, order: Order) -> None:
        if order.list:
            order.list.updated_ms = order.updated_ms
            order.account.relock(order.list, self._most(order.list.orders))
        else:
            order.account.relock(order, self.need(order))
        self.history.mark(order.account, self.markets[order.symbol], self.now())

    def _most(self, orders: Iterable[Order]) -> Lock:
        return max((self.need(order) for order in orders), key=lambda need: need[1])

    def _book(self, order: Order, qty: Decimal, price: Decimal, maker: bool) -> None:
        """Moves the money: what was given, what was received, the fee of it."""
        market, account = self.markets[order.symbol], order.account
        base, quote = market.listing.base, market.listing.quote
        sign = 1 if order.side == "BUY" else -1
        for asset, change in ((base, sign * qty), (quote, -sign * qty * price)):
            account.totals[asset] += change
            self.outside[asset] -= change
        fee_asset, fee = self._fee(order, qty, price, maker)
        account.totals[fee_asset] -= fee
        self.fees[fee_asset] += fee
        account.updated_ms = self.now()
        market.take(qty)
        account.trades.append(
            Trade(market.next_trade, market.name, order, price, qty, qty * price, fee, fee_asset, maker, self.now())
        )
        market.next_trade += 1

    def _fee(self, order: Order, qty: Decimal, price: Decimal, maker: bool) -> tuple[str, Decimal]:
        """In what was received, unless the account pays in quote; in BNB where it wants that and has enough."""
        account, listing = order.account, self.markets[order.symbol].listing
        rate = account.maker_fee if maker else account.taker_fee
        bnb = self._in_bnb(qty * price * rate * BNB_DISCOUNT, listing.quote) if account.pays_in_bnb else None
        if bnb is not None and bnb <= account.free("BNB"):
            return "BNB", bnb
        if order.side == "BUY" and not account.pays_in_quote:
            return listing.base, cut(qty * rate)
        return listing.quote, cut(qty * price * rate)

    def _in_bnb(self, worth: Decimal, quote: str) -> Decimal | None:
        market = self.markets.get(f"BNB{quote}")
        return (cut(worth / market.price) or SMALLEST) if market and market.price else None

    def _note(self, order: Order, what: str, qty: Decimal, price: Decimal | None = None) -> None:
        self.history.note(order, what, qty, price, self.now())


def _priority(order: Order) -> tuple[Decimal, int]:
    """The best price first, then the oldest."""
    price = order.price or ZERO
    return (-price if order.side == "BUY" else price, order.id)
