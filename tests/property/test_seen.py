"""What an owner did by hand with coins that the account never traded, in whichever order balances and executions are told."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atb.core.orders import SeenFill
from atb.execution.external import Cause, by_hand
from atb.execution.reconcile import expected
from atb.execution.seen import SEEN, Seen
from tests.property.test_reconcile import BTC, ETH, LATER, VENUE, Sides

AMOUNTS = st.integers(1, 10**6).map(lambda n: Decimal(n).scaleb(-5))


class Slow(Sides):
    """An exchange that tells of executions some time after its balances have changed."""

    def __init__(self) -> None:
        super().__init__(BTC="50")
        self.seen, self.untold = Seen(), list[SeenFill]()

    def made(self, side: str, qty: Decimal, fee: Decimal) -> None:
        """By hand. The fee of a purchase is taken in coins."""
        number, asset = f"{len(self.untold)}", "BTC" if side == "buy" else "USDT"
        fill = SeenFill(number, number, BTC, side, qty, Decimal(20), fee, asset, None, LATER)
        sign = 1 if side == "buy" else -1
        for name, amount in (("BTC", sign * qty), ("USDT", -sign * qty * 20), (asset, -fee)):
            self.move(name, amount)
        self.untold.append(fill)

    def looked_at(self) -> None:
        """Books what it sees, as the session does."""
        for line in (line for line in self.look().lines if line.subject == "BTC" and line.action == "book"):
            cause = Cause(f"external:{self.seq}", LATER + timedelta(seconds=1), line.explanation, SEEN)
            entry = cause.adjustment("BTC", line.difference)
            self.take([entry])
            self.seen.take(entry)

    def hear(self, fill: SeenFill) -> None:
        entries = by_hand(self.books, fill, Decimal(0), None, self.seen.of(fill))
        self.take(entries)
        for entry in entries:
            self.seen.take(entry)


@given(
    st.lists(st.tuples(st.sampled_from(["buy", "sell"]), AMOUNTS, st.booleans()), min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
def test_in_any_order_the_books_are_what_is_there(trades: list[tuple[str, Decimal, bool]], random: object) -> None:
    sides = Slow()
    for side, qty, looks in trades:
        sides.made(side, qty, Decimal("0.00001") if side == "buy" else Decimal(0))
        if looks:
            sides.looked_at()
    fills = list(sides.untold)
    random.shuffle(fills)  # type: ignore[attr-defined]
    for fill in fills:
        sides.hear(fill)
    assert expected(sides.books, VENUE) == sides.there
    assert not sides.books.positions


@pytest.mark.parametrize("side", ["buy", "sell"])
def test_also_where_the_account_has_traded_it_since(side: str) -> None:
    """Else what he sold would be taken from the position, too."""
    sides = Slow()
    sides.made(side, Decimal("0.5"), Decimal(0))
    sides.looked_at()
    sides.trade(BTC, "buy", "2", "20", own=True)
    sides.hear(sides.untold[0])
    assert sides.books.positions["spot", "BTCUSDT"].qty == 2
    assert expected(sides.books, VENUE) == sides.there


def test_one_that_was_made_later_is_booked() -> None:
    sides = Slow()
    sides.made("sell", Decimal("0.5"), Decimal(0))
    sides.looked_at()
    sides.made("sell", Decimal("0.5"), Decimal(0))
    sides.hear(sides.untold[1]._replace(at=LATER + timedelta(minutes=1)))
    assert expected(sides.books, VENUE)["BTC"] == sides.there["BTC"]
    first = sides.untold[0]
    assert sides.seen.of(first) == Decimal("-0.5")
    assert sides.seen.of(first._replace(side="buy")) == 0
    assert sides.seen.of(first._replace(symbol=ETH)) == 0
