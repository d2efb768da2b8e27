"""What comes to and goes from accounts without an order, and what their owners do by hand."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

from tests.venue.exchange.accounts import Account
from tests.venue.exchange.engine import Engine
from tests.venue.exchange.money import ZERO, Number, exact
from tests.venue.exchange.orders import Order

KINDS = ("deposit", "withdrawal", "dust", "convert", "income", "MAIN_FUNDING", "FUNDING_MAIN")
BY_HAND = "web_"  # how client ids begin that the exchange's own pages give


class Transfer(NamedTuple):
    """`amount` is not signed: the kind says where it went. `into`: of a conversion, what it became."""

    id: int
    kind: str
    asset: str
    amount: Decimal
    at_ms: int
    fee: Decimal = ZERO
    into: tuple[str, Decimal] | None = None
    status: str = "done"  # or pending


class Owner:
    """What the owner of an account does, beside whatever trades for him."""

    def __init__(self, engine: Engine, now: Callable[[], int]) -> None:
        self.engine, self.now = engine, now
        self.count = 0

    def move(
        self, account: Account, kind: str, asset: str, amount: Number, *, fee: Number = 0,
        into: tuple[str, Number] | None = None, told: bool = True,
    ) -> Transfer:  # fmt: skip
        """Moves it at once.

        fee: on top of a withdrawal; of what a conversion gave, taken already. told: whether the account's history has it.
        """
        assert kind in KINDS, kind
        moved, cost = exact(amount), exact(fee)
        comes = kind in ("deposit", "income", "FUNDING_MAIN")
        account.deposit(asset, moved if comes else -moved - (cost if into is None else ZERO))
        if into is not None:
            account.deposit(*into)
        self.count += 1
        became = None if into is None else (into[0], exact(into[1]))
        transfer = Transfer(self.count, kind, asset, moved, self.now(), cost, became)
        if told:
            account.transfers.append(transfer)
        return transfer

    def order(
        self, account: Account, symbol: str, side: str, qty: Number, price: Number | None = None,
        stop: Number | None = None, type: str = "", client_id: str = "",
    ) -> Order:  # fmt: skip
        """At the market, or with a price one that may rest."""
        self.count += 1
        kind = type or ("MARKET" if price is None else "LIMIT")
        order = Order(
            account, symbol, side, kind, exact(qty), client_id or f"{BY_HAND}{self.count}",
            None if price is None else exact(price), None if stop is None else exact(stop),
            stop_above=kind.startswith("TAKE_PROFIT"),
        )  # fmt: skip
        self.engine.place(order)
        return order
