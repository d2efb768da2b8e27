"""What closing an account came to: what was sold, what is left, what was cancelled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from atb.core.errors import AtbError
from atb.core.types import Symbol
from atb.execution.dust import is_dust
from atb.ledger.entries import Entry


class Sold(NamedTuple):
    """What was executed of one symbol, for one reason. qty in base; value and fee in quote."""

    symbol: str
    market: str
    reason: str
    qty: Decimal
    value: Decimal
    fee: Decimal

    @property
    def price(self) -> Decimal:
        return self.value / self.qty


class Left(NamedTuple):
    """What is not flat. orders: client ids of those that work, or may, beside its stop. kind: of error that it is; a
    Disagreement where the exchange has less of it than the books. stop: the price of the one that rests, None where none does."""

    symbol: Symbol
    qty: Decimal
    orders: Sequence[str]
    why: str
    kind: type[AtbError]
    stop: Decimal | None

    @property
    def protection(self) -> str:
        return "no stop rests for it" if self.stop is None else f"its stop rests at {self.stop.normalize():f}"


class Outcome(NamedTuple):
    """What an account's close came to. flat_after_s: None where it is not flat."""

    sold: Sequence[Sold]
    left: Sequence[Left]
    dust: Sequence[tuple[Symbol, Decimal]]
    cancelled: Sequence[str]
    flat_after_s: float | None


def sold(entries: Iterable[Entry], quote: str) -> list[Sold]:
    """The executions of what was sold, each symbol's by their reasons."""
    sums: dict[tuple[str, str, str], list[Decimal]] = {}
    for entry in entries:
        body = entry.body
        if entry.kind != "fill" or body["side"] != "sell" or is_dust(body):
            continue
        qty = Decimal(body["qty"]) - Decimal(body.get("external_qty", 0))
        if qty:
            key = body["symbol"], body.get("market", "spot"), str(body.get("reason", ""))
            row = sums.setdefault(key, [Decimal(0)] * 3)
            row[0] += qty
            row[1] += qty * Decimal(body["price"])
            row[2] += _fee_in_quote(body, quote)
    return [Sold(*key, *row) for key, row in sorted(sums.items())]


def cancelled(entries: Iterable[Entry]) -> list[str]:
    """Client ids of orders."""
    ended = (e.body for e in entries if e.kind == "order" and e.body["state"] == "cancelled")
    return sorted({body["client_order_id"] for body in ended})


def _fee_in_quote(body: Mapping[str, Any], quote: str) -> Decimal:
    fee, asset = Decimal(body.get("fee", 0)), body.get("fee_asset", quote)
    if asset == quote:
        return fee
    return fee * Decimal(body["price"]) if asset == body.get("base") else Decimal(body.get("fee_quote", 0))
