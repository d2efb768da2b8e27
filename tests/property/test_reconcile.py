"""The diff of ledger and exchange: identical sides give no line, each cause its own, and what was booked is gone."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atb.core.order_id import client_order_id
from atb.core.orders import Balance, SeenFill, SeenOrder, SeenTransfer
from atb.core.types import MarketRules, Symbol
from atb.execution.external import Cause, by_hand, cash, coins, first_entries, owed
from atb.execution.reconcile import BOOK, LEAVE, NOTHING, REFUSE, Snapshot, Verdict, diff, expected, explaining
from atb.execution.traded import Traded
from atb.ledger.entries import Entry, encode
from atb.ledger.fold import Account
from tests.ledger.histories import BEGIN

VENUE, IDENTITY, QUOTE = "binance", "binance:spot:real:k1", "USDT"
BTC, ETH = Symbol("BTCUSDT", "BTC", QUOTE), Symbol("ETHUSDT", "ETH", QUOTE)
RULES = {
    s: MarketRules(s.id, Decimal("0.00001"), Decimal("0.01"), Decimal(5), "test", "2024-01-01") for s in (BTC, ETH)
}
TRADED = [Traded(symbol, rules) for symbol, rules in RULES.items()]
AMOUNTS = st.integers(1, 10**9).map(lambda n: Decimal(n).scaleb(-5))
LATER = BEGIN + timedelta(hours=1)


class Sides:
    """The books of an account, and what is at its exchange."""

    def __init__(self, usdt: str = "10000", limit: str | None = None, **more: str) -> None:
        self.books, self.seq = Account(QUOTE), 0
        self.there: dict[str, Decimal] = {"USDT": Decimal(usdt), **{k: Decimal(v) for k, v in more.items()}}
        self.orders: list[SeenOrder] = []
        self.told: list[SeenTransfer] | None = []
        self.take(first_entries(self.balances, QUOTE, None if limit is None else Decimal(limit), BEGIN))

    @property
    def balances(self) -> dict[str, Balance]:
        return {asset: Balance(asset, total, Decimal(0)) for asset, total in self.there.items()}

    def take(self, entries: list[Entry]) -> None:
        for entry in entries:
            self.seq += 1
            self.books.apply(self.seq, entry)

    def move(self, asset: str, amount: Decimal) -> None:
        self.there[asset] = self.there.get(asset, Decimal(0)) + amount

    def trade(
        self, symbol: Symbol, side: str, qty: str, price: str, own: bool, resting: str = "0", **more: Any
    ) -> None:
        """At the exchange, and then in the books: by the account or by its owner."""
        number = str(self.seq + 1)
        fee, asset = Decimal(more.get("fee", 0)), more.get("fee_asset", symbol.quote)
        fill = SeenFill(number, number, symbol, side, Decimal(qty), Decimal(price), fee, asset, Decimal(1), LATER)
        sign = 1 if side == "buy" else -1
        for name, amount in (
            (symbol.base, sign * fill.qty),
            (symbol.quote, -sign * fill.qty * fill.price),
            (asset, -fee),
        ):
            self.move(name, amount)
        (entry, *rest) = by_hand(self.books, fill, Decimal(resting))
        if own:
            body = {name: value for name, value in entry.body.items() if name != "external_qty"}
            entry, rest = entry._replace(body=body), []
        self.take([entry, *rest])

    def transfer(
        self, kind: str, asset: str, amount: str | Decimal, at: datetime = LATER, told: bool = True
    ) -> SeenTransfer:
        self.move(asset, Decimal(amount))
        transfer = SeenTransfer(str(len(self.told or ()) + 1), kind, asset, Decimal(amount), at)
        if told and self.told is not None:
            self.told.append(transfer)
        return transfer

    def look(self, since: datetime | None = BEGIN) -> Verdict:
        told = None if self.told is None else [t for t in self.told if f"transfer:{t.name}" not in self.books.adjusted]
        return diff(self.books, VENUE, TRADED, IDENTITY, Snapshot(self.balances, self.orders, told, since))

    def book(self, verdict: Verdict, actions: tuple[str, ...] = (BOOK,)) -> None:
        for line in (line for line in verdict.lines if line.action in actions):
            name = f"transfer:{line.transfer.name}" if line.transfer else f"correction:{self.seq}"
            kind = "correction" if line.action == REFUSE else ""
            cause = Cause(name, LATER, line.explanation, "test", kind)
            if line.subject == QUOTE:
                self.take(cash(self.books, line.difference, cause))
            elif line.symbol is not None:
                self.take(coins(self.books, line.symbol, line.difference, cause))
            else:
                self.take([cause.adjustment(line.subject, line.difference)])

    @property
    def lines(self) -> list[tuple[str, str, str]]:
        return [(line.subject, f"{line.difference.normalize():f}", line.action) for line in self.look().lines]


def busy(**more: str) -> Sides:
    """With a position of 0.1 BTC beside external coins."""
    sides = Sides(BTC="1", BNB="2", **more)
    sides.trade(BTC, "buy", "0.1", "40000", own=True, fee="0.01", fee_asset="BNB")
    return sides


def test_identical_sides_have_no_line() -> None:
    sides = busy()
    assert sides.lines == []
    assert expected(sides.books, VENUE)["BTC"] == Decimal("1.1")
    assert sides.books.equity == Decimal(10_000)  # without the external coin
    assert sides.look().equal


@pytest.mark.parametrize("taken", ["0.04", "0.1", "0.25"])
@pytest.mark.parametrize("his", ["0", "0.03"])
def test_coins_that_went_before_their_purchase_was_told_are_the_position_s(taken: str, his: str) -> None:
    """Whichever is told first, the position is what is left of it, and the owner has none that are not there."""
    first, second = (Sides(BTC=his), Sides(BTC=his)) if his != "0" else (Sides(), Sides())
    for sides in (first, second):
        sides.there["BTC"] = Decimal(his) + Decimal("0.1")  # bought by then
        sides.there["USDT"] -= Decimal("0.1") * 40_000
    for sides, told_first in ((first, True), (second, False)):
        left = min(Decimal(taken), sides.there["BTC"])
        body = {
            "symbol": "BTCUSDT", "market": "spot", "base": "BTC", "side": "buy", "qty": Decimal("0.1"), "fee": Decimal(0),
            "price": Decimal(40_000), "fee_asset": "USDT", "reason": "entry", "venue_trade_id": "1", "client_order_id": "",
            "evidence": "test",
        }  # fmt: skip
        bought = Entry("fill:1", "fill", LATER, body)
        if told_first:
            sides.take([bought])
        sides.transfer("withdrawal", "BTC", -left)
        cause = Cause("transfer:w", LATER, "withdrawal", "test")
        sides.take(coins(sides.books, BTC, -left, cause))
        if not told_first:
            sides.take([bought])
            before = sides.books.equity
            sides.take(owed(sides.books, BTC, "owed:1", LATER))
            assert sides.books.equity <= before
        assert owed(sides.books, BTC, "owed:2", LATER) == []
    for sides in (first, second):
        assert sides.books.assets.get("BTC", Decimal(0)) >= 0
        assert expected(sides.books, VENUE).get("BTC", Decimal(0)) == sides.there["BTC"]
    key = ("spot", "BTCUSDT")
    held = [sides.books.positions[key].qty if key in sides.books.positions else Decimal(0) for sides in (first, second)]
    assert held[0] == held[1] == min(Decimal("0.1"), max(Decimal("0.1") + Decimal(his) - Decimal(taken), Decimal(0)))
    assert first.books.equity == second.books.equity and first.books.cash == second.books.cash


@pytest.mark.parametrize("beyond", ["0.02", "0.1"])
@pytest.mark.parametrize("limit", [None, "9000"])
def test_the_owner_s_coins_that_a_sale_of_ours_sold_stand_in_for_those_he_had_sold(
    beyond: str, limit: str | None
) -> None:
    """He sold by hand what was booked as the position's, and ours, which was told later, sold as much of what was his."""
    sides = Sides(BTC="0.1", limit=limit)
    sides.trade(BTC, "buy", "0.1", "40000", own=True)
    sides.trade(BTC, "sell", beyond, "41000", own=False)
    sides.trade(BTC, "sell", "0.1", "42000", own=True)
    assert sides.books.positions["spot", "BTCUSDT"].qty == -Decimal(beyond)
    paid_in = sides.books.paid_in
    assert expected(sides.books, VENUE)["BTC"] == sides.there["BTC"]
    profit = sides.books.equity - sides.books.paid_in
    sides.take(owed(sides.books, BTC, "owed:1", LATER))
    assert ("spot", "BTCUSDT") not in sides.books.positions
    assert sides.books.assets["BTC"] == sides.there["BTC"] == Decimal("0.1") - Decimal(beyond)
    assert sides.lines == [] and owed(sides.books, BTC, "owed:2", LATER) == []
    assert sides.books.equity - sides.books.paid_in == profit
    came = Decimal(beyond) * 42_000  # what his coins were sold for: his, where some of the quote is
    assert sides.books.paid_in - paid_in == (0 if limit else came)
    assert sides.books.assets.get(QUOTE, Decimal(0)) == sides.there[QUOTE] - sides.books.cash


