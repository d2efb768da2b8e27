"""What could not be written to the ledger yet, in a local file: one entry a line, each on disk before anything follows from it.

Merged by id, in order, before anything else is appended: an entry that is in the ledger already is left out, so a merge that
was interrupted is done again. What contradicts the ledger is kept in a file beside it, with the reason. A line that was cut by a
crash at the end of the file is no entry: nothing had followed from it.

The entries are facts, whoever has authority by then: they are merged in the name of whoever merges them. The hash of all that
an account is (ledger.entries.genesis) is in the name of its file and in each line: no spool finds its way into another database.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from atb.core.errors import DatabaseUnavailable, UsageError
from atb.core.local_files import PRIVATE, locked, replace, sync_folder
from atb.ledger.accounts import AccountRow
from atb.ledger.entries import Entry, encode, genesis, utc_text

FOLDER = "spool"


class Refused(NamedTuple):
    """An entry that the ledger does not take, and why."""

    entry_id: str
    why: str


class Merged(NamedTuple):
    """What became of a spool. entries: how many were merged."""

    entries: int = 0
    refused: Sequence[Refused] = ()


class Spool:
    """The spool of one account. Any number of processes of this host may use it."""

    def __init__(self, home: Path, account: str, chain: str) -> None:
        name = f"{quote(account, safe=' ')}.{chain[:8]}"
        folder = home / FOLDER
        self.path, self.refused_path = folder / f"{name}.jsonl", folder / f"{name}.refused.jsonl"
        self.lock_path, self.chain = folder / f".{name}.lock", chain

    @classmethod
    def of(cls, home: Path, account: AccountRow) -> Spool:
        return cls(home, account.name, chain_of(account))

    @property
    def waits(self) -> bool:
        """Whether something is to be merged."""
        try:
            return self.path.stat().st_size > 0
        except OSError:
            return False

    def write(self, entries: Sequence[Entry]) -> None:
        """On disk when this returns. DatabaseUnavailable where that cannot be: then nothing of it counts."""
        content = b"".join(_line(self.chain, entry) for entry in entries)
        try:
            with locked(self.lock_path):
                self._add(self.path, content)
        except OSError as error:
            raise DatabaseUnavailable(
                f"The database is out, and {self.path} cannot be written: {error.strerror}. Nothing was sent.",
                "Make room there. Stops that rest at the exchange go on.",
            ) from None

    def read(self) -> list[Entry]:
        """What is to be merged, in order."""
        return [line.entry for line in self._parsed(self._content()) if line.entry is not None]

    def merge(self, append: Callable[[Sequence[Entry]], object]) -> Merged:
        """Append what is there. Whatever `append` raises leaves the file as it is, but for a UsageError: that entry is
        refused, and kept aside."""
        with locked(self.lock_path):
            content = self._content()
        lines = self._parsed(content)
        entries = [line.entry for line in lines if line.entry is not None]
        refused = [(line, Refused("?", line.why)) for line in lines if line.why]
        if entries:
            refused += [(_Line(_line(self.chain, entry), entry), why) for entry, why in _append(entries, append)]
        with locked(self.lock_path):
            self._drop(content, refused)
        return Merged(len(entries) - sum(line.entry is not None for line, _ in refused), [why for _, why in refused])

    def _content(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    def _parsed(self, content: bytes) -> list[_Line]:
        """The lines, and what is wrong with them; not the end of a file that was cut."""
        lines = content.splitlines(keepends=True)
        return [_parse(line, self.chain) for line in lines if line.endswith(b"\n")]

    def _add(self, path: Path, content: bytes) -> None:
        """At the end of a file, after its last whole line; all of it or nothing."""
        is_new = not path.exists()
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        try:
            size = _whole_lines(handle)
            os.ftruncate(handle, size)
            try:
                _write(handle, size, content)
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, size)
                raise
        finally:
            os.close(handle)
        if is_new:
            sync_folder(path.parent)

    def _drop(self, merged: bytes, refused: Sequence[tuple[_Line, Refused]]) -> None:
        """Forget what was merged, unless another process did so before; what was added meanwhile stays."""
        content = self._content()
        if not merged or not content.startswith(merged):
            return
        if refused:
            told = [json.dumps({"why": why.why, "line": line.text.decode(errors="replace")}) for line, why in refused]
            self._add(self.refused_path, "".join(text + "\n" for text in told).encode())
        rest = content[len(merged) :]
        if rest:
            replace(self.path, rest)
        else:
            self.path.unlink(missing_ok=True)


class _Line(NamedTuple):
    """A line as it is, its entry, or why it is none."""

    text: bytes
    entry: Entry | None
    why: str = ""


def chain_of(account: AccountRow) -> str:
    return genesis(account).hex()[:24]


def _append(
    entries: Sequence[Entry], append: Callable[[Sequence[Entry]], object]
) -> list[tuple[Entry, Refused]]:  # fmt: skip
    """All at once; where the ledger refuses that, one by one. Returns those that it does not take."""
    try:
        append(entries)
        return []
    except UsageError:
        pass
    refused = []
    for entry in entries:
        try:
            append([entry])
        except UsageError as error:
            refused.append((entry, Refused(entry.id, error.what)))
    return refused


def _line(chain: str, entry: Entry) -> bytes:
    told = {
        "chain": chain, "id": entry.id, "kind": entry.kind, "at": utc_text(entry.at), "session_id": entry.session_id,
        "body": encode(entry.body),
    }  # fmt: skip
    text = json.dumps(told)
    return f'{{"sum":"{_sum(text)}","entry":{text}}}\n'.encode()


def _parse(line: bytes, chain: str) -> _Line:
    try:
        told: dict[str, Any] = json.loads(line)["entry"]
        if line != f'{{"sum":"{_sum(json.dumps(told))}","entry":{json.dumps(told)}}}\n'.encode():
            return _Line(line, None, "its checksum is wrong")
        if told["chain"] != chain:
            return _Line(line, None, "it is of another account, or of another database")
        at, body = datetime.fromisoformat(told["at"]), json.loads(told["body"])
        return _Line(line, Entry(told["id"], told["kind"], at, body, told["session_id"]))
    except (ValueError, LookupError, TypeError, RecursionError):
        return _Line(line, None, "it is damaged")


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _whole_lines(handle: int) -> int:
    """The length of a file up to the end of its last whole line."""
    size = os.fstat(handle).st_size
    content = os.pread(handle, size, 0)
    return content.rfind(b"\n") + 1


def _write(handle: int, at: int, content: bytes) -> None:
    while content:
        count = os.pwrite(handle, content, at)
        content, at = content[count:], at + count
