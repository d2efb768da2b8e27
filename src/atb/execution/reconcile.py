"""What the ledger says against what the exchange says, line by line. Pure.

Of each asset the ledger knows a total: external holdings, what positions hold, the cash in quote. Where the exchange has another,
something happened that is no execution. What it tells of itself explains the difference, or nobody does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import chain, combinations
from typing import NamedTuple

from atb.core.errors import Disagreement
from atb.core.orders import CLOCKS_DIFFER, Balance, SeenOrder, SeenTransfer
from atb.core.types import Symbol, symbol_for
from atb.execution.adopting import is_ours
from atb.execution.dust import is_dust
from atb.execution.external import FOREIGN, IN_KIND
from atb.execution.traded import Traded
from atb.ledger.entries import Entry
from atb.ledger.fold import Account
from atb.ledger.records import FINAL_STATES, Fill, Key, exactly

ZERO = Decimal(0)
NOTHING, BOOK, REFUSE, LEAVE = "nothing", "book", "refuse", "leave: foreign"
CENTS = Decimal("0.01")  # of the least order's worth: less of the quote is dust
TINY = Decimal("1e-8")  # of a base whose lot is not known
MOST_LEGS = 12  # transfers of an asset of which each selection is tried


class Line(NamedTuple):
    """One difference. database, exchange: amounts of an asset, or of an order; None where that side has none."""

    subject: str
    database: Decimal | None
    exchange: Decimal | None
    difference: Decimal
    explanation: str
    action: str
    transfer: SeenTransfer | None = None
    symbol: Symbol | None = None  # whose base the asset is


class Snapshot(NamedTuple):
    """What the exchange says now. orders: the working ones of the symbols that are traded. transfers: those that are not in
    the ledger; None: it tells of none. since: when both sides were last known to agree."""

    balances: Mapping[str, Balance]
    orders: Sequence[SeenOrder] = ()
    transfers: Sequence[SeenTransfer] | None = ()
    since: datetime | None = None


class Verdict(NamedTuple):
    """All lines there are. unsettled: why nothing could be concluded, if so."""

    lines: tuple[Line, ...] = ()
    unsettled: str = ""

    @property
    def unexplained(self) -> list[Line]:
        return [line for line in self.lines if line.action == REFUSE]

    @property
    def equal(self) -> bool:
        return not self.unsettled and all(line.action in (NOTHING, LEAVE) for line in self.lines)

    def refusal(self, command: str) -> Disagreement:
        """The error that says so. command: what shows and accepts it."""
        first, more = self.unexplained[0], len(self.unexplained) - 1
        what = f"{first.subject}: the ledger and the exchange disagree, {first.explanation}"
        if first.database is not None and first.exchange is not None:
            what += f" ({first.database.normalize():f} here, {first.exchange.normalize():f} there)"
        what += f", and {more} more." if more else "."
        return Disagreement(what, f"Look, and if it is right so, accept it: {command}")


def order_lines(entries: Iterable[Entry]) -> list[Line]:
    """What was executed, and which orders were found, as lines of what is booked."""
    lines = []
    for entry in entries:
        body = entry.body
        if entry.kind == "intent":
            qty, why = Decimal(body["qty"]), f"an order of this account that was not in the ledger: {body['purpose']}"
            lines.append(Line(f"{body['symbol']} {body['client_order_id']}", None, qty, qty, why, BOOK))
        elif entry.kind == "fill" and body["reason"] != IN_KIND and not is_dust(body):
            qty = Decimal(body["qty"])
            hand = ", by hand" if body["reason"] == FOREIGN else ""
            why = (
                f"executed: {body['side']} {qty:f} at {Decimal(body['price']):f} (trade {body['venue_trade_id']}){hand}"
            )
            lines.append(Line(body["symbol"], None, None, qty if body["side"] == "buy" else -qty, why, BOOK))
    return lines


def symbol_of(books: Account, venue: str, traded: Iterable[Traded], asset: str) -> Symbol | None:
    """The symbol by which the account trades an asset, or has traded it."""
    known = [key for key in {**books.positions, **books.history} if has_traded(books, key)]
    symbols = [t.symbol for t in traded]
    symbols += [symbol_for(venue, name)._replace(market=market) for market, name in known]
    return next((s for s in symbols if s.base == asset and s.quote == books.quote), None)


def has_traded(books: Account, key: Key) -> bool:
    """Whether the account itself has, and not only its owner by hand."""
    return key in books.positions or any(fill.effective for fill in books.history.get(key, ()))


def may_have_traded(books: Account, key: Key) -> bool:
    """Whether it has, or an order of its own may work whose executions are not told yet."""
    working = (order for order in books.orders.values() if order.presumed or order.state not in FINAL_STATES)
    return has_traded(books, key) or any(order.key == key for order in working)


@exactly
def expected(books: Account, venue: str) -> dict[str, Decimal]:
    """Of each asset what there should be at the exchange, locked or not."""
    out = dict(books.assets)
    out[books.quote] = out.get(books.quote, ZERO) + books.cash
    for (_, name), position in books.positions.items():
        base = symbol_for(venue, name).base
        out[base] = out.get(base, ZERO) + position.qty
    return out


@exactly
def differences(books: Account, venue: str, balances: Mapping[str, Balance]) -> dict[str, Decimal]:
    """What there is of an asset less what there should be, where that is not 0."""
    should = expected(books, venue)
    there = {asset: balance.total for asset, balance in balances.items()}
    found = {asset: there.get(asset, ZERO) - should.get(asset, ZERO) for asset in {**should, **there}}
    return {asset: found[asset] for asset in sorted(found, key=lambda a: (a != books.quote, a)) if found[asset]}


@exactly
def diff(books: Account, venue: str, traded: Sequence[Traded], identity: str, snapshot: Snapshot) -> Verdict:
    """Every difference with what explains it. Executions must be in the books already."""
    lines: list[Line] = []
    should = expected(books, venue)
    differ = differences(books, venue, snapshot.balances)
    legs = list(snapshot.transfers or ())
    for asset in {**differ, **dict.fromkeys(sorted(leg.asset for leg in legs))}:
        symbol = symbol_of(books, venue, traded, asset)
        lines += _of_asset(books, traded, asset, symbol, should.get(asset, ZERO), differ.get(asset, ZERO), snapshot)
    lines += [_of_order(order, identity) for order in snapshot.orders if order.client_order_id not in books.orders]
    return Verdict((*lines, *_locked(books, traded, snapshot)))


def _of_asset(
    books: Account, traded: Sequence[Traded], asset: str, symbol: Symbol | None, database: Decimal, differs: Decimal,
    snapshot: Snapshot,
) -> list[Line]:  # fmt: skip
    legs = [leg for leg in snapshot.transfers or () if leg.asset == asset]
    chosen = explaining(differs, legs, snapshot.since, dust(traded, asset, books.quote))
    there = database + differs
    lines = [Line(asset, database, there, leg.amount, _told(leg), BOOK, leg, symbol) for leg in chosen]
    rest = differs - sum((leg.amount for leg in chosen), ZERO)
    if not rest or (symbol is None and asset != books.quote):  # an asset that the account has nothing to do with
        return lines
    if abs(rest) < dust(traded, asset, books.quote):
        return [*lines, Line(asset, database, there, rest, "dust", NOTHING, None, symbol)]
    if symbol is not None and not may_have_traded(books, (symbol.market, symbol.id)):
        why = f"external: this account has never traded {symbol.id}"
        return [*lines, Line(asset, database, there, rest, why, BOOK, None, symbol)]
    why = _hint(books, symbol, snapshot.transfers is None)
    return [*lines, Line(asset, database, there, rest, why, REFUSE, None, symbol)]


def _told(leg: SeenTransfer) -> str:
    return f"{leg.kind} {leg.id} of {leg.at:%Y-%m-%d %H:%M}"


def _hint(books: Account, symbol: Symbol | None, silent: bool) -> str:
    """What may be behind a difference that nothing explains."""
    records = [r for r in books.provisional.values() if r.effective and (symbol is None or r.key[1] == symbol.id)]
    if records:
        return f"no execution was told for what was recorded by hand ({_shown(records[-1])})"
    return "nothing explains it" + (" (this venue does not tell of deposits and withdrawals)" if silent else "")


def _shown(record: Fill) -> str:
    return f"{record.side} {record.effective:f} {record.key[1]} at {record.price:f}"


def dust(traded: Iterable[Traded], asset: str, quote: str) -> Decimal:
    """Below how much a difference is none: less than a lot, or a hundredth of the least order's worth."""
    if asset == quote:
        return min((t.rules.min_notional * CENTS for t in traded), default=TINY) or TINY
    return next((t.rules.lot for t in traded if t.symbol.base == asset), TINY)


