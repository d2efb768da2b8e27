"""The executor of somebody who closes an account that others traded: of all that it ever traded, and in a hurry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from atb.core.orders import NewOrder
from atb.core.policy import make_policy
from atb.core.timeframe import in_ms
from atb.core.types import symbol_for
from atb.engine.rules import make_rules
from atb.execution.compared import identity_of
from atb.execution.executor import SETTLE_MS, Executor
from atb.execution.fills import Event
from atb.execution.journaled import Journal, entries_after
from atb.execution.state import TradingState
from atb.execution.traded import Traded
from atb.ledger.accounts import AccountRow
from atb.ledger.entries import Entry
from atb.ledger.records import FINAL_STATES, Order
from atb.venue.broker import Broker
from atb.venue.market_rules import rules_for


class ClosingExecutor(Executor):
    """Sells, and is in a hurry: what it sent is known not to have arrived sooner.

    A sale that was not seen is placed again. If it did arrive all the same, the exchange has nothing left to sell, unless
    coins of the owner are there, too: then it waits as long as everybody.
    """

    window_ms = 1_000
    settle_ms = 500

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.told.waits_ms = 1_000, 4_000
        self.own: set[str] = set()

    def _intent(self, purpose: str, order: NewOrder) -> Entry:
        self.own.add(order.client_order_id)
        return super()._intent(purpose, order)

    def _move_dust(self, s: int) -> None:
        """Not by what a host last knew: the ledger may know better."""
        if not self.journal.away:
            super()._move_dust(s)

    def _long_ago(self, order: Order) -> bool:
        if order.client_order_id not in self.own:
            return super()._long_ago(order)
        symbol, rules = self.state.traded[self.state.index[order.key]]
        others = self.state.books.assets.get(symbol.base, Decimal(0))
        settle_ms = SETTLE_MS if others >= rules.lot else self.settle_ms
        return self.broker.now_ms() > in_ms(order.created_at) + self.window_ms + settle_ms


def executor_of(
    account: AccountRow, broker: Broker, journal: Journal, tell: Callable[[Event], None] = lambda _: None
) -> Executor:
    """An executor of all that the account ever traded, from its ledger."""
    entries = entries_after(journal, 0)
    rules = make_rules(make_policy({}), 0.0, 0.0)

    def folded(traded: Iterable[Traded]) -> TradingState:
        state = TradingState(list(traded), rules, account.quote)
        for seq, entry in entries:
            state.take(seq, entry)
        return state

    state = folded(())
    if strangers := _strangers(state, account.venue):
        state = folded([*state.traded, *strangers])
    state.take_over()
    return executor_over(account, broker, journal, state, tell)


def _strangers(state: TradingState, venue: str) -> list[Traded]:
    """What is held or ordered and no session traded, such as what was imported."""
    keys = {*state.books.positions, *(o.key for o in state.books.orders.values() if o.state not in FINAL_STATES)}
    symbols = [symbol_for(venue, name)._replace(market=market) for market, name in sorted(keys - state.index.keys())]
    return [Traded(symbol, rules_for(venue, symbol)) for symbol in symbols]


def executor_over(
    account: AccountRow, broker: Broker, journal: Journal, state: TradingState, tell: Callable[[Event], None]
) -> Executor:
    session = state.books.latest.id if state.books.latest else None
    return ClosingExecutor(broker, journal, state, identity_of(account), session, tell)
