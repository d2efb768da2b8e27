"""`atb` as a user's shell runs it: a process of its own, a clean environment, folders of its own."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ATB = str(Path(sys.executable).with_name("atb"))
TIMEOUT_S = 60.0
RUN = ("backtest", "sma_cross", "--symbol", "BTCUSDT", "--data", "candles.csv")
SHORT = ("-p", "fast=2", "-p", "slow=5")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Ran(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out, parse_constant=_no_constant)

    @property
    def message(self) -> str:
        """The first line of an error."""
        lines = [line for line in self.err.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1, self.err
        return lines[0].removeprefix("Error: ")


def _no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


class Shell:
    """Runs `atb` in `folder/work`, with its home and cache beside it and nothing else of this machine's settings."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.work = folder / "work"
        self.work.mkdir(parents=True, exist_ok=True)
        self.home, self.cache = folder / "home", folder / "cache"
        own = {"ATB_HOME": str(self.home), "ATB_CACHE": str(self.cache), "HOME": str(folder), "LANG": "C.UTF-8"}
        self.env = {"PATH": os.environ["PATH"], **own, **env}

    def __call__(
        self,
        *args: object,
        ok: bool = False,
        env: Mapping[str, str] | None = None,
        preexec_fn: Callable[[], None] | None = None,
    ) -> Ran:
        """Run to the end. Never a traceback or a warning; with `ok` no error either."""
        process = self.start(*args, env=env, preexec_fn=preexec_fn)
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
        ran = Ran(process.returncode, out, err)
        assert "Traceback" not in err and "Warning" not in err, (args, err)
        assert not ok or ran.code == 0, (args, err)
        assert ran.code or "Error:" not in err, (args, err)
        return ran

    def start(
        self, *args: object, env: Mapping[str, str] | None = None, preexec_fn: Callable[[], None] | None = None
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [ATB, *map(str, args)],
            cwd=self.work,
            env={**self.env, **(env or {})},
            text=True,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=preexec_fn,
        )

    def many(self, commands: Iterable[tuple[object, ...]]) -> list[Ran]:
        """Several commands at a time: most of a run is waiting for imports."""
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            return list(pool.map(lambda args: self(*args), commands))

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def files(self) -> Mapping[str, bytes]:
        """Everything in the folder of work and the home."""
        roots = (self.work, self.home)
        return {str(p): p.read_bytes() for root in roots for p in sorted(root.rglob("*")) if p.is_file()}

    def on_terminal(self, *args: object, columns: int = 80, typed: str = "", **more: str) -> Ran:
        """Run with a terminal for everything; `out` is what it shows, escape codes and all. typed: by who sits there."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        env = {**self.env, "TERM": "xterm-256color", **more}
        process = subprocess.Popen(
            [ATB, *map(str, args)], cwd=self.work, env=env, stdin=slave, stdout=slave, stderr=slave, close_fds=True
        )
        os.close(slave)
        os.write(master, typed.encode())
        shown = b"".join(iter(lambda: _read(master), b""))
        os.close(master)
        return Ran(process.wait(TIMEOUT_S), shown.decode().replace("\r\n", "\n"), "")


def without_powers() -> None:
    """For `preexec_fn`: what root may not read, it cannot."""
    for power in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, power, 0, 0, 0)  # PR_CAPBSET_DROP


def _read(terminal: int) -> bytes:
    with contextlib.suppress(OSError):  # EIO: the other side has closed
        return os.read(terminal, 65_536)
    return b""


def plain(text: str) -> str:
    """Text without escape codes."""
    return ESCAPE.sub("", text)


def stable(ran: Ran) -> dict[str, Any]:
    """The JSON of a run but for the time it took."""
    assert ran.code == 0, ran.err
    return {key: value for key, value in ran.json.items() if key != "timing"}
