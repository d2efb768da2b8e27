"""A proxy as companies have them: forwards what is asked of it to one server, whatever host is named, or leads nowhere."""

from __future__ import annotations

import contextlib
import socket
import threading
from base64 import b64encode
from socketserver import StreamRequestHandler, ThreadingTCPServer
from urllib.parse import urlsplit

from tests.venue.served import Served

REFUSAL = b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy(Served):
    """`url`: of itself, with its password. `asked`: of each request the method and where to. `tunnelled`: what began in tunnels.

    password: without a right one each request is refused. status: all are refused with it.
    """

    def __init__(self, server_url: str, password: str = "", status: str = "") -> None:
        super().__init__(ThreadingTCPServer, _Handler)
        self.server = urlsplit(server_url)
        self.status = status
        self.asked: list[str] = []
        self.tunnelled = b""
        self.url = f"http://{f'me:{password}@' if password else ''}127.0.0.1:{self.port}"
        self.word = b64encode(f"me:{password}".encode()) if password else b""


class _Handler(StreamRequestHandler):
    """One request a connection."""

    server_of: Proxy

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            if words := self.rfile.readline().decode().split():
                self._answer(words, self._headers())

    def _headers(self) -> list[bytes]:
        headers: list[bytes] = []
        while (line := self.rfile.readline()).strip():
            headers.append(line)
        return headers

    def _answer(self, words: list[str], headers: list[bytes]) -> None:
        proxy = self.server_of
        proxy.asked.append(" ".join(words[:2]))
        if proxy.word and not any(_tells(header, proxy.word) for header in headers):
            self.wfile.write(REFUSAL % b"407 Proxy Authentication Required")
        elif proxy.status:
            self.wfile.write(REFUSAL % proxy.status.encode())
        elif words[0] == "CONNECT":
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            proxy.tunnelled += self.connection.recv(10)
        else:
            self._forward(words, headers)

    def _forward(self, words: list[str], headers: list[bytes]) -> None:
        asked, server = urlsplit(words[1]), self.server_of.server
        path = asked.path + (f"?{asked.query}" if asked.query else "")
        kept = [h for h in headers if not h.lower().startswith((b"proxy-", b"connection: keep"))]
        if not any(h.lower().startswith(b"upgrade:") for h in headers):
            kept.append(b"Connection: close\r\n")
        with socket.create_connection((server.hostname or "", server.port or 0)) as there:
            there.sendall(f"{words[0]} {path} HTTP/1.1\r\n".encode() + b"".join(kept) + b"\r\n")
            client = threading.Thread(target=self._pipe, args=(there,), daemon=True)
            client.start()
            try:
                while some := there.recv(65_536):
                    self.connection.sendall(some)
            finally:  # the other direction ends with this one, before the files of this request are closed
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                client.join(5.0)

    def _pipe(self, there: socket.socket) -> None:
        """What the client says meanwhile: the body of its request, or its part of a WebSocket."""
        with contextlib.suppress(OSError):
            while some := self.rfile.read1(65_536):
                there.sendall(some)


def _tells(header: bytes, word: bytes) -> bool:
    name, _, value = header.partition(b":")
    return name.lower() == b"proxy-authorization" and value.split()[1:] == [word]
