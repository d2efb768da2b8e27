"""Exchanges that are reached through a proxy only, by the real ccxt, ccxt.pro and urllib."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atb.core.errors import ExchangeUnavailable, UsageError
from atb.core.types import Symbol
from atb.venue import proxies
from atb.venue.ccxt_session import Patience, Session
from atb.venue.plain_http import get_json
from atb.venue.reachable import reachable
from tests.venue.exchange import HOUR_MS, Exchange, Loopback
from tests.venue.exchange.streams import Streams
from tests.venue.proxy import Proxy
from tests.venue.test_candles import START, made

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
FAR = "http://exchange.invalid"  # a name that nobody knows but the proxy
ONCE = Patience(timeout_s=3.0, attempts=1)


@pytest.fixture(autouse=True)
def none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def server() -> Iterator[Loopback]:
    exchange = Exchange(START + 40 * HOUR_MS)
    exchange.list("BTCUSDT", "BTC", "USDT", {"1h": made(40)})
    with Loopback(exchange) as server:
        yield server


@pytest.mark.parametrize(
    ("told", "url", "proxy"),
    [
        ({}, "https://api.binance.com", None),
        ({"HTTPS_PROXY": "http://p:3128"}, "https://api.binance.com/api/v3", "http://p:3128"),
        ({"HTTPS_PROXY": "p:3128"}, "https://api.binance.com", "http://p:3128"),
        ({"https_proxy": "https://me:secret@p:8080"}, "https://api.binance.com", "https://me:secret@p:8080"),
        ({"HTTPS_PROXY": "http://p:3128"}, "wss://stream.binance.com:9443/ws", "http://p:3128"),
        ({"HTTP_PROXY": "http://p:3128"}, "https://api.binance.com", None),
        ({"HTTP_PROXY": "http://p:3128"}, "ws://far.example", "http://p:3128"),
        ({"ALL_PROXY": "http://p:3128"}, "https://api.binance.com", "http://p:3128"),
        ({"ALL_PROXY": "http://p:3128", "HTTPS_PROXY": "http://q:1"}, "https://api.binance.com", "http://q:1"),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "binance.com"}, "https://api.binance.com", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "*"}, "https://api.binance.com", None),
        ({"ALL_PROXY": "http://p:3128"}, "http://127.0.0.1:9000", None),
        ({"ALL_PROXY": "http://p:3128"}, "http://localhost:9000", None),
        ({"ALL_PROXY": "http://p:3128"}, "http://[::1]:9000", None),
    ],
)
def test_which_proxy_is_meant(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, str], url: str, proxy: str | None
) -> None:
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert proxies.proxy_for(url) == proxy
    assert "secret" not in proxies.through(url)


@pytest.mark.parametrize("proxy", ["socks5://p:1080", "http://:80", "http://p:port", "http://[p:1"])
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(UsageError, match="HTTPS_PROXY") as told:
        Session("binance", None, ONCE)
    assert "NO_PROXY" in told.value.hint
    with pytest.raises(UsageError, match="HTTPS_PROXY"):
        reachable("binance")


def test_requests_go_through_the_proxy_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, server: Loopback, tmp_path: Path
) -> None:
    with Proxy(server.url, password="secret") as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        session = Session("binance", FAR, ONCE, rates=tmp_path)
        got = session.ask("Reading the time", "publicGetTime", {}, lambda answer: int(answer["serverTime"]))
        session.close()
        assert got == server.exchange.clock.read()
        assert proxy.asked == [f"GET {FAR}/api/v3/time"]
        assert reachable("binance", FAR) and get_json("Reading", f"{FAR}/api/v3/ping", 3.0, lambda answer: True)
        assert len(proxy.asked) == 3 and not any("secret" in line for line in proxy.asked)
        monkeypatch.setenv("NO_PROXY", "exchange.invalid")
        assert not reachable("binance", FAR)
        assert len(proxy.asked) == 3


def asked_in_vain(url: str | None) -> str:
    with contextlib.closing(Session("binance", url, ONCE)) as session, pytest.raises(ExchangeUnavailable) as told:
        session.ask("Reading the time", "publicGetTime", {}, lambda answer: answer)
    return told.value.what


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("403 Forbidden", "the proxy does not lead there"),
        ("407 Proxy Authentication Required", "the proxy wants to know who asks"),
    ],
)
def test_a_proxy_that_refuses_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch, server: Loopback, status: str, words: str
) -> None:
    with Proxy(server.url, password="secret", status=status) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        what = asked_in_vain(None)
        assert proxy.asked == ["CONNECT api.binance.com:443"]
    assert (
        what
        == f"Reading the time: api.binance.com (through the proxy 127.0.0.1:{proxy.port}) could not be asked: {words}."
    )


def test_a_proxy_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@127.0.0.1:9")
    what = asked_in_vain(None)
    assert (
        what
        == "Reading the time: api.binance.com (through the proxy 127.0.0.1:9) could not be asked: the proxy did not answer."
    )


def test_the_proxy_sees_a_tunnel_and_never_what_is_said_in_it(
    monkeypatch: pytest.MonkeyPatch, server: Loopback
) -> None:
    with Proxy(server.url) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        asked_in_vain(None)
        assert proxy.asked == ["CONNECT api.binance.com:443"]
        assert proxy.tunnelled[:2] == b"\x16\x03"  # where a TLS handshake begins


def test_the_stream_goes_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.venue.test_stream import AT, Heard

    exchange = Exchange(AT + 20_000)
    for symbol in (Symbol("BTCUSDT", "BTC", "USDT"), Symbol("ETHUSDT", "ETH", "USDT")):
        exchange.list(symbol.id, symbol.base, symbol.quote, {"1m": made(80, length_ms=60_000)})
    with Streams(exchange) as streams, Proxy(streams.url.replace("ws", "http", 1), password="secret") as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with Heard(streams, url="ws://stream.invalid") as heard:
            heard.until(lambda h: {told.symbol_id for told in h.told} == {"BTCUSDT", "ETHUSDT"})
        assert proxy.asked[0] == "GET ws://stream.invalid/ws"
    with Heard(streams, url="ws://stream.invalid") as heard:
        heard.until(lambda h: "proxy" in h.stream.link.why)
        time.sleep(0.1)
        assert f"(through the proxy 127.0.0.1:{proxy.port})" in heard.stream.link.why
        assert "secret" not in heard.stream.link.why
