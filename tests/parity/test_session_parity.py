"""A session out of its ledger against the backtest of its candles: nothing differs, or each difference has its cause."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atb.core.errors import DataError, UsageError
from atb.core.policy import make_policy
from atb.core.timeframe import ManualClock, moment
from atb.core.types import MarketRules, Symbol
from atb.engine.candles import Candles
from atb.engine.rules import make_rules
from atb.execution.session import Session, Wish, open_session
from atb.execution.traded import Traded
from atb.ledger.connect import Where
from atb.ledger.entries import Entry
from atb.live.recorded import Happening, Recorded, read_recorded
from atb.live.replay import Replay
from atb.live.session_parity import Part, SessionParity, compare_session
from atb.live.trader import Trader
from atb.strategy.signals import compute_signals
from atb.venue.simulated_book import Setup
from atb.venue.simulated_broker import SimulatedBroker
from tests.parity.test_paper_is_the_backtest import BARS, FIRST, POLICIES, Account, Killed, Swing, rising, series_of
from tests.seeds import thinned
from tests.venue.exchange import HOUR_MS
from tests.venue.market_time import MarketTime
from tests.venue.test_candles import START, made


@pytest.fixture
def desk_of(where: Where) -> Iterator[Callable[..., Desk]]:
    """Makes desks, and closes their connections."""
    made_here: list[Desk] = []

    def make(**options: Any) -> Desk:
        made_here.append(Desk(where, **options))
        return made_here[-1]

    yield make
    for desk in made_here:
        desk.session.journal.close()


class Desk:
    """One symbol, traded on hours of history by an exchange of ours: with `environment` real, by other costs than the model's."""

    def __init__(self, where: Where, count: int = 160, environment: str = "paper", **market: Any) -> None:
        rows = made(count, seed=4)
        self.candles = Candles("BTCUSDT", "1h", rows[:, 0].astype(np.int64), *rows.T[1:])
        self.rules = make_rules(make_policy(POLICIES[0]), 10.0, 5.0)
        symbol = Symbol("BTCUSDT", "BTC", "USDT")
        known = MarketRules("BTCUSDT", Decimal("0.00001"), Decimal("0.01"), Decimal(5), "test", "2024-01-01")
        self.traded, self.where, self.clock = [Traded(symbol, known)], where, ManualClock(START)
        costs = {"fee": self.rules.fee, "slip": self.rules.slip} | market
        self.broker = SimulatedBroker({symbol: known}, Setup(**costs), self.clock, {"USDT": Decimal(10_000)})
        self.environment = environment
        self.session = self.opened()
        if environment != "paper":
            body = {"type": "deposit", "asset": "USDT", "amount": Decimal(10_000), "reason": "test", "evidence": "test"}
            self.append(Entry("deposit", "adjustment", moment(START), body))

    def opened(self) -> Session:
        return open_session(self.where, self.wish(), self.clock, lambda state: self.broker)

    def wish(self) -> Wish:
        return Wish(
            "desk", "binance", self.environment, self.traded, self.rules, "swing", "1h", {}, Decimal(10_000), "key",
        )  # fmt: skip

    def append(self, *entries: Entry) -> None:
        self.session.executor.append(list(entries))

    def play(self, first: int, stop: int) -> None:
        """Hours of it."""
        trader = Trader(self.session.executor, [Swing()], "1h")
        window = self.candles.window(0, stop)
        Replay(trader, self.broker, self.clock, [window], [BARS], START + first * HOUR_MS).run()

    def until(self, first: int, true: Callable[[], Any]) -> int:
        """Hour by hour; the number of the one before which it is true."""
        while not true():
            self.play(first, first + 1)
            first += 1
        return first

    def waits_to_buy(self) -> bool:
        """Decided, and not carried out yet: it opens with the next candle."""
        p = self.session.state.position(0)
        return p.target_qty > p.qty == 0

    def held(self) -> bool:
        p = self.session.state.position(0)
        return bool(p.qty and p.target_qty == p.qty)

    def recorded(self) -> Recorded:
        return read(self.where, self.session.id)

    def compared(self, candles: Candles | None = None, recorded: Recorded | None = None) -> SessionParity:
        used = candles or self.candles
        return compare_session(recorded or self.recorded(), [Part(used, compute_signals(Swing(), used))])


