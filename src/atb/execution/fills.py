"""From the executions that the exchange tells of to entries: those of our orders, and those that somebody made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from atb.core.errors import ExchangeRefused, ExchangeUnavailable
from atb.core.orders import FINAL, SeenFill, SeenOrder
from atb.core.timeframe import in_ms
from atb.engine.reasons import REASON_NAMES
from atb.execution.adopting import fill_entry, fill_name
from atb.execution.external import by_hand
from atb.execution.presumed import behind, is_awaited
from atb.execution.reconcile import locked_by
from atb.execution.state import TradingState
from atb.ledger.entries import Entry

if TYPE_CHECKING:
    from atb.execution.executor import Executor

NOT_TOLD = (ExchangeUnavailable, ExchangeRefused)  # of what only asks
OVERLAP_MS = 3_600_000  # how far back fills are asked for again: clocks differ, and some are told late
ZERO = Decimal(0)
PLAIN = {"entry": "entry", "take": "take_profit", "emergency": "emergency_close"}


class Event(NamedTuple):
    """Something an operator may want to know. severity: debug, info, warning, error or critical."""

    severity: str
    code: str
    message: str


def book_fills(executor: Executor, s: int, since_ms: int | None = None) -> None:
    """Append the executions of symbol s that are not in the ledger: since the latest that is, or since an order began
    at since_ms, as somebody may have booked later ones."""
    broker, state = executor.broker, executor.state
    symbol = state.traded[s].symbol
    try:
        new = [fill for fill in broker.fills(symbol, _since_ms(state, s, since_ms)) if _is_news(state, s, fill)]
        foreign = [fill for fill in new if not order_of(state, fill)]
        late = behind(executor, s, foreign)
        others_sold = any(fill.side == "sell" for fill in foreign)
        seen = broker.open_orders([symbol]) if others_sold else []
        sold = _sold(executor, s, seen) if others_sold else {}
    except NOT_TOLD:
        return
    if executor.revive([*late, *seen]):  # which knows its executions now
        book_fills(executor, s, since_ms)
        return
    own: list[Entry] = []
    for fill in new:
        _tell_worth(executor, fill)
        if order_of(state, fill):
            own.append(_filled(executor, s, fill))
            continue
        if is_awaited(state, s, fill, broker.now_ms()):
            continue  # it will be told again
        _append(executor, own)  # what a foreign one means depends on the books as of then
        _append(executor, _foreign(executor, fill, seen, sold))
        own = []
    _append(executor, own)


def _tell_worth(executor: Executor, fill: SeenFill) -> None:
    if fill.fee and fill.fee_quote is None and fill.fee_asset not in (fill.symbol.base, fill.symbol.quote):
        trade = f"trade {fill.venue_trade_id} of {fill.symbol.id}"
        what = f"What the fee of {fill.fee:f} {fill.fee_asset} was worth is not known ({trade}): it counts as 0."
        executor.tell(Event("warning", "fee_unvalued", what))


def order_of(state: TradingState, fill: SeenFill) -> str:
    """The client id of the order of ours that was executed, "" where it was none."""
    return state.by_venue.get(((fill.symbol.market, fill.symbol.id), fill.venue_order_id), "")


def _is_news(state: TradingState, s: int, fill: SeenFill) -> bool:
    """It is not booked, or was by somebody who did not know that it is of an order of ours."""
    if (fill.side, fill.venue_trade_id) in state.booked[s]:
        return bool(order_of(state, fill)) and fill_name(fill) in state.books.unordered.by_id
    return bool(order_of(state, fill)) or not was_before(state, fill)


def was_before(state: TradingState, fill: SeenFill) -> bool:
    """Whether it was made before the account began: what came of it was there then."""
    return state.begun is not None and fill.at < state.begun


def _since_ms(state: TradingState, s: int, since_ms: int | None) -> int:
    times = [ms for ms in (state.filled_ms.get(s), since_ms) if ms is not None]
    if times:
        return min(times) - OVERLAP_MS
    return 0 if state.begun is None else in_ms(state.begun)


def _append(executor: Executor, entries: Sequence[Entry]) -> None:
    if entries:
        executor.append(entries)


def _sold(executor: Executor, s: int, seen: Sequence[SeenOrder]) -> dict[str, Decimal]:
    """Of our sales that work by the books and rest at the exchange no more: how much each has sold, or still may."""
    resting, out = {order.client_order_id for order in seen}, {}
    for name, order in executor.state.working[s].items():
        if order.side == "sell" and name not in resting:
            found = executor.broker.find(executor.state.traded[s].symbol, name)
            out[name] = found.filled_qty if found is not None and found.state in FINAL else order.qty
    return out


def _foreign(executor: Executor, fill: SeenFill, seen: Sequence[SeenOrder], sold: Mapping[str, Decimal]) -> list[Entry]:
    books = executor.state.books
    what = f"{fill.side} {fill.qty:f} {fill.symbol.id} at {fill.price:f} by no order of this account"
    executor.tell(Event("warning", "foreign_fill", what))
    resting = _resting(executor.state, fill, seen, sold)
    return by_hand(books, fill, resting, executor.session_id, executor.state.seen.of(fill))


def _resting(state: TradingState, fill: SeenFill, seen: Sequence[SeenOrder], sold: Mapping[str, Decimal]) -> Decimal:
    """How much of the account's own was locked by its own orders when this was executed, or is what they have `sold` and the
    ledger does not know. All but less than a lot is all."""
    ours = [o for o in seen if o.client_order_id in state.books.orders and o.created_at <= fill.at]
    s = state.index[fill.symbol.market, fill.symbol.id]
    untold = sum((max(qty - state.books.orders[name].filled_qty, ZERO) for name, qty in sold.items()), ZERO)
    locked, held = locked_by(ours, fill.symbol.base) + untold, state.held(s)
    return max(locked, held) if locked and held - locked < state.traded[s].rules.lot else locked


def _filled(executor: Executor, s: int, fill: SeenFill) -> Entry:
    name = order_of(executor.state, fill)
    entry = fill_entry(fill, executor.session_id, name)
    reason = _reason(executor.state, s, executor.state.books.orders[name].purpose)
    return entry._replace(body={**entry.body, "reason": reason})


def _reason(state: TradingState, s: int, purpose: str) -> str:
    p = state.position(s)
    codes = {"exit": p.target_reason, "partial": p.target_reason, "stop": p.stop_reason}
    return PLAIN.get(purpose) or REASON_NAMES[codes[purpose]]
