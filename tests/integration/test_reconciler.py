"""An account at the loopback Binance, its ledger in a real Postgres: what happens beside the engine is seen and booked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from atb.core.errors import AtbError, Disagreement, ExchangeUnavailable, UsageError
from atb.core.order_id import client_order_id
from atb.core.policy import make_policy
from atb.core.timeframe import ManualClock
from atb.core.types import Symbol
from atb.engine.rules import make_rules
from atb.execution.compared import compare, read_account
from atb.execution.executor import Event
from atb.execution.reconcile import BOOK, LEAVE, REFUSE, Verdict, expected
from atb.execution.reconciler import Reconciler
from atb.execution.session import Session, Wish, open_session
from atb.execution.state import TradingState
from atb.execution.traded import Traded
from atb.ledger.accounts import all_accounts
from atb.ledger.audit import audit
from atb.ledger.connect import connect
from atb.ledger.entries import Entry
from atb.venue.binance_broker import BinanceBroker
from atb.venue.ccxt_signed import SignedSession
from tests.database import Postgres
from tests.venue.broker_case import BTC, NOW, PATIENCE, Case, desk
from tests.venue.exchange import MINUTE_MS, Fault

pytest.importorskip("ccxt")
RULES = make_rules(make_policy({"stop_loss": 0.05, "fraction": 0.4}), 10.0, 0.0)


class Engine:
    """What trades, without its loop. `events`: what it told; each look waits for nothing."""

    def __init__(
        self, server: Postgres, case: Case, name: str = "", money: str | None = None, key_identity: str = "k1",
        behind_ms: int = 0, symbols: Sequence[Symbol] = (BTC,), home: Path | None = None, **start: Any,
    ) -> None:  # fmt: skip
        self.case, self.server, self.database = case, server, name or server.database()
        self.broker = BinanceBroker(SignedSession("binance", case.server.url, PATIENCE, case.key), symbols)
        self.events: list[Event] = []
        traded = [Traded(symbol, self.broker.market_rules(symbol)) for symbol in symbols]
        wish = Wish("main", "binance", "real", traded, RULES, "test", "1m", {}, Decimal(0), key_identity)
        clock = ManualClock(case.exchange.now_ms - behind_ms)
        self.session: Session = open_session(
            server.where(self.database), wish, clock, lambda state: self.broker, self.events.append, patience_s=2.0,
            home=home,
        )  # fmt: skip
        self.executor = self.session.executor
        self.reconciler = Reconciler(self.executor, pause=self.pause)
        try:
            self.verdict = self.reconciler.start(None if money is None else Decimal(money), **start)
        except AtbError:
            self.end()
            raise

    def pause(self, seconds: float) -> None:
        self.case.exchange.now_ms += int(seconds * 1000)

    def close(self, signal: float) -> None:
        """A candle closes, and what follows from its signal is done."""
        self.case.exchange.now_ms += MINUTE_MS
        open_ms = self.case.exchange.now_ms // MINUTE_MS * MINUTE_MS
        price = str(self.case.exchange.market("BTCUSDT").price)
        body = {"prices": {"BTCUSDT": price}, "signals": {"BTCUSDT": str(signal)}, "open_ms": open_ms, "why": "close"}
        at = datetime.fromtimestamp(self.case.exchange.now_ms / 1000, UTC)
        self.executor.append([Entry(f"mark:{open_ms}", "mark", at, body, self.session.id)])
        self.executor.cycle()

    def cycle(self) -> Verdict:
        self.case.exchange.now_ms += 6_000
        self.executor.pull()
        verdict = self.reconciler.look()
        self.executor.cycle()
        return verdict

    @property
    def state(self) -> TradingState:
        return self.executor.state

    @property
    def held(self) -> Decimal:
        return self.state.held(0)

    @property
    def own_and_aside(self) -> tuple[str, str]:
        own, aside = self.state.books.cash, self.state.books.assets["USDT"]
        return f"{own.normalize():f}", f"{aside.normalize():f}"

    @property
    def codes(self) -> list[str]:
        return [event.code for event in self.events]

    def total(self, asset: str) -> Decimal:
        return self.case.account.totals[asset]

    def agrees(self) -> None:
        """Of each asset the ledger knows what is there; its tables are its own; a stop of ours has all that is held."""
        should = expected(self.state.books, "binance")
        for asset in ("USDT", "BTC", "BNB"):
            assert should.get(asset, 0) == self.total(asset), asset
        stops = [o for o in self.case.account.open_orders if o.client_id.startswith("atb-")]
        assert sum((o.rest for o in stops), Decimal(0)) == self.held // Decimal("0.00001") * Decimal("0.00001")
        with connect(self.server.where(self.database)) as connection:
            (account,) = all_accounts(connection)
            connection.rollback()
            assert audit(connection, account).problems == []

    def end(self) -> None:
        self.session.release()


@pytest.fixture
def case() -> Iterator[Case]:
    with desk(deposits={"USDT": "10000", "BTC": "1", "BNB": "3"}) as made:
        made.exchange.clock.factor = 0.0
        yield made


@pytest.fixture
def engine(server: Postgres, case: Case) -> Iterator[Engine]:
    made = Engine(server, case)
    yield made
    made.end()


def explained(verdict: Verdict) -> list[tuple[str, str, str]]:
    return [(line.subject, f"{line.difference.normalize():f}", line.action) for line in verdict.lines]


def test_the_first_start_trades_the_quote_and_nothing_else(engine: Engine) -> None:
    assert engine.verdict.equal and engine.verdict.lines == ()
    books = engine.state.books
    assert books.cash == books.equity == 10_000
    assert books.assets == {"BTC": Decimal(1), "BNB": Decimal(3)}
    engine.close(1.0)
    assert engine.held > Decimal("0.06")
    engine.agrees()
    assert books.assets["BTC"] == 1 and books.equity < 10_000
    engine.close(-1.0)
    assert engine.held < Decimal("0.00001")
    engine.agrees()


def test_dust_is_kept_apart_and_sold_with_the_next_position(engine: Engine) -> None:
    for count in (1, 2, 3):
        engine.close(1.0)
        assert not engine.state.dust.get("BTC") and engine.held > Decimal("0.05")
        engine.agrees()
        engine.close(-1.0)
        dust, books = engine.state.dust["BTC"], engine.state.books
        assert 0 < dust < Decimal("0.00001") and books.assets["BTC"] == 1 + dust
        assert engine.held == 0 and not books.positions
        engine.agrees()
        with connect(engine.server.where(engine.database)) as connection:
            told = connection.execute("SELECT count(*), max(exit_reason) FROM trades").fetchone()
            connection.rollback()
        assert told == (count, "signal")
    assert "dust" in engine.codes


def test_a_limit_and_what_is_locked_at_first(server: Postgres, case: Case) -> None:
    case.exchange.owner.order(case.account, "BTCUSDT", "BUY", "0.05", "30000")
    engine = Engine(server, case, money="2000")
    assert engine.own_and_aside == ("2000", "8000")
    assert explained(engine.verdict) == [("BTCUSDT web_1", "0.05", LEAVE)]
    case.exchange.now_ms += 60_000
    engine.case.exchange.move_to("BTCUSDT", "29000")  # the owner's order is filled, with the owner's money
    engine.cycle()
    assert engine.own_and_aside == ("2000", "6500")
    engine.agrees()
    engine.end()
    with pytest.raises(UsageError, match=r"--initial-balance 9000"):
        Engine(server, case, money="9000")


def test_a_deposit_a_withdrawal_and_a_conversion_are_booked_within_one_cycle(engine: Engine) -> None:
    engine.close(1.0)
    held, move = engine.held, engine.case.exchange.owner.move
    move(engine.case.account, "deposit", "USDT", "1000")
    assert explained(engine.cycle()) == [("USDT", "1000", BOOK)]
    move(engine.case.account, "withdrawal", "USDT", "499", fee="1")
    move(engine.case.account, "convert", "USDT", "20", into=("BNB", "0.07"))
    move(engine.case.account, "dust", "BTC", "0.000001", into=("BNB", "0.0001"))
    assert sorted(explained(engine.cycle())) == [
        ("BNB", "0.0001", BOOK), ("BNB", "0.07", BOOK), ("BTC", "-0.000001", BOOK), ("USDT", "-20", BOOK),
        ("USDT", "-500", BOOK),
    ]  # fmt: skip
    assert engine.cycle().lines == ()
    assert engine.held == held and engine.state.books.paid_in == 10_480
    engine.agrees()
    assert engine.codes.count("external_change") == 6


def test_what_is_bought_by_hand_is_not_ours_and_what_is_sold_shrinks_the_stop(engine: Engine) -> None:
    engine.close(1.0)
    held, owner = engine.held, engine.case.exchange.owner
    owner.order(engine.case.account, "BTCUSDT", "BUY", "0.05")
    engine.cycle()
    assert engine.held == held
    assert engine.state.books.assets["BTC"] == Decimal("1.04995")
    engine.agrees()
    owner.order(engine.case.account, "BTCUSDT", "SELL", "0.2")  # our stop rests: it must be the owner's
    engine.cycle()
    assert engine.held == held
    engine.agrees()
    (stop,) = [o for o in engine.case.account.open_orders if o.client_id.startswith("atb-")]
    engine.case.exchange.engine.cancel(stop)
    owner.order(engine.case.account, "BTCUSDT", "SELL", "0.03")  # it does not: he closes a part of ours
    engine.cycle()
    assert engine.held == held - Decimal("0.03")
    engine.agrees()
    assert engine.codes.count("foreign_fill") == 3
    orders = len(engine.case.account.orders)
    engine.close(0.0)
    assert len(engine.case.account.orders) == orders  # what he sold is not bought back


def test_what_is_sold_by_hand_beside_an_exit_that_is_not_told_yet_is_not_taken_from_what_it_sold(
    engine: Engine,
) -> None:
    engine.close(1.0)
    held, case = engine.held, engine.case
    case.server.add(Fault("unseen", "myTrades"))
    case.exchange.owner.order(case.account, "BTCUSDT", "SELL", "0.2")  # of his own: our stop has the rest
    engine.close(-1.0)
    case.server.heal()
    case.server.add(Fault("unseen", "myTrades", seconds=30.0))  # his trade is told, a minute old; ours is not yet
    engine.cycle()
    assert engine.held == held and engine.codes.count("foreign_fill") == 1
    assert engine.state.books.assets["BTC"] == Decimal("0.8")
    case.server.heal()
    engine.cycle()
    engine.cycle()
    assert engine.held == 0 and engine.codes.count("foreign_fill") == 1 and not engine.executor.hold
    assert Decimal("0.8") <= engine.state.books.assets["BTC"] < Decimal("0.80001")
    engine.agrees()


@pytest.mark.parametrize("less_than_a_lot", ["0", "0.000001"])  # more at the exchange, and no difference for that
def test_the_owner_s_coins_that_our_stop_sold_stand_in_for_those_he_had_sold(
    engine: Engine, less_than_a_lot: str
) -> None:
    engine.close(1.0)
    held, case = engine.held, engine.case
    case.exchange.owner.move(case.account, "deposit", "BTC", less_than_a_lot, told=False)
    case.server.add(Fault("unseen", "myTrades"))
    (stop,) = [o for o in case.account.open_orders if o.client_id.startswith("atb-")]
    case.exchange.engine.cancel(stop)
    case.exchange.owner.order(case.account, "BTCUSDT", "SELL", "0.03")
    engine.cycle()  # what he sold is not told yet: all that was held has its stop again, and some of it is his
    case.server.heal()
    engine.executor.pull()
    assert engine.held == held - Decimal("0.03")
    case.exchange.move_to("BTCUSDT", "30000")  # the stop, before it was made smaller
    engine.executor.pull()
    missing = Decimal("0.03") - held % Decimal("0.00001")  # a stop names whole lots
    assert engine.held == -missing and engine.state.position(0).qty == 0
    engine.cycle()
    engine.cycle()
    assert engine.held == 0 and not engine.executor.hold
    assert engine.state.books.assets["BTC"] == 1 - missing
    assert engine.state.stepper.account.cash == pytest.approx(float(engine.state.books.cash), rel=1e-12)
    assert [e.message for e in engine.events if "coins that he had sold" in e.message]
    if less_than_a_lot == "0":
        engine.agrees()


def test_what_he_sold_of_coins_that_we_never_traded_is_booked_once_however_late_it_is_told(engine: Engine) -> None:
    case = engine.case
    case.server.add(Fault("unseen", "myTrades"))
    case.exchange.owner.order(case.account, "BTCUSDT", "SELL", "0.1")
    engine.cycle()  # seen to be gone
    assert engine.state.books.assets["BTC"] == Decimal("0.9")
    case.server.heal()
    case.exchange.now_ms += 6_000
    engine.executor.pull()
    assert engine.codes.count("foreign_fill") == 1 and engine.state.books.assets["BTC"] == Decimal("0.9")
    engine.close(1.0)  # bought before the next look: a difference would be nobody's
    engine.cycle()
    assert engine.held > 0 and not engine.executor.hold
    engine.agrees()


def test_a_trade_by_hand_in_another_symbol_is_found(engine: Engine) -> None:
    engine.close(1.0)
    engine.case.exchange.owner.order(engine.case.account, "ETHUSDT", "BUY", "0.4")
    engine.case.exchange.owner.order(engine.case.account, "BNBUSDT", "SELL", "1")
    verdict = engine.cycle()
    assert not verdict.unexplained and engine.reconciler.disagreement == ""
    engine.agrees()
    with connect(engine.server.where(engine.database)) as connection:
        rows = connection.execute(
            "SELECT symbol, reason, qty, effective_qty FROM fills WHERE reason = 'foreign' ORDER BY 1"
        )
        assert rows.fetchall() == [("BNBUSDT", "foreign", 1, 0), ("ETHUSDT", "foreign", Decimal("0.4"), 0)]


def test_fees_in_bnb_come_out_of_what_is_not_ours(engine: Engine) -> None:
    engine.case.account.pays_in_bnb = True
    engine.close(1.0)
    assert engine.cycle().lines == ()
    assert engine.state.books.assets["BNB"] < 3
    engine.agrees()


def test_orders_of_others_are_told_once_and_stay(engine: Engine) -> None:
    engine.close(1.0)
    engine.case.exchange.owner.order(
        engine.case.account, "BTCUSDT", "SELL", "0.5", "60000", "55000", type="TAKE_PROFIT_LIMIT"
    )
    for _ in range(3):
        assert [line.action for line in engine.cycle().lines] == [LEAVE]
    assert engine.codes.count("foreign") == 1
    assert any(o.client_id.startswith("web_") for o in engine.case.account.open_orders)
    engine.agrees()


def test_what_nothing_explains_holds_entries_until_it_is_explained(engine: Engine) -> None:
    owner, main = engine.case.exchange.owner, engine.case.account
    transfer = owner.move(main, "withdrawal", "USDT", "300", told=False)
    assert explained(engine.cycle()) == [("USDT", "-300", REFUSE)]
    assert engine.executor.hold == ""  # it may be told in a moment
    engine.cycle()
    assert "disagree" in engine.reconciler.disagreement
    engine.close(1.0)
    assert engine.held == 0 and not main.orders
    engine.cycle()
    assert engine.codes.count("disagreement") == 1
    main.transfers.append(transfer)
    engine.cycle()
    assert (engine.reconciler.disagreement, engine.executor.hold) == ("", "")
    engine.close(1.0)
    assert engine.held > 0
    engine.agrees()


def test_exits_go_on_in_a_disagreement(engine: Engine) -> None:
    engine.close(1.0)
    engine.case.exchange.owner.move(engine.case.account, "withdrawal", "USDT", "300", told=False)
    engine.cycle()
    engine.cycle()
    assert engine.executor.hold
    engine.close(-1.0)
    assert engine.held < Decimal("0.00001")


def test_an_exchange_that_does_not_answer_is_no_difference(engine: Engine) -> None:
    engine.case.server.plan.add(Fault("status", "/account", status=503, times=20))
    engine.case.exchange.owner.move(engine.case.account, "deposit", "USDT", "5")
    assert engine.cycle().unsettled
    assert engine.reconciler.disagreement == ""


def test_a_start_books_what_happened_meanwhile_and_refuses_what_nobody_explains(server: Postgres, case: Case) -> None:
    first = Engine(server, case)
    first.close(1.0)
    held = first.held
    first.end()
    case.exchange.now_ms += 30 * 86_400_000
    case.exchange.owner.move(case.account, "deposit", "USDT", "250")
    case.exchange.move_to("BTCUSDT", "30000")  # the stop
    second = Engine(server, case, first.database)
    assert second.held < Decimal("0.00001") < held
    assert explained(second.verdict) == [("USDT", "250", BOOK)]
    second.agrees()
    second.end()
    case.exchange.owner.move(case.account, "withdrawal", "USDT", "77", told=False)
    third = Engine(server, case, first.database)
    assert explained(third.verdict) == [("USDT", "-77", REFUSE)]
    error = third.verdict.refusal("atb live sync-balance --provider binance --accept --reason TEXT")
    assert isinstance(error, Disagreement) and error.exit_code == 7 and "sync-balance" in error.hint
    third.reconciler.accept(third.verdict, "I moved it", "test")
    third.agrees()
    third.end()
    fourth = Engine(server, case, first.database)
    assert fourth.verdict.lines == ()
    fourth.end()


def test_a_start_after_the_host_s_clock_was_set_back(server: Postgres, case: Case) -> None:
    """What is held goes on, protected; the runbook's latest session is the one that was begun last."""
    first = Engine(server, case)
    first.close(1.0)
    held = first.held
    first.end()
    for _ in range(2):
        again = Engine(server, case, first.database, behind_ms=3 * 3_600_000)
        assert again.verdict.equal and again.held == held
        with connect(server.where(first.database)) as connection:
            latest = "SELECT id FROM trading_sessions ORDER BY start_time DESC LIMIT 1"
            assert connection.execute(latest).fetchall() == [(again.session.id,)]
        again.cycle()
        again.agrees()
        again.end()


