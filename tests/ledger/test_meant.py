"""Which database was used last is remembered in a file: whole or not at all, and never a reason to fail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atb.core.errors import UsageError
from atb.ledger.connect import Where, from_url
from atb.ledger.meant import OWN, other_than_meant, refuse_other, remember

THERE = from_url("postgresql://trader:secret@db.example:5433/ledger")
OWN_WHERE = Where("", "postgresql://trading_bot@127.0.0.1:5432/ai_trading_bot", embedded=True)


def test_it_is_remembered_without_its_password_for_its_owner_only(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    remember(home, THERE)
    (path,) = home.iterdir()
    assert path.read_text() == "postgresql://trader@db.example:5433/ledger\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert other_than_meant(home, THERE) is None and other_than_meant(home, OWN_WHERE) == THERE.shown
    with pytest.raises(UsageError, match=r"the one used last is postgresql://trader@db\.example"):
        refuse_other(home, OWN_WHERE)
    remember(home, OWN_WHERE)
    assert list(home.iterdir()) == [path] and path.read_text() == f"{OWN}\n"
    refuse_other(home, OWN_WHERE)


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "database").mkdir()
    remember(tmp_path, THERE)
    assert [path.name for path in tmp_path.iterdir()] == ["database"]
    assert other_than_meant(tmp_path, THERE) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write into another user's folder")
def test_what_root_remembers_in_a_users_folder_is_that_users(tmp_path: Path) -> None:
    os.chown(tmp_path, 4321, 4322)
    remember(tmp_path, THERE)
    there = (tmp_path / "database").stat()
    assert (there.st_uid, there.st_gid) == (4321, 4322)


@pytest.mark.parametrize("left", [b"", b"\xff\xfe", b" \n"])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "database").write_bytes(left)
    assert other_than_meant(tmp_path, THERE) is None
    refuse_other(tmp_path, OWN_WHERE)
    remember(tmp_path, THERE)
    assert other_than_meant(tmp_path, OWN_WHERE) == THERE.shown
