"""A wire between a client and Postgres that can be cut: the client's commit arrives, the answer to it does not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

COMMIT = b"COMMIT"


class Wire:
    """Listens on `port`, and cuts the connection after each of the first `cuts` commits."""

    def __init__(self, target: int, cuts: int) -> None:
        self.target, self.left, self.commits = target, cuts, 0
        self.sockets: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        for each in (self.listener, *self.sockets):
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                self.sockets += (client, server)
                cut = threading.Event()
                for pair in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass_on, args=(*pair, cut), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, asks: bool, cut: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if asks and COMMIT in data:
                    self.commits += 1
                    if self.left:
                        self.left -= 1
                        cut.set()  # before the server can answer
                if cut.is_set() and not asks:
                    break
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def wire(target: int, cuts: int) -> Iterator[Wire]:
    made = Wire(target, cuts)
    try:
        yield made
    finally:
        made.close()
