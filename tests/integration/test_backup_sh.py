"""The scripts for cron, incremental backups of a real server, and the compose file."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from atb.ledger.connect import connect
from atb.ledger.connect import embedded as database_of
from atb.ledger.embedded import start, stop, tool, tool_env
from atb.ledger.migrate import migrate
from tests.database import MIGRATIONS, ROOT, Book, Postgres, book, postgres
from tests.integration.shell import Shell

OPS = ROOT / "ops"
CRON_PATH = "/usr/bin:/bin"


class Site:
    """A server of its own with an account, and the scripts as cron runs them: from a copy of ops beside a .venv."""

    def __init__(self, folder: Path, port: int = 24_000) -> None:
        self.folder, self.home, self.port = folder, folder / "home", port
        self.backups = folder / "backups"
        self.base = self.backups / "base"
        shutil.copytree(OPS, folder / "ops")
        (folder / ".venv/bin").mkdir(parents=True)
        (folder / ".venv/bin/atb").symlink_to(Path(sys.executable).with_name("atb"))
        self.server = start(self.home, first_port=port)
        where = database_of(self.server)
        migrate(where, MIGRATIONS)
        self.connection = connect(where)
        self.book: Book = book(self.connection)
        self.traded = 0

    def trade(self, count: int) -> None:
        numbers = range(self.traded, self.traded + count)
        self.book.append(*(self.book.fill("buy" if i % 2 == 0 else "sell", "1", "50000", f"t{i}", i) for i in numbers))
        self.traded += count

    def run(self, *args: object, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", *map(str, args)], cwd="/", env=self.environment(**env), capture_output=True, text=True, check=False
        )

    def environment(self, **env: str) -> dict[str, str]:
        return {"PATH": CRON_PATH, "HOME": str(self.folder), "ATB_HOME": str(self.home), **env}

    def log(self) -> str:
        return (self.backups / "backup.log").read_text()

    def base_log(self) -> str:
        return (self.base / "backup.log").read_text()

    def listed(self) -> list[str]:
        return self.run(self.folder / "ops/incremental.sh", "list").stdout.split()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    try:
        made.trade(5)
        yield made
        made.connection.close()
    finally:
        stop(made.home)


@pytest.fixture
def fresh(site: Site) -> Site:
    shutil.rmtree(site.backups, ignore_errors=True)
    return site


def test_backup_sh_as_cron_runs_it(fresh: Site, tmp_path: Path) -> None:
    script = fresh.folder / "ops/backup.sh"
    done = fresh.run(script)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert len(list(fresh.backups.glob("backup_*.sql.gz"))) == 1 and "Backup completed" in fresh.log()
    old = fresh.backups / "backup_20200101_020000.sql.gz"
    old.touch()
    os.utime(old, (0, 0))
    assert fresh.run(script, KEEP_DAYS="36500").returncode == 0 and old.exists()
    assert fresh.run(script).returncode == 0 and not old.exists()
    elsewhere = tmp_path / "with a space"
    assert fresh.run(script, BACKUP_DIR=str(elsewhere)).returncode == 0 and len(list(elsewhere.glob("*.gz"))) == 1
    assert fresh.run(script, KEEP_DAYS="x").returncode == 2
    assert fresh.run(script, ATB="/nowhere/atb").returncode == 127  # what is said is not guessed at


def test_backup_sh_reads_the_env_file_and_fails_loudly(fresh: Site, tmp_path: Path) -> None:
    script = fresh.folder / "ops/backup.sh"
    assert fresh.run(script).returncode == 0
    (fresh.folder / ".env").write_text("DATABASE_URL=postgresql://trading_bot:secret-word@127.0.0.1:1/ai_trading_bot\n")
    try:
        done = fresh.run(script)
    finally:
        (fresh.folder / ".env").unlink()
    assert done.returncode == 6 and "connection refused" in done.stderr and "FAILED" in fresh.log()
    assert "secret-word" not in done.stderr + fresh.log()
    done = fresh.run(script, ATB_HOME=str(tmp_path))
    assert done.returncode == 6 and "There is no database" in done.stderr
    assert "There is no database" in fresh.log()
    assert len(list(fresh.backups.glob("backup_*.sql.gz"))) == 1  # the good one


@pytest.mark.slow
def test_without_atb_it_says_so(fresh: Site, tmp_path: Path) -> None:
    shutil.copytree(OPS, tmp_path / "ops")
    for name, log in (("backup.sh", "backups/backup.log"), ("incremental.sh", "backups/base/backup.log")):
        done = fresh.run(tmp_path / "ops" / name)
        assert done.returncode == 127 and "atb was not found" in done.stderr
        assert "atb was not found" in (tmp_path / log).read_text()
        atb = str(Path(sys.executable).with_name("atb"))
        assert fresh.run(tmp_path / "ops" / name, ATB=atb).returncode == 0
        assert fresh.run(tmp_path / "ops" / name, PATH=f"{Path(atb).parent}:{CRON_PATH}").returncode == 0


@pytest.mark.slow
def test_called_through_links_the_scripts_find_what_they_share(fresh: Site, tmp_path: Path) -> None:
    folder = tmp_path / "with a space/bin"
    folder.mkdir(parents=True)
    for script, logged in (("backup.sh", "Backup completed"), ("incremental.sh", "_full completed")):
        (folder / script).symlink_to(fresh.folder / "ops" / script)
        (folder / "nightly").unlink(missing_ok=True)
        (folder / "nightly").symlink_to(f"../bin/{script}")
        atb = str(Path(sys.executable).with_name("atb"))
        done = fresh.run(folder / "nightly", ATB=atb)
        assert done.returncode == 0, done.stderr
        # Settings and folders are beside where the script is called.
        assert logged in "".join(log.read_text() for log in (tmp_path / "with a space").rglob("backup.log"))
        process = subprocess.run(
            ["sh", "nightly"], cwd=folder, env=fresh.environment(ATB="/none"), capture_output=True, text=True
        )
        assert process.returncode == 127 and "atb was not found" in process.stderr


def state_of(home: Path, port: int, folder: Path) -> tuple[str, int]:
    """What `atb db verify` says of the data in `home`, and how many fills there are."""
    shell = Shell(folder, ATB_HOME=str(home))
    start(home, first_port=port)
    try:
        fills = shell("db", "query", "SELECT count(*) FROM fills", ok=True).out
        return shell("db", "verify", ok=True).out, int(fills)
    finally:
        stop(home)


def test_full_and_incremental_backups_come_together_with_every_fill(fresh: Site, tmp_path: Path) -> None:
    script = fresh.folder / "ops/incremental.sh"
    assert fresh.run(script, "incremental").returncode == 2
    for _ in range(3):
        done = fresh.run(script)
        assert done.returncode == 0, done.stderr
        fresh.trade(4)
    names = fresh.listed()
    assert [name[-4:] for name in names] == ["full", "incr", "incr"]
    assert fresh.base_log().count("completed") == 3
    done = fresh.run(script, "combine", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    home = tmp_path / "home/postgres/18"
    home.mkdir(parents=True)
    (tmp_path / "out").rename(home / "data")
    said, fills = state_of(tmp_path / "home", 25_000, tmp_path)
    assert "Ledger whole" in said and fills == fresh.traded - 4
    assert fresh.run(script, "combine", tmp_path / "second", names[1]).returncode == 0
    assert fresh.run(script, "combine", tmp_path / "second").returncode == 2  # it is there already
    assert fresh.run(script, "combine", tmp_path / "third", "base_1_full").returncode == 2
    assert fresh.run(script, "combine").returncode == 2
    altered = next(
        path for path in (fresh.base / names[1] / "base").rglob("*") if path.stat().st_size and path.is_file()
    )
    altered.write_bytes(bytes(altered.stat().st_size))
    atb = str(Path(sys.executable).with_name("atb"))
    checked = subprocess.run([atb, "db", "check-base", fresh.base / names[1]], capture_output=True, text=True)
    assert checked.returncode == 3 and "was altered" in checked.stderr


@pytest.mark.slow
def test_incremental_sh_killed_twice_at_once_old_and_down(fresh: Site, tmp_path: Path) -> None:
    script = fresh.folder / "ops/incremental.sh"
    first = subprocess.Popen(
        ["sh", script, "full"], env=fresh.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    while not list(fresh.base.glob(".partial_*")):
        time.sleep(0.01)
    assert fresh.run(script, "full").returncode == 6 and "another run" in fresh.base_log()
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert fresh.run(script).returncode == 0 and [name[-4:] for name in fresh.listed()] == ["full"]
    assert not list(fresh.base.glob(".partial_*"))
    (only,) = fresh.listed()
    ancient = fresh.base / "base_20200101_000000_full"
    (fresh.base / only).rename(ancient)
    os.utime(ancient, (0, 0))
    assert fresh.run(script).returncode == 0  # the last full one is old: another, and the old one goes
    assert [name[-4:] for name in fresh.listed()] == ["full"] and not ancient.exists()
    # Summaries for a manifest of nowhere do not exist: auto begins anew.
    manifest = fresh.base / fresh.listed()[0] / "backup_manifest"
    manifest.write_text("{}")
    assert fresh.run(script, "incremental").returncode == 6
    done = fresh.run(script)
    assert done.returncode == 0 and [name[-4:] for name in fresh.listed()] == ["full", "full"], done.stderr
    done = fresh.run(script, "full", ATB_HOME=str(tmp_path))
    assert done.returncode == 6 and "There is no database" in done.stderr and "FAILED" in fresh.base_log()
    assert fresh.run(script, "nonsense").returncode == 2


def compose() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return loaded


def test_the_compose_file_is_the_runbooks() -> None:
    service = compose()["services"]["postgres"]
    assert service["container_name"] == "postgres" and service["image"] == "postgres:18"
    environment = service["environment"]
    assert (environment["POSTGRES_USER"], environment["POSTGRES_DB"]) == ("trading_bot", "ai_trading_bot")
    assert environment["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")  # compose refuses without one
    assert service["ports"] == ["127.0.0.1:5432:5432"]
    settings = [value for flag, value in zip(service["command"], service["command"][1:], strict=False) if flag == "-c"]
    assert "shared_preload_libraries=pg_stat_statements" in settings and "summarize_wal=on" in settings
    data, init = service["volumes"]
    assert data == "postgres:/var/lib/postgresql" and "postgres" in compose()["volumes"]
    assert (ROOT / init.split(":")[0]).is_file() and init.split(":")[1].startswith("/docker-entrypoint-initdb.d/")
    assert "pg_isready" in service["healthcheck"]["test"][1]


def system_postgres() -> Path:
    """The programs of a Postgres with its extensions; atb's own server has none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no Postgres of the system: the success of the container's script was NOT tested")
    return found[-1].parent


