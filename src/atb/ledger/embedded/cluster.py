"""Makes the data folder, its settings, its password and its socket's folder. Nothing here leaves a half-made cluster."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from atb.core.errors import DatabaseError
from atb.core.local_files import sync_folder
from atb.ledger.embedded.launch import Order, User, run, tool
from atb.ledger.embedded.place import DATABASES, ROLE, START, Place, write_private

SOCKET_FOLDER_BYTES = 80  # the kernel takes about 104 with the file's name
_LEFTOVER = "new-"
_PLAIN = re.compile(r"[A-Za-z0-9/_.-]+")  # needs no quoting in Postgres' settings, nor in a pgpass file

INCLUDE = "\ninclude 'atb.conf'  # atb's settings; ALTER SYSTEM, or lines below this one, come after them\n"
HBA = """\
# Written by atb when it made this folder. A password everywhere, also on the socket: other programs of this user
# and of this machine have no business here.
local  all          all                scram-sha-256
local  replication  all                scram-sha-256
host   all          all  127.0.0.1/32  scram-sha-256
host   replication  all  127.0.0.1/32  scram-sha-256
"""
SETTINGS = """\
# Written by atb at each start. Your own settings: ALTER SYSTEM, or below the include line of postgresql.conf.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{socket}'
unix_socket_permissions = 0700
cluster_name = '{name}'
max_connections = 50

# What is committed is on the disk.
fsync = on
synchronous_commit = on
full_page_writes = on

# Incremental base backups.
wal_level = replica
summarize_wal = on
max_wal_senders = 4
max_replication_slots = 4
max_wal_size = 256MB

# A guest beside the trading process.
shared_buffers = 64MB
work_mem = 8MB
maintenance_work_mem = 64MB
effective_cache_size = 512MB
jit = off

timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'

# One file a weekday, begun anew in its week.
logging_collector = on
log_directory = '../log'
log_filename = 'postgresql-%a.log'
log_truncate_on_rotation = on
log_rotation_age = 1d
log_rotation_size = 0
log_line_prefix = '%m [%p] %q%u@%d '
log_checkpoints = off
"""


def create(place: Place, user: User | None, lock: int) -> None:
    """Make the data folder beside its place and rename it there when it is complete and on the disk.

    `lock` is the start lock: initdb inherits it, so that a start after this process was killed waits until it has gone.
    """
    password = read_password(place) or secrets.token_urlsafe(32)
    work = Path(tempfile.mkdtemp(prefix=_LEFTOVER, dir=place.versioned))
    try:
        own(work, user)
        write_private(work / "password", password + "\n", _ids(user))
        _initdb(work, user, lock)
        (work / "password").unlink()
        write_private(work / "data" / "pg_hba.conf", HBA, _ids(user))
        include_settings(work / "data", user)
        write_settings(work / "data", place, 0, "/tmp", user)
        single_user(work / "data", user, lock, [f"CREATE DATABASE {name}" for name in DATABASES], "-F")
        _sync(work, user, lock)
        write_pgpass(place, password, 0, "/tmp")  # before the rename: a cluster in its place has a known password
        (work / "data").rename(place.data)
        sync_folder(place.versioned)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _initdb(work: Path, user: User | None, lock: int) -> None:
    """A cluster whose only role is a superuser: it belongs to one program, which makes databases, backups and restores."""
    options = ["--no-sync", "--no-instructions", "--data-checksums", "--encoding=UTF8", "--locale=C"]
    options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--auth=scram-sha-256"]
    options += [f"--username={ROLE}", f"--pwfile={work / 'password'}", "-D", str(work / "data")]
    run(Order([str(tool("initdb")), *options], [work], (lock,)), user)


def _sync(work: Path, user: User | None, lock: int) -> None:
    """Flush it all at once, where the system can: file by file takes ten times as long as making them."""
    method = ["--sync-method=syncfs"] if sys.platform == "linux" else []
    run(Order([str(tool("initdb")), "--sync-only", *method, "-D", str(work / "data")], [work], (lock,)), user)


def single_user(data: Path, user: User | None, lock: int, statements: list[str], *options: str) -> None:
    """Run SQL without a server: nobody can connect meanwhile, and no password is needed."""
    argv = [str(tool("postgres")), "--single", *options, "-c", "exit_on_error=on", "-c", "logging_collector=off"]
    run(Order([*argv, "-D", str(data), "postgres"], [data], (lock,), "\n".join(statements) + "\n"), user)


def remove_leftovers(place: Place) -> None:
    """What a creation left that was killed half-way."""
    for path in place.versioned.glob(f"{_LEFTOVER}*"):
        shutil.rmtree(path, ignore_errors=True)


def make_folders(place: Place, user: User | None) -> None:
    """The folders around the data. Ours may be entered by the server's user, whatever the umask; others stay as they are."""
    place.root.parent.mkdir(parents=True, exist_ok=True)
    for folder in (place.root, place.versioned):
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(0o755)
    _own_folder(place.log, user)


