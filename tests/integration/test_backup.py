"""Backups and restores of real databases: what is whole is restored, what is not is refused, whatever is killed."""

from __future__ import annotations

import gzip
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from atb.core.process import this_process
from atb.ledger.embedded import tool
from tests.database import Book, Postgres, book, postgres
from tests.integration.shell import Ran, Shell


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with postgres(tmp_path_factory.mktemp("backup")) as made:
        yield made


class Desk:
    """A database with ten fills, and a shell whose DATABASE_URL it is."""

    def __init__(self, server: Postgres, folder: Path) -> None:
        self.server, self.name = server, server.database()
        self.shell = Shell(folder, DATABASE_URL=server.url(self.name))
        self.backups = self.shell.work / "backups"
        self.connection = psycopg.connect(server.url(self.name))
        self.book = book(self.connection)
        self.trade(range(10))

    def trade(self, numbers: range) -> None:
        sides = ("buy", "sell")
        self.book.append(*(self.book.fill(sides[i % 2], "0.1", str(50000 + i), f"t{i}", i) for i in numbers))
        self.connection.commit()

    def quiet(self) -> None:
        """The trading process has ended."""
        self.sql("UPDATE authority SET heartbeat_at = now() - interval '1 hour'")

    def backup(self) -> Path:
        done = self.shell("db", "backup", "--json", ok=True).json
        return self.shell.work / str(done["path"])

    def sql(self, text: str, database: str = "") -> list[tuple[Any, ...]]:
        with psycopg.connect(self.server.url(database or self.name), autocommit=True) as connection:
            cursor = connection.execute(text)
            return cursor.fetchall() if cursor.description else []

    def fills(self) -> int:
        return int(self.sql("SELECT count(*) FROM fills")[0][0])

    def databases(self) -> set[str]:
        rows = self.sql(
            "SELECT datname FROM pg_database WHERE datname LIKE 'atb_scratch%' OR datname LIKE '%_restore_%'"
        )
        return {str(row[0]) for row in rows}

    def verify(self) -> str:
        return self.shell("db", "verify", ok=True).out

    def plain_dump(self, *options: str) -> Path:
        path = self.shell.work / "plain.sql"
        subprocess.run([tool("pg_dump"), *options, "-f", path, self.server.url(self.name)], check=True)
        return path


