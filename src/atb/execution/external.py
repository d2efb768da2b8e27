"""What at the exchange belongs to the account's owner and not to the account: never traded, never counted.

That is what was there before the account's first start, what its owner bought by hand since, and what came and went. The ledger
keeps it by asset, so that what it says of an asset is all of it: external holdings, what positions hold, the cash in quote.

Where some of the quote is the owner's, too, what he pays in is his, and what he takes out is his first.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from atb.core.errors import UsageError
from atb.core.orders import Balance, SeenFill
from atb.core.types import Symbol
from atb.execution.adopting import fill_entry
from atb.execution.seen import SEEN, TOLD
from atb.ledger.entries import Entry, fill_id
from atb.ledger.fold import Account
from atb.ledger.holdings import share_of
from atb.ledger.records import Key, Position, exactly, rounded

ZERO = Decimal(0)
FOREIGN = "foreign"  # the reason of an execution that no order of ours made
IN_KIND = "in_kind"  # the reason where coins of a position were taken away and not sold


class Cause(NamedTuple):
    """Why a balance changed. name: the id of its first entry; type: of an adjustment of cash, where its sign does not say."""

    name: str
    at: datetime
    reason: str
    evidence: str
    type: str = ""

    def adjustment(self, asset: str, amount: Decimal, type: str = "external", suffix: str = "") -> Entry:
        body = {"type": type, "asset": asset, "amount": amount, "reason": self.reason, "evidence": self.evidence}
        return Entry(self.name + suffix, "adjustment", self.at, body)


def is_shared(books: Account) -> bool:
    """Whether some of the quote was set aside as not the account's, if only by an account that was given a limit."""
    return books.quote in books.assets


@exactly
def first_entries(balances: Mapping[str, Balance], quote: str, money: Decimal | None, at: datetime) -> list[Entry]:
    """An account's beginning: `money` of the quote is its own, by default all that is free; everything else is external."""
    there = balances.get(quote, Balance(quote, ZERO, ZERO))
    own = there.free if money is None else money
    if own > there.free or own < 0:
        raise UsageError(
            f"--initial-balance {own:f}: {there.free:f} {quote} is free at the exchange.", "Give less, or leave it out."
        )
    told = f"at the exchange at {at:%Y-%m-%d %H:%M:%S} UTC"
    why = "initial balance" if money is None else "initial balance, as it was asked for"
    first = Cause("deposit:initial", at, why, f"{there.free:f} {quote} free {told}")
    entries = [first.adjustment(quote, own, "deposit")]
    aside = {asset: balance.total for asset, balance in sorted(balances.items()) if asset != quote and balance.total}
    if money is not None or there.total > own:
        aside[quote] = there.total - own
    for asset, amount in aside.items():
        cause = Cause(f"external:{asset}", at, "there before the first start", told)
        entries.append(cause.adjustment(asset, amount))
    return entries


@exactly
def by_hand(
    books: Account, fill: SeenFill, resting: Decimal, session_id: int | None = None, seen: Decimal = ZERO
) -> list[Entry]:
    """An execution that no order of ours made. What was bought is the owner's. What was sold is the account's, as far as it
    holds something and no order of ours has the coins (`resting`: base units that ours locked when it was made). seen: base
    units that came (or went, negative) and were booked as the owner's before it was told why: they are not booked again."""
    own = min(max(fill.qty - abs(seen), ZERO), _own(books, fill, resting))
    entry = fill_entry(fill, session_id)
    body: dict[str, Any] = {**entry.body, "reason": FOREIGN}
    external = fill.qty - own
    if not external:
        return [entry._replace(body=body)]
    entry = entry._replace(body={**body, "external_qty": external})
    side = "bought" if fill.side == "buy" else "sold"
    cause = Cause(entry.id, fill.at, f"{side} by hand", f"trade {fill.venue_trade_id} of {fill.symbol.id}")
    out = [entry]
    for asset, amount in _moved(fill, external).items():
        named = cause._replace(name=f"{entry.id}:{asset}")
        out += cash(books, amount, named) if asset == books.quote else [named.adjustment(asset, amount)]
        if asset == fill.symbol.base and seen:
            out.append(cause._replace(evidence=SEEN).adjustment(asset, -min(seen, amount, key=abs), suffix=TOLD))
    return out