def read(where: Where, number: int) -> Recorded:
    from atb.ledger.connect import connect

    with connect(where) as connection:
        return read_recorded(connection, number, "here")


def causes(parity: SessionParity) -> Counter[str]:
    return Counter(difference.cause.code for difference in parity.differences)


def with_other(candles: Candles, row: int, **columns: float) -> Candles:
    """The same but for numbers of one candle."""
    every = {n: getattr(candles, n).copy() for n in ("open", "high", "low", "close", "volume")}
    for name, value in columns.items():
        every[name][row] = value
    return Candles(candles.symbol, candles.timeframe, candles.open_time, **every)


def test_nothing_differs(desk_of: Callable[..., Desk]) -> None:
    desk = desk_of()
    desk.play(0, 160)
    parity = desk.compared()
    assert parity.differences == [] and parity.notes == []
    assert (parity.closes, parity.decisions) == (160, 160) and parity.fills > 15
    assert parity.alone == pytest.approx(parity.equity, rel=1e-9)


@pytest.mark.parametrize("seed", thinned([3, 6], 2))
def test_each_session_of_an_account_that_was_killed_again_and_again(where: Where, tmp_path: Path, seed: int) -> None:
    rng, symbols, count = random.Random(seed), 1 + seed % 2, 110
    end = START + (count - 1) * HOUR_MS
    with MarketTime(tmp_path, series_of(count, symbols, 50 + 7 * seed), FIRST + 60_000) as market:
        account, ids = Account(where, market, POLICIES[seed % 3], f"killed {seed}"), []
        while market.exchange.now_ms < end - 20 * HOUR_MS:
            process = account.start(lives=rng.randrange(120), after=rng.random() < 0.5)
            ids.append(process.session.id)
            with contextlib.suppress(Killed):
                account.trade(process, min(end, market.exchange.now_ms + rng.randrange(9 * HOUR_MS)))
            account.end(process)
            market.go_on(rng.choice((1_000, 70_000, 2 * HOUR_MS)))
        parts = []
        for symbol in market.symbols:
            candles = market.history(symbol, START)
            parts.append(Part(candles, compute_signals(Swing(), candles)))
    closes = fills = 0
    for number in ids:
        try:
            parity = compare_session(read(where, number), parts)
        except DataError:  # killed before its first close
            continue
        assert parity.differences == []
        closes, fills = closes + parity.closes, fills + parity.fills
    assert closes > 40 and fills > 3


def test_what_the_market_gave_has_a_price(desk_of: Callable[..., Desk]) -> None:
    desk = desk_of(environment="real", slip=0.001, fee=0.00075)
    desk.play(0, 120)
    parity = desk.compared()
    assert set(causes(parity)) == {"price", "fee"} and parity.explained  # a take is filled at its limit
    assert {d.what for d in parity.differences} == {"fill"} and len(parity.differences) == parity.fills
    first = parity.differences[0]
    assert "5.00 bps above the model's price" in first.cause.why and first.effect is not None and first.effect < 0
    # Each of these is what it cost at that moment; together they are the difference to the backtest alone, but for sizes.
    total = sum(d.effect or 0.0 for d in parity.differences)
    assert total == pytest.approx(parity.equity - parity.alone, rel=0.05)


def test_another_fee(desk_of: Callable[..., Desk]) -> None:
    desk = desk_of(environment="real", fee=0.0002)
    desk.play(0, 60)
    parity = desk.compared()
    assert causes(parity)["fee"] > 0 and parity.explained


