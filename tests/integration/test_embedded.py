"""The embedded Postgres: real servers, real kills. Each test has a home of its own and stops what it started."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from atb.core.errors import DatabaseError
from atb.ledger.embedded import Server, exists, running, start, stop, tool, tool_env
from atb.ledger.embedded import launch as embedded_launch
from atb.ledger.embedded import process as embedded_process
from atb.ledger.embedded.place import place_of
from atb.ledger.embedded.process import command_line, members, postmaster
from tests.database import postgres
from tests.integration.shell import Shell
from tests.seeds import thinned

ROOT = Path(__file__).resolve().parents[2]
PORT = 21_000 + os.getpid() * 41 % 9_000
AS_ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not AS_ROOT, reason="needs root")
START = """\
import sys
from pathlib import Path
from atb.core.errors import DatabaseError
from atb.ledger.embedded import start
try:
    server = start(Path(sys.argv[1]), print, {port})
except DatabaseError as error:
    sys.exit(f"{{error.what}} {{error.hint}}")
print(server.pid, server.port)
"""


def starting(home: Path, user: str | None = None, port: int = PORT) -> subprocess.Popen[str]:
    """`start` in a process of its own, in a process group of its own, its output captured."""
    as_user: dict[str, Any] = {}
    if user:
        as_user = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    return subprocess.Popen(
        [sys.executable, "-c", START.format(port=port), str(home)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd="/",
        **as_user,
    )


def ended(process: subprocess.Popen[str]) -> str:
    """What it printed. A server that held the pipe open would run into the time-out."""
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    return out


def end(home: Path) -> None:
    """Stop the server whatever the test left of it."""
    try:
        stop(home, 10)
    except DatabaseError:
        found = postmaster(place_of(home))
        for pid in (*([found.pid] if found else []), *members(place_of(home))):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
    state = place_of(home).versioned / "state.json"
    if state.is_file() and '"/tmp/atb-' in state.read_text():
        shutil.rmtree(state.read_text().split('"')[-2], ignore_errors=True)


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Makes homes, and stops their servers at the end."""
    made: list[Path] = []

    def new() -> Path:
        made.append(tmp_path / f"home{len(made)}")
        return made[-1]

    yield new
    for home in made:
        end(home)


