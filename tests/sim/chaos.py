"""Many bad days, one after the other: python -m tests.sim.chaos --runs 10000

Each is a seed: a market, an exchange with faults, processes of the engine that are killed and started again (chaos_world.py).
At its end nothing may be wrong (findings.py). Exit code 1 when something is; --first SEED --runs 1 plays one again.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import pytest

from atb.ledger.connect import Where, connect, from_url
from tests.database import TEMPLATE, Postgres, postgres
from tests.sim.chaos_world import ChaosWorld
from tests.sim.findings import KINDS, Finding, findings
from tests.sim.guards import GUARDS

LONGEST_S = 300  # of a run; on a busy machine one takes seconds
RESTARTS = 2


class Ran(NamedTuple):
    """One day."""

    seed: int
    findings: Sequence[Finding]
    died: Counter[str]
    struck: Counter[str]
    orders: int
    fills: int
    worst_bare: int  # checks in a row, disturbed ones, after which a position was without its stop


class Hang(Exception):
    """A run that came to no end."""


def run(seed: int, where: Where, owner: float = 0.0) -> Ran:
    """Live through one day on an empty database."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            world = ChaosWorld(where, seed, Path(folder), owner)
        except Exception:  # noqa: BLE001 it is what is looked for
            return Ran(seed, [_error()], Counter(), Counter(), 0, 0, 0)
        found: list[Finding] = []
        try:
            found += lived(world)
        except Exception:  # noqa: BLE001
            found.append(_error())
        finally:
            world.session.journal.close()
    books = world.session.state.books
    struck = Counter(kind for _, kind in world.plan.struck)
    fills = sum(len(fills) for fills in books.history.values())
    return Ran(seed, found, world.fate.died, struck, len(books.orders), fills, world.worst_bare)


def lived(world: ChaosWorld) -> Iterator[Finding]:
    """A day, what is wrong at its end, and what restarts change: nothing but that another session begins."""
    world.live(world.draw.rows)
    world.calm_down()
    if world.draw.owner:  # what he did to assets that are nothing to the account may be booked at a start only
        world.restart()
        world.look(world.clock.now_ms(), (1,))
    yield from findings(world)
    for number in range(1, RESTARTS + 1):
        state = world.session.state
        before = state.seq, world.sent
        money = repr(state.stepper.account.as_tuple())
        world.restart()
        world.look(world.clock.now_ms(), (1,))
        state = world.session.state
        after = state.seq - 1, world.sent
        if world.owns_alone and (before, money) != (after, repr(state.stepper.account.as_tuple())):
            yield Finding("changed by a restart", f"restart {number}: {before} entries and orders, then {after}")
    yield from findings(world)


def _error() -> Finding:
    return Finding("error", traceback.format_exc())


class Progress:
    """How far it is: on a terminal one line that changes, otherwise one at each twentieth."""

    def __init__(self, runs: int) -> None:
        self.runs, self.done, self.wrong, self.began = runs, 0, 0, time.monotonic()
        self.died: Counter[str] = Counter()
        self.struck: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.orders = self.fills = self.worst_bare = 0

    def add(self, ran: Ran) -> None:
        self.done += 1
        self.died.update(ran.died)
        self.struck.update(ran.struck)
        self.orders, self.fills = self.orders + ran.orders, self.fills + ran.fills
        self.worst_bare = max(self.worst_bare, ran.worst_bare)
        self.found.update(finding.kind for finding in ran.findings)
        if ran.findings:
            self.wrong += 1
            _say("\n".join(f"seed {ran.seed}: {finding.kind}: {finding.what}" for finding in ran.findings))
        self._show()

    def _show(self) -> None:
        passed_s = time.monotonic() - self.began
        left_s = passed_s / self.done * (self.runs - self.done)
        line = f"{self.done} of {self.runs} runs, {self.died.total()} kills, {self.wrong} wrong; {left_s:.0f} s left"
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{line}\x1b[K" + ("\n" if self.done == self.runs else ""))
        elif self.done % max(1, self.runs // 20) == 0:
            _say(line)

    def summary(self) -> str:
        passed_s = time.monotonic() - self.began
        lines = [
            f"{self.done} runs in {passed_s:.0f} s: {self.died.total()} kills at {len(self.died)} kinds of boundary, "
            f"{self.struck.total()} faults of {len(self.struck)} kinds, {self.orders} orders, {self.fills} fills",
            ", ".join(f"{kind}: {self.found[kind]}" for kind in KINDS),
            f"checks in a row, each disturbed, that left a position without its stop: {self.worst_bare} at most",
        ]
        return "\n".join(lines)


def _say(line: str) -> None:
    sys.stderr.write(("\r\x1b[K" if sys.stderr.isatty() else "") + line + "\n")


@contextlib.contextmanager
def fresh(url: str, seed: int) -> Iterator[Where]:
    """An empty database, for as long as the context lasts."""
    base, name = url.rpartition("/")[0], f"chaos_{os.getpid()}_{seed}"
    with connect(from_url(f"{base}/postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"')
        connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')  # the server is not killed
        try:
            yield from_url(f"{base}/{name}")
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def one(seed: int, url: str, without: str = "", owner: float = 0.0) -> Ran:
    """In a process of its own, which serves many."""
    for guard in [without] if without else []:
        GUARDS[guard].switch_off(pytest.MonkeyPatch())
    signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(LONGEST_S)
    try:
        with fresh(url, seed) as where:
            return run(seed, where, owner)
    finally:
        signal.alarm(0)


def _hangs(number: int, frame: FrameType | None) -> None:
    raise Hang(f"not at its end after {LONGEST_S} s")


def many(server: Postgres, seeds: Sequence[int], jobs: int, without: str = "", owner: float = 0.0) -> Progress:
    """All of them, or as many as there were until it was interrupted."""
    server.database()  # makes the template
    progress = Progress(len(seeds))
    work = functools.partial(one, url=server.url(TEMPLATE), without=without, owner=owner)
    with (
        multiprocessing.get_context("spawn").Pool(jobs, _leave_interrupts, maxtasksperchild=500) as pool,
        contextlib.suppress(KeyboardInterrupt),
    ):
        for ran in pool.imap_unordered(work, seeds):
            progress.add(ran)
    return progress


def _leave_interrupts() -> None:
    """To the process that counts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="of the runs; default 0")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--without", default="", choices=GUARDS, metavar="GUARD", help=f"switch one off: {', '.join(GUARDS)}"
    )
    parser.add_argument(
        "--owner", type=float, default=0.0, metavar="SHARE", help="in each an owner acts so often: 0.2 is very often"
    )
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends its server, too
    with tempfile.TemporaryDirectory() as folder, postgres(Path(folder)) as server:
        seeds = range(asked.first, asked.first + asked.runs)
        progress = many(server, seeds, asked.jobs, asked.without, asked.owner)
    sys.stdout.write(progress.summary() + "\n")
    return 1 if progress.found else 130 if progress.done < progress.runs else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