@pytest.fixture
def plain_server(tmp_path: Path) -> Iterator[dict[str, str]]:
    """What the image's entry point has at that moment: a server that trusts the socket, a role and its database."""
    programs, data = system_postgres(), tmp_path / "data"
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        for folder in (tmp_path, *tmp_path.parents[:3]):
            folder.chmod(0o755)
        shutil.chown(tmp_path, "postgres")
    options = f"-k {tmp_path} -c listen_addresses='' -c shared_preload_libraries=pg_stat_statements"
    quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, **user}
    subprocess.run([str(programs / "initdb"), "-N", "-D", str(data), "-U", "trading_bot"], cwd="/", **quiet)
    server = [str(programs / "pg_ctl"), "-D", str(data), "-w", "-l", str(tmp_path / "log"), "-o", options]
    subprocess.run([*server, "start"], cwd="/", **quiet)
    env = {"PATH": f"{programs}:{CRON_PATH}", "PGHOST": str(tmp_path), "PGDATA": str(data)}
    names = {"POSTGRES_USER": "trading_bot", "POSTGRES_DB": "ai_trading_bot"}
    subprocess.run(["createdb", "-U", "trading_bot", "ai_trading_bot"], env=env, check=True)
    yield env | names
    subprocess.run([*server, "-m", "immediate", "stop"], cwd="/", **quiet)


