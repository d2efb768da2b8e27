"""A database whose commits take longer than the exchange waits for an order, beside the loopback Binance in real time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.database import Postgres
from tests.integration.test_reconciler import Engine
from tests.venue.broker_case import Case, desk

pytest.importorskip("ccxt")
SLOW_S = 2.3
TRIGGER = f"""
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep({SLOW_S}); RETURN NULL; END $$;
CREATE TRIGGER slow AFTER INSERT ON entries FOR EACH STATEMENT EXECUTE FUNCTION slow()
"""


@contextmanager
def slow(engine: Engine) -> Iterator[None]:
    with psycopg.connect(engine.server.url(engine.database), autocommit=True) as connection:
        connection.execute(TRIGGER.encode())
        yield
        connection.execute("DROP FUNCTION slow CASCADE")


def rests(case: Case) -> bool:
    return any(order.client_id.startswith("atb-") for order in case.account.open_orders)


def away(engine: Engine) -> bool:
    return engine.executor.journal.away


@pytest.mark.slow
def test_a_stop_does_not_wait_for_a_slow_database(server: Postgres, tmp_path: Path) -> None:
    with desk(deposits={"USDT": "10000", "BNB": "3"}) as case:
        engine = Engine(server, case, home=tmp_path)
        engine.close(1.0)
        assert engine.held > 0 and rests(case)
        case.exchange.engine.cancel(case.account.open_orders[0])
        with slow(engine):
            began_s = time.monotonic()
            while not rests(case):
                assert time.monotonic() - began_s < 12 * SLOW_S, engine.events
                engine.executor.cycle()
                time.sleep(0.1)
            assert away(engine)
        (out,) = [event for event in engine.events if event.code == "database_out"]
        assert "longer than an order may wait for" in out.message
        while away(engine):
            assert time.monotonic() - began_s < 30 * SLOW_S
            time.sleep(0.5)
            engine.cycle()
        engine.cycle()
        assert "database_back" in engine.codes
        engine.agrees()
        engine.end()
