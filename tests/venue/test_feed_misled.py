"""A feed whose stream says odd things: what is asked for stays little, and what is known stays what was known last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from atb.live.feed import Feed
from atb.venue.candle_stream import Link, Told
from tests.venue.exchange import HOUR_MS, Fault
from tests.venue.market_time import MarketTime, check_windows, hours
from tests.venue.test_candles import START, made

COUNT = 60
AT = START + 40 * HOUR_MS
BEGIN = AT + 20 * 60_000


class SaidStream:
    """Tells what a test says."""

    host = "stream.test"

    def __init__(self) -> None:
        self.link = Link(True, BEGIN, "")
        self.said: list[Told] = []

    def start(self, wake: Callable[[], None]) -> None: ...

    def close(self) -> None: ...

    def take(self) -> list[Told]:
        said, self.said = self.said, []
        return said

    def say(
        self, market: MarketTime, *, ago_ms: int = 0, back: int = 1, final: bool = False, volume: float = 0.0
    ) -> None:
        """A candle as the exchange has it now; ago_ms: how old the stream says that is; volume: more than it was."""
        *row, last = market.exchange.candles("BTCUSDT", "1h")[-back].tolist()
        self.said.append(Told("BTCUSDT", market.exchange.now_ms - ago_ms, (*row, last + volume), final))


def feed_of(market: MarketTime, stream: SaidStream, **options: object) -> Feed:
    feed = market.feed(4, stream=stream, **options)
    feed.listen()
    feed.poll()
    return feed


def test_what_a_stream_tells_late_is_not_what_runs_now(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [made(COUNT)], BEGIN) as market:
        stream = SaidStream()
        feed = feed_of(market, stream)
        old = market.exchange.candles("BTCUSDT", "1h")[-1].tolist()
        market.go_to(AT + 50 * 60_000)
        feed.poll()
        known = feed.running()["BTCUSDT"]
        for minute in range(20):  # it goes on half an hour late
            market.go_on(5_000)
            stream.said.append(Told("BTCUSDT", BEGIN + minute * 5_000, tuple(old), False))
            feed.poll()
            assert feed.running()["BTCUSDT"] == known


def test_nothing_is_fresh_by_a_stream_alone_when_its_candles_cannot_be_had(tmp_path: Path) -> None:
    """What runs belongs to no row then: no price of it is shown, and no level is watched by it."""
    with MarketTime(tmp_path, [made(COUNT)], BEGIN) as market:
        stream = SaidStream()
        feed = feed_of(market, stream)
        market.server.add(Fault("status"))
        while market.exchange.now_ms < AT + HOUR_MS + 20 * 60_000:
            market.go_on(60_000)
            stream.say(market)
            assert feed.poll() == []
        assert feed.running()["BTCUSDT"].open_ms == AT  # as far as it is known
        assert feed.stale(market.clock.now_ms())["BTCUSDT"] > 15 * 60
        market.server.heal()
        rows = market.rows_until(feed, market.exchange.now_ms + 60_000)
        assert [row.open_ms for row in rows] == [AT] and not feed.stale(market.clock.now_ms())


@pytest.mark.parametrize("early_ms", [0, 4_900])
def test_a_stream_that_says_a_close_in_many_ways_is_not_asked_after_each(tmp_path: Path, early_ms: int) -> None:
    """early_ms: how far its clock is ahead."""
    with MarketTime(tmp_path, [made(COUNT)], BEGIN) as market:
        stream = SaidStream()
        feed = feed_of(market, stream)
        market.exchange.lag_ms = 8_000  # the answers do not show it yet
        market.go_to(AT + HOUR_MS - early_ms)
        asked, times = market.server.count("klines"), 0
        rows = []
        while market.exchange.now_ms < AT + HOUR_MS + 30_000:
            times += 1
            stream.say(market, ago_ms=-early_ms, back=1, final=True, volume=times)
            rows += feed.poll()
            market.go_on(50)
        market.exchange.lag_ms = 0
        assert [row.open_ms for row in rows] == hours(AT, 1)
        check_windows(market, rows, START, 4)
        assert times >= 600 and market.server.count("klines") - asked <= 35
