"""Candles as an exchange tells them by itself: a thread that listens to its WebSocket, by ccxt.pro.

    stream = CandleStream("binance", "wss://…", symbols, "1h")
    stream.start(wake)                   # wake() is called when a candle has closed
    for told in stream.take(): ...       # what was told since
    stream.link                          # whether it is heard, since when, and why not

A stream is believed to be there as long as something is heard of it, not as long as it is connected: connections have been
silent for hours. One that ends, breaks or falls silent is opened again, after pauses that grow. What was told meanwhile is
lost: whoever listens asks by REST for what is missing (live/feed.py), and for what a candle was in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

from atb.core.types import Symbol
from atb.venue.ccxt_session import host_of
from atb.venue.proxies import for_stream, through

VENUES = ("binance",)  # ccxt.pro has no candles of Coinbase
MOST_KEPT = 10_000  # closed candles that nobody took: a listener that is gone
UNWANTED = (418, 429)  # at the handshake: too many came from here
WHO = re.compile(r"//\S*@")  # in a URL: user and password
LONGEST_AWAY_S = 86_400.0  # for which a server may send somebody away


class Told(NamedTuple):
    """A candle as the exchange told it. at_ms: the exchange's clock when it did. row: open time (ms), open, high, low, close,
    volume. final: the exchange says that it has closed."""

    symbol_id: str
    at_ms: int
    row: tuple[float, ...]
    final: bool


class Link(NamedTuple):
    """Whether a stream is heard, since when by this machine's clock (ms; 0: it never was), and if not, why."""

    live: bool = False
    since_ms: int = 0
    why: str = "it is not opened yet"


class Pace(NamedTuple):
    """silent_s: so long without a word, and it counts as lost. connect_s: until there is a connection. A pause before it is
    opened again doubles from first_pause_s to longest_pause_s, and begins anew once it was heard for steady_s."""

    silent_s: float = 60.0
    connect_s: float = 10.0
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    steady_s: float = 600.0


PACE = Pace()


class Lost(Exception):
    """The stream has ended, and why. away_s: for how long the server does not want to be asked again."""

    def __init__(self, why: str, away_s: float = 0.0) -> None:
        super().__init__(why)
        self.away_s = away_s


