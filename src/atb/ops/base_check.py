"""Is a base backup whole? Each file is compared with the backup's own manifest (size and sha256), the WAL is read.

What Postgres' pg_verifybackup does; the one that comes with the embedded server's package crashes at once.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from atb.core.errors import DataError, UsageError
from atb.ledger.embedded import tool

# Written by the server or by us beside the manifest; pg_verifybackup leaves them out, too.
NOT_LISTED = ("backup_manifest", "postgresql.auto.conf", "recovery.signal", "standby.signal")
OLDER = "Take an older one: incremental.sh list"


class BaseBackup(NamedTuple):
    files: int
    size_bytes: int


def check_base(folder: Path) -> BaseBackup:
    """A DataError for the first file that is missing, altered or too many, or WAL that cannot be read."""
    files, ranges = _manifest(folder)
    total = 0
    for name, facts in files.items():
        path, size = folder / name, int(facts["Size"])
        total += size
        if not path.is_file():
            raise DataError(f"{folder} is no good: {name} is missing.", OLDER)
        if path.stat().st_size != size or _sha256(path) != facts["Checksum"]:
            raise DataError(f"{folder} is no good: {name} was altered.", OLDER)
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in files and name not in NOT_LISTED and not name.startswith("pg_wal/"):
            raise DataError(f"{folder} is no good: {name} does not belong to it.", "Remove it, then check again.")
    _check_wal(folder, ranges)
    return BaseBackup(len(files), total)


def _check_wal(folder: Path, ranges: list[dict[str, Any]]) -> None:
    """The WAL that makes the copy consistent. The manifest has no checksums of it; its records have their own."""
    reader, major = str(tool("pg_waldump")), (folder / "PG_VERSION").read_text().strip()
    known = subprocess.run([reader, "--version"], capture_output=True, text=True, check=False).stdout
    if f" {major}." not in known:
        return  # WAL of another version, which it cannot read
    for part in ranges:
        argv = [reader, "--quiet", f"--path={folder / 'pg_wal'}", f"--timeline={part['Timeline']}"]
        argv += [f"--start={part['Start-LSN']}", f"--end={part['End-LSN']}"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            line = (done.stderr.strip().splitlines() or ["pg_waldump failed"])[0]
            raise DataError(f"{folder} is no good: its WAL cannot be read ({line}).", OLDER)


def _manifest(folder: Path) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """The files that it lists, but for those of the WAL, and the ranges of WAL."""
    path = folder / "backup_manifest"
    try:
        text = path.read_bytes()
        manifest = json.loads(text)
        # The manifest's own checksum covers all before its last line.
        before = text[: text.rindex(b'"Manifest-Checksum"')]
        if hashlib.sha256(before).hexdigest() != manifest["Manifest-Checksum"]:
            raise DataError(f"{path} was altered.", OLDER)
        files = {str(file["Path"]): file for file in manifest["Files"] if not file["Path"].startswith("pg_wal/")}
        ranges = list(manifest["WAL-Ranges"])
    except FileNotFoundError:
        raise UsageError(
            f"{folder} is no base backup: it has no backup_manifest.", "See: incremental.sh list"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path} is truncated or altered.", OLDER) from None
    if any(file.get("Checksum-Algorithm") != "SHA256" for file in files.values()):
        raise UsageError(f"{path} has no sha256 of its files.", "Make backups with --manifest-checksums=SHA256.")
    return files, ranges


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
