"""What an exchange's stream would have told, by the time that a test makes: a stream without a wire, spoilt by a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from atb.venue.candle_stream import Link, Told, read
from tests.venue.exchange.streams import Message, Teller, Weather
from tests.venue.market_time import MarketTime

EVERY_MS = 2_000  # as Binance tells of a candle that runs
LATE_MS = 60  # after the close, until it is told


class ToldStream:
    """As venue.candle_stream.CandleStream. Each look at it tells what there was since the last, every two seconds and soon after
    each close."""

    host = "stream.test"

    def __init__(self, market: MarketTime, weather: Weather | None = None, seed: int = 0) -> None:
        self.market, self.weather, self.rng = market, weather, random.Random(seed)
        self.link = Link()
        self.closed = False
        self._begin()
        if weather is not None:
            weather.cut = self._away

    def start(self, wake: Callable[[], None]) -> None:
        self.link = Link(True, self.market.clock.now_ms(), "")

    def close(self) -> None:
        self.closed = True

    def _begin(self) -> None:
        names = [symbol.id for symbol in self.market.symbols]
        frame = self.market.timeframe
        self.channels = {f"{name.lower()}@kline_{frame}": name for name in names}
        self.tellers = [Teller(self.market.exchange, channel) for channel in self.channels]
        self.told_ms = self.market.exchange.now_ms

    def _away(self) -> None:
        self.back_ms = self.market.exchange.now_ms + self.rng.randrange(1_000, 7_200_000)
        self.link = Link(False, self.market.clock.now_ms(), f"{self.host} was cut off")

    def take(self) -> list[Told]:
        exchange, now_ms = self.market.exchange, self.market.exchange.now_ms
        if self.link.since_ms and not self.link.live:
            if now_ms < self.back_ms:
                return []
            self._begin()  # what was told meanwhile is lost
            self.link = Link(True, self.market.clock.now_ms(), "")
        out: list[Told] = []
        while self.link.live and (at := min(self.told_ms + EVERY_MS, now_ms)) > self.told_ms:
            exchange.now_ms = self.told_ms = at
            messages: list[Message] = [told for teller in self.tellers for told in teller.told()]
            for message in messages if self.weather is None else self.weather(messages):
                told = read(message, self.channels, self.market.timeframe)
                out += [] if told is None else [told]
        exchange.now_ms = now_ms
        return out


def closes_and_dues(market: MarketTime, feed: Any, stream: ToldStream) -> int:
    """When something happens next, by the exchange's clock: the feed is due, or a close is told."""
    due: int = max(feed.next_due_ms() + market.ahead_ms, market.exchange.now_ms)
    length = stream.tellers[0].length
    told = (market.exchange.now_ms - LATE_MS) // length * length + length + LATE_MS
    return min(due, told) if stream.link.live else due
