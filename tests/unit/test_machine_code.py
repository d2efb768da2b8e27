"""Machine code on disk: used when it is ours and whole, made anew otherwise, and never in the way of a result."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from atb.engine import compiler, machine_code


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """How often the loop is compiled, in a process that has not linked it yet."""
    times: list[bytes] = []
    real = compiler.compile_kernel

    def counted() -> bytes:
        times.append(times[0] if times else real())
        return times[0]

    monkeypatch.setattr(compiler, "compile_kernel", counted)
    monkeypatch.setattr(machine_code, "_loaded", {})
    yield times
    assert times, "nothing was compiled: the test shows nothing"


def load_anew(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_code, "_loaded", {})
    assert callable(machine_code.load(cache))


@pytest.mark.slow
def test_what_must_not_be_trusted_is_compiled_anew(
    tmp_path: Path, compiled: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_anew(tmp_path, monkeypatch)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    load_anew(tmp_path, monkeypatch)
    assert len(compiled) == 1
    for damaged in (b"", whole[:-1], whole[:40] + b"\0" + whole[41:], whole + b"\0"):
        file.write_bytes(damaged)
        load_anew(tmp_path, monkeypatch)
        assert file.read_bytes() == whole
    assert len(compiled) == 5
    file.chmod(0o666)
    load_anew(tmp_path, monkeypatch)
    assert len(compiled) == 6
    assert file.stat().st_mode & 0o777 == 0o600


def test_other_versions_keep_theirs_and_leftovers_go(
    tmp_path: Path, compiled: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [tmp_path / f"kernel-{i:016}-0.o" for i in range(3)] + [tmp_path / "kernel-0-0.o.4711"]
    for age, other in enumerate(others):
        other.write_bytes(b"x")
        os.utime(other, (1_000_000 - age, 1_000_000 - age))
    monkeypatch.setattr(machine_code, "_loaded", {})
    assert not machine_code.is_ready(tmp_path)  # they are others'
    load_anew(tmp_path, monkeypatch)
    assert [other.exists() for other in others] == [True, True, True, False]
    monkeypatch.setattr(machine_code, "_loaded", {})
    assert machine_code.is_ready(tmp_path)


def test_a_cache_that_cannot_be_written_costs_time_only(
    tmp_path: Path, compiled: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a file, not a folder"
    file.touch()
    load_anew(file, monkeypatch)
    load_anew(file / "below", monkeypatch)
    assert len(compiled) == 2
