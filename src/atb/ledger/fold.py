"""The fold: what an account holds, is worth and has traded, from its entries alone.

The same function serves the journal (one entry at a time, as it is written), `atb db rebuild` and `atb db verify` (all of
them). Accounting is `apply_fill` of the engine, here on Decimal. Costs are kept to 18 places; what that takes from a cost it
gives to the realised profit, so that cash is exact: cash = paid in + realised - fees - cost of what is held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, localcontext
from typing import Any

from atb.engine.book import Book, apply_fill
from atb.ledger.entries import Entry
from atb.ledger.records import (
    EXACT,
    FINAL_STATES,
    ORDER_STATES,
    SESSION_STATES,
    ZERO,
    Fill,
    Key,
    Mark,
    Order,
    Position,
    Session,
    Touched,
    Trade,
    amount,
    key_of,
    moment,
    optional,
    positive,
    rounded,
    strength,
)

Body = Mapping[str, Any]
Levels = tuple[Decimal | None, Decimal | None]  # stop and take


class Account:
    """The state of one account, and the fold over its entries.

    `history` holds the fills of each symbol that are known here: all of them after a whole fold. A reversal needs those of
    its symbol from the first on, and the `levels` of the positions that they made; the journal loads them for it.
    """

    def __init__(self, quote: str) -> None:
        self.quote = quote
        self.paid_in = ZERO
        self.cash = ZERO
        self.realized = ZERO
        self.fees = ZERO
        self.equity = ZERO
        self.peak = ZERO
        self.assets: dict[str, Decimal] = {}
        self.prices: dict[Key, Decimal] = {}
        self.positions: dict[Key, Position] = {}
        self.orders: dict[str, Order] = {}
        self.sessions: dict[int, Session] = {}
        self.latest: Session | None = None  # begun last: its balances are the account's
        self.history: dict[Key, list[Fill]] = {}
        self.provisional: dict[str, Fill] = {}
        self.levels: dict[Key, dict[int, Levels]] = {}  # by the number of the fill that opened the position
        self.halted = ""

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
        take(self, seq, entry, entry.body, touched)
        if entry.session_id is not None:
            self._known_session(entry.session_id)
        return touched

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
        if self.halted and body.get("purpose") == "entry":
            raise ValueError(f"The account is halted ({self.halted}): exits and stops go on, entries do not.")
        self.orders[name] = Order(
            name, seq, entry.at, entry.at, entry.session_id, key_of(body), side_of(body), body["type"],
            positive(body["qty"], "qty"), optional(body.get("price")), optional(body.get("stop_price")), body.get("purpose", ""),
        )  # fmt: skip
        touched.orders.add(name)

    def _order(self, seq: int, entry: Entry, body: Body, touched: Touched) -> None:
        order = self.orders.get(body["client_order_id"])
        if order is None:
            raise ValueError(f"There is no order {body['client_order_id']}.")
        order.state, order.updated_at = settled(order, body["state"]), entry.at
        order.venue_order_id = body.get("venue_order_id", order.venue_order_id)
        order.reason = body.get("reason", order.reason)
        touched.orders.add(order.client_order_id)

    def _fill(self, seq: int, entry: Entry, body: Body, touched: Touched) -> None:
        fill = self._read_fill(seq, entry, body)
        if body.get("reduce_only"):
            self._check_reduces(fill)
        self.history.setdefault(fill.key, []).append(fill)
        touched.fills.append(fill)
        self._book(fill, touched)
        self.prices[fill.key] = fill.price
        if fill.provisional:
            self.provisional[fill.id] = fill
        elif fill.client_order_id in self.orders:
            self._fill_order(self.orders[fill.client_order_id], fill)
            touched.orders.add(fill.client_order_id)
        self._mark(seq, entry, "fill", touched)

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
        order.updated_at = fill.at
        order.state = settled(order, "partially_filled")

    def _reversal(self, seq: int, entry: Entry, body: Body, touched: Touched) -> None:
        fill, qty = self.provisional.get(body["fill_id"]), amount(body["qty"])
        if fill is None or not 0 < qty <= fill.effective:
            raise ValueError(f"{body['fill_id']} is no provisional fill of which {qty} could be taken back.")
        before, _ = self._alone(fill.key)
        fill.effective -= qty
        after, anew = self._alone(fill.key)
        touched.fills.append(fill)
        touched.refolded.add(fill.key)
        touched.trades += anew.trades
        touched.closed += anew.closed
        touched.positions.add(fill.key)
        self._exchange(fill.key, before, after)
        self._relevel(fill.key, anew.closed)
        self._mark(seq, entry, "reversal", touched)

    def _alone(self, key: Key) -> tuple[Account, Touched]:
        """An account that has only this symbol's fills, each with what is left of it."""
        alone, touched = Account(self.quote), Touched()
        for fill in self.history[key]:
            alone._book(fill, touched)
        return alone, touched

    def _exchange(self, key: Key, before: Account, after: Account) -> None:
        """Put what a symbol's fills amount to now in the place of what they amounted to."""
        self.cash += after.cash - before.cash
        self.realized += after.realized - before.realized
        self.fees += after.fees - before.fees
        for asset in {*before.assets, *after.assets}:
            change = after.assets.get(asset, ZERO) - before.assets.get(asset, ZERO)
            self.assets[asset] = self.assets.get(asset, ZERO) + change
        self.positions.pop(key, None)
        self.positions.update(after.positions)

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
        position.stop, position.take = (None if body[n] is None else positive(body[n], n) for n in ("stop", "take"))
        self.levels.setdefault(position.key, {})[position.opened_seq] = position.stop, position.take
        touched.positions.add(position.key)

    def _adjustment(self, seq: int, entry: Entry, body: Body, touched: Touched) -> None:
        change, asset = amount(body["amount"]), body["asset"]
        if {"deposit": change < 0, "withdrawal": change > 0}.get(body["type"]):
            raise ValueError(f"A {body['type']} cannot be of {change} {asset}.")
        if asset != self.quote:
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
        if body["action"] not in ("halt", "resume", "fence") or not body["reason"]:
            raise ValueError(f"'{body['action']}' for the reason '{body['reason']}' is no control.")
        if body["action"] != "fence":
            self.halted = body["reason"] if body["action"] == "halt" else ""

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
        in_quote = {"quote": fee, "base": fee * price}.get(kind)
        if in_quote is None and fee and body.get("fee_quote") is None:
            raise ValueError(f"A fee in {asset}: the fill must say what it is worth, as fee_quote.")
        if in_quote is None:
            in_quote = amount(body.get("fee_quote", ZERO))
        return Fill(
            entry.id, seq, entry.at, entry.session_id, key, side, qty, price, fee, asset, in_quote, kind,
            body.get("reason", ""), body.get("client_order_id", ""), body["venue_trade_id"],
            bool(body.get("provisional", False)), body.get("evidence", ""), qty,
        )  # fmt: skip

    def _book(self, fill: Fill, touched: Touched) -> None:
        """What a fill, or what is left of it, does to the position, the cash and the fees."""
        if fill.effective == 0:
            return
        fee, in_quote = fill.fee, fill.fee_quote
        if fill.effective != fill.qty:
            share = fill.effective / fill.qty
            fee = rounded(fee * share)
            in_quote = fee * fill.price if fill.fee_kind == "base" else rounded(in_quote * share)
        change = fill.effective if fill.side == "buy" else -fill.effective
        if fill.fee_kind == "base":
            change -= fee
            if change == 0:  # all that was bought went into its fee
                self.cash -= in_quote
                self.fees += in_quote
        elif fill.fee_kind == "other":
            self.assets[fill.fee_asset] = self.assets.get(fill.fee_asset, ZERO) - fee
        while change != 0:
            position = self.positions.get(fill.key)
            if position is None:
                position = Position(fill.key, fill.seq, fill.at, fill.session_id)
                self.positions[fill.key] = position
            held = position.qty
            through = (held > 0 > change or held < 0 < change) and abs(change) > abs(held)
            part = -held if through else change
            part_fee = rounded(in_quote * part / change) if through else in_quote
            self._book_part(position, part, fill, part_fee)
            position.provisional |= fill.provisional
            touched.positions.add(fill.key)
            change -= part
            in_quote -= part_fee
            if position.qty == 0:
                del self.positions[fill.key]
                touched.closed.append(position)
                touched.trades.append(Trade(fill.seq, position, fill.at, fill.reason))

    def _book_part(self, position: Position, change: Decimal, fill: Fill, fee: Decimal) -> None:
        value = change * fill.price
        paid = ZERO if fill.fee_kind == "other" else fee
        book = apply_fill(
            Book(position.qty, position.cost, self.cash, position.realized, position.fees), change, value, paid
        )
        cost = rounded(book.cost)
        realized = position.realized - position.cost - value + cost
        self.cash = book.cash
        self.realized += realized - position.realized
        self.fees += fee
        adds = position.qty == 0 or (position.qty > 0) == (change > 0)
        position.qty, position.cost, position.realized = book.qty, cost, realized
        position.fees += fee
        position.last_price = fill.price
        if adds:
            position.entered_qty += abs(change)
            position.entered_value += value
        else:
            position.exited_qty += abs(change)
            position.exited_value -= value

    def _mark(self, seq: int, entry: Entry, why: str, touched: Touched) -> None:
        exposure = sum((p.qty * self.prices[key] for key, p in self.positions.items()), ZERO)
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
    "reversal": Account._reversal, "level": Account._level, "adjustment": Account._adjustment,
    "mark": Account._take_mark, "decision": Account._decision, "control": Account._control,
}  # fmt: skip


def latest_of(sessions: Iterable[Session]) -> Session | None:
    """The session that the runbook's "latest" finds."""
    return max(sessions, key=lambda session: (session.opened_at, session.id), default=None)


def settled(order: Order, state: str) -> str:
    """What an order is in once `state` is known of it: facts may arrive late, and no end is ever taken back."""
    if state not in ORDER_STATES:
        raise ValueError(f"'{state}' is no state of an order.")
    if order.filled_qty >= order.qty:
        return "filled"
    return order.state if order.state in FINAL_STATES and state not in FINAL_STATES else state


def side_of(body: Body) -> str:
    if body["side"] not in ("buy", "sell"):
        raise ValueError(f"'{body['side']}' is no side: buy or sell.")
    return str(body["side"])
