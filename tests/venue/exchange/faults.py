"""What can go wrong with a request: on its way, in the exchange, in the answer, on the way back.

A Fault names what (its kind), for which requests, how often. The tables below are the kinds; those of the wire are
methods of the server's connection.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tests.venue.exchange.candles import DAY_MS, Rows
from tests.venue.exchange.exchange import Exchange
from tests.venue.exchange.orders import Order
from tests.venue.exchange.wire import Call, Reply, Request, Spoil

FOREVER = 10**9


class Fault(NamedTuple):
    """Spoils `times` requests to paths that contain `path`, after `skip` good ones; of these each `every`th.

    `done`: the exchange does what was asked, and only the answer is spoilt; otherwise the request is lost before.
    `where`: a regular expression that is found in the query or body. `probability`: of each request it would meet.
    """

    kind: str
    path: str = ""
    times: int = FOREVER
    skip: int = 0
    every: int = 1
    status: int = 503
    retry_after: str = ""
    body: bytes = b"<html>sorry</html>"
    method: str = ""
    where: str = ""
    probability: float = 1.0
    done: bool = False
    seconds: float = 0.0
    share: float = 0.5
    code: int = -2010
    message: str = "Order would trigger immediately."

    def meets(self, request: Request) -> bool:
        asked = self.path in request.path and self.method in ("", request.method)
        return asked and (not self.where or re.search(self.where, request.signed) is not None)


class Plan:
    """The faults of a server, and how often each has been met. Seeded: the same requests meet the same faults."""

    def __init__(self, faults: tuple[Fault, ...], seed: int) -> None:
        self._rng = random.Random(seed)
        self._faults: list[Fault] = []
        self._met: dict[int, int] = {}
        self.add(*faults)

    def add(self, *faults: Fault) -> None:
        for fault in faults:
            if not any(fault.kind in table for table in KINDS):
                raise ValueError(f"no fault is called '{fault.kind}'")
        self._faults += faults

    def clear(self) -> None:
        self._faults, self._met = [], {}

    def due(self, request: Request) -> list[Fault]:
        due = []
        for i, fault in enumerate(self._faults):
            if not fault.meets(request) or (fault.probability < 1 and self._rng.random() >= fault.probability):
                continue
            met = self._met[i] = self._met.get(i, 0) + 1
            if fault.skip < met <= fault.skip + fault.times and (met - fault.skip) % fault.every == 0:
                due.append(fault)
        return due


# --- on the wire: instead of an answer. None: a method of the connection, of that name.


def html(fault: Fault) -> Reply:
    return Reply(200, b"<html><body>Please try again</body></html>", {"Content-Type": "text/html"})


def error_status(fault: Fault) -> Reply:
    headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
    kind = "application/json" if fault.body.startswith(b"{") else "text/html"
    return Reply(fault.status, fault.body, {"Content-Type": kind, **headers})


def refused(fault: Fault) -> Reply:
    """By the exchange itself, for a reason of its own: a stop that it does not take."""
    status = 400 if fault.status == 503 else fault.status
    return Reply(status, {"code": fault.code, "msg": fault.message})


WIRE_FAULTS: dict[str, Callable[[Fault], Reply] | None] = {
    "status": error_status,
    "refused": refused,
    "html": html,
    "empty body": lambda fault: Reply(200, b""),
    "malformed": lambda fault: Reply(200, b'{"orderId": 12, "status": '),
    "null": lambda fault: Reply(200, None),
    "null candles": lambda fault: Reply(200, [None, [None] * 12]),
    "reset": None,
    "hang": None,  # for `seconds` (0: for ever), then it is processed; or, when done, it was processed before
    "trickle": None,  # a byte now and then, so that no single read takes long
    "truncated": None,  # cut JSON that claims to be whole
    "broken off": None,  # less than the announced length
}


# --- in the exchange, before the request is processed


def late(call: Call, fault: Fault) -> None:
    """Held up on its way: the exchange's clock goes on before it is processed, ours does not."""
    call.exchange.now_ms += round(fault.seconds * 1000)
    call.exchange.catch_up()


def skewed(call: Call, fault: Fault) -> None:
    call.skew_ms = round(fault.seconds * 1000)


