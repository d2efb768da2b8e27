"""What must hold of a real account, as an exchange and a ledger tell of it, whatever happened to the engine's processes."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from atb.core.order_id import parse_order_id
from tests.integration.test_real_money import Place

LOT = Decimal("0.00001")
OF_A_TARGET = ("entry", "exit")
NEVER_THERE = ("denied", "rejected")


def check(place: Place) -> None:
    """Of an account whose engine has ended: exchange == ledger, nothing twice, and what is held has its stop."""
    place.agrees()
    wrong = [*_orders(place), *_fills(place), *_position(place)]
    assert not wrong, "\n".join(wrong)


def rows(place: Place, sql: str) -> list[dict[str, Any]]:
    ran = place.shell("db", "query", "--json", sql, ok=True)
    return list(json.loads(ran.out, parse_float=Decimal))


def _orders(place: Place) -> Iterator[str]:
    """Each order is known to both sides, and its id was used once; no decision was carried out twice."""
    there = {order["clientOrderId"]: order for order in place.account["orders"]}
    booked = {row["client_order_id"]: row for row in rows(place, "SELECT client_order_id, state FROM orders")}
    ids = Counter(order["clientOrderId"] for order in place.account["orders"])
    yield from (f"{name} was taken {count} times" for name, count in ids.items() if count > 1)
    yield from (f"{name} is at the exchange alone" for name in there.keys() - booked.keys())
    for name, row in booked.items():
        if (name in there) == (row["state"] in NEVER_THERE):
            yield f"{name} is {row['state']} in the ledger, and {'' if name in there else 'not '}at the exchange"
        elif name in there and (there[name]["status"] == "NEW") != (row["state"] == "open"):
            yield f"{name} is {row['state']} in the ledger, and {there[name]['status']} at the exchange"
    yield from _doubled(list(there.values()))


def _doubled(orders: list[dict[str, Any]]) -> Iterator[str]:
    decisions: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for order in orders:
        parsed = parse_order_id(order["clientOrderId"])
        assert parsed is not None, order
        if parsed.purpose in OF_A_TARGET:
            decisions[f"the {parsed.purpose} of {parsed.candle_ms}"].append(order)
    for name, found in decisions.items():
        done = sum(Decimal(order["executedQty"]) for order in found)
        if done > max(Decimal(order["origQty"]) for order in found):
            yield f"{name} was carried out by {len(found)} orders, {done} in all"


def _fills(place: Place) -> Iterator[str]:
    told = Counter(str(trade["id"]) for trade in place.account["trades"])
    sql = "SELECT venue_trade_id FROM fills WHERE venue_trade_id NOT LIKE 'dust:%'"
    booked = Counter(str(row["venue_trade_id"]) for row in rows(place, sql))
    yield from (f"trade {name} is not in the ledger" for name in told - booked)
    yield from (f"trade {name} is in the ledger alone, or twice" for name in booked - told)


def _position(place: Place) -> Iterator[str]:
    """What is there is held, but for dust; and a stop rests for all whole lots of it."""
    held = sum(
        (Decimal(row["size"]) for row in rows(place, "SELECT size FROM positions WHERE status = 'OPEN'")), Decimal(0)
    )
    there = place.total("BTC") if "BTC" in place.account["balances"] else Decimal(0)
    if not held <= there < held + LOT:
        yield f"{there} BTC are there, {held} are held"
    stops = sum(Decimal(order["origQty"]) - Decimal(order["executedQty"]) for order in place.resting)
    if stops != held // LOT * LOT:
        yield f"{held} BTC are held, and stops rest for {stops}"
