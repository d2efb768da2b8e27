"""What the engine knows of an account: a fold over its ledger's entries, and nothing else.

A running engine gives each entry that it has appended to `take`; one that starts gives it all entries there are. So resuming is
replaying. Candle closes are entries, too: a mark with the closes and the signals that were seen.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from math import nan
from typing import Any

from atb.core.money import lots_to_base
from atb.core.timeframe import in_ms
from atb.core.types import MarketRules, Symbol
from atb.engine.reasons import REASON_NAMES, SIGNAL, STOP_LOSS
from atb.engine.records import Position, Rules
from atb.engine.risk import round_down
from atb.engine.rules import make_market
from atb.engine.stepper import Stepper
from atb.execution.dust import dust_change, is_dust
from atb.execution.seen import Seen
from atb.execution.traded import Traded, traded_from
from atb.ledger.entries import Entry
from atb.ledger.fold import Account
from atb.ledger.records import FINAL_STATES, Key, Order, moment

ZERO = Decimal(0)
CODES = {name: code for code, name in sorted(REASON_NAMES.items(), reverse=True)}  # of two of a name, the lower
MOVING = ("fill", "reversal", "attribution")  # kinds of entry that may change what is held, or was
TARGET_PURPOSES = ("entry", "exit", "partial", "emergency")


class TradingState:
    """The engine's state of S symbols, beside the ledger's own fold of the same entries (`books`).

    The first `count` of `traded` are this session's. Behind them come those that only earlier sessions traded.
    """

    def __init__(self, traded: Sequence[Traded], rules: Rules, quote: str) -> None:
        self.traded = list(traded)
        self.count = len(self.traded)
        self.books = Account(quote)
        self.stepper = Stepper([make_market(t.rules) for t in self.traded], rules, 0.0)
        self.index = {(t.symbol.market, t.symbol.id): i for i, t in enumerate(self.traded)}
        # Orders that are not at their end, by client id; and client ids by symbol and the exchange's own order id.
        self.working: list[dict[str, Order]] = [{} for _ in self.traded]
        self.presumed: list[dict[str, Order]] = [
            {} for _ in self.traded
        ]  # never to have arrived, as they were not found
        self.by_venue: dict[tuple[Key, str], str] = {}
        self.last_open_ms: int | None = None
        self.last_closes: list[tuple[int, float] | None] = [None] * len(self.traded)  # open time and close of each
        self.reasons: list[int | None] = [None] * len(self.traded)  # of the decisions at the last close
        self.flattening: set[int] = set()  # symbols of which nothing is wanted until they are flat
        self.begun_with = list(traded), rules
        self.seq = 0
        self.signals: dict[str, float] = {}  # at the last close
        self.decided_ms: int | None = None  # the close whose decisions were written down last
        self.lowest = ZERO  # what the account was worth at the least since its peak
        # Side and trade id of each execution that the exchange told of: one trade may have both sides.
        self.booked: list[set[tuple[str, str]]] = [set() for _ in self.traded]
        # By symbol what coins of the owner's were sold for by a sale of ours, as long as the books owe them.
        self.owed = [0.0] * len(self.traded)
        self.filled_ms: dict[int, int] = {}  # by symbol the time of the latest of them
        self.adopted: set[str] = set()  # client ids of orders that were found at the exchange
        self.dust: dict[str, Decimal] = {}  # by asset, what was too little to be sold (execution.dust)
        self.seen = Seen()  # of its owner's, before it was told why
        self.halted_ms: int | None = None  # the time of the halt that counts; None: there is none
        self.begun: datetime | None = None  # when the account had its first money; what was traded before was not by it

    def fresh(self) -> TradingState:
        """The state before its first entry."""
        return type(self)(*self.begun_with, self.books.quote)

    def take_over(self) -> None:
        """All that any session traded is this one's to look after."""
        self.count = len(self.traded)
        self.begun_with = list(self.traded), self.begun_with[1]

    def learn(self, traded: Traded) -> None:
        """What the exchange demands now of a symbol's orders."""
        self._trade_by(*traded)

    def position(self, s: int) -> Position:
        return self.stepper.positions[s]

    def held(self, s: int) -> Decimal:
        """Base units of symbol s by the books: with what is too little for a lot."""
        symbol = self.traded[s].symbol
        position = self.books.positions.get((symbol.market, symbol.id))
        return position.qty if position is not None else ZERO

    def take(self, seq: int, entry: Entry) -> None:
        """Take one entry in. Entries of symbols that no session has traded change the books alone."""
        s = self._traded(entry.body)
        moves = entry.kind in MOVING
        before = self.held(s) if moves and s is not None else ZERO
        money = self._money() if moves else (ZERO, ZERO, ZERO)
        touched = self.books.apply(seq, entry)
        self.seq = seq
        self.seen.take(entry)
        if (moved := dust_change(entry)) is not None:
            self.dust[moved[0]] = self.dust.get(moved[0], ZERO) + moved[1]
        if entry.kind == "fill" and s is not None and not entry.body.get("provisional") and not is_dust(entry.body):
            self.booked[s].add((entry.body["side"], entry.body["venue_trade_id"]))
            self.filled_ms[s] = max(in_ms(entry.at), self.filled_ms.get(s, 0))
        if touched.refolded:
            self._corrected(touched.refolded, money, entry.body)
        elif entry.kind == "fill" and s is not None:
            self._executed(s, before, self.held(s), entry.body)
        assert moves or not touched.refolded
        for name in touched.orders:
            self._order(self.books.orders[name])
        if entry.kind == "adjustment" and self.begun is None:
            self.begun = entry.at
        if entry.kind == "control" and entry.body["action"] in ("halt", "resume"):
            self.halted_ms = in_ms(entry.at) if self.books.halted else None
        if entry.kind == "intent" and entry.body.get("adopted") and s is not None:
            self._adopt(s, self.books.orders[entry.body["client_order_id"]])
        if touched.marks:
            self.lowest = (
                self.books.equity if self.books.equity == self.books.peak else min(self.lowest, self.books.equity)
            )
        if entry.kind in ("mark", "adjustment", "control", "session", "level", "decision"):
            getattr(self, f"_{entry.kind}")(s, entry.body)

    def waits(self, s: int) -> bool:
        """Whether an order for the target of symbol s is under way."""
        return any(order.purpose in TARGET_PURPOSES for order in self.working[s].values())

    # What one kind of entry means for the engine. All see the same arguments.

    def _mark(self, s: int | None, body: Mapping[str, Any]) -> None:
        """Mark and decide, by what a mark says: open_ms, and by symbol the closes and signals (texts of floats).

        No decision for a symbol whose last one is not carried out yet: an order under way, or something still to be sold.
        An entry that was never sent is not wanted any more.
        """
        if "signals" not in body:
            return
        prices, signals = body["prices"], body["signals"]
        closes = [nan] * len(self.traded)
        for s, name in enumerate(t.symbol.id for t in self.traded):
            p = self.stepper.positions[s]
            if name not in signals:
                continue
            self.last_closes[s] = int(body["open_ms"]), float(prices[name])
            if s in self.flattening and p.qty == 0 and not self.working[s]:
                self.flattening.discard(s)
            if self.waits(s) or p.target_qty < p.qty or s in self.flattening:
                p.last_close = float(prices[name])
                continue
            if p.target_qty > p.qty:
                self.stepper.settled(s)
            closes[s] = float(prices[name])
        self.last_open_ms = int(body["open_ms"])
        self.signals = {name: float(signal) for name, signal in signals.items()}
        found = [self.signals.get(t.symbol.id, nan) for t in self.traded]
        self.reasons = self.stepper.close(self.last_open_ms, closes, found)

    def _decision(self, s: int | None, body: Mapping[str, Any]) -> None:
        self.decided_ms = in_ms(moment(body["open_time"]))

    def _adjustment(self, s: int | None, body: Mapping[str, Any]) -> None:
        if body["asset"] != self.books.quote or body["type"] == "external":
            return
        a, amount = self.stepper.account, float(Decimal(body["amount"]))
        before = a.equity
        a.cash += amount
        a.equity += amount
        if body["type"] == "funding":  # earned or lost, like a trade
            a.realized += amount
            return
        # What is paid in or out is neither profit nor loss: the peak keeps its distance in proportion.
        share = a.equity / before if before > 0 and a.equity > 0 else 0.0
        a.peak = a.peak * share if share else max(a.equity, 0.0)
        a.day_equity = a.day_equity * share if share else a.equity

    def _control(self, s: int | None, body: Mapping[str, Any]) -> None:
        a = self.stepper.account
        if body["action"] == "resume":  # the peak begins anew, or it would halt again at once
            a.halted, a.peak = 0, a.equity
        elif body["action"] == "exit" and s is not None:
            self.stepper.want(s, 0, CODES.get(body["reason"], SIGNAL))
        elif body["action"] == "flatten":  # what was decided before is not wanted any more, of no symbol
            self.flattening = set(range(len(self.traded)))
            self._flatten()

    def _flatten(self) -> None:
        """Also after what an order still bought that was on its way."""
        for s in self.flattening:
            self.stepper.flatten(s)

    def _level(self, s: int | None, body: Mapping[str, Any]) -> None:
        """The engine's own levels are known. An operator's is tighter, or it changes nothing."""
        if s is None or not body.get("by") or body["stop"] is None:
            return
        p, stop = self.stepper.positions[s], float(Decimal(body["stop"]))
        if p.qty > 0 and not p.stop >= stop:
            p.stop, p.stop_reason = stop, STOP_LOSS

    def _session(self, s: int | None, body: Mapping[str, Any]) -> None:
        """From here on the account was traded by these rules: what was decided then is folded by what counted then."""
        config = json.loads(body.get("config") or "{}") if body["action"] == "open" else {}
        if "rules" in config:
            self.stepper.rules = Rules(**config["rules"])
            self.stepper.holds_when_halted = config.get("on_halt") == "hold"
        for known in config.get("markets", ()):
            self._trade_by(*traded_from(known))

    def _trade_by(self, symbol: Symbol, rules: MarketRules) -> None:
        """A symbol that this or an earlier session trades, and what the exchange demanded of it then."""
        s = self.index.get((symbol.market, symbol.id))
        if s is None:
            self.index[symbol.market, symbol.id] = len(self.traded)
            self.traded.append(Traded(symbol, rules))
            self.working.append({})
            self.presumed.append({})
            self.booked.append(set())
            self.owed.append(0.0)
            self.reasons.append(None)
            self.last_closes.append(None)
            self.stepper.add(make_market(rules))
            return
        if rules.lot != self.traded[s].rules.lot:
            self.stepper.regrid(s, _lots(self.held(s), rules.lot), float(self.traded[s].rules.lot / rules.lot))
        self.traded[s] = Traded(symbol, rules)
        self.stepper.markets[s] = make_market(rules)

    def _traded(self, body: Mapping[str, Any]) -> int | None:
        return self.index.get((body.get("market", "spot"), body.get("symbol", "")))

    # Fills.

    def _money(self) -> tuple[Decimal, Decimal, Decimal]:
        return self.books.cash, self.books.realized, self.books.fees

    def _corrected(
        self, keys: Collection[Key], money: tuple[Decimal, Decimal, Decimal], body: Mapping[str, Any]
    ) -> None:
        """Fills were folded anew: what was held, and what it cost, was something else than was thought."""
        a = self.stepper.account
        cash, realized, fees = (float(now - then) for now, then in zip(self._money(), money, strict=True))
        a.cash, a.realized, a.fees = a.cash + cash, a.realized + realized, a.fees + fees
        for key in keys:
            s = self.index.get(key)
            if s is None:
                continue
            held = self.books.positions.get(key)
            lots = _lots(held.qty, self.traded[s].rules.lot) if held else 0
            cost = float(held.cost * lots * self.traded[s].rules.lot / held.qty) if held and lots else 0.0
            self.stepper.corrected(s, lots, cost, CODES.get(body.get("reason", ""), SIGNAL))
            p = self.stepper.positions[s]
            if held and lots and p.stop != p.stop and held.stop is not None:
                p.stop, p.stop_reason = float(held.stop), STOP_LOSS
            self._set_aside(s)
            self._guard(s)
        self._flatten()

    def _guard(self, s: int) -> None:
        """What came to be held without a decision has a stop all the same, if the rules have one."""
        p, rules = self.stepper.positions[s], self.stepper.rules
        if p.qty > 0 and p.stop != p.stop and rules.stop_loss > 0.0:
            p.stop = round_down(p.entry_price * (1.0 - rules.stop_loss), self.stepper.markets[s].tick)
            p.stop_reason = STOP_LOSS

    def _executed(self, s: int, before: Decimal, after: Decimal, body: Mapping[str, Any]) -> None:
        """Whole lots are what can be traded: a fee that was taken in base leaves less than was bought. The engine holds nothing
        where the books hold less than nothing, and what a sale of ours sold of the owner's coins is no money of its own."""
        own = self._own_share(body)
        if not own:
            return
        lot = self.traded[s].rules.lot
        lots = _lots(after, lot) - _lots(before, lot)
        price, market = float(Decimal(body["price"])), self.stepper.markets[s]
        fee = Decimal(body.get("fee", ZERO)) * own
        change = max(after, ZERO) - max(before, ZERO)
        if change != after - before:
            self.stepper.account.cash -= float(after - before - change) * price
            self._set_aside(s)
        if body.get("fee_asset", self.books.quote) == self.books.quote and abs(change) == lots_to_base(abs(lots), lot):
            value, cost = (lots * market.lot) * price, float(Decimal(fee))
        else:  # what was paid for the lots, whatever the fee was taken from
            value, cost = float(change) * price, self._fee_in_quote(body, price) * float(own)
        order = self.books.orders.get(body.get("client_order_id", ""))
        asked = order is not None and order.purpose in TARGET_PURPOSES and not self._is_late(s, order)
        self.stepper.executed(s, lots, value, cost, CODES.get(body.get("reason", ""), SIGNAL), asked=asked)
        self._guard(s)
        self._flatten()

    def _set_aside(self, s: int) -> None:
        """What is owed is in the books' cash, and not in the engine's: it would be equity, and gone when it is set right."""
        symbol = self.traded[s].symbol
        position = self.books.positions.get((symbol.market, symbol.id))
        owed = -float(position.cost) if position is not None and position.qty < 0 else 0.0
        self.stepper.account.cash += self.owed[s] - owed
        self.owed[s] = owed

    def _is_late(self, s: int, order: Order) -> bool:
        """Whether nothing waits for it any more: its target was given up, or lost."""
        return order.client_order_id in self.adopted or order.client_order_id in self.presumed[s]

    def _own_share(self, body: Mapping[str, Any]) -> Decimal:
        """How much of an execution moved the account's own coins."""
        qty = Decimal(body["qty"])
        return (qty - Decimal(body.get("external_qty", ZERO))) / qty

    def _adopt(self, s: int, order: Order) -> None:
        """An order of ours whose decision was lost with the ledger it was in: its levels are the position's."""
        p = self.position(s)
        self.adopted.add(order.client_order_id)
        if order.purpose == "stop" and order.stop_price is not None:
            p.stop, p.stop_reason = float(order.stop_price), STOP_LOSS
        elif order.purpose == "take" and order.price is not None:
            p.take = float(order.price)

    def _fee_in_quote(self, body: Mapping[str, Any], price: float) -> float:
        """A fee in base: the coins are missing from the lots, and were paid for."""
        if body.get("fee_asset") == body.get("base"):
            return float(Decimal(body.get("fee", ZERO))) * price
        return float(Decimal(body["fee_quote"] if "fee_quote" in body else body.get("fee", ZERO)))

    def _order(self, order: Order) -> None:
        s = self.index.get(order.key)
        if order.venue_order_id:
            self.by_venue[order.key, order.venue_order_id] = order.client_order_id
        if s is None:
            return
        if order.presumed:
            self.presumed[s][order.client_order_id] = order
        elif self.presumed[s].pop(order.client_order_id, None) is not None:
            self.adopted.add(order.client_order_id)
        if order.state not in FINAL_STATES:
            self.working[s][order.client_order_id] = order
            return
        self.working[s].pop(order.client_order_id, None)
        p = self.position(s)
        if s in self.flattening:
            self.stepper.flatten(s)
        elif order.purpose == "entry" and p.target_qty >= p.qty:  # an exit wants what it wanted
            self.stepper.settled(s)


def _lots(held: Decimal, lot: Decimal) -> int:
    return max(int(held // lot), 0)
