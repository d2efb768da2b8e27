"""Orders that were sent, were not found, and so are taken for never sent. The exchange may tell of them later all the same.

Then they are what they always were: orders of the account, with their executions. Nothing waits for them any more, so what
they bought is held like what an older ledger had forgotten, and what they sold is sold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from atb.core.orders import CLOCKS_DIFFER, SeenFill, SeenOrder
from atb.core.timeframe import in_ms
from atb.execution.reconcile import expected
from atb.execution.state import TradingState
from atb.ledger.records import Order

if TYPE_CHECKING:
    from atb.execution.executor import Executor

DOUBT_MS = 60_000  # how long balances may speak for an order that is not found
# How long one is looked up: at each look, and once a candle. Later it is known by its executions, and where it rests.
LOOKED_FOR_MS, LOOKED_FOR_LONG_MS = 600_000, 86_400_000
ZERO = Decimal(0)
MOST = 20  # orders that are looked up for an execution of nobody's


def may_have_arrived(executor: Executor, order: Order) -> bool:
    """Whether the balances speak for a market order that is not found: coins came, or went, that nobody knows of.

    A sale of all there is is not doubted: if it did arrive, it is sent again in vain, as nothing is left to be sold.
    """
    state, broker = executor.state, executor.broker
    symbol, rules = state.traded[state.index[order.key]]
    if order.type != "market" or broker.now_ms() > in_ms(order.created_at) + DOUBT_MS:
        return False
    if order.side == "sell" and _left_after(state, order, symbol.base) < rules.lot:
        return False
    balance, should = broker.balances().get(symbol.base), expected(state.books, broker.venue).get(symbol.base, 0)
    came = (balance.total if balance else 0) - should
    return (came if order.side == "buy" else -came) >= rules.lot


def _left_after(state: TradingState, sale: Order, base: str) -> Decimal:
    """What the account still has of the asset when the sale is done: of the position, and what is apart from it."""
    return state.held(state.index[sale.key]) + state.books.assets.get(base, ZERO) - sale.qty + sale.filled_qty


def found_late(executor: Executor, s: int, once_a_candle: bool) -> list[SeenOrder]:
    """Those that were sent not long ago and are there by now."""
    since_ms = executor.broker.now_ms() - (LOOKED_FOR_LONG_MS if once_a_candle else LOOKED_FOR_MS)
    return _found(executor, s, [o for o in executor.state.presumed[s].values() if in_ms(o.created_at) > since_ms])


def behind(executor: Executor, s: int, fills: Iterable[SeenFill]) -> list[SeenOrder]:
    """Those that may have made an execution which is none of a known order, and are there."""
    each = [o for o in executor.state.presumed[s].values() if any(_may_be_of(o, fill) for fill in fills)]
    return _found(executor, s, each[-MOST:])


def is_awaited(state: TradingState, s: int, fill: SeenFill, now_ms: int) -> bool:
    """Whether an execution may be of one that will be found yet, or may sell what one of ours is buying whose executions are not
    told yet: as somebody else's, of the owner's coins, it would be booked for good."""
    recent = (o for o in state.presumed[s].values() if in_ms(o.created_at) > now_ms - LOOKED_FOR_MS)
    buys = (o for o in state.working[s].values() if o.side == "buy" and in_ms(o.created_at) > now_ms - DOUBT_MS)
    return any(_may_be_of(order, fill) for order in recent) or (fill.side == "sell" and any(buys))


def _found(executor: Executor, s: int, orders: Sequence[Order]) -> list[SeenOrder]:
    symbol = executor.state.traded[s].symbol
    found = [executor.broker.find(symbol, order.client_order_id) for order in orders]
    return [seen for seen in found if seen is not None]


def _may_be_of(order: Order, fill: SeenFill) -> bool:
    is_after = fill.at > order.created_at - CLOCKS_DIFFER
    return order.side == fill.side and fill.qty <= order.qty and is_after
