"""What an exchange lets us do with a symbol, as far as we were told: also by what it refused.

All of this is memory of the process alone. One that begins again asks again, and is told again.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from atb.venue.broker import Features

OFFSET = Decimal("0.01")  # of a stop's price: how far below it a stop-limit may sell


class Offers(NamedTuple):
    """For one symbol. pairs: take-profit and stop as one; without it only the stop rests, and the take is watched.

    offset: where only stop-limits are offered, the share of the stop's price that the limit is below it. most: of what is
    held the most that can be sold, None for all. dust: what is held is too little to be sold.
    """

    pairs: bool
    stop_type: str
    offset: Decimal = OFFSET
    most: Decimal | None = None
    dust: bool = False


class Told:
    """What the exchange's refusals have told of S symbols."""

    def __init__(self, features: Features, offset: Decimal = OFFSET) -> None:
        self.features, self.offset = features, offset
        self._refused_types: dict[int, set[str]] = {}
        self._no_pairs: set[int] = set()
        self._most: dict[int, Decimal] = {}
        self._dust: dict[int, Decimal] = {}  # what was held when it was refused as too little
        self.bare: dict[int, str] = {}  # why no stop rests

    def offers(self, s: int, held: Decimal) -> Offers:
        refused = self._refused_types.get(s, set())
        left = [kind for kind in self.features.stop_types if kind not in refused]
        return Offers(
            self.features.pairs and s not in self._no_pairs, left[0] if left else "", self.offset,
            self._most.get(s), self._dust.get(s) == held,
        )  # fmt: skip

    def no_such_type(self, s: int, kind: str) -> None:
        self._refused_types.setdefault(s, set()).add(kind)

    def no_pair(self, s: int) -> None:
        self._no_pairs.add(s)

    def too_little(self, s: int, held: Decimal) -> None:
        self._dust[s] = held

    def at_most(self, s: int, qty: Decimal) -> None:
        self._most[s] = qty

    def ask_again(self, s: int) -> None:
        """The market, or the account, may have changed since: what was passing is forgotten."""
        self._no_pairs.discard(s)
        self._most.pop(s, None)
        self.bare.pop(s, None)
