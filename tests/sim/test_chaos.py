"""A fixed set of the days of `make chaos`, and that it finds something where there is something to be found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atb.ledger.connect import Where
from tests.database import Postgres, postgres
from tests.seeds import seeds, thinned
from tests.sim.chaos import run
from tests.sim.guards import AT_THE_EXCHANGE

ROOT = Path(__file__).resolve().parents[2]
# What was wrong on these days is mended; of the later ones the world may have changed since.
FOUND_ONCE = (41,)
FOUND_LATER = (20128, 20239, 20593, 20600, 21332, 21340, 21430, 30094, 31465, 50868, 51100, 51598)
FOUND_LAST = (102997, 104649, 104730, 105451, 106730, 107631, 110258, 201195)
FOUND_OWNED = (300933,)
COMMON = [name for name in AT_THE_EXCHANGE if name != "late"]  # whose fault is too rare in a day of everything
BUSY = range(200, 260)
Database = Callable[[], Where]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield lambda: _where(server)


def _where(server: Postgres) -> Where:
    return server.where(server.database())


def lived(seed: int, where: Where, owner: float = 0.0) -> None:
    ran = run(seed, where, owner)
    assert not ran.findings, ran
    assert ran.died.total() > 0, "nobody was killed"


@pytest.mark.parametrize("seed", thinned([*range(6), *FOUND_ONCE], 3))
def test_a_day_of_chaos_ends_well(database: Database, seed: int) -> None:
    lived(seed, database())


@pytest.mark.slow
@pytest.mark.parametrize("first", seeds(10_000, 2, 20))
def test_days_of_chaos_end_well(database: Database, first: int) -> None:
    for seed in range(first, first + 20):
        lived(seed, database())


@pytest.mark.slow
@pytest.mark.parametrize("seed", FOUND_LATER + FOUND_LAST)
def test_a_day_that_ended_badly_once(database: Database, seed: int) -> None:
    lived(seed, database())


@pytest.mark.slow
@pytest.mark.parametrize("seed", FOUND_OWNED)
def test_a_day_of_a_busy_owner_that_ended_badly_once(database: Database, seed: int) -> None:
    lived(seed, database(), 0.2)


@pytest.mark.slow
@pytest.mark.parametrize("first", seeds(40_000, 1, 10))
def test_days_of_a_busy_owner_end_well(database: Database, first: int) -> None:
    for seed in range(first, first + 10):
        lived(seed, database(), 0.2)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMON)
def test_without_a_guard_something_is_found(database: Database, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    AT_THE_EXCHANGE[name].switch_off(monkeypatch)
    assert any(run(seed, database()).findings for seed in BUSY)


def chaos(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.sim.chaos", "--jobs", "1", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_counts_and_says_so() -> None:
    ran = chaos("--runs", "2")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("2 runs in ") and "duplicate order: 0, orphan position: 0" in ran.stdout
    assert "2 of 2 runs" in ran.stderr


@pytest.mark.slow
def test_the_command_fails_where_something_is_found() -> None:
    ran = chaos("--first", str(BUSY[0]), "--runs", "30", "--without", "unknown")
    assert ran.returncode == 1 and "seed " in ran.stderr