def explaining(
    differs: Decimal, legs: Sequence[SeenTransfer], since: datetime | None, near: Decimal = ZERO
) -> list[SeenTransfer]:
    """Of an asset's transfers those that its balance has in it and the ledger has not, oldest first.

    All of them, if that is the difference; else a selection that is, the newest preferred: what is told may be on its way
    still, or was in the first balance already. If none is, one that is to within less than `near`, as exchanges round. If none
    is, those since the last agreement happened all the same, as far as the two clocks can tell.
    """

    def off(some: Sequence[SeenTransfer]) -> Decimal:
        return abs(sum((leg.amount for leg in some), ZERO) - differs)

    newest = sorted(legs, key=lambda leg: leg.at, reverse=True)
    tried = newest[:MOST_LEGS]
    selections = chain.from_iterable(combinations(tried, count) for count in range(len(tried) + 1))
    nearest = min([tuple(newest), *selections], key=off)  # of those that are equally near the first
    if off(nearest) == 0 or off(nearest) < near:
        return [*nearest][::-1]
    return [leg for leg in newest[::-1] if since is not None and leg.at > since + CLOCKS_DIFFER]


def _of_order(order: SeenOrder, identity: str) -> Line:
    subject, rest = f"{order.symbol.id} {order.client_order_id or order.venue_order_id}", order.qty - order.filled_qty
    price = order.price or order.stop_price
    words = f"{order.side} {rest:f}" + (f" at {price:f}" if price else "")
    if is_ours(order.client_order_id, identity, order.symbol.id):
        why = f"an order of this account that its ledger has never heard of: {words}"
        return Line(subject, None, rest, rest, why, REFUSE, None, order.symbol)
    return Line(subject, None, rest, rest, f"somebody else's order: {words}", LEAVE, None, order.symbol)


