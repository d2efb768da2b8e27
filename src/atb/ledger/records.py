"""What the fold's state is made of: fills, positions, trades, orders, sessions, marks; and exact amounts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Context, Decimal, InvalidOperation, localcontext
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

ZERO = Decimal(0)
PLACES = Decimal(1).scaleb(-18)
DIGITS = 24  # before and after the point of an amount
PLAIN = re.compile(rf"-?[0-9]{{1,{DIGITS}}}(\.[0-9]{{1,{DIGITS}}})?").fullmatch
EXACT = Context(prec=120)  # a product of two has 96 digits, a sum of many a few more

FINAL_STATES = frozenset({"filled", "cancelled", "rejected", "expired", "denied"})
TOLD_ENDS = FINAL_STATES - {"denied"}  # that an order never arrived is a conclusion, not what an exchange tells of it
NEVER_HEARD = "the exchange has never heard of it"  # the reason of an order that was looked up, and not found
ORDER_STATES = FINAL_STATES | {"intent", "open", "partially_filled", "unknown"}
SESSION_STATES = ("RUNNING", "STOPPED", "FAILED", "FENCED")

Key = tuple[str, str]  # market, symbol
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class Fill:
    """One execution. `qty` is base, unsigned; `effective` is what of it was the account's own, and later reversals have left.

    `place`: where it is folded among its symbol's fills, as a number of the chain. That is its own, unless it replaced a
    record made by hand: then it stands where the record stood, or after what was entered before it and told later.
    `replaced`: how much of such records it has taken back.
    """

    id: str
    seq: int
    at: datetime
    session_id: int | None
    key: Key
    side: str
    qty: Decimal
    price: Decimal
    fee: Decimal
    fee_asset: str
    fee_quote: Decimal
    fee_kind: str  # quote, base or other: from what the fee was taken
    reason: str
    client_order_id: str
    venue_trade_id: str
    provisional: bool
    evidence: str
    effective: Decimal = ZERO
    place: int = 0
    replaced: Decimal = ZERO

    @property
    def order(self) -> tuple[int, int]:
        return self.place, self.seq


@dataclass(slots=True)
class Position:
    """What is held of one symbol since it was last flat. Quote amounts; `qty` is signed base."""

    key: Key
    opened_seq: int
    opened_at: datetime
    session_id: int | None
    qty: Decimal = ZERO
    cost: Decimal = ZERO
    realized: Decimal = ZERO
    fees: Decimal = ZERO
    entered_qty: Decimal = ZERO
    entered_value: Decimal = ZERO
    exited_qty: Decimal = ZERO
    exited_value: Decimal = ZERO
    stop: Decimal | None = None
    take: Decimal | None = None
    provisional: bool = False
    last_price: Decimal = ZERO

    @property
    def side(self) -> str:
        return "LONG" if self.entered_value >= 0 else "SHORT"


class Trade(NamedTuple):
    """From flat to flat. `seq` is that of the fill that closed it."""

    seq: int
    position: Position
    closed_at: datetime
    reason: str


@dataclass(slots=True)
class Order:
    """An order from its intent on. Quantities in base; prices in quote, None where it has none."""

    client_order_id: str
    seq: int
    created_at: datetime
    updated_at: datetime
    session_id: int | None
    key: Key
    side: str
    type: str
    qty: Decimal
    price: Decimal | None
    stop_price: Decimal | None
    purpose: str
    state: str = "intent"
    venue_order_id: str = ""
    reason: str = ""
    filled_qty: Decimal = ZERO
    refused_as: str = ""  # in one word, why the exchange refused it

    @property
    def presumed(self) -> bool:
        """Whether it is taken for never sent only because it was not found."""
        return self.state == "denied" and self.reason == NEVER_HEARD


def settle(order: Order, state: str) -> None:
    if order.state == "denied":
        order.reason = ""  # why it was thought so counts no more
    order.state = settled(order, state)


def settled(order: Order, state: str) -> str:
    """What an order is in once `state` is known of it: facts may arrive late, and no end that was told is ever taken back.

    That an order never arrived is not told, but concluded: whatever the exchange tells of it counts more.
    """
    if state not in ORDER_STATES:
        raise ValueError(f"'{state}' is no state of an order.")
    if order.filled_qty >= order.qty:
        return "filled"
    if state == "denied" and order.venue_order_id:  # the exchange has it
        return order.state
    return order.state if order.state in TOLD_ENDS and state not in TOLD_ENDS else state


@dataclass(slots=True)
class Session:
    """One run of an engine on the account, as the entries tell it."""

    id: int
    opened_at: datetime
    strategy: str
    symbols: str
    timeframe: str
    mode: str
    initial_balance: Decimal
    config: str
    config_hash: str
    current_balance: Decimal = ZERO
    peak_balance: Decimal = ZERO
    closed_at: datetime | None = None
    status: str = "RUNNING"


class Mark(NamedTuple):
    """The account's worth after an entry."""

    seq: int
    at: datetime
    session_id: int | None
    why: str
    equity: Decimal
    cash: Decimal
    exposure: Decimal
    peak: Decimal


