"""What an engine last knew of its account, in a private file of this host: from it all can be closed without the database.

It is no second ledger. It tells what was held, which orders worked, and which executions of the last hours are counted in that;
what happened since then is asked of the exchange. Written after each cycle that changed something; one that is older, since
its engine was killed, costs nothing but that question.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from atb.core.local_files import replace
from atb.core.policy import make_policy
from atb.engine.rules import make_rules
from atb.execution.fills import OVERLAP_MS
from atb.execution.state import TradingState
from atb.execution.traded import Traded, market_config, traded_from
from atb.ledger.accounts import AccountRow
from atb.ledger.entries import UNIX, Entry, encode, fill_id
from atb.ledger.holdings import share_of
from atb.ledger.records import FINAL_STATES, Fill, Key, Order, exactly, moment, rounded

FOLDER = "accounts"
COUNTED = timedelta(milliseconds=2 * OVERLAP_MS)  # executions are asked for again for half as long
REMEMBERED = 50  # orders that have ended: their ids are not given again
ZERO = Decimal(0)


class Known(NamedTuple):
    """An account as this host last knew it. at: of the newest entry in it."""

    account: AccountRow
    session_id: int | None
    at: datetime
    begun: datetime
    last_open_ms: int | None
    traded: tuple[Traded, ...]
    entries: tuple[Entry, ...]

    def state(self) -> TradingState:
        """Folded from the entries that say the same as the ledger did. Of its money it knows nothing, and of stops their
        orders: no rule makes up another level."""
        rules = make_rules(make_policy({}), 0.0, 0.0)
        rules.stop_loss = 0.0
        state = TradingState(self.traded, rules, self.account.quote)
        for entry in self.entries:
            state.take(state.seq + 1, entry)
        state.begun, state.last_open_ms = self.begun, self.last_open_ms
        return state


class AccountFile:
    """The file of one account: `keep` is called as often as something may have changed."""

    def __init__(self, home: Path, account: AccountRow, session_id: int | None) -> None:
        self.path = home / FOLDER / f"{quote(account.name, safe=' ')}.json"
        self.account, self.session_id = account, session_id
        self._seq, self._text = -1, ""

    def keep(self, state: TradingState) -> None:
        """What cannot be written is no reason to trade otherwise."""
        if state.seq == self._seq:
            return
        self._seq, text = state.seq, encode(_told(state, self.account, self.session_id))
        if text != self._text:
            with contextlib.suppress(OSError):
                replace(self.path, text.encode(), sync=False)
                self._text = text


def known(home: Path) -> list[Known]:
    """Every account of which this host knows something. A file that cannot be understood says nothing."""
    found = (_read(path) for path in sorted((home / FOLDER).glob("*.json")))
    return [each for each in found if each is not None]


def _read(path: Path) -> Known | None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        entries = tuple(Entry(e["id"], e["kind"], moment(e["at"]), e["body"], e["session_id"]) for e in told["entries"])
        traded = tuple(traded_from(one) for one in told["markets"])
        account = AccountRow(*told["account"])
        return Known(
            account,
            told["session_id"],
            moment(told["at"]),
            moment(told["begun"]),
            told["last_open_ms"],
            traded,
            entries,
        )
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError):
        return None


def _told(state: TradingState, account: AccountRow, session_id: int | None) -> dict[str, Any]:
    begun = state.begun or min((s.opened_at for s in state.books.sessions.values()), default=UNIX)
    orders = _orders(state, since=_newest(state, begun) - COUNTED)
    entries = [_opening_session(session_id, begun)] if session_id is not None else []
    entries += [_external(asset, qty, begun) for asset, qty in sorted(state.books.assets.items())]
    entries += [each for order in orders for each in _order_entries(order)]
    for traded in state.traded:
        entries += _fill_entries(state, traded, orders)
    return {
        "account": list(account), "session_id": session_id, "at": _newest(state, begun), "begun": begun,
        "last_open_ms": state.last_open_ms, "markets": [market_config(t) for t in state.traded],
        "entries": [entry._asdict() for entry in entries],
    }  # fmt: skip


def _newest(state: TradingState, begun: datetime) -> datetime:
    """When the exchange was last heard of."""
    orders = (order.updated_at for order in islice(reversed(state.books.orders.values()), REMEMBERED))
    fills = (history[-1].at for history in state.books.history.values() if history)
    return max([begun, *orders, *fills])


def _opening_session(session_id: int, begun: datetime) -> Entry:
    return Entry(f"session:{session_id}", "session", begun, {"action": "open", "session_id": session_id})


def _external(asset: str, qty: Decimal, at: datetime) -> Entry:
    """What is there and not the account's: nothing of it may be sold by mistake."""
    body = {"type": "external", "asset": asset, "amount": qty, "reason": "known here", "evidence": FOLDER}
    return Entry(f"external:{asset}", "adjustment", at, body)


