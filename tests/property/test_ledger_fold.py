"""The ledger's fold against a recomputation with fractions, over random histories of every kind of entry."""

from __future__ import annotations

import json
import pickle
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atb.ledger.entries import Entry, encode
from atb.ledger.fold import Account
from atb.ledger.records import Trade
from tests.ledger.histories import BEGIN, QUOTE, Histories
from tests.ledger.recompute import Recomputed

TINY = Fraction(1, 10**15)
SEEDS = st.integers(0, 2**32)


def numbered(entries: list[Entry]) -> list[tuple[int, Entry]]:
    return list(enumerate(entries, 1))


def trades_of(entries: list[Entry]) -> list[Trade]:
    """All trades after the last entry: a reversal tells those of its symbol anew."""
    account, out = Account(QUOTE), list[Trade]()
    for seq, entry in numbered(entries):
        touched = account.apply(seq, entry)
        out = [trade for trade in out if trade.position.key not in touched.refolded] + touched.trades
    return out


def check_against(account: Account, should: Recomputed) -> None:
    """Everything that the recomputation knows. Money exactly; only what a quotient gave to 1e-15."""
    assert Fraction(account.cash) == should.cash()
    assert Fraction(account.paid_in) == should.paid_in
    assert Fraction(account.equity) == should.equity
    assert Fraction(account.peak) == should.peak
    assert {k: Fraction(q) for k, q in account.assets.items() if q} == {k: q for k, q in should.assets().items() if q}
    assert {key: Fraction(price) for key, price in account.prices.items()} == should.prices
    for key in should.prices:
        held = account.positions.get(key)
        assert (Fraction(held.qty) if held else 0) == should.qty(key)
        assert held is None or held.qty != 0
    assert {name: Fraction(order.filled_qty) for name, order in account.orders.items()} == {
        name: should.filled(name) for name in should.ordered
    }
    assert all((o.state == "filled") == (o.filled_qty >= o.qty) for o in account.orders.values())
    left = [e for e in should.executions if e.left]
    assert Fraction(account.fees) == sum((e.cost for e in left), Fraction(0))
    cost = sum((Fraction(p.cost) for p in account.positions.values()), Fraction(0))
    # The identity of cash, to the last decimal.
    assert Fraction(account.cash) == (
        Fraction(account.paid_in) + Fraction(account.realized) - (Fraction(account.fees) - should.apart()) - cost
    )


@given(SEEDS, st.integers(1, 90))
@settings(max_examples=80)
def test_the_fold_is_what_fractions_say(seed: int, count: int) -> None:
    histories = Histories(seed, replacing=False)
    account = Account(QUOTE)
    for seq, entry in numbered(histories.take(count)):
        account.apply(seq, entry)
    check_against(account, histories.account)


@given(SEEDS)
@settings(max_examples=25)
def test_after_every_entry(seed: int) -> None:
    histories, account = Histories(seed, replacing=False), Account(QUOTE)
    for seq in range(1, 40):
        account.apply(seq, histories.take(1)[0])
        check_against(account, histories.account)


@given(SEEDS, st.integers(20, 120))
@settings(max_examples=60)
def test_trades_run_from_flat_to_flat(seed: int, count: int) -> None:
    histories = Histories(seed, replacing=False)
    trades = trades_of(histories.take(count))
    for key in histories.account.prices:
        mine = sorted((t for t in trades if t.position.key == key), key=lambda trade: trade.seq)
        should = list(histories.account.rounds(key))
        assert len(mine) == len(should)
        for trade, each in zip(mine, should, strict=True):
            p = trade.position
            assert abs(Fraction(p.realized) - Fraction(p.fees) - each.pnl) <= TINY
            assert abs(Fraction(p.fees) - each.fees) <= TINY
            assert Fraction(p.entered_qty) == Fraction(p.exited_qty) == each.size
            assert (p.side == "LONG") == each.long
            assert p.qty == 0 and p.cost == 0


@given(SEEDS, st.integers(0, 100), st.integers(0, 100))
@settings(max_examples=40)
def test_a_prefix_and_the_rest_are_the_whole(seed: int, first: int, second: int) -> None:
    entries = numbered(Histories(seed, replacing=False).take(first + second))
    whole, part = Account(QUOTE), Account(QUOTE)
    whole.apply_all(entries)
    part.apply_all(entries[:first])
    part = pickle.loads(pickle.dumps(part))
    part.apply_all(entries[first:])
    assert vars(part) == vars(whole)


@given(SEEDS)
@settings(max_examples=30)
def test_what_is_read_back_folds_as_what_was_written(seed: int) -> None:
    entries = numbered(Histories(seed, replacing=False).take(80))
    written, read = Account(QUOTE), Account(QUOTE)
    written.apply_all(entries)
    read.apply_all([(seq, entry._replace(body=json.loads(encode(entry.body)))) for seq, entry in entries])
    assert vars(written) == vars(read)