@exactly
def cash(books: Account, amount: Decimal, cause: Cause) -> list[Entry]:
    """What comes to the quote or goes from it."""
    aside = books.assets.get(books.quote, ZERO)
    kind = cause.type or ("deposit" if amount > 0 else "withdrawal")
    if not is_shared(books):
        return [cause.adjustment(books.quote, amount, kind)]
    outside = amount if amount > 0 else -min(-amount, max(aside, ZERO))
    own = amount - outside
    entries = [cause.adjustment(books.quote, outside)] if outside or not own else []
    return entries + ([cause.adjustment(books.quote, own, kind, ":own" if entries else "")] if own else [])


@exactly
def coins(books: Account, symbol: Symbol, amount: Decimal, cause: Cause) -> list[Entry]:
    """What comes to the base of a symbol or goes from it. What external holdings do not have is taken from the position: it is
    closed so far at its last price, and what that is worth is taken out, so that it is neither a profit nor a loss."""
    outside = books.assets.get(symbol.base, ZERO)
    position = books.positions.get((symbol.market, symbol.id))
    missing = -amount - max(outside, ZERO)
    if missing <= 0 or position is None or position.qty <= 0:
        return [cause.adjustment(symbol.base, amount)]
    taken = min(missing, position.qty)
    entries = [cause.adjustment(symbol.base, amount + taken)]
    return entries + _in_kind(books, symbol, position, taken, cause)


@exactly
def owed(books: Account, symbol: Symbol, name: str, at: datetime) -> list[Entry]:
    """What sets right coins that are booked on one side, and were the other's: nobody can have less than none.

    Either they went before it was known that they had been bought: then they were booked as the owner's, and are taken from the
    position now. Or the owner sold some by hand, which were booked as the position's, and a sale of ours that was not told yet,
    or came a moment later, sold as many of his: then those stand in for them. name: of the first entry.
    """
    his, position = books.assets.get(symbol.base, ZERO), books.positions.get((symbol.market, symbol.id))
    if position is None or his * position.qty >= 0:
        return []
    moved = min(abs(his), abs(position.qty))
    if his < 0:
        cause = Cause(name, at, "taken away before its purchase was told", "a transfer")
    else:
        cause = Cause(name, at, "the owner's, sold for coins that he had sold by hand", "a sale of ours")
    return [
        cause.adjustment(symbol.base, -moved if his > 0 else moved),
        *_in_kind(books, symbol, position, moved, cause),
    ]


def _in_kind(books: Account, symbol: Symbol, position: Position, qty: Decimal, cause: Cause) -> list[Entry]:
    """Towards no position, at the last price. What that is worth is taken out, or paid in: it is no profit and no loss."""
    price, side = books.prices[position.key], "sell" if position.qty > 0 else "buy"
    body = {
        "symbol": symbol.id, "market": symbol.market, "base": symbol.base, "side": side, "qty": qty, "price": price,
        "venue_trade_id": cause.name, "reason": IN_KIND, "evidence": cause.evidence, "reduce_only": True,
    }  # fmt: skip
    entry = Entry(fill_id(symbol.id, side, cause.name, symbol.market), "fill", cause.at, body)
    worth, money = rounded(qty * price), cause._replace(name=f"{cause.name}:own")
    if side == "buy":
        return [entry, *cash(books, worth, money)]
    return [entry, money.adjustment(books.quote, -worth, cause.type or "withdrawal")]


def _own(books: Account, fill: SeenFill, resting: Decimal) -> Decimal:
    """How much of an execution may have changed what the account holds, or what was recorded as changed."""
    key: Key = (fill.symbol.market, fill.symbol.id)
    position = books.positions.get(key)
    held = position.qty if position is not None else ZERO
    if fill.side == "buy":
        return max(-held, ZERO)
    recorded = sum((r.effective for r in books.provisional.values() if (r.key, r.side) == (key, "sell")), ZERO)
    return max(held + recorded - resting, ZERO)


def _moved(fill: SeenFill, external: Decimal) -> dict[str, Decimal]:
    """What an execution of so much did to each asset, its share of the fee among it."""
    sign = 1 if fill.side == "buy" else -1
    fee = fill.fee - share_of(fill.fee, fill.qty - external, fill.qty)
    moved = {fill.symbol.base: sign * external, fill.symbol.quote: -sign * external * fill.price}
    moved[fill.fee_asset] = moved.get(fill.fee_asset, ZERO) - fee
    return {asset: amount for asset, amount in moved.items() if amount}
