"""Orders of ours that the ledger has never heard of: after an older dump was restored, the exchange remembers more than we do.

They are known by their client ids, which say for what they were. Their intents, what became of them and their executions are
appended as the engine itself would have; what the ledger has already is left as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from atb.core.order_id import parse_order_id, tag
from atb.core.orders import SeenFill, SeenOrder
from atb.core.types import Symbol
from atb.ledger.entries import Entry, fill_id
from atb.ledger.records import Order

if TYPE_CHECKING:
    from atb.venue.broker import Broker

EVIDENCE = "told by the exchange, known by its client id"
# Why an order of this purpose was placed, where nobody remembers more.
REASONS = {
    "entry": "entry", "exit": "signal", "partial": "partial_exit", "stop": "stop_loss", "take": "take_profit",
    "emergency": "emergency_close",
}  # fmt: skip


def is_ours(client_order_id: str, account: str, symbol: str) -> bool:
    """Whether an order was placed by us for this account. account: its identity, as the ids were made with."""
    parsed = parse_order_id(client_order_id)
    return parsed is not None and (parsed.account, parsed.symbol) == (tag(account), tag(symbol))


def entries_for(
    account: str, orders: Sequence[SeenOrder], fills: Sequence[SeenFill], known: Collection[str],
    session_id: int | None = None,
) -> list[Entry]:  # fmt: skip
    """What to append for our orders among `orders`: intents of those not `known` by client id, all their executions (the
    ledger books each once), and their last state. In the order in which it happened."""
    ours = [order for order in orders if is_ours(order.client_order_id, account, order.symbol.id)]
    by_venue_id = {(order.symbol, order.venue_order_id): order for order in ours}  # which count by symbol, as trades do
    entries = [_intent(order, session_id) for order in ours if order.client_order_id not in known]
    entries += [
        fill_entry(fill, session_id, by_venue_id[fill.symbol, fill.venue_order_id].client_order_id)
        for fill in fills if (fill.symbol, fill.venue_order_id) in by_venue_id
    ]  # fmt: skip
    entries.sort(key=lambda entry: (entry.at, entry.kind != "intent"))
    return entries + [_state(order, session_id) for order in _by_time(ours)]


def unknown_entries(
    broker: Broker, account: str, symbols: Iterable[Symbol], known: Mapping[str, Order], since_ms: int, session_id: int | None
) -> list[Entry]:  # fmt: skip
    """What to append for orders of ours that the exchange has and the ledger has not, or takes for never sent: those made
    since then, and those that work."""
    entries: list[Entry] = []
    for symbol in symbols:
        seen = [*broker.orders(symbol, since_ms), *broker.open_orders([symbol])]
        there = {order.client_order_id: order for order in seen}
        new = [order for name, order in there.items() if is_news(name, known) and is_ours(name, account, symbol.id)]
        if new:
            since_ms = min(since_ms, *(round(order.created_at.timestamp() * 1000) for order in new))
            entries += entries_for(account, new, broker.fills(symbol, since_ms), known, session_id)
    return entries


def is_news(name: str, known: Mapping[str, Order]) -> bool:
    """Whether the ledger does not know that the exchange has an order of this client id."""
    return name not in known or known[name].state == "denied"


def _by_time(orders: Iterable[SeenOrder]) -> list[SeenOrder]:
    return sorted(orders, key=lambda order: order.updated_at)


def _intent(order: SeenOrder, session_id: int | None) -> Entry:
    parsed = parse_order_id(order.client_order_id)
    assert parsed is not None
    body = {
        "client_order_id": order.client_order_id, "symbol": order.symbol.id, "market": order.symbol.market,
        "side": order.side, "type": order.type, "qty": order.qty, "price": order.price, "stop_price": order.stop_price,
        "purpose": parsed.purpose, "adopted": True, "evidence": EVIDENCE,
    }  # fmt: skip
    return Entry(f"intent:{order.client_order_id}", "intent", order.created_at, body, session_id)


def fill_entry(fill: SeenFill, session_id: int | None, client_order_id: str = "") -> Entry:
    """An execution as an entry of the ledger."""
    body: dict[str, Any] = {
        "symbol": fill.symbol.id, "market": fill.symbol.market, "base": fill.symbol.base, "side": fill.side,
        "qty": fill.qty, "price": fill.price, "fee": fill.fee, "fee_asset": fill.fee_asset,
        "venue_trade_id": fill.venue_trade_id, "evidence": EVIDENCE if client_order_id else "told by the exchange",
    }  # fmt: skip
    if client_order_id:
        parsed = parse_order_id(client_order_id)
        body |= {"client_order_id": client_order_id, "reason": REASONS[parsed.purpose] if parsed else ""}
    if fill.fee_quote is not None:
        body["fee_quote"] = fill.fee_quote
    elif fill.fee_asset not in (fill.symbol.base, fill.symbol.quote):
        body |= {"fee_quote": Decimal(0), "evidence": f"{body['evidence']}; what its fee was worth is not known"}
    return Entry(fill_name(fill), "fill", fill.at, body, session_id)


def fill_name(fill: SeenFill) -> str:
    """The id of an execution's entry."""
    return fill_id(fill.symbol.id, fill.side, fill.venue_trade_id, fill.symbol.market)


def _state(order: SeenOrder, session_id: int | None) -> Entry:
    """One entry for each state that is told: told again, it is the same."""
    body = {"client_order_id": order.client_order_id, "state": order.state, "venue_order_id": order.venue_order_id}
    name = f"order:{order.client_order_id}:{order.state}"
    return Entry(name, "order", order.updated_at, body, session_id)
