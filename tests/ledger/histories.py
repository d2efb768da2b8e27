"""Random histories of an account: everything that can happen to it, in every order that is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from random import Random
from typing import Any

from atb.ledger.entries import Entry, fill_id
from tests.ledger.recompute import Recomputed

QUOTE = "USDT"
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
SYMBOLS = {"BTCUSDT": "BTC", "PEPEUSDT": "PEPE", "XYZUSDT": "XYZ"}
KINDS = {
    "fill": 40, "close": 8, "through": 4, "provisional": 6, "reversal": 4, "deposit": 4, "withdrawal": 2, "correction": 2,
    "funding": 1, "conversion": 2, "external": 2, "by_hand": 2, "mark": 10, "level": 6, "intent": 6, "order": 5, "decision": 3,
    "control": 2, "session": 2, "whose": 6,
}  # fmt: skip


class Histories:
    """Entries one after the other, with the recomputed account beside them. `sessions` are numbers to open sessions with.

    again: some fills are told once more, under their ids; else what that comes to is an entry with an id of its own.
    set_back: now and then the clock goes back, by up to days.
    """

    def __init__(
        self, seed: int, *, replacing: bool, sessions: Iterator[int] | None = None, again: bool = False,
        set_back: bool = False,
    ) -> None:  # fmt: skip
        self.random = Random(seed)
        self.account = Recomputed(QUOTE, replacing)
        self.at = BEGIN
        self.set_back = set_back
        self.sessions = sessions or iter(range(1, 1_000_000))
        self.session: int | None = None
        self.opened: list[int] = []
        self.orders: dict[str, dict[str, Any]] = {}
        self.to_come: dict[str, tuple[str, str]] = {}  # orders that fills name, and that are told of later
        self.again, self.told = again, list[tuple[str, dict[str, Any]]]()
        self.halted = False
        self.count = 0
        self.scales = {s: (self.random.randint(-8, 8), self.random.randint(-6, 6)) for s in SYMBOLS}

    def take(self, count: int) -> list[Entry]:
        """The next entries."""
        out: list[Entry] = []
        while len(out) < count:
            kind = self.random.choices(list(KINDS), list(KINDS.values()))[0]
            made = getattr(self, f"_{kind}")(self.random.choice(list(SYMBOLS)))
            if made is not None:
                entry = self._entry(*made)
                self.account.take(entry.id, entry.kind, entry.at, entry.body)
                out.append(entry)
        return out

    def _entry(self, name: str, kind: str, body: dict[str, Any]) -> Entry:
        self.at += timedelta(microseconds=self.random.choice((0, 1, 61_000_000, 900_000_000, 7_300_000_000)))
        if self.set_back and self.random.random() < 0.15:
            self.at -= timedelta(microseconds=self.random.choice((1, 2_000_000, 3_600_000_000, 200_000_000_000)))
        session = None if kind == "session" or self.random.random() < 0.3 else self.session
        return Entry(name, kind, self.at, body, session)

    def _number(self) -> int:
        self.count += 1
        return self.count

    def _amount(self, exponent: int, digits: int = 6) -> Decimal:
        return Decimal(self.random.randint(1, 10 ** self.random.randint(1, digits))).scaleb(exponent - digits // 2)

    def _held(self, symbol: str) -> Decimal:
        return decimal(self.account.qty(("spot", symbol)))

    def _traded(
        self, symbol: str, side: str, qty: Decimal, provisional: bool = False
    ) -> tuple[str, str, dict[str, Any]]:
        price = self._amount(self.scales[symbol][0])
        kind = self.random.choice(("quote", "quote", "base", "other"))
        fee = (
            {"quote": qty * price, "base": qty, "other": Decimal(1)}[kind]
            * Decimal(self.random.randint(-1, 20))
            / 10_000
        )
        body = {
            "symbol": symbol, "base": SYMBOLS[symbol], "side": side, "qty": qty, "price": price,
            "fee": fee.quantize(Decimal("1e-14"), context=Context(prec=60)),
            "fee_asset": {"quote": QUOTE, "base": SYMBOLS[symbol], "other": "BNB"}[kind],
            "venue_trade_id": str(self._number()), "reason": self.random.choice(("signal", "stop", "")),
        }  # fmt: skip
        if kind == "other":
            body["fee_quote"] = self._amount(-1)
        mine = [name for name, o in self.orders.items() if (o["symbol"], o["side"]) == (symbol, side)]
        if mine and not provisional and self.random.random() < 0.7:
            body["client_order_id"] = self.random.choice(mine)
        elif not provisional and self.random.random() < 0.15:
            body["client_order_id"] = self._unheard_of(symbol, side)
        name = fill_id(symbol, side, str(body["venue_trade_id"]))
        if provisional:
            body |= {"provisional": True, "evidence": "seen on the screen", "may_be_booked": self.random.random() < 0.5}
        else:
            self.told.append((name, body))
        return name, "fill", body

    def _unheard_of(self, symbol: str, side: str) -> str:
        """The name of an order that may be told of later, of another side at times."""
        name = f"atb-{self._number()}"
        self.to_come[name] = symbol, side if self.random.random() < 0.8 else "sell"
        return name

    def _whose(self, symbol: str) -> tuple[str, str, dict[str, Any]] | None:
        """A fill is told once more, with its order: one that is there, or is not."""
        if not self.told:
            return None
        name, body = self.random.choice(self.told[-20:])
        names = [n for n, o in self.orders.items() if (o["symbol"], o["side"]) == (body["symbol"], body["side"])]
        order = self.random.choice([*names, self._unheard_of(body["symbol"], body["side"])])
        if self.again:
            return name, "fill", body | {"client_order_id": order, "evidence": "told by the exchange"}
        execution = next(e for e in self.account.executions if e.name == name)
        if not self.account.may_be_of(execution, order):
            return None
        return f"w:{self._number()}", "attribution", {"fill_id": name, "client_order_id": order, "evidence": "test"}

    def _fill(self, symbol: str) -> tuple[str, str, dict[str, Any]]:
        side = "buy" if self._held(symbol) <= 0 or self.random.random() < 0.4 else "sell"
        held = abs(self._held(symbol))
        qty = self._amount(self.scales[symbol][1])
        if side == "sell" and self.random.random() < 0.7:
            qty = min(qty, held)
        return self._traded(symbol, side, qty)

    def _close(self, symbol: str, factor: int = 1, provisional: bool = False) -> tuple[str, str, dict[str, Any]] | None:
        held = self._held(symbol)
        if held == 0:
            return None
        with localcontext(prec=60):
            return self._traded(symbol, "sell" if held > 0 else "buy", abs(held) * factor, provisional)

    def _through(self, symbol: str) -> tuple[str, str, dict[str, Any]] | None:
        return self._close(symbol, self.random.randint(2, 3))

    def _provisional(self, symbol: str) -> tuple[str, str, dict[str, Any]] | None:
        """All of it, or as much as a fill took before it: a record that comes after what it tells of."""
        made = self._close(symbol, 1, provisional=True)
        sold = [e.qty for e in self.account.executions if made and e.key[1] == symbol and not e.provisional]
        if made and sold and self.random.random() < 0.5:
            made[2]["qty"] = min(made[2]["qty"], decimal(sold[-1]))
        return made

    def _reversal(self, symbol: str) -> tuple[str, str, dict[str, Any]] | None:
        left = [e for e in self.account.executions if e.provisional and e.left and e.key[1] == symbol]
        if not left:
            return None
        execution = self.random.choice(left)
        share = self.random.choice((Fraction(1), Fraction(1, 2), Fraction(1, 5)))
        qty = decimal(execution.left * share)
        if qty.as_tuple().exponent < -24:  # type: ignore[operator]
            qty = decimal(execution.left)
        return f"r:{self._number()}", "reversal", {"fill_id": execution.name, "qty": qty, "reason": "by hand"}

    def _adjust(self, kind: str, asset: str, amount: Decimal) -> tuple[str, str, dict[str, Any]]:
        body = {"type": kind, "asset": asset, "amount": amount, "reason": "test", "evidence": "none"}
        return f"a:{self._number()}", "adjustment", body

    def _deposit(self, symbol: str) -> tuple[str, str, dict[str, Any]]:
        return self._adjust("deposit", QUOTE, self._amount(3))

    def _withdrawal(self, symbol: str) -> tuple[str, str, dict[str, Any]]:
        return self._adjust("withdrawal", QUOTE, -self._amount(2))

    def _correction(self, symbol: str) -> tuple[str, str, dict[str, Any]]:
        asset = self.random.choice((QUOTE, "BNB", SYMBOLS[symbol]))
        return self._adjust("correction", asset, self.random.choice((-1, 1)) * self._amount(0))

    def _funding(self, symbol: str) -> tuple[str, str, dict[str, Any]]:
        return self._adjust("funding", QUOTE, self.random.choice((-1, 1)) * self._amount(0))

    def _conversion(self, symbol: str) -> tuple[str, str, dict[str, Any]]:
        return self._adjust("conversion", "BNB", self._amount(0))

    def _external(self, symbol: str) -> tuple[str, str, dict[str, Any]]:
        asset = self.random.choice((QUOTE, "BNB", SYMBOLS[symbol]))
        return self._adjust("external", asset, self.random.choice((-1, 1)) * self._amount(0))

    def _by_hand(self, symbol: str) -> tuple[str, str, dict[str, Any]]:
        """A trade of the account's owner: a part of it, or all, moves coins that are not the account's."""
        name, kind, body = self._traded(
            symbol, self.random.choice(("buy", "sell")), self._amount(self.scales[symbol][1])
        )
        body.pop("client_order_id", None)
        share = self.random.choice((Decimal(1), Decimal("0.5"), Decimal("0.2"), Decimal(0)))
        return name, kind, body | {"external_qty": body["qty"] * share}

    def _mark(self, symbol: str) -> tuple[str, str, dict[str, Any]]:
        symbols = self.random.sample(list(SYMBOLS), self.random.randint(0, 2))
        prices = {s: self._amount(self.scales[s][0]) for s in symbols}
        return f"m:{self._number()}", "mark", {"prices": prices, "why": "close"}

    def _level(self, symbol: str) -> tuple[str, str, dict[str, Any]] | None:
        if not self._held(symbol):
            return None
        stop, take = (self.random.choice((None, self._amount(self.scales[symbol][0]))) for _ in range(2))
        return f"l:{self._number()}", "level", {"symbol": symbol, "stop": stop, "take": take}

    def _intent(self, symbol: str) -> tuple[str, str, dict[str, Any]]:
        name, side = f"atb-{self._number()}", self.random.choice(("buy", "sell"))
        if self.to_come and self.random.random() < 0.5:
            name = self.random.choice(list(self.to_come))
            symbol, side = self.to_come.pop(name)
        body = {
            "client_order_id": name, "symbol": symbol, "side": side, "type": "market",
            "qty": self._amount(self.scales[symbol][1]), "price": self.random.choice((None, self._amount(0))),
            "purpose": "exit" if self.halted else "entry",
        }  # fmt: skip
        self.orders[name] = body
        return f"i:{name}", "intent", body

    def _order(self, symbol: str) -> tuple[str, str, dict[str, Any]] | None:
        if not self.orders:
            return None
        state = self.random.choice(("open", "unknown", "cancelled", "rejected", "expired", "partially_filled"))
        body = {"client_order_id": self.random.choice(list(self.orders)), "state": state, "venue_order_id": "77"}
        return f"o:{self._number()}", "order", body

    def _decision(self, symbol: str) -> tuple[str, str, dict[str, Any]]:
        body = {
            "symbol": symbol, "timeframe": "1h", "open_time": self.at, "signal": self.random.choice((None, 0.1, -1.0, 1)),
            "reason": "below_confidence", "stop": self.random.choice((None, self._amount(0))),
        }  # fmt: skip
        return f"d:{self._number()}", "decision", body

    def _control(self, symbol: str) -> tuple[str, str, dict[str, Any]]:
        action = self.random.choice(("halt", "resume", "fence", "flatten"))
        self.halted = action == "halt" if action in ("halt", "resume") else self.halted
        return f"c:{self._number()}", "control", {"action": action, "reason": "test", "by": "hand"}

    def _session(self, symbol: str) -> tuple[str, str, dict[str, Any]]:
        if self.session is not None and self.random.random() < 0.5:
            number, self.session = self.session, None
            body: dict[str, Any] = {"action": "close", "session_id": number, "status": "STOPPED"}
            return f"s:{self._number()}", "session", body
        self.session = next(self.sessions)
        self.opened.append(self.session)
        body = {"action": "open", "session_id": self.session, "strategy": "sma_cross", "mode": "paper"}
        return f"s:{self._number()}", "session", body


def decimal(number: Fraction) -> Decimal:
    """A fraction that has a finite decimal form, as that."""
    with localcontext(prec=200):
        exact = Decimal(number.numerator) / number.denominator
    assert Fraction(exact) == number
    return exact
