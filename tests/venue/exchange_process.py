"""The exchange of the tests as a process of its own, as real ones are: other processes trade there, and a test moves it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]


class ExchangeProcess:
    """A context manager. `url`: its root. `key` and `secret`: those of the account "main".

    options: see python -m tests.venue.exchange --help
    """

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "tests.venue.exchange", *options]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.url, self.key, self.secret = str(told["url"]), str(told["key"]), str(told["secret"])
        self.venue = "coinbase" if "--coinbase" in options else "binance"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()

    @property
    def address(self) -> dict[str, str]:
        """Where it is, as `atb` reads it from its environment."""
        return {f"ATB_{self.venue.upper()}_API_URL": self.url}

    @property
    def keys(self) -> dict[str, str]:
        name = self.venue.upper()
        return {f"{name}_API_KEY": self.key, f"{name}_API_SECRET": self.secret}

    def control(self, name: str, **what: object) -> Any:
        """Tell it what no exchange is told: see exchange/control.py."""
        return self._answer(name, json.dumps(what).encode())

    def ask(self, name: str) -> Any:
        """What no exchange says: state, log."""
        return self._answer(name, None)

    def _answer(self, name: str, data: bytes | None) -> Any:
        with urllib.request.urlopen(f"{self.url}/control/{name}", data, timeout=10) as answer:
            return json.load(answer)

    @property
    def account(self) -> dict[str, Any]:
        """Balances, orders and trades of "main"; an AssertionError where the exchange's own books do not agree."""
        state = self.ask("state")
        assert state["broken"] == []
        return dict(state["accounts"]["main"])
