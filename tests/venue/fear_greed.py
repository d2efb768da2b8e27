"""A server that speaks as alternative.me's index of fear and greed does: the newest day first, numbers as text."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.venue.served import Served

Day = dict[str, Any]


def days(*values: float, first_ms: int) -> list[Day]:
    """From the first day on."""
    return [
        {"value": f"{value:g}", "value_classification": "Fear", "timestamp": str(first_ms // 1000 + 86_400 * i)}
        for i, value in enumerate(values)
    ]


class FearGreed(Served):
    """answers: bodies or statuses that it gives first, one a request."""

    def __init__(self, known: list[Day], *answers: bytes | int) -> None:
        self.days, self.answers, self.asked = known, list(answers), 0
        super().__init__(ThreadingHTTPServer, _Handler)
        self.url += "/fng"

    def answer(self) -> tuple[int, bytes]:
        self.asked += 1
        told = self.answers.pop(0) if self.answers else b""
        if isinstance(told, int):
            return told, b"sorry"
        body = {"name": "Fear and Greed Index", "data": self.days[::-1], "metadata": {"error": None}}
        return 200, told or json.dumps(body).encode()


class _Handler(BaseHTTPRequestHandler):
    server_of: FearGreed

    def do_GET(self) -> None:
        status, body = self.server_of.answer() if self.path == "/fng/?limit=0" else (404, b"no such path")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""