def test_a_copy_tells_the_same_and_writes_nothing(server: Postgres, case: Case) -> None:
    engine = Engine(server, case)
    engine.close(1.0)
    case.exchange.owner.move(case.account, "deposit", "USDT", "250")
    case.exchange.owner.order(case.account, "BTCUSDT", "BUY", "0.05")
    case.exchange.move_to("BTCUSDT", "30000")
    case.exchange.now_ms += 60_000
    with connect(server.where(engine.database)) as connection:
        before = connection.execute("SELECT count(*) FROM entries").fetchone()
        connection.commit()
        account = engine.session.account
        chain = read_account(engine.session.journal, account)
        assert chain.symbols == [BTC]
        compared = compare(engine.session.journal, account, chain, engine.broker, engine.pause)
        assert [(line.subject, line.action) for line in compared.verdict.lines] == [
            ("BTCUSDT", BOOK), ("BTCUSDT", BOOK), ("USDT", BOOK),
        ]  # fmt: skip
        assert {entry.kind for entry in compared.entries} == {"fill", "adjustment"}
        assert expected(compared.journal.books, "binance")["USDT"] == case.account.totals["USDT"]
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == before
    engine.cycle()
    engine.agrees()
    engine.end()


def test_working_orders_of_an_earlier_life_are_not_traded_around(server: Postgres, case: Case) -> None:
    first = Engine(server, case)
    first.close(1.0)
    first.end()
    with pytest.raises(Disagreement, match="has working orders here before"):
        Engine(server, case)  # another database
    for order in case.account.open_orders:
        case.exchange.engine.cancel(order)
    case.exchange.now_ms += 60_000
    Engine(server, case).end()
    with pytest.raises(Disagreement, match="traded here before"):
        Engine(server, case, resume=True)


