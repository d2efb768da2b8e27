"""The plan's answers to what an exchange lacks: stop types, pairs, coins; and which levels are watched."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from math import nan
from typing import Any

import pytest

from atb.core.policy import Policy
from atb.core.timeframe import in_ms
from atb.core.types import MarketRules, Symbol
from atb.engine.reasons import STOP_LOSS, TAKE_PROFIT
from atb.engine.rules import make_rules
from atb.execution.offers import Offers, Told
from atb.execution.plan import NOTHING, Step, as_resting, next_step, overdue, protection
from atb.execution.state import TradingState
from atb.execution.traded import Traded, market_config, traded_from
from atb.ledger.entries import Entry
from atb.venue.broker import Features

BTC = Symbol("BTCUSDT", "BTC", "USDT")
RULES = MarketRules("BTCUSDT", Decimal("0.001"), Decimal("0.01"), Decimal(10), "test", "")
AT = datetime(2024, 1, 1, tzinfo=UTC)
ALL = Offers(pairs=True, stop_type="stop")


class Books:
    """A ledger of one account, entry by entry."""

    def __init__(self) -> None:
        self.state = TradingState([Traded(BTC, RULES)], make_rules(Policy(), 10, 5), "USDT")
        self.tell("adjustment", {"type": "deposit", "asset": "USDT", "amount": "10000", "reason": "r", "evidence": "e"})

    def tell(self, kind: str, body: Mapping[str, Any], name: str = "") -> None:
        seq = self.state.seq + 1
        self.state.take(seq, Entry(name or f"{kind}:{seq}", kind, AT, body))

    def order(self, name: str, purpose: str, side: str, qty: str, kind: str = "market", **prices: str) -> None:
        body = {"client_order_id": name, "symbol": "BTCUSDT", "market": "spot", "side": side, "type": kind, "qty": qty,
                "price": prices.get("price"), "stop_price": prices.get("stop"), "purpose": purpose}  # fmt: skip
        self.tell("intent", body)
        self.tell("order", {"client_order_id": name, "state": "open", "venue_order_id": f"v-{name}"})

    def fill(self, trade: str, side: str, qty: str, price: str, order: str = "", **more: object) -> None:
        body = {"symbol": "BTCUSDT", "market": "spot", "base": "BTC", "side": side, "qty": qty, "price": price, "fee": "0",
                "fee_asset": "USDT", "venue_trade_id": trade, "client_order_id": order, "reason": "signal", **more}  # fmt: skip
        self.tell("fill", body, f"fill:spot:BTCUSDT:{side}:{trade}")

    def hold(self, qty: str = "1", price: str = "100", stop: float = 95.0, take: float = nan) -> None:
        """As the engine comes to hold something: decided, ordered, bought."""
        p = self.state.position(0)
        p.target_qty, p.stop, p.take, p.stop_reason = int(Decimal(qty) / RULES.lot), stop, take, STOP_LOSS
        self.order("e", "entry", "buy", qty)
        self.fill("1", "buy", qty, price, "e")


@pytest.fixture
def books() -> Books:
    return Books()


def step(books: Books, offers: Offers = ALL) -> Step:
    return next_step(books.state, 0, offers)


def test_coins_of_the_owner_that_ours_sold_are_no_equity_and_answer_no_entry(books: Books) -> None:
    """Before they are set right a candle may close, and an entry be decided."""
    account = books.state.stepper.account
    books.tell("mark", {"prices": {"BTCUSDT": "100"}, "why": "close", "open_ms": 0, "signals": {}})
    books.hold()
    books.fill("2", "sell", "1.5", "100")
    books.tell("mark", {"prices": {"BTCUSDT": "100"}, "why": "close", "open_ms": 3_600_000, "signals": {}})
    assert account.equity == account.peak == pytest.approx(10_000)
    books.state.position(0).target_qty, account.waiting_entries = 2_000, 1
    books.fill("3", "buy", "0.5", "100", reason="in_kind")
    assert account.waiting_entries == 1 and books.state.position(0).target_qty == 2_000
    books.tell("adjustment", {"type": "deposit", "asset": "USDT", "amount": "50", "reason": "r", "evidence": "e"})
    books.tell("mark", {"prices": {"BTCUSDT": "100"}, "why": "close", "open_ms": 7_200_000, "signals": {}})
    assert account.equity == account.peak == pytest.approx(10_050)
    assert account.cash == pytest.approx(float(books.state.books.cash), rel=1e-12)


def test_a_part_that_somebody_else_sold_is_not_bought_back(books: Books) -> None:
    books.hold()
    books.fill("2", "sell", "0.4", "101", reason="foreign")
    assert books.state.position(0).qty == books.state.position(0).target_qty == 600
    assert [w.order.qty for w in step(books).place] == [Decimal("0.600")]


def test_more_than_one_order_may_be_is_traded_in_several(books: Books) -> None:
    books.hold()
    books.state.traded[0] = Traded(BTC, RULES._replace(max_qty=Decimal("0.3")))
    books.state.stepper.want(0, 0, STOP_LOSS)
    for trade in range(2, 6):
        (sale,) = step(books).place
        assert sale.order.qty == (Decimal("0.300") if trade < 5 else Decimal("0.100"))
        books.order(f"x{trade}", "exit", "sell", str(sale.order.qty))
        books.fill(str(trade), "sell", str(sale.order.qty), "101", f"x{trade}")
    assert books.state.held(0) == 0 and step(books) == NOTHING


def test_a_part_of_a_stop_is_not_bought_back(books: Books) -> None:
    books.hold()
    books.order("s", "stop", "sell", "1", "stop", stop="95")
    books.fill("2", "sell", "0.4", "95", "s")
    assert step(books) == NOTHING
    books.fill("3", "sell", "0.6", "95", "s")
    assert books.state.position(0).target_qty == books.state.position(0).qty == 0
    assert step(books) == NOTHING


def test_what_is_sold_by_hand_while_an_exit_waits_is_not_sold_twice(books: Books) -> None:
    books.hold()
    books.tell("control", {"action": "exit", "symbol": "BTCUSDT", "reason": "stop_loss", "by": "engine"})
    books.fill("2", "sell", "0.4", "101", reason="foreign")
    assert [w.order.qty for w in step(books).place] == [Decimal("0.600")]
    books.fill("3", "sell", "0.6", "101", reason="foreign")
    assert step(books) == NOTHING


def test_what_goes_through_zero_in_one_fill_is_what_the_books_say(books: Books) -> None:
    """The engine holds nothing meanwhile. What was sold beyond were coins of the owner's: neither they nor what they brought
    are the engine's, so that no drawdown begins when they are set right."""
    account = books.state.stepper.account
    books.hold()
    books.fill("2", "sell", "1.3", "101")  # the owner, with coins of his own
    assert (books.state.held(0), books.state.position(0).qty, account.open_positions) == (Decimal("-0.3"), 0, 0)
    books.state.position(0).target_qty = 0  # as a close says
    assert step(books) == NOTHING  # coins of his are not for us to buy back
    assert account.cash == pytest.approx(float(books.state.books.cash) - 0.3 * 101, rel=1e-12)
    assert account.cash == pytest.approx(10_000 + 1 * (101 - 100), rel=1e-12)
    books.fill("3", "buy", "0.8", "99")
    assert (books.state.held(0), books.state.position(0).qty, account.open_positions) == (Decimal("0.5"), 500, 1)
    assert account.cash == pytest.approx(float(books.state.books.cash), rel=1e-12)
    books.fill("4", "sell", "0.5", "99")
    assert (books.state.held(0), books.state.position(0).qty, account.open_positions) == (Decimal(0), 0, 0)
    assert account.cash == pytest.approx(float(books.state.books.cash), rel=1e-12)