def fill(name: str, side: str, qty: str, price: str, **more: object) -> Entry:
    body = {"symbol": "BTCUSDT", "base": "BTC", "side": side, "qty": Decimal(qty), "price": Decimal(price)}
    return Entry(name, "fill", BEGIN, {**body, "venue_trade_id": name, **more})


def reversal(of: str, qty: str) -> Entry:
    return Entry(f"r:{of}:{qty}", "reversal", BEGIN, {"fill_id": of, "qty": Decimal(qty), "reason": "replaced"})


@pytest.mark.parametrize("order", [("p", "f", "r"), ("p", "r", "f"), ("f", "p", "r")])
def test_a_provisional_exit_and_the_exchanges_own_fill_in_every_order(order: tuple[str, ...]) -> None:
    steps = {
        "p": fill("hand", "sell", "1", "50000", provisional=True),
        "f": fill("real", "sell", "1", "49990", fee=Decimal("49.99")),
        "r": reversal("hand", "1"),
    }
    account = Account(QUOTE)
    account.apply_all(numbered([fill("buy", "buy", "1", "48000"), *(steps[name] for name in order)]))
    assert account.positions == {}
    assert (account.cash, account.realized, account.fees) == (Decimal("1940.01"), Decimal("1990"), Decimal("49.99"))


def test_a_reversal_of_parts_keeps_the_stop_of_what_is_held_again() -> None:
    level = Entry("level", "level", BEGIN, {"symbol": "BTCUSDT", "stop": Decimal(40), "take": Decimal(60)})
    account = Account(QUOTE)
    account.apply_all(
        numbered([fill("buy", "buy", "1", "50"), level, fill("hand", "sell", "1", "55", provisional=True)])
    )
    assert account.positions == {}
    account.apply(4, reversal("hand", "0.25"))
    held = account.positions["spot", "BTCUSDT"]
    assert (held.qty, held.cost) == (Decimal("0.25"), Decimal("12.5"))
    assert (held.stop, held.take) == (Decimal(40), Decimal(60))
    with pytest.raises(ValueError, match="taken back"):
        account.apply(5, reversal("hand", "0.76"))


def test_the_fee_of_a_sale_is_not_taken_from_a_position_that_is_sold_out() -> None:
    """BNBUSDT with fees in BNB: what the position has not left is paid from other BNB."""
    account = Account(QUOTE)
    account.apply(1, fill("in", "buy", "1", "100", fee=Decimal("0.01"), fee_asset="BTC"))
    touched = account.apply(2, fill("out", "sell", "0.985", "100", fee=Decimal("0.00985"), fee_asset="BTC"))
    assert account.positions == {} and account.assets == {"BTC": Decimal("-0.00485")}
    assert account.cash == Decimal("-1.5") and account.fees == Decimal("1.985")
    assert [trade.position.side for trade in touched.trades] == ["LONG"]
    assert touched.trades[0].position.realized - touched.trades[0].position.fees == Decimal("-1.985")


def test_all_that_was_bought_may_go_into_its_fee() -> None:
    account = Account(QUOTE)
    account.apply(1, fill("dust", "buy", "0.001", "100", fee=Decimal("0.001"), fee_asset="BTC"))
    assert (account.positions, account.cash, account.fees) == ({}, Decimal("-0.1"), Decimal("0.1"))


@pytest.mark.parametrize("exponent", range(-8, 9))
def test_prices_of_every_scale_are_flat_at_zero(exponent: int) -> None:
    price, account = Decimal(3).scaleb(exponent), Account(QUOTE)
    parts = [Decimal(1).scaleb(-12), Decimal(7), Decimal(11).scaleb(11), Decimal(1) / 7]
    parts = [part.quantize(Decimal("1e-12")) for part in parts]
    entries = [fill(f"b{i}", "buy", str(qty), str(price * (i + 1))) for i, qty in enumerate(parts)]
    entries += [fill(f"s{i}", "sell", str(qty), str(price)) for i, qty in enumerate(reversed(parts))]
    account.apply_all(numbered(entries))
    assert account.positions == {}
    assert account.cash == account.realized == sum(-qty * price * i for i, qty in enumerate(parts))


