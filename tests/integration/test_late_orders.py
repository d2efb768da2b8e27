"""Orders whose answer is lost, which the loopback Binance does not show for longer than they may take, and then does.

There is never a second purchase, what is there has its stop, and the ledger says what the exchange says: also after a restart.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from atb.ledger.records import NEVER_HEARD, Order
from tests.database import Postgres
from tests.integration.test_reconciler import Engine
from tests.venue.broker_case import BTC, ETH, Case, desk
from tests.venue.exchange import Fault

pytest.importorskip("ccxt")
OWNED: tuple[dict[str, str], ...] = ({}, {"BTC": "1"})  # what the owner has beside the account's money


@pytest.fixture(params=[OWNED[0], pytest.param(OWNED[1], marks=pytest.mark.slow)], ids=["alone", "beside"])
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    with desk(deposits={"USDT": "10000", "BNB": "3", **request.param}) as made:
        made.exchange.clock.factor = 0.0
        yield made


def overlook(engine: Engine, side: str, type: str) -> None:
    """The next order of that kind is taken, and nobody tells of it."""
    order = f"side={side}.*type={type}"
    engine.case.server.add(Fault("html", "/order", method="POST", where=order, done=True, times=1))
    engine.case.server.add(Fault("unseen", method="GET", seconds=500))


def last(engine: Engine, purpose: str) -> Order:
    return [o for o in engine.state.books.orders.values() if o.purpose == purpose][-1]


def wait(engine: Engine, seconds: int) -> None:
    """Looks of an engine that does not see it."""
    for _ in range(3):
        engine.case.exchange.now_ms += seconds * 1000 // 3
        engine.cycle()


def bought(engine: Engine) -> int:
    return sum(order.side == "BUY" for order in engine.case.account.orders)


def with_a_stop_that_is_given_up(server: Postgres, case: Case) -> Engine:
    """The first one is gone, and the next one is not seen."""
    engine = Engine(server, case)
    engine.close(1.0)
    case.exchange.now_ms += 1_000_000
    overlook(engine, "SELL", "STOP_LOSS")
    case.exchange.engine.cancel(case.account.open_orders[0])
    wait(engine, 12)
    assert given_up(engine).reason == NEVER_HEARD
    case.exchange.now_ms += 3_600_000
    return engine


def given_up(engine: Engine) -> Order:
    return [o for o in engine.state.books.orders.values() if o.purpose == "stop"][1]


def again(engine: Engine) -> Engine:
    engine.end()
    return Engine(engine.server, engine.case, engine.database)


def test_a_purchase_of_which_the_balances_speak_is_waited_for(server: Postgres, case: Case) -> None:
    engine = Engine(server, case)
    overlook(engine, "BUY", "MARKET")
    engine.close(1.0)
    wait(engine, 30)
    assert last(engine, "entry").state == "unknown" and bought(engine) == 1
    case.server.heal()
    engine.cycle()
    assert last(engine, "entry").state == "filled" and engine.held > 0
    engine.agrees()
    engine.end()


@pytest.mark.parametrize("restarts", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_purchase_that_was_given_up_is_held_once_it_is_told(server: Postgres, case: Case, restarts: bool) -> None:
    engine = Engine(server, case)
    overlook(engine, "BUY", "MARKET")
    engine.close(1.0)
    wait(engine, 90)
    entry = last(engine, "entry")
    assert (entry.state, entry.reason) == ("denied", NEVER_HEARD) and not engine.held
    engine.close(1.0)
    assert bought(engine) == 1, "while what there is is not explained nothing is bought"
    if restarts:
        case.exchange.now_ms += 3_600_000
    case.server.heal()
    if restarts:
        engine = again(engine)
    engine.cycle()
    entry = last(engine, "entry")
    assert (entry.state, entry.reason, bought(engine)) == ("filled", "", 1) and engine.held > 0
    assert "foreign_fill" not in engine.codes and not engine.reconciler.disagreement
    engine.agrees()
    engine = again(engine)
    engine.agrees()
    engine.close(-1.0)
    engine.agrees()
    engine.end()


def test_a_stop_that_was_given_up_is_seen_where_it_rests(server: Postgres, case: Case) -> None:
    engine = with_a_stop_that_is_given_up(server, case)
    case.server.heal()
    engine.cycle()
    assert given_up(engine).reason == "" and engine.held > 0
    engine.agrees()
    engine.close(-1.0)
    assert engine.held < 1e-5
    engine.agrees()
    engine.end()


def test_a_stop_that_was_given_up_sells_what_is_the_account_s(server: Postgres, case: Case) -> None:
    """Told first by its execution, long after: it is no trade by hand."""
    engine = with_a_stop_that_is_given_up(server, case)
    case.exchange.trade_at("BTCUSDT", "30000")
    case.server.heal()
    engine.executor.pull()
    assert given_up(engine).state == "filled" and "foreign_fill" not in engine.codes
    engine.cycle()
    assert engine.held < 1e-5
    engine.end()


def test_a_symbol_that_is_no_more_does_not_keep_an_account_from_starting(server: Postgres, case: Case) -> None:
    first = Engine(server, case, symbols=(BTC, ETH))
    first.end()
    del case.exchange.markets["ETHUSDT"], case.exchange.listings["ETHUSDT"]
    engine = Engine(server, case, first.database)
    assert engine.verdict.equal and engine.codes.count("symbol_gone") == 1
    engine.close(1.0)
    engine.agrees()
    engine.end()