def test_what_comes_back_is_protected_at_the_level_it_had(books: Books) -> None:
    """An exit recorded by hand is taken back: the exchange tells of another one, of less."""
    books.hold()
    books.tell("level", {"symbol": "BTCUSDT", "stop": "96", "take": None})
    books.fill("hand-1", "sell", "1", "101", provisional=True, evidence="told by an operator")
    assert books.state.position(0).qty == 0 and step(books) == NOTHING
    hand = books.state.books.history["spot", "BTCUSDT"][-1].id
    books.tell("reversal", {"fill_id": hand, "qty": "0.7", "by": "fill:spot:BTCUSDT:sell:2", "reason": "replaced"})
    books.fill("2", "sell", "0.7", "101")
    books.tell("reversal", {"fill_id": hand, "qty": "0.3", "reason": "it did not happen"})
    p, account = books.state.position(0), books.state.stepper.account
    assert (p.qty, p.target_qty, account.open_positions) == (300, 300, 1)
    assert account.cash == pytest.approx(float(books.state.books.cash))
    assert [(w.order.stop_price, w.order.qty) for w in step(books).place] == [(Decimal(96), Decimal("0.300"))]


def test_what_is_held_without_a_decision_has_the_rules_stop(books: Books) -> None:
    books.fill("1", "buy", "1", "100", reason="foreign")
    assert [w.order.stop_price for w in step(books).place] == [Decimal(95)]