@pytest.fixture
def home(homes: Callable[[], Path]) -> Path:
    return homes()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests that only look."""
    home = tmp_path_factory.mktemp("shared") / "home"
    yield start(home, first_port=PORT + 500)
    end(home)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="embedded-"))
    folder.chmod(0o755)
    yield folder
    for home in folder.iterdir():
        if home.is_dir():
            end(home)
    shutil.rmtree(folder)


@contextlib.contextmanager
def connected(server: Server, database: str = "ai_trading_bot") -> Iterator[psycopg.Connection]:
    connection = psycopg.connect(**server.conninfo(database), autocommit=True)  # type: ignore[arg-type]
    try:
        yield connection
    finally:
        connection.close()


def ask(server: Server, sql: str, database: str = "ai_trading_bot") -> object:
    with connected(server, database) as connection:
        row = connection.execute(sql.encode()).fetchone()
        return row[0] if row else None


def tell(server: Server, sql: str) -> None:
    with connected(server) as connection:
        connection.execute(sql.encode())


def listening(port: int) -> socket.socket:
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", port))
    taken.listen()
    return taken


def kill(server: Server) -> None:
    """End the postmaster at once, and it alone."""
    os.kill(server.pid, signal.SIGKILL)
    while command_line(server.pid):
        time.sleep(0.001)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def password_of(server: Server) -> str:
    return server.password_file.read_text().split("\n", 1)[0].rsplit(":", 1)[1]


def other_user() -> str:
    """A user who is not root, to start a server as."""
    for name in ("tester", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    pytest.skip("no other user")


# First, second and later starts


def test_first_start(home: Path) -> None:
    assert not exists(home) and running(home) is None and stop(home) is False
    assert not home.exists()  # asking makes nothing
    server = start(home, first_port=PORT)
    assert exists(home) and running(home) == server
    assert server.folder == home / "postgres" / "18" / "data" and server.version == "18" and server.port >= PORT
    assert server.url() == f"postgresql://trading_bot@127.0.0.1:{server.port}/ai_trading_bot"
    assert server.url("a/b").endswith("/a%2Fb")
    for database in ("ai_trading_bot", "trading_bot"):
        assert ask(server, "SELECT current_user || ' ' || current_database()", database) == f"trading_bot {database}"


def test_settings(shared: Server) -> None:
    expected = {
        "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "data_checksums": "on", "wal_level": "replica",
        "summarize_wal": "on", "max_connections": "50", "listen_addresses": "127.0.0.1", "TimeZone": "UTC",
        "lc_messages": "C", "server_encoding": "UTF8", "password_encryption": "scram-sha-256",
        "log_directory": "../log", "log_truncate_on_rotation": "on",
    }  # fmt: skip
    with connected(shared) as connection:
        found = {name: connection.execute(f"SHOW {name}".encode()).fetchone() for name in expected}
    assert found == {name: (value,) for name, value in expected.items()}
    assert ask(shared, "SELECT rolpassword LIKE 'SCRAM-SHA-256$%' FROM pg_authid WHERE rolname = 'trading_bot'") is True


def test_second_start_finds_the_first(home: Path) -> None:
    notes: list[str] = []
    first = start(home, notes.append, PORT)
    assert len(notes) == 1 and "Making" in notes[0]
    assert start(home, notes.append, PORT + 7) == first and len(notes) == 1


def test_start_after_stop_keeps_port_password_and_data(home: Path) -> None:
    first = start(home, first_port=PORT)
    password = password_of(first)
    tell(first, "CREATE TABLE kept AS SELECT 7 AS n")
    assert stop(home) is True
    assert running(home) is None and stop(home) is False and not command_line(first.pid)
    second = start(home, first_port=PORT + 100)
    assert second.port == first.port and second.pid != first.pid and password_of(second) == password
    assert ask(second, "SELECT n FROM kept") == 7


def test_two_processes_start_at_once(homes: Callable[[], Path]) -> None:
    home = homes()
    for round_number in range(10):
        if round_number % 4 == 3:
            home = homes()  # a first start; the others find a stopped cluster
        said = [ended(process).splitlines()[-1] for process in (starting(home), starting(home), starting(home))]
        server = running(home)
        assert server is not None and said == [f"{server.pid} {server.port}"] * 3
        assert stop(home)


# Kills


def test_killed_server_heals_and_keeps_what_was_committed(home: Path) -> None:
    server = start(home, first_port=PORT)
    with connected(server) as writer, connected(server) as open_one:
        writer.execute("CREATE TABLE t (n int)")
        open_one.execute("BEGIN")
        open_one.execute("INSERT INTO t VALUES (-1)")
        for n in range(50):
            writer.execute("INSERT INTO t VALUES (%s)", (n,))
        kill(server)
        again = start(home, first_port=PORT)
        assert again.pid != server.pid and again.port == server.port
        assert ask(again, "SELECT count(*) || ' ' || min(n) FROM t") == "50 0"


@pytest.mark.slow
def test_busy_orphans_are_ended(home: Path) -> None:
    server = start(home, first_port=PORT)
    with connected(server) as busy:
        busy.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1000000000000)")
        busy.pgconn.flush()
        time.sleep(0.2)
        kill(server)
        time.sleep(0.2)
        assert running(home) is None and members(place_of(home))  # the busy one has not noticed
        assert ask(start(home, first_port=PORT), "SELECT 1") == 1


@pytest.mark.parametrize("delay_s", thinned([0.0, 0.08, 0.14, 0.2, 0.28, 0.36, 0.44, 0.52, 0.6, 0.7], 3))
def test_killed_creation_is_done_again(home: Path, delay_s: float) -> None:
    """Counted from the moment when it begins to make files: a Python's start takes its own time."""
    process = starting(home)
    while not (home / "postgres" / "start.lock").exists():
        time.sleep(0.002)
    time.sleep(delay_s)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    server = start(home, first_port=PORT)
    assert ask(server, "SELECT count(*) FROM pg_database WHERE datname LIKE '%trading_bot'") == 2
    assert not list(place_of(home).versioned.glob("new-*"))


def test_stale_pid_file_with_the_pid_of_another_program(home: Path) -> None:
    server = start(home, first_port=PORT)
    text = place_of(home).pid_file.read_text()
    owner = place_of(home).data.stat()
    assert stop(home)
    # Of the server's own user: to Postgres itself such a pid means that it is running already.
    as_owner: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid} if AS_ROOT else {}
    with subprocess.Popen(["sleep", "60"], **as_owner) as foreign:
        place_of(home).pid_file.write_text(text.replace(str(server.pid), str(foreign.pid), 1))
        assert running(home) is None and stop(home) is False
        assert ask(start(home, first_port=PORT), "SELECT 1") == 1
        assert foreign.poll() is None
        foreign.kill()


