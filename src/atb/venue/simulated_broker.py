"""A broker that fills as the backtest does: for paper trading, replay, and rehearsals of what can go wrong.

    broker = SimulatedBroker({symbol: rules}, Setup(fee=0.001, slip=0.0005), clock, {"USDT": Decimal(10_000)})
    broker.place(order, window)                          # a market order waits for the next open, or fills at the last price
    broker.opened(symbol, open_ms, open_)                # every symbol of the row, then
    broker.match_open()                                  # sales in the order of the symbols, then buys
    broker.ranged(symbol, open_ms, high, low, last)      # resting orders; as often as one looks, the last time with all of it
    broker.closed(symbol, open_ms, close)

The rules are those of docs/backtest-rules.md, to the last bit. An exchange would fill a market order at once; here one that is
placed while no candle runs waits, because nobody has seen a price yet. Resting orders meet the market in `ranged` only, in the
order in which the symbols are shown. What `venue/faulty_broker.py` adds is everything that can go wrong. Not for several threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Self

from atb.core.orders import Balance, KeyRights, NewOrder, SeenFill, SeenOrder, SeenTransfer
from atb.core.timeframe import Clock, in_ms, moment
from atb.core.types import MarketRules, Symbol
from atb.engine.fills import fill_value
from atb.venue.broker import Window
from atb.venue.simulated_audit import Audit, AuditReport
from atb.venue.simulated_book import Book, Pieces, Setup
from atb.venue.simulated_market import Candle, Instrument, Span, market_price, next_price, resting_price, triggers
from atb.venue.simulated_orders import STOPS, Resting, check_made, check_pair, in_lots, refuse
from atb.venue.simulated_state import State, fill_from, fill_state, order_from, order_state
from atb.venue.simulated_wallet import Wallet

AHEAD_MS = 1_000  # a request from further in the future is refused
WHOLE = Pieces()


class SimulatedBroker:
    """One account at a simulated exchange (a venue.broker.Broker)."""

    def __init__(
        self, rules: Mapping[Symbol, MarketRules], setup: Setup, clock: Clock, balances: Mapping[str, Decimal]
    ) -> None:
        self.venue, self.features = setup.venue, setup.features
        self._setup, self._clock = setup, clock
        self._instruments = {symbol: Instrument(symbol, known) for symbol, known in rules.items()}
        self._book = Book(setup, Wallet(balances, fee=setup.fee), Audit(), rules)
        self._as_of_ms: int | None = None
        self._transfers: list[SeenTransfer] = []
        self.tells_transfers = True

    @classmethod
    def restored(cls, rules: Mapping[Symbol, MarketRules], setup: Setup, clock: Clock, state: State) -> Self:
        """The exchange as it was when `state` was taken, or as a ledger knows it (simulated_state.known_state)."""
        symbols = {symbol.id: symbol for symbol in rules}
        totals = {asset: Decimal(total) for asset, total in state["balances"].items()}
        broker = cls(rules, setup, clock, {})
        audit = Audit({symbols[name]: Decimal(qty) for name, qty in state["bought"].items()})
        broker._book = Book(setup, Wallet(totals, state["cash"], setup.fee), audit, rules)
        for name, candle in state["candles"].items():
            broker._instruments[symbols[name]].candle = Candle(**candle)
        for data in state["orders"]:
            broker._book.keep(order_from(data, symbols))
        for data in state["fills"]:
            broker._book.record(fill_from(data, symbols))
        for symbol in rules:
            broker._look(symbol)
        return broker

    def state(self) -> State:
        """All of it as plain data that JSON can carry. (The audit begins anew, but for what is held.)"""
        book, instruments = self._book, self._instruments.values()
        return {
            "orders": [order_state(o) for o in book.orders.values()],
            "fills": [fill_state(f) for fills in book.fills.values() for f in fills],
            "balances": {asset: str(total) for asset, total in book.wallet.totals.items()},
            "cash": dict(book.wallet.cash),
            "candles": {i.symbol.id: asdict(i.candle) for i in instruments if i.candle is not None},
            "bought": {symbol.id: str(qty) for symbol, qty in book.audit.bought.items()},
        }

    # The market, as the caller shows it.

    def opened(self, symbol: Symbol, open_ms: int, open_: float) -> None:
        """A candle opens. Nothing fills before `match_open`."""
        self._instruments[symbol].opened(open_ms, open_)

    def match_open(self) -> None:
        """What waited for the opens that were told: sales first, in the order of the symbols; each at its open."""
        waiting = [(i, o) for i in self._instruments.values() if i.running for o in self._waiting(i.symbol)]
        for buys in (False, True):
            for i, o in waiting:
                if o.buys == buys and i.running is not None:
                    self._execute(i, o, market_price(o, i.running.open, self._setup.slip))

    def ranged(self, symbol: Symbol, open_ms: int, high_so_far: float, low_so_far: float, last: float) -> None:
        """The running candle as far as it has come. Tell all of it before it is `closed`."""
        self.match_open()
        i = self._instruments[symbol]
        span = i.ranged(open_ms, high_so_far, low_so_far, last)
        if span is None:
            return
        for o in self._book.working(symbol):
            if o.state == "partially_filled":
                self._execute(i, o, next_price(o, i, span.last, self._setup.slip))
        for o in sorted(self._book.working(symbol), key=lambda o: not o.is_stop):
            if o.state == "open":
                self._meet(i, o, span)
        self._look(symbol)

    def closed(self, symbol: Symbol, open_ms: int, close: float) -> None:
        """The candle is at its end: a market order waits for the next one."""
        self.match_open()
        self._instruments[symbol].closed(open_ms, close)
        self._look(symbol)

    # The port (venue/broker.py).

    def now_ms(self) -> int:
        return self._clock.now_ms() + self._setup.skew_ms if self._as_of_ms is None else self._as_of_ms

    def market_rules(self, symbol: Symbol, fresh: bool = False) -> MarketRules:
        return self._instrument(symbol).rules

    def place(self, order: NewOrder, window: Window, pieces: Pieces = WHOLE) -> SeenOrder:
        """pieces: how it will fill, in a rehearsal."""
        self._check_window(window)
        i = self._check(order)
        self._check_funds(order)
        o = self._take(i, order, pieces)
        if order.type == "market" and i.running is not None:
            self._execute(i, o, market_price(o, i.running.last, self._setup.slip))
        self._look(order.symbol)
        return o.seen()

    def place_pair(
        self, take: NewOrder, stop: NewOrder, window: Window, pieces: Pieces = WHOLE
    ) -> tuple[SeenOrder, SeenOrder]:
        self._check_window(window)
        check_pair(take, stop, self.features)
        i = self._check(take)
        self._check(stop)
        self._check_funds(take)
        first, second = self._take(i, take, pieces), self._take(i, stop, pieces)
        first.partner, second.partner, second.second = second.venue_order_id, first.venue_order_id, True
        self._look(take.symbol)
        return first.seen(), second.seen()

    def cancel(self, symbol: Symbol, client_order_id: str) -> SeenOrder:
        """Of a pair both. An order at its end is told of as it is."""
        o = self._known(symbol, client_order_id)
        if o is None:
            refuse(f"it knows no order {client_order_id} of {symbol.id}", "unknown_order")
        if o.working:
            self._book.end(o, "cancelled", self.now_ms())
            self._book.end_partner(o, self.now_ms())
            self._look(symbol)
        return o.seen()

    def find(self, symbol: Symbol, client_order_id: str) -> SeenOrder | None:
        o = self._known(symbol, client_order_id)
        return None if o is None else o.seen()

    def open_orders(self, symbols: Sequence[Symbol]) -> list[SeenOrder]:
        return [o.seen() for o in self._book.working() if o.asked.symbol in symbols]

    def fills(self, symbol: Symbol, since_ms: int) -> list[SeenFill]:
        return self._book.fills_since(self._instrument(symbol).symbol, since_ms)

    def orders(self, symbol: Symbol, since_ms: int) -> list[SeenOrder]:
        every = (o.seen() for o in self._book.orders.values() if o.asked.symbol == symbol)
        return [seen for seen in every if in_ms(seen.created_at) >= since_ms]

    def transfers(self, since_ms: int) -> list[SeenTransfer] | None:
        if not self.tells_transfers:
            return None
        return [transfer for transfer in self._transfers if in_ms(transfer.at) >= since_ms]

    def balances(self) -> dict[str, Balance]:
        return self._book.wallet.balances(self._book.working())

    def rights(self) -> KeyRights:
        return KeyRights(may_trade=True, may_withdraw=False)

    # For rehearsals and tests.

    def audit(self) -> AuditReport:
        """What the account did that it should not have done."""
        return self._book.audit.report(self.now_ms())

    def move(self, kind: str, *legs: tuple[str, Decimal], told: bool = True) -> None:
        """Something comes or goes that is no execution: (asset, signed amount). told: whether `transfers` has it."""
        number = str(len(self._transfers) + 1)
        for asset, amount in legs:
            self._book.wallet.move(asset, amount)
            if told:
                self._transfers.append(SeenTransfer(number, kind, asset, amount, moment(self.now_ms())))

    def give_up(self, client_order_id: str) -> None:
        """The exchange cancels a working order of its own accord."""
        o = self._book.latest.get(client_order_id)
        if o is not None and o.working:
            self._book.end(o, "cancelled", self.now_ms())
            self._look(o.asked.symbol)

    @contextlib.contextmanager
    def as_of(self, time_ms: int) -> Iterator[None]:
        """What is done inside happens at that time of the exchange's clock, whenever somebody gets round to it."""
        self._as_of_ms = time_ms
        try:
            yield
        finally:
            self._as_of_ms = None

    def _instrument(self, symbol: Symbol) -> Instrument:
        if symbol not in self._instruments:
            refuse(f"it does not trade {symbol.id}")
        return self._instruments[symbol]

    def _known(self, symbol: Symbol, client_order_id: str) -> Resting | None:
        o = self._book.latest.get(client_order_id)
        return o if o is not None and o.asked.symbol == symbol else None

    def _waiting(self, symbol: Symbol) -> list[Resting]:
        """The market orders that no market has met yet."""
        return [o for o in self._book.working(symbol) if o.asked.type == "market" and o.state == "open"]

    def _take(self, i: Instrument, order: NewOrder, pieces: Pieces) -> Resting:
        o = self._book.take(order, pieces, self.now_ms())
        if i.running is not None:
            o.placed_in, o.placed_at = i.running.open_ms, i.running.last
        return o

    def _meet(self, i: Instrument, o: Resting, span: Span) -> None:
        """An order that rests, and what the market did. (The one before may have ended it.)"""
        if triggers(o, i, span):
            assert i.candle is not None
            o.triggered, o.placed_in, o.placed_at = True, i.candle.open_ms, span.last
            self._book.end_partner(o, self.now_ms())
            span = Span(span.last, span.last, span.last)
        elif o.asked.type == "stop_limit" and not o.triggered:
            return
        price = resting_price(o, i, span, self._setup.slip)
        if price is not None:
            self._execute(i, o, price)

    def _execute(self, i: Instrument, o: Resting, price: float) -> None:
        self._book.execute(i, o, price, self.now_ms())
        self._look(i.symbol)

    def _look(self, symbol: Symbol) -> None:
        self._book.audit.look(self._instruments[symbol], self._book.working(symbol), self.now_ms())

    def _check_window(self, window: Window) -> None:
        now = self.now_ms()
        if window.made_at_ms > now + AHEAD_MS or now > window.made_at_ms + window.length_ms:
            refuse(f"a request of {window.made_at_ms} ms is outside its receive window at {now} ms", "clock")

    def _check(self, order: NewOrder) -> Instrument:
        """Everything but the funds."""
        i = self._instrument(order.symbol)
        check_made(order, i.rules, self.features)
        known = self._book.latest.get(order.client_order_id)
        if known is not None and known.working:
            refuse(f"an open order has the client id {order.client_order_id} already")
        stops = sum(o.is_stop for o in self._book.working(order.symbol))
        if order.type in STOPS and stops >= self.features.max_stops:
            refuse(f"no more than {self.features.max_stops} working stops of {order.symbol.id}", "too_many_stops")
        self._check_worth(i, order)
        return i

    def _check_worth(self, i: Instrument, order: NewOrder) -> None:
        if order.side == "sell" and not self._setup.strict_sells:
            return
        level = order.price if order.price is not None else order.stop_price
        price = None if i.candle is None else i.candle.last
        if level is not None and order.type != "market":
            price = i.level(level)
        if price is None:
            return
        if fill_value(in_lots(order.qty, i.rules.lot), price, i.market) < i.market.min_notional:
            least = f"{i.rules.min_notional} {i.symbol.quote}"
            refuse(f"{order.qty} {i.symbol.base} at {price} are worth less than {least}", "min_notional")

    def _check_funds(self, order: NewOrder) -> None:
        """A market order to buy needs none: it is cut to what there is."""
        asset, amount = self._book.wallet.needed(order)
        free = self._book.wallet.free(asset, self._book.working())
        if amount > free:
            refuse(f"insufficient balance, {free} {asset} free of the {amount} needed", "insufficient_balance")
