"""The exchange behind the protocols: symbols, their markets, accounts, the time. One state, for all threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from tests.venue.exchange.accounts import Account, Key, made_key
from tests.venue.exchange.candles import LENGTH_MS, Rows, candles_of, formed
from tests.venue.exchange.clock import Clock
from tests.venue.exchange.engine import Engine
from tests.venue.exchange.history import Entry, Events, Log
from tests.venue.exchange.invariants import broken
from tests.venue.exchange.market import Listing, Market
from tests.venue.exchange.money import Number, exact
from tests.venue.exchange.orders import Order
from tests.venue.exchange.rates import Rates
from tests.venue.exchange.transfers import Owner
from tests.venue.exchange.wire import Request


class Exchange:
    """Every method may be called while a server answers from it: `lock` is held meanwhile."""

    def __init__(self, now_ms: int) -> None:
        self.clock = Clock(now_ms)
        self.lock = threading.RLock()
        self.listings: dict[str, Listing] = {}
        self.markets: dict[str, Market] = {}
        self.accounts: dict[str, Account] = {}
        self.keys: dict[str, Key] = {}
        self.engine = Engine(self.markets, self.clock.read)
        self.owner = Owner(self.engine, self.clock.read)  # what is done by hand
        self.rates = Rates()
        self.forming = (
            ""  # given candles form while they run, to their "low" or "high" first; else they show at once all
        )
        self.lag_ms = 0  # how old what candles show is: a closed one is not final, and the next not there, for so long
        self.funding: dict[str, Rows] = {}  # of perpetuals, by symbol: (ms, rate)
        self.interest: dict[str, Rows] = {}  # (ms, base units)
        self.names = 0  # of orders to which the client gave none
        self._later: list[tuple[int, Callable[[], None]]] = []

    # --- time

    @property
    def now_ms(self) -> int:
        return self.clock.read()

    @now_ms.setter
    def now_ms(self, now_ms: int) -> None:
        self.clock.set(now_ms)

    def after(self, wait_ms: int, action: Callable[[], None]) -> None:
        """Something that happens by itself, once the clock is there and somebody looks."""
        self._later.append((self.now_ms + wait_ms, action))

    def catch_up(self) -> None:
        with self.lock:
            due = [action for at_ms, action in self._later if at_ms <= self.now_ms]
            self._later = [(at_ms, action) for at_ms, action in self._later if at_ms > self.now_ms]
            for action in due:
                action()

    # --- symbols

    def list(
        self,
        symbol: str,
        base: str,
        quote: str,
        candles: dict[str, Rows] | None = None,
        price: Number | None = None,
        spread: Number = 0,
        **rules: Any,
    ) -> Market:
        listing = Listing(base, quote, candles or {}, **rules)
        self.listings[symbol] = listing
        self.markets[symbol] = Market(symbol, listing, None if price is None else exact(price), exact(spread))
        return self.markets[symbol]

    def market(self, symbol: str) -> Market:
        """Its price is the last trade's, before the first that of the newest candle."""
        market = self.markets[symbol]
        for timeframe in market.listing.candles if market.last is None else ():
            if len(rows := self.candles(symbol, timeframe)):
                market.last = exact(float(rows[-1, 4]))
        return market

    def candles(self, symbol: str, timeframe: str) -> Rows:
        """Every candle that has opened by now; longer timeframes are made from the shortest there is."""
        rows = candles_of(self.listings[symbol].candles, self.markets[symbol].tape, timeframe)
        shown_ms = self.now_ms - self.lag_ms
        rows = rows[rows[:, 0] <= shown_ms]
        return formed(rows, LENGTH_MS[timeframe], shown_ms, self.forming) if self.forming else rows

    # --- the market moves

    def trade_at(self, symbol: str, price: Number, volume: Number = 1) -> None:
        """A trade at this price, wherever the last one was: a gap."""
        with self.lock:
            self.catch_up()
            self.engine.trade(self.market(symbol), exact(price), exact(volume))

    def move_to(self, symbol: str, price: Number, volume: Number = 1) -> None:
        """To this price through all between: every stop and every limit on the way is met exactly."""
        with self.lock:
            goal, market = exact(price), self.market(symbol)
            while (step := self._next_level(market, goal)) is not None:
                self.trade_at(symbol, step, 0)
            self.trade_at(symbol, goal, volume)

    def play(self, symbol: str, rows: Rows, first: str = "low") -> None:
        """Through candles: a jump to the open, on to the low (or high, by `first`), to the other, to the close.

        The clock goes along, and stands at the end of the last of them.
        """
        for row in rows:
            self.play_one(symbol, row, int(rows[1, 0] - rows[0, 0]) if len(rows) > 1 else 60_000, first)

    def play_one(self, symbol: str, row: Rows, length_ms: int, first: str = "low") -> None:
        opened, begin, high, low, close, volume = (float(number) for number in row)
        ends = (low, high) if first == "low" else (high, low)
        self.now_ms = max(self.now_ms, int(opened))
        self.trade_at(symbol, begin, volume / 4)
        for quarter, price in enumerate((*ends, close), 1):
            self.now_ms = int(opened) + quarter * length_ms // 4 - (quarter == 3)
            self.move_to(symbol, price, volume / 4)
        self.now_ms = int(opened) + length_ms

    def shallow(self, symbol: str, liquidity: Number | None = None, level: Number | None = None) -> None:
        """From now on a step trades at most `liquidity`, and one price `level` of it: the rest is a tick worse."""
        market = self.markets[symbol]
        market.liquidity = market.left = None if liquidity is None else exact(liquidity)
        market.level = None if level is None else exact(level)

    def halt(self, symbol: str, status: str = "HALT") -> None:
        self.markets[symbol].status = status

    def resume(self, symbol: str) -> None:
        self.markets[symbol].status = "TRADING"

    # --- accounts

    def open_account(
        self, name: str, deposits: Mapping[str, Number], *, may_trade: bool = True, may_withdraw: bool = False
    ) -> Account:
        """An account with one key, which its name makes; more keys by add_key, fees and flags by its fields."""
        account = Account(name, made_key(name, may_trade, may_withdraw), created_ms=self.now_ms)
        self.accounts[name] = account
        self.add_key(account.key)
        for asset, amount in deposits.items():
            account.deposit(asset, amount)
        return account

    def add_key(self, key: Key) -> None:
        self.keys[key.key] = key

    def account(self, key: str) -> Account:
        """By its name or by one of its keys."""
        return self.accounts[key if key in self.accounts else self.keys[key].account]

    # --- what the exchange does on its own

    def expire(self, order: Order) -> None:
        with self.lock:
            if order.open:
                self.engine.end(order, "EXPIRED")

    def fill(self, order: Order, share: Number = 1) -> None:
        """Fills a share of an order that rests, at its price."""
        with self.lock:
            market = self.market(order.symbol)
            if order.open:
                self.engine.fill(order, _share(order, market, exact(share)), order.price or market.price, maker=True)

    # --- to be looked at

    @property
    def log(self) -> Log:
        return self.engine.history.log

    @property
    def events(self) -> Events:
        return self.engine.history.events

    def record(self, request: Request, account: str, status: int, events_before: int) -> None:
        """Notes a request that was processed, with what it did."""
        effect, params = tuple(self.events[events_before:]), request.query
        self.log.append(Entry(self.now_ms, account, request.method, request.path, params, status, effect))

    def unprotected_ms(self, account: str, symbol: str, start: int, end: int, besides: Number = 0) -> int:
        """How long more than `besides` and a lot was held that no working stop would have sold."""
        spare = exact(besides) + Decimal(self.listings[symbol].lot)
        return self.engine.history.unprotected_ms(self.account(account).name, symbol, (start, end), spare)

    def invariants(self) -> None:
        """Raises when anything is not as it must be at any moment."""
        with self.lock:
            wrong = [*broken(self.accounts.values(), self.engine)]
        assert not wrong, "\n".join(wrong)

    def _next_level(self, market: Market, goal: Decimal) -> Decimal | None:
        """The nearest stop or limit strictly between here and there that would act there."""
        here, rising = market.price, goal > market.price
        levels = (level for order in self.engine.open(market.name) for level in _levels(order, rising))
        between = [level for level in levels if min(here, goal) < level < max(here, goal)]
        return (min if rising else max)(between, default=None)


def _levels(order: Order, rising: bool) -> Iterable[Decimal]:
    """The prices at which an order acts when the price goes that way."""
    if order.waiting and order.stop is not None and order.stop_above == rising:
        yield order.stop
    if order.rests and order.price is not None and (order.side == "SELL") == rising:
        yield order.price


def _share(order: Order, market: Market, share: Decimal) -> Decimal:
    lot = Decimal(market.listing.lot)
    return min(order.rest, max(lot, order.qty * share // lot * lot))
