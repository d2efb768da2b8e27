"""The file HALT: who is halted by it, how it ends, and that whatever is in it is taken at its word."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from atb.execution import halt_file
from atb.execution.halt_file import EVERY, NAME, HaltFile


def test_an_account_is_halted_until_its_halt_is_ended(tmp_path: Path) -> None:
    home = tmp_path / "not there yet"
    assert halt_file.read(home) == [] and halt_file.blocks(home, "main") == ""
    halt_file.write(home, "main", by="ann", reason="odd fills")
    why = halt_file.blocks(home, "main")
    assert "ann" in why and "odd fills" in why
    assert halt_file.blocks(home, "other") == ""
    assert (home / NAME).stat().st_mode & 0o077 == 0
    assert halt_file.clear(home, "other") == "" and halt_file.blocks(home, "main")
    assert halt_file.clear(home, "main") == "" and not (home / NAME).exists()


def test_a_halt_of_all_is_ended_as_such(tmp_path: Path) -> None:
    halt_file.write(tmp_path, EVERY, by="ann", reason="fire")
    halt_file.write(tmp_path, "main", by="bob", reason="odd")
    assert "fire" in halt_file.blocks(tmp_path, "any")
    assert "fire" in halt_file.clear(tmp_path, "main")
    assert halt_file.clear(tmp_path, EVERY) == "" and not (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"wait for me\n", b"{", b"[]", b'{"account": "main"}', b"\xff\xfe", b"null"]
)
def test_whatever_it_says_halts_all(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    assert halt_file.blocks(tmp_path, "main")
    assert HaltFile(tmp_path, "main").why()
    halt_file.write(tmp_path, "other", by="ann", reason="odd")  # keeps what it says
    assert halt_file.blocks(tmp_path, "main")


def test_what_cannot_be_read_halts_all(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    assert "cannot be read" in halt_file.blocks(tmp_path, "main") and HaltFile(tmp_path, "main").why()


def test_it_is_seen_at_once(tmp_path: Path) -> None:
    seen = HaltFile(tmp_path, "main")
    assert seen.why() == ""
    halt_file.write(tmp_path, "main", by="ann", reason="one")
    assert "one" in seen.why()
    halt_file.write(tmp_path, "main", by="ann", reason="two")
    assert "two" in seen.why()
    halt_file.clear(tmp_path, "main")
    assert seen.why() == ""
    (tmp_path / NAME).touch()
    assert seen.why()


def test_many_who_halt_at_once_are_all_heard(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: halt_file.write(tmp_path, f"a{n}", by="ann", reason="odd"), range(24)))
    assert {halt.account for halt in halt_file.read(tmp_path)} == {f"a{n}" for n in range(24)}


def test_a_full_disk_has_room_for_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    halt_file.write(tmp_path, "main", by="ann", reason="odd")
    assert halt_file.blocks(tmp_path, "main") and sorted(p.name for p in tmp_path.iterdir()) == [".HALT.lock", NAME]
