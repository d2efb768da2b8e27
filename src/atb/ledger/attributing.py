"""Which order a fill is of, where one of the two is known before the other.

A fill may be imported, or seen as somebody's, before it is known which order of ours it is of; an order that a restored ledger
has never heard of is adopted after its fills were booked. The fill is not booked once more: told again with its order, it
becomes an entry that attributes it to that. It counts for one order at most, and for good.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from atb.ledger.entries import Entry
from atb.ledger.records import Fill, Order


@dataclass
class Unordered:
    """The exchange's fills that count for no order: they name none, or one that is not known."""

    by_id: dict[str, Fill] = field(default_factory=dict)
    by_order: dict[str, list[Fill]] = field(default_factory=dict)  # those that name one

    def add(self, fill: Fill) -> None:
        self.by_id[fill.id] = fill
        if fill.client_order_id:
            self.by_order.setdefault(fill.client_order_id, []).append(fill)

    def take(self, fill_id: str) -> Fill:
        """A fill that is about to be attributed."""
        if fill_id not in self.by_id:
            raise ValueError(f"{fill_id} is no fill that counts for no order.")
        fill = self.by_id.pop(fill_id)
        if fill.client_order_id:
            self.by_order[fill.client_order_id].remove(fill)
        return fill

    def take_all(self, order: Order) -> list[Fill]:
        """The fills of an order that is known from now on. What bears its name and cannot be of it stays."""
        named = self.by_order.get(order.client_order_id, ())
        mine = [fill for fill in named if (fill.key, fill.side) == (order.key, order.side)]
        return [self.take(fill.id) for fill in mine]


class Naming:
    """Reads entries in turn, to say what a fill that is there already tells anew.

    orders: the client ids that are known; unordered: fills that are booked and count for none of these.
    """

    def __init__(self, orders: Iterable[str], unordered: Iterable[Fill]) -> None:
        self.orders = set(orders)
        self.named = {fill.id: fill.client_order_id for fill in unordered}

    def new(self, entry: Entry) -> None:
        name = entry.body.get("client_order_id", "")
        if entry.kind == "intent":
            self.orders.add(name)
        elif entry.kind == "fill" and not entry.body.get("provisional"):
            self.named[entry.id] = name
        elif entry.kind == "attribution":
            self.named[entry.body["fill_id"]] = name

    def again(self, entry: Entry) -> Entry | None:
        """What attributes a fill to the order that it names now. The name of an unknown order gives way to a known one."""
        name, before = entry.body.get("client_order_id", ""), self.named.get(entry.id)
        if before is None or not name or before in self.orders:
            return None
        if before and name not in self.orders:  # also the same name once more
            return None
        self.named[entry.id] = name
        body = {"fill_id": entry.id, "client_order_id": name, "evidence": entry.body.get("evidence", "")}
        return Entry(f"attribution:{entry.id}:{name}", "attribution", entry.at, body, entry.session_id)
