"""Does an exchange answer at all? Asked before ccxt, whose import costs a second, is worth loading."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

ROOTS = {"binance": "https://api.binance.com", "coinbase": "https://api.coinbase.com"}


def answers(venue: str, base_url: str | None, timeout_s: float = 3.0) -> bool:
    """Whether a connection to the exchange can be opened within `timeout_s`."""
    parts = urlsplit(base_url or ROOTS[venue])
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=timeout_s):
            return True
    except OSError:
        return False
