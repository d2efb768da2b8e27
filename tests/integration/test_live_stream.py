"""`atb live` with a stream beside the answers: the cut-over in events and health, and what it never does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.database import Postgres
from tests.integration.shell import Shell
from tests.integration.test_live_trading import PLAIN, ended, health, healthy, until
from tests.venue.exchange import Loopback
from tests.venue.exchange.__main__ import made, read, wander
from tests.venue.exchange.streams import Streams

pytest.importorskip("ccxt")


@pytest.fixture
def venue() -> Iterator[tuple[Loopback, Streams]]:
    exchange = made(read(["--timeframe", "1m", "--history", "400"]))
    over = threading.Event()
    walk = threading.Thread(target=wander, args=(exchange, 7, 2.0, over), daemon=True)  # without trades nothing is told
    with Loopback(exchange) as rest, Streams(exchange, tick_s=0.2) as streams:
        walk.start()
        yield rest, streams
        over.set()
        walk.join()


@pytest.fixture
def shell(server: Postgres, venue: tuple[Loopback, Streams], tmp_path: Path) -> Shell:
    rest, streams = venue
    url = server.url(server.database())
    return Shell(tmp_path, DATABASE_URL=url, ATB_BINANCE_API_URL=rest.url, ATB_BINANCE_WS_URL=streams.url)


def test_the_stream_is_heard_lost_and_found_again(shell: Shell, venue: tuple[Loopback, Streams]) -> None:
    _, streams = venue
    process = shell.start("live", *PLAIN)
    healthy(shell)
    until(lambda: health(shell)["feed"] == "stream", "a stream")
    assert health(shell)["stream"]["status"] == "ok" and health(shell)["notes"] == []
    assert streams.subscribed == ["btcusdt@kline_1m"]
    streams.refusing = True
    streams.cut()
    told = until(lambda: (h := health(shell))["feed"] == "poll" and h, "polling")
    until(lambda: health(shell)["notes"], "a note")
    told = health(shell)
    assert told["code"] == 200 and told["stream"]["status"] == "error"  # it costs time, not health
    assert told["notes"][0].startswith("Candles are asked for: the stream has been lost for ")
    streams.refusing = False
    until(lambda: health(shell)["feed"] == "stream", "the stream again")
    assert shell("live", "stop").code == 0
    code, out, _ = ended(process)
    assert code == 0
    log = (shell.home / "logs" / "trading.log").read_text()
    assert log.count("stream_live") == 2 and log.count("stream_lost") == 1
    assert "Feed stream_lost: 127.0.0.1:" in log and "candles are asked for until it is back." in out
    events = shell("db", "query", "SELECT code FROM events WHERE code LIKE 'stream%' ORDER BY id", ok=True)
    assert events.out.split() == ["stream_live", "stream_lost", "stream_live"]


@pytest.mark.slow
def test_no_stream(shell: Shell, venue: tuple[Loopback, Streams]) -> None:
    process = shell.start("live", *PLAIN, "--no-stream")
    told = healthy(shell)
    assert (told["feed"], told["stream"]) == ("poll", None)
    assert shell("live", "stop").code == 0
    assert ended(process)[0] == 0
    assert venue[1].opened == 0


@pytest.mark.slow
def test_a_stream_that_is_not_there_keeps_nobody_from_trading(shell: Shell) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        process = shell.start("live", *PLAIN, env={"ATB_BINANCE_WS_URL": f"ws://127.0.0.1:{nobody.getsockname()[1]}"})
        healthy(shell)
        until(lambda: (health(shell)["stream"] or {})["status"] == "error" and health(shell)["notes"], "a note")
        assert health(shell)["code"] == 200
        assert shell("live", "stop").code == 0
        assert ended(process)[0] == 0


def test_a_url_that_is_none_is_refused_before_anything_begins(shell: Shell) -> None:
    ran = shell("live", *PLAIN, env={"ATB_BINANCE_WS_URL": "http://127.0.0.1:9"})
    assert ran.code == 2 and "ATB_BINANCE_WS_URL" in ran.err
    assert "Traceback" not in ran.err