def unseen(call: Call, fault: Fault) -> None:
    """Orders and trades of the last seconds are not to be seen yet, though they exist; without `seconds`, none is."""
    call.hidden_ms = round(fault.seconds * 1000) or FOREVER * 1000


STATE_FAULTS: dict[str, Callable[[Call, Fault], None]] = {"late": late, "skew": skewed, "unseen": unseen}


# --- in the exchange, to the orders that the request has made


def vanished(exchange: Exchange, order: Order, fault: Fault) -> None:
    exchange.expire(order)


def part_then_cancelled(exchange: Exchange, order: Order, fault: Fault) -> None:
    exchange.fill(order, fault.share)
    exchange.expire(order)


def part(exchange: Exchange, order: Order, fault: Fault) -> None:
    exchange.fill(order, fault.share)


ORDER_FAULTS: dict[str, Callable[[Exchange, Order, Fault], None]] = {
    "vanished": vanished,  # cancelled by the exchange itself: EXPIRED
    "part then cancelled": part_then_cancelled,
    "part": part,
}


# --- in the answer


def walked(body: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """The same with every object changed."""
    if isinstance(body, dict):
        return change({name: walked(value, change) for name, value in body.items()})
    return [walked(value, change) for value in body] if isinstance(body, list) else body


def overwritten(names: tuple[str, ...], value: Any) -> Callable[[Any], Any]:
    """Gives the named fields of every order another value."""

    def change(record: dict[str, Any]) -> dict[str, Any]:
        of_order = "orderId" in record or "order_id" in record
        return {name: value if of_order and name in names else old for name, old in record.items()}

    return lambda body: walked(body, change)


ANSWER_FAULTS: dict[str, Callable[[Any], Any]] = {
    "unknown status": overwritten(("status", "listOrderStatus"), "PENDING_REVIEW"),
    "unknown type": overwritten(("type", "order_type"), "TRAILING_ICEBERG"),
    "null numbers": overwritten(("executedQty", "origQty", "price", "qty", "filled_size", "size"), None),
    "no ids": overwritten(("orderId", "clientOrderId", "order_id", "client_order_id"), None),
}


# --- in a page of candles


def shifted(by_ms: int) -> Spoil:
    def shift(rows: Rows) -> Rows:
        moved = rows.copy()
        moved[:, 0] += by_ms
        return moved

    return shift


def contradicting(rows: Rows) -> Rows:
    other = rows.copy()
    other[:, 4] *= 1.01
    return np.concatenate([rows, other])


def with_future(rows: Rows) -> Rows:
    """One more candle, of a time to come."""
    later = rows[-1:].copy()
    later[:, 0] += 400 * DAY_MS
    return np.concatenate([rows, later])


def with_next(rows: Rows) -> Rows:
    """One candle more than asked for: the one that follows, unfinished."""
    if len(rows) < 2:
        return rows
    following = rows[np.argmax(rows[:, 0])].copy()
    following[0] += abs(rows[1, 0] - rows[0, 0])
    return np.concatenate([rows, [following]])


def half_formed(rows: Rows) -> Rows:
    """The newest two candles as they were half-way: the last that has closed is not final yet."""
    half = rows.copy()
    for newest in np.argsort(half[:, 0])[-2:]:
        middle = (half[newest, 1] + half[newest, 4]) / 2
        half[newest, 2], half[newest, 3] = max(half[newest, 1], middle), min(half[newest, 1], middle)
        half[newest, 4], half[newest, 5] = middle, half[newest, 5] / 2
    return half


PAGE_FAULTS: dict[str, Spoil] = {
    "empty list": lambda rows: rows[:0],
    "wrong order": lambda rows: np.roll(rows, 7, axis=0)[::-1],
    "duplicated": lambda rows: np.concatenate([rows, rows[::2]]),
    "contradicting": contradicting,
    "future": with_future,
    "one more": with_next,
    "half formed": half_formed,
    "shifted off the grid": shifted(1_234_000),
    "shifted back": shifted(-40 * DAY_MS),
    "shifted on": shifted(3_600_000 * 5),
}

KINDS = (WIRE_FAULTS, STATE_FAULTS, ORDER_FAULTS, ANSWER_FAULTS, PAGE_FAULTS)
