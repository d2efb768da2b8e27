"""The simulated exchange of a paper account, and the live candles that move it.

    clock = ManualClock(0)
    session = open_session(where, wish, SystemClock(), lambda state: exchange_of(state, setup, clock), tell)
    market = PaperMarket(feed, broker, clock, session.state, carry_on=trader.look)
    while trading:
        for row in feed.poll():
            market.play(row)
            trader.close(row.open_ms, row.windows)
        market.look()

The order of things in a candle is that of live/replay.py, so that an account fills by the backtest's rules: what waits fills at
the open, what rests by the high and low, so far and at last; an order that a close brought about waits for the next open. Candles
that nobody looked at while they ran (an outage, a restart) are played in their turn.

`carry_on(at_ms)` lets the trader book what happened, and protect what it bought: an entry's stop meets the rest of its candle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal

from atb.core.orders import SeenFill, SeenOrder
from atb.core.timeframe import ManualClock
from atb.core.types import Symbol
from atb.engine.candles import Floats
from atb.execution.state import TradingState
from atb.ledger.records import Order
from atb.live.feed import Feed, Row, Running
from atb.venue.simulated_book import Setup
from atb.venue.simulated_broker import SimulatedBroker
from atb.venue.simulated_state import known_state


class PaperMarket:
    """Shows a feed's candles to a broker. clock: the broker's own; it goes with the candles, never back."""

    def __init__(
        self, feed: Feed, broker: SimulatedBroker, clock: ManualClock, state: TradingState, carry_on: Callable[[int], None]
    ) -> None:  # fmt: skip
        self._feed, self._broker, self._clock, self._carry_on = feed, broker, clock, carry_on
        self._symbols = [traded.symbol for traded in state.traded]
        closes = zip(self._symbols, state.last_closes, strict=True)
        self._played = {symbol: close[0] for symbol, close in closes if close is not None}

    def play(self, row: Row) -> None:
        """All that a row's candles do before they are decided on, and what a late symbol missed before."""
        self._play_late(row.open_ms)
        present = [s for s in self._symbols if s.id in row.windows]
        candles = {s: row.windows[s.id] for s in present}
        self._open(row.open_ms, {s: float(c.open[-1]) for s, c in candles.items()})
        self._at(row.open_ms)
        for s, c in candles.items():
            self._broker.ranged(s, row.open_ms, float(c.high[-1]), float(c.low[-1]), float(c.close[-1]))
        self._carry_on(self._clock.now_ms())
        self._at(row.open_ms + self._feed.step_ms)
        for s, c in candles.items():
            self._broker.closed(s, row.open_ms, float(c.close[-1]))
            self._played[s] = row.open_ms

    def look(self) -> None:
        """The candles that run, as far as they have come. After the rows that the same poll gave."""
        self._play_late(self._feed.next_open_ms)
        running = self._opened_together()
        if not running:
            return
        open_ms = self._feed.next_open_ms
        self._open(open_ms, {s: r.open for s, r in running.items()})
        self._at(min(max(self._feed.exchange_now_ms(), open_ms), open_ms + self._feed.step_ms - 1))
        for s, r in running.items():
            self._broker.ranged(s, open_ms, r.high, r.low, r.last)
        self._carry_on(self._clock.now_ms())

    def _opened_together(self) -> dict[Symbol, Running]:
        """Sales at the open pay for purchases: all symbols open at once, but for those that are late for it."""
        seen = self._feed.running()
        running = {s: seen[s.id] for s in self._symbols if s.id in seen}
        grace_over = self._feed.exchange_now_ms() >= self._feed.next_open_ms + self._feed.grace_ms
        return running if grace_over or len(running) == len(self._symbols) else {}

    def _open(self, open_ms: int, opens: dict[Symbol, float]) -> None:
        self._at(open_ms)
        for s, price in opens.items():
            self._broker.opened(s, open_ms, price)
        self._broker.match_open()
        self._carry_on(self._clock.now_ms())

    def _play_late(self, before_ms: int) -> None:
        """Candles of rows that went on without their symbol: nothing is decided on them, but orders rested meanwhile."""
        for s in self._symbols:
            after = self._played.get(s)
            for candle in () if after is None else self._feed.closed_after(s.id, after):
                if int(candle[0]) < before_ms:
                    self._play_alone(s, candle)

    def _play_alone(self, s: Symbol, candle: Floats) -> None:
        open_ms, (open_, high, low, close) = int(candle[0]), candle[1:5].tolist()
        with self._broker.as_of(open_ms):
            self._broker.opened(s, open_ms, open_)
            self._broker.match_open()
            self._carry_on(open_ms)
            self._broker.ranged(s, open_ms, high, low, close)
            self._carry_on(open_ms)
            self._broker.closed(s, open_ms, close)
        self._played[s] = open_ms

    def _at(self, time_ms: int) -> None:
        self._clock.time_ms = max(self._clock.time_ms, time_ms)