def _own_folder(folder: Path, user: User | None) -> None:
    """A private folder of the server's user; also when a former attempt died between the two steps."""
    folder.mkdir(0o700, exist_ok=True)
    if user is not None and folder.stat().st_uid != user.uid:
        own(folder, user)


def own(path: Path, user: User | None) -> None:
    """Give a file or folder of ours to the server's user."""
    if user is not None:
        os.chown(path, user.uid, user.gid, follow_symlinks=False)


def adopt(place: Place, user: User | None) -> None:
    """Data that root put in place, a restored backup say: the server's user has to own it, alone."""
    if user is None or place.data.stat().st_uid == user.uid:
        return
    for folder, _, files in os.walk(place.data):
        for path in (Path(folder), *(Path(folder, name) for name in files)):
            own(path, user)
    place.data.chmod(0o700)


def _ids(user: User | None) -> tuple[int, int] | None:
    return (user.uid, user.gid) if user else None


def include_settings(data: Path, user: User | None) -> None:
    """Have postgresql.conf include our file, if it does not yet."""
    path = data / "postgresql.conf"
    text = path.read_text()
    if "\ninclude 'atb.conf'" not in text:
        write_private(path, text + INCLUDE, _ids(user))


def write_settings(data: Path, place: Place, port: int, socket: str, user: User | None) -> None:
    """The settings that make it atb's server. Port 0 while it is being made: nothing listens then."""
    text = SETTINGS.format(port=port or 5432, socket=socket, name=place.cluster_name)
    path = data / "atb.conf"
    if not path.is_file() or path.read_text() != text:
        write_private(path, text, _ids(user))


def configure(place: Place, user: User | None, password: str, port: int, socket: str) -> None:
    """Settings, password file and memory for the next start, all of the same port."""
    write_settings(place.data, place, port, socket, user)
    write_pgpass(place, password, port, socket)
    write_private(place.state, f'{{"port": {port}, "socket": "{socket}"}}\n')


def read_password(place: Place) -> str | None:
    """The password in the pgpass file; None when there is none that could be meant."""
    try:
        lines = place.pgpass.read_text().splitlines()
    except FileNotFoundError:
        return None
    words = [line.rsplit(":", 1)[1] for line in lines if f":{ROLE}:" in line]
    return words[0] if words and words[0] else None


def write_pgpass(place: Place, password: str, port: int, socket: str) -> None:
    """One line for each way to the server. With the port: another server on this machine must not be sent the password."""
    hosts = ("127.0.0.1", "localhost", socket)
    text = "".join(f"{host}:{port}:*:{ROLE}:{password}\n" for host in hosts)
    if not place.pgpass.is_file() or place.pgpass.read_text() != text:
        write_private(place.pgpass, text)
    elif place.pgpass.stat().st_mode & 0o077:
        place.pgpass.chmod(0o600)  # psql ignores a file that others can read


def reset_password(place: Place, user: User | None, lock: int) -> str:
    """A new password for a cluster whose pgpass file is lost."""
    password = secrets.token_urlsafe(32)
    single_user(place.data, user, lock, [f"ALTER ROLE {ROLE} PASSWORD '{password}'"])
    return password


def socket_folder(place: Place, user: User | None, known: str) -> str:
    """A private folder for the socket: in the home when its path is short and plain enough, else one in /tmp."""
    inside = place.versioned / "run"
    if len(os.fsencode(inside)) <= SOCKET_FOLDER_BYTES and _PLAIN.fullmatch(str(inside)):
        _own_folder(inside, user)
        folder = inside
    elif known and _is_private(Path(known), user):
        folder = Path(known)
    else:
        folder = Path(tempfile.mkdtemp(prefix="atb-", dir="/tmp"))
        own(folder, user)
    for stale in folder.glob(".s.PGSQL.*"):  # of a killed server, or of a former port
        stale.unlink(missing_ok=True)
    return str(folder)


def _is_private(folder: Path, user: User | None) -> bool:
    """Whether the folder in /tmp is still the one that was made: anybody can make one of that name."""
    import stat

    try:
        info = folder.lstat()
    except OSError:
        return False
    owner = user.uid if user else os.geteuid()
    return stat.S_ISDIR(info.st_mode) and info.st_uid == owner and not info.st_mode & 0o077


def check_is_cluster(place: Place) -> None:
    """A folder at the data's place that is no cluster is somebody's mistake, and may hold something."""
    if place.data.is_dir() and not (place.data / "PG_VERSION").is_file() and any(place.data.iterdir()):
        raise DatabaseError(f"{place.data} is not a Postgres data folder.", f"Move it away, then: {START}")
