"""What an exchange lets us do with a symbol, as far as we were told: also by what it refused.

All of this is memory of the process alone. One that begins again asks again, and is told again; but while something rests
for what is held, what was refused is recalled from the ledger's orders (refusals._recall).
"""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from typing import NamedTuple

from atb.venue.broker import Features

OFFSET = Decimal("0.01")  # of a stop's price: how far below it a stop-limit may sell, and a wider stop rests
WAITS_MS = 10_000, 600_000  # the first and the longest, from a sale that was refused to the next try
BARE_WAITS_MS = 1_000, 60_000  # and where nothing rests for what is held: each way to protect it was refused
REMEMBERED = 16  # of what was refused, of each symbol

# What matters of orders that would rest: purpose, quantity and price of each.
Resting = tuple[tuple[str, Decimal, Decimal], ...]


class Offers(NamedTuple):
    """For one symbol. pairs: take-profit and stop as one; without it only the stop rests, and the take is watched.

    offset: where only stop-limits are offered, the share of the stop's price that the limit is below it. most: of what is
    held the most that can be sold, None for all. dust: what is held is too little to be sold. refused: what may not rest as it
    is. kept: a sale was refused a moment ago: what is held is protected until it is tried again.
    """

    pairs: bool
    stop_type: str
    offset: Decimal = OFFSET
    most: Decimal | None = None
    dust: bool = False
    refused: frozenset[Resting] = frozenset()
    kept: bool = False


class Refusals(NamedTuple):
    """Of what was tried with what was held, one after the other. due_ms: when it is tried again, by the exchange's clock; None
    while it is."""

    held: Decimal
    wait_ms: int
    due_ms: int | None

    def is_due(self, now_ms: int) -> bool:
        return self.due_ms is not None and now_ms >= self.due_ms

    def waits(self, now_ms: int) -> bool:
        return self.due_ms is not None and now_ms < self.due_ms


def again(last: Refusals | None, held: Decimal, now_ms: int, waits_ms: tuple[int, int]) -> Refusals:
    """Another one: it waits twice as long each time. waits_ms: the first and the longest."""
    first_ms, longest_ms = waits_ms
    wait_ms = min(last.wait_ms * 2, longest_ms) if last and last.held == held else first_ms
    return Refusals(held, wait_ms, now_ms + wait_ms)


class Told:
    """What the exchange's refusals have told of S symbols."""

    def __init__(self, features: Features, offset: Decimal = OFFSET) -> None:
        self.features, self.offset = features, offset
        self.waits_ms = WAITS_MS
        self.asked_ms: dict[int, int | None] = {}  # by symbol the candle in which what was refused was tried again
        self._refused_types: dict[int, set[str]] = {}
        self._refused: dict[int, deque[Resting]] = {}
        self._most: dict[int, Decimal] = {}
        self._dust: dict[int, Decimal] = {}  # what was held when it was refused as too little
        self._sales: dict[int, Refusals] = {}
        self._bare: dict[int, Refusals] = {}

    def offers(self, s: int, held: Decimal, now_ms: int = 0) -> Offers:
        """now_ms: the exchange's clock."""
        types = self._refused_types.get(s, set())
        left = [kind for kind in self.features.stop_types if kind not in types]
        sales = self._sales.get(s)
        return Offers(
            self.features.pairs, left[0] if left else "", self.offset, self._most.get(s), self._dust.get(s) == held,
            frozenset(self._refused.get(s, ())), sales is not None and sales.held == held and sales.waits(now_ms),
        )  # fmt: skip

    def no_such_type(self, s: int, kind: str) -> None:
        self._refused_types.setdefault(s, set()).add(kind)

    def not_so(self, s: int, resting: Resting) -> None:
        """It may not rest as it is; what rests of another price or quantity is another matter."""
        self._refused.setdefault(s, deque(maxlen=REMEMBERED)).append(resting)

    def too_little(self, s: int, held: Decimal) -> None:
        self._dust[s] = held

    def at_most(self, s: int, qty: Decimal | None) -> None:
        if qty is None:
            self._most.pop(s, None)
        else:
            self._most[s] = qty

    def is_limited(self, s: int) -> bool:
        return s in self._most

    def no_sale(self, s: int, held: Decimal, now_ms: int) -> int:
        """A sale was refused. Returns for how many ms what is held is protected instead: twice as long each time."""
        self._sales[s] = again(self._sales.get(s), held, now_ms, self.waits_ms)
        return self._sales[s].wait_ms

    def sell_now(self, s: int) -> None:
        """The next sale is due at once."""
        if (last := self._sales.get(s)) is not None:
            self._sales[s] = last._replace(due_ms=0)

    def nothing_rests(self, s: int, held: Decimal, now_ms: int) -> int:
        """Each way to protect what is held was refused. Returns after how many ms all are tried again."""
        self._bare[s] = again(self._bare.get(s), held, now_ms, BARE_WAITS_MS)
        return self._bare[s].wait_ms

    def is_due(self, s: int, now_ms: int) -> bool:
        """Whether to try again, where nothing protects what is held."""
        return s in self._bare and self._bare[s].is_due(now_ms)

    def waits(self, s: int, now_ms: int) -> bool:
        """Whether a time to try again is set, and to come."""
        return s in self._bare and self._bare[s].waits(now_ms)

    def try_again(self, s: int) -> None:
        """Each way to protect what is held is tried once more. What the exchange does not offer, too: it may have erred."""
        self._refused.pop(s, None)
        self._refused_types.pop(s, None)
        self._bare[s] = self._bare[s]._replace(due_ms=None)  # until all is refused again

    def is_protected(self, s: int) -> None:
        """The next time is the first one."""
        self._bare.pop(s, None)

    def ask_again(self, s: int) -> None:
        """The market may have changed: what was refused is tried again. Not while something rests that would have to go."""
        self._refused.pop(s, None)
        self._dust.pop(s, None)