@pytest.fixture
def desk(server: Postgres, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(server, tmp_path)
    yield made
    made.connection.close()
    assert made.databases() == set()  # whatever happened, the server is as it was
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or server.password.encode() not in path.read_bytes()


def log_lines(desk: Desk) -> list[str]:
    return (desk.backups / "backup.log").read_text().splitlines()


def dumps(desk: Desk) -> list[str]:
    return sorted(path.name for path in desk.backups.glob("backup_*"))


def test_a_backup_is_good_and_says_so(desk: Desk) -> None:
    path = desk.backup()
    text = gzip.decompress(path.read_bytes()).decode()
    assert "-- PostgreSQL database dump complete" in text[-4000:]
    assert desk.server.password not in text and path.stat().st_mode & 0o777 == 0o600
    assert "Backup completed" in log_lines(desk)[0] and "dump id" in log_lines(desk)[0]
    desk.trade(range(10, 13))
    ran = desk.shell("db", "backup", "--verify", ok=True)
    assert "12 entries, 10 fills; tables agree" in ran.out and "which has 3 more" in ran.out
    assert desk.sql("SELECT state FROM backup_stamp") == [("in_database",)]
    assert "Restored" not in desk.verify()
    assert desk.shell("db", "backup", "--verify", path, "--json", ok=True).json["fills"] == 10


def test_two_in_one_second_have_two_names_and_the_last_stamp_holds(desk: Desk) -> None:
    made = [desk.shell("db", "backup", "--json", ok=True).json for _ in range(3)]
    assert len({done["path"] for done in made}) == len({done["dump_id"] for done in made}) == 3 == len(dumps(desk))
    assert str(desk.sql("SELECT dump_id FROM backup_stamp")[0][0]) == made[-1]["dump_id"]


def test_only_old_backups_of_ours_go(desk: Desk) -> None:
    old, other, young = "backup_20200101_020000.sql.gz", "mine_20200101.sql.gz", "backup_20200102_020000.sql.gz"
    for name in (old, other, young):
        desk.shell.write(f"backups/{name}", "x")
    for name in (old, other):
        os.utime(desk.backups / name, (0, 0))
    assert desk.shell("db", "backup", "--keep-days", 0).code == 2
    assert desk.shell("db", "backup", "--keep-days", 10**30, ok=True).out.count("removed") == 0
    assert desk.shell("db", "backup", env={"DATABASE_URL": desk.server.url("nowhere")}).code == 6
    assert (desk.backups / old).exists() and "FAILED" in log_lines(desk)[-1]
    assert desk.shell("db", "backup", "--json", ok=True).json["removed"] == [old]
    assert {other, young} <= {path.name for path in desk.backups.iterdir()}


@pytest.mark.slow
def test_truncated_dumps_are_refused(desk: Desk) -> None:
    path = desk.backup()
    packed, text = path.read_bytes(), gzip.decompress(path.read_bytes())
    end = text.index(b"-- PostgreSQL database dump complete")
    cut = [packed[: len(packed) * k // 5] for k in range(5)] + [packed[:-1]]
    cut += [
        gzip.compress(text[:n]) for n in (0, 100, text.index(b"COPY public.fills") + 200, end, end + 60, len(text) - 9)
    ]
    for data in cut:
        path.write_bytes(data)
        assert desk.shell("db", "backup", "--verify", path).code == 3, len(data)
    assert desk.shell("db", "restore", path).code == 3
    path.unlink()
    assert desk.shell("db", "backup", "--verify").code == 3
    assert desk.shell("db", "backup", "--verify", path).code == 2
    assert desk.shell("db", "backup", path).code == 2


@pytest.mark.slow
def test_altered_dumps_are_refused(desk: Desk) -> None:
    path = desk.backup()
    packed, text = path.read_bytes(), gzip.decompress(path.read_bytes())
    middle = len(packed) // 2
    other_price = text.replace(b"\t50003\t", b"\t50004\t", 1)
    assert other_price != text
    unstamped = b"".join(line for line in other_price.splitlines(True) if not line.startswith(b"-- atb dump"))
    altered = [packed[:middle] + bytes([packed[middle] ^ 1]) + packed[middle + 1 :], gzip.compress(other_price)]
    altered += [gzip.compress(unstamped), gzip.compress(text + b"\\! true\n"), packed + b"more"]
    plain = desk.plain_dump().read_bytes()
    altered += [plain.replace(b"\t50003\t", b"\t50004\t", 1), plain.replace(b"\t50003\t", b"\t5000x\t", 1)]
    altered += [plain.replace(b'"price":"50003"', b'"price":"50004"'), plain.replace(b"SET row", b"\\! true\nSET row")]
    altered += [b"\\connect postgres\n" + plain, gzip.compress(b"PGDMP"), b"PGDMP", b"", b"text"]
    for data in altered:
        path.write_bytes(data)
        ran = desk.shell("db", "backup", "--verify", path)
        assert ran.code == 3, (data[:20], ran.err)
    assert desk.shell("db", "restore", desk.plain_dump("--create", "--clean")).code == 3
    assert desk.fills() == 10


@pytest.mark.slow
def test_the_live_database_may_be_the_damaged_one(desk: Desk) -> None:
    path = desk.backup()
    desk.sql("ALTER TABLE entries DISABLE TRIGGER ALL")
    desk.sql("UPDATE entries SET body = replace(body, '50003', '50004')")
    desk.sql("ALTER TABLE entries ENABLE TRIGGER ALL")
    ran = desk.shell("db", "backup", "--verify")
    assert ran.code == 7 and "THE LIVE DATABASE IS DAMAGED" in ran.message and "atb db restore" in ran.err
    told = desk.shell("db", "backup", "--verify", "--json")
    assert told.code == 7 and [line for line in told.json["live"] if line in told.message and "DAMAGED" in line]
    desk.quiet()
    desk.shell("db", "restore", path, ok=True)  # an engine's connection is ended
    assert "Ledger whole: 12 entries" in desk.verify()
    desk.connection.close()
    desk.connection = psycopg.connect(desk.server.url(desk.name))
    again = desk.book._replace(connection=desk.connection, epoch=int(desk.sql("SELECT epoch FROM authority")[0][0]))
    again.append(again.fill("buy", "1", "1", "other"))
    newer = desk.backup()
    desk.shell("db", "restore", path, ok=True)
    assert desk.shell("db", "backup", "--verify", newer).code == 7  # whole, but of another history


def test_an_account_that_was_renamed_is_damage_not_another_account(desk: Desk) -> None:
    desk.backup()
    desk.sql("UPDATE accounts SET name = 'another', environment = 'real'")
    ran = desk.shell("db", "backup", "--verify")
    assert ran.code == 7 and "THE LIVE DATABASE IS DAMAGED: Entry 1 (deposit) does not follow from" in ran.message
    assert "another, real spot at binance in USDT" in ran.message


@pytest.mark.slow
def test_one_consistent_snapshot_while_trading_goes_on(desk: Desk) -> None:
    with ThreadPoolExecutor(1) as pool:
        busy = True

        def trade() -> int:
            done = 10
            while busy:
                desk.trade(range(done, done + 1))
                done += 1
            return done

        running = pool.submit(trade)
        for _ in range(3):
            desk.backup()
        busy = False
        done = running.result()
    for name in dumps(desk):
        desk.shell("db", "backup", "--verify", desk.backups / name, ok=True)
    assert desk.fills() == done > 12


def test_a_full_disk_fails_the_backup_and_keeps_the_old_one(desk: Desk) -> None:
    good = desk.backup()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    process = desk.shell.start("db", "backup", preexec_fn=limit)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 6 and "cannot be written" in err and "Traceback" not in err
    assert dumps(desk) == [good.name] and not list(desk.backups.glob(".backup_*"))
    assert "FAILED" in log_lines(desk)[-1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_really_full_disk(desk: Desk, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", disk], check=False).returncode:
        pytest.skip("tmpfs cannot be mounted here: this test did NOT run")
    try:
        ran = desk.shell("db", "backup", "--dir", disk)
        assert ran.code == 6 and "No space left" in ran.message
        assert not list(disk.glob("*backup_*"))
    finally:
        subprocess.run(["umount", disk], check=True)


def killings(start: Callable[[], subprocess.Popen[str]], whole_s: float) -> Iterator[bool]:
    """kill -9 at eight moments of a run that takes about `whole_s`; whether it was killed before its end."""
    for k in range(8):
        process = start()
        try:
            process.wait(whole_s * (0.3 + 0.075 * k))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        else:
            whole_s *= 0.8  # the machine is faster now than it was
        process.communicate()
        yield process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_backups_killed_at_many_moments_leave_a_good_one_and_no_trace(desk: Desk) -> None:
    good = desk.backup()
    stamp = desk.sql("SELECT * FROM backup_stamp")
    began = time.monotonic()
    desk.backup()
    whole_s = time.monotonic() - began
    killed = 0
    for was_killed in killings(lambda: desk.shell.start("db", "backup"), whole_s):
        killed += was_killed
        assert desk.sql("SELECT state FROM backup_stamp") == [("in_database",)]
    assert killed >= 3 and good.exists() and "Restored" not in desk.verify()
    for name in dumps(desk):
        assert gzip.decompress((desk.backups / name).read_bytes())
    desk.backup()
    assert desk.sql("SELECT * FROM backup_stamp") != stamp
    assert not list(desk.backups.glob(".backup_*.partial"))
    desk.shell("db", "backup", "--verify", ok=True)


def test_two_at_once_and_a_lock_that_is_free_again(desk: Desk) -> None:
    with psycopg.connect(desk.server.url(desk.name)) as blocker:
        blocker.execute("LOCK TABLE events")  # pg_dump waits
        first = desk.shell.start("db", "backup")
        while not (desk.backups / ".backup.lock").exists() or not (desk.backups / ".backup.lock").read_text():
            time.sleep(0.01)
        ran = desk.shell("db", "backup")
        assert ran.code == 6 and f"pid {first.pid}" in ran.message
        commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
        assert not any(desk.server.password.encode() in line for line in commands)
    assert first.wait(30) == 0
    assert [("FAILED" in line) for line in log_lines(desk)] == [True, False]
    first.communicate()
    desk.backup()


def restored_fills(desk: Desk, ran: Ran) -> int:
    assert ran.code == 0, ran.err
    assert "The old database is kept as" in ran.out
    return desk.fills()


def test_an_older_state_is_restored_and_the_lost_trades_come_back_once(desk: Desk) -> None:
    path = desk.backup()
    desk.trade(range(10, 13))
    desk.quiet()
    before = desk.sql("SELECT count(*) FROM entries")
    ran = desk.shell("db", "restore", path, "--json", ok=True)
    assert desk.fills() == 10 and desk.sql("SELECT count(*) FROM entries", ran.json["kept"]) == before
    assert f"Restored from dump {ran.json['dump_id']}" in desk.verify()
    with psycopg.connect(desk.server.url(desk.name)) as connection:
        epoch = int(connection.execute("SELECT epoch FROM authority").fetchall()[0][0])
        assert epoch > desk.book.epoch  # whoever wrote before is fenced
        again = Book(connection, desk.book.account, epoch, desk.book.session)
        for _ in range(2):  # the exchange tells of all it knows, twice
            again.append(
                *(again.fill("buy" if i % 2 == 0 else "sell", "0.1", str(50000 + i), f"t{i}", i) for i in range(13))
            )
    assert desk.fills() == 13
    desk.verify()
    desk.backup()
    assert "Restored" not in desk.verify()  # this database has a dump of its own now


def test_a_restore_is_refused_while_a_session_is_alive(desk: Desk) -> None:
    path = desk.backup()
    for state in (
        "heartbeat_at = NULL, expires_at = now() + interval '30 s'",
        f"heartbeat_at = now(), expires_at = NULL, holder = '{this_process()}'",
        "heartbeat_at = now(), expires_at = NULL, holder = 'elsewhere pid 1 started 7 at another/4026531836/'",
    ):
        desk.sql(f"UPDATE authority SET {state}")
        for force in ((), ("--force",)):
            ran = desk.shell("db", "restore", path, *force)
            assert ran.code == 9 and "alive" in ran.message
    desk.quiet()
    with psycopg.connect(desk.server.url(desk.name), application_name="atb live BTCUSDT"):
        assert desk.shell("db", "restore", path).code == 9
    assert not desk.databases() and desk.fills() == 10
    dead = this_process()._replace(pid=999_999_999)
    desk.sql(f"UPDATE authority SET heartbeat_at = now(), holder = '{dead}'")
    assert restored_fills(desk, desk.shell("db", "restore", path)) == 10  # its holder is dead; idle connections end


def test_where_nobody_can_say_whether_a_session_is_alive(desk: Desk) -> None:
    path = desk.backup()
    desk.connection.close()
    desk.sql("ALTER TABLE authority RENAME COLUMN holder TO somebody")
    asked = [desk.shell("db", "restore", path)]
    desk.sql(f'ALTER DATABASE "{desk.name}" ALLOW_CONNECTIONS false', "postgres")
    asked.append(desk.shell("db", "restore", path))
    for ran in asked:
        assert ran.code == 6 and "Nothing was changed: whether a session is alive could not be asked" in ran.message
        assert "--force" in ran.err
    names = f"SELECT count(*) FROM pg_database WHERE datname LIKE '{desk.name}_before_%'"
    assert desk.sql(names, "postgres") == [(0,)]
    ran = desk.shell("db", "restore", path, "--force")
    assert restored_fills(desk, ran) == 10
    assert "Skipped (--force): whether a session is alive could not be asked. " in ran.err
    assert "not currently accepting connections" in ran.err


def test_on_tables_that_are_not_there_nobody_trades(desk: Desk) -> None:
    path = desk.backup()
    desk.sql("DROP TABLE authority CASCADE")
    ran = desk.shell("db", "restore", path)
    assert restored_fills(desk, ran) == 10 and "alive" not in ran.err


@pytest.mark.slow
def test_restores_killed_at_many_moments_change_nothing_or_all(desk: Desk) -> None:
    path = desk.backup()
    desk.trade(range(10, 12))
    desk.quiet()
    desk.connection.close()
    began = time.monotonic()
    desk.shell("db", "restore", path, ok=True)
    whole_s = time.monotonic() - began
    killed = 0
    kept = f"SELECT count(*) FROM pg_database WHERE datname LIKE '{desk.name}_before_%'"
    done = desk.sql(kept)[0][0]
    for was_killed in killings(lambda: desk.shell.start("db", "restore", path), whole_s):
        killed += was_killed
        time.sleep(0.1)  # the server ends what it was told before it notices
        swapped, done = desk.sql(kept)[0][0] - done, desk.sql(kept)[0][0]
        assert swapped in (0, 1) and desk.fills() == 10
    assert killed >= 3
    desk.verify()
    assert restored_fills(desk, desk.shell("db", "restore", path)) == 10


@pytest.mark.slow
def test_plain_dumps_and_other_roles(desk: Desk) -> None:
    desk.sql(f"CREATE ROLE reader_{desk.name}; GRANT SELECT ON trades TO reader_{desk.name}")
    path, plain = desk.backup(), desk.plain_dump()
    desk.sql(f"REVOKE ALL ON trades FROM reader_{desk.name}; DROP ROLE reader_{desk.name}")
    desk.quiet()
    ran = desk.shell("db", "restore", path)
    assert restored_fills(desk, ran) == 10 and "Left out: GRANT" in ran.err
    assert desk.shell("db", "backup", "--verify", plain).code == 0
    assert restored_fills(desk, desk.shell("db", "restore", plain)) == 10
    assert "Restored from dump plain.sql" in desk.verify()
    desk.sql("UPDATE alembic_version SET version_num = 'v99.0.0'")
    newer = desk.backup()
    for command in (("backup", "--verify"), ("restore", newer)):
        ran = desk.shell("db", *command)
        assert ran.code == 6 and "newer than this atb" in ran.message


def test_without_the_right_to_create_databases(desk: Desk) -> None:
    path = desk.backup()
    role = f"plain_{desk.name}"
    desk.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'pass'; GRANT pg_read_all_data TO {role}")
    url = desk.server.url(desk.name).replace(f"trading_bot:{desk.server.password}", f"{role}:pass")
    desk.quiet()
    ran = desk.shell("db", "restore", path, env={"DATABASE_URL": url})
    assert ran.code == 6 and "may not create a database" in ran.message and "atb db psql" in ran.err
    desk.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_restore_into_a_server_without_the_database(desk: Desk) -> None:
    path = desk.backup()
    desk.connection.close()
    desk.sql(f'DROP DATABASE "{desk.name}" WITH (FORCE)', "postgres")
    ran = desk.shell("db", "restore", path, "--json", ok=True)
    assert ran.json["kept"] is None and desk.fills() == 10


def test_a_terminal_is_asked(desk: Desk) -> None:
    path = desk.backup()
    desk.quiet()
    before = desk.sql("SELECT oid FROM pg_database WHERE datname = current_database()")
    ran = desk.shell.on_terminal("db", "restore", path, typed="n\n")
    assert ran.code == 130 and desk.sql("SELECT oid FROM pg_database WHERE datname = current_database()") == before
    assert "kept as" in desk.shell.on_terminal("db", "restore", path, typed="y\n").out
    assert "kept as" in desk.shell.on_terminal("db", "restore", path, "--yes").out


def run_line(desk: Desk, line: str) -> str:
    """A line of the runbook in a shell, with the embedded server's programs on its PATH."""
    env = {
        "PATH": f"{tool('psql').parent}:/usr/bin:/bin",
        "PGPASSFILE": str(desk.server.server.password_file),
        "PGPORT": str(desk.server.port),
    }
    line = line.replace("ai_trading_bot", desk.name)
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=desk.shell.work, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_runbooks_lines(desk: Desk) -> None:
    path = desk.backup()
    path.rename(desk.backups / "backup_20251121_020000.sql.gz")
    restore = "gunzip -c backups/backup_20251121_020000.sql.gz | psql -h localhost -U trading_bot -d ai_trading_bot"
    desk.trade(range(10, 13))
    for _ in range(2):  # it restores; it does not pile up
        assert "ERROR" not in run_line(desk, restore)
        assert desk.fills() == 10
    assert "Restored from dump" in desk.verify()
    assert int(desk.sql("SELECT epoch FROM authority")[0][0]) > desk.book.epoch
    run_line(desk, "pg_dump -h localhost -U trading_bot ai_trading_bot > backups/backup_$(date +%Y%m%d_%H%M%S).sql")
    run_line(
        desk, "pg_dump -h localhost -U trading_bot ai_trading_bot | gzip > backups/backup_$(date +%Y%m%d_%H%M%S).sql.gz"
    )
    desk.shell("db", "backup", "--verify", ok=True)
    run_line(desk, "ls -lth backups/")
    desk.sql("DROP SCHEMA backtest CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    run_line(desk, "cat backups/backup_2*.sql > backups/backup_2025-11-21.sql")
    assert "ERROR" not in run_line(
        desk, "psql -h localhost -U trading_bot -d ai_trading_bot < backups/backup_2025-11-21.sql"
    )
    assert "Ledger whole" in desk.verify()