def test_an_operators_stop_is_taken_when_it_is_tighter(books: Books) -> None:
    books.hold()
    books.tell("level", {"symbol": "BTCUSDT", "stop": "97.5", "take": None, "by": "operator"})
    assert [w.order.stop_price for w in step(books).place] == [Decimal("97.5")]


def test_where_there_are_only_stop_limits_the_limit_is_below_the_stop(books: Books) -> None:
    books.hold(take=120.0)
    (wanted,) = protection(books.state, 0, Offers(False, "stop_limit", Decimal("0.02")))
    assert (wanted.order.type, wanted.order.stop_price, wanted.order.price) == (
        "stop_limit",
        Decimal(95),
        Decimal("93.1"),
    )
    books.order("s", "stop", "sell", "1", "stop_limit", stop="95", price="94")
    assert step(books, Offers(False, "stop")) == NOTHING  # one that rests is as good


def test_levels_without_an_order_are_watched(books: Books) -> None:
    books.hold(take=120.0)
    assert overdue(books.state, 0, 100.0) is None
    assert overdue(books.state, 0, 94.0) == STOP_LOSS  # no stop rests
    assert overdue(books.state, 0, 120.0) == TAKE_PROFIT
    books.order("s", "stop", "sell", "1", "stop_limit", stop="95", price="94")
    assert overdue(books.state, 0, 94.5) is None  # it may still fill
    assert overdue(books.state, 0, 93.9) == STOP_LOSS  # the market has gone past its limit
    books.tell("control", {"action": "exit", "symbol": "BTCUSDT", "reason": "stop_loss", "by": "engine"})
    assert overdue(books.state, 0, 93.9) is None
    assert [o.client_order_id for o in step(books, Offers(False, "stop_limit")).cancel] == ["s"]


def test_dust_is_left_alone_until_there_is_more(books: Books) -> None:
    told = Told(Features(("stop",), 5, True))
    books.hold()
    told.too_little(0, books.state.held(0))
    assert step(books, told.offers(0, books.state.held(0))) == NOTHING
    assert step(books, told.offers(0, books.state.held(0) + 1)) != NOTHING


def test_no_more_is_sold_than_is_free(books: Books) -> None:
    books.hold()
    assert [w.order.qty for w in step(books, ALL._replace(most=Decimal("0.3005"))).place] == [Decimal("0.300")]
    assert step(books, ALL._replace(most=Decimal(0))) == NOTHING


def test_refusals_are_remembered_until_they_may_have_passed() -> None:
    told = Told(Features(("stop", "stop_limit"), 5, True))
    pair = (("stop", Decimal(2), Decimal(95)), ("take", Decimal(2), Decimal(120)))
    told.no_such_type(0, "stop")
    told.not_so(0, pair)
    told.at_most(0, Decimal(1))
    offers = told.offers(0, Decimal(2))
    assert (offers.stop_type, offers.refused, offers.most) == ("stop_limit", frozenset([pair]), Decimal(1))
    told.ask_again(0)
    offers = told.offers(0, Decimal(2))
    assert (offers.stop_type, offers.refused, offers.most) == ("stop_limit", frozenset(), Decimal(1))
    told.no_such_type(0, "stop_limit")
    assert told.offers(0, Decimal(2)).stop_type == "" and told.offers(1, Decimal(2)).stop_type == "stop"


def test_a_sale_that_is_refused_is_tried_again_later_each_time_later() -> None:
    told, held = Told(Features(("stop",), 5, True)), Decimal(1)
    assert [told.no_sale(0, held, 0) for _ in range(8)] == [1000 * s for s in (10, 20, 40, 80, 160, 320, 600, 600)]
    assert told.offers(0, held, 599_999).kept and not told.offers(0, held, 600_000).kept
    assert not told.offers(0, held / 2, 0).kept  # a part was sold
    told.sell_now(0)
    assert not told.offers(0, held, 1).kept


def test_what_nothing_rests_for_is_protected_again_soon_each_time_later() -> None:
    told, held = Told(Features(("stop",), 5, True)), Decimal(1)
    assert not told.is_due(0, 0)
    assert [told.nothing_rests(0, held, 0) for _ in range(8)] == [1000 * s for s in (1, 2, 4, 8, 16, 32, 60, 60)]
    assert not told.is_due(0, 59_999) and told.is_due(0, 60_000) and not told.is_due(1, 60_000)
    told.try_again(0)
    assert not told.is_due(0, 10**15), "once"
    assert told.nothing_rests(0, held, 0) == 60_000
    told.is_protected(0)
    assert told.nothing_rests(0, held, 0) == 1000 and told.nothing_rests(0, held * 2, 0) == 1000


