"""Real processes that want one account: asked to end, killed, hung, started at once, and in containers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from atb.core.errors import Fenced
from atb.ledger.accounts import open_account
from atb.ledger.connect import connect
from atb.ledger.lease import Standing, claim, read_standing, release, renew
from tests.database import Postgres
from tests.engine_process import Running
from tests.ledger.victim import Victim

Start = Callable[..., Running]


@pytest.fixture
def url(server: Postgres) -> str:
    return server.url(server.database())


@pytest.fixture
def start(url: str, tmp_path: Path) -> Iterator[Start]:
    """Starts an engine's process on the account `paper:one`."""
    with ExitStack() as stack:
        yield lambda *before, **options: stack.enter_context(
            Running(url, "paper:one", tmp_path / "home", *before, **options)
        )


def told(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def codes(url: str) -> list[str]:
    return [row[0] for row in told(url, "SELECT code FROM events WHERE component = 'authority' ORDER BY id")]


def test_pkill_and_a_restart_at_once(start: Start, url: str) -> None:
    """The runbook's restart: the new one waits for the last cycle of the old one, and says for whom."""
    first = start(last_cycle_s=1.5)
    epoch = first.until("holds")["epoch"]
    first.send(signal.SIGTERM)
    second = start()
    waiting = second.until("authority_waited_for")
    assert f"pid {first.process.pid} since 20" in waiting["message"] and "Waiting up to 20 s" in waiting["message"]
    assert second.until("holds")["epoch"] > epoch
    assert first.ended()[0] == 0
    assert codes(url) == ["authority_claimed", "authority_waited_for", "authority_released", "authority_claimed"]
    second.send(signal.SIGTERM)
    assert second.ended()[0] == 0


def test_one_that_is_killed_is_followed_at_once(start: Start, url: str) -> None:
    first = start(lease_s=3600)
    first.until("holds")
    first.send(signal.SIGKILL)
    start(wait_s=0).until("holds")  # it is a zombie now, which nobody has asked about
    assert codes(url) == ["authority_claimed", "authority_taken_over"]


def test_one_that_stays_is_named(start: Start, url: str) -> None:
    first = start()
    epoch = first.until("holds")["epoch"]
    code, said = start(wait_s=1).ended()
    message = json.loads(said)
    assert code == 9
    assert f"held by {os.uname().nodename} pid {first.process.pid} since 20" in message["message"]
    assert "last heartbeat 0 s ago" in message["message"] and "did not let go within 1 s" in message["message"]
    assert "atb live status" in message["hint"] and "atb live stop --account paper:one" in message["hint"]
    assert first.process.poll() is None
    assert told(url, "SELECT epoch FROM authority") == [(epoch,)]
    assert codes(url)[-1] == "authority_refused"


def test_one_that_hangs_loses_it_with_its_lease(start: Start, url: str) -> None:
    first = start(lease_s=6)  # longer than a start takes on a busy machine
    first.until("holds")
    first.send(signal.SIGSTOP)
    second = start()
    second.until("authority_waited_for")
    second.until("holds")
    first.send(signal.SIGCONT)
    code, said = first.ended()
    assert code == 9 and f"pid {second.process.pid} has taken it over" in json.loads(said)["message"]
    assert second.process.poll() is None
    row = told(url, "SELECT message FROM events WHERE code = 'authority_taken_over'")
    assert len(row) == 1 and "its lease ran out" in row[0][0]


@pytest.mark.slow
def test_one_that_hangs_in_the_middle_of_an_append(start: Start) -> None:
    """The database's lock on the account is its own: when its lease has run out, its connection is ended."""
    first = start(lease_s=1, hang_in_append=1)
    first.until("locked")
    first.send(signal.SIGSTOP)
    began = time.monotonic()
    start(wait_s=60).until("holds")
    assert time.monotonic() - began > 1


def test_of_several_starts_at_once_one_wins(start: Start, url: str) -> None:
    at = time.time() + 4
    engines = [start(start_at=at, wait_s=2, lease_s=30) for _ in range(6)]
    losers: list[Running] = []
    until = time.monotonic() + 60
    while len(losers) < 5 and time.monotonic() < until:
        losers = [engine for engine in engines if engine.process.poll() is not None]
        time.sleep(0.05)
    assert [engine.ended()[0] for engine in losers] == [9] * 5
    assert codes(url).count("authority_claimed") == 1 and "authority_taken_over" not in codes(url)


@pytest.mark.slow
def test_of_several_starts_after_a_death_one_wins(start: Start, url: str) -> None:
    first = start()
    first.until("holds")
    first.send(signal.SIGKILL)
    at = time.time() + 4
    engines = [start(start_at=at, wait_s=1, lease_s=30) for _ in range(4)]
    until = time.monotonic() + 60
    while sum(engine.process.poll() is not None for engine in engines) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    assert sorted(engine.process.poll() or 0 for engine in engines) == [0, 9, 9, 9]
    assert codes(url).count("authority_taken_over") == 1


def may_unshare() -> bool:
    tool = shutil.which("unshare")
    return tool is not None and subprocess.run([tool, "-p", "-f", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not may_unshare(), reason="this process may make no pid namespace")
def test_one_in_a_container_of_the_same_host_is_not_taken_for_dead(start: Start) -> None:
    """The same name, the same kernel, and a pid that is nobody's here, or somebody else's."""
    inside = start("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", lease_s=3)
    inside.until("holds")
    code, said = start(wait_s=0.5).ended()
    assert code == 9 and "pid 1 " in json.loads(said)["message"]
    outside = start(wait_s=60)
    outside.until("authority_waited_for")
    inside.send(signal.SIGKILL)
    outside.until("holds")  # when its lease has run out


@pytest.mark.slow
def test_an_outage_longer_than_the_lease_fences_nobody(tmp_path: Path) -> None:
    victim = Victim(tmp_path / "victim")
    try:
        with connect(victim.where) as connection:
            account = open_account(connection, "paper:one", venue="binance", environment="paper", quote="USDT")
            connection.commit()
            epoch = claim(connection, account.id, lease_s=0.2)
            assert isinstance(epoch, int)
        victim.restart("stop")
        with connect(victim.where) as connection:
            while (read_standing(connection, account.id).left_s or 0) > 0:
                pass
            renew(connection, account.id, epoch, 30)
            assert (read_standing(connection, account.id).left_s or 0) > 20
        with Running(victim.url(), "paper:one", tmp_path / "home", wait_s=0.2) as other:
            assert other.ended()[0] == 9
        with connect(victim.where) as connection:
            connection.execute("UPDATE authority SET expires_at = now() - interval '1 s'")
            connection.commit()
            with Running(victim.url(), "paper:one", tmp_path / "home") as other:
                other.until("holds")
                with pytest.raises(Fenced):
                    renew(connection, account.id, epoch, 30)
                assert not release(connection, account.id, epoch)
                assert isinstance(claim(connection, account.id, lease_s=1), Standing)
    finally:
        from atb.ledger.embedded import stop

        stop(victim.home)
