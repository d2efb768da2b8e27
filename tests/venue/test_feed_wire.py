"""A feed with a real stream over a real wire, which is cut, spoilt and silent: the candles are those that polling gives."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from atb.core.timeframe import Clock
from atb.live.feed import Feed, Row
from atb.venue.candle_stream import CandleStream
from tests.conftest import same_candles
from tests.venue.exchange import MINUTE_MS, Exchange
from tests.venue.exchange.streams import Streams, Weather
from tests.venue.market_time import MarketTime, check_windows
from tests.venue.test_candles import START, made
from tests.venue.test_stream import QUICK

AT = START + 40 * MINUTE_MS
FACTOR = 20  # a minute takes three seconds


class ExchangeClock(Clock):
    """What the exchange's is, which runs fast."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def now_ms(self) -> int:
        return self.exchange.now_ms


def given(market: MarketTime, feed: Feed, count: int) -> tuple[list[Row], list[int]]:
    """So many rows, and how late each was, in ms of the exchange."""
    rows: list[Row] = []
    late: list[int] = []
    end = time.monotonic() + count * 60 / FACTOR + 60
    while len(rows) < count:
        assert time.monotonic() < end, [row.open_ms for row in rows]
        for row in feed.poll():
            rows.append(row)
            late.append(market.exchange.now_ms - row.open_ms - MINUTE_MS)
        feed.listen()
        wait_ms = max(0, feed.next_due_ms() - market.clock.now_ms())
        feed.stirred.wait(min(wait_ms / FACTOR / 1000, 0.5))
        feed.stirred.clear()
    return rows, late


def look(root: Path, count: int, seed: int | None = None, spoilt: bool = False) -> tuple[list[Row], list[int], Weather]:
    """seed: with a stream."""
    weather = Weather(seed or 0, share=0.3 if spoilt else 0.0)
    series = [made(120, seed=n, length_ms=MINUTE_MS) for n in (7, 8)]
    with MarketTime(root, series, AT + 30_000, timeframe="1m") as market, Streams(market.exchange, weather) as server:
        market.clock = ExchangeClock(market.exchange)  # type: ignore[assignment]
        weather.cut = server.cut if seed else weather.cut
        stream = CandleStream("binance", server.url, market.symbols, "1m", QUICK) if seed else None
        feed = market.feed(4, stream=stream, look_every_s=10)
        market.exchange.clock.run(FACTOR)
        try:
            rows, late = given(market, feed, count)
        finally:
            feed.close()
        check_windows(market, rows, START, 4)
        assert not market.told("candle_corrected")
        assert (server.opened > 0) == (seed is not None)
    return rows, late, weather


def check_same(root: Path, count: int, seed: int) -> None:
    polled, _, _ = look(root / "polled", count)
    heard, _, weather = look(root / "heard", count, seed, spoilt=True)
    assert [row.open_ms for row in polled] == [row.open_ms for row in heard]
    assert [row.open_ms for row in polled] == [AT + k * MINUTE_MS for k in range(count)]
    for one, other in zip(polled, heard, strict=True):
        assert one.windows.keys() == other.windows.keys()
        assert all(same_candles(one.windows[name], other.windows[name]) for name in one.windows)
    assert sum(weather.struck.values()) > 10 and "cut" in weather.struck


@pytest.mark.slow
def test_a_spoilt_stream_gives_what_polling_gives(tmp_path: Path) -> None:
    check_same(tmp_path, 3, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_spoilt_streams_give_what_polling_gives(tmp_path: Path, seed: int) -> None:
    check_same(tmp_path, 15, seed)


@pytest.mark.slow
def test_a_close_is_known_sooner_by_a_stream(tmp_path: Path) -> None:
    _, polled, _ = look(tmp_path / "polled", 3)
    _, heard, _ = look(tmp_path / "heard", 3, seed=1)
    assert sorted(heard)[1] < sorted(polled)[1], (heard, polled)