def _orders(state: TradingState, since: datetime) -> list[Order]:
    """Those that work, and the newest of those that ended."""
    out = []
    for count, order in enumerate(reversed(state.books.orders.values())):
        if order.state not in FINAL_STATES or count < REMEMBERED or order.created_at >= since:
            out.append(order)
    return out[::-1]


def _order_entries(order: Order) -> list[Entry]:
    name, (market, symbol) = order.client_order_id, order.key
    intent = {
        "client_order_id": name, "symbol": symbol, "market": market, "side": order.side, "type": order.type,
        "qty": order.qty, "price": order.price, "stop_price": order.stop_price, "purpose": order.purpose,
    }  # fmt: skip
    body = {"client_order_id": name, "state": order.state, "venue_order_id": order.venue_order_id}
    return [
        Entry(f"intent:{name}", "intent", order.created_at, intent),
        Entry(f"order:{name}", "order", order.updated_at, body),
    ]


@exactly
def _fill_entries(state: TradingState, traded: Traded, orders: Sequence[Order]) -> list[Entry]:
    """What was held before the executions that are told one by one, as one; then these."""
    key: Key = (traded.symbol.market, traded.symbol.id)
    position, told = state.books.positions.get(key), _counted(state.books.history.get(key, []), key, orders)
    before = (position.qty if position else ZERO) - sum((_change(fill) for fill in told), ZERO)
    own = [_fill_entry(fill, traded) for fill in told]
    if before <= 0:
        return own
    price = position.entered_value / position.entered_qty if position else told[0].price
    body = {
        "symbol": traded.symbol.id, "market": traded.symbol.market, "side": "buy", "qty": before,
        "price": rounded(price), "venue_trade_id": "held", "reason": "entry",
    }  # fmt: skip
    at = told[0].at if told else position.opened_at if position else state.begun or UNIX
    return [Entry(f"held:{traded.symbol.id}", "fill", at, body), *own]


def _counted(history: Sequence[Fill], key: Key, orders: Sequence[Order]) -> Sequence[Fill]:
    """The executions that the exchange may be asked for again, and all after them."""
    if not history:
        return []
    working = [order.created_at for order in orders if order.key == key and order.state not in FINAL_STATES]
    since = min([history[-1].at, *working]) - COUNTED
    first = next(i for i, fill in enumerate(history) if fill.at >= since)
    return history[first:]


def _change(fill: Fill) -> Decimal:
    """What it did to what is held, as the ledger counts it."""
    moved = fill.effective if fill.side == "buy" else -fill.effective
    return moved - (share_of(fill.fee, fill.effective, fill.qty) if fill.fee_kind == "base" else ZERO)


def _fill_entry(fill: Fill, traded: Traded) -> Entry:
    body: Mapping[str, Any] = {
        "symbol": traded.symbol.id, "market": traded.symbol.market, "base": traded.symbol.base, "side": fill.side,
        "qty": fill.qty, "price": fill.price, "fee": fill.fee, "fee_asset": fill.fee_asset, "fee_quote": fill.fee_quote,
        "venue_trade_id": fill.venue_trade_id, "client_order_id": fill.client_order_id, "reason": fill.reason,
        "external_qty": fill.qty - fill.effective, "provisional": fill.provisional,
    }  # fmt: skip
    return Entry(fill_id(traded.symbol.id, fill.side, fill.venue_trade_id, traded.symbol.market), "fill", fill.at, body)
