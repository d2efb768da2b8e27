"""The exchange's WebSocket: klines, told while they form and when they have closed; and what can be wrong with it."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Callable
from typing import Any, Self

from aiohttp import WSMsgType, web

from tests.venue.exchange.candles import LENGTH_MS, Rows
from tests.venue.exchange.exchange import Exchange

TICK_S = 0.02
Message = dict[str, Any] | str | bytes
Spoil = Callable[[list[Message]], list[Message]]


class Streams:
    """A server: a context manager. `url` is its root. `opened` counts connections, `subscribed` what was asked for.

    spoil: what becomes of the messages of a tick; `silent`: nothing is told, though connections stay; `refusing`: none is taken.
    `cut()` ends all connections without a word.
    """

    def __init__(
        self, exchange: Exchange, spoil: Spoil = lambda messages: messages, tick_s: float = TICK_S, port: int = 0
    ) -> None:
        self.exchange, self.spoil, self.tick_s, self.port = exchange, spoil, tick_s, port
        self.silent = self.refusing = self.rejecting = False
        self.opened = 0
        self.subscribed: list[str] = []
        self._ready = threading.Event()
        self._sockets: set[web.WebSocketResponse] = set()

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for socket in self._sockets:
            transport = socket._req.transport if socket._req is not None else None
            if transport is not None:
                transport.abort()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run())
        self._loop.close()

    async def _run(self) -> None:
        self._ended = asyncio.Event()
        app = web.Application()
        app.router.add_get("/ws", self._talk)
        runner = web.AppRunner(app, shutdown_timeout=0.2)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._ended.wait()
        self._cut()
        await runner.cleanup()

    async def _talk(self, request: web.Request) -> web.StreamResponse:
        if self.refusing:
            return web.Response(status=503, text="<html>away</html>")
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.opened += 1
        self._sockets.add(socket)
        telling: asyncio.Task[None] | None = None
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT and telling is None:
                    asked = json.loads(message.data)
                    if self.rejecting:
                        await socket.send_json({"error": {"code": 2, "msg": "Invalid request"}, "id": asked["id"]})
                        continue
                    self.subscribed += asked["params"]
                    await socket.send_json({"result": None, "id": asked["id"]})
                    telling = asyncio.create_task(self._tell(socket, asked["params"]))
        finally:
            self._sockets.discard(socket)
            if telling is not None:
                telling.cancel()
        return socket

    async def _tell(self, socket: web.WebSocketResponse, channels: list[str]) -> None:
        tellers = [Teller(self.exchange, channel) for channel in channels]
        while not socket.closed:
            messages: list[Message] = [told for teller in tellers for told in teller.told()]
            for message in [] if self.silent else self.spoil(messages):
                if isinstance(message, bytes):
                    await socket.send_bytes(message)
                else:
                    await socket.send_str(message if isinstance(message, str) else json.dumps(message))
            await asyncio.sleep(self.tick_s)


class Teller:
    """What there is to be told of one channel since it was told last: what closed, and what runs."""

    def __init__(self, exchange: Exchange, channel: str) -> None:
        name, _, self.interval = channel.partition("@kline_")
        self.exchange, self.symbol, self.length = exchange, name.upper(), LENGTH_MS[self.interval]
        self.final_ms = exchange.now_ms // self.length * self.length  # what opened before was final then

    def told(self) -> list[Message]:
        with self.exchange.lock:
            self.exchange.catch_up()
            rows, now_ms = self.exchange.candles(self.symbol, self.interval), self.exchange.now_ms
        closed = rows[(rows[:, 0] >= self.final_ms) & (rows[:, 0] + self.length <= now_ms)]
        running = rows[rows[:, 0] + self.length > now_ms]
        if len(closed):
            self.final_ms = int(closed[-1, 0]) + self.length
        out = [self._message(row, now_ms, True) for row in closed]
        return [*out, *(self._message(row, now_ms, False) for row in running[-1:])]

    def _message(self, row: Rows, now_ms: int, final: bool) -> Message:
        numbers = {key: f"{number:.8f}" for key, number in zip("ohlcv", row[1:], strict=True)}
        opened = int(row[0])
        k = {
            "t": opened,
            "T": opened + self.length - 1,
            "s": self.symbol,
            "i": self.interval,
            **numbers,
            "n": 7,
            "x": final,
        }
        return {"e": "kline", "E": now_ms, "s": self.symbol, "k": {**k, "q": "0.0", "V": "0.0", "Q": "0.0", "B": "0"}}


class Weather:
    """A spoiler by a seed: messages lost, twice, late, half-formed, of nothing, of the future; and now and then a cut."""

    def __init__(self, seed: int, share: float = 0.3, cut: Callable[[], None] = lambda: None) -> None:
        self.rng, self.share, self.cut = random.Random(seed), share, cut
        self.held: list[Message] = []
        self.struck: dict[str, int] = {}

    def __call__(self, messages: list[Message]) -> list[Message]:
        out: list[Message] = []
        for message in messages:
            out += [message] if self.rng.random() > self.share else self._spoilt(message)
        if self.held and self.rng.random() < 0.3:
            out += self.held
            self.held = []
        return out

    def _spoilt(self, message: Message) -> list[Message]:
        assert isinstance(message, dict)
        kind = self.rng.choice(["lost", "twice", "late", "half", "never", "early", "future", "other", "cut"])
        self.struck[kind] = self.struck.get(kind, 0) + 1
        k = message["k"]
        if kind == "twice":
            return [message, message]
        if kind == "late":
            self.held.append(message)
        if kind == "half":  # closed, it says, with what it was before its last trades
            return [{**message, "k": {**k, "x": True, "v": f"{float(k['v']) / 2:.8f}"}}]
        if kind == "never":  # it has not closed, it says
            return [{**message, "k": {**k, "x": False}}]
        if kind == "early":  # what runs has closed, it says
            return [{**message, "k": {**k, "x": True}}]
        if kind == "future":
            return [
                {
                    **message,
                    "E": message["E"] + 86_400_000,
                    "k": {**k, "t": k["t"] + 3 * (k["T"] - k["t"] + 1), "x": True},
                }
            ]
        if kind == "other":
            return self.rng.choice(
                [["<html>503</html>"], ['{"e": "kline", "E": 17'], [{**message, "k": {**k, "c": None}}], [b"\xff\x00"],
                 [{**message, "k": {**k, "h": "0.00000001"}}], [{**message, "s": "DOGEUSDT"}], ["null"], ["[]"], ["7"]]
            )  # fmt: skip
        if kind == "cut":
            self.cut()
        return []
