"""What came or went of an asset and was booked before it was told why: an execution that is told later is not booked again.

Only assets that the account itself has never traded are booked so (reconcile.py). An entry of this evidence says how much; one
more, of the opposite amount, says that it is told now.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from atb.core.orders import CLOCKS_DIFFER, SeenFill
from atb.ledger.entries import Entry

SEEN = "seen at the exchange"  # their evidence
TOLD = ":told"  # at the end of the id of one that takes another back
ZERO = Decimal(0)


class Seen:
    """Of an account, by asset, what is not told yet. A fold over its entries."""

    def __init__(self) -> None:
        self._untold: dict[str, list[tuple[datetime, Decimal]]] = {}

    def take(self, entry: Entry) -> None:
        if entry.kind != "adjustment" or (entry.body["type"], entry.body["evidence"]) != ("external", SEEN):
            return
        amount, untold = Decimal(entry.body["amount"]), self._untold.setdefault(entry.body["asset"], [])
        if not entry.id.endswith(TOLD):
            untold.append((entry.at, amount))
            return
        for i, (at, seen) in enumerate(untold):
            if _explains(entry.at, -amount, at, seen):
                part = min(seen, -amount, key=abs)
                untold[i], amount = (at, seen - part), amount + part

    def of(self, fill: SeenFill) -> Decimal:
        """Base units that an execution may have brought, or taken (negative), and that were booked then."""
        sign = Decimal(1 if fill.side == "buy" else -1)
        untold = self._untold.get(fill.symbol.base, ())
        return sum((seen for at, seen in untold if _explains(fill.at, sign, at, seen)), ZERO)


def _explains(told_at: datetime, told: Decimal, at: datetime, seen: Decimal) -> bool:
    return told * seen > 0 and told_at <= at + CLOCKS_DIFFER
