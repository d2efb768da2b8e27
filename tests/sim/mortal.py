"""A process that may die at each boundary: around every commit, every request, every step of its start."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from atb.core.timeframe import Clock
from atb.ledger.entries import Chained, Entry

if TYPE_CHECKING:
    from tests.sim.weather import Weather

OPERATIONS = ("place", "place_pair", "cancel", "find", "open_orders", "fills", "orders", "transfers", "balances")


class Crash(BaseException):
    """The process is gone at this instruction. (No Exception: nothing may catch it.)"""


class Fate:
    """Decides at each boundary whether the process dies there: by chance, and at those whose numbers are given (from 1)."""

    def __init__(self, seed: int, probability: float, at: Collection[int] = ()) -> None:
        self.random, self.probability, self.at = random.Random(seed), probability, set(at)
        self.deaths = self.number = 0
        self.first: dict[str, int] = {}  # by boundary its first number
        self.died: Counter[str] = Counter()
        self.weather: Weather | None = None

    def cross(self, boundary: str) -> None:
        if self.weather is not None:
            self.weather.cross()
        self.number += 1
        self.first.setdefault(boundary, self.number)
        if self.random.random() < self.probability or self.number in self.at:
            self.deaths += 1
            self.died[boundary] += 1
            raise Crash(boundary)


class MortalJournal:
    """The journal of a process that may die just before and just after each commit."""

    def __init__(self, journal: Any, fate: Fate) -> None:
        self.journal, self.fate, self.account_id = journal, fate, journal.account_id

    def append(self, entries: Sequence[Entry]) -> list[Chained]:
        what = named(entries)
        self.fate.cross(f"before commit of {what}")
        written: list[Chained] = self.journal.append(entries)
        self.fate.cross(f"after commit of {what}")
        return written

    def read(self, work: Callable[[Any], Any]) -> Any:
        return self.journal.read(work)

    @property
    def away(self) -> bool:
        return bool(self.journal.away)

    @property
    def merges(self) -> int:
        return int(self.journal.merges)


def named(entries: Sequence[Entry]) -> str:
    """What is committed, in words: an outcome by what it is."""
    if not entries:
        return "nothing"
    first = entries[0]
    return f"{first.kind} {first.body['state']}" if first.kind == "order" else first.kind


class MortalBroker:
    """The way to the exchange of a process that may die just before and just after each request.

    skew_ms: by how much this process is wrong about the exchange's clock.
    """

    def __init__(
        self, broker: Any, fate: Fate, placing: Callable[[str], None] = lambda _: None, skew_ms: int = 0
    ) -> None:
        self.broker, self.fate, self.placing, self.skew_ms = broker, fate, placing, skew_ms

    def now_ms(self) -> int:
        return int(self.broker.now_ms()) + self.skew_ms

    def __getattr__(self, name: str) -> Any:
        known = getattr(self.broker, name)
        if name not in OPERATIONS:
            return known

        def request(*args: Any) -> Any:
            self.fate.cross(f"before {name}")
            if name.startswith("place"):
                self.placing(args[0].client_order_id)
            answer = known(*args)
            self.fate.cross(f"after {name}")
            return answer

        return request


class MortalClock:
    """The clock of a start, which reads it once it has authority: it may die there."""

    def __init__(self, clock: Clock, fate: Fate) -> None:
        self.clock, self.fate = clock, fate

    def now_ms(self) -> int:
        self.fate.cross("start: authority taken")
        return self.clock.now_ms()
