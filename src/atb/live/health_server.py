"""A small HTTP server that a trading process can have beside it: one daemon thread, GET and HEAD, a few pages, hard limits.

It never waits for a client for long, never holds many, and reads only what it was given: the engine neither waits for it nor
notices it. A client that is one too many takes the place of the oldest, so that those who send nothing keep nobody out.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from atb.core.errors import UsageError
from atb.execution.executor import Event
from atb.live.port_owner import port_owner

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8000
DEADLINE_S = 5.0  # for a whole exchange
MOST_HEADER_BYTES = 8_192
MOST_CLIENTS = 32
MOST_BODY_BYTES = 65_536  # that somebody may send us, to no avail
AGAIN_AFTER_S = 30.0


class Page(NamedTuple):
    status: int
    content_type: str
    text: str


class HealthServer:
    """Serves `pages`, by path. `port` 0: any; once it runs, `port` is the real one, and None while it does not."""

    def __init__(
        self, pages: Mapping[str, Callable[[], Page]], host: str = DEFAULT_HOST, port: int = DEFAULT_PORT,
        tell: Callable[[Event], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.pages, self.host, self.asked_port, self.tell = dict(pages), host, port, tell
        self.port: int | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clients: dict[asyncio.StreamWriter, None] = {}  # the oldest first
        self._ended = asyncio.Event()
        self._tried_s = 0.0

    def start(self) -> None:
        """Listen from now on. A UsageError where that cannot be."""
        self._tried_s = time.monotonic()
        listener, ready = _listen(self.host, self.asked_port), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listener, ready), name="health", daemon=True)
        self._thread.start()
        ready.wait(DEADLINE_S)
        self.port = int(listener.getsockname()[1])

    def start_or_warn(self, may_fail: bool) -> bool:
        """As `start`. Where the engine must run anyway (`may_fail`: it has positions to manage), a warning, and False."""
        try:
            self.start()
        except UsageError as error:
            if not may_fail:
                raise
            self.tell(Event("warning", "no_health_port", f"{error.what} Health is not served; it is tried again."))
            return False
        return True

    def keep_up(self) -> None:
        """Try again where it does not run, now and then. Call it once a cycle."""
        if self._thread is not None and self._thread.is_alive():
            return
        self.port = None
        if time.monotonic() - self._tried_s >= AGAIN_AFTER_S and self.start_or_warn(may_fail=True):
            self.tell(Event("info", "health_port", f"Health is served on port {self.port} now."))

    def stop(self) -> None:
        """End it, and free the port."""
        if self._loop is not None and self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join(2.0)
        self._thread, self._loop, self.port = None, None, None

    # In the server's thread.

    def _run(self, listener: socket.socket, ready: threading.Event) -> None:
        with listener:
            asyncio.run(self._listen(listener, ready))

    async def _listen(self, listener: socket.socket, ready: threading.Event) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(self._failed)
        server = await asyncio.start_server(self._serve, sock=listener, limit=MOST_HEADER_BYTES, backlog=MOST_CLIENTS)
        ready.set()
        await self._ended.wait()
        server.close()
        for writer in self._clients:
            writer.transport.abort()

    def _failed(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        self.tell(Event("warning", "health_server", f"{context.get('message')}: {context.get('exception')!r}"))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while len(self._clients) >= MOST_CLIENTS:
            oldest = next(iter(self._clients))
            del self._clients[oldest]
            oldest.transport.abort()
        self._clients[writer] = None
        try:
            async with asyncio.timeout(DEADLINE_S):
                writer.write(await self._answer(reader))
                await writer.drain()
                writer.write_eof()
                await _discard(reader)  # to close while somebody still sends would take the answer from them
        except (TimeoutError, OSError, EOFError):
            pass
        finally:
            self._clients.pop(writer, None)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response(_refusal(431), "GET")
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _response(_refusal(400), "GET")
        return _response(self._page(words[0], words[1].partition("?")[0]), words[0])

    def _page(self, method: str, path: str) -> Page:
        if path not in self.pages:
            return _refusal(404, f"There is: {', '.join(self.pages)}")
        if method not in ("GET", "HEAD"):
            return _refusal(405)
        return self.pages[path]()


async def _discard(reader: asyncio.StreamReader) -> None:
    left = MOST_BODY_BYTES
    while left > 0 and (more := await reader.read(4_096)):
        left -= len(more)


def _refusal(status: int, hint: str = "") -> Page:
    lines = [f"{status} {HTTPStatus(status).phrase}", hint]
    return Page(status, "text/plain", "".join(f"{line}\n" for line in lines if line))


def _response(page: Page, method: str) -> bytes:
    body = page.text.encode()
    head = [
        f"HTTP/1.1 {page.status} {HTTPStatus(page.status).phrase}", f"Content-Type: {page.content_type}; charset=utf-8",
        f"Content-Length: {len(body)}", "Cache-Control: no-store", "Connection: close",
    ]  # fmt: skip
    if page.status == 405:
        head.append("Allow: GET, HEAD")
    return "\r\n".join([*head, "", ""]).encode() + (b"" if method == "HEAD" else body)


def address_of(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """Where to listen. A UsageError where that is no address, which needs no server to be told."""
    if not 0 <= port < 65_536:  # getaddrinfo would take it modulo 65536
        raise UsageError(f"--health-port {port} is no port.", "It is from 0 to 65535; 0: any that is free.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError):
        raise UsageError(f"--health-host {host} is no address.", "Write 127.0.0.1, or 0.0.0.0.") from None
    return family, address


def _listen(host: str, port: int) -> socket.socket:
    hint = "Choose another: --health-port N (0: any that is free)."
    family, address = address_of(host, port)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what is left of a former process is no user
        listener.bind(address)
        listener.listen(MOST_CLIENTS)
    except OSError as error:
        listener.close()
        raise UsageError(f"Health cannot be served at {host}:{port}: {_why(error, port)}.", hint) from None
    return listener


def _why(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        owner = port_owner(port)
        return f"{owner} has that port" if owner else "another process has that port"
    return (error.strerror or str(error)).lower()
