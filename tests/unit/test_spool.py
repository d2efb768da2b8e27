"""The spool: every byte of it may be the last that a crash left, and what it held is merged once, in order, or kept aside."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from atb.core.errors import DatabaseUnavailable, Fenced, UsageError
from atb.execution.spool import Spool, chain_of
from atb.ledger.accounts import AccountRow
from atb.ledger.entries import Entry, encode

AT = datetime(2025, 11, 21, 12, tzinfo=UTC)
ACCOUNT = AccountRow(1, "binance/main: ü", "binance", "spot", "real", "USDT", "1f2e", "1763726400.000000")


def entry(number: int) -> Entry:
    body = {"client_order_id": f"atb-{number}", "state": "open", "at": AT, "qty": Decimal("0.10"), "text": 'é"\n\0'}
    return Entry(f"order:{number}", "order", AT, body, 7 if number % 2 else None)


def texts(entries: Sequence[Entry]) -> list[tuple[object, ...]]:
    return [(e.id, e.kind, e.at, e.session_id, encode(e.body)) for e in entries]


class Ledger:
    """What a merge appends to; refuses the ids that it is told to."""

    def __init__(self, *refused: str) -> None:
        self.entries: list[Entry] = []
        self.refused = refused

    def append(self, entries: Sequence[Entry]) -> None:
        if bad := [e.id for e in entries if e.id in self.refused]:
            raise UsageError(f"{bad[0]} contradicts.")
        known = {e.id for e in self.entries}
        self.entries += [e for e in entries if e.id not in known]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.of(tmp_path, ACCOUNT)


def test_what_was_written_is_merged_in_order_and_forgotten(spool: Spool) -> None:
    assert spool.read() == [] and spool.merge(Ledger().append).entries == 0
    entries = [entry(n) for n in range(5)]
    spool.write(entries[:2])
    spool.write(entries[2:])
    assert spool.waits and texts(spool.read()) == texts(entries)
    assert spool.path.stat().st_mode & 0o077 == 0 and spool.path.parent.stat().st_mode & 0o077 == 0
    ledger = Ledger()
    assert spool.merge(ledger.append) == (5, [])
    assert texts(ledger.entries) == texts(entries)
    assert not spool.path.exists()


def test_a_file_cut_anywhere_has_all_whole_lines(spool: Spool) -> None:
    entries = [entry(n) for n in range(3)]
    spool.write(entries)
    content = spool.path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == 10]
    for length in range(len(content)):
        spool.path.write_bytes(content[:length])
        whole = sum(end <= length for end in ends)
        assert texts(spool.read()) == texts(entries[:whole])
        if length % 50 == 0:
            spool.write([entry(9)])  # begins a line of its own
            assert texts(spool.read()) == texts([*entries[:whole], entry(9)])


def test_a_damaged_line_is_kept_aside_and_the_others_are_merged(spool: Spool) -> None:
    spool.write([entry(n) for n in range(3)])
    lines = spool.path.read_bytes().splitlines(keepends=True)
    spool.path.write_bytes(lines[0] + lines[1].replace(b"open", b"fill") + lines[2])
    ledger = Ledger()
    merged = spool.merge(ledger.append)
    assert merged.entries == 2 and "checksum" in merged.refused[0].why
    assert [e.id for e in ledger.entries] == ["order:0", "order:2"]
    assert "order:1" in spool.refused_path.read_text()


def test_what_contradicts_is_kept_aside_with_its_reason(spool: Spool) -> None:
    spool.write([entry(n) for n in range(4)])
    ledger = Ledger("order:2")
    merged = spool.merge(ledger.append)
    assert merged.entries == 3 and merged.refused == [("order:2", "order:2 contradicts.")]
    assert [e.id for e in ledger.entries] == ["order:0", "order:1", "order:3"]
    assert "order:2 contradicts." in spool.refused_path.read_text() and not spool.waits


@pytest.mark.parametrize("error", [DatabaseUnavailable("gone"), Fenced("another")])
def test_what_could_not_be_merged_stays(spool: Spool, error: Exception) -> None:
    def fails(entries: Sequence[Entry]) -> None:
        raise error

    spool.write([entry(1)])
    with pytest.raises(type(error)):
        spool.merge(fails)
    assert texts(spool.read()) == texts([entry(1)])


def test_what_is_added_during_a_merge_stays(spool: Spool) -> None:
    ledger = Ledger()

    def append(entries: Sequence[Entry]) -> None:
        ledger.append(entries)
        spool.write([entry(2)])

    spool.write([entry(1)])
    spool.merge(append)
    assert texts(spool.read()) == texts([entry(2)])
    spool.merge(ledger.append)
    assert texts(ledger.entries) == texts([entry(1), entry(2)])


def test_two_who_merge_at_once(spool: Spool) -> None:
    """The second one reads while the first appends, and comes to its end after it: nothing is lost, nothing is doubled."""
    ledger = Ledger()

    def append(entries: Sequence[Entry]) -> None:
        ledger.append(entries)
        if spool.waits:
            Spool.of(spool.path.parents[1], ACCOUNT).merge(ledger.append)
            spool.write([entry(2)])

    spool.write([entry(1)])
    spool.merge(append)
    spool.merge(ledger.append)
    assert texts(ledger.entries) == texts([entry(1), entry(2)])


def test_another_database_has_another_spool(spool: Spool, tmp_path: Path) -> None:
    other = Spool.of(tmp_path, ACCOUNT._replace(created="1763726400.000001"))
    spool.write([entry(1)])
    assert not other.waits
    other.write([entry(2)])
    other.path.replace(spool.path)  # somebody moves files about
    merged = spool.merge(Ledger().append)
    assert merged.entries == 0 and "another database" in merged.refused[0].why


def test_a_full_disk_leaves_no_half_line(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.write([entry(1)])
    before = spool.path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(DatabaseUnavailable, match=r"cannot be written: No space left on device\. Nothing was sent"):
            spool.write([entry(2)])
    assert spool.path.read_bytes() == before
    assert chain_of(ACCOUNT)[:8] in spool.path.name


def writer(home: str, first: int) -> None:
    for number in range(first, first + 40):
        Spool.of(Path(home), ACCOUNT).write([entry(number)])


def test_processes_that_write_at_once(spool: Spool, tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    workers = [context.Process(target=writer, args=(str(tmp_path), n * 100)) for n in range(3)]
    for worker in workers:
        worker.start()
    ledger = Ledger()
    while any(worker.is_alive() for worker in workers):
        spool.merge(ledger.append)
    spool.merge(ledger.append)
    assert sorted(e.id for e in ledger.entries) == sorted(f"order:{n + i}" for n in (0, 100, 200) for i in range(40))
