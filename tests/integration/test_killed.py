"""`atb live` with real orders, killed with SIGKILL at random moments and started again: exchange and ledger agree in the end."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.database import Postgres
from tests.integration.account_case import check
from tests.integration.test_live_trading import until
from tests.integration.test_real_money import Place, answering, killed, stopped
from tests.seeds import seeds

HIGH, LOW = "40500", "38900"  # above the strategy's level and below it, and above its stop
LONGEST_S = 18.0  # from a start to a kill: a candle closes 12 s after one begins
AFTER_AN_ORDER_S = 0.4
POST = {"path": "/api/v3/order", "method": "POST"}
FAULTS = (
    {"kind": "reset", "done": True, "probability": 0.15, **POST},
    {"kind": "reset", "done": False, "probability": 0.1, **POST},
    {"kind": "status", "status": 503, "done": True, "probability": 0.1, **POST},
    {
        "kind": "refused",
        "probability": 0.15,
        "where": "STOP_LOSS",
        "code": -2010,
        "message": "Stop is rejected.",
        **POST,
    },
    {"kind": "vanished", "probability": 0.2, "where": "STOP_LOSS", "seconds": 2, **POST},
    {"kind": "part then cancelled", "probability": 0.2, "where": "MARKET", **POST},
    {"kind": "unseen", "path": "/api/v3/myTrades", "probability": 0.2, "seconds": 2},
    {"kind": "unseen", "path": "/api/v3/order", "method": "GET", "probability": 0.2, "seconds": 1.5},
    {"kind": "status", "status": 502, "path": "/api/v3/", "method": "GET", "probability": 0.03},
    {"kind": "late", "probability": 0.1, "seconds": 3, **POST},
)


class Victim:
    """An engine at a bad exchange, that somebody kills."""

    def __init__(self, place: Place, seed: int) -> None:
        self.place, self.random, self.price = place, random.Random(seed), LOW
        self.process: subprocess.Popen[str] | None = None

    def spoil(self) -> None:
        for fault in FAULTS:
            if self.random.random() < 0.6:
                self.place.control("fault", **fault)

    def turn(self) -> None:
        """Another signal at the next close, which is near."""
        self.price = LOW if self.price == HIGH else HIGH
        self.place.control("price", symbol="BTCUSDT", price=self.price)
        self.place.just_before_a_close()

    def live_and_die(self) -> None:
        """Either at any moment, or in the midst of what it does to an order."""
        orders = len(self.place.account["orders"])
        self.process = self.place.start("--resume-from-last-balance")
        end = time.monotonic() + self.random.uniform(0.5, LONGEST_S)
        amid = self.random.random() < 0.6
        while time.monotonic() < end and self.process.poll() is None:
            if amid and len(self.place.account["orders"]) > orders:
                time.sleep(self.random.uniform(0, AFTER_AN_ORDER_S))
                break
            time.sleep(0.02)
        killed(self.process)

    def settle(self) -> None:
        """The exchange is itself again, and an engine runs until nothing is left to do."""
        self.place.control("heal")
        if self.price == LOW:
            self.turn()
        self.process = self.place.start("--resume-from-last-balance")
        answering(self.place)
        until(lambda: self.place.resting and self.place.total("BTC") > Decimal("0.01"), "a position with its stop")
        stopped(self.process)


@pytest.fixture
def victim(server: Postgres, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Victim]:
    place = Place(server, tmp_path)
    made = Victim(place, request.param)
    try:
        yield made
    finally:
        for process in (made.process, place.process):
            if process is not None:
                with contextlib.suppress(ValueError):  # it has ended, and its pipes are closed
                    killed(process)


def many_lives(victim: Victim, kills: int) -> None:
    victim.spoil()
    for _ in range(kills):
        if victim.random.random() < 0.7:
            victim.turn()
        victim.live_and_die()
    victim.settle()
    check(victim.place)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [2], indirect=True)
def test_killed_three_times(victim: Victim) -> None:
    many_lives(victim, 3)


@pytest.mark.slow
@pytest.mark.parametrize("victim", seeds(10, 2), indirect=True)
def test_killed_many_times(victim: Victim) -> None:
    many_lives(victim, 10)
