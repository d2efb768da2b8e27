"""Where the store's files are: a folder of this machine, or what fsspec reaches (S3 and the like).

Whatever it is, each file is written whole or not at all. Only a folder of this machine has locks and knows when a file was
read; elsewhere two processes may do the same work twice, and never lose any: parts are immutable and named by their content.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.util
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from atb.core.errors import UsageError
from atb.core.local_files import locked as locked_file
from atb.core.local_files import sync_folder

READ_NOTED_MS = 3_600_000  # that a file was read is noted once an hour at the most
# Which show an object when it is whole, and not before.
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci", "memory"}


class Entry(NamedTuple):
    """A file. read_ms: when it was read last; of what does not know that, when it was written."""

    name: str
    size: int
    written_ms: int
    read_ms: int


class Place(Protocol):
    """A tree of files. Paths are relative, with slashes. OSError where something cannot be done."""

    shown: str

    def folders(self, path: str) -> list[str]: ...

    def entries(self, path: str) -> list[Entry]: ...

    def source(self, path: str) -> contextlib.AbstractContextManager[Any]:
        """What Arrow reads; it is closed at the end."""

    def glance(self, path: str) -> contextlib.AbstractContextManager[Any]:
        """The same for who looks after the store: no use of the file, where the system can tell them apart."""

    def read(self, path: str) -> bytes: ...

    def write(self, path: str, content: Any) -> None: ...

    def remove(self, path: str) -> None:
        """Also when it is gone already."""

    def move(self, path: str, to: str) -> None: ...

    def note_read(self, path: str, entry_ms: int) -> None: ...

    def locked(self, path: str, patience_s: float) -> contextlib.AbstractContextManager[None]:
        """OSError when another process has it for longer."""

    def shown_path(self, path: str) -> str: ...


def open_place(root: Path | str) -> Place:
    """A folder, or the URL of one."""
    text = str(root)
    scheme = text.partition("://")[0] if "://" in text else ""
    if not scheme:
        return LocalPlace(Path(root))
    if scheme in ("file", "local"):
        return LocalPlace(Path(text.partition("://")[2]))
    return RemotePlace(text)


class LocalPlace:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shown = str(root)

    def folders(self, path: str) -> list[str]:
        try:
            with os.scandir(self.root / path) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def entries(self, path: str) -> list[Entry]:
        found = []
        try:
            with os.scandir(self.root / path) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # removed a moment ago
                        if entry.is_file():
                            info = entry.stat()
                            written, read = info.st_mtime_ns // 1_000_000, info.st_atime_ns // 1_000_000
                            found.append(Entry(entry.name, info.st_size, written, max(written, read)))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return found

    def source(self, path: str) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext(self.root / path)

    def glance(self, path: str) -> contextlib.AbstractContextManager[Any]:
        unnoted = getattr(os, "O_NOATIME", 0)  # Linux, and of one's own files
        try:
            return os.fdopen(os.open(self.root / path, os.O_RDONLY | unnoted), "rb")
        except PermissionError:
            return (self.root / path).open("rb")

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def write(self, path: str, content: Any) -> None:
        target = self.root / path
        temporary = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
            sync_folder(target.parent)
        finally:
            with contextlib.suppress(OSError):  # also after Ctrl-C; once it has its name there is nothing to remove
                temporary.unlink()

    def remove(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def move(self, path: str, to: str) -> None:
        target = self.root / to
        target.parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).replace(target)

    def note_read(self, path: str, entry_ms: int) -> None:
        """Set by hand: most file systems of today note a reading once a day, or never."""
        now = time.time_ns()
        if now // 1_000_000 - entry_ms < READ_NOTED_MS:
            return
        with contextlib.suppress(OSError):  # a store that may only be read
            os.utime(self.root / path, ns=(now, (self.root / path).stat().st_mtime_ns))

    def locked(self, path: str, patience_s: float) -> contextlib.AbstractContextManager[None]:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)  # others may read it
        return locked_file(self.root / path, patience_s)

    def shown_path(self, path: str) -> str:
        return str(self.root / path)


class RemotePlace:
    """What fsspec reaches by a URL such as s3://bucket/candles. Its secrets are those of its own environment variables."""

    def __init__(self, url: str) -> None:
        self.shown = _without_secrets(url)
        try:
            self.files, self.base = _opened(url)
        except (ImportError, ValueError, OSError) as error:
            raise UsageError(
                f"The store's location {self.shown} cannot be opened: {error}.",
                "It is a folder, or a URL that fsspec knows; for s3:// and the like: pip install 'atb[remote]'",
            ) from None

    def folders(self, path: str) -> list[str]:
        return sorted(_last(info["name"]) for info in self._listed(path) if info["type"] == "directory")

    def entries(self, path: str) -> list[Entry]:
        found = []
        for info in self._listed(path):
            if info["type"] == "file":
                at = _time_ms(info)
                found.append(Entry(_last(info["name"]), int(info.get("size") or 0), at, at))
        return found

    def source(self, path: str) -> contextlib.AbstractContextManager[Any]:
        file = self.files.open(self._at(path), "rb")
        return contextlib.closing(getattr(file, "stream", file))  # Arrow's own, where Arrow opened it

    def glance(self, path: str) -> contextlib.AbstractContextManager[Any]:
        return self.source(path)

    def read(self, path: str) -> bytes:
        return bytes(self.files.cat_file(self._at(path)))

    def write(self, path: str, content: Any) -> None:
        target = self._at(path)
        if OBJECT_STORES & set(_names_of(self.files.protocol)):
            self.files.pipe_file(target, bytes(content))
            return
        folder, _, name = target.rpartition("/")
        temporary = f"{folder}/.{name}.{os.getpid()}-{threading.get_ident()}"
        self.files.makedirs(folder, exist_ok=True)
        self.files.pipe_file(temporary, bytes(content))
        self.files.mv(temporary, target)

    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.files.rm_file(self._at(path))

    def move(self, path: str, to: str) -> None:
        self.write(to, self.read(path))
        self.remove(path)

    def note_read(self, path: str, entry_ms: int) -> None:
        """Nowhere to note it."""

    def locked(self, path: str, patience_s: float) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def shown_path(self, path: str) -> str:
        return f"{self.shown.rstrip('/')}/{path}"

    def _at(self, path: str) -> str:
        return f"{self.base.rstrip('/')}/{path}".rstrip("/")

    def _listed(self, path: str) -> Iterator[dict[str, Any]]:
        try:
            listed = self.files.ls(self._at(path), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return
        for info in listed:
            if info["name"].rstrip("/") != self._at(path):  # some list a folder in itself
                yield info


def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it. S3 is Arrow's own, unless fsspec has one of its own installed."""
    import fsspec

    if url.startswith("s3://") and importlib.util.find_spec("s3fs") is None:
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow.fs import FileSystem

        arrow, path = FileSystem.from_uri(url)
        return ArrowFSWrapper(arrow), str(path)
    files, base = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return files, str(base)


def _names_of(protocol: str | tuple[str, ...]) -> tuple[str, ...]:
    return (protocol,) if isinstance(protocol, str) else protocol


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _time_ms(info: dict[str, Any]) -> int:
    """When a remote file was written, by whichever name its file system has for that; 0 where it has none."""
    for name in ("LastModified", "last_modified", "mtime", "updated", "created"):
        at = info.get(name)
        if isinstance(at, dt.datetime):
            return round(at.timestamp() * 1000)
        if isinstance(at, int | float):
            return round(at * 1000)
    return 0


def _without_secrets(url: str) -> str:
    """Without the user and password that a URL may carry, before its host or behind a question mark."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"
