"""The plan's answers to what an exchange lacks: stop types, pairs, coins; and which levels are watched."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from math import nan
from typing import Any

import pytest

from atb.core.policy import Policy
from atb.core.types import MarketRules, Symbol
from atb.engine.reasons import STOP_LOSS, TAKE_PROFIT
from atb.engine.rules import make_rules
from atb.execution.offers import Offers, Told
from atb.execution.plan import NOTHING, Step, next_step, overdue, protection
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
    told.no_such_type(0, "stop")
    told.no_pair(0)
    told.at_most(0, Decimal(1))
    offers = told.offers(0, Decimal(2))
    assert (offers.stop_type, offers.pairs, offers.most) == ("stop_limit", False, Decimal(1))
    told.ask_again(0)
    offers = told.offers(0, Decimal(2))
    assert (offers.stop_type, offers.pairs, offers.most) == ("stop_limit", True, None)
    told.no_such_type(0, "stop_limit")
    assert told.offers(0, Decimal(2)).stop_type == "" and told.offers(1, Decimal(2)).stop_type == "stop"


def test_an_earlier_sessions_symbol_is_known_by_what_it_wrote() -> None:
    eth = Traded(Symbol("ETHUSDT", "ETH", "USDT"), RULES._replace(symbol="ETHUSDT"))
    again = traded_from(market_config(eth))
    assert (again.symbol, again.rules.lot, again.rules.tick) == (eth.symbol, RULES.lot, RULES.tick)