def test_parent_killed_with_its_group_leaves_the_server(home: Path) -> None:
    script = START.format(port=PORT) + "sys.stdout.flush(); import time; time.sleep(60)"
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(home)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert parent.stdout is not None
    for line in parent.stdout:
        if line[:1].isdigit():
            break
    os.killpg(parent.pid, signal.SIGKILL)
    assert parent.stdout.read() == b""  # the server holds no copy of the pipe
    parent.stdout.close()
    parent.wait()
    server = running(home)
    assert server is not None and ask(server, "SELECT 1") == 1
    assert os.getsid(server.pid) == server.pid and os.getpgid(server.pid) != parent.pid
    if AS_ROOT:
        assert str(Path(f"/proc/{server.pid}/fd/0").readlink()) == "/dev/null"


@pytest.mark.slow
def test_server_of_another_container(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There its pid says nothing; the lock that it holds does."""
    server = start(home, first_port=PORT)
    monkeypatch.setattr(embedded_process, "CLEAR_S", 0.3)
    monkeypatch.setattr(embedded_process, "members", lambda place: [])
    monkeypatch.setattr(embedded_process, "command_line", lambda pid: [])
    with pytest.raises(DatabaseError, match="in another container"):
        start(home, first_port=PORT)
    monkeypatch.undo()
    assert running(home) == server and ask(server, "SELECT 1") == 1


# Ports


def test_port_taken_before_the_first_start_and_later(home: Path) -> None:
    notes: list[str] = []
    port = free_port()
    with listening(port):
        first = start(home, notes.append, port)
        assert first.port > port and f"Port {port} is in use: the database listens on {first.port}." in notes
    assert stop(home)
    notes.clear()
    assert start(home, notes.append, port).port == first.port and not notes  # kept, though the other is free again
    assert stop(home)
    with listening(first.port):
        moved = start(home, notes.append, port)
        assert moved.port > first.port and len(notes) == 1
        assert ask(moved, "SELECT 1") == 1  # the password file moved along


def test_port_lost_to_another_program_after_the_look(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from atb.ledger.embedded import port as embedded_port

    port = free_port()
    look = embedded_port.is_free
    monkeypatch.setattr(embedded_port, "is_free", lambda number: number == port or look(number))
    with listening(port):
        server = start(home, first_port=port)
    assert server.port > port and ask(server, "SELECT 1") == 1


def test_the_log_is_read_when_its_writer_has_written(home: Path) -> None:
    """A server that ends at once leaves a logger which may not have its title yet, and has not written a word."""
    place = place_of(home)
    place.log.mkdir(parents=True)
    writes = "import sys, time; time.sleep(0.3); open(sys.argv[3], 'w').write('FATAL:  could not bind\\n')"
    words = ["postgres", "-c", writes, "-D", str(place.data), str(place.log / "postgresql-Sun.log")]
    with subprocess.Popen(words, executable=sys.executable) as late:
        while not command_line(late.pid):  # in the moment of its exec
            assert embedded_process.is_alive(late.pid)
        assert embedded_process.log_since(place, {}) == (place.log / "postgresql-Sun.log", "FATAL:  could not bind\n")
        while embedded_process.is_alive(late.pid):
            time.sleep(0.01)
        assert late.returncode is None  # nobody has waited for it: it was a zombie that was not alive


def test_no_port_left(home: Path) -> None:
    with contextlib.suppress(OSError), listening(65535), pytest.raises(DatabaseError, match="No free port"):
        start(home, first_port=65535)


# Folders and users


@pytest.mark.slow
def test_long_odd_path(homes: Callable[[], Path]) -> None:
    """Longer than a socket's path may be, with characters that need quoting anywhere."""
    home = homes() / ("x" * 90) / 'it\'s, a "home" $HOME äß' / ("y" * 60)
    try:
        server = start(home, first_port=PORT)
        assert len(server.socket) < 80 and running(home) == server
        by_socket = {**server.conninfo(), "host": server.socket, "hostaddr": ""}
        with psycopg.connect(**by_socket) as connection:  # type: ignore[arg-type]
            assert connection.execute("SELECT 1").fetchone() == (1,)
        folder = Path(server.socket)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stop(home) and start(home, first_port=PORT).socket == server.socket
    finally:
        end(home)


def capabilities(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("CapEff:")).split()[1], 16)


