"""The fold: what an account holds, is worth and has traded, from its entries alone.

The same function serves the journal (one entry at a time, as it is written), `atb db rebuild` and `atb db verify` (all of
them). What fills do to cash and positions is in `holdings`.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

from atb.ledger.attributing import Unordered
from atb.ledger.entries import Entry
from atb.ledger.holdings import Holdings, folded
from atb.ledger.records import (
    EXACT,
    SESSION_STATES,
    ZERO,
    Fill,
    Key,
    Mark,
    Order,
    Position,
    Session,
    Touched,
    amount,
    key_of,
    moment,
    optional,
    positive,
    rounded,
    settle,
    strength,
)

OPERATOR = "operator"  # as who a level is `by`, where it is not the engine's own

Body = Mapping[str, Any]
CONTROLS = ("halt", "resume", "fence", "exit", "flatten")
Levels = tuple[Decimal | None, Decimal | None]  # stop and take


class Awaited(NamedTuple):
    """A fill that replaces records made by hand, between their reversals and itself: the next entry must be it."""

    fill_id: str
    record: Fill  # the first of them
    replaced: Decimal
    before: Holdings  # what the symbol's fills amounted to before the reversals


class Account(Holdings):
    """The state of one account, and the fold over its entries.

    `history` holds the fills of each symbol that are known here: all of them after a whole fold. A reversal needs those of
    its symbol from the first on, and the `levels` of the positions that they made; the journal loads them for it.
    """

    def __init__(self, quote: str) -> None:
        super().__init__()
        self.quote = quote
        self.paid_in = ZERO
        self.equity = ZERO
        self.peak = ZERO
        self.prices: dict[Key, Decimal] = {}
        self.orders: dict[str, Order] = {}
        self.sessions: dict[int, Session] = {}
        self.latest: Session | None = None  # begun last: its balances are the account's
        self.history: dict[Key, list[Fill]] = {}
        self.provisional: dict[str, Fill] = {}
        self.unordered = Unordered()
        self.levels: dict[Key, dict[int, Levels]] = {}  # by the number of the fill that opened the position
        self.adjusted: set[str] = set()  # ids of the adjustments that are known here, as `history`
        self.halted = ""
        self.awaited: Awaited | None = None

    def apply(self, seq: int, entry: Entry) -> Touched:
        """Take one entry in; returns what it changed. A ValueError for an entry that contradicts the account."""
        with localcontext(EXACT):
            return self.take(seq, entry)

    def apply_all(self, entries: Iterable[tuple[int, Entry]]) -> None:
        """Take in many: (seq, entry) in order."""
        with localcontext(EXACT):
            for seq, entry in entries:
                self.take(seq, entry)

    def take(self, seq: int, entry: Entry) -> Touched:
        """`apply` for who has set the context EXACT already."""
        touched, take = Touched(), _TAKE.get(entry.kind)
        if take is None:
            raise ValueError(f"'{entry.kind}' is no kind of entry.")
        if self.awaited is not None:
            self._check_awaited(entry)
        take(self, seq, entry, entry.body, touched)
        if entry.session_id is not None:
            self._known_session(entry.session_id)
        return touched

    def _check_awaited(self, entry: Entry | None) -> None:
        """Reversals that name a fill to come, and that fill, follow each other: nothing in between was ever true."""
        if self.awaited is None:
            return
        name = self.awaited.fill_id
        if entry is None or name != (entry.body.get("by") if entry.kind == "reversal" else entry.id):
            raise ValueError(f"A record by hand was taken back for {name}, which does not follow.")

    def finish(self) -> None:
        """Nothing follows. A ValueError if something should."""
        self._check_awaited(None)

    # One method a kind of entry. All see the same arguments.

    def _session(self, seq: int, entry: Entry, body: Body, touched: Touched) -> None:
        number = int(body["session_id"])
        touched.sessions.add(number)
        if body["action"] == "open":
            self._open_session(number, entry, body)
            return
        session, status = self._known_session(number), body.get("status", "STOPPED")
        if body["action"] != "close" or status not in SESSION_STATES:
            raise ValueError(f"A session is not '{body['action']}' with status '{status}'.")
        session.closed_at, session.status = entry.at, status

    def _open_session(self, number: int, entry: Entry, body: Body) -> None:
        if number in self.sessions:
            raise ValueError(f"Session {number} was opened before.")
        session = Session(
            number, entry.at, body.get("strategy", ""), body.get("symbols", ""), body.get("timeframe", ""),
            body.get("mode", ""), self.equity, body.get("config", "{}"), body.get("config_hash", ""),
            self.equity, self.peak,
        )  # fmt: skip
        self.sessions[number] = session
        self.latest = latest_of(self.sessions.values())

    def _intent(self, seq: int, entry: Entry, body: Body, touched: Touched) -> None:
        name = body["client_order_id"]
        if name in self.orders:
            raise ValueError(f"There is an order {name} already.")
        if self.halted and body.get("purpose") == "entry" and not body.get("adopted"):  # what was sent was sent
            raise ValueError(f"The account is halted ({self.halted}): exits and stops go on, entries do not.")
        order = self.orders[name] = Order(
            name, seq, entry.at, entry.at, entry.session_id, key_of(body), side_of(body), body["type"],
            positive(body["qty"], "qty"), optional(body.get("price")), optional(body.get("stop_price")), body.get("purpose", ""),
        )  # fmt: skip
        touched.orders.add(name)
        for fill in self.unordered.take_all(order):
            self._fill_order(order, fill)

    def _order(self, seq: int, entry: Entry, body: Body, touched: Touched) -> None:
        order = self.orders.get(body["client_order_id"])
        if order is None:
            raise ValueError(f"There is no order {body['client_order_id']}.")
        settle(order, body["state"])
        order.updated_at = entry.at
        order.venue_order_id = body.get("venue_order_id", order.venue_order_id)
        order.reason, order.refused_as = body.get("reason", order.reason), body.get("refused_as", "")
        touched.orders.add(order.client_order_id)

    def _fill(self, seq: int, entry: Entry, body: Body, touched: Touched) -> None:
        fill = self._read_fill(seq, entry, body)
        if body.get("reduce_only"):
            self._check_reduces(fill)
        touched.fills.append(fill)
        if self.awaited is None:
            self.history.setdefault(fill.key, []).append(fill)
            self.book(fill, touched)
        else:
            self._book_in_place(fill, self.awaited, touched)
        if self.history[fill.key][-1] is fill:
            self.prices[fill.key] = fill.price
            if fill.key in self.positions:  # a fill that is not the account's trades nothing, and tells a price
                touched.positions.add(fill.key)
        if fill.provisional:
            self.provisional[fill.id] = fill
        else:
            self._count(fill, touched)
        self._mark(seq, entry, "fill", touched)

    def _count(self, fill: Fill, touched: Touched) -> None:
        """For the order that the fill names, or for none while that is not known."""
        order = self.orders.get(fill.client_order_id)
        if order is None:
            self.unordered.add(fill)
            return
        self._fill_order(order, fill)
        touched.orders.add(order.client_order_id)

    def _attribution(self, seq: int, entry: Entry, body: Body, touched: Touched) -> None:
        fill = self.unordered.take(body["fill_id"])
        fill.client_order_id = body["client_order_id"]
        touched.fills.append(fill)
        self._count(fill, touched)

    def _book_in_place(self, fill: Fill, awaited: Awaited, touched: Touched) -> None:
        """Where the record stood that it replaces: what was entered since then is another position.

        What was entered before this fill, and told after the record, comes before it: it is of the same position.
        """
        self.awaited = None
        if (awaited.record.key, awaited.record.side) != (fill.key, fill.side) or awaited.replaced > fill.effective:
            raise ValueError(f"{fill.id} cannot be what was recorded as {awaited.record.id}.")
        entered = [
            other.place for other in self.history[fill.key]
            if other.side != fill.side and not other.provisional and other.place > awaited.record.place
            and other.at <= fill.at
        ]  # fmt: skip
        fill.place, fill.replaced = max(entered, default=awaited.record.place), awaited.replaced
        insort(self.history[fill.key], fill, key=lambda each: each.order)
        self._fold_anew(fill.key, awaited.before, touched)

    def _check_reduces(self, fill: Fill) -> None:
        """A close closes what is held now, whatever whoever asked for it believed."""
        position = self.positions.get(fill.key)
        held = position.qty if position is not None else ZERO
        if (held if fill.side == "sell" else -held) < fill.qty:
            raise ValueError(f"{fill.qty:f} {fill.key[1]} cannot be closed: {held.normalize():f} is held.")

    def _fill_order(self, order: Order, fill: Fill) -> None:
        if (order.key, order.side) != (fill.key, fill.side):
            raise ValueError(
                f"Order {order.client_order_id} is to {order.side} {order.key[1]}, not what {fill.id} says."
            )
        order.filled_qty += fill.qty
        order.updated_at = max(order.updated_at, fill.at)
        settle(order, "partially_filled")

    def _reversal(self, seq: int, entry: Entry, body: Body, touched: Touched) -> None:
        fill, qty = self.provisional.get(body["fill_id"]), amount(body["qty"])
        if fill is None or not 0 < qty <= fill.effective:
            raise ValueError(f"{body['fill_id']} is no provisional fill of which {qty} could be taken back.")
        before = self.awaited.before if self.awaited else folded(self.history[fill.key])[0]
        fill.effective -= qty
        touched.fills.append(fill)
        by = body.get("by")
        real = next((each for each in self.history[fill.key] if each.id == by), None)
        if by and real is None:
            record, so_far = (self.awaited.record, self.awaited.replaced) if self.awaited else (fill, ZERO)
            self.awaited = Awaited(by, record, so_far + qty, before)
            return
        if real is not None:
            real.replaced += qty
            if real.replaced > real.effective:
                raise ValueError(f"{real.id} has replaced other records: it cannot replace {qty:f} of {fill.id}, too.")
            touched.fills.append(real)
        self._fold_anew(fill.key, before, touched)
        self._mark(seq, entry, "reversal", touched)

    def _fold_anew(self, key: Key, before: Holdings, touched: Touched) -> None:
        """All of a symbol's fills once more, in the place of what they amounted to `before`."""
        after, anew = folded(self.history[key])
        touched.refolded.add(key)
        touched.trades += anew.trades
        touched.closed += anew.closed
        touched.positions.add(key)
        self.exchange(key, before, after)
        self._relevel(key, anew.closed)

    def _relevel(self, key: Key, closed: list[Position]) -> None:
        """Give the positions that were folded anew the levels that they had; forget those of the ones that are no more."""
        had = self.levels.get(key, {})
        positions = [*closed, self.positions[key]] if key in self.positions else closed
        for position in positions:
            position.stop, position.take = had.get(position.opened_seq, (None, None))
        self.levels[key] = {p.opened_seq: had[p.opened_seq] for p in positions if p.opened_seq in had}

    def _level(self, seq: int, entry: Entry, body: Body, touched: Touched) -> None:
        position = self.positions.get(key_of(body))
        if position is None:
            raise ValueError(f"{body['symbol']} is not held: it has no stop to move.")
        stop, take = (None if body[n] is None else positive(body[n], n) for n in ("stop", "take"))
        if body.get("by") == OPERATOR:
            _check_tighter(position, stop)
        position.stop, position.take = stop, take
        self.levels.setdefault(position.key, {})[position.opened_seq] = position.stop, position.take
        touched.positions.add(position.key)

    def _adjustment(self, seq: int, entry: Entry, body: Body, touched: Touched) -> None:
        change, asset = amount(body["amount"]), body["asset"]
        if {"deposit": change < 0, "withdrawal": change > 0}.get(body["type"]):
            raise ValueError(f"A {body['type']} cannot be of {change} {asset}.")
        self.adjusted.add(entry.id)
        if asset != self.quote or body["type"] == "external":
            self.assets[asset] = self.assets.get(asset, ZERO) + change
            return
        before = self.equity
        self.cash += change
        if body["type"] == "funding":  # earned or lost, like a trade
            self.realized += change
            self._mark(seq, entry, "funding", touched)
            return
        self.paid_in += change
        # What is paid in or out is no profit and no loss: the drawdown stays the share that it was.
        after = before + change
        self.peak = rounded(self.peak * after / before) if before > 0 and after > 0 else max(after, ZERO)
        self._mark(seq, entry, body["type"], touched)

    def _take_mark(self, seq: int, entry: Entry, body: Body, touched: Touched) -> None:
        for symbol, price in body["prices"].items():
            key = (body.get("market", "spot"), symbol)
            self.prices[key] = positive(price, f"The price of {symbol},")
            if key in self.positions:
                touched.positions.add(key)
        self._mark(seq, entry, body["why"], touched)

    def _decision(self, seq: int, entry: Entry, body: Body, touched: Touched) -> None:
        """A decision changes nothing by itself: the orders that follow from it do. It must only be readable."""
        strength(body["signal"])
        moment(body["open_time"])
        for name in ("target_qty", "stop", "take"):
            optional(body.get(name))

    def _control(self, seq: int, entry: Entry, body: Body, touched: Touched) -> None:
        if body["action"] not in CONTROLS or not body["reason"]:
            raise ValueError(f"'{body['action']}' for the reason '{body['reason']}' is no control.")
        if body["action"] in ("halt", "resume"):
            self.halted = body["reason"] if body["action"] == "halt" else ""
        if body["action"] == "resume":  # the drawdown begins anew, or the same one would halt again at once
            self.peak = ZERO
            self._mark(seq, entry, "resume", touched)

    def _known_session(self, number: int) -> Session:
        if number not in self.sessions:
            raise ValueError(f"There is no session {number}.")
        return self.sessions[number]

    def _read_fill(self, seq: int, entry: Entry, body: Body) -> Fill:
        key, side = key_of(body), side_of(body)
        qty, price = positive(body["qty"], "qty"), positive(body["price"], "price")
        fee, asset = amount(body.get("fee", ZERO)), body.get("fee_asset") or self.quote
        kind = "quote" if asset == self.quote else "base" if asset == body.get("base") else "other"
        if kind == "other" and fee and not body.get("base"):
            raise ValueError(f"A fee in {asset}: the fill must say which asset is the base of {key[1]}.")
        if kind == "other" and fee and body.get("fee_quote") is None:
            raise ValueError(f"A fee in {asset}: the fill must say what it is worth, as fee_quote.")
        in_quote = fee if kind == "quote" else fee * price if kind == "base" else amount(body.get("fee_quote", ZERO))
        external = amount(body["external_qty"]) if "external_qty" in body else ZERO
        if not 0 <= external <= qty:
            raise ValueError(f"{external} of {qty} cannot be external.")
        return Fill(
            entry.id, seq, entry.at, entry.session_id, key, side, qty, price, fee, asset, in_quote, kind,
            body.get("reason", ""), body.get("client_order_id", ""), body["venue_trade_id"],
            bool(body.get("provisional", False)), body.get("evidence", ""), qty - external, seq,
        )  # fmt: skip

    def _mark(self, seq: int, entry: Entry, why: str, touched: Touched) -> None:
        exposure = ZERO
        for key, position in self.positions.items():
            exposure += position.qty * self.prices[key]
        self.equity = self.cash + exposure
        self.peak = max(self.peak, self.equity)
        touched.marks.append(
            Mark(seq, entry.at, entry.session_id, why, self.equity, self.cash, exposure, self.peak)
        )  # fmt: skip
        if self.latest is not None:
            self.latest.current_balance, self.latest.peak_balance = self.equity, self.peak
            touched.sessions.add(self.latest.id)


_TAKE = {
    "session": Account._session, "intent": Account._intent, "order": Account._order, "fill": Account._fill,
    "reversal": Account._reversal, "attribution": Account._attribution, "level": Account._level,
    "adjustment": Account._adjustment, "mark": Account._take_mark, "decision": Account._decision, "control": Account._control,
}  # fmt: skip


def _check_tighter(position: Position, stop: Decimal | None) -> None:
    """An operator's stop was chosen by what was seen a moment ago: the engine may have moved it further since."""
    before, ahead = position.stop, 1 if position.qty > 0 else -1
    if stop is None or (before is not None and ahead * stop < ahead * before):
        now = f"{before.normalize():f}" if before is not None else "none"
        raise ValueError(f"The stop of {position.key[1]} is {now} by now, and an operator only makes it tighter.")


def latest_of(sessions: Iterable[Session]) -> Session | None:
    """The session that the runbook's "latest" finds."""
    return max(sessions, key=lambda session: (session.opened_at, session.id), default=None)


def side_of(body: Body) -> str:
    if body["side"] not in ("buy", "sell"):
        raise ValueError(f"'{body['side']}' is no side: buy or sell.")
    return str(body["side"])