def test_money_paid_in_or_out_keeps_the_share_of_the_drawdown() -> None:
    account = Account(QUOTE)

    def paid(name: str, amount: int) -> Entry:
        kind = "deposit" if amount > 0 else "withdrawal"
        body = {"type": kind, "asset": QUOTE, "amount": Decimal(amount), "reason": "", "evidence": ""}
        return Entry(name, "adjustment", BEGIN, body)

    mark = Entry("m", "mark", BEGIN, {"prices": {"BTCUSDT": Decimal(80)}, "why": "close"})
    account.apply_all(numbered([paid("a", 1000), fill("buy", "buy", "10", "100"), mark]))
    assert (account.equity, account.peak) == (Decimal(800), Decimal(1000))
    account.apply(4, paid("b", 800))
    assert (account.equity, account.peak) == (Decimal(1600), Decimal(2000))
    account.apply(5, paid("c", -1200))
    assert (account.equity, account.peak) == (Decimal(400), Decimal(500))


def test_a_resume_lets_the_drawdown_begin_anew() -> None:
    def control(action: str) -> Entry:
        return Entry(action, "control", BEGIN, {"action": action, "reason": "drawdown", "by": "test"})

    mark = Entry("m", "mark", BEGIN, {"prices": {"BTCUSDT": Decimal(80)}, "why": "close"})
    opened = Entry("s", "session", BEGIN, {"action": "open", "session_id": 1})
    account = Account(QUOTE)
    account.apply_all(numbered([fill("1", "buy", "1", "100"), fill("2", "sell", "0.5", "160"), opened, mark]))
    assert (account.equity, account.peak) == (Decimal(20), Decimal(60))
    assert account.apply(5, control("halt")).marks == []
    assert (account.halted, account.peak) == ("drawdown", Decimal(60))
    [written] = account.apply(6, control("resume")).marks
    assert (account.halted, account.peak, account.sessions[1].peak_balance) == ("", Decimal(20), Decimal(20))
    assert (written.why, written.equity, written.peak) == ("resume", Decimal(20), Decimal(20))


def test_an_operator_s_stop_is_only_tighter() -> None:
    def level(stop: str | None, by: str) -> Entry:
        body = {"symbol": "BTCUSDT", "stop": stop and Decimal(stop), "take": None, "by": by}
        return Entry(f"{stop}:{by}", "level", BEGIN, body)

    for side, tighter, looser in (("buy", "95", "90"), ("sell", "105", "110")):
        account = Account(QUOTE)
        account.apply(1, fill("1", side, "1", "100"))
        account.apply(2, level(looser, "operator"))  # there was none
        account.apply(3, level(tighter, "operator"))
        for stop in (looser, None):
            with pytest.raises(ValueError, match=f"The stop of BTCUSDT is {tighter} by now"):
                account.apply(4, level(stop, "operator"))
        account.apply(4, level(looser, ""))  # the engine's own may move where it likes


def test_late_news_of_an_order_never_takes_back_its_end() -> None:
    def order(name: str, state: str) -> Entry:
        return Entry(name, "order", BEGIN, {"client_order_id": "x", "state": state})

    intent = {"client_order_id": "x", "symbol": "BTCUSDT", "side": "buy", "type": "limit", "qty": Decimal(2)}
    account = Account(QUOTE)
    account.apply(1, Entry("i", "intent", BEGIN, intent))
    account.apply(2, fill("1", "buy", "1", "10", client_order_id="x"))
    assert account.orders["x"].state == "partially_filled"
    account.apply(3, order("cancel", "cancelled"))
    account.apply(4, order("late", "open"))
    account.apply(5, fill("2", "buy", "0.5", "10", client_order_id="x"))
    assert (account.orders["x"].state, account.orders["x"].filled_qty) == ("cancelled", Decimal("1.5"))
    account.apply(6, fill("3", "buy", "0.5", "10", client_order_id="x"))
    account.apply(7, order("later", "cancelled"))
    assert account.orders["x"].state == "filled"
    with pytest.raises(ValueError, match="Order x"):
        account.apply(8, fill("4", "sell", "1", "10", client_order_id="x"))


def test_the_latest_session_always_tells_the_accounts_worth() -> None:
    def session(number: int, action: str, hours: int) -> Entry:
        at = BEGIN + timedelta(hours=hours)
        return Entry(f"{action}{number}", "session", at, {"action": action, "session_id": number})

    account = Account(QUOTE)
    account.apply_all(numbered([fill("1", "buy", "1", "100"), session(1, "open", 0), session(1, "close", 1)]))
    account.apply(4, Entry("m", "mark", BEGIN, {"prices": {"BTCUSDT": Decimal(120)}, "why": "close"}))
    assert (account.sessions[1].initial_balance, account.sessions[1].current_balance) == (Decimal(0), Decimal(20))
    account.apply(5, session(2, "open", 2))
    account.apply(6, Entry("n", "mark", BEGIN, {"prices": {"BTCUSDT": Decimal(90)}, "why": "close"}))
    second = account.sessions[2]
    assert (second.initial_balance, second.current_balance, second.peak_balance) == (
        Decimal(20),
        Decimal(-10),
        Decimal(20),
    )
    assert account.sessions[1].current_balance == 20
