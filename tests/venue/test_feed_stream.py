"""A feed with a stream: the same candles as without one, sooner, and for fewer requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from atb.live.feed import Feed, Row
from tests.conftest import same_candles
from tests.seeds import seeds
from tests.venue.exchange import HOUR_MS
from tests.venue.exchange.streams import Message, Weather
from tests.venue.market_time import MarketTime, check_windows, hours
from tests.venue.test_candles import START, made
from tests.venue.told import ToldStream, closes_and_dues

COUNT = 60
AT = START + 40 * HOUR_MS
BEGIN = AT + 20 * 60_000


def rows_until(market: MarketTime, feed: Feed, stream: ToldStream, time_ms: int) -> list[Row]:
    feed.listen()
    rows = feed.poll()
    while (at := closes_and_dues(market, feed, stream)) <= time_ms:
        market.go_to(max(at, market.exchange.now_ms + 1))
        rows += feed.poll()
    return rows


def listening(market: MarketTime, weather: Weather | None = None, **options: object) -> tuple[Feed, ToldStream]:
    stream = ToldStream(market, weather)
    return market.feed(4, stream=stream, **options), stream


def test_a_close_is_decided_as_soon_as_it_is_told(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [made(COUNT), made(COUNT, seed=8)], BEGIN) as market:
        feed, stream = listening(market)
        seen: list[int] = []
        feed.listen()
        feed.poll()
        while len(seen) < 5:
            market.go_to(closes_and_dues(market, feed, stream))
            for row in feed.poll():
                seen.append(market.exchange.now_ms - row.open_ms - HOUR_MS)
                assert len(row.windows) == 2
        assert max(seen) <= 60
    assert [event.code for event in market.events] == ["stream_live"]


@pytest.mark.slow
def test_what_is_told_need_not_be_asked_for(tmp_path: Path) -> None:
    asked = {}
    for name in ("with", "without"):
        with MarketTime(tmp_path / name, [made(COUNT)], BEGIN) as market:
            feed, stream = listening(market, look_every_s=20)
            if name == "without":
                rows = market.rows_until(market.feed(4, look_every_s=20), AT + 6 * HOUR_MS)
            else:
                rows = rows_until(market, feed, stream, AT + 6 * HOUR_MS)
            assert [row.open_ms for row in rows][:5] == hours(AT, 5)
            asked[name] = market.server.count("klines")
    assert asked["with"] < asked["without"] / 8, asked


@pytest.mark.parametrize("ahead_ms", [-7_300_000, -1_700, 0, 95_000])
def test_the_candles_are_those_of_a_backtest_whatever_our_clock_says(tmp_path: Path, ahead_ms: int) -> None:
    with MarketTime(tmp_path, [made(COUNT), made(COUNT, seed=8)], BEGIN, ahead_ms=ahead_ms) as market:
        feed, stream = listening(market)
        rows = rows_until(market, feed, stream, AT + 6 * HOUR_MS + 500)
        assert [row.open_ms for row in rows] == hours(AT, 6)
        check_windows(market, rows, START, 4)


def check_seed(root: Path, seed: int, lag_ms: int = 0) -> dict[str, int]:
    """A day of two symbols under a stream that is spoilt: what is given is what a backtest sees, and what polling gives."""
    weather = Weather(seed, share=0.02 + 0.1 * (seed % 5))
    given: list[list[Row]] = []
    for name in ("with", "without"):
        with MarketTime(root / name, [made(COUNT), made(COUNT, seed=8)], BEGIN) as market:
            market.exchange.lag_ms = lag_ms
            until = AT + 10 * HOUR_MS + 30_000
            if name == "with":
                feed, stream = listening(market, weather)
                given.append(rows_until(market, feed, stream, until))
            else:
                given.append(market.rows_until(market.feed(4), until))
            market.exchange.lag_ms = 0
            check_windows(market, given[-1], START, 4)
            assert not market.told("candle_corrected") and not market.told("candle_late")
    first, second = given
    assert [row.open_ms for row in first] == [row.open_ms for row in second] == hours(AT, 10)
    for one, other in zip(first, second, strict=True):
        assert one.windows.keys() == other.windows.keys()
        assert all(same_candles(one.windows[name], other.windows[name]) for name in one.windows)
    return weather.struck


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_stream_tells_the_candles_are_the_same(tmp_path: Path, seed: int) -> None:
    check_seed(tmp_path, seed, lag_ms=(0, 0, 700, 4_000)[seed % 4])


@pytest.mark.slow
@pytest.mark.parametrize("first", seeds(100, 10, 10))
def test_whatever_streams_tell_the_candles_are_the_same(tmp_path: Path, first: int) -> None:
    struck: dict[str, int] = {}
    for seed in range(first, first + 10):
        for kind, times in check_seed(tmp_path / str(seed), seed, lag_ms=(0, 0, 700, 4_000)[seed % 4]).items():
            struck[kind] = struck.get(kind, 0) + times
    # Each kind of fault did strike, 4 times a seed and more.
    assert len(struck) == 9 and min(struck.values()) >= 40, struck


def test_a_stream_that_is_lost_is_told_once_and_costs_time_only(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [made(COUNT)], BEGIN) as market:
        feed, stream = listening(market)
        assert rows_until(market, feed, stream, AT + HOUR_MS + 500)
        stream._away()
        stream.back_ms = AT + 4 * HOUR_MS
        rows = rows_until(market, feed, stream, AT + 3 * HOUR_MS + 30_000)
        assert [row.open_ms for row in rows] == hours(AT + HOUR_MS, 2)
        assert not stream.link.live
        rows_until(market, feed, stream, AT + 5 * HOUR_MS)
        assert feed.stream is not None and feed.stream.live
    told = [(event.severity, event.code, event.message) for event in market.events]
    assert told == [
        ("info", "stream_live", "Candles are told by stream.test as they close."),
        ("warning", "stream_lost", "stream.test was cut off: candles are asked for until it is back."),
        ("info", "stream_live", "Candles are told by stream.test as they close."),
    ]


class Liar(Weather):
    def _spoilt(self, message: Message) -> list[Message]:
        assert isinstance(message, dict)
        k = message["k"]
        return [{**message, "k": {**k, "c": k["h"]}} if k["x"] else message]


def test_a_stream_that_tells_something_else_is_named_and_not_believed(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [made(COUNT)], BEGIN) as market:
        feed, stream = listening(market, Liar(1, share=1.0))
        rows = rows_until(market, feed, stream, AT + 2 * HOUR_MS + 5_000)
        assert [row.open_ms for row in rows] == hours(AT, 2)
        check_windows(market, rows, START, 4)
        differs = market.told("stream_differs")
        assert len(differs) == 2 and "BTCUSDT 1h of 2024-01-02 16:00 was told by the stream with close" in differs[0]
        assert differs[0].endswith(", which was taken.")


def test_what_runs_is_what_the_stream_tells(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [made(COUNT)], BEGIN) as market:
        feed, stream = listening(market)
        feed.listen()
        feed.poll()
        asked = market.server.count("klines")
        market.go_to(AT + 50 * 60_000)  # another quarter of the candle
        feed.poll()
        (row,) = market.exchange.candles("BTCUSDT", "1h")[-1:]
        assert list(feed.running()["BTCUSDT"]) == row[:5].tolist()
        assert feed.series[0].fresh_ms == market.exchange.now_ms and not feed.stale(market.clock.now_ms())
        assert market.server.count("klines") - asked <= 1
        feed.close()
        assert stream.closed