def exchange_of(state: TradingState, setup: Setup, clock: ManualClock, step_ms: int) -> SimulatedBroker:
    """A paper account's exchange as its ledger tells of it; the clock is put to the last close.

    An order whose intent is in the ledger and whose outcome is not has arrived: nobody can say otherwise, and so a process that
    dies between the two trades as one that lives.
    """
    working = [order for orders in state.working for order in orders.values()]
    symbols = {(t.symbol.market, t.symbol.id): t.symbol for t in state.traded}
    lasts = zip(state.traded, state.last_closes, strict=True)
    closed = {t.symbol: last for t, last in lasts if last is not None}
    known = known_state(
        [_seen(order, symbols[order.key]) for order in working], _balances(state), closed, pairs=_pairs(state),
        fills=_fills(state, symbols), bought={t.symbol: state.held(s) for s, t in enumerate(state.traded)},
        cash={state.books.quote: state.stepper.account.cash},
    )  # fmt: skip
    clock.time_ms = max([clock.time_ms, *(at + step_ms for at, _ in closed.values())])
    return SimulatedBroker.restored({t.symbol: t.rules for t in state.traded}, setup, clock, known)


def _seen(o: Order, symbol: Symbol) -> SeenOrder:
    state = "open" if o.state in ("intent", "unknown") else o.state
    return SeenOrder(
        o.client_order_id, o.venue_order_id or f"sim:{o.client_order_id}", symbol, o.side, o.type, o.qty, o.price, o.stop_price,
        state, o.created_at, o.updated_at, o.filled_qty,
    )  # fmt: skip


def _balances(state: TradingState) -> dict[str, Decimal]:
    books = state.books
    totals = {**books.assets, books.quote: books.cash}
    for s, traded in enumerate(state.traded):
        base = traded.symbol.base
        totals[base] = totals.get(base, Decimal(0)) + state.held(s)
    return totals


def _pairs(state: TradingState) -> Iterator[tuple[str, str]]:
    """Take and stop of one symbol are placed as one."""
    for orders in state.working:
        by_purpose = {order.purpose: name for name, order in orders.items()}
        if "take" in by_purpose and "stop" in by_purpose:
            yield by_purpose["take"], by_purpose["stop"]


def _fills(state: TradingState, symbols: dict[tuple[str, str], Symbol]) -> Iterator[SeenFill]:
    """What the working orders have got already: trade ids count on."""
    for traded in state.traded:
        key = (traded.symbol.market, traded.symbol.id)
        working = state.working[state.index[key]]
        for fill in state.books.history.get(key, []):
            order = working.get(fill.client_order_id)
            if order is not None:
                yield SeenFill(
                    fill.venue_trade_id, order.venue_order_id, symbols[key], fill.side, fill.qty, fill.price, fill.fee,
                    fill.fee_asset, fill.fee_quote, fill.at,
                )  # fmt: skip
