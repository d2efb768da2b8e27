"""Records made by hand and the exchange's own fills: which fill was which exit, in whichever order they are booked.

A record is provisional. The exchange's own fill takes it back by a reversal, up to its quantity, and stands in its place. Where
the record comes after the fill, it is taken back at once. No fill replaces more than its own quantity.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import takewhile
from typing import Any

from atb.ledger.entries import Entry
from atb.ledger.fold import Account
from atb.ledger.holdings import folded
from atb.ledger.records import Fill, Key, amount, key_of

SAME_EXIT = timedelta(hours=1)  # an execution later than this after a record by hand is not what was recorded


def keys_to_fold_anew(state: Account, missing: Sequence[Entry]) -> set[Key]:
    """The symbols of which a fill may be taken back by these entries: all their fills must be known."""
    fills = {entry.id: entry for entry in missing if entry.kind == "fill"}
    by_hand = [(fill.key, fill.side, fill.at) for fill in state.provisional.values()]
    by_hand += [(key_of(e.body), e.body["side"], e.at) for e in fills.values() if e.body.get("provisional")]
    keys = {
        key for key, side, at in by_hand for e in fills.values()
        if (key_of(e.body), e.body["side"]) == (key, side) and e.at <= at + SAME_EXIT
    }  # fmt: skip
    keys |= {key_of(e.body) for e in fills.values() if _may_be_booked(e.body)}
    for entry in missing:
        if entry.kind == "reversal":
            name = entry.body["fill_id"]
            keys |= {state.provisional[name].key} if name in state.provisional else set()
            keys |= {key_of(fills[name].body)} if name in fills else set()
    return keys


def with_replacements(state: Account, entry: Entry, ours: Collection[str]) -> Iterator[Entry]:
    """`entry`, before it what it takes back as the exchange's own fill, after it what had taken it back already.

    ours: the client ids of our orders in its symbol. Whoever iterates folds each entry before taking the next.
    """
    if entry.kind != "fill":
        yield entry
        return
    if not entry.body.get("provisional"):
        for record, qty in _shared_out(_own(entry.body), _records_of(state, entry)):
            yield _reversal(record.id, entry.id, entry.at, qty, entry.session_id)
    yield entry
    if _may_be_booked(entry.body):
        record = state.provisional[entry.id]
        fills = [(fill, fill.effective - fill.replaced) for fill in booked_exits(state, record, ours)]
        for fill, qty in _shared_out(record.effective, fills):
            yield _reversal(record.id, fill.id, entry.at, qty, entry.session_id)


def _records_of(state: Account, entry: Entry) -> list[tuple[Fill, Decimal]]:
    """The records by hand that a fill may be the truth about, and what is left of each."""
    fills = state.history.get(key_of(entry.body), ())
    return [(fill, fill.effective) for fill in fills if _is_of(state, fill, entry)]


def _shared_out(left: Decimal, fills: Iterable[tuple[Fill, Decimal]]) -> list[tuple[Fill, Decimal]]:
    """`left` over the fills in their order, each up to what it can take."""
    out = []
    for fill, room in fills:
        qty = min(left, room)
        if qty > 0:
            out.append((fill, qty))
            left -= qty
    return out


def _own(body: Any) -> Decimal:
    """How much of an execution moved the account's own coins."""
    return amount(body["qty"]) - amount(body.get("external_qty", 0))


def _may_be_booked(body: Any) -> bool:
    return bool(body.get("provisional") and body.get("may_be_booked"))


def _reversal(record: str, fill: str, at: datetime, qty: Decimal, session_id: int | None) -> Entry:
    body = {"fill_id": record, "qty": qty, "by": fill, "reason": f"replaced by {fill}"}
    return Entry(f"reversal:{record}:{fill}", "reversal", at, body, session_id)


def _is_of(state: Account, record: Fill, entry: Entry) -> bool:
    """Whether an exchange's fill may be the exit that was recorded by hand as `record`.

    It must be of the same side, be made while that position was held, be made at most an hour after the record, before
    any new entry, and not by an order that we placed after the record. A purchase from before the record is no new
    entry, even if it is told after it: after a crash, both may be.
    """
    if not record.provisional or record.effective == 0 or record.side != entry.body["side"]:
        return False
    entered_again = [
        other.at for other in state.history[record.key]
        if other.side != record.side and not other.provisional and other.place > record.place and other.at > record.at
    ]  # fmt: skip
    begun = _begun(state, record)
    order = state.orders.get(entry.body.get("client_order_id", ""))
    return (
        (begun is None or begun <= entry.at)
        and entry.at <= record.at + SAME_EXIT
        and (not entered_again or entry.at < min(entered_again))
        and (order is None or order.seq < record.seq)
    )


def booked_exits(state: Account, record: Fill, ours: Collection[str]) -> list[Fill]:
    """Fills of the exchange that may be what is recorded as `record`: of its side, since its position was entered, by
    no order of ours, and not yet taken for another record."""
    begun = _begun(state, record)
    return [
        fill for fill in state.history[record.key]
        if fill.side == record.side and not fill.provisional and fill.client_order_id not in {*ours, *state.orders}
        and fill.replaced < fill.effective and begun is not None and begun <= fill.at
    ]  # fmt: skip


def _begun(state: Account, record: Fill) -> datetime | None:
    """When the position was entered that `record` is an exit of; None where nothing was held."""
    held, _ = folded(takewhile(lambda fill: fill is not record, state.history[record.key]))
    position = held.positions.get(record.key)
    return None if position is None else position.opened_at
