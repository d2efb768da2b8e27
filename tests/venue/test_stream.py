"""Candles that an exchange tells by itself, over a real WebSocket and the real ccxt.pro."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from atb.core.types import Symbol
from atb.venue.candle_stream import CandleStream, Link, Pace, Told, read
from tests.venue.exchange import MINUTE_MS, Exchange
from tests.venue.exchange.streams import Message, Streams
from tests.venue.test_candles import START, made

BTC, ETH = Symbol("BTCUSDT", "BTC", "USDT"), Symbol("ETHUSDT", "ETH", "USDT")
QUICK = Pace(silent_s=1.0, connect_s=2.0, first_pause_s=0.02, longest_pause_s=0.1, steady_s=60.0)
AT = START + 40 * MINUTE_MS


@pytest.fixture
def exchange() -> Exchange:
    """Forty minutes have passed, and the next runs."""
    exchange = Exchange(AT + 20_000)
    exchange.forming = "low"
    for symbol, seed in ((BTC, 7), (ETH, 8)):
        exchange.list(symbol.id, symbol.base, symbol.quote, {"1m": made(80, seed=seed, length_ms=MINUTE_MS)})
    return exchange


@pytest.fixture
def server(exchange: Exchange) -> Iterator[Streams]:
    with Streams(exchange) as server:
        yield server


class Heard:
    """A stream that is listened to, and all that it told."""

    def __init__(self, server: Streams, pace: Pace = QUICK, url: str = "") -> None:
        self.stream = CandleStream("binance", url or server.url, [BTC, ETH], "1m", pace)
        self.told: list[Told] = []
        self.woken = threading.Event()

    def __enter__(self) -> Heard:
        self.stream.start(self.woken.set)
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.close()

    def until(self, what: Callable[[Heard], object], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not what(self):
            assert time.monotonic() < end, (self.stream.link, self.told[-3:])
            time.sleep(0.01)
            self.told += self.stream.take()

    def finals(self) -> dict[tuple[str, float], tuple[float, ...]]:
        return {(told.symbol_id, told.row[0]): told.row for told in self.told if told.final}


def test_what_runs_is_told_and_what_closes_with_its_last_numbers(exchange: Exchange, server: Streams) -> None:
    with Heard(server) as heard:
        heard.until(lambda h: {told.symbol_id for told in h.told} == {"BTCUSDT", "ETHUSDT"})
        assert not heard.woken.is_set() and heard.stream.link.live
        exchange.now_ms = AT + MINUTE_MS + 10
        heard.until(lambda h: len(h.finals()) == 2)
        assert heard.woken.is_set()
        for symbol, row in heard.finals().items():
            assert row == tuple(exchange.candles(symbol[0], "1m")[-2].tolist())
        assert sorted(server.subscribed) == ["btcusdt@kline_1m", "ethusdt@kline_1m"]


def test_a_connection_that_is_cut_is_opened_again(exchange: Exchange, server: Streams) -> None:
    with Heard(server) as heard:
        heard.until(lambda h: h.told)
        for times in range(2, 5):
            server.cut()
            heard.until(lambda _, times=times: server.opened == times)  # type: ignore[misc]
            heard.told.clear()
            heard.until(lambda h: h.told and h.stream.link.live)
        exchange.now_ms = AT + MINUTE_MS
        heard.until(lambda h: len(h.finals()) == 2)


def test_silence_is_no_stream_although_it_is_connected(server: Streams) -> None:
    with Heard(server) as heard:
        heard.until(lambda h: h.stream.link.live)
        server.silent = True
        heard.until(lambda h: not h.stream.link.live)
        assert heard.stream.link.why == f"{heard.stream.host} has told nothing for 1 s"
        assert heard.stream.link.since_ms
        server.silent = False
        heard.until(lambda h: h.stream.link.live)
        assert server.opened >= 2


@pytest.mark.parametrize("trouble", ["refusing", "rejecting"])
def test_a_server_that_takes_nobody_is_asked_again(server: Streams, trouble: str) -> None:
    setattr(server, trouble, True)
    with Heard(server) as heard:
        heard.until(lambda h: h.stream.link.since_ms)
        first = heard.stream.link
        assert not first.live and heard.stream.host in first.why
        time.sleep(0.3)
        assert heard.stream.link.since_ms == first.since_ms  # it was never there: that is not news again
        setattr(server, trouble, False)
        heard.until(lambda h: h.stream.link.live)


def test_nobody_there(server: Streams) -> None:
    with Heard(server, url="ws://127.0.0.1:9") as heard:
        heard.until(lambda h: h.stream.link.since_ms)
        assert not heard.stream.link.live and "127.0.0.1:9" in heard.stream.link.why
        begin = time.monotonic()
    assert time.monotonic() - begin < 2.5


def test_before_it_is_opened_nothing_is_known(server: Streams) -> None:
    assert CandleStream("binance", server.url, [BTC], "1m").link == Link(False, 0, "it is not opened yet")


WRONG: list[Message] = ["<html>503</html>", '{"e": "kline", "E": 17', "null", "[]", "7", b"\xff\xfe", b"{}", "{}"]


@pytest.mark.parametrize("wrong", WRONG, ids=[repr(each) for each in WRONG])
def test_what_is_no_candle_is_not_heard(exchange: Exchange, wrong: Message) -> None:
    told: list[int] = []

    def spoil(messages: list[Message]) -> list[Message]:
        told.append(1)
        return [wrong, *messages] if len(told) % 20 == 0 else messages

    with Streams(exchange, spoil) as server, Heard(server) as heard:
        heard.until(lambda _: len(told) > 60)
        heard.told.clear()
        exchange.now_ms = AT + MINUTE_MS + 10
        heard.until(lambda h: h.told and h.stream.link.live and h.told[-1].row[0] == AT + MINUTE_MS)


@pytest.mark.slow
def test_many_connections_leave_nothing_behind(exchange: Exchange, server: Streams) -> None:
    def open_files() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0

    with Heard(server) as heard:
        counts = []
        for times in range(1, 15):
            heard.until(lambda _, times=times: server.opened >= times)  # type: ignore[misc]
            heard.until(lambda h: h.stream.link.live)
            counts.append(open_files())
            server.cut()
            heard.until(lambda h: not h.stream.link.live)
        assert max(counts[-5:]) <= max(counts[:5]) + 2, counts
        assert threading.active_count() < 30


def test_a_message_is_read_as_it_is_documented() -> None:
    k: dict[str, Any] = {
        "t": AT,
        "s": "BTCUSDT",
        "i": "1m",
        "o": "1.5",
        "h": "2.0",
        "l": "1.0",
        "c": "1.75",
        "v": "3",
        "x": True,
    }
    message = {"e": "kline", "E": AT + 60_001, "s": "BTCUSDT", "k": k}
    names = {"btcusdt@kline_1m": "BTCUSDT"}
    assert read(message, names, "1m") == Told("BTCUSDT", AT + 60_001, (AT, 1.5, 2.0, 1.0, 1.75, 3.0), True)
    for change in ({"s": "ETHUSDT"}, {"E": "soon"}, {"E": AT - 1}, {"E": True}, {"k": 7}, {"k": None}):
        assert read({**message, **change}, names, "1m") is None, change
    spoilt: list[dict[str, Any]] = [
        {"i": "5m"}, {"s": "ETHUSDT"}, {"x": "true"}, {"x": 1}, {"o": None}, {"h": "1.6"}, {"l": "1.6"}, {"l": "0"}, {"v": "-1"},
        {"o": "nan"}, {"c": "nan"}, {"h": "nan"}, {"l": "nan"}, {"v": "nan"}, {"h": "inf"}, {"v": "inf"}, {"t": None},
    ]  # fmt: skip
    for each in spoilt:
        assert read({**message, "k": {**k, **each}}, names, "1m") is None, each
    nothing: list[object] = [{"e": "kline"}, {}, [], 7, None, "null"]
    for other in nothing:
        assert read(other, names, "1m") is None, other