def test_the_init_script_of_the_container(plain_server: dict[str, str]) -> None:
    def run(**env: str) -> subprocess.CompletedProcess[str]:
        argv = ["sh", str(OPS / "postgres-init.sh")]
        return subprocess.run(argv, env=plain_server | env, capture_output=True, text=True, check=False)

    assert run(POSTGRES_DB="none").returncode == 1
    done = run()
    assert done.returncode == 0, done.stderr
    assert (
        "host replication trading_bot all scram-sha-256" in (Path(plain_server["PGDATA"]) / "pg_hba.conf").read_text()
    )
    # As the runbook calls it: without a database, and for the slowest statements.
    psql = ["psql", "-U", "trading_bot", "-At", "-c", "SELECT current_database()"]
    assert subprocess.run(psql, env=plain_server, capture_output=True, text=True).stdout == "trading_bot\n"
    slowest = [*psql[:4], "-d", "ai_trading_bot", "-c", "SELECT count(*) > 0 FROM pg_stat_statements"]
    assert subprocess.run(slowest, env=plain_server, capture_output=True, text=True).stdout == "t\n"


def test_the_init_script_of_the_container_on_our_own_server(tmp_path: Path) -> None:
    """Where the system has no Postgres: all but what pg_stat_statements itself does, whose place a view takes."""
    with postgres(tmp_path) as own:
        with psycopg.connect(own.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE ROLE bot SUPERUSER LOGIN PASSWORD 'secret'")
            connection.execute("CREATE DATABASE bots_own OWNER bot")
        hba = own.server.folder / "pg_hba.conf"
        image = {"POSTGRES_USER": "bot", "POSTGRES_DB": "bots_own", "PGDATA": str(own.server.folder)}
        env = tool_env(own.server) | {"PGPASSWORD": "secret", "PATH": f"{tool('psql').parent}:{CRON_PATH}"} | image
        script = ["sh", str(OPS / "postgres-init.sh")]

        ran = subprocess.run(script, env=env, capture_output=True, text=True, check=False)
        assert ran.returncode == 1 and "pg_stat_statements" in ran.stderr
        assert "host replication bot" not in hba.read_text()  # the entry point stops here: nothing goes on half-made

        provide_extension(own, tmp_path / "extensions")
        for _ in range(2):  # what is there already is no error
            ran = subprocess.run(script, env=env, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, ran.stderr
        assert "host replication bot all scram-sha-256" in hba.read_text()
        with psycopg.connect(own.url("bot")) as connection:  # as `psql -U bot` means it
            assert connection.info.dbname == "bot"
        with psycopg.connect(own.url("bots_own")) as connection:
            assert connection.execute("SELECT count(*) FROM pg_stat_statements").fetchone() == (0,)


def provide_extension(own: Postgres, folder: Path) -> None:
    """A pg_stat_statements that keeps nothing."""
    files = folder / "extension"
    files.mkdir(parents=True)
    (files / "pg_stat_statements.control").write_text("default_version = '1.0'\nrelocatable = true\n")
    (files / "pg_stat_statements--1.0.sql").write_text(
        "CREATE VIEW pg_stat_statements AS SELECT NULL AS query WHERE false;"
    )
    with psycopg.connect(own.url("postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET extension_control_path = '{folder}:$system'".encode())
        connection.execute("SELECT pg_reload_conf()")
    until = time.monotonic() + 60
    while True:
        with psycopg.connect(own.url("postgres")) as connection:
            if connection.execute("SHOW extension_control_path").fetchone() != ("$system",):
                return
        assert time.monotonic() < until


def test_the_scripts_are_plain_sh() -> None:
    shells = [shell for shell in ("dash", "busybox", "sh") if shutil.which(shell)]
    for script in ("backup.sh", "incremental.sh", "postgres-init.sh", "common.sh", "monitor.sh"):
        text = (OPS / script).read_text()
        assert script == "common.sh" or (text.startswith("#!/bin/sh\n") and os.access(OPS / script, os.X_OK))
        for word in ("[[", "local ", "function ", "<<<", "echo -e", "source "):
            assert word not in "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")), word
        for shell in shells:
            argv = [shell, "sh", "-n"] if shell == "busybox" else [shell, "-n"]
            assert subprocess.run([*argv, OPS / script], check=False).returncode == 0
        if shutil.which("shellcheck"):
            assert subprocess.run(["shellcheck", OPS / script], check=False).returncode == 0
