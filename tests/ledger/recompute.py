"""What an account should hold, worked out from scratch with fractions after every entry. Shares no code with the fold.

The rules are the ledger's, said another way: cash is what was paid in less what was paid out; a trade runs from flat to flat
and earns what it took in less what it paid; what a provisional fill is worth goes down as the exchange's own fills arrive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any, NamedTuple

PLACES = 10**18
Key = tuple[str, str]


def eighteen_places(number: Fraction) -> Fraction:
    """Rounded as the ledger rounds: Python rounds a fraction's half to even, too."""
    return Fraction(round(number * PLACES), PLACES)


@dataclass
class Execution:
    """A fill as it was told, and how much of it still counts."""

    name: str
    key: Key
    sign: int
    qty: Fraction
    price: Fraction
    fee: Fraction
    fee_asset: str
    kind: str
    fee_quote: Fraction
    provisional: bool
    at: datetime
    left: Fraction
    order: str = ""  # the client id that it is known by
    slot: tuple[int, int] = (0, 0)  # its turn: that of the record it replaced, or its own
    taken: Fraction = Fraction(0)  # of records, in their stead

    @property
    def paid(self) -> Fraction:
        """The fee for what is left, in its own asset."""
        return self.fee if self.left == self.qty else eighteen_places(self.fee * self.left / self.qty)

    def beyond(self, held: Fraction) -> Fraction:
        """The part of the fee that is not taken from what was `held` before."""
        if self.kind == "other":
            return self.paid
        left = held - self.left
        sells = self.kind == "base" and self.sign < 0 and self.left > 0 and held > 0 and left >= 0
        return max(self.paid - left, Fraction(0)) if sells else Fraction(0)

    def change(self, held: Fraction) -> Fraction:
        return self.sign * self.left - (self.paid - self.beyond(held) if self.kind == "base" else 0)

    @property
    def cash(self) -> Fraction:
        return -self.sign * self.left * self.price - (self.paid if self.kind == "quote" else 0)

    @property
    def cost(self) -> Fraction:
        """The fee in quote, from whatever it was taken."""
        if self.kind == "base":
            return self.paid * self.price
        whole = self.fee if self.kind == "quote" else self.fee_quote
        return whole if self.left == self.qty else eighteen_places(whole * self.left / self.qty)


class Round(NamedTuple):
    """From flat to flat."""

    pnl: Fraction
    fees: Fraction
    size: Fraction
    long: bool


