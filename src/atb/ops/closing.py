"""Close positions: record what was closed by hand, or close everything of an account.

`close_all` books what needs nobody's answer; its Closer says at what price a position was closed and how that is known. A paper
account closes at its last mark; `RecordOnly` books what the operator closed by hand. What is sold at an exchange is sold by the
engine's own plan and executor (`closing_at_exchange`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from atb.core.errors import AtbError, Disagreement, UsageError
from atb.core.types import symbol_for
from atb.ledger.accounts import AccountRow, now_and_not_before, take_authority
from atb.ledger.entries import Entry, fill_id
from atb.ledger.lease import read_standing
from atb.ledger.line import Line

if TYPE_CHECKING:
    from psycopg import Connection

DEFAULT_FEE_BPS = Decimal(10)
LOOKS = 5  # at what is held, while all is closed and something new appears each time
WORKING = ("intent", "open", "partially_filled", "unknown")


class Held(NamedTuple):
    """An open position of an account."""

    account: AccountRow
    session_id: int | None
    market: str
    symbol: str
    side: str
    size: Decimal
    entry_price: Decimal
    current_price: Decimal


class Closed(NamedTuple):
    """A line of the receipt. `left` is what is still held of the symbol."""

    account: str
    symbol: str
    qty: Decimal
    price: Decimal
    fee: Decimal
    pnl: Decimal | None
    how: str
    left: Decimal


class Execution(NamedTuple):
    """At what price a position was closed, and how that is known."""

    price: Decimal
    provisional: bool
    how: str


class Closer(Protocol):
    """Closes one position, or says why it cannot: an AtbError leaves the position open.

    `orders_are_gone`: whether the account's working orders are off the market when it has done its work.
    """

    orders_are_gone: bool

    def close(self, held: Held) -> Execution: ...

    def not_booked(self, held: Held) -> None:
        """The ledger did not take it, since somebody else closed a part a moment before: the rest may be closed."""


class AtLastMark:
    """A paper account closes at the price it was last marked at. Its orders are nowhere but in the ledger."""

    orders_are_gone = True

    def close(self, held: Held) -> Execution:
        if held.current_price <= 0:
            raise Disagreement(f"{held.symbol} of {held.account.name} has never been marked: there is no price for it.")
        return Execution(held.current_price, False, "paper, at the last mark")

    def not_booked(self, held: Held) -> None:
        """The next look closes what is left."""


def _by_hand(account: AccountRow, price: Decimal) -> Execution:
    """What an operator says. Of a paper account no exchange will ever tell anything else."""
    provisional = account.environment != "paper"
    return Execution(price, provisional, "recorded by hand" + (", provisional" if provisional else ""))


class RecordOnly:
    """Nothing is sent: the operator closed and cancelled by hand. The exchange's own fills replace it later."""

    orders_are_gone = True

    def __init__(self, prices: Mapping[str, Decimal], only: Decimal | None) -> None:
        self.prices, self.only = prices, only
        self._booked: set[str] = set()

    def check(self, held: Iterable[Held]) -> None:
        """Every position has its price, every price its position, and a bare one is for a single symbol."""
        sizes = {h.symbol: f"{h.size:f} {h.symbol}" for h in held}
        unpriced = sorted(sizes.keys() - self.prices.keys())
        if unheld := sorted(self.prices.keys() - sizes.keys()):
            raise UsageError(
                f"--exit-price {unheld[0]}={self.prices[unheld[0]]:f}: {unheld[0]} is not held "
                f"(held: {', '.join(sizes.values()) or 'nothing'}).",
                "Was it booked already? See: atb db trades. Without this price, type it again.",
            )
        if self.only is None and unpriced:
            raise UsageError(f"There is no price for {unpriced[0]}.", f"Add: --exit-price {unpriced[0]}=PRICE")
        if self.only is not None and len(unpriced) > 1:
            raise UsageError(
                f"One price for several symbols: {', '.join(sorted(sizes))}.",
                "Write --exit-price SYMBOL=PRICE for each.",
            )
        if self.only is not None and sizes and not unpriced:
            raise UsageError(
                f"--exit-price {self.only:f}: each symbol that is held has a price of its own.", "Leave it out."
            )

    def close(self, held: Held) -> Execution:
        """Each symbol once: nobody says of what appears while this is booked that it was closed by hand, too."""
        taken = self._booked - self.prices.keys() - {held.symbol}  # the bare price was another's
        price = self.prices.get(held.symbol, None if taken else self.only)
        if price is None:
            raise UsageError(f"There is no price for {held.symbol}.", f"Add: --exit-price {held.symbol}=PRICE")
        if held.symbol in self._booked:
            raise Disagreement("it appeared while the exit was booked, or was not closed with it.")
        self._booked.add(held.symbol)
        return _by_hand(held.account, price)

    def not_booked(self, held: Held) -> None:
        self._booked.discard(held.symbol)


