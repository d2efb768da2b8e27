"""What the engine knows of an account: a fold over its ledger's entries, and nothing else.

A running engine gives each entry that it has appended to `take`; one that starts gives it all entries there are. So resuming is
replaying. Candle closes are entries, too: a mark with the closes and the signals that were seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import nan
from typing import Any, NamedTuple

from atb.core.money import lots_to_base
from atb.core.types import MarketRules, Symbol
from atb.engine.reasons import REASON_NAMES, SIGNAL
from atb.engine.records import Position, Rules
from atb.engine.rules import make_market
from atb.engine.stepper import Stepper
from atb.ledger.entries import Entry
from atb.ledger.fold import Account
from atb.ledger.records import FINAL_STATES, Key, Order

ZERO = Decimal(0)
CODES = {name: code for code, name in sorted(REASON_NAMES.items(), reverse=True)}  # of two of a name, the lower
TARGET_PURPOSES = ("entry", "exit", "partial", "emergency")


class Traded(NamedTuple):
    """A symbol that a session trades, and what the exchange demands of its orders."""

    symbol: Symbol
    rules: MarketRules


class TradingState:
    """The engine's state of S symbols, beside the ledger's own fold of the same entries (`books`)."""

    def __init__(self, traded: Sequence[Traded], rules: Rules, quote: str) -> None:
        self.traded = list(traded)
        self.books = Account(quote)
        self.stepper = Stepper([make_market(t.rules) for t in self.traded], rules, 0.0)
        self.index = {(t.symbol.market, t.symbol.id): i for i, t in enumerate(self.traded)}
        self.working: list[dict[str, Order]] = [
            {} for _ in self.traded
        ]  # orders that are not at their end, by client id
        self.by_venue: dict[
            tuple[Key, str], str
        ] = {}  # client ids by symbol and the exchange's order id, which count by symbol
        self.last_open_ms: int | None = None
        self.reasons: list[int | None] = [None] * len(self.traded)  # of the decisions at the last close
        self.flattening: set[int] = set()  # symbols of which nothing is wanted until they are flat
        self.begun_with = rules
        self.seq = 0

    def fresh(self) -> TradingState:
        """The state before its first entry."""
        return type(self)(self.traded, self.begun_with, self.books.quote)

    def position(self, s: int) -> Position:
        return self.stepper.positions[s]

    def held(self, s: int) -> Decimal:
        """Base units of symbol s by the books: with what is too little for a lot."""
        symbol = self.traded[s].symbol
        position = self.books.positions.get((symbol.market, symbol.id))
        return position.qty if position is not None else ZERO

    def take(self, seq: int, entry: Entry) -> None:
        """Take one entry in. Entries of symbols that this session does not trade change the books alone."""
        s = self._traded(entry.body)
        before = self.held(s) if s is not None else ZERO
        touched = self.books.apply(seq, entry)
        self.seq = seq
        if entry.kind == "fill" and s is not None:
            self._executed(s, before, ZERO if touched.closed else self.held(s), entry.body)
        for name in touched.orders:
            self._order(self.books.orders[name])
        if entry.kind == "mark" and "signals" in entry.body:
            self._close(entry.body)
        elif entry.kind == "adjustment" and entry.body["asset"] == self.books.quote:
            self._paid_in(float(Decimal(entry.body["amount"])))
        elif entry.kind == "control" and entry.body["action"] == "resume":
            self._resumed()
        elif entry.kind == "control" and entry.body["action"] == "flatten":
            self._flatten()
        elif entry.kind == "session" and entry.body["action"] == "open":
            self._follow(json.loads(entry.body.get("config") or "{}"))

    def waits(self, s: int) -> bool:
        """Whether an order for the target of symbol s is under way."""
        return any(order.purpose in TARGET_PURPOSES for order in self.working[s].values())

    def _close(self, body: Mapping[str, Any]) -> None:
        """Mark and decide, by what a mark says: open_ms, and by symbol the closes and signals (texts of floats).

        No decision for a symbol whose last one is not carried out yet: an order under way, or something still to be sold.
        An entry that was never sent is not wanted any more.
        """
        prices, signals = body["prices"], body["signals"]
        closes = [nan] * len(self.traded)
        for s, name in enumerate(t.symbol.id for t in self.traded):
            p = self.stepper.positions[s]
            if name not in signals:
                continue
            if s in self.flattening and p.qty == 0 and not self.working[s]:
                self.flattening.discard(s)
            if self.waits(s) or p.target_qty < p.qty or s in self.flattening:
                p.last_close = float(prices[name])
                continue
            if p.target_qty > p.qty:
                self.stepper.settled(s)
            closes[s] = float(prices[name])
        self.last_open_ms = int(body["open_ms"])
        found = [float(signals.get(t.symbol.id, "nan")) for t in self.traded]
        self.reasons = self.stepper.close(self.last_open_ms, closes, found)

    def _follow(self, config: Mapping[str, Any]) -> None:
        """From here on the account was traded by these rules: what was decided then is folded by what counted then."""
        if "rules" in config:
            self.stepper.rules = Rules(**config["rules"])

    def _traded(self, body: Mapping[str, Any]) -> int | None:
        return self.index.get((body.get("market", "spot"), body.get("symbol", "")))

    def _executed(self, s: int, before: Decimal, after: Decimal, body: Mapping[str, Any]) -> None:
        """Whole lots are what can be traded: a fee that was taken in base leaves less than was bought."""
        lot = self.traded[s].rules.lot
        lots = int(after // lot) - int(before // lot)
        price, market = float(Decimal(body["price"])), self.stepper.markets[s]
        fee = body.get("fee", ZERO)
        if body.get("fee_asset", self.books.quote) == self.books.quote and abs(after - before) == lots_to_base(
            abs(lots), lot
        ):
            value, cost = (lots * market.lot) * price, float(Decimal(fee))
        else:  # what was paid for the lots, whatever the fee was taken from
            value, cost = float(after - before) * price, self._fee_in_quote(body, price)
        self.stepper.executed(s, lots, value, cost, CODES.get(body.get("reason", ""), SIGNAL))
        if s in self.flattening:  # also of what an order still bought that was on its way
            self.stepper.flatten(s)

    def _fee_in_quote(self, body: Mapping[str, Any], price: float) -> float:
        """A fee in base is paid by what is missing from the lots already."""
        if body.get("fee_asset") == body.get("base"):
            return 0.0
        return float(Decimal(body.get("fee_quote") or body.get("fee", ZERO)))

    def _order(self, order: Order) -> None:
        s = self.index.get(order.key)
        if order.venue_order_id:
            self.by_venue[order.key, order.venue_order_id] = order.client_order_id
        if s is None:
            return
        if order.state not in FINAL_STATES:
            self.working[s][order.client_order_id] = order
            return
        self.working[s].pop(order.client_order_id, None)
        if s in self.flattening:
            self.stepper.flatten(s)
        elif order.purpose == "entry":  # what an exit did not get, it still wants
            self.stepper.settled(s)

    def _paid_in(self, amount: float) -> None:
        """What is paid in or out is neither profit nor loss: the peak keeps its distance in proportion."""
        a, before = self.stepper.account, self.stepper.account.equity
        a.cash += amount
        a.equity += amount
        share = a.equity / before if before > 0 and a.equity > 0 else 0.0
        a.peak = a.peak * share if share else max(a.equity, 0.0)
        a.day_equity = a.day_equity * share if share else a.equity

    def _flatten(self) -> None:
        """Somebody wants nothing to be held: what was decided before is not wanted any more, of no symbol."""
        for s in range(len(self.traded)):
            self.flattening.add(s)
            self.stepper.flatten(s)

    def _resumed(self) -> None:
        """A halt that an operator ended: the peak begins anew, or it would halt again at once."""
        a = self.stepper.account
        a.halted, a.peak = 0, a.equity
