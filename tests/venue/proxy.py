"""A proxy as companies have them: forwards what is asked of it to one server, whatever host is named, or leads nowhere."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from typing import Self
from urllib.parse import urlsplit

REFUSAL = b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
    """`url`: of itself. `asked`: the first line of each request, and whether it knew the password. `heard`: in tunnels."""

    def __init__(self, server_url: str, password: str = "", status: str = "") -> None:
        self.server = urlsplit(server_url)
        self.password, self.status = password, status
        self.asked: list[str] = []
        self.tunnelled = b""
        self._tcp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._tcp.daemon_threads = True
        self.port = self._tcp.server_address[1]
        self.url = f"http://{f'me:{password}@' if password else ''}127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._tcp.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._tcp.shutdown()
        self._tcp.server_close()


class _Handler(socketserver.StreamRequestHandler):
    proxy: Proxy

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while line := self.rfile.readline():
                headers = self._headers()
                if not self._answer(line.decode().split(), headers):
                    return

    def _headers(self) -> list[bytes]:
        headers: list[bytes] = []
        while (line := self.rfile.readline()).strip():
            headers.append(line)
        return headers

    def _answer(self, words: list[str], headers: list[bytes]) -> bool:
        """Whether the connection goes on."""
        proxy = self.proxy
        proxy.asked.append(" ".join(words[:2]))
        if proxy.password and not any(header.lower().startswith(b"proxy-authorization: basic") for header in headers):
            self.wfile.write(REFUSAL % b"407 Proxy Authentication Required")
        elif proxy.status:
            self.wfile.write(REFUSAL % proxy.status.encode())
        elif words[0] == "CONNECT":
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            proxy.tunnelled += self.connection.recv(10)
        else:
            self._forward(words, headers)
        return False

    def _forward(self, words: list[str], headers: list[bytes]) -> None:
        asked = urlsplit(words[1])
        path = asked.path + (f"?{asked.query}" if asked.query else "")
        kept = [h for h in headers if not h.lower().startswith((b"proxy-", b"connection: keep"))]
        upgrade = any(h.lower().startswith(b"upgrade:") for h in headers)
        head = (
            f"{words[0]} {path} HTTP/1.1\r\n".encode() + b"".join(kept) + (b"" if upgrade else b"Connection: close\r\n")
        )
        with socket.create_connection((self.proxy.server.hostname or "", self.proxy.server.port or 0)) as there:
            there.sendall(head + b"\r\n")
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
