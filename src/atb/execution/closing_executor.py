"""The executor of somebody who closes an account that others traded: of all that it ever traded, and in a hurry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from atb.core.orders import NewOrder
from atb.core.policy import make_policy
from atb.core.timeframe import in_ms
from atb.core.types import symbol_for
from atb.engine.reasons import STOP_LOSS
from atb.engine.rules import make_rules
from atb.execution.compared import identity_of
from atb.execution.dust import is_too_little, whole_lots
from atb.execution.executor import MOST_STEPS, SETTLE_MS, Executor
from atb.execution.fills import Event
from atb.execution.journaled import Journal, entries_after
from atb.execution.plan import orders_since, protection
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

    def could_be_sold(self, s: int) -> Decimal:
        """How much of what is held the exchange's rules let anybody sell. That it refused a sale is no reason alone to give
        up a position: the coins are there still."""
        refused = self.offers(s).dust and is_too_little(self.state, s)
        return Decimal(0) if refused else whole_lots(self.state, s)

    def protect(self, s: int) -> None:
        """Its stop again, for what was not sold: unless an order works, or may, that has the coins."""
        self._recall_stop(s)
        self.told.ask_again(s)
        for _ in range(MOST_STEPS):  # another type, or less, where that is refused
            offers = self.told.offers(s, self.state.held(s))
            stops = [wanted for wanted in protection(self.state, s, offers) if wanted.purpose == "stop"]
            if self.state.working[s] or not stops or not self._place(s, stops):
                return

    def _recall_stop(self, s: int) -> None:
        """What this host knows without the database are orders, not levels: the level is that of the last stop."""
        p = self.state.position(s)
        last = next((order for order in orders_since(self.state, s) if order.purpose == "stop"), None)
        if p.stop != p.stop and last is not None:
            p.stop, p.stop_reason = float(last.stop_price or "nan"), STOP_LOSS

    def _move_dust(self, s: int) -> None:
        """Not by what a host last knew: the ledger may know better."""
        if not self.journal.away:
            super()._move_dust(s)

    def _is_too_little(self, s: int) -> bool:
        return not self.could_be_sold(s)

    def _long_ago(self, order: Order) -> bool:
        if order.client_order_id not in self.own:
            return super()._long_ago(order)
        symbol, rules = self.state.traded[self.state.index[order.key]]
        others = self.state.books.assets.get(symbol.base, Decimal(0))
        settle_ms = SETTLE_MS if others >= rules.lot else self.settle_ms
        return self.broker.now_ms() > in_ms(order.created_at) + self.window_ms + settle_ms


def executor_of(
    account: AccountRow, broker: Broker, journal: Journal, tell: Callable[[Event], None] = lambda _: None
) -> ClosingExecutor:
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
) -> ClosingExecutor:
    session = state.books.latest.id if state.books.latest else None
    return ClosingExecutor(broker, journal, state, identity_of(account), session, tell)