@dataclass(slots=True)
class Touched:
    """What one entry changed: the keys of rows to be written anew."""

    positions: set[Key] = field(default_factory=set)
    closed: list[Position] = field(default_factory=list)
    trades: list[Trade] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    orders: set[str] = field(default_factory=set)
    sessions: set[int] = field(default_factory=set)
    marks: list[Mark] = field(default_factory=list)
    refolded: set[Key] = field(default_factory=set)  # all trades of these symbols are in `trades`


def key_of(body: Mapping[str, Any]) -> Key:
    return body.get("market", "spot"), body["symbol"]


def amount(value: Any) -> Decimal:
    """A Decimal from what a body holds: a Decimal, a whole number, or the text of one. Never a float.

    Bounded, so that every product and sum of amounts is exact in the precision of the fold.
    """
    if type(value) in (str, Decimal) and PLAIN(str(value)):  # nearly all are: a fifth of the time
        return Decimal(value)
    try:
        number = Decimal(value) if isinstance(value, str | int) and not isinstance(value, bool) else value
    except InvalidOperation:
        number = None
    if not isinstance(number, Decimal) or not number.is_finite():
        raise ValueError(f"{repr(value)[:40]} is no amount.")
    if number.adjusted() < DIGITS and number.as_tuple().exponent < -DIGITS:  # type: ignore[operator]
        number = _without_zeros(number)
    if number.adjusted() >= DIGITS or number.as_tuple().exponent < -DIGITS:  # type: ignore[operator]
        raise ValueError(f"{str(value)[:40]} has more than {DIGITS} digits before or after the point.")
    return number


def _without_zeros(number: Decimal) -> Decimal:
    """The same number without zeros at its end, where it has digits enough to be told exactly."""
    return number.normalize(EXACT) if len(number.as_tuple().digits) <= EXACT.prec else number


def optional(value: Any) -> Decimal | None:
    return None if value is None else amount(value)


def positive(value: Any, what: str) -> Decimal:
    number = amount(value)
    if number <= 0:
        raise ValueError(f"{what} {number} is not above 0.")
    return number


def moment(value: Any) -> datetime:
    """An aware time from what a body holds: a datetime or its text."""
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(at, datetime) or at.utcoffset() is None:
        raise ValueError(f"{value!r} is no time with its zone.")
    return at


def strength(signal: Any) -> float | None:
    """A decision's signal: a finite number, or None where there was none."""
    if signal is None:
        return None
    number = float(signal) if isinstance(signal, int | float | str) else math.nan
    if not math.isfinite(number):
        raise ValueError(f"{signal!r} is no signal.")
    return number


def exactly(work: Callable[P, T]) -> Callable[P, T]:
    """`work` in the fold's own precision: no sum or product of amounts is rounded."""

    @wraps(work)
    def done(*args: P.args, **kwargs: P.kwargs) -> T:
        with localcontext(EXACT):
            return work(*args, **kwargs)

    return done


def rounded(value: Decimal) -> Decimal:
    """To 18 places, half to even; a value with fewer is left as it is."""
    text = str(value)
    if len(text) <= 20 and "E" not in text:  # 0. and 18 places, or fewer: nearly all are, and this is seen faster
        return value
    return value if value.as_tuple().exponent >= -18 else EXACT.quantize(value, PLACES)  # type: ignore[operator]
