"""Streams that end early, and disks that are full."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.shell import ATB, RUN, SHORT, Shell, stable


def test_a_reader_that_leaves_is_no_error(shell: Shell) -> None:
    process = shell.start(*RUN, *SHORT, "--json")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(20).startswith("{")
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(30) == 0


def test_a_full_disk_behind_stdout_is_told(shell: Shell) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [ATB, *RUN, "--json"],
            cwd=shell.work,
            env=shell.env,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 3
    assert done.stderr == "Error: The output cannot be read or written: No space left on device.\n"


@pytest.mark.parametrize("args", [("--help",), ("--version",), ("data", "gaps", "--help")])
def test_help_and_version_on_a_full_disk_are_told_too(shell: Shell, args: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [ATB, *args], cwd=shell.work, env=shell.env, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 3
    assert done.stderr == "Error: The output cannot be read or written: No space left on device.\n"


def test_a_full_disk_behind_stderr_leaves_the_exit_code(shell: Shell) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([ATB, *RUN, "--fraction", "7"], cwd=shell.work, env=shell.env, stderr=full, check=False)
    assert done.returncode == 2


def test_an_interruption_while_the_command_line_is_being_imported_is_one_line(shell: Shell) -> None:
    """Ctrl-C in the first milliseconds: here from within an import, which is where they go."""
    shell.write(
        "early/typer/__init__.py", "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n"
    )
    ran = shell("--version", env={"PYTHONPATH": str(shell.work / "early")})
    assert ran == (130, "", "Error: Interrupted.\n")


def test_a_result_is_printed_although_its_files_cannot_be_written(shell: Shell) -> None:
    process = shell.start(*RUN, *SHORT, "--json", "--export", "report", preexec_fn=no_file_over_1_kb, env=NO_BYTECODE)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 3 and "Error: report cannot be written: File too large." in err
    assert json.loads(out)["trades"] and not (shell.work / "report").exists()


@pytest.mark.parametrize("closed", [1, 2])
def test_a_stream_that_is_closed_is_no_failure(shell: Shell, closed: int) -> None:
    line = f"exec {ATB} {' '.join(RUN)} {closed}>&-"
    done = subprocess.run(
        ["/bin/sh", "-c", line], cwd=shell.work, env=shell.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


# Python does not notice that a .pyc was cut off, and would stumble over it ever after.
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}


def no_file_over_1_kb() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))


def no_file_over_100_bytes() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


def test_half_a_strategy_is_not_left_behind(shell: Shell) -> None:
    process = shell.start("strategies", "new", "my_idea", preexec_fn=no_file_over_100_bytes, env=NO_BYTECODE)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 3 and "strategies/my_idea.py cannot be written: File too large." in err
    assert list((shell.work / "strategies").iterdir()) == []
    shell("strategies", "new", "my_idea", ok=True)


def test_a_file_where_a_folder_should_be(shell: Shell) -> None:
    shell.write("strategies", "")
    ran = shell("strategies", "new", "my_idea")
    assert ran.code == 3 and ran.message.startswith("strategies/my_idea.py cannot be written")
    assert shell("strategies", "list", ok=True).out.startswith("name\t")


def test_candles_that_do_not_fit_leave_nothing_behind(shell: Shell) -> None:
    process = shell.start(
        "data", "import", "candles.csv", "--symbol", "BTCUSDT", preexec_fn=no_file_over_1_kb, env=NO_BYTECODE
    )
    _, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "Error: Candles cannot be stored in" in err and "ATB_HOME" in err
    assert [p.name for p in shell.home.rglob("*") if p.is_file()] == [".lock"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("a file system cannot be mounted here: the test of a full disk did NOT run")
    yield folder
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=False)
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(shell: Shell, tiny_disk: Path) -> None:
    ran = shell("data", "import", "candles.csv", "--symbol", "BTCUSDT", env={"ATB_HOME": str(tiny_disk)})
    assert ran.code == 3 and "No space left on device" in ran.message
    assert [p.name for p in tiny_disk.rglob("*") if p.is_file()] == [".lock"]
    exported = shell(*RUN, *SHORT, "--export", tiny_disk / "report")
    assert exported.code == 3 and "No space left on device" in exported.message


def test_a_read_only_disk(shell: Shell, tiny_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    at = {"ATB_HOME": str(tiny_disk), "ATB_CACHE": str(tiny_disk)}
    ran = shell("data", "import", "candles.csv", "--symbol", "BTCUSDT", env=at)
    assert ran.code == 3 and "Read-only file system" in ran.message
    exported = shell(*RUN, "--export", tiny_disk / "report", env=at)
    assert exported.code == 3 and "Read-only file system" in exported.message
    assert stable(shell(*RUN, "--json", env=at)) == stable(shell(*RUN, "--json"))  # caches cost time, not the result