class CandleStream:
    """The candles of some symbols and one timeframe, over one connection. `url`: its root, such as wss://host:9443.

    `take`, `link` and `close` may be called from any thread.
    """

    def __init__(
        self, venue: str, url: str, symbols: Sequence[Symbol], timeframe: str, pace: Pace = PACE,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:  # fmt: skip
        assert venue in VENUES
        self.url, self.host = url.rstrip("/") + "/ws", host_of(url)
        self.link = Link()
        self._proxy, self._through = for_stream(self.url), through(self.url)
        self._channels = {f"{symbol.id.lower()}@kline_{timeframe}": symbol.id for symbol in symbols}
        self._timeframe, self._pace, self._now_ms = timeframe, pace, now_ms
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._running: dict[str, Told] = {}
        self._closed: list[Told] = []
        self._newest_ms: dict[str, float] = {}  # by symbol, the newest candle that was told of
        self._ended_ms: dict[str, float] = {}  # and the last that was told as closed
        self._wake: Callable[[], None] = lambda: None
        self._heard_s = 0.0  # by time.monotonic
        self._thread: threading.Thread | None = None

    def start(self, wake: Callable[[], None]) -> None:
        """Begin to listen, in a thread of its own: ccxt.pro alone takes most of a second to be loaded."""
        self._wake = wake
        self._thread = threading.Thread(target=self._listen, name="candle stream", daemon=True)
        self._thread.start()

    def take(self) -> list[Told]:
        """What was told since: every candle that closed, and of those that run the newest word; in order of time."""
        with self._lock:
            told, self._closed = [*self._closed, *self._running.values()], []
            self._running.clear()
        return sorted(told, key=lambda each: each.at_ms)

    def close(self) -> None:
        """End the connection. Returns within two seconds, whatever it does; sooner where there is nobody to say goodbye to."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(2.0 if self.link.live else 0.5)

    # In its thread.

    def _listen(self) -> None:
        try:
            self._listen_again_and_again()
        finally:  # also where it fails in a way that nobody thought of: what listens must not believe it is heard
            self._lost("nobody listens any more")

    def _listen_again_and_again(self) -> None:
        pause_s = self._pace.first_pause_s
        while not self._closing.is_set():
            began, away_s = time.monotonic(), 0.0
            try:
                asyncio.run(self._follow())
            except Lost as lost:
                self._lost(str(lost))
                away_s = lost.away_s
            except Exception as error:  # noqa: BLE001  whatever it was (no file descriptor, no certificates): it may pass
                self._lost(self._words(error))
            if time.monotonic() - began >= self._pace.steady_s:
                pause_s = self._pace.first_pause_s
            # Jitter: when an exchange was away, all come back.
            self._closing.wait(away_s + pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, self._pace.longest_pause_s)

    async def _follow(self) -> None:
        """One connection, until it ends. Raises Lost."""
        loop = asyncio.get_running_loop()
        broken: asyncio.Future[None] = loop.create_future()

        def fail(why: str, away_s: float = 0.0) -> None:
            if not broken.done():
                broken.set_exception(Lost(why, away_s))

        def note(_: Any, context: dict[str, Any]) -> None:
            fail(f"{self.host} told what cannot be read ({context.get('message', 'an error')})")

        loop.set_exception_handler(note)
        _look_names_up_aside(loop)
        client = _client(self._hear, self._pace.connect_s, self._proxy)
        self._heard_s = time.monotonic()
        try:
            self._subscribe(client, fail)
            await asyncio.gather(broken, self._watch())
        finally:
            broken.cancel()
            await _end(client)

    def _subscribe(self, client: Any, fail: Callable[[str, float], None]) -> None:
        """Not by ccxt's unified method, which loads every market of the exchange first and drops whether a candle has closed."""
        channels = list(self._channels)
        request = {"method": "SUBSCRIBE", "params": channels, "id": 1}

        def ended(future: Any) -> None:
            if not future.cancelled():
                fail(self._words(future.exception()), _away_s(future.exception(), self._pace.longest_pause_s))

        client.watch_multiple(self.url, channels, request, channels, {"id": 1}).add_done_callback(ended)

    async def _watch(self) -> None:
        """Look after it: whether it is still heard, and still wanted."""
        while not self._closing.is_set():
            await asyncio.sleep(min(0.25, self._pace.silent_s / 4))
            if time.monotonic() - self._heard_s > self._pace.silent_s:
                raise Lost(f"{self.host} has told nothing for {self._pace.silent_s:g} s")
        raise Lost("it was closed")

    def _hear(self, message: Any) -> None:
        """A message about a candle; one that is no such thing is not heard."""
        told = read(message, self._channels, self._timeframe)
        if told is None:
            return
        self._heard_s = time.monotonic()
        with self._lock:
            news = self._keep(told)
        if not self.link.live:
            self.link = Link(True, self._now_ms(), "")
        if news:
            self._wake()

    def _keep(self, told: Told) -> bool:
        """Whether a candle has closed by this: it is said, or a later one is told of."""
        newest_ms = self._newest_ms.get(told.symbol_id, told.row[0])
        self._newest_ms[told.symbol_id] = max(newest_ms, told.row[0])
        if told.final:
            self._closed = [*self._closed[-MOST_KEPT:], told]
            before_ms, self._ended_ms[told.symbol_id] = self._ended_ms.get(told.symbol_id), told.row[0]
            return before_ms != told.row[0]  # it may be told again and again
        before = self._running.get(told.symbol_id)
        if before is None or before.at_ms <= told.at_ms:
            self._running[told.symbol_id] = told
        return told.row[0] > newest_ms

    def _words(self, error: BaseException | None) -> str:
        """What is wrong, in a line, and without the password that a URL may have."""
        line = (str(error or "") or type(error).__name__).splitlines()[0]
        return f"{self.host}{self._through}: {WHO.sub('//', line)[:200]}"

    def _lost(self, why: str) -> None:
        if self.link.live or not self.link.since_ms:
            self.link = Link(False, self._now_ms(), why)
        else:
            self.link = self.link._replace(why=why)


def read(message: Any, channels: Any, timeframe: str) -> Told | None:
    """{"e": "kline", "E": ms, "s": "BTCUSDT", "k": {"t": ms, "i": "1h", "o": "1.0", …, "x": closed}}; None for all else."""
    try:
        k = message["k"]
        at_ms, final, name = message["E"], k["x"], message["s"]
        row = (float(k["t"]), *(float(k[key]) for key in "ohlcv"))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    known = name in channels.values() and k.get("s", name) == name and k.get("i") == timeframe
    opened, open_, high, low, close, volume = row
    sane = 0 < low <= open_ <= high < inf and low <= close <= high and 0 <= volume < inf  # a NaN is in no order
    if not (known and sane and isinstance(final, bool) and type(at_ms) is int and opened <= at_ms):
        return None
    return Told(name, at_ms, row, final)


def _client(hear: Callable[[Any], None], connect_s: float, proxy: Mapping[str, str]) -> Any:
    """ccxt.pro's Binance, of which candles are taken as they come, whether or not somebody waits for one."""
    import ccxt.pro

    class Client(ccxt.pro.binance):  # type: ignore[misc]
        def handle_ohlcv(self, client: Any, message: Any) -> None:
            hear(message)

    return Client({**proxy, "enableRateLimit": False, "options": {"ws": {"connectionTimeout": connect_s * 1000}}})


async def _end(client: Any) -> None:
    """Also where the other side takes no goodbye: ccxt says on stderr that a session was left open."""
    session = client.session
    with contextlib.suppress(Exception):
        await asyncio.wait_for(client.close(), 1.0)
    if session is not None and not session.closed:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(session.close(), 0.5)
    client.session = None


def _look_names_up_aside(loop: Any) -> None:
    """Name servers may take half a minute. asyncio's own threads are waited for, by the loop and by a process that ends."""

    async def getaddrinfo(*asked: Any, **how: Any) -> Any:
        answer = loop.create_future()

        def give(found: Any, error: OSError | None) -> None:
            if not answer.done():
                answer.set_result(found) if error is None else answer.set_exception(error)

        def look() -> None:
            found, error = None, None
            try:
                found = socket.getaddrinfo(*asked, **how)
            except OSError as wrong:
                error = wrong
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(give, found, error)

        threading.Thread(target=look, name="name of a stream", daemon=True).start()
        return await answer

    loop.getaddrinfo = getaddrinfo


def _away_s(error: BaseException | None, unsaid_s: float) -> float:
    """For how long whoever refused the handshake wants to be left alone: by its Retry-After, else unsaid_s."""
    refusal: Any = error.args[0] if error is not None and error.args else None
    if getattr(refusal, "status", None) not in UNWANTED:
        return 0.0
    try:
        said_s = float(refusal.headers.get("Retry-After", ""))
    except (AttributeError, ValueError):
        return unsaid_s
    return min(max(said_s, unsaid_s), LONGEST_AWAY_S) if said_s == said_s else unsaid_s
