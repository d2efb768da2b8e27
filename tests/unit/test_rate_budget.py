"""One budget for all processes of a machine: shares, windows, silence, and what happens when the file is not usable."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from atb.venue import rate_budget
from atb.venue.rate_budget import LONGEST_SILENCE_S, Limit, Priority, RateBudget

MINUTE = Limit(1000, 60)
NOW = 1_700_000_040.0  # begins a minute


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def budget(folder: Path | None, clock: Clock, name: str = "api.binance.com") -> RateBudget:
    return RateBudget(folder, name, MINUTE, clock)


def fill(one: RateBudget, priority: Priority) -> int:
    """Takes in tens until there is no more; how much that was."""
    taken = 0
    while one.take(10, priority) == 0:
        taken += 10
    return taken


@pytest.mark.parametrize("shared", [True, False])
def test_the_urgent_may_fill_what_others_must_leave(tmp_path: Path, shared: bool) -> None:
    one = budget(tmp_path if shared else None, Clock(NOW + 20))
    assert [fill(one, p) for p in reversed(Priority)] == [500, 200, 150, 150]
    assert one.take(1, Priority.PROTECT) == 40.0


def test_a_window_begins_empty(tmp_path: Path) -> None:
    clock = Clock()
    one = budget(tmp_path, clock)
    assert fill(one, Priority.DATA) == 500
    clock.now += 59.9
    assert one.take(1, Priority.DATA) == pytest.approx(0.1)
    clock.now += 0.2
    assert fill(one, Priority.DATA) == 500


def test_others_at_this_address_count_and_are_forgotten_when_the_exchange_says_so(tmp_path: Path) -> None:
    clock = Clock()
    one = budget(tmp_path, clock)
    one.take(10, Priority.DATA)
    one.note(400, NOW)  # ours are 10 of them
    assert fill(one, Priority.DATA) == 100
    one.note(5, NOW)
    assert fill(one, Priority.DATA) == 390
    clock.now += 60
    one.note(990, NOW)  # an answer to a request of the window before
    assert fill(one, Priority.DATA) == 500


def test_silence_holds_for_everybody_and_all_priorities(tmp_path: Path) -> None:
    clock = Clock(NOW + 10)
    one, other = budget(tmp_path, clock), budget(tmp_path, clock)
    one.silence(90)
    one.silence(5)  # does not end the longer one
    assert other.take(1, Priority.PROTECT) == 90
    assert budget(tmp_path, clock, "another.host").take(1, Priority.DATA) == 0
    clock.now += 90
    assert other.take(1, Priority.PROTECT) == 0
    one.silence(0)
    assert other.take(1, Priority.PROTECT) == 60 - 40
    one.silence(10**9)
    assert other.take(1, Priority.PROTECT) == LONGEST_SILENCE_S


def test_a_clock_that_was_wrong_silences_nobody_for_ever(tmp_path: Path) -> None:
    clock = Clock(NOW + 10**8)
    one = budget(tmp_path, clock)
    one.silence(60)
    clock.now = NOW
    assert one.take(1, Priority.DATA) == 0


def test_what_is_larger_than_its_share_goes_alone(tmp_path: Path) -> None:
    one = budget(tmp_path, Clock())
    assert one.take(900, Priority.DATA) == 0
    assert one.take(1, Priority.DATA) > 0


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 200, b"atb1" + bytes(36)])
def test_a_damaged_file_is_written_anew(tmp_path: Path, content: bytes) -> None:
    clock = Clock()
    one = budget(tmp_path, clock)
    assert fill(one, Priority.DATA) == 500
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert one.take(10, Priority.DATA) > 0, "what this process took itself it still knows"
    assert budget(tmp_path, clock).take(10, Priority.DATA) == 0
    assert one.take(490, Priority.DATA) == 0, "and the file is whole again"


def test_a_file_that_was_removed_is_made_again(tmp_path: Path) -> None:
    clock = Clock()
    one = budget(tmp_path / "rates", clock)
    one.take(100, Priority.DATA)
    (tmp_path / "rates/api.binance.com").unlink()
    (tmp_path / "rates").rmdir()
    one.take(100, Priority.DATA)
    assert (tmp_path / "rates/api.binance.com").is_file()
    assert fill(budget(tmp_path / "rates", clock), Priority.DATA) == 300


def test_where_no_file_can_be_each_counts_for_itself(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    one = budget(tmp_path / "file/below", Clock())
    assert fill(one, Priority.DATA) == 500
    (tmp_path / "api.binance.com").mkdir()
    assert fill(budget(tmp_path, Clock()), Priority.DATA) == 500


def test_a_holder_that_stands_still_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_budget, "LOCK_PATIENCE_S", 0.01)
    one = budget(tmp_path, Clock())
    one.take(100, Priority.DATA)
    with (tmp_path / "api.binance.com").open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert fill(one, Priority.DATA) == 400


# --- real processes

TAKER = """
import sys
from pathlib import Path
from atb.venue.rate_budget import Limit, Priority, RateBudget
budget = RateBudget(Path(sys.argv[1]), "host", Limit(20_000, 10**7))
print("ready", flush=True)
sys.stdin.readline()
taken = 0
while budget.take(1, Priority.PROTECT) == 0:
    taken += 1
    if len(sys.argv) > 2:
        print(1, flush=True)
print(taken)
"""


def taker(folder: Path, *more: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", TAKER, str(folder), *more]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_processes_together_take_what_there_is_and_not_one_more(tmp_path: Path) -> None:
    running = [taker(tmp_path) for _ in range(4)]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()  # ready
    for process in running:
        begin(process)
    taken = [int(process.communicate(timeout=120)[0].split()[-1]) for process in running]
    assert sum(taken) == 20_000
    assert min(taken) > 0, "they took turns"


def test_a_killed_process_leaves_no_lock_and_a_whole_file(tmp_path: Path) -> None:
    for n in range(5):
        process = taker(tmp_path, "tell")
        begin(process)
        assert process.stdout is not None and process.stdin is not None
        for _ in range(50 + 37 * n):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        process.stdin.close()
        one = RateBudget(tmp_path, "host", Limit(20_000, 10**7))
        began = time.monotonic()
        assert one.take(1, Priority.DATA) == 0
        assert time.monotonic() - began < 0.05
    assert one._own.taken > 5 * 50


def test_a_forked_child_has_a_lock_of_its_own(tmp_path: Path) -> None:
    one = RateBudget(tmp_path, "host", Limit(10**6, 10**7))
    one.take(1, Priority.DATA)
    child = os.fork()
    for _ in range(2000):
        one.take(1, Priority.DATA)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    one.take(1, Priority.DATA)
    assert one._own.taken == 4002
