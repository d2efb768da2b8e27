"""The engines of this host: found by their files, ended by pid, and never another process in their stead."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from atb.core.errors import UsageError
from atb.core.process import this_process
from atb.execution.engines import Engine, end, end_all, living, registered
from tests.database import Postgres
from tests.engine_process import Running

Start = Callable[..., Running]


@pytest.fixture
def start(server: Postgres, tmp_path: Path) -> Iterator[Start]:
    """Starts an engine's process on the account of that name, registered in tmp_path."""
    url = server.url(server.database())
    with ExitStack() as stack:
        yield lambda account, **options: stack.enter_context(Running(url, account, tmp_path, **options))


def files(home: Path) -> list[Path]:
    return sorted((home / "engines").iterdir())


def test_an_engine_is_known_from_its_start_to_its_end(tmp_path: Path) -> None:
    assert living(tmp_path) == []
    with registered(tmp_path, account="paper:one", session_id=7, database="postgresql://h/d", health_port=8000) as mine:
        assert living(tmp_path) == [mine]
        assert (mine.process, mine.account, mine.session_id, mine.health_port) == (
            this_process(), "paper:one", 7, 8000,
        )  # fmt: skip
        [path] = files(tmp_path)
        assert path.name.startswith(f"{os.getpid()}-") and stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) & 0o077 == 0
    assert files(tmp_path) == [] and living(tmp_path) == []


def test_a_file_is_removed_when_its_engine_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), registered(tmp_path, account="a", session_id=1, database=""):
        raise ZeroDivisionError
    assert files(tmp_path) == []


def test_the_file_of_a_killed_engine_stays_until_another_has_its_account(start: Start, tmp_path: Path) -> None:
    """It is how health knows that one is missing."""
    first, second = start("paper:one", session_id=3), start("paper:two")
    first.until("holds")
    second.until("holds")
    expected = {(first.process.pid, "paper:one", 3), (second.process.pid, "paper:two", 0)}
    assert {(engine.pid, engine.account, engine.session_id) for engine in living(tmp_path)} == expected
    first.send(signal.SIGKILL)
    first.process.wait()
    assert [e.account for e in living(tmp_path)] == ["paper:two"] and len(files(tmp_path)) == 2
    start("paper:one", session_id=4).until("holds")
    assert {(e.account, e.session_id) for e in living(tmp_path)} == {("paper:one", 4), ("paper:two", 0)}
    assert len(files(tmp_path)) == 2


def rewritten(path: Path, **process: object) -> None:
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"process": told["process"] | process}))


def test_a_pid_that_was_given_to_another_process(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        with registered(tmp_path, account="a", session_id=1, database="") as mine:
            [path] = files(tmp_path)
            reused = mine._replace(process=mine.process._replace(pid=stranger.pid))
            assert end(reused, 0)  # there is nothing to be ended
            assert stranger.poll() is None
            rewritten(path, pid=stranger.pid)
            assert living(tmp_path) == [] and files(tmp_path) == [path]  # looking changes nothing
            with registered(tmp_path, account="a", session_id=2, database="") as second:
                assert living(tmp_path) == [second] and len(files(tmp_path)) == 1
        stranger.kill()


def test_files_that_mean_nothing_here(tmp_path: Path) -> None:
    """Of another container that shares the folder; of before the host was started; of nobody."""
    with registered(tmp_path, account="a", session_id=1, database="") as mine:
        [path] = files(tmp_path)
        boot = mine.process.place.partition("/")[0]
        other, older = path.with_name("1-other.json"), path.with_name("1-older.json")
        for target, process in ((other, {"place": f"{boot}/1/"}), (older, {"place": "another/1/"})):
            target.write_text(path.read_text())
            rewritten(target, **process)
        for number, text in enumerate(("", "{", "[]", "{}", '{"process": {"pid": "x"}}')):
            path.with_name(f"{number}.json").write_text(text)
        assert living(tmp_path) == [mine] and older.exists()
        with registered(tmp_path, account="a", session_id=2, database=""):
            assert other.exists() and not older.exists()  # only of what has certainly ended is the file swept


def test_one_that_ends_when_it_is_asked(start: Start, tmp_path: Path) -> None:
    running = start("paper:one", last_cycle_s=0.5)
    running.until("holds")
    [engine] = living(tmp_path)
    waited: list[float] = []
    assert end_all([engine], 30, lambda left, seconds: waited.append(seconds)) == []
    assert running.ended()[0] == 0 and max(waited) > 0.3
    assert files(tmp_path) == []
    assert end(engine, 0)  # once more is no error


@pytest.mark.parametrize("how", ["deaf", "stopped"])
def test_one_that_does_not_is_killed(start: Start, tmp_path: Path, how: str) -> None:
    running = start("paper:one", deaf=int(how == "deaf"))
    running.until("holds")
    if how == "stopped":
        running.send(signal.SIGSTOP)
    [engine] = living(tmp_path)
    assert end_all([engine], 0.3) == [engine]
    assert running.process.wait(10) == -signal.SIGKILL
    assert living(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_s_engine_is_seen_and_cannot_be_ended(start: Start, tmp_path: Path) -> None:
    running = start("paper:one")
    running.until("holds")
    [engine] = living(tmp_path)
    code = (
        "import os, sys; from atb.core.errors import UsageError; from atb.core.process import Process\n"
        "from atb.execution.engines import Engine, end\n"
        "os.setuid(65534)\n"
        "engine = Engine(Process(sys.argv[1], int(sys.argv[2]), *sys.argv[3:5]), 'paper:one', 1, '', None, '')\n"
        "assert not engine.process.is_gone\n"
        "try:\n  end(engine, 0)\nexcept UsageError as error:\n  sys.exit(error.what)\n"
    )
    process = engine.process
    command = [sys.executable, "-c", code, process.host, str(process.pid), process.started, process.place]
    done = subprocess.run(command, capture_output=True, text=True)
    assert f"(pid {process.pid}) is another user's" in done.stderr and running.process.poll() is None
    assert UsageError.exit_code == 2
    assert isinstance(engine, Engine)
