"""Orders and executions as they go over a wire. Quantities in base units, prices in quote, Decimal; None where there is none."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from atb.core.types import Symbol

# type: what it does. A `stop` sells or buys at the market once stop_price is touched, a `stop_limit` at its price; a
# `take_limit` rests at its price from the beginning.
ORDER_TYPES = ("market", "limit", "stop", "stop_limit", "take_limit")
OTHER = "other"  # the type of a foreign order that we have no word for; without prices
WORKING = ("open", "partially_filled")
FINAL = ("filled", "cancelled", "rejected", "expired")
CLOCKS_DIFFER = timedelta(seconds=2)  # the exchange's and ours, which is corrected by what was measured last


class NewOrder(NamedTuple):
    """What is asked of an exchange. The client id is chosen, and written down, before it is sent."""

    client_order_id: str
    symbol: Symbol
    side: str  # buy or sell
    type: str
    qty: Decimal
    price: Decimal | None = None
    stop_price: Decimal | None = None


class SeenOrder(NamedTuple):
    """An order as the exchange tells of it."""

    client_order_id: str
    venue_order_id: str
    symbol: Symbol
    side: str
    type: str
    qty: Decimal
    price: Decimal | None
    stop_price: Decimal | None
    state: str  # one of WORKING or FINAL
    created_at: datetime
    updated_at: datetime
    filled_qty: Decimal = Decimal(0)


class SeenFill(NamedTuple):
    """An execution as the exchange tells of it. `fee_quote`: the fee's worth where it is in a third asset."""

    venue_trade_id: str
    venue_order_id: str
    symbol: Symbol
    side: str
    qty: Decimal
    price: Decimal
    fee: Decimal
    fee_asset: str
    fee_quote: Decimal | None
    at: datetime


class SeenTransfer(NamedTuple):
    """A change of a balance by something that is no execution. `amount` is signed: above 0 it came in.

    kind: deposit, withdrawal (with its fee), conversion (of two legs under one id), income (interest, airdrops, rebates) or
    internal (from or to another wallet of the same owner). `id` is the venue's own, and one of its kind and asset.
    """

    id: str
    kind: str
    asset: str
    amount: Decimal
    at: datetime

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.id}:{self.asset}"


class Balance(NamedTuple):
    """What is there of an asset, and what of it is locked in orders."""

    asset: str
    free: Decimal
    locked: Decimal

    @property
    def total(self) -> Decimal:
        return self.free + self.locked


class KeyRights(NamedTuple):
    """What a key may do; None where the exchange does not tell."""

    may_trade: bool | None
    may_withdraw: bool | None
    only_from: bool | None = None  # whether it works from some addresses only