@as_root
def test_root_becomes_another_user_and_keeps_one_capability_where_needed(home: Path, open_folder: Path) -> None:
    home.parent.chmod(0o700)
    closed, open_one = start(home, first_port=PORT), start(open_folder / "home", first_port=PORT)
    assert capabilities(closed.pid) in (1 << 2, 1 << 1) and capabilities(open_one.pid) == 0
    for server in (closed, open_one):
        assert Path(f"/proc/{server.pid}").stat().st_uid == server.folder.stat().st_uid != 0
    assert stat.S_IMODE(home.parent.stat().st_mode) == 0o700  # foreign folders stay as they are


def with_less(home: Path, option: str) -> subprocess.CompletedProcess[str]:
    """`start` as a root who may do less."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("no setpriv")
    return subprocess.run(
        [setpriv, option, sys.executable, "-c", START.format(port=PORT), str(home)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=30,
        cwd="/",
    )


@pytest.mark.slow
@as_root
def test_root_in_a_container_without_dac_read_search(home: Path) -> None:
    home.parent.chmod(0o700)
    done = with_less(home, "--bounding-set=-dac_read_search,-sys_ptrace,-sys_admin")
    assert done.returncode == 0, done.stderr
    server = running(home)
    assert server is not None and capabilities(server.pid) == 1 << 1
    kill(server)
    assert with_less(home, "--bounding-set=-dac_read_search,-sys_ptrace,-sys_admin").returncode == 0


@pytest.mark.slow
@as_root
def test_root_who_can_keep_no_capability(home: Path, open_folder: Path) -> None:
    home.mkdir()
    home.chmod(0o700)
    done = with_less(home, "--securebits=+keep_caps_locked")
    assert done.returncode != 0
    assert "cannot enter /" in done.stderr and "ATB_HOME" in done.stderr and "/var/lib/atb" in done.stderr
    assert not exists(home)
    assert with_less(open_folder / "home", "--securebits=+keep_caps_locked").returncode == 0


@as_root
def test_normal_user(open_folder: Path) -> None:
    user = other_user()
    home = open_folder / "home"
    home.mkdir()
    shutil.chown(home, user)
    ended(starting(home, user))
    server = running(home)  # root looks at the user's server
    assert server is not None and ask(server, "SELECT 1") == 1
    assert Path(f"/proc/{server.pid}").stat().st_uid == pwd.getpwnam(user).pw_uid
    assert stop(home) is True
    assert start(home, first_port=PORT).port == server.port  # root starts it as the user it belongs to
    assert stop(home) is True
    ended(starting(home, user))  # and root left nothing behind that the user cannot write


@as_root
def test_another_users_database(open_folder: Path) -> None:
    home = open_folder / "home"
    start(home, first_port=PORT)
    process = starting(home, other_user())
    _, error = process.communicate(timeout=30)
    assert process.returncode != 0 and "belongs to another user" in error


@pytest.mark.slow
@as_root
def test_data_that_root_restored(home: Path) -> None:
    first = start(home, first_port=PORT)
    assert stop(home)
    for folder, _, files in os.walk(first.folder):
        for path in (Path(folder), *(Path(folder, name) for name in files)):
            os.chown(path, 0, 0)
    first.folder.chmod(0o755)
    assert ask(start(home, first_port=PORT), "SELECT 1") == 1


def test_home_that_cannot_be_written(open_folder: Path, tmp_path: Path) -> None:
    if AS_ROOT:
        process = starting(open_folder / "home", other_user())
        _, error = process.communicate(timeout=30)
        assert process.returncode != 0 and "Permission denied" in error and "ATB_HOME" in error
    file = tmp_path / "file"
    file.write_text("")
    for attempt in (lambda: start(file, first_port=PORT), lambda: running(file), lambda: stop(file)):
        with pytest.raises(DatabaseError, match="Not a directory"):
            attempt()


@as_root
def test_disk_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("cannot mount")
    try:
        with pytest.raises(DatabaseError, match="No space left on device"):
            start(small / "home", first_port=PORT)
        place = place_of(small / "home")
        assert not exists(small / "home") and not list(place.versioned.glob("new-*"))
    finally:
        subprocess.run(["umount", str(small)], check=True)


# What must not be opened, and what is missing


def test_other_major_version(homes: Callable[[], Path]) -> None:
    for version, folder in (("17", "18"), ("17", "17"), ("19", "19")):
        home = homes()
        data = home / "postgres" / folder / "data"
        data.mkdir(parents=True)
        (data / "PG_VERSION").write_text(f"{version}\n")
        with pytest.raises(DatabaseError, match=f"Postgres {version}; this atb brings Postgres 18") as caught:
            start(home, first_port=PORT)
        assert "pg_dumpall" in caught.value.hint
        assert [path.name for path in data.iterdir()] == ["PG_VERSION"]


def test_folder_that_is_no_cluster(home: Path) -> None:
    data = home / "postgres" / "18" / "data"
    data.mkdir(parents=True)
    (data / "notes.txt").write_text("mine")
    with pytest.raises(DatabaseError, match="not a Postgres data folder"):
        start(home, first_port=PORT)
    assert (data / "notes.txt").read_text() == "mine"


def test_damaged_data(home: Path) -> None:
    server = start(home, first_port=PORT)
    assert stop(home)
    (server.folder / "global" / "pg_control").write_bytes(b"\0" * 8192)
    with pytest.raises(DatabaseError, match=r"Postgres did not start on .*Log: ") as caught:
        start(home, first_port=PORT)
    assert password_of(server) not in str(caught.value)
    assert running(home) is None and exists(home)


def test_settings_that_postgres_refuses(home: Path) -> None:
    server = start(home, first_port=PORT)
    assert stop(home)
    with (server.folder / "postgresql.conf").open("a") as file:
        file.write("work_mem = a lot\n")
    with pytest.raises(DatabaseError, match=r"did not start on .*postgresql\.conf.*Log: ") as caught:
        start(home, first_port=PORT)
    assert "startup.log" in str(caught.value)


def test_missing_binaries(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DatabaseError, match="has no 'pg_nothing'"):
        tool("pg_nothing")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DatabaseError, match="is not installed") as caught:
        start(home, first_port=PORT)
    assert caught.value.exit_code == 6 and "DATABASE_URL" in caught.value.hint and not home.exists()


# The password


def test_password_is_in_its_file_and_nowhere_else(home: Path) -> None:
    process = starting(home)
    seen: set[str] = set()
    while process.poll() is None:
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                seen.add(" ".join(command_line(int(entry.name))))
    ended(process)
    server = running(home)
    assert server is not None
    assert any("initdb" in line for line in seen)
    password = password_of(server)
    assert len(password) > 30 and not any(password in line for line in seen)
    assert stat.S_IMODE(server.password_file.stat().st_mode) == 0o600
    hosts = [line.split(":")[0] for line in server.password_file.read_text().splitlines()]
    assert hosts == ["127.0.0.1", "localhost", server.socket]
    for path in (home / "postgres").rglob("*"):
        if path.is_file() and path != server.password_file:
            assert password.encode() not in path.read_bytes(), path
    assert password not in server.url() and password not in str(server) + str(server.conninfo())


def test_no_way_in_without_the_password(shared: Server, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch(0o600)
    for host in ("127.0.0.1", shared.socket):
        wrong = {**shared.conninfo(), "host": host, "hostaddr": "", "passfile": str(empty)}
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(**wrong)  # type: ignore[arg-type]


def test_lost_or_opened_password_file(home: Path) -> None:
    server = start(home, first_port=PORT)
    password = password_of(server)
    server.password_file.unlink()
    with pytest.raises(DatabaseError, match=r"password file .* is missing") as caught:
        start(home, first_port=PORT)
    assert "atb db stop" in caught.value.hint
    assert stop(home)
    again = start(home, first_port=PORT)
    assert password_of(again) != password and ask(again, "SELECT 1") == 1
    assert stop(home)
    again.password_file.chmod(0o644)
    assert ask(start(home, first_port=PORT), "SELECT 1") == 1  # psql would ignore a readable one


# Tools


def test_tools_find_the_server(shared: Server) -> None:
    env = tool_env(shared, {"PATH": os.environ["PATH"], "PGHOST": "elsewhere", "PGSERVICE": "other"})
    assert "PGSERVICE" not in env
    asked = subprocess.run([tool("psql"), "-Atc", "SELECT 42"], env=env, capture_output=True, text=True, check=True)
    assert asked.stdout == "42\n" and asked.stderr == ""
    dumped = subprocess.run([tool("pg_dump")], env=env, capture_output=True, text=True, check=True)
    assert "PostgreSQL database dump complete" in dumped.stdout


@pytest.mark.slow
def test_incremental_base_backup_restores_into_place(home: Path, tmp_path: Path) -> None:
    server = start(home, first_port=PORT)
    env = tool_env(server, {"PATH": os.environ["PATH"]})

    def run(name: str, *words: object) -> None:
        command = [str(tool(name)), *map(str, words)]
        subprocess.run(command, env=env, check=True, capture_output=True, timeout=30)

    full, more, whole = tmp_path / "full", tmp_path / "more", tmp_path / "whole"
    run("pg_basebackup", "-D", full, "-c", "fast", "--no-sync")
    tell(server, "CREATE TABLE later AS SELECT 5 AS n")
    run("pg_basebackup", "-D", more, "-c", "fast", "--no-sync", "-i", full / "backup_manifest")
    run("pg_combinebackup", full, more, "-o", whole, "--no-sync")
    assert stop(home)
    server.folder.rename(server.folder.with_name("data.before"))
    whole.rename(server.folder)
    assert ask(start(home, first_port=PORT), "SELECT n FROM later") == 5


# systemd


def test_systemd_that_refuses_a_scope(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = tmp_path / "systemd-run"
    refusing.write_text("#!/bin/sh\necho no bus >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setattr(embedded_launch, "SYSTEMD", tmp_path)
    monkeypatch.setattr(embedded_launch, "SYSTEMD_RUN", refusing)
    monkeypatch.setattr(embedded_launch, "_control_group", lambda: f"/user@{os.geteuid()}.service/app.slice/x.service")
    notes: list[str] = []
    assert ask(start(home, notes.append, PORT), "SELECT 1") == 1
    assert any("control group" in note for note in notes)


@pytest.mark.slow
def test_systemd_that_gives_a_scope(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    giving = tmp_path / "systemd-run"
    giving.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nwhile [ "$1" != -- ]; do shift; done; shift\nexec "$@"\n'
    )
    giving.chmod(0o755)
    monkeypatch.setattr(embedded_launch, "SYSTEMD", tmp_path)
    monkeypatch.setattr(embedded_launch, "SYSTEMD_RUN", giving)
    monkeypatch.setattr(embedded_launch, "_control_group", lambda: f"/user@{os.geteuid()}.service/app.slice/x.service")
    assert ask(start(home, first_port=PORT), "SELECT 1") == 1
    assert "--scope" in (tmp_path / "asked").read_text()


@pytest.mark.slow
def test_stop_that_is_not_heard_becomes_an_immediate_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start(home, first_port=PORT)
    tell(server, "CREATE TABLE t AS SELECT 1 AS n")
    send = os.kill
    monkeypatch.setattr(os, "kill", lambda pid, number: None if number == signal.SIGINT else send(pid, number))
    assert stop(home, timeout_s=0.1) is True
    monkeypatch.undo()
    assert ask(start(home, first_port=PORT), "SELECT n FROM t") == 1


@pytest.mark.slow
def test_its_own_database_is_not_taken_for_the_server_that_was_meant(tmp_path: Path) -> None:
    """A job that lost DATABASE_URL must not verify, back up or close another database than the one in use."""
    with postgres(tmp_path / "elsewhere") as server:
        name = server.database()
        bare = Shell(tmp_path)
        meant = Shell(tmp_path, DATABASE_URL=server.url(name))
        bare("db", "start", ok=True)
        bare("db", "verify", ok=True)
        try:
            for nowhere in (f"postgresql://u:p@127.0.0.1:1/{name}", server.url("absent")):
                for mistyped in (["migrate"], ["rebuild"], ["emergency-close-all", "--session-id", "1"]):
                    assert bare("db", *mistyped, env={"DATABASE_URL": nowhere}).code == 6
            assert bare("db", "verify", ok=True).err == ""  # what was never reached is not what is meant
            meant("db", "migrate", ok=True)
            refused = (
                ["verify"], ["backup"], ["migrate"], ["rebuild"], ["restore", "x.sql.gz", "--yes"],
                ["emergency-close-all", "--session-id", "1"], ["import-trades", "x.csv"],
                ["close-position", "--symbol", "BTCUSDT", "--exit-price", "1"],
            )  # fmt: skip
            for command in refused:
                ran = bare("db", *command)
                assert ran.code == 2 and f"/{name}" in ran.message and "Set DATABASE_URL" in ran.err, command
                assert server.password not in ran.err
            told = bare("db", "query", "SELECT 1", ok=True)
            assert told.out == "1\n" and f"/{name}" in told.err
            assert meant("db", "verify", ok=True).err == ""
            bare("db", "start", ok=True)  # its own is meant, now
            assert bare("db", "verify", ok=True).err == ""
            assert "changed last" in meant("db", "query", "SELECT 1", ok=True).err
        finally:
            bare("db", "stop")
