"""What a symbol's candles have shown so far, and at which price that fills an order (docs/backtest-rules.md, 3-4).

The prices are computed by the functions of engine/fills, on the engine's own floats.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import NamedTuple

from atb.core.types import MarketRules, Symbol
from atb.engine.fills import buy_price, sell_price, stop_price
from atb.engine.rules import make_market
from atb.venue.simulated_orders import Resting


@dataclass
class Candle:
    """A candle as far as it is known. Once closed, `last` is its close."""

    open_ms: int
    open: float
    high: float
    low: float
    last: float
    closed: bool = False


class Span(NamedTuple):
    """What the market did since one looked before: where it went at least, and where it is now."""

    low: float
    high: float
    last: float


class Instrument:
    """A symbol at the simulated exchange: its rules and its last candle. Older data, and the same again, change nothing."""

    def __init__(self, symbol: Symbol, rules: MarketRules) -> None:
        self.symbol, self.rules = symbol, rules
        self.market = make_market(rules)
        self.candle: Candle | None = None

    @property
    def running(self) -> Candle | None:
        """The candle that has opened and not closed."""
        return self.candle if self.candle is not None and not self.candle.closed else None

    def opened(self, open_ms: int, open_: float) -> bool:
        """Whether this is news."""
        if self.candle is not None and open_ms <= self.candle.open_ms:
            return False
        _check(open_)
        self.candle = Candle(open_ms, open_, open_, open_, open_)
        return True

    def ranged(self, open_ms: int, high: float, low: float, last: float) -> Span | None:
        """What is new of the running candle; None where nothing is. high, low: of all of the candle so far."""
        _check(high, low, last)
        candle = self._known(open_ms)
        if candle is None:
            return None
        wider = high > candle.high or low < candle.low
        if not wider and (high < candle.high or low > candle.low):
            return None  # older than what is known
        # An extreme that stood when one looked before may be older than an order that was placed since.
        low_seen = low if low < candle.low else last
        high_seen = high if high > candle.high else last
        # One side may be less than it was told to be: whoever was wrong about a high hides no low.
        candle.high, candle.low, candle.last = max(high, candle.high), min(low, candle.low), last
        return Span(low_seen, high_seen, last)

    def closed(self, open_ms: int, close: float) -> None:
        _check(close)
        candle = self._known(open_ms)
        if candle is not None:
            candle.last, candle.closed = close, True

    def _known(self, open_ms: int) -> Candle | None:
        """The running candle, if that is the one; None for one that has passed."""
        if self.candle is None or open_ms > self.candle.open_ms:
            raise ValueError(f"The candle of {self.symbol.id} at {open_ms} ms has not been opened.")
        return self.running if open_ms == self.candle.open_ms else None

    def level(self, price: Decimal) -> float:
        """The engine's float of an order's price."""
        return float(price)

    def begin(self, o: Resting) -> float:
        """Where the market was when the order began to rest in the running candle."""
        assert self.candle is not None
        return o.placed_at if o.placed_in == self.candle.open_ms else self.candle.open


def _check(*prices: float) -> None:
    if not all(isfinite(price) and price > 0 for price in prices):
        raise ValueError(f"{prices} are no prices.")


def market_price(o: Resting, price: float, slip: float) -> float:
    """What a market order gets or pays while the market is at `price`."""
    return buy_price(price, slip) if o.buys else sell_price(price, slip)


def resting_price(o: Resting, i: Instrument, span: Span, slip: float) -> float | None:
    """The price at which an order that rests is filled by what was seen; None where it is not touched."""
    begin = i.begin(o)
    if o.asked.type == "stop":
        assert o.asked.stop_price is not None
        stop = i.level(o.asked.stop_price)
        return stop_price(begin, stop, slip) if min(begin, span.low) <= stop else None
    assert o.asked.price is not None
    limit = i.level(o.asked.price)
    touched = min(begin, span.low) <= limit if o.buys else max(begin, span.high) >= limit
    return limit if touched else None


def triggers(o: Resting, i: Instrument, span: Span) -> bool:
    """Whether what was seen makes a stop_limit a limit order: from then on only what comes later counts for it."""
    if o.asked.type != "stop_limit" or o.triggered:
        return False
    assert o.asked.stop_price is not None
    return min(i.begin(o), span.low) <= i.level(o.asked.stop_price)


def next_price(o: Resting, i: Instrument, last: float, slip: float) -> float:
    """The price of a further part of an order that has begun to fill."""
    if o.asked.type in ("market", "stop"):
        return market_price(o, last, slip)
    assert o.asked.price is not None
    return i.level(o.asked.price)
