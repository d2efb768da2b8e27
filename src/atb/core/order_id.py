"""Client order ids: what an order is for, readable from the exchange's own list of orders.

An id follows from what it is for, so a process that begins again makes the same one and finds the order it may have sent. It
says whose it is, so an order that a restored older ledger has never heard of is known as ours, and any other as foreign.

`atb-3fk2-9ab1-sk2q4o-s1`: prefix, account, symbol, candle (minutes since 1970), leg and attempt. All in base 36 and at most 36
characters, which Binance and Coinbase both take.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

PREFIX = "atb"
LEGS = {"entry": "e", "exit": "x", "stop": "s", "take": "t", "partial": "p", "emergency": "c"}
_PURPOSES = {letter: purpose for purpose, letter in LEGS.items()}
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_TAG = 4
_ID = re.compile(
    rf"{PREFIX}-([0-9a-z]{{{_TAG}}})-([0-9a-z]{{{_TAG}}})-([0-9a-z]{{1,8}})-([{''.join(_PURPOSES)}])([0-9a-z]{{1,4}})"
)


class OrderId(NamedTuple):
    """The parts of an id. `account` and `symbol` are tags of them; candle_ms: open time of the candle that decided."""

    account: str
    symbol: str
    candle_ms: int
    purpose: str
    attempt: int


def client_order_id(account: str, symbol: str, candle_ms: int, purpose: str, attempt: int = 0) -> str:
    """The id of an order. account: its identity (venue, market, environment and key); symbol: the exchange's name."""
    minutes, rest = divmod(candle_ms, 60_000)
    if rest or candle_ms < 0 or attempt < 0:
        raise ValueError(f"No candle opens at {candle_ms} ms, or attempt {attempt} is none.")
    return f"{PREFIX}-{tag(account)}-{tag(symbol)}-{_base36(minutes)}-{LEGS[purpose]}{_base36(attempt)}"


def parse_order_id(text: str) -> OrderId | None:
    """The parts of an id of ours; None for any other."""
    found = _ID.fullmatch(text)
    if found is None:
        return None
    account, symbol, minutes, leg, attempt = found.groups()
    return OrderId(account, symbol, int(minutes, 36) * 60_000, _PURPOSES[leg], int(attempt, 36))


def tag(name: str) -> str:
    """Four characters that stand for a name: one in 1.7 million others has the same."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    return _base36(number % 36**_TAG).rjust(_TAG, "0")


def _base36(number: int) -> str:
    out = ""
    while number:
        number, digit = divmod(number, 36)
        out = _DIGITS[digit] + out
    return out or "0"
