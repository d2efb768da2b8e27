"""What can be wrong with a stream, by servers that do one wrong thing each: it is told in words, and ends nothing else."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from atb.core.types import Symbol
from atb.venue import candle_stream
from atb.venue.candle_stream import CandleStream, Pace
from tests.venue.exchange import MINUTE_MS
from tests.venue.exchange.streams import Streams
from tests.venue.test_stream import AT, QUICK, Heard, exchange, server  # noqa: F401

BTC = Symbol("BTCUSDT", "BTC", "USDT")
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def status(line: str) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    return answer


async def nothing(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes whoever comes, and says no word more: not even when it is told goodbye."""
    asked = (await reader.readuntil(b"\r\n\r\n")).decode()
    key = next(line.partition(": ")[2] for line in asked.split("\r\n") if line.lower().startswith("sec-websocket-key"))
    accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()
    head = ("HTTP/1.1 101 -", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}")
    writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
    await writer.drain()
    await asyncio.sleep(60)


@contextmanager
def served(answer: Answer) -> Iterator[tuple[str, list[float]]]:
    """Its address, and when it was dialled."""
    ready, dialled, ports = threading.Event(), [], []
    loop = asyncio.new_event_loop()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.append(time.monotonic())
        try:
            await answer(reader, writer)
        finally:
            writer.transport.abort()

    async def run() -> None:
        ended = asyncio.Event()
        stop.append(lambda: loop.call_soon_threadsafe(ended.set))
        listening = await asyncio.start_server(receive, "127.0.0.1", 0)
        ports.append(listening.sockets[0].getsockname()[1])
        ready.set()
        await ended.wait()
        listening.close()
        talks = asyncio.all_tasks() - {asyncio.current_task()}
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
        await asyncio.sleep(0)

    stop: list[Callable[[], Any]] = []
    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield f"127.0.0.1:{ports[0]}", dialled
    finally:
        stop[0]()
        thread.join(10)
        loop.close()


def until(what: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def opened(url: str, pace: Pace = QUICK) -> CandleStream:
    stream = CandleStream("binance", url, [BTC], "1m", pace)
    stream.start(lambda: None)
    return stream


def test_a_server_that_takes_no_goodbye_leaves_no_word_on_stderr(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with served(mute) as (address, dialled):
        stream = opened(f"ws://{address}", QUICK._replace(silent_s=0.3))
        until(lambda: len(dialled) == 2)
        stream.close()
        until(lambda: not threading.Thread.is_alive(stream._thread or threading.Thread()))
        gc.collect()
        assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_connection_that_does_not_come_is_given_up_in_time() -> None:
    with served(nothing) as (address, dialled):
        stream = opened(f"ws://{address}", Pace(connect_s=1.0, first_pause_s=0.02))
        until(lambda: dialled)
        until(lambda: stream.link.since_ms, 5.0)
        stream.close()


@pytest.mark.parametrize("line", ["429 Too Many Requests\r\nRetry-After: 600", "418 I am a teapot\r\nRetry-After: 1e300",
                                  "418 I am a teapot", "429 -\r\nRetry-After: nan"])  # fmt: skip
def test_who_is_told_to_stay_away_stays_away(line: str) -> None:
    with served(status(line)) as (address, dialled):
        stream = opened(f"ws://{address}", QUICK._replace(longest_pause_s=30.0))
        until(lambda: stream.link.since_ms)
        assert line[:3] in stream.link.why
        time.sleep(0.5)  # some twenty pauses
        begin = time.monotonic()
        stream.close()
        assert len(dialled) == 1 and time.monotonic() - begin < 1.5


def test_what_nobody_thought_of_is_told_and_tried_again(
    server: Streams, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]  # noqa: F811
) -> None:  # fmt: skip
    make, times = candle_stream._client, []

    def fail(*args: Any) -> Any:
        times.append(1)
        if len(times) < 3:
            raise OSError(24, "Too many open files")
        return make(*args)

    monkeypatch.setattr(candle_stream, "_client", fail)
    with Heard(server) as heard:
        heard.until(lambda h: h.stream.link.since_ms)
        assert heard.stream.link.why.endswith("Too many open files")
        heard.until(lambda h: h.stream.link.live)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "url", ["ws://user:sesame@127.0.0.1:nine", "ws://user:sesame@127.0.0.1:9", "ws://user:sesame@"]
)
def test_a_password_is_in_no_message(url: str) -> None:
    stream = opened(url)
    until(lambda: stream.link.since_ms)
    why = stream.link.why
    stream.close()
    assert "sesame" not in why and why.startswith(stream.host)


def test_a_close_that_is_told_again_and_again_wakes_once(exchange: Any, server: Streams) -> None:  # noqa: F811
    woken: list[int] = []
    stream = CandleStream("binance", server.url, [BTC], "1m", QUICK)
    server.spoil = lambda messages: messages if exchange.now_ms < AT + MINUTE_MS else [*kept(messages)] * 5
    finals: list[Any] = []

    def kept(messages: list[Any]) -> list[Any]:
        finals.extend(message for message in messages if message["k"]["x"])
        return finals

    stream.start(lambda: woken.append(1))
    until(lambda: stream.link.live)
    exchange.now_ms = AT + MINUTE_MS + 10
    until(lambda: len([told for told in stream.take() if told.final]) > 2)
    time.sleep(0.3)
    stream.close()
    assert len(woken) == 1


SLOW_NAMES = """
import socket, sys, time
real = socket.getaddrinfo
def slow(host, *args, **kwargs):
    if host == "stream.test":
        print("asked", flush=True)
        time.sleep(30)
    return real(host, *args, **kwargs)
socket.getaddrinfo = slow
from atb.core.types import Symbol
from atb.venue.candle_stream import CandleStream
stream = CandleStream("binance", "ws://stream.test:9", [Symbol("BTCUSDT", "BTC", "USDT")], "1m")
stream.start(lambda: None)
sys.stdin.readline()
stream.close()
"""


def test_a_name_that_is_looked_up_for_long_keeps_no_process_from_ending() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_NAMES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "asked\n"
    begin = time.monotonic()
    _, err = process.communicate("end\n", timeout=60)
    assert (process.returncode, err) == (0, "")
    assert time.monotonic() - begin < 5
