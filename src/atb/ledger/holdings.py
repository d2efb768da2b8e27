"""What is held, and what it cost: cash, positions and other assets, changed by one fill after another.

Accounting is the engine's `apply_fill`, here on Decimal. Costs are kept to 18 places; what that takes from a cost it gives to
the realised profit, so that cash is exact: cash = paid in + realised - fees - cost of what is held.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from atb.engine.book import Book, apply_fill
from atb.ledger.records import EXACT, ZERO, Fill, Key, Position, Touched, Trade, rounded


class Holdings:
    """What fills amount to."""

    def __init__(self) -> None:
        self.cash = ZERO
        self.realized = ZERO
        self.fees = ZERO
        self.assets: dict[str, Decimal] = {}
        self.positions: dict[Key, Position] = {}

    def book(self, fill: Fill, touched: Touched) -> None:
        """What a fill, or what is left of it, does to the position, the cash and the fees."""
        if fill.effective == 0:
            return
        fee, in_quote = fill.fee, fill.fee_quote
        if fill.effective != fill.qty:
            fee = share_of(fee, fill.effective, fill.qty)
            in_quote = fee * fill.price if fill.fee_kind == "base" else share_of(in_quote, fill.effective, fill.qty)
        change = fill.effective if fill.side == "buy" else -fill.effective
        beyond = fee if fill.fee_kind == "other" else ZERO  # of the fee what other holdings paid
        if fill.fee_kind == "base":
            beyond = self._beyond(fill, change, fee)
            change -= fee - beyond
            if change == 0:  # all that was bought went into its fee
                self.cash -= in_quote
                self.fees += in_quote
        if beyond:
            self.assets[fill.fee_asset] = self.assets.get(fill.fee_asset, ZERO) - beyond
        while change != 0:
            position = self.positions.get(fill.key)
            if position is None:
                position = Position(fill.key, fill.seq, fill.at, fill.session_id)
                self.positions[fill.key] = position
            held = position.qty
            through = (held > 0 > change or held < 0 < change) and abs(change) > abs(held)
            part = -held if through else change
            part_fee = rounded(in_quote * part / change) if through else in_quote
            self._book_part(position, part, fill, part_fee, beyond)
            position.provisional |= fill.provisional
            touched.positions.add(fill.key)
            change -= part
            in_quote -= part_fee
            if position.qty == 0:
                del self.positions[fill.key]
                touched.closed.append(position)
                touched.trades.append(Trade(fill.seq, position, fill.at, fill.reason))

    def _beyond(self, fill: Fill, change: Decimal, fee: Decimal) -> Decimal:
        """What of a fee in base the position does not have: who sells all of it pays from what else is there."""
        position = self.positions.get(fill.key)
        left = ZERO if position is None else position.qty + change
        return max(fee - left, ZERO) if position is not None and change < 0 <= left else ZERO

    def _book_part(self, position: Position, change: Decimal, fill: Fill, fee: Decimal, beyond: Decimal) -> None:
        value = change * fill.price
        paid = ZERO if fill.fee_kind == "other" else fee - beyond * fill.price
        book = apply_fill(
            Book(position.qty, position.cost, self.cash, position.realized, position.fees), change, value, paid
        )
        cost = rounded(book.cost)
        realized = position.realized - position.cost - value + cost
        self.cash = book.cash
        self.realized += realized - position.realized
        self.fees += fee
        adds = position.qty == 0 or (position.qty > 0) == (change > 0)
        position.qty, position.cost, position.realized = book.qty, cost, realized
        position.fees += fee
        position.last_price = fill.price
        if adds:
            position.entered_qty += abs(change)
            position.entered_value += value
        else:
            position.exited_qty += abs(change)
            position.exited_value -= value

    def exchange(self, key: Key, before: Holdings, after: Holdings) -> None:
        """Put what a symbol's fills amount to now in the place of what they amounted to."""
        self.cash += after.cash - before.cash
        self.realized += after.realized - before.realized
        self.fees += after.fees - before.fees
        for asset in {*before.assets, *after.assets}:
            change = after.assets.get(asset, ZERO) - before.assets.get(asset, ZERO)
            self.assets[asset] = self.assets.get(asset, ZERO) + change
        self.positions.pop(key, None)
        self.positions.update(after.positions)


def share_of(fee: Decimal, part: Decimal, whole: Decimal) -> Decimal:
    """What of a fee falls to a part of its fill."""
    return fee if part == whole else rounded(EXACT.multiply(fee, EXACT.divide(part, whole)))


def folded(fills: Iterable[Fill]) -> tuple[Holdings, Touched]:
    """What these fills alone amount to, each with what is left of it."""
    holdings, touched = Holdings(), Touched()
    for fill in fills:
        holdings.book(fill, touched)
    return holdings, touched
