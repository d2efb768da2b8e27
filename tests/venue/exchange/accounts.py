"""Accounts: their keys, and what they have of each asset, free and locked in orders."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from tests.venue.exchange.money import ZERO, Amounts, Number, amounts, exact
from tests.venue.exchange.orders import Order, OrderList, Trade

if TYPE_CHECKING:
    from tests.venue.exchange.transfers import Transfer

Lock = tuple[str, Decimal]  # asset, amount


class Key(NamedTuple):
    key: str
    secret: str
    account: str
    may_trade: bool = True
    may_withdraw: bool = False
    may_read: bool = True


def made_key(name: str, may_trade: bool = True, may_withdraw: bool = False) -> Key:
    """Key and secret as long as Binance's, the same in each run."""
    key, secret = (hashlib.sha256(f"{part} of {name}".encode()).hexdigest() for part in ("key", "secret"))
    return Key(key, secret, name, may_trade, may_withdraw)


class Balance(NamedTuple):
    free: Decimal
    locked: Decimal


@dataclass(eq=False)
class Account:
    name: str
    key: Key
    maker_fee: Decimal = Decimal("0.001")
    taker_fee: Decimal = Decimal("0.001")
    pays_in_bnb: bool = False
    pays_in_quote: bool = False  # and has to have it on top of what it buys
    may_trade: bool = True
    created_ms: int = 0
    orders: list[Order] = field(default_factory=list)
    lists: list[OrderList] = field(default_factory=list)
    trades: list[Trade] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    deposits: Amounts = field(default_factory=amounts)
    totals: Amounts = field(default_factory=amounts)
    locks: dict[Order | OrderList, Lock] = field(default_factory=dict)
    updated_ms: int = 0

    @property
    def open_orders(self) -> list[Order]:
        return [order for order in self.orders if order.open]

    @property
    def surcharge(self) -> Decimal:
        """What a purchase costs, fees included, as a multiple of its price."""
        return 1 + self.taker_fee if self.pays_in_quote else Decimal(1)

    @property
    def balances(self) -> dict[str, Balance]:
        return {asset: Balance(self.free(asset), self.locked(asset)) for asset in sorted(self.totals)}

    def locked(self, asset: str) -> Decimal:
        return sum((amount for locked, amount in self.locks.values() if locked == asset), ZERO)

    def free(self, asset: str) -> Decimal:
        return self.totals[asset] - self.locked(asset)

    def deposit(self, asset: str, amount: Number) -> None:
        """A negative amount is a withdrawal."""
        self.deposits[asset] += exact(amount)
        self.totals[asset] += exact(amount)

    def placed(self, client_id: str) -> list[Order]:
        """Every order that was ever made with this client id: more than one is a duplicate."""
        return [order for order in self.orders if order.client_id == client_id]

    def relock(self, holder: Order | OrderList, need: Lock) -> None:
        """Locks what the holder needs now instead of what it needed before."""
        if need[1] > 0:
            self.locks[holder] = need
        else:
            self.locks.pop(holder, None)
