"""One writer: engines with real orders that are stopped, taken over and go on, that start together, that follow at once."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atb.ledger.connect import connect, from_url
from tests.database import Postgres
from tests.integration.account_case import check
from tests.integration.test_live_trading import ended, until
from tests.integration.test_real_money import Place, killed, stopped

# The transaction that commits an intent waits, as its last act, for whoever has the lock.
WAITS_AT_COMMIT = """
CREATE FUNCTION wait_for_lock() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER wait_for_lock AFTER INSERT ON entries DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (NEW.kind = 'intent') EXECUTE FUNCTION wait_for_lock();
SELECT pg_advisory_lock(1);
"""
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


class Watched(Place):
    """Whose engines end with the test, however that ends."""

    def __init__(self, server: Postgres, folder: Path) -> None:
        super().__init__(server, folder)
        self.engines: list[subprocess.Popen[str]] = []

    def start(self, *args: str) -> subprocess.Popen[str]:
        self.engines.append(super().start(*args))
        return self.engines[-1]


@pytest.fixture
def place(server: Postgres, tmp_path: Path) -> Iterator[Place]:
    made = Watched(server, tmp_path)
    yield made
    for process in (*made.engines, made.process):
        if process.stdout is not None and not process.stdout.closed:
            killed(process)


def stop_at_commit(place: Place, process: subprocess.Popen[str]) -> None:
    """The intent of its first order is committed, and the order is not sent."""
    with connect(from_url(place.shell.env["DATABASE_URL"]), autocommit=True) as connection:
        until(lambda: "authority" in place.query("SELECT code FROM events"), "an engine that has begun")
        connection.execute(WAITS_AT_COMMIT)
        until(lambda: connection.execute(WAITING).fetchone() == (1,), "an intent that is committed")
        process.send_signal(signal.SIGSTOP)
        connection.execute("SELECT pg_advisory_unlock(1)")
        connection.execute("DROP FUNCTION wait_for_lock CASCADE")  # which waits for that transaction
    until(lambda: place.query("SELECT purpose, state FROM orders") == "entry\tintent", "the intent in the ledger")
    assert place.bought == []


def stop_at_answer(place: Place, process: subprocess.Popen[str]) -> None:
    """After the exchange has executed the order of its first decision, and before the process hears of it."""
    hang = {"kind": "hang", "path": "/api/v3/order", "method": "POST", "times": 1, "done": True, "seconds": 8}
    place.control("fault", **hang)
    until(lambda: place.bought, "an order that was executed")
    process.send_signal(signal.SIGSTOP)


def late_requests(place: Place) -> list[int]:
    """The answers to orders to buy that the exchange was sent."""
    return [entry["status"] for entry in place.ask("log") if entry["params"].get("side") == "BUY"]


@pytest.mark.slow
def test_one_that_was_stopped_before_it_sent_an_order_does_not_send_it(place: Place) -> None:
    """Its successor has found out that the exchange never had it: after the time in which it would be taken. Its commit has
    taken longer than that."""
    first = place.start()
    stop_at_commit(place, first)
    second = place.start()
    until(lambda: place.query("SELECT state FROM orders") == "denied", "an order of which the fate is known")
    assert late_requests(place) == []
    first.send_signal(signal.SIGCONT)
    assert_fenced(first)
    assert late_requests(place) == [] and place.account["orders"] == []
    stopped(second)
    check(place)


@pytest.mark.slow
def test_one_that_was_stopped_before_it_heard_of_its_order_leaves_it_to_its_successor(place: Place) -> None:
    first = place.start()
    stop_at_answer(place, first)
    second = place.start()
    until(lambda: place.resting, "a stop of the second engine")
    before = place.account["orders"]
    first.send_signal(signal.SIGCONT)
    assert_fenced(first)
    assert len(place.bought) == 1 and place.account["orders"] == before
    stopped(second)
    assert place.query("SELECT count(*) FROM trading_sessions") == "2"
    check(place)


def assert_fenced(process: subprocess.Popen[str]) -> None:
    code, _, err = ended(process)
    assert code == 9 and "another has authority over it" in err, err


@pytest.mark.slow
def test_of_two_that_start_at_once_one_trades_and_the_other_says_who(place: Place) -> None:
    engines = [place.start(), place.start()]
    try:
        until(lambda: any(engine.poll() is not None for engine in engines), "one that gives up")
        winner, loser = sorted(engines, key=lambda engine: engine.poll() is not None)
        code, _, err = ended(loser)
        assert code == 9 and winner.poll() is None
        assert re.search(rf"is held by .*{winner.pid}.* since 20\d\d-\d\d-\d\d .* UTC", err), err
        assert "atb live stop --account" in err
        until(lambda: place.resting, "a stop of the one that trades")
        stopped(winner)
    finally:
        for engine in engines:
            engine.kill()
    assert len(place.bought) == 1
    check(place)


@pytest.mark.slow
def test_ended_and_begun_again_at_once(place: Place) -> None:
    """The runbook's pkill, and the start that follows it: the signal that pkill sends, to the one process it would find."""
    first = place.buy()
    assert "atb live" in Path(f"/proc/{first.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    assert not Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    before = [order["clientOrderId"] for order in place.resting]
    first.send_signal(signal.SIGTERM)
    second = place.start("--resume-from-last-balance")
    assert ended(first)[0] == 0
    until(lambda: place.query("SELECT count(*) FROM trading_sessions") == "2", "the second session")
    until(
        lambda: "holds" in place.query("SELECT message FROM events WHERE message LIKE 'resume:%' ORDER BY id DESC"),
        "resumed",
    )
    assert len(place.bought) == 1 and [order["clientOrderId"] for order in place.resting] == before
    stopped(second)
    check(place)


@pytest.mark.slow
def test_ended_in_the_midst_of_an_order_and_begun_again_at_once(place: Place) -> None:
    first = place.start()
    hang = {"kind": "hang", "path": "/api/v3/order", "method": "POST", "times": 1, "done": True, "seconds": 2}
    place.control("fault", **hang)
    until(lambda: place.bought, "an order that was executed")
    first.send_signal(signal.SIGTERM)
    second = place.start("--resume-from-last-balance")
    assert ended(first)[0] == 0
    until(lambda: place.resting, "a position with its stop")
    stopped(second)
    assert len(place.bought) == 1
    check(place)


@pytest.mark.slow
def test_killed_it_is_followed_at_once(place: Place) -> None:
    """Of a process of this host that is gone nobody waits for the lease."""
    killed(place.buy())
    began = time.monotonic()
    second = place.start("--resume-from-last-balance")
    until(lambda: place.query("SELECT count(*) FROM trading_sessions") == "2", "the second session")
    told = place.query("SELECT message FROM events WHERE code = 'authority_waited_for'")
    assert told == "", (told, time.monotonic() - began)
    stopped(second)
    check(place)