class Recomputed:
    """One account. `replacing`: the exchange's fills take back provisional ones, as the journal sees to."""

    def __init__(self, quote: str, replacing: bool) -> None:
        self.quote, self.replacing = quote, replacing
        self.executions: list[Execution] = []
        self.names: set[str] = set()
        self.place: dict[str, int] = {}
        self.ordered: dict[str, tuple[Key, int]] = {}  # what our orders are for
        self.paid_in = self.funding = self.equity = self.peak = Fraction(0)
        self.other: dict[str, Fraction] = {}
        self.prices: dict[Key, Fraction] = {}

    def take(self, name: str, kind: str, at: datetime, body: Mapping[str, Any]) -> None:
        if name in self.names:
            self._told_again(name, kind, body.get("client_order_id", ""))
            return
        self.names.add(name)
        self.place[name] = len(self.names)
        if kind == "intent":
            self.place[f"order {body['client_order_id']}"] = len(self.names)
            self.ordered[body["client_order_id"]] = ("spot", body["symbol"]), 1 if body["side"] == "buy" else -1
        if kind == "fill":
            self._fill(name, at, body)
        elif kind == "attribution":
            self._named(body["fill_id"]).order = body["client_order_id"]
        elif kind == "reversal":
            self._named(body["fill_id"]).left -= Fraction(body["qty"])
        elif kind == "mark":
            self.prices |= {("spot", symbol): Fraction(price) for symbol, price in body["prices"].items()}
        elif kind == "adjustment":
            self._adjust(body)
            return
        if kind == "control" and body["action"] == "resume":
            self.peak = Fraction(0)
            self._mark()
        if kind in ("fill", "reversal", "mark"):
            self._mark()

    def _named(self, name: str) -> Execution:
        return next(e for e in self.executions if e.name == name)

    def may_be_of(self, e: Execution, order: str) -> bool:
        """Whether it is news that an execution is of this order: of none so far, or of one that nobody has heard of."""
        return not e.provisional and e.order not in {*self.ordered, order} and (not e.order or order in self.ordered)

    def _told_again(self, name: str, kind: str, order: str) -> None:
        if kind == "fill" and order and self.may_be_of(self._named(name), order):
            self._named(name).order = order

    def filled(self, order: str) -> Fraction:
        mine = (e for e in self.executions if e.order == order and (e.key, e.sign) == self.ordered[order])
        return sum((e.qty for e in mine), Fraction(0))

    def _fill(self, name: str, at: datetime, body: Mapping[str, Any]) -> None:
        key, sign, asset = ("spot", body["symbol"]), 1 if body["side"] == "buy" else -1, body["fee_asset"]
        kind = "quote" if asset == self.quote else "base" if asset == body["base"] else "other"
        qty, provisional = Fraction(body["qty"]), bool(body.get("provisional"))
        mine = len(self.names)
        execution = Execution(
            name, key, sign, qty, Fraction(body["price"]), Fraction(body["fee"]), asset, kind,
            Fraction(body.get("fee_quote", 0)), provisional, at, qty - Fraction(body.get("external_qty", 0)),
            body.get("client_order_id", ""), (mine, mine),
        )  # fmt: skip
        if self.replacing and not provisional:
            records = [e for e in self.executions if (e.key, e.sign) == (key, sign) and self._is_exit_of(e, at, body)]
            if replaced := self._give(execution, records):
                turn = replaced[0].slot[0]
                before = [o.slot[0] for o in self._entered_after(replaced[0]) if o.at <= at]  # and told after it
                execution.slot = (max(before, default=turn), mine)
        self.executions = sorted([*self.executions, execution], key=lambda e: e.slot)
        if [e for e in self.executions if e.key == key][-1] is execution:
            self.prices[key] = execution.price
        if self.replacing and body.get("may_be_booked"):
            self._mark()  # as it was told first
            begun = self._begun(execution)
            for e in list(self.executions):
                mine = (e.key, e.sign) == (key, sign) and not e.provisional and e.order not in self.ordered
                if mine and begun is not None and begun <= e.at and self._give(e, [execution]):
                    self._mark()

    def _give(self, real: Execution, records: list[Execution]) -> list[Execution]:
        """Let `real` stand for as much of the records as it can; returns those of which it does."""
        out = []
        for record in records:
            qty = min(record.left, real.left - real.taken)
            if qty > 0:
                record.left -= qty
                real.taken += qty
                out.append(record)
        return out

    def _begun(self, last: Execution) -> datetime | None:
        """When the position was entered that was held just before `last`."""
        held, begun = Fraction(0), None
        for e in self.executions:
            if e is last:
                break
            if e.key == last.key and e.left:
                after = held + e.change(held)
                if after * held <= 0:
                    begun = e.at if after else None
                held = after
        return begun

    def _entered_after(self, e: Execution) -> list[Execution]:
        """What was bought (of a long one) and comes after a record."""
        return [
            o for o in self.executions
            if (o.key, o.sign) == (e.key, -e.sign) and not o.provisional and o.slot[0] > e.slot[0]
        ]  # fmt: skip

    def _is_exit_of(self, e: Execution, at: datetime, body: Mapping[str, Any]) -> bool:
        """Whether a fill at `at` can be what `e` records: of that position, not of a later one or a later order."""
        later = [o.at for o in self._entered_after(e) if o.at > e.at]
        begun, again = self._begun(e) or at, min(later, default=None)
        ordered = self.place.get(f"order {body.get('client_order_id')}", 0)
        in_time = begun <= at <= e.at + timedelta(hours=1) and (again is None or at < again)
        return e.provisional and e.left > 0 and in_time and ordered < self.place[e.name]

    def _adjust(self, body: Mapping[str, Any]) -> None:
        amount, before = Fraction(body["amount"]), self.equity
        if body["asset"] != self.quote or body["type"] == "external":
            self.other[body["asset"]] = self.other.get(body["asset"], Fraction(0)) + amount
            return
        if body["type"] == "funding":
            self.funding += amount
            self._mark()
            return
        self.paid_in += amount
        after = before + amount
        # The same share below the peak as before.
        self.peak = eighteen_places(self.peak * after / before) if before > 0 and after > 0 else max(after, Fraction(0))
        self._mark()

    def _mark(self) -> None:
        self.equity = self.cash() + sum(self.qty(key) * price for key, price in self.prices.items())
        self.peak = max(self.peak, self.equity)

    def cash(self) -> Fraction:
        return self.paid_in + self.funding + sum((e.cash for e in self.executions if e.left), Fraction(0))

    def qty(self, key: Key) -> Fraction:
        held = Fraction(0)
        for e in self.executions:
            held += e.change(held) if e.key == key and e.left else 0
        return held

    def assets(self) -> dict[str, Fraction]:
        out = dict(self.other)
        for e, held in self.turns():
            if beyond := e.beyond(held):
                out[e.fee_asset] = out.get(e.fee_asset, Fraction(0)) - beyond
        return out

    def apart(self) -> Fraction:
        """What fees cost that were paid with other coins than those of positions."""
        return sum((e.cost if e.kind == "other" else e.beyond(held) * e.price for e, held in self.turns()), Fraction(0))

    def turns(self) -> Iterator[tuple[Execution, Fraction]]:
        """Each execution that counts, and what was held of its symbol before."""
        held: dict[Key, Fraction] = {}
        for e in (e for e in self.executions if e.left):
            before = held.get(e.key, Fraction(0))
            yield e, before
            held[e.key] = before + e.change(before)

    def rounds(self, key: Key) -> Iterator[Round]:
        held = earned = fees = size = Fraction(0)
        for e in self.executions:
            change = whole = e.change(held) if e.key == key and e.left else Fraction(0)
            while change:
                through = held * change < 0 and abs(change) > abs(held)
                part = -held if through else change
                cost = e.cost if part == whole else e.cost * part / whole
                size += abs(part) if held * part >= 0 else 0
                held, earned, fees, change = held + part, earned - part * e.price, fees + cost, change - part
                if not held:
                    yield Round(earned - fees, fees, size, part < 0)
                    earned = fees = size = Fraction(0)
