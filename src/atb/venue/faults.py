"""What can go wrong between a program and an exchange, as a seeded plan: the same seed, the same calls, the same faults."""

from __future__ import annotations

import random
from typing import NamedTuple

PLACING = ("place", "place_pair")
CHANGING = (*PLACING, "cancel")
ASKING = ("find", "open_orders", "fills", "orders", "transfers", "balances")
EVERY = (*CHANGING, *ASKING)

# Each kind: the operations it can strike.
KINDS = {
    "unknown_before": CHANGING,  # OrderUnknown, and the exchange never heard of it
    "unknown_after": CHANGING,  # OrderUnknown, and the exchange did it
    "held_up": CHANGING,  # OrderUnknown, and the exchange hears of it `ms` later: too late, if its window has passed
    "refused": EVERY,  # OrderRefused for the fault's reason
    "unavailable": EVERY,  # ExchangeUnavailable (OrderUnknown for what changes something), nothing was done
    "outage": EVERY,  # the same for every call for `ms`; what rests at the exchange goes on filling
    "finished_refused": (
        "cancel",
    ),  # ExchangeRefused where the order is at its end: some exchanges know only working ones
    "invisible": PLACING,  # for `ms` no answer tells of the order or of its executions
    "overlooked": PLACING,  # OrderUnknown, the exchange did it, and for `ms` no answer tells of it
    "late": ASKING[:-1],  # this answer tells of nothing younger than `ms`
    "vanishes": PLACING,  # the exchange cancels it after `ms`; of a pair both
    "partial": PLACING,  # it fills in `parts` executions, one each time the market moves
    "partial_expires": PLACING,  # one of `parts` is filled, the rest is given up
}


class Fault(NamedTuple):
    """A kind of fault and when it strikes: with a probability, or at the k-th call (from 1) of those that it could strike.

    operation: one of EVERY, or "*". types: of the orders it strikes; none: of all. reason: of a refusal (OrderRefused).
    """

    operation: str
    kind: str
    probability: float = 0.0
    calls: tuple[int, ...] = ()
    ms: int = 0
    parts: int = 2
    types: tuple[str, ...] = ()
    reason: str = "refused"

    def could_strike(self, operation: str, types: tuple[str, ...]) -> bool:
        meant = self.operation in ("*", operation) and operation in KINDS[self.kind]
        return meant and (not self.types or not set(self.types).isdisjoint(types))


class FaultPlan:
    """Faults, each independent of the others. `struck` lists what happened: (operation, kind)."""

    def __init__(self, seed: int, *faults: Fault) -> None:
        for fault in faults:
            operations = KINDS.get(fault.kind, ())
            if not operations or fault.operation not in ("*", *operations):
                raise ValueError(f"No fault '{fault.kind}' strikes '{fault.operation}'.")
        self.seed, self.faults = seed, faults
        self.struck: list[tuple[str, str]] = []
        self._random = random.Random(seed)
        self._calls = [0] * len(faults)

    def strike(self, operation: str, *types: str) -> dict[str, Fault]:
        """The faults of this call, by kind."""
        struck = {}
        for index, fault in enumerate(self.faults):
            if fault.could_strike(operation, types):
                self._calls[index] += 1
                if self._random.random() < fault.probability or self._calls[index] in fault.calls:
                    struck[fault.kind] = fault
                    self.struck.append((operation, fault.kind))
        return struck
