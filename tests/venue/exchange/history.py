"""What happened, for tests to look at: events of orders, requests and their effects, how long a position had no stop."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple

from tests.venue.exchange.accounts import Account
from tests.venue.exchange.market import Market
from tests.venue.exchange.money import ZERO
from tests.venue.exchange.orders import Event, Order


class Entry(NamedTuple):
    """A request that was processed, whatever became of its answer."""

    at_ms: int
    account: str  # "" where none was known
    method: str
    path: str
    params: Mapping[str, str]
    status: int
    effect: tuple[Event, ...]


class Moment(NamedTuple):
    """What an account held of a market's base from then on, and what of it a stop would have sold."""

    at_ms: int
    held: Decimal
    stopped: Decimal


Log = list[Entry]
Events = list[Event]


class History:
    def __init__(self) -> None:
        self.events: Events = []
        self.log: Log = []
        self._moments: dict[tuple[str, str], list[Moment]] = defaultdict(list)

    def note(self, order: Order, what: str, qty: Decimal, price: Decimal | None, now_ms: int) -> None:
        account = order.account.name
        self.events.append(Event(now_ms, account, order.symbol, order.id, order.client_id, what, qty, price))

    def mark(self, account: Account, market: Market, now_ms: int) -> None:
        orders = (order for order in account.open_orders if order.symbol == market.name and order.protects)
        moment = Moment(now_ms, account.totals[market.listing.base], sum((order.rest for order in orders), ZERO))
        self._moments[account.name, market.name].append(moment)

    def unprotected_ms(self, account: str, symbol: str, span: tuple[int, int], besides: Decimal) -> int:
        """How long more than `besides` was held that no stop would have sold."""
        start, end = span
        moments = [*self._moments[account, symbol], Moment(end, ZERO, ZERO)]
        bare = (
            min(after.at_ms, end) - max(moment.at_ms, start)
            for moment, after in pairwise(moments)
            if moment.held - moment.stopped > besides
        )
        return sum(max(0, length) for length in bare)