def open_positions(connection: Connection[Any], account: AccountRow) -> list[Held]:
    rows = connection.execute(
        "SELECT session_id, market, symbol, side, size, entry_price, current_price FROM positions "
        "WHERE account_id = %s AND status = 'OPEN' ORDER BY symbol",
        (account.id,),
    )
    return [Held(account, *row) for row in rows]


def working_orders(connection: Connection[Any], account: AccountRow) -> list[tuple[str, str, str]]:
    """Client order id, symbol and state of each order that may still be at the exchange, or on its way there."""
    rows = connection.execute(
        "SELECT client_order_id, symbol, state FROM orders WHERE account_id = %s AND state = ANY(%s) ORDER BY seq",
        (account.id, list(WORKING)),
    )
    return [(name, symbol, state) for name, symbol, state in rows]


def find_position(positions: Iterable[Held], symbol: str, account: str | None) -> Held:
    """The one open position that is meant. A UsageError lists the candidates where there is none, or more than one."""
    held = list(positions)
    mine = [h for h in held if account in (None, h.account.name)]
    matches = [h for h in mine if h.symbol == symbol or h.symbol == symbol_for(h.account.venue, symbol).id]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        known = ", ".join(f"{h.symbol} ({h.account.name})" for h in mine or held) or "none at all"
        whose = f" by an account {account}" if account and not mine else ""
        raise UsageError(f"{symbol} is not held{whose}. Open positions: {known}.", "See: atb db positions")
    names = ", ".join(h.account.name for h in matches)
    raise UsageError(f"{symbol} is held by more than one account: {names}.", "Say which: --account NAME")


def record_exit(
    line: Line, held: Held, *, price: Decimal, quantity: Decimal | None, reason: str, evidence: str,
    another: bool = False, fee_bps: Decimal = DEFAULT_FEE_BPS,
) -> Closed:  # fmt: skip
    """Book an exit that was made by hand, as a provisional fill. The engine of the account, if one runs, goes on.

    A `quantity` may be what the exchange told of already: then nothing changes, unless it is `another` exit. Without a
    quantity all that is held now was closed, whatever was told before.
    """
    if price <= 0:
        raise UsageError(f"--exit-price {price} is no price.", "It must be above 0.")
    qty = held.size if quantity is None else quantity
    if not 0 < qty <= held.size:
        raise UsageError(
            f"--quantity {qty} cannot be closed: {held.size} {held.symbol} is held.",
            "Was it booked already? See: atb db trades",
        )
    epoch = read_standing(line.connection, held.account.id).epoch
    execution = _by_hand(held.account, price)
    may_be_booked = execution.provisional and quantity is not None and not another
    body = _body(held, execution, qty, reason, evidence, fee_bps) | {"may_be_booked": may_be_booked}
    return _book(line, held, epoch, execution, body)


def fence_and_halt(line: Line, account: AccountRow, *, reason: str, evidence: str) -> int:
    """From here on no engine can append anything to the account, nor open anything. Returns the epoch."""
    epoch = line.surely(lambda connection: take_authority(connection, account.id, insist=True))
    if not line.surely(lambda connection: _is_halted(connection, account)):
        halt = {"action": "halt", "reason": reason, "by": evidence}
        line.append(account.id, epoch, [Entry(f"halt:{uuid.uuid4().hex}", "control", datetime.now(UTC), halt)])
    return epoch


def _is_halted(connection: Connection[Any], account: AccountRow) -> bool:
    row = connection.execute("SELECT halted FROM authority WHERE account_id = %s", (account.id,)).fetchone()
    connection.rollback()
    return bool(row and row[0])