def test_what_cannot_be_sold_now_is_protected(books: Books) -> None:
    books.hold()
    books.state.stepper.want(0, 0, STOP_LOSS)
    kept = ALL._replace(kept=True)
    assert [w.purpose for w in step(books).place] == ["exit"]
    assert [w.purpose for w in step(books, kept).place] == ["stop"]
    books.tell("control", {"action": "flatten", "reason": "test", "by": "test"})
    assert [w.purpose for w in step(books).place] == ["emergency"]
    assert [(w.purpose, w.order.stop_price) for w in step(books, kept).place] == [("stop", Decimal(95))]


def each_way(books: Books) -> list[list[tuple[str, Decimal | None]]]:
    """What would rest, one after the other, if all before it was refused."""
    offers, seen = ALL, []
    while wanted := protection(books.state, 0, offers):
        seen.append([(w.purpose, w.order.price or w.order.stop_price) for w in wanted])
        offers = offers._replace(refused=offers.refused | {as_resting(wanted)})
    return seen


def test_a_stop_that_cannot_be_moved_rests_where_it_did(books: Books) -> None:
    """And what rests lower than it belongs is watched."""
    books.hold()
    books.order("s0", "stop", "sell", "1", "stop", stop="94")
    books.tell("order", {"client_order_id": "s0", "state": "cancelled"})
    books.state.position(0).stop = 97.0
    belongs, last, wider = Decimal(97), Decimal(94), Decimal("96.03")
    assert each_way(books) == [[("stop", belongs)], [("stop", last)], [("stop", wider)]]
    books.order("s1", "stop", "sell", "1", "stop", stop="94")
    assert overdue(books.state, 0, 96.9) == STOP_LOSS and overdue(books.state, 0, 97.1) is None
    books.state.position(0).stop = 93.0
    assert each_way(books) == [[("stop", Decimal(93))], [("stop", Decimal("92.07"))]]


def test_the_next_best_rests_where_something_is_refused(books: Books) -> None:
    """The stop without its take, then one that is further away; what rests rightly is not cancelled for a better try."""
    books.hold(take=120.0)
    seen = each_way(books)
    stop = ("stop", Decimal(95))
    assert seen == [[("take", Decimal(120)), stop], [stop], [("stop", Decimal("94.05"))]]
    no_pair = ALL._replace(refused=frozenset([as_resting(protection(books.state, 0, ALL))]))
    books.order("s", "stop", "sell", "1", "stop", stop="95")
    assert step(books, no_pair) == NOTHING and step(books).cancel


def test_a_wider_stop_is_watched(books: Books) -> None:
    books.hold()
    books.order("s", "stop", "sell", "1", "stop", stop="94.05")
    assert overdue(books.state, 0, 95.1) is None
    assert overdue(books.state, 0, 95.0) == STOP_LOSS


def test_an_entry_that_hangs_is_cancelled(books: Books) -> None:
    p = books.state.position(0)
    p.target_qty, p.stop, p.stop_reason = 1000, 95.0, STOP_LOSS
    books.order("e", "entry", "buy", "1")
    at = in_ms(AT)
    assert next_step(books.state, 0, ALL, at + 60_000) == NOTHING  # nothing of it is held
    books.fill("1", "buy", "0.4", "100", "e")
    assert next_step(books.state, 0, ALL, at + 9_000) == NOTHING
    assert [o.client_order_id for o in next_step(books.state, 0, ALL, at + 11_000).cancel] == ["e"]
    books.tell("control", {"action": "exit", "symbol": "BTCUSDT", "reason": "stop_loss", "by": "engine"})
    assert [o.client_order_id for o in next_step(books.state, 0, ALL, at + 9_000).cancel] == ["e"]


def test_no_order_is_more_than_one_may_be(books: Books) -> None:
    books.state.traded[0] = Traded(BTC, RULES._replace(max_qty=Decimal("0.3004")))
    books.state.position(0).target_qty = 1000
    assert [w.order.qty for w in step(books).place] == [Decimal("0.300")]
    books.hold()
    assert [(w.purpose, w.order.qty) for w in step(books).place] == [("stop", Decimal("0.300"))]


def test_an_earlier_sessions_symbol_is_known_by_what_it_wrote() -> None:
    eth = Traded(Symbol("ETHUSDT", "ETH", "USDT"), RULES._replace(symbol="ETHUSDT"))
    again = traded_from(market_config(eth))
    limits = eth.rules._replace(min_qty=Decimal("0.002"), max_qty=Decimal(9000))
    assert traded_from(market_config(Traded(eth.symbol, limits))).rules[-2:] == (Decimal("0.002"), Decimal(9000))
    assert (again.symbol, again.rules.lot, again.rules.tick) == (eth.symbol, RULES.lot, RULES.tick)
