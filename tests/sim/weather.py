"""A database that goes away and comes back, counted in boundaries that a process crosses."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from atb.core.errors import DatabaseUnavailable, OutcomeUnknown
from atb.ledger.entries import Chained, Entry
from atb.ledger.steady import SteadyJournal
from tests.ledger.victim import Victim
from tests.sim.mortal import Fate


class Door:
    """The way to a database, shut in an instant: as if the server were killed, without the time that it takes."""

    def __init__(self, seed: int, lost: float = 0.01) -> None:
        self.random, self.lost, self.shut = random.Random(seed), lost, False

    def kill(self, how: str) -> None:
        self.shut = True

    def start(self) -> None:
        self.shut = False


class BehindDoor:
    """A journal that is reached through a door. Now and then a commit's answer is lost on the way back.

    What is merged from the spool passes here, too: the process may die before and after each part of it.
    """

    def __init__(self, journal: SteadyJournal, door: Door, fate: Fate) -> None:
        self.journal, self.door, self.fate, self.account_id = journal, door, fate, journal.account_id
        self.away, self.merges = False, 0

    def append(self, entries: Sequence[Entry]) -> list[Chained]:
        self._pass()
        self.fate.cross("before a commit that passes the door")
        written = self.journal.append(entries)
        self.fate.cross("after a commit that passed the door")
        if self.door.random.random() < self.door.lost:
            raise OutcomeUnknown("The door fell shut.")
        return written

    def read(self, work: Callable[[Any], Any]) -> Any:
        self._pass()
        return self.journal.read(work)

    def _pass(self) -> None:
        if self.door.shut:
            raise DatabaseUnavailable("The door is shut.")


class Weather:
    """A database that is killed now and then, and stays away for a while: counted in boundaries that are crossed."""

    def __init__(self, victim: Victim | Door, seed: int, probability: float, longest: int = 60) -> None:
        self.victim, self.random = victim, random.Random(seed)
        self.probability, self.longest = probability, longest
        self.left = 0
        self.on_return: Callable[[], None] = lambda: None

    def cross(self) -> None:
        if self.left:
            self.left -= 1
            if not self.left:
                self._return()
        elif self.random.random() < self.probability:
            self.victim.kill(self.random.choice(("immediate", "all")))
            self.left = self.random.randint(1, self.longest)

    def clear_up(self) -> None:
        if self.left:
            self.left = 0
            self._return()

    def end(self) -> None:
        """From now on nothing is lost."""
        self.clear_up()
        if isinstance(self.victim, Door):
            self.victim.lost = 0.0

    def _return(self) -> None:
        self.victim.start()
        self.on_return()