def _locked(books: Account, traded: Sequence[Traded], snapshot: Snapshot) -> list[Line]:
    """Where orders of others lock more than external holdings: what is the account's own is not all free for it."""
    lines = []
    ours = [order for order in snapshot.orders if order.client_order_id in books.orders]
    for asset in dict.fromkeys([books.quote, *(t.symbol.base for t in traded)]):
        balance = snapshot.balances.get(asset, Balance(asset, ZERO, ZERO))
        others = balance.locked - locked_by(ours, asset)
        too_much = others - max(books.assets.get(asset, ZERO), ZERO)
        if too_much >= dust(traded, asset, books.quote):
            why = f"locked by others: {others:f}, of it the account's own"
            lines.append(Line(asset, ZERO, others, too_much, why, LEAVE))
    return lines


def locked_by(orders: Collection[SeenOrder], asset: str) -> Decimal:
    """What working orders lock of an asset, each pair of a take and a stop once."""
    sells = [o for o in orders if o.side == "sell" and o.symbol.base == asset]
    buys = [o for o in orders if o.side == "buy" and o.symbol.quote == asset]
    bought = sum(((o.qty - o.filled_qty) * (o.price or o.stop_price or ZERO) for o in buys), ZERO)
    return max((o.qty - o.filled_qty for o in sells), default=ZERO) + bought