TRADES = st.tuples(
    st.sampled_from([BTC, ETH, Symbol("DOGEUSDT", "DOGE", "USDT"), Symbol("USDTTRY", "USDT", "TRY")]),
    st.sampled_from(["buy", "sell"]), AMOUNTS, AMOUNTS, st.sampled_from(["quote", "received", "BNB"]),
    st.sampled_from(["0", "0.05", "7000"]),
)  # fmt: skip


@given(st.lists(TRADES, max_size=12), st.booleans())
@settings(max_examples=150)
def test_what_is_traded_by_hand_is_in_the_books_and_no_position_goes_below_nothing(
    trades: list[tuple[Symbol, str, Decimal, Decimal, str, str]], limited: bool
) -> None:
    sides = busy(limit="5000") if limited else busy()
    for symbol, side, qty, price, fee_in, resting in trades:
        received = symbol.base if side == "buy" else symbol.quote
        fee_asset = {"received": received, "quote": symbol.quote, "BNB": "BNB"}[fee_in]
        sides.trade(
            symbol, side, str(qty), str(price), own=False, resting=resting, fee=str(qty / 1000), fee_asset=fee_asset
        )
        assert sides.lines == []
        assert {key[1] for key in sides.books.positions} <= {"BTCUSDT"}
        held = [position.qty for position in sides.books.positions.values()]
        assert all(0 < qty <= Decimal("0.1") for qty in held)


