"""A dump on the disk: how it is written, and whether one that is read back is whole.

It is pg_dump's plain SQL, compressed, so that `gunzip -c FILE | psql` restores it. Two things are added: before the end,
SQL that stamps the restored database with the dump's id; after the end, a comment with what was dumped and the sha256 of
all that precedes it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from atb.core.errors import DataError, UsageError

NAME = re.compile(r"backup_(\d{8}_\d{6})(?:_(\d+))?\.sql\.gz")
END = b"\n--\n-- PostgreSQL database dump complete\n--\n"
END_LINE = b"-- PostgreSQL database dump complete\n"
STAMP = b"INSERT INTO public.backup_stamp (dump_id, "  # in each dump of atb's: then a trailer belongs to it
TRAILER = b"-- atb dump "
LINE_LIMIT = 1 << 20  # a damaged file may hold one line of gigabytes
TAIL = 1 << 16  # so much is held back while writing: the end is in it
LEVEL = 6

_TABLE = re.compile(rb"CREATE (?:UNLOGGED )?TABLE (.+?) \($")
_COPY = re.compile(rb"COPY .* FROM stdin;$")
_ELSEWHERE = re.compile(rb"(CREATE|DROP|ALTER) DATABASE |CREATE ROLE |\\c(onnect)?\b", re.IGNORECASE)
_HARMLESS = (b"\\restrict ", b"\\unrestrict ")


class Manifest(NamedTuple):
    """What was dumped. tables: rows and a sum over their contents by name. heads: seq and hash of each account's chain."""

    dump_id: str
    made_at: str
    revision: str
    server: str
    tables: dict[str, tuple[int, str | None]]
    heads: dict[str, tuple[int, str]]


class Checked(NamedTuple):
    """A file that is whole. No manifest: pg_dump made it, without atb."""

    path: Path
    manifest: Manifest | None
    tables: frozenset[str]


class DumpWriter:
    """Compresses a dump as it comes, in constant memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._out = gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=file)
        self._sha = hashlib.sha256()
        self._tail = b""

    def write(self, chunk: bytes) -> None:
        held = self._tail + chunk
        self._put(held[:-TAIL])
        self._tail = held[-TAIL:]

    def finish(self, more_sql: str, manifest: Manifest) -> bool:
        """Add the stamp before the end and the manifest after it. False when the end has not come."""
        before, end, after = self._tail.rpartition(END)
        if not end:
            return False
        stamp = f"'{manifest.dump_id}', '{manifest.made_at}', 'in_dump'"
        sql = STAMP + f"made_at, state) VALUES ({stamp});\n{more_sql}".encode()
        self._put(before + b"\n" + sql + end + after)
        facts = {**manifest._asdict(), "sha256": self._sha.hexdigest()}
        self._out.write(TRAILER + json.dumps(facts, separators=(",", ":")).encode() + b"\n")
        self._out.close()
        return True

    def _put(self, data: bytes) -> None:
        self._sha.update(data)
        self._out.write(data)


def lines_of(path: Path) -> Iterator[tuple[bytes, bool]]:
    """Each line, and whether it is a line of SQL: not data of a COPY, nor the rest of a very long line.

    A DataError for what is truncated or altered so that it cannot be unpacked.
    """
    copying, begins = False, True
    try:
        with _opened(path) as file:
            for line in iter(partial(file.readline, LINE_LIMIT), b""):
                yield line, begins and not copying
                if begins and not copying:
                    copying = bool(line.startswith(b"COPY ") and _COPY.match(line.rstrip(b"\n")))
                elif begins and line == b"\\.\n":
                    copying = False
                begins = line.endswith(b"\n")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = "it is truncated" if isinstance(error, EOFError) else f"it is damaged ({error})"
        raise DataError(f"{path} is no good: {reason}.", OLDER) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.", "See: ls -lt backups") from None


OLDER = "Take an older one: ls -lt backups"


def _opened(path: Path) -> IO[bytes]:
    """The file's text, whether compressed or not, whatever its name says."""
    file = path.open("rb")
    magic = file.read(5)
    file.seek(0)
    if magic == b"PGDMP":
        file.close()
        raise DataError(f"{path} is in pg_dump's own format, not SQL.", "Restore it with pg_restore.")
    if path.name.endswith(".gz") or magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=_Closing(file), mode="rb")  # type: ignore[return-value]
    return file


class _Closing:
    """GzipFile leaves open the file that it is given."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def check_dump(path: Path) -> Checked:
    """Read a dump to its end. A DataError says what is wrong with it."""
    sha, trailer, ended, ours, tables = hashlib.sha256(), b"", False, False, set()
    for line, is_sql in lines_of(path):
        if trailer:
            raise DataError(f"{path} is no good: something follows after its end.", OLDER)
        if is_sql and line.startswith(TRAILER):
            trailer = line
            continue
        sha.update(line)
        if is_sql:
            ended |= line == END_LINE
            ours |= line.startswith(STAMP)
            _refuse_commands(path, line)
            found = _TABLE.match(line.rstrip(b"\n")) if line.startswith(b"CREATE ") else None
            if found:
                tables.add(found[1].decode(errors="replace"))
    if not ended or (ours and not trailer):
        raise DataError(f"{path} is no good: the last line of a dump is missing, so it is truncated.", OLDER)
    manifest = _manifest(path, trailer, sha.hexdigest()) if trailer else None
    missing = sorted((manifest.tables.keys() if manifest else {"public.entries"}) - tables)
    if missing:
        raise DataError(f"{path} is no good: the table {missing[0]} is not in it.", OLDER)
    return Checked(path, manifest, frozenset(tables))


def _refuse_commands(path: Path, line: bytes) -> None:
    """A dump that would reach beyond its database must not be played into a scratch one."""
    if _ELSEWHERE.match(line):
        raise DataError(
            f"{path} is a dump of a whole server (pg_dumpall, or pg_dump --create): it would change other databases.",
            "Restore it with psql into a server of its own, or dump the database alone: atb db backup",
        )
    if line.startswith(b"\\") and not line.startswith(_HARMLESS):
        word = line[:30].decode(errors="replace").strip()
        raise DataError(f"{path} holds the psql command '{word}': it may be altered.", OLDER)


def _manifest(path: Path, trailer: bytes, digest: str) -> Manifest:
    try:
        facts = json.loads(trailer.removeprefix(TRAILER))
        expected = facts.pop("sha256")
        facts["tables"] = {name: tuple(value) for name, value in facts["tables"].items()}
        facts["heads"] = {name: tuple(value) for name, value in facts["heads"].items()}
        manifest = Manifest(**facts)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path} is no good: its last line is truncated or altered.", OLDER) from None
    if expected != digest:
        raise DataError(
            f"{path} was altered after it was written: its sha256 is another.",
            f"{OLDER} (If the change is meant: gunzip -c FILE | atb db psql)",
        )
    return manifest