def test_fees_that_are_taken_from_the_coins(desk_of: Callable[..., Desk]) -> None:
    """Less than was bought is left to be sold, and a part of a lot stays: worth something, and no position."""
    desk = desk_of(environment="real", fee_in_base=True)
    desk.play(0, 120)
    parity = desk.compared()
    assert set(causes(parity)) == {"fee"} and parity.fills > 10, parity.differences
    assert any("taken from the coins" in d.cause.why for d in parity.differences)
    closes = desk.recorded().closes
    assert any(close.dust > 0 for close in closes)
    for close in closes:
        assert close.stepper.account.equity == pytest.approx(float(close.equity - close.dust), rel=1e-9), (
            "the engine's own"
        )


def test_the_same_on_paper_is_not_explained(desk_of: Callable[..., Desk]) -> None:
    desk = desk_of(slip=0.001)
    desk.play(0, 60)
    parity = desk.compared()
    assert causes(parity)["unexplained"] > 0 and not parity.explained


def test_a_halt(desk_of: Callable[..., Desk]) -> None:
    desk = desk_of()
    at = desk.until(30, desk.waits_to_buy)
    body = {"action": "halt", "reason": "exchange maintenance", "by": "operator"}
    desk.session.executor.append([Entry("halt:test", "control", moment(desk.clock.now_ms()), body)])
    desk.play(at, 160)
    parity = desk.compared()
    command, first = parity.differences[:2]
    assert parity.explained and command.what == "command" and "exchange maintenance" in first.cause.why
    assert causes(parity)["halted"] >= 1 and set(causes(parity)) <= {"operator", "halted", "follows"}


def test_an_operator_closes_it_all(desk_of: Callable[..., Desk]) -> None:
    desk = desk_of()
    at = desk.until(0, desk.held)
    body = {"action": "flatten", "reason": "stop it", "by": "operator"}
    desk.append(Entry("flatten:test", "control", moment(desk.clock.now_ms()), body))
    desk.play(at, at + 10)
    parity = desk.compared()
    assert parity.explained and causes(parity)["operator"] >= 1
    assert [d.session for d in parity.differences if "emergency_close" in d.session]


def test_an_operators_stop(desk_of: Callable[..., Desk]) -> None:
    desk = desk_of()
    at = desk.until(0, desk.held)
    close = desk.session.state.position(0).last_close
    stop = Decimal(repr(close)).quantize(Decimal("0.01")) * Decimal("0.9999")
    body = {
        "symbol": "BTCUSDT",
        "market": "spot",
        "stop": stop.quantize(Decimal("0.01")),
        "take": None,
        "by": "operator",
    }
    desk.append(Entry("level:test", "level", moment(desk.clock.now_ms()), body))
    desk.play(at, at + 12)
    parity = desk.compared()
    assert parity.explained and causes(parity)["operator"] >= 1, parity.differences


def test_money_that_came(desk_of: Callable[..., Desk]) -> None:
    desk = desk_of()
    desk.play(0, 40)
    body = {"type": "deposit", "asset": "USDT", "amount": Decimal(500), "reason": "from the bank", "evidence": "x"}
    desk.append(Entry("deposit:2", "adjustment", moment(desk.clock.now_ms()), body))
    desk.play(40, 160)
    parity = desk.compared()
    assert causes(parity) == {"money": 1} and "from the bank" in parity.differences[0].cause.why


