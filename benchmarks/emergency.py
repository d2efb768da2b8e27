"""`atb db emergency-close-all` as a process: from its start until the loopback exchange has sold five positions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from atb.ledger.connect import embedded as where_of
from atb.ledger.embedded import start, stop
from atb.ledger.migrate import migrate
from benchmarks.ledger import FIRST_PORT, MIGRATIONS
from benchmarks.measure import Row
from benchmarks.shell import ATB
from tests.venue.exchange_process import ExchangeProcess

ROOT = Path(__file__).resolve().parents[1]
PRICES = {"BTCUSDT": "40000", "ETHUSDT": "2500", "SOLUSDT": "100", "ADAUSDT": "50", "XRPUSDT": "60"}


def closing(quick: bool) -> list[Row]:
    """The best of some rounds without faults, the worst with every third request failing. Without the last look."""
    calm = min(_flat_after_s(None) for _ in range(2 if quick else 5))
    faults: list[dict[str, Any]] = [{"kind": "status"}, {"kind": "reset"}, {"kind": "reset", "done": True}]
    failing = max(_flat_after_s(fault) for fault in (faults[:1] if quick else faults))
    return [
        Row("five positions sold", calm, "s", 3.0),
        Row("five positions sold, every third request failing", failing, "s", 15.0),
    ]


def _flat_after_s(fault: dict[str, Any] | None) -> float:
    with tempfile.TemporaryDirectory() as folder, _exchange() as exchange:
        home = Path(folder)
        server = start(home, first_port=FIRST_PORT)
        try:
            migrate(where_of(server), MIGRATIONS)
            env = {**os.environ, "ATB_HOME": folder, "PRICES": json.dumps(PRICES), **exchange.address, **exchange.keys}
            env.pop("DATABASE_URL", None)
            with _engine(env):
                if fault is not None:
                    exchange.control("fault", **fault, every=3)
                begun = time.time()
                subprocess.run([ATB, "db", "emergency-close-all"], env=env, cwd=folder, capture_output=True, check=True)
            return _last_sale_s(exchange) - begun
        finally:
            stop(home)


def _exchange() -> ExchangeProcess:
    symbols = [each for name, price in PRICES.items() for each in ("--symbol", f"{name}:{name[:-4]}:USDT:{price}")]
    return ExchangeProcess(*symbols, "--history", "5")


@contextmanager
def _engine(env: dict[str, str]) -> Iterator[None]:
    """Holds a position in each, with a stop and a take."""
    command = [sys.executable, "-m", "tests.closing_engine", "hold", *PRICES]
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            told = [json.loads(process.stdout.readline()) for _ in range(2)]
            if not all(Decimal(qty) for qty in told[-1]["held"].values()):
                raise RuntimeError(f"It did not buy all of them: {told[-1]}")
            yield
        finally:
            process.kill()


def _last_sale_s(exchange: ExchangeProcess) -> float:
    """By the exchange's clock, which is this machine's."""
    state = exchange.account
    coins = {name: Decimal(b["free"]) + Decimal(b["locked"]) for name, b in state["balances"].items() if name != "USDT"}
    if any(qty > Decimal("0.00001") for qty in coins.values()):
        raise RuntimeError(f"It is not flat: {coins}")
    return float(max(trade["time"] for trade in state["trades"])) / 1000
