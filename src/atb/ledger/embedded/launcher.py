"""Runs one program of Postgres as the right user, and if asked detached. A script of its own: `python -I -S` runs it.

Postgres refuses to run as root, so root has to become somebody else first. That user may not be able to enter a folder
on the way to the data or to the binaries (/root, a private temporary folder). Rather than open foreign folders, one
capability is kept over the change of user: to enter and read folders, and nothing else where the kernel has it so.
A fork in a process with threads is not safe; this one has none, whatever its parent does.

Its single argument is JSON: user [uid, gid] or null, reach [paths], argv, and log: a file, when to be detached.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import stat
import sys
from pathlib import Path

FAILED = 125  # exit code: the program was not run; the reason is on stderr
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
PR_SET_KEEPCAPS, PR_CAP_AMBIENT = 8, 47
PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 2, 4
CAPABILITY_VERSION_3 = 0x20080522


class Unreachable(Exception):
    """A path that the server's user cannot get to."""


def main(text: str) -> int:
    order = json.loads(text)
    try:
        os.umask(0o077)
        os.chdir("/")  # the caller's folder may be closed to the server's user
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if order["user"]:
            uid, gid = order["user"]
            become(uid, gid, order["reach"])
        if order.get("log"):
            return detach(order["argv"], order["log"])
        os.execv(order["argv"][0], order["argv"])
    except Unreachable as error:
        sys.stderr.write(f"cannot enter {error}\n")
    except OSError as error:
        sys.stderr.write(f"{error.strerror or error}: {error.filename or order['argv'][0]}\n")
    return FAILED


def detach(argv: list[str], log: str) -> int:
    """Run `argv` in a session of its own, adopted by init, its output in `log`; its pid goes to stdout."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    reader, writer = os.pipe()  # closed by a successful exec, so that an empty one means success
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((null, 0), (output, 1), (output, 2)):
                os.dup2(source, target)
            os.close(null)
            os.execv(argv[0], argv)
        except OSError as error:
            os.write(writer, f"{error.strerror}: {argv[0]}\n".encode())
        os._exit(FAILED)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        trouble = pipe.read()
    if trouble:
        os.waitpid(pid, 0)
        sys.stderr.write(trouble.decode())
        return FAILED
    sys.stdout.write(f"{pid}\n")
    return 0


def become(uid: int, gid: int, reach: list[str]) -> None:
    """Change to a user who can get to `reach`: as it is, or with one capability kept."""
    linux = sys.platform == "linux"
    if linux:
        with contextlib.suppress(OSError):  # forbidden: perhaps none is needed
            _prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)  # from root: real, effective and saved
    blocked = first_blocked(reach, uid, gid, any_execute=False)
    if blocked is None:
        return
    permitted = _permitted() if linux else 0
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        if not permitted & (1 << capability):
            continue
        with contextlib.suppress(OSError):  # forbidden: it shows in what can be reached
            _keep(capability, permitted)
        if first_blocked(reach, uid, gid, any_execute=capability == CAP_DAC_OVERRIDE) is None:
            return
    raise Unreachable(blocked)


def first_blocked(reach: list[str], uid: int, gid: int, any_execute: bool) -> str | None:
    """The outermost folder or file on the way to `reach` that this process cannot use; None when all is well."""
    for text in reach:
        path = Path(text)
        for part in (*reversed(path.parents), path):
            if not _usable(part, uid, gid, any_execute, last=part == path):
                return str(part)
    return None


def _usable(path: Path, uid: int, gid: int, any_execute: bool, last: bool) -> bool:
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            os.stat(f"{path}/.")  # noqa: PTH116 (Path would drop the dot that asks for the right to enter)
            return True
        if last:
            os.close(os.open(path, os.O_RDONLY))
    except PermissionError:
        return False
    # access(2) leaves capabilities out, so the right to execute is read from the mode.
    own = stat.S_IXUSR if info.st_uid == uid else stat.S_IXGRP if info.st_gid == gid else stat.S_IXOTH
    return bool(info.st_mode & (0o111 if any_execute else own))


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Half(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


def _permitted() -> int:
    halves = (_Half * 2)()
    _check(_libc().capget(ctypes.byref(_Header(CAPABILITY_VERSION_3, 0)), halves))
    return int(halves[0].permitted) | int(halves[1].permitted) << 32


def _keep(capability: int, permitted: int) -> None:
    """Make `capability` effective, and ambient: exec hands on that one, and drops what else is permitted."""
    bit = 1 << capability  # both are in the lower half
    halves = (_Half * 2)(_Half(bit, permitted & 0xFFFFFFFF, bit), _Half(0, permitted >> 32, 0))
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    _check(_libc().capset(ctypes.byref(_Header(CAPABILITY_VERSION_3, 0)), halves))
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def _prctl(option: int, *values: int) -> None:
    padded = (*values, 0, 0, 0, 0)[:4]
    _check(_libc().prctl(option, *(ctypes.c_ulong(value) for value in padded)))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