CAUSES = st.lists(
    st.tuples(st.sampled_from(["USDT", "BTC", "ETH", "DOGE"]), st.integers(-(10**7), 10**7).filter(bool)),
    min_size=1,
    max_size=6,
)


@given(CAUSES, st.booleans(), st.booleans())
@settings(max_examples=150)
def test_each_transfer_is_a_line_and_booking_it_makes_the_next_diff_empty(
    causes: list[tuple[str, int]], limited: bool, shuffled: bool
) -> None:
    sides = busy(limit="5000") if limited else busy()
    begin = expected(sides.books, VENUE)
    for i, (asset, lots) in enumerate(causes):
        amount = Decimal(lots).scaleb(-4)
        at = LATER + timedelta(minutes=-i if shuffled else i)
        sides.transfer("deposit" if amount > 0 else "withdrawal", asset, amount, at)
    verdict = sides.look()
    assert sorted((line.subject, line.difference) for line in verdict.lines) == sorted(
        (asset, Decimal(lots).scaleb(-4)) for asset, lots in causes
    )
    assert {line.action for line in verdict.lines} == {BOOK}
    sides.book(verdict)
    assert sides.look().lines == ()
    moved = {a: sum((Decimal(n).scaleb(-4) for b, n in causes if b == a), Decimal(0)) for a, _ in causes}
    assert {a: expected(sides.books, VENUE)[a] - begin.get(a, Decimal(0)) for a in moved} == moved


