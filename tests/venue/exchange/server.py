"""The HTTP server in front of the exchange, and the faults of the wire."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from tests.venue.exchange import binance, coinbase, control
from tests.venue.exchange.exchange import Exchange
from tests.venue.exchange.faults import (
    ANSWER_FAULTS,
    ORDER_FAULTS,
    PAGE_FAULTS,
    STATE_FAULTS,
    WIRE_FAULTS,
    Fault,
    Plan,
)
from tests.venue.exchange.wire import Call, Handler, Reply, Request
from tests.venue.served import Served

ROUTES: dict[tuple[str, str], Handler] = {**binance.ROUTES, **coinbase.ROUTES}
FOREVER_S = 30.0
Answer = Callable[[], Reply]


class Loopback(Served):
    """The server: `requests` is what came in (also those that were spoilt).

    `controlled` adds the endpoints by which another process moves the market: see control.py.
    """

    def __init__(
        self, exchange: Exchange, *faults: Fault, seed: int = 0, port: int = 0, controlled: bool = False
    ) -> None:
        self.exchange = exchange
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self.plan = Plan(faults, seed)
        self._lock = threading.Lock()
        self.routes = {**ROUTES, **control.routes(self.plan)} if controlled else ROUTES
        super().__init__(ThreadingHTTPServer, _Handler, port)

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        super().__exit__(*error)

    def add(self, *faults: Fault) -> None:
        """From now on."""
        with self._lock:
            self.plan.add(*faults)

    def heal(self) -> None:
        """No faults from now on."""
        with self._lock:
            self.plan.clear()

    def count(self, path: str) -> int:
        """How many requests had `path` in theirs."""
        return sum(path in request.path for request in self.requests)

    def arrived(self, request: Request) -> list[Fault]:
        """Notes a request and takes the faults that are due for it."""
        if request.path.startswith(control.ROOT):
            return []
        with self._lock:
            self.requests.append(request)
            return self.plan.due(request)

    def process(self, request: Request, faults: list[Fault]) -> Reply:
        """What the exchange does and answers: at one moment, for one client at a time."""
        with self.exchange.lock:
            self.exchange.catch_up()
            orders = len(self.exchange.engine.orders)
            reply = self._handle(request, faults)
            for fault in faults:
                self._strike(fault, orders)
        for fault in faults:
            if (change := ANSWER_FAULTS.get(fault.kind)) is not None and not isinstance(reply.body, bytes):
                reply = reply._replace(body=change(reply.body))
        return reply

    def _handle(self, request: Request, faults: list[Fault]) -> Reply:
        for (method, pattern), handler in self.routes.items():
            if method == request.method and (found := re.fullmatch(pattern, request.path)):
                call = Call(self.exchange, request, {**request.query, **found.groupdict()})
                for fault in faults:
                    call.spoil = PAGE_FAULTS.get(fault.kind, call.spoil)
                    STATE_FAULTS.get(fault.kind, _nothing)(call, fault)
                reply = handler(call)
                return reply._replace(headers={"Date": formatdate(call.now_ms / 1000, usegmt=True), **reply.headers})
        return Reply(404, b"<html>no such path</html>", {"Content-Type": "text/html"})

    def _strike(self, fault: Fault, orders_before: int) -> None:
        """What the exchange does to the orders of this request, at once or in a while."""
        if (effect := ORDER_FAULTS.get(fault.kind)) is None:
            return
        for order in [*self.exchange.engine.orders.values()][orders_before:]:
            self.exchange.after(round(fault.seconds * 1000), partial(effect, self.exchange, order, fault))
        self.exchange.catch_up()


def _nothing(call: Call, fault: Fault) -> None:
    """No fault of that kind."""


class _Handler(BaseHTTPRequestHandler):
    """One connection, kept alive."""

    server_of: Loopback
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def serve(self) -> None:
        request = self.read()
        faults = self.server_of.arrived(request)
        wire = next((fault for fault in faults if fault.kind in WIRE_FAULTS), None)

        def answer() -> Reply:
            return self.server_of.process(request, faults)

        if wire is None:
            self.send(answer())
        elif (instead := WIRE_FAULTS[wire.kind]) is not None:
            if wire.done:
                answer()
            self.send(instead(wire))
        else:
            getattr(self, wire.kind.replace(" ", "_"))(wire, answer)

    do_GET = do_POST = do_PUT = do_DELETE = serve

    def read(self) -> Request:
        """The body has to be read in any case: the next request of the connection follows it."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        is_json = body.startswith(b"{")  # whatever the headers say
        sent = json.loads(body) if is_json else dict(parse_qsl(body.decode(), True))
        query = {**sent, **dict(parse_qsl(parts.query, True))}
        return Request(self.command, parts.path, query, dict(self.headers), parts.query + body.decode(), body)

    def send(self, reply: Reply, cut: int = 0, announced: int = 0) -> None:
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        body = body[: len(body) - cut]
        date = formatdate(self.server_of.exchange.now_ms / 1000, usegmt=True)
        headers = {"Date": date, "Content-Type": "application/json", "Content-Length": str(len(body) + announced)}
        lines = [f"{name}: {value}" for name, value in {**headers, **reply.headers}.items()]
        head = "\r\n".join([f"HTTP/1.1 {reply.status} {self.responses.get(reply.status, ('?',))[0]}", *lines, "", ""])
        with contextlib.suppress(OSError):  # a client that went away, killed or tired of waiting
            self.wfile.write(head.encode() + body)

    def reset(self, fault: Fault, answer: Answer) -> None:
        if fault.done:
            answer()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.close_connection = True
        self.connection.close()

    def hang(self, fault: Fault, answer: Answer) -> None:
        reply = answer() if fault.done else None
        closed = self.server_of.closing.wait(fault.seconds or FOREVER_S)
        if fault.seconds and not closed:
            self.send(reply or answer())
        else:
            self.close_connection = True

    def trickle(self, fault: Fault, answer: Answer) -> None:
        if fault.done:
            answer()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
        with contextlib.suppress(OSError):  # until the client has had enough
            while not self.server_of.closing.wait(0.05):
                self.wfile.write(b"{")
        self.close_connection = True

    def truncated(self, fault: Fault, answer: Answer) -> None:
        self.send(answer(), cut=20)

    def broken_off(self, fault: Fault, answer: Answer) -> None:
        self.send(answer(), cut=20, announced=20)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests look at `requests`."""