def test_a_refusal(desk_of: Callable[..., Desk]) -> None:
    desk = desk_of()
    at = desk.until(0, desk.waits_to_buy)
    desk.session.executor.broker = desk.broker
    order = next(iter(desk.session.state.working[0].values()))
    desk.broker.cancel(desk.traded[0].symbol, order.client_order_id)
    desk.session.executor.pull()
    desk.play(at, at + 5)
    # Cancelled by somebody, and nobody said why: this cannot be explained.
    assert not desk.compared().explained
    told = desk.recorded()
    now = told.closes[-5].written_at
    said = told._replace(happenings=[Happening(now, "entry_blocked", "BTCUSDT is not bought: nothing new is known")])
    assert causes(desk.compared(recorded=said)) == {"blocked": 1}
    why = "BTCUSDT is not bought: the breaker: equity 9.00 is 10.0% under its peak; the next close judges"
    said = told._replace(happenings=[Happening(now, "entry_blocked", why)])
    parity = desk.compared(recorded=said)
    assert causes(parity) == {"breaker": 1} and parity.explained
    said = told._replace(happenings=[Happening(now, "breaker", "Nothing is bought until the next close: equity")])
    assert causes(desk.compared(recorded=said)) == {"breaker": 1}


def test_a_candle_that_was_corrected(desk_of: Callable[..., Desk]) -> None:
    desk = desk_of()
    desk.play(0, 160)
    close = float(desk.candles.close[80])
    parity = desk.compared(with_other(desk.candles, 80, close=round(close * 1.0001, 2)))
    assert parity.explained and causes(parity)["candle"] == len(parity.differences) >= 1
    assert parity.differences[0].what == "candle" and repr(close) in parity.differences[0].session


def test_a_fill_elsewhere_is_not_explained(desk_of: Callable[..., Desk]) -> None:
    """Another open than the one that was traded at; no close tells of it."""
    desk = desk_of()
    desk.play(0, 160)
    execution = next(e for e in desk.recorded().executions if e.lots > 0)
    row = (execution.open_ms - START) // HOUR_MS
    middle = (float(desk.candles.low[row]) + float(desk.candles.high[row])) / 2
    parity = desk.compared(with_other(desk.candles, row, open=round(middle, 2)))
    (difference,) = [d for d in parity.differences if not d.cause.explained]
    assert difference.what == "fill" and difference.at_ms == execution.open_ms


def test_another_strategy_by_the_same_name(desk_of: Callable[..., Desk]) -> None:
    desk = desk_of()
    desk.play(0, 100)
    signals = compute_signals(Swing(), desk.candles)
    signals[50] = -signals[50] / 2
    part = Part(desk.candles, signals)
    (difference,) = compare_session(desk.recorded(), [part]).differences
    assert difference.what == "signal" and not difference.cause.explained
    told = desk.recorded()._replace(changed="the strategy's file has changed since")
    assert compare_session(told, [part]).explained


def test_what_was_seen_first(where: Where, tmp_path: Path) -> None:
    wide = {"stop_loss": 0.02, "take_profit": 0.05, "fraction": 0.4}
    with MarketTime(tmp_path, [rising(80, 55)], FIRST + 60_000) as market:
        market.exchange.forming = "high"
        account = Account(where, market, wide, "take first")
        process = account.start()
        account.trade(process, START + 58 * HOUR_MS)
        account.end(process)
        candles = market.history(market.symbols[0], START)
    parity = compare_session(read(where, process.session.id), [Part(candles, compute_signals(Swing(), candles))])
    (difference,) = parity.differences
    assert difference.cause.code == "in_candle" and "(take_profit)" in difference.session
    assert "(stop_loss)" in difference.backtest and difference.effect is not None and difference.effect > 0


def test_candles_of_something_else(desk_of: Callable[..., Desk]) -> None:
    desk = desk_of()
    desk.play(0, 40)
    rows = made(60, seed=9)
    other = Candles("BTCUSDT", "1h", rows[:, 0].astype(np.int64), *rows.T[1:])
    with pytest.raises(DataError, match="recorded closes are not in these candles"):
        desk.compared(other)


def test_sessions_that_cannot_be_compared(desk_of: Callable[..., Desk]) -> None:
    desk = desk_of()
    with pytest.raises(UsageError, match="There is no session 77 in here"):
        read(desk.where, 77)
    with pytest.raises(DataError, match="saw no candle close"):
        desk.recorded()
