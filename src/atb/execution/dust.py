"""What is left of a position and cannot be sold: less than a lot, or too little for the exchange. Fees in base leave it.

It is moved out of the position, at the last price and without profit or loss, so that the position is closed and its trade is
told. It is kept apart in the account's other assets, and moved into the next position of its symbol, which can sell it then.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from atb.core.money import floor_to
from atb.ledger.entries import Entry, fill_id
from atb.ledger.records import exactly, rounded

if TYPE_CHECKING:
    from atb.execution.state import TradingState

ZERO = Decimal(0)
PREFIX = "dust:"  # of the ids of its entries, and of the trade ids of its fills: no exchange has such
REASON = "dust"
MARGIN = Decimal("1.1")  # the price may have moved by so much since we saw it


def whole_lots(state: TradingState, s: int) -> Decimal:
    """What is held of symbol s that an order's quantity can name: whole lots, and no fewer than an order has at least."""
    rules = state.traded[s].rules
    qty = max(floor_to(state.held(s), rules.lot), ZERO)
    return qty if qty >= (rules.min_qty or ZERO) else ZERO


def is_too_little(state: TradingState, s: int) -> bool:
    """Nothing of what is held could be sold, by the rules as we know them. A refusal alone does not say so: an order may be
    too large, too."""
    symbol, rules = state.traded[s]
    qty, price = whole_lots(state, s), state.books.prices.get((symbol.market, symbol.id))
    return qty == 0 or (price is not None and qty * price < rules.min_notional * MARGIN)


def is_dust(body: Mapping[str, Any]) -> bool:
    """Whether a fill moved dust, and traded nothing."""
    return str(body["venue_trade_id"]).startswith(PREFIX)


def dust_change(entry: Entry) -> tuple[str, Decimal] | None:
    """The asset of which dust came or went by an entry, and how much."""
    if entry.kind != "adjustment" or not entry.id.startswith(PREFIX) or entry.body["type"] != "external":
        return None
    return entry.body["asset"], Decimal(entry.body["amount"])


def dust_entries(state: TradingState, s: int, too_little: bool, at: datetime, session_id: int | None) -> list[Entry]:
    """What moves the dust of symbol s, if it is to be moved now. too_little: the exchange says that what is held is."""
    if state.working[s]:
        return []
    p, held = state.position(s), state.held(s)
    if p.target_qty == 0 and held > 0 and (p.qty == 0 or too_little):
        return moved(state, s, -held, at, session_id)
    # Into a position that has all it was to have, or is to be sold now: an order to come names it, too.
    return dust_back(state, s, at, session_id) if p.qty > 0 and p.target_qty in (0, p.qty) else []


def dust_back(state: TradingState, s: int, at: datetime, session_id: int | None) -> list[Entry]:
    """What moves the dust of symbol s, if there is any, into its position."""
    base = state.traded[s].symbol.base
    there = min(state.dust.get(base, ZERO), state.books.assets.get(base, ZERO))
    return moved(state, s, there, at, session_id) if there > 0 else []


@exactly
def moved(state: TradingState, s: int, qty: Decimal, at: datetime, session_id: int | None) -> list[Entry]:
    """The entries for `qty` base units of symbol s, negative: out of the position."""
    symbol, books = state.traded[s].symbol, state.books
    last = books.history[symbol.market, symbol.id][-1]
    at = last.at if qty < 0 and last.side == "sell" else at  # the trade ended when it was sold
    name, side = f"{PREFIX}{symbol.id}:{state.seq + 1}", "buy" if qty > 0 else "sell"
    price = books.prices[symbol.market, symbol.id]
    fill = {
        "symbol": symbol.id, "market": symbol.market, "base": symbol.base, "side": side, "qty": abs(qty), "price": price,
        "venue_trade_id": name, "reason": last.reason, "evidence": REASON,
    }  # fmt: skip
    apart = {"type": "external", "asset": symbol.base, "amount": -qty}
    worth = {"type": "deposit" if qty > 0 else "withdrawal", "asset": books.quote, "amount": rounded(qty * price)}
    why = {"reason": REASON, "evidence": "too little to be sold" if qty < 0 else "sold with the next position"}
    return [
        Entry(fill_id(symbol.id, side, name, symbol.market), "fill", at, fill, session_id),
        Entry(name, "adjustment", at, apart | why, session_id),
        Entry(f"{name}:worth", "adjustment", at, worth | why, session_id),
    ]