@given(st.integers(-(10**8), 10**8), st.integers(-(10**8), 10**8), st.booleans())
@settings(max_examples=100)
def test_what_nothing_explains_is_refused_and_once_accepted_gone(usdt: int, btc: int, limited: bool) -> None:
    sides = busy(limit="5000") if limited else busy()
    moved = {"USDT": Decimal(usdt).scaleb(-4), "BTC": Decimal(btc).scaleb(-7)}
    for asset, amount in moved.items():
        sides.move(asset, amount)
    least = {"USDT": Decimal("0.05"), "BTC": Decimal("0.00001")}
    should = {a: REFUSE if abs(n) >= least[a] else NOTHING for a, n in moved.items() if n}
    verdict = sides.look()
    assert {line.subject: line.action for line in verdict.lines} == should
    assert verdict.equal == (REFUSE not in should.values())
    sides.book(verdict, (REFUSE,))
    assert sides.look().unexplained == []
    assert all(position.qty > 0 for position in sides.books.positions.values())
    assert sides.books.cash + sides.books.assets.get("USDT", Decimal(0)) == sides.there["USDT"] - (
        moved["USDT"] if should.get("USDT") == NOTHING else 0
    )


def test_a_deposit_beside_something_that_nothing_explains() -> None:
    sides = busy()
    sides.transfer("deposit", "USDT", "100")
    sides.move("USDT", Decimal(37))
    assert sides.lines == [("USDT", "100", BOOK), ("USDT", "37", REFUSE)]


def test_what_is_told_before_it_is_there_and_what_was_there_before() -> None:
    sides = busy()
    old = SeenTransfer("old", "deposit", "USDT", Decimal(50), BEGIN - timedelta(hours=3))
    coming = SeenTransfer("new", "deposit", "USDT", Decimal(70), LATER)
    sides.told = [old, coming]
    assert sides.lines == []  # neither is in the difference
    sides.move("USDT", Decimal(70))
    assert [line.transfer for line in sides.look().lines] == [coming]
    assert explaining(Decimal(50), [old, old._replace(id="again", at=LATER)], BEGIN)[0].id == "again"
    # Where something else differs, too, those count that are later than the last agreement by more than clocks may differ.
    later = [old._replace(id=str(k), at=LATER + timedelta(seconds=k)) for k in range(-3, 4)]
    assert [leg.id for leg in explaining(Decimal(7), later, LATER)] == ["3"]
    # What exchanges round away does not hide which of them it was.
    (first, *_) = later
    others = [leg._replace(amount=leg.amount + 1 + k) for k, leg in enumerate(later[1:])]
    rounded_away = first.amount - Decimal("3e-22")
    assert explaining(rounded_away, [first, *others], LATER, Decimal("0.05")) == [first]
    assert explaining(rounded_away, [first, *others], LATER) == [others[-1]]


def test_a_withdrawal_of_coins_of_the_position_closes_it_so_far_without_profit() -> None:
    sides = busy()
    sides.transfer("withdrawal", "BTC", "-1.04")
    sides.book(sides.look())
    assert sides.lines == []
    assert sides.books.positions["spot", "BTCUSDT"].qty == Decimal("0.06")
    assert sides.books.assets["BTC"] == sides.books.realized == 0
    assert (sides.books.cash, sides.books.equity) == (Decimal(6000), Decimal(8400))  # 0.04 at 40,000 was taken out
    assert sides.books.peak == Decimal(8400)  # the drawdown stays what it was


def test_money_that_was_set_aside_stays_aside() -> None:
    sides = Sides("10000", limit="1000")
    assert [sides.books.cash, sides.books.assets["USDT"]] == list(map(Decimal, (1000, 9000)))
    sides.transfer("deposit", "USDT", "500")
    sides.book(sides.look())
    assert [sides.books.cash, sides.books.assets["USDT"]] == list(map(Decimal, (1000, 9500)))
    sides.transfer("withdrawal", "USDT", "-9600")
    sides.book(sides.look())
    assert [sides.books.cash, sides.books.assets["USDT"]] == list(map(Decimal, (900, 0)))
    assert sides.lines == []


@pytest.mark.parametrize(("resting", "left"), [("0", "0"), ("0.06", "0.06"), ("0.1", "0.1")])
def test_a_sale_by_hand_is_of_the_position_unless_an_order_of_ours_has_the_coins(resting: str, left: str) -> None:
    sides = busy()
    sides.trade(BTC, "sell", "0.5", "42000", own=False, resting=resting)
    position = sides.books.positions.get(("spot", "BTCUSDT"))
    assert (position.qty if position else 0) == Decimal(left)
    assert sides.lines == []


