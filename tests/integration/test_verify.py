"""`atb db verify` finds what was changed behind the ledger's back: in the schema, in its facts, at the end of its chain."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from atb.core.errors import DatabaseError
from atb.ledger import projections
from atb.ledger.accounts import all_accounts, open_account, take_authority
from atb.ledger.audit import read_chain, rebuild
from atb.ledger.connect import connect, from_url
from atb.ledger.entries import genesis, link
from atb.ledger.version import FINGERPRINT, fingerprint
from atb.ops.remembered import Remembered
from atb.ops.verify import verify_database
from tests.database import Book, Postgres, postgres
from tests.integration.shell import ATB, Shell, without_powers
from tests.integration.test_db import filled

PROJECTED = [table.name for table in projections.ALL]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with postgres(tmp_path_factory.mktemp("verify")) as running:
        yield running


def test_the_fingerprint_is_that_of_the_migrations(server: Postgres) -> None:
    with connect(server.where(server.database())) as connection:
        assert fingerprint(connection) == FINGERPRINT


GUARD = "trigger public.entries entries_are_final"
ANOTHER = "a constraint, a check, a rule, a sequence or a column's precision differs"
MADE_AGAIN = "DROP TRIGGER entries_are_final ON entries; CREATE TRIGGER entries_are_final BEFORE {} ON entries {}"
SCHEMA = {
    "guard disabled": ("ALTER TABLE entries DISABLE TRIGGER entries_are_final", f"{GUARD} is disabled"),
    "guard for replicas only": ("ALTER TABLE entries ENABLE REPLICA TRIGGER entries_are_final", f"{GUARD} is not always"),
    "guard gone": ("DROP TRIGGER entries_are_final ON entries", f"{GUARD} is missing"),
    "guard that does nothing": (
        "CREATE OR REPLACE FUNCTION entries_are_final() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$",
        f"{GUARD} or its function differs"),
    "guard of some columns": (
        MADE_AGAIN.format("DELETE OR UPDATE OF kind OR TRUNCATE", "EXECUTE FUNCTION entries_are_final()"),
        f"{GUARD} or its function differs"),
    "guard under a condition": (
        MADE_AGAIN.format("DELETE OR UPDATE OR TRUNCATE", "WHEN (false) EXECUTE FUNCTION entries_are_final()"),
        f"{GUARD} or its function differs"),
    "trigger on a table": (
        "CREATE TRIGGER mine BEFORE INSERT ON trades FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "trigger public.trades mine should not be there"),
    "keys that are not checked": (
        "ALTER TABLE trades DISABLE TRIGGER ALL", "trigger public.trades trades_account_id_fkey is disabled"),
    "rule": ("CREATE RULE mine AS ON INSERT TO entries DO INSTEAD NOTHING", ANOTHER),
    "rows hidden": ("ALTER TABLE trades ENABLE ROW LEVEL SECURITY", ANOTHER),
    "table that a crash empties": ("ALTER TABLE trades SET UNLOGGED", ANOTHER),
    "numbers gone": ("DROP SEQUENCE trading_sessions_id_seq", ANOTHER),
    "numbers downwards": ("ALTER SEQUENCE trading_sessions_id_seq INCREMENT -1 MINVALUE 1 MAXVALUE 9223372036854775807", ANOTHER),
    "amounts that are rounded": ("ALTER TABLE trades ALTER pnl TYPE numeric(20, 2)", ANOTHER),
    "other tables first": ("ALTER DATABASE {} SET search_path = backtest, public",
                           "search_path leads to schema backtest, not public"),
    "no triggers": ("ALTER DATABASE {} SET session_replication_role = replica",
                    "session_replication_role is replica"),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMA)
def test_what_was_changed_in_the_schema_is_named(server: Postgres, name: str) -> None:
    statement, expected = SCHEMA[name]
    where = server.where(database := server.database())
    assert verify_database(where, lambda good, text: None).error is None
    with psycopg.connect(server.url(database)) as connection:
        connection.execute(statement.format(database))
    said: list[str] = []
    report = verify_database(where, lambda good, text: None if good else said.append(text))
    assert isinstance(report.error, DatabaseError) and report.error.exit_code == 6
    assert expected in said[0] and expected in report.error.what, said


# What only shows from outside the database: `atb db verify` and `atb db backup` remember the end of each chain.


@pytest.fixture
def db(server: Postgres, tmp_path: Path) -> Shell:
    return Shell(tmp_path, DATABASE_URL=server.url(server.database()))


@pytest.fixture
def ledger(db: Shell) -> Iterator[Book]:
    """Six entries, of which the last is a mark."""
    yield from filled(db, "paper:one", "paper")


def unguarded(ledger: Book, *statements: str) -> None:
    """Change what only a superuser can, and leave no trace of having been there."""
    with ledger.connection.transaction():
        ledger.connection.execute("SET LOCAL session_replication_role = replica")
        for statement in statements:
            ledger.connection.execute(statement)


def cut(ledger: Book, last: int) -> None:
    """Remove all entries after number `last`, and write everything that follows from them anew."""
    unguarded(ledger, f"DELETE FROM entries WHERE seq > {last}", "DELETE FROM account_state")
    assert rebuild(ledger.connection, ledger.account).problems == []


def nothing_in_the_database_tells(db: Shell) -> None:
    ran = db("db", "verify", env={"ATB_HOME": str(db.home / "another")}, ok=True)
    assert "tables agree" in ran.out


def memory_of(db: Shell) -> Path:
    (path,) = db.home.glob("ledger_*.json")
    return path


def test_a_tail_that_was_removed_with_all_its_traces(db: Shell, ledger: Book) -> None:
    assert db("db", "verify", "--json", ok=True).json["compared_with"] is None
    ran = db("db", "verify", "--json", ok=True)
    assert ran.json["compared_with"].startswith("20") and ran.json["went_back"] == ran.json["notes"] == []
    path = memory_of(db)
    ((system, name),) = ledger.connection.execute(
        "SELECT system_identifier, current_database() FROM pg_control_system()"
    )
    ledger.connection.commit()
    assert path.name == f"ledger_{system}_{name}.json" and path.stat().st_mode & 0o777 == 0o600
    cut(ledger, 4)
    nothing_in_the_database_tells(db)
    for _ in range(2):  # it is not forgotten by having been told
        ran = db("db", "verify")
        assert ran.code == 7 and "paper:one, entries: 2 entries gone: the last is number 4; number 6" in ran.message
        assert "❌ paper:one, entries: 2 entries gone" in ran.out and "--anew" in ran.err
    (problem,) = db("db", "verify", "--json").json["problems"]
    assert problem in ran.message
    ran = db("db", "verify", "--anew", ok=True)
    assert f"✅ The ledger goes back, as --anew allows: {problem}" in ran.out
    assert "goes back" not in db("db", "verify", ok=True).out


def test_entries_that_took_the_place_of_others(db: Shell, ledger: Book) -> None:
    db("db", "verify", ok=True)
    cut(ledger, 4)
    ledger.append(*(ledger.mark(minute, BTCUSDT="1000000") for minute in (200, 300, 400)))
    nothing_in_the_database_tells(db)
    ran = db("db", "verify")
    assert ran.code == 7
    assert "entries: the chain was written anew: entry 6 is not the one that was there at 20" in ran.message


def test_a_chain_hashed_anew_from_other_facts(db: Shell, ledger: Book) -> None:
    """Paper money that becomes real money, every hash recomputed: nobody holds a key to the hashes."""
    db("db", "verify", ok=True)
    unguarded(ledger, "UPDATE accounts SET environment = 'real'")
    (account,) = all_accounts(ledger.connection)
    previous = genesis(account)
    for chained in read_chain(ledger.connection, account.id):
        forged = link(chained.seq, chained.epoch, chained.entry, previous, chained.recorded_at)
        statement = f"UPDATE entries SET prev_hash = '\\x{previous.hex()}', hash = '\\x{forged.hash.hex()}'"
        unguarded(ledger, f"{statement} WHERE seq = {chained.seq}")
        previous = forged.hash
    unguarded(ledger, f"UPDATE account_state SET hash = '\\x{previous.hex()}'")
    ledger.connection.commit()
    nothing_in_the_database_tells(db)
    assert "the chain was written anew: entry 6" in db("db", "verify").message


def test_an_account_that_is_gone_with_all_it_had(db: Shell, ledger: Book) -> None:
    db("db", "verify", ok=True)
    unguarded(ledger, *(f"DELETE FROM {table}" for table in ("accounts", "authority", "entries", *PROJECTED)))
    nothing_in_the_database_tells(db)
    ran = db("db", "verify")
    assert ran.code == 7 and "paper:one, accounts: it is gone, with the 6 entries it had at 20" in ran.message


def test_an_account_without_entries_and_an_epoch_that_went_back(db: Shell, ledger: Book) -> None:
    open_account(ledger.connection, "empty", venue="paper", environment="paper", quote="USDT")
    take_authority(ledger.connection, ledger.account.id)
    db("db", "verify", ok=True)
    unguarded(ledger, "UPDATE accounts SET environment = 'real' WHERE name = 'empty'")
    unguarded(ledger, f"UPDATE authority SET epoch = {ledger.epoch} WHERE account_id = {ledger.account.id}")
    nothing_in_the_database_tells(db)
    ran = db("db", "verify", "--json")
    assert ran.code == 7 and [text.rpartition(" at ")[0] for text in ran.json["problems"]] == [
        f"paper:one, authority: epoch is {ledger.epoch}, but was {ledger.epoch + 1}",
        "empty, accounts: the facts of the account, which has no entries, are not as they were",
    ]


def test_a_backup_remembers_and_forgets_nothing(db: Shell, ledger: Book) -> None:
    db("db", "backup", ok=True)
    cut(ledger, 5)
    ran = db("db", "backup", ok=True)
    assert "Note: The ledger is not what it was: paper:one, entries: 1 entry gone" in ran.err
    assert db("db", "verify").code == 7
    unguarded(ledger, "UPDATE backup_stamp SET state = 'in_dump', dump_id = 'mine'")  # no dump was played back
    ran = db("db", "verify")
    assert ran.code == 7 and "1 entry gone" in ran.message


@pytest.mark.slow
def test_after_a_restore_the_shorter_chain_is_explained(db: Shell, ledger: Book) -> None:
    dump = db("db", "backup", "--json", ok=True).json
    restores: list[Callable[[], object]] = [
        lambda: db("db", "restore", dump["path"], ok=True),
        lambda: subprocess.run(
            f"gunzip -c {dump['path']} | {ATB} db psql -q -1 -v ON_ERROR_STOP=1",
            shell=True, cwd=db.work, env=db.env, check=True, stdout=subprocess.DEVNULL,
        ),
    ]  # fmt: skip
    for restore in restores * 2:  # the same dump again and again: its stamp is the same
        with psycopg.connect(db.env["DATABASE_URL"]) as connection:
            again = ledger._replace(connection=connection, epoch=take_authority(connection, ledger.account.id))
            again.append(again.mark(500, BTCUSDT="1"), again.mark(501, BTCUSDT="2"))
            connection.execute("UPDATE authority SET heartbeat_at = NULL")
        db("db", "verify", ok=True)
        ledger.connection.close()
        restore()
        ran = db("db", "verify", ok=True)
        assert f"✅ The ledger goes back, to dump {dump['dump_id']}, from which it was restored: paper:one" in ran.out
        assert "2 entries gone: the last is number 6; number 8 was there at" in ran.out
        assert db("db", "verify", "--json", ok=True).json["went_back"] == []


def test_a_backup_of_a_restored_database_remembers_that(db: Shell, ledger: Book) -> None:
    dump = db("db", "backup", "--json", ok=True).json
    ledger.append(ledger.mark(500, BTCUSDT="1"))
    ledger.connection.execute("UPDATE authority SET heartbeat_at = NULL")
    ledger.connection.commit()
    db("db", "verify", ok=True)
    db("db", "restore", dump["path"], ok=True)
    assert f"Note: The ledger goes back to dump {dump['dump_id']}: paper:one" in db("db", "backup", ok=True).err
    assert "goes back" not in db("db", "verify", ok=True).out


def no_session(ledger: Book) -> None:
    """The engine has ended: nothing keeps a dump from being restored."""
    ledger.connection.execute("UPDATE authority SET heartbeat_at = NULL")
    ledger.connection.commit()
    ledger.connection.close()


@pytest.mark.slow
def test_another_machine_learns_of_a_restore_after_the_next_backups(db: Shell, ledger: Book) -> None:
    """One restores and backs up; the other sees only the newer stamp, and must not take the restore for a loss."""
    there = {"ATB_HOME": str(db.home / "another")}
    dump = db("db", "backup", "--json", ok=True).json
    ledger.append(ledger.mark(500, BTCUSDT="1"))
    db("db", "verify", ok=True, env=there)
    no_session(ledger)
    db("db", "restore", dump["path"], ok=True)
    for _ in range(2):
        db("db", "backup", ok=True)
    explained = db("db", "verify", ok=True, env=there)
    assert f"The ledger goes back, to dump {dump['dump_id']}, from which it was restored: paper:one" in explained.out
    assert db("db", "verify", "--json", ok=True, env=there).json["went_back"] == []


def test_a_restore_explains_what_it_took_and_no_later_loss(db: Shell, ledger: Book) -> None:
    there = {"ATB_HOME": str(db.home / "another")}
    dump = db("db", "backup", "--json", ok=True).json
    no_session(ledger)
    db("db", "restore", dump["path"], ok=True)
    db("db", "backup", ok=True)
    db("db", "verify", ok=True, env=there)
    with psycopg.connect(db.env["DATABASE_URL"]) as connection:
        cut(ledger._replace(connection=connection), 5)
    ran = db("db", "verify", env=there)
    assert ran.code == 7 and "1 entry gone" in ran.message


@pytest.mark.slow
def test_a_plain_dump_does_not_bring_the_excuse_of_another_restore(db: Shell, ledger: Book) -> None:
    """The stamp's row is in it, too; what it says was so of the tables that were there before."""
    dump = db("db", "backup", "--json", ok=True).json
    no_session(ledger)
    db("db", "restore", dump["path"], ok=True)
    db("db", "backup", ok=True)
    db("db", "pg_dump", "--clean", "--if-exists", "-f", "plain.sql", ok=True)
    with psycopg.connect(db.env["DATABASE_URL"]) as connection:
        again = ledger._replace(connection=connection, epoch=take_authority(connection, ledger.account.id))
        again.append(again.mark(500, BTCUSDT="1"))
    db("db", "verify", ok=True)
    db("db", "psql", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-f", "plain.sql", ok=True)
    ran = db("db", "verify")
    assert ran.code == 7 and "1 entry gone" in ran.message
    assert db("db", "verify", "--anew", ok=True).err == ""


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_text(""),
    "half": lambda path: path.write_bytes(path.read_bytes()[:99]),
    "another number": lambda path: path.write_text(path.read_text().replace("6", "7")),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_memory_is_a_note_and_is_replaced(db: Shell, ledger: Book, name: str) -> None:
    db("db", "verify", ok=True)
    DAMAGES[name](memory_of(db))
    ran = db("db", "verify", "--json", ok=True)
    assert f"Note: {memory_of(db)} is damaged" in ran.err and ran.json["notes"] == [ran.err[6:].strip()]
    assert db("db", "verify", ok=True).err == ""


def test_a_memory_that_cannot_be_read_or_written_is_a_note(db: Shell, ledger: Book) -> None:
    db("db", "verify", ok=True)
    path = memory_of(db)
    path.chmod(0)
    ran = db("db", "verify", ok=True, preexec_fn=without_powers)
    assert f"Note: What the ledger was cannot be read from {path}: Permission denied" in ran.err
    db.home.chmod(0o500)
    ran = db("db", "verify", ok=True, preexec_fn=without_powers)
    assert f"Note: What the ledger is now cannot be remembered in {path}: Permission denied" in ran.err
    db.home.chmod(0o700)
    path.unlink()
    path.mkdir()
    ran = db("db", "verify", ok=True)
    assert ran.err.count("Note: ") == 2 and "Is a directory" in ran.err


def test_who_looked_earlier_does_not_overwrite_who_looked_later(db: Shell, ledger: Book) -> None:
    where = from_url(db.env["DATABASE_URL"])
    with connect(where) as connection:
        early = Remembered(connection, where, db.home)
        seen = early.look(connection).now
        connection.rollback()
        ledger.append(ledger.mark(500, BTCUSDT="1"))
        db("db", "verify", ok=True)
        later = memory_of(db).read_text()
        early.keep(seen)
        assert memory_of(db).read_text() == later
        assert Remembered(connection, where, db.home).look(connection).gone == []


@pytest.mark.slow
def test_many_at_once_while_entries_are_written(db: Shell, ledger: Book) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(db.many, [("db", "verify")] * 6)
        minute = 1000
        while not running.done():
            ledger.append(ledger.mark(minute := minute + 1, BTCUSDT="1"))
        assert [(ran.code, ran.err) for ran in running.result()] == [(0, "")] * 6
    assert minute > 1003 and db("db", "verify").code == 0


def test_without_the_right_to_ask_which_server_it_is(server: Postgres, db: Shell, ledger: Book) -> None:
    name = db.env["DATABASE_URL"].rpartition("/")[2]
    unguarded(
        ledger, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC", f"CREATE ROLE {name} LOGIN PASSWORD 'p'",
        f"GRANT pg_read_all_data TO {name}",
    )  # fmt: skip
    guest = {"DATABASE_URL": f"postgresql://{name}:p@127.0.0.1:{server.port}/{name}"}
    assert db("db", "verify", env=guest, ok=True).err == ""
    cut(ledger, 4)
    ran = db("db", "verify", env=guest)
    assert ran.code == 7 and "2 entries gone" in ran.message
    unguarded(ledger, f"DROP OWNED BY {name}", f"DROP ROLE {name}")
