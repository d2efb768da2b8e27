"""What the servers of the tests have in common: a port of this machine, from `with` to its end."""

from __future__ import annotations

import threading
from socketserver import BaseRequestHandler, TCPServer
from typing import Self


class Served:
    """A context manager; `url` is its root. Its handlers know it as `server_of`.

    kind: of server, such as ThreadingHTTPServer. port: 0 for any that is free.
    """

    def __init__(self, kind: type[TCPServer], handler: type[BaseRequestHandler], port: int = 0) -> None:
        self._tcp = kind(("127.0.0.1", port), type("Handler", (handler,), {"server_of": self}))
        self._tcp.daemon_threads = True  # type: ignore[attr-defined]
        self.port: int = self._tcp.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._tcp.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._tcp.shutdown()
        self._tcp.server_close()