def seen(name: str, side: str = "sell", qty: str = "0.1", symbol: Symbol = BTC) -> SeenOrder:
    return SeenOrder(
        name, "1", symbol, side, "limit", Decimal(qty), Decimal(50_000), None, "open", LATER, LATER, Decimal(0)
    )


def test_orders_of_others_are_left_alone_and_one_of_ours_that_is_not_known_is_refused() -> None:
    sides = busy()
    other = client_order_id("binance:spot:real:k2", BTC.id, 0, "stop")
    mine = client_order_id(IDENTITY, BTC.id, 0, "stop")
    sides.orders = [seen("web_1"), seen(other), seen("")]
    assert [(line.subject, line.action) for line in sides.look().lines] == [
        ("BTCUSDT web_1", LEAVE), (f"BTCUSDT {other}", LEAVE), ("BTCUSDT 1", LEAVE),
    ]  # fmt: skip
    assert sides.look().equal
    sides.orders = [seen(mine)]
    assert [line.action for line in sides.look().lines] == [REFUSE]
    assert "never heard" in sides.look().refusal("atb x").what


def test_that_others_lock_the_coins_is_said_when_they_are_the_accounts() -> None:
    sides = busy()
    balances = {**sides.balances, "BTC": Balance("BTC", Decimal("0.05"), Decimal("1.05"))}
    (line,) = diff(sides.books, VENUE, TRADED, IDENTITY, Snapshot(balances)).lines
    assert (line.subject, line.difference, line.action) == ("BTC", Decimal("0.05"), LEAVE)
    enough = {**sides.balances, "BTC": Balance("BTC", Decimal("0.1"), Decimal(1))}
    assert diff(sides.books, VENUE, TRADED, IDENTITY, Snapshot(enough)).lines == ()


def test_what_an_order_of_ours_may_have_bought_is_nobody_elses() -> None:
    """The first of a symbol: its coins may be there before its execution is told."""
    sides, name = Sides(), client_order_id(IDENTITY, BTC.id, 0, "entry")
    body = {
        "client_order_id": name, "symbol": BTC.id, "market": BTC.market, "side": "buy", "type": "market",
        "qty": Decimal("0.1"), "price": None, "stop_price": None, "purpose": "entry",
    }  # fmt: skip
    sides.take([Entry(f"intent:{name}", "intent", LATER, body)])
    sides.move("BTC", Decimal("0.1"))
    assert [line.action for line in sides.look().lines] == [REFUSE]
    sides.take([Entry("end", "order", LATER, {"client_order_id": name, "state": "denied", "reason": ""})])
    assert [line.action for line in sides.look().lines] == [BOOK]


def test_what_coins_that_were_taken_away_are_worth_has_no_more_digits_than_a_ledger_keeps() -> None:
    sides = Sides()
    sides.trade(BTC, "buy", "0.12345678", "40.0123456789012345678", own=True)
    entries = coins(sides.books, BTC, Decimal("-0.00000001"), Cause("a", LATER, "taken", "test"))
    for entry in entries:
        encode(entry.body)
    sides.take(entries)
    assert sides.books.positions["spot", BTC.id].qty == Decimal("0.12345677")


def test_a_symbol_that_was_never_traded_has_no_secrets() -> None:
    sides = busy()
    sides.move("ETH", Decimal(3))
    assert [(line.subject, line.action) for line in sides.look().lines] == [("ETH", BOOK)]
    sides.move("DOGE", Decimal(3))
    assert len(sides.look().lines) == 1


def test_a_record_by_hand_that_no_execution_followed_is_named() -> None:
    sides = busy()
    body = {"symbol": "BTCUSDT", "base": "BTC", "side": "sell", "qty": Decimal("0.1"), "price": Decimal(41_000),
            "venue_trade_id": "hand-1", "provisional": True}  # fmt: skip
    sides.take([Entry("hand", "fill", LATER, body)])
    told = [line.explanation for line in sides.look().unexplained]
    assert len(told) == 2 and all("recorded by hand (sell 0.1 BTCUSDT at 41000)" in text for text in told)
    sides.told = None
    assert not sides.look().equal