def test_a_start_waits_for_an_order_of_unknown_fate_and_then_gives_up(server: Postgres, case: Case) -> None:
    engine = Engine(server, case)
    name = client_order_id(engine.executor.identity, BTC.id, NOW // MINUTE_MS * MINUTE_MS, "entry")
    body = {"client_order_id": name, "symbol": "BTCUSDT", "market": "spot", "side": "buy", "type": "market",
            "qty": Decimal("0.01"), "purpose": "entry"}  # fmt: skip
    at = datetime.fromtimestamp(case.exchange.now_ms / 1000, UTC)
    engine.executor.append([Entry(f"intent:{name}", "intent", at, body, engine.session.id)])
    assert engine.reconciler.look().unsettled
    case.server.plan.add(Fault("status", "/api/v3/order", status=503, method="GET"))
    with pytest.raises(ExchangeUnavailable, match="cannot be compared"):
        engine.reconciler.start()
    case.server.plan.clear()
    assert engine.reconciler.start().equal
    assert engine.state.books.orders[name].state == "denied"
    engine.end()


def test_the_restored_dump_of_before(server: Postgres, case: Case, tmp_path: Path) -> None:
    """Three trades after the dump: entry, stop, entry again. The next start knows its own orders and what they did."""
    from tests.integration.shell import Shell

    engine = Engine(server, case)
    engine.close(1.0)
    engine.close(-1.0)
    shell = Shell(tmp_path, DATABASE_URL=server.url(engine.database))
    dump = shell.work / str(shell("db", "backup", "--json", ok=True).json["path"])
    engine.close(1.0)
    case.exchange.move_to("BTCUSDT", "37000")  # the stop
    engine.cycle()
    engine.close(-1.0)  # after a stop, a new signal is needed
    engine.close(1.0)
    case.exchange.owner.order(case.account, "BTCUSDT", "BUY", "0.01")
    engine.cycle()
    held, books = engine.held, engine.state.books
    stop = engine.state.position(0).stop
    engine.agrees()
    engine.end()
    shell("db", "restore", dump, "--yes", ok=True)

    again = Engine(server, case, engine.database)
    assert again.verdict.lines == ()
    after = again.state.books
    assert after.orders.keys() == books.orders.keys()
    assert again.state.position(0).stop == stop
    placed = len(case.account.orders)
    again.executor.cycle()
    assert (again.held, after.cash, after.fees) == (held, books.cash, books.fees)
    assert abs(after.realized - books.realized) < 1  # dust is moved at the price of the moment
    assert len(case.account.orders) == placed  # what is held is kept, and its stop is the one that rests
    again.agrees()
    case.exchange.move_to("BTCUSDT", "30000")
    again.cycle()
    assert again.held < Decimal("0.00001")
    again.agrees()
    again.end()
