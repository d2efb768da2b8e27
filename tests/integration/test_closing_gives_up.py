"""What an emergency close does about an exchange that does not sell: it tries again, puts stops back, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atb.core.errors import DatabaseError, ExchangeUnavailable
from atb.execution.account_file import AccountFile, known
from atb.execution.closing import Closing
from atb.execution.closing_executor import ClosingExecutor, executor_of, executor_over
from atb.execution.spool import Spool
from atb.execution.spooling_journal import SpoolingJournal
from atb.ops.closing_at_exchange import _NoLedger
from tests.database import Postgres
from tests.integration.test_reconciler import Engine
from tests.venue.broker_case import Case, desk
from tests.venue.exchange import Fault

pytest.importorskip("ccxt")
REFUSED = Fault("refused", "/order", method="POST", where="MARKET", code=-1013, message="Filter failure: LOT_SIZE")


@pytest.fixture
def case() -> Iterator[Case]:
    with desk(deposits={"USDT": "10000", "BTC": "1", "BNB": "3"}) as made:
        yield made


@pytest.fixture
def engine(server: Postgres, case: Case) -> Iterator[Engine]:
    """Holds a position with its stop."""
    made = Engine(server, case)
    made.close(1.0)
    yield made
    made.end()


def by_ledger(engine: Engine, home: Path) -> ClosingExecutor:
    return executor_of(engine.session.account, engine.broker, engine.executor.journal, engine.events.append)


def by_what_this_host_knows(engine: Engine, home: Path) -> ClosingExecutor:
    account = engine.session.account
    (home / "accounts").mkdir()
    AccountFile(home, account, engine.session.id).keep(engine.session.state)
    journal = SpoolingJournal(_NoLedger(account.id, DatabaseError("It is out.")), Spool.of(home, account))
    (here,) = known(home)
    return executor_over(account, engine.broker, journal, here.state(), engine.events.append)


def closing(executor: ClosingExecutor, trying_s: float = 0.5, **more: Any) -> Closing:
    return Closing(executor, reason="test", by="test", trying_s=trying_s, **more)


def resting(case: Case) -> list[str]:
    """The prices of its stops."""
    return [f"{order.stop.normalize():f}" for order in case.account.open_orders if order.stop is not None]


@pytest.mark.parametrize("made", [by_ledger, by_what_this_host_knows])
def test_what_is_refused_is_not_flat_and_has_its_stop_again(
    case: Case, engine: Engine, made: Any, tmp_path: Path
) -> None:
    stops, (held,) = resting(case), [engine.session.state.held(0)]
    assert len(stops) == 1 and held > 0
    case.server.add(REFUSED)
    executor = made(engine, tmp_path)
    outcome = closing(executor).run(others=False)
    (left,) = outcome.left
    assert outcome.flat_after_s is None and outcome.dust == [] and not outcome.sold
    assert (left.qty, left.orders, left.kind) == (held, [], ExchangeUnavailable) and "LOT_SIZE" in left.why
    assert left.protection == f"its stop rests at {stops[0]}" and resting(case) == stops
    case.server.heal()
    assert closing(by_ledger(engine, tmp_path)).run(others=False).flat_after_s is not None and resting(case) == []


def test_one_that_is_interrupted_leaves_nothing_without_its_stop(case: Case, engine: Engine, tmp_path: Path) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    stops = resting(case)
    case.server.add(REFUSED)
    with pytest.raises(KeyboardInterrupt):
        closing(by_ledger(engine, tmp_path), 60.0, pause=interrupted).run(others=False)
    assert resting(case) == stops
    assert any("is not sold; its stop rests at" in event.message for event in engine.events)


def test_a_firewall_between_the_cancels_and_the_sale_is_outlasted(case: Case, engine: Engine, tmp_path: Path) -> None:
    case.server.add(Fault("status", "/allOrders", status=403, times=2), Fault("status", "/order", status=403, times=2))
    outcome = closing(by_ledger(engine, tmp_path), 60.0).run(others=True)
    assert outcome.flat_after_s is not None and outcome.left == [] and resting(case) == []
    assert sum(event.code == "barred" for event in engine.events) == 1


def test_a_symbol_that_is_gone_and_of_which_nothing_is_held_is_flat(
    server: Postgres, case: Case, tmp_path: Path
) -> None:
    engine = Engine(server, case)
    executor = by_ledger(engine, tmp_path)
    del case.exchange.listings["BTCUSDT"]
    case.exchange.markets.pop("BTCUSDT", None)
    assert closing(executor).run(others=False).flat_after_s is not None
    engine.end()