def close_all(
    line: Line, account: AccountRow, epoch: int, closer: Closer, *, reason: str, evidence: str,
    fee_bps: Decimal = DEFAULT_FEE_BPS,
) -> tuple[list[Closed], list[tuple[Held, AtbError]]]:  # fmt: skip
    """Close all that a fenced account holds, and what appears meanwhile, such as an import. Returns what was closed, and
    what is held all the same, and why."""
    closed: list[Closed] = []
    failed: dict[tuple[str, str], AtbError] = {}
    refused: set[Held] = set()
    for _ in range(LOOKS):
        seen = line.surely(lambda connection: open_positions(connection, account))
        if not (left := [held for held in seen if held not in refused]):
            break
        for held in left:
            try:
                execution = closer.close(held)
                body = _body(held, execution, held.size, reason, evidence, fee_bps)
                try:
                    closed.append(_book(line, held, epoch, execution, body))
                except UsageError:
                    closer.not_booked(held)
                    raise
                failed.pop((held.market, held.symbol), None)
            except AtbError as error:
                line.connection.rollback()
                refused.add(held)
                failed.setdefault((held.market, held.symbol), error)
    if closer.orders_are_gone:
        _cancel(line, account, epoch, f"{reason}: {evidence}")
    still = line.surely(lambda connection: open_positions(connection, account))
    line.connection.rollback()
    return closed, [(h, failed.get((h.market, h.symbol), Disagreement("it is held still."))) for h in still]


def _body(
    held: Held, execution: Execution, qty: Decimal, reason: str, evidence: str, fee_bps: Decimal
) -> dict[str, Any]:
    return {
        "symbol": held.symbol, "market": held.market, "side": "sell" if held.side == "LONG" else "buy", "qty": qty,
        "price": execution.price, "fee": (qty * execution.price * fee_bps / 10_000).quantize(Decimal("1e-8")),
        "venue_trade_id": f"{'hand' if execution.provisional else 'paper'}-{uuid.uuid4().hex}", "reason": reason,
        "provisional": execution.provisional, "evidence": evidence, "reduce_only": True,
    }  # fmt: skip


def _book(line: Line, held: Held, epoch: int, execution: Execution, body: dict[str, Any]) -> Closed:
    name = fill_id(held.symbol, body["side"], body["venue_trade_id"], held.market)
    at = line.surely(lambda connection: now_and_not_before(connection, held.account.id))
    line.append(held.account.id, epoch, [Entry(name, "fill", at, body, held.session_id)])
    booked, pnl, left = line.surely(lambda connection: _outcome(connection, held, name))
    known = body["qty"] - booked
    how = f"{known:f} of it was booked already as the exchange's own" if known else execution.how
    return Closed(held.account.name, held.symbol, body["qty"], execution.price, body["fee"], pnl, how, left)


def _outcome(connection: Connection[Any], held: Held, name: str) -> tuple[Decimal, Decimal | None, Decimal]:
    """How much of a fill counts, the profit of the trade that it closed, and what is held after it."""
    symbol = (held.account.id, held.market, held.symbol)
    row = connection.execute(
        "SELECT effective_qty, pnl, (SELECT size FROM positions p WHERE (p.account_id, p.market, p.symbol) = (%s, %s, %s) "
        "AND status = 'OPEN') FROM fills LEFT JOIN trades USING (account_id, seq) "
        "WHERE fills.account_id = %s AND fills.id = %s",
        (*symbol, held.account.id, name),
    ).fetchone()
    connection.rollback()
    assert row is not None
    return row[0], row[1], row[2] or Decimal(0)


def _cancel(line: Line, account: AccountRow, epoch: int, reason: str) -> None:
    """Book the account's working orders as cancelled, on the word of whoever says so."""
    entries: list[Entry] = []
    for name, _, _ in line.surely(lambda connection: working_orders(connection, account)):
        body = {"client_order_id": name, "state": "cancelled", "reason": reason}
        entries.append(Entry(f"cancel:{name}:{uuid.uuid4().hex}", "order", datetime.now(UTC), body))
    line.connection.rollback()
    if entries:
        line.append(account.id, epoch, entries)


def parse_prices(texts: Sequence[str]) -> tuple[dict[str, Decimal], Decimal | None]:
    """`BTCUSDT=50000` by symbol, and a bare `50000` for the only one."""
    prices: dict[str, Decimal] = {}
    only: Decimal | None = None
    for text in texts:
        symbol, sign, number = text.rpartition("=")
        price = parse_amount(number, "--exit-price")
        if price <= 0:
            raise UsageError(f"--exit-price {text} is no price.", "It must be above 0.")
        if sign:
            prices[symbol.strip().upper().replace("/", "")] = price
        elif only is not None:
            raise UsageError("--exit-price without a symbol was given twice.", "Write SYMBOL=PRICE.")
        else:
            only = price
    return prices, only


def parse_amount(text: str, option: str) -> Decimal:
    """A finite decimal number from the command line."""
    try:
        number = Decimal(text.strip())
    except ArithmeticError:
        number = Decimal("NaN")
    if not number.is_finite():
        raise UsageError(f"{option} '{text}' is not a number.")
    if number and not -20 <= number.adjusted() <= 20:
        raise UsageError(f"{option} '{text}' is no amount that anybody trades.")
    return number
