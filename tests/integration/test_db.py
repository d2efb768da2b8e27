"""`atb db` as an operator runs it: the runbook's commands and statements word for word, good input and bad."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
import pytest

from atb.core.errors import Fenced, UsageError
from atb.ledger import accounts
from atb.ledger.connect import from_url
from atb.ledger.entries import Entry
from atb.ledger.query import ask
from atb.ledger.version import REVISION
from tests.database import START, Book, Postgres, book, postgres
from tests.integration.shell import Shell, plain
from tests.integration.test_imports import HEAVY, imported
from tests.seeds import thinned

LATEST = "SELECT id FROM trading_sessions ORDER BY start_time DESC LIMIT 1;"
DRAWDOWN = (
    "SELECT (peak_balance - current_balance) / peak_balance FROM trading_sessions ORDER BY start_time DESC LIMIT 1;"
)
RUNBOOK = [
    "SELECT * FROM positions WHERE status = 'OPEN';",
    "SELECT symbol, entry_price, stop_loss, current_price FROM positions;",
    "SELECT * FROM account_balances ORDER BY timestamp DESC LIMIT 20;",
    "SELECT * FROM trades ORDER BY exit_time DESC LIMIT 20;",
    "SELECT initial_balance,\n    (SELECT SUM(pnl) FROM trades WHERE session_id = trading_sessions.id) as total_pnl\n"
    "FROM trading_sessions ORDER BY start_time DESC LIMIT 1;",
    "SELECT * FROM trading_sessions ORDER BY start_time DESC LIMIT 1;",
    "SELECT COUNT(*) FROM trades;",
    "SELECT symbol, side, entry_price, exit_price, pnl, exit_reason\nFROM trades\nORDER BY exit_time DESC\nLIMIT 10;",
    "SELECT symbol, side, entry_price, size, unrealized_pnl\nFROM positions\nWHERE status = 'OPEN';",
    "SELECT\n    COUNT(*) as total_trades,\n"
    "    SUM(CASE WHEN pnl > 0 THEN 1 ELSE 0 END) * 100.0 / COUNT(*) as win_rate,\n    SUM(pnl) as total_pnl,\n"
    "    AVG(pnl) as avg_pnl\nFROM trades\nWHERE exit_time > NOW() - INTERVAL '3000 days';",
    "SELECT\n    DATE(exit_time) as trade_date,\n    COUNT(*) as trades,\n    SUM(pnl) as daily_pnl\nFROM trades\n"
    "WHERE exit_time > NOW() - INTERVAL '7 days'\nGROUP BY DATE(exit_time)\nORDER BY trade_date DESC;",
    DRAWDOWN,
    LATEST,
]


@pytest.fixture
def db(server: Postgres, tmp_path: Path) -> Shell:
    return Shell(tmp_path, DATABASE_URL=server.url(server.database()))


@pytest.fixture
def ledger(db: Shell) -> Iterator[Book]:
    yield from filled(db, "paper:one", "paper")


@pytest.fixture
def real_ledger(db: Shell) -> Iterator[Book]:
    yield from filled(db, "binance-main", "real")


def filled(db: Shell, name: str, environment: str) -> Iterator[Book]:
    """10,000 USDT, one trade that won 90, and 0.1 BTC bought at 50,000, marked at 49,000."""
    with psycopg.connect(db.env["DATABASE_URL"]) as connection:
        made = book(connection, name, environment)
        made.append(made.fill("buy", "0.1", "50000", "1"), made.fill("sell", "0.1", "51000", "2", 60, fee="10"))
        made.append(made.fill("buy", "0.1", "50000", "3", 120), made.mark(180, BTCUSDT="49000"))
        yield made


def test_the_runbooks_statements_run_as_written(db: Shell, ledger: Book) -> None:
    for statement in RUNBOOK:
        assert db("db", "query", statement, ok=True).err == "" or "rows" in statement or "7 days" in statement, (
            statement
        )


def test_the_runbooks_drawdown_is_a_bare_number(db: Shell, ledger: Book) -> None:
    out = db("db", "query", DRAWDOWN, ok=True).out
    # 10,000 and the 90 of the trade are the peak; 100 are lost since.
    assert out == "0.00991080277502477701\n"
    script = 'DRAWDOWN=$(atb db query "$1"); if [ $(echo "$DRAWDOWN > 0.005" | bc -l) = 1 ]; then echo alarm; fi'
    assert (
        "alarm"
        in subprocess.run(
            ["sh", "-c", script, "sh", DRAWDOWN],
            env={**db.env, "PATH": f"{BIN}:{db.env['PATH']}"},
            capture_output=True,
            text=True,
        ).stdout
        or not has_bc()
    )


BIN = Path(sys.executable).parent


def has_bc() -> bool:
    return subprocess.run(["sh", "-c", "command -v bc"], capture_output=True).returncode == 0


def test_verify_says_what_the_runbook_expects(db: Shell, ledger: Book) -> None:
    lines = db("db", "verify", ok=True).out.splitlines()
    assert lines[:3] == ["✅ Database connection successful", "✅ All tables exist", f"✅ Schema version: {REVISION}"]
    assert lines[3] == "✅ Ledger whole: 6 entries, 3 fills, 1 accounts; tables agree"
    report = db("db", "verify", "--json", ok=True).json
    assert report["ok"] and report["entries"] == 6 and report["problems"] == []
    assert ledger.account.name not in report["database"] and "***" not in report["database"]


def test_verify_names_a_row_that_was_changed_and_rebuild_mends_it(db: Shell, ledger: Book) -> None:
    ledger.connection.execute("UPDATE trades SET pnl = pnl + 1")
    ledger.connection.commit()
    ran = db("db", "verify")
    assert ran.code == 7 and "trades" in ran.message and "pnl is 91, by the ledger 90" in ran.message
    assert "atb db rebuild" in ran.err
    assert "written anew from 6 entries" in db("db", "rebuild", ok=True).out
    assert db("db", "verify").code == 0


def test_verify_names_an_entry_that_was_changed(db: Shell, ledger: Book) -> None:
    ledger.connection.execute("ALTER TABLE entries DISABLE TRIGGER entries_are_final")
    ledger.connection.execute("""UPDATE entries SET body = replace(body, '"qty":"0.1"', '"qty":"0.2"') WHERE seq = 3""")
    ledger.connection.execute("ALTER TABLE entries ENABLE TRIGGER entries_are_final")
    ledger.connection.commit()
    ran = db("db", "verify")
    assert ran.code == 7 and "Entry 3 (fill:spot:BTCUSDT:buy:1) was changed after it was written." in ran.message
    assert db("db", "rebuild").code == 7


def test_a_position_closed_by_hand(db: Shell, real_ledger: Book) -> None:
    ran = db(
        "db", "close-position", "--symbol", "BTCUSDT", "--exit-price", "50000", "--exit-reason", "manual_close", ok=True
    )
    assert ran.out.splitlines()[1].split("\t")[1:6] == ["BTCUSDT", "0.1", "50000", "5.00000000", "-5"]
    assert db("db", "query", RUNBOOK[0]).err == "Note: no rows.\n"
    trade = db("db", "query", "SELECT pnl, exit_reason, provisional FROM trades ORDER BY exit_time DESC LIMIT 1")
    assert trade.out == "-5\tmanual_close\tt\n"
    again = db("db", "close-position", "--symbol", "BTCUSDT", "--exit-price", "50000")
    assert again.code == 2 and "is not held" in again.message
    real_ledger.append(
        real_ledger.fill("sell", "0.1", "50100", "4", 500, fee="3")
    )  # the exchange's own fill of it arrives
    trade = db("db", "query", "SELECT pnl, provisional FROM trades ORDER BY exit_time DESC LIMIT 1")
    assert trade.out == "7\tf\n"
    assert db("db", "query", "SELECT count(*) FROM trades").out == "2\n"
    assert db("db", "verify").code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--exit-price", "0"], "--exit-price 0 is no price"),
        (["--exit-price", "-1"], "--exit-price -1 is no price"),
        (["--exit-price", "1e30"], "no amount that anybody trades"),
        (["--exit-price", "much"], "--exit-price 'much' is not a number"),
        (["--exit-price", "NaN"], "--exit-price 'NaN' is not a number"),
        (["--exit-price", "1", "--quantity", "0.2"], "--quantity 0.2 cannot be closed: 0.1 BTCUSDT is held"),
        (["--exit-price", "1", "--quantity", "0"], "--quantity 0 cannot be closed"),
        (["--exit-price", "1", "--account", "no"], "is not held by an account no. Open positions: BTCUSDT (paper:one)"),
        (["--exit-price", "1", "--exit-reason", " "], "--exit-reason is empty"),
        (["--exit-price", "1", "--fee-bps", "10000"], "--fee-bps 10000 is no fee"),
    ],
)  # fmt: skip
def test_an_impossible_exit_is_refused(db: Shell, ledger: Book, options: list[str], message: str) -> None:
    ran = db("db", "close-position", "--symbol", "BTC/USDT", *options)
    assert ran.code == 2 and message in ran.message
    assert db("db", "query", "SELECT count(*) FROM entries").out == "6\n"


def test_a_symbol_that_two_accounts_hold_needs_the_account(db: Shell, ledger: Book) -> None:
    with psycopg.connect(db.env["DATABASE_URL"]) as connection:
        other = book(connection, "paper:two")
        other.append(other.fill("buy", "1", "100", "1"))
    args = ("db", "close-position", "--symbol", "BTCUSDT", "--exit-price", "100")
    ran = db(*args)
    assert ran.code == 2 and "paper:one, paper:two" in ran.message
    assert "paper:two" in db(*args, "--account", "paper:two", ok=True).out


def test_an_exit_recorded_in_part_does_not_come_back(db: Shell, ledger: Book) -> None:
    db("db", "close-position", "--symbol", "BTCUSDT", "--exit-price", "50000", "--quantity", "0.04", ok=True)
    done = db("db", "emergency-close-all", "--session-id", ledger.session, "--json", ok=True).json
    assert [(c["qty"], c["left"]) for c in done["closed"]] == [("0.06", "0")]
    assert db("db", "query", "SELECT count(*) FROM positions WHERE status = 'OPEN'").out == "0\n"
    assert db("db", "verify").code == 0


def test_only_the_exit_itself_replaces_its_record(db: Shell) -> None:
    """Not a sale from before the entry, nor one of a position that was entered since, nor one of an order of ours."""
    with psycopg.connect(db.env["DATABASE_URL"]) as connection:
        real = book(connection, "binance-main", "real")
        real.append(real.fill("buy", "0.1", "50000", "1", 60))
        db("db", "close-position", "--symbol", "BTCUSDT", "--exit-price", "51000", ok=True)
        record = "SELECT effective_qty FROM fills WHERE provisional"
        real.append(real.fill("buy", "0.1", "52000", "2", 10_000_000))
        real.append(real.fill("sell", "0.1", "53000", "3", 10_000_001))
        assert db("db", "query", record).out == "0.1\n"
        real.append(real.fill("sell", "0.05", "49000", "0", 30))
        assert db("db", "query", record).out == "0.1\n"


def test_what_is_not_held_any_more_is_not_sold_again(db: Shell, ledger: Book) -> None:
    from atb.ledger.line import Line
    from atb.ops.closing import open_positions, record_exit

    (held,) = open_positions(ledger.connection, ledger.account)
    db("db", "close-position", "--symbol", "BTCUSDT", "--exit-price", "50000", ok=True)
    line = Line(from_url(db.env["DATABASE_URL"]))
    with line, pytest.raises(UsageError, match="cannot be closed: 0 is held"):
        record_exit(line, held, price=Decimal(1), quantity=None, reason="again", evidence="test")


@pytest.mark.slow
def test_an_engine_that_hangs_does_not_keep_its_authority(db: Shell, ledger: Book) -> None:
    url, lock = db.env["DATABASE_URL"], "SELECT * FROM authority WHERE account_id = %s FOR UPDATE"
    with psycopg.connect(url) as hung, psycopg.connect(url) as innocent:
        other = book(innocent, "paper:two")
        innocent.execute(lock, (other.account.id,))
        innocent.execute("UPDATE authority SET holder = 'in the middle' WHERE account_id = %s", (other.account.id,))
        hung.execute(lock, (ledger.account.id,))
        db("db", "emergency-close-all", "--session-id", ledger.session, ok=True)
        with pytest.raises(psycopg.OperationalError, match="terminating connection"):
            hung.execute("SELECT 1")
        innocent.commit()
    assert db("db", "query", "SELECT count(*) FROM positions WHERE status = 'OPEN'").out == "0\n"
    assert db("db", "query", f"SELECT holder FROM authority WHERE account_id = {other.account.id}").out == (
        "in the middle\n"
    )


@pytest.mark.parametrize(
    ("locks", "ended"),
    [  # a row that several have locked: its xmax is a multixact. KEY SHARE keeps nobody from an update of the epoch.
        (("SHARE", "SHARE"), (True, True)),
        (("KEY SHARE", "NO KEY UPDATE"), (False, True)),
        (("NO KEY UPDATE", "KEY SHARE", "KEY SHARE"), (True, False, False)),
    ],
)
def test_of_those_that_share_a_row_only_those_in_the_way_are_ended(
    db: Shell, ledger: Book, locks: tuple[str, ...], ended: tuple[bool, ...]
) -> None:
    with ExitStack() as stack:
        holders = [stack.enter_context(psycopg.connect(db.env["DATABASE_URL"])) for _ in locks]
        for holder, lock in zip(holders, locks, strict=True):
            holder.execute(f"SELECT * FROM authority WHERE account_id = %s FOR {lock}", (ledger.account.id,))
        ledger.connection.execute("SET lock_timeout = '1s'")
        ledger.connection.commit()
        assert accounts.take_authority(ledger.connection, ledger.account.id, insist=True) > ledger.epoch
        assert tuple(is_ended(holder) for holder in holders) == ended


def test_a_queue_for_a_row_is_ended_to_its_head_and_a_table_lock_is_nobodys_fault(db: Shell, ledger: Book) -> None:
    url, take = db.env["DATABASE_URL"], "UPDATE authority SET holder = 'next' WHERE account_id = %s"
    ledger.connection.execute("SET lock_timeout = '1s'")
    ledger.connection.commit()
    with psycopg.connect(url) as head, psycopg.connect(url) as next_, ThreadPoolExecutor(1) as pool:
        head.execute(take, (ledger.account.id,))
        queued = pool.submit(next_.execute, take, (ledger.account.id,))
        wait_until(lambda: waiting(ledger, next_))
        accounts.take_authority(ledger.connection, ledger.account.id, insist=True)
        assert is_ended(head) and isinstance(queued.exception(), psycopg.OperationalError)
    with psycopg.connect(url) as migration:
        migration.execute("LOCK TABLE authority")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            accounts.take_authority(ledger.connection, ledger.account.id, insist=True)
        assert not is_ended(migration)
    ledger.connection.rollback()


def waiting(ledger: Book, other: psycopg.Connection[Any]) -> bool:
    statement = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
    with ledger.connection.transaction():
        return bool(ledger.connection.execute(statement, (other.info.backend_pid,)).fetchall()[0][0])


def is_ended(connection: psycopg.Connection[Any]) -> bool:
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_emergency_close_all_of_a_paper_account(db: Shell, ledger: Book) -> None:
    session = db("db", "query", LATEST, ok=True).out.strip()
    planned = db("db", "emergency-close-all", "--session-id", session, "--dry-run", "--json", ok=True).json
    assert [(plan["symbol"], plan["qty"], plan["last_mark"]) for plan in planned] == [("BTCUSDT", "0.1", "49000")]
    assert db("db", "query", "SELECT count(*) FROM entries").out == "6\n"
    done = db("db", "emergency-close-all", "--session-id", session, "--json", ok=True).json
    assert [(c["symbol"], c["price"], c["left"]) for c in done["closed"]] == [("BTCUSDT", "49000", "0")]
    assert db("db", "query", f"SELECT halted, epoch > {ledger.epoch} FROM authority").out == "t\tt\n"
    assert "Nothing was open" in db("db", "emergency-close-all", "--session-id", session, ok=True).err
    assert db("db", "verify").code == 0


def test_on_a_terminal_an_emergency_close_asks_first(db: Shell, ledger: Book) -> None:
    """What would be closed is shown; a no changes nothing at all, not even who has authority."""
    args = ("db", "emergency-close-all", "--session-id", ledger.session)
    before = db("db", "query", "SELECT epoch, halted FROM authority", ok=True).out
    ran = db.on_terminal(*args, typed="n\n")
    assert (
        ran.code == 130 and "Close all of this?" in ran.out and "BTCUSDT" in ran.out and "nothing was done" in ran.out
    )
    assert db("db", "query", "SELECT epoch, halted FROM authority", ok=True).out == before
    ran = db.on_terminal(*args, typed="y\n")
    assert ran.code == 0 and "the last" in plain(ran.out)
    assert db("db", "query", "SELECT halted, count(*) FROM authority, trades GROUP BY 1", ok=True).out == "t\t2\n"


def test_what_is_recorded_for_a_paper_account_is_final(db: Shell, ledger: Book) -> None:
    """No exchange will ever tell of it."""
    db("db", "emergency-close-all", "--session-id", ledger.session, "--record-only", "--exit-price", "49000", ok=True)
    assert db("db", "query", "SELECT bool_or(provisional) FROM fills").out == "f\n"


def test_the_engine_that_was_fenced_can_write_nothing_more(db: Shell, ledger: Book) -> None:
    from atb.core.errors import Fenced

    db("db", "emergency-close-all", "--session-id", ledger.session, ok=True)
    with pytest.raises(Fenced):
        ledger.append(ledger.fill("buy", "1", "1", "99", 600))


def test_emergency_close_all_of_real_money_needs_its_key_or_what_was_done_by_hand(db: Shell) -> None:
    with psycopg.connect(db.env["DATABASE_URL"]) as connection:
        real = book(connection, "binance-main", "real")
        real.append(real.fill("buy", "0.1", "50000", "1"), real.fill("buy", "1", "3000", "1", symbol="ETHUSDT"))
        real.append(real.fill("buy", "1", "2", "1", symbol="ADAUSDT")._replace(session_id=None))
    close = ("db", "emergency-close-all", "--session-id", real.session)
    ran = db(*close)
    assert "--session-id N --record-only --exit-price ADAUSDT=PRICE" in ran.err
    db("db", "close-position", "--symbol", "ADAUSDT", "--exit-price", "2", ok=True)
    ran = db(*close)
    assert ran.code == 2 and "There is no key for binance" in ran.message and "--record-only" in ran.err
    assert db("db", "query", "SELECT count(*) FROM positions WHERE status = 'OPEN'").out == "2\n"
    ran = db(*close, "--record-only", "--exit-price", "50000")
    assert ran.code == 2 and "One price for several symbols" in ran.message
    ran = db(*close, "--record-only", "--exit-price", "BTCUSDT=50000")
    assert ran.code == 2 and "There is no price for ETHUSDT" in ran.message
    db(*close, "--record-only", "--exit-price", "BTCUSDT=50000", "--exit-price", "ETHUSDT=2900", ok=True)
    booked = db("db", "query", "SELECT symbol, provisional FROM trades ORDER BY symbol").out
    assert booked == "ADAUSDT\tt\nBTCUSDT\tt\nETHUSDT\tt\n"
    assert db("db", "verify").code == 0


@pytest.mark.parametrize(
    ("prices", "what"),
    thinned(
        [
            (["BTCUSDT=50000", "ETHUSDT=3000"], "ETHUSDT=3000: ETHUSDT is not held (held: 0.1 BTCUSDT)"),
            (["50000", "BTCUSD=1"], "BTCUSD=1: BTCUSD is not held (held: 0.1 BTCUSDT)"),
            (["BTCUSDT=50000", "3000"], "3000: each symbol that is held has a price of its own"),
        ],
        3,
    ),
)
def test_a_price_for_what_is_not_held_is_refused_before_anything_is_closed(
    db: Shell, ledger: Book, prices: list[str], what: str
) -> None:
    close = ["db", "emergency-close-all", "--session-id", ledger.session, "--record-only"]
    close += [each for price in prices for each in ("--exit-price", price)]
    state = "SELECT halted, epoch FROM authority"
    before = db("db", "query", state).out
    ran = db(*close, "--dry-run")
    assert ran.code == 2 and ran.message.startswith(f"--exit-price {what}") and "halted" not in ran.err
    assert db("db", "query", state).out == before == f"f\t{ledger.epoch}\n"
    ran = db(*close)
    assert ran.code == 2 and ran.message.startswith(f"--exit-price {what}")
    assert "Nothing was closed; fenced and halted all the same: paper:one." in ran.message
    assert db("db", "query", state).out.startswith("t\t")  # the engine trades no more, whatever was typed
    assert db("db", "query", "SELECT count(*) FROM positions WHERE status = 'OPEN'").out == "1\n"


def test_what_was_booked_already_is_not_closed_again_by_the_same_command(db: Shell, ledger: Book) -> None:
    close = ("db", "emergency-close-all", "--session-id", ledger.session, "--record-only", "--exit-price")
    db(*close, "BTCUSDT=50000", ok=True)
    ran = db(*close, "BTCUSDT=50000")
    assert ran.code == 2 and "BTCUSDT is not held (held: nothing)" in ran.message and "atb db trades" in ran.err
    assert "Nothing was open" in db(*close, "50000", ok=True).err


def test_working_orders_of_real_money_keep_it_from_being_done(db: Shell) -> None:
    with psycopg.connect(db.env["DATABASE_URL"]) as connection:
        real = book(connection, "binance-main", "real")
        intent = {"client_order_id": "atb-1", "symbol": "BTCUSDT", "side": "buy", "type": "limit", "qty": Decimal(1)}
        real.append(Entry("intent:atb-1", "intent", START, intent, real.session))
    close = ("db", "emergency-close-all", "--session-id", real.session)
    planned = db(*close, "--dry-run", "--json", ok=True).json
    assert [plan["what"] for plan in planned] == ["cancel atb-1 (intent)"]
    ran = db(*close)
    assert ran.code == 2 and "binance-main was halted, and could not be closed: There is no key" in ran.message
    db(*close, "--record-only", ok=True)
    assert db("db", "query", "SELECT state FROM orders").out == "cancelled\n"
    assert db("db", "verify").code == 0


def test_another_real_account_is_not_forgotten(db: Shell, ledger: Book) -> None:
    with psycopg.connect(db.env["DATABASE_URL"]) as connection:
        real = book(connection, "binance-main", "real")
        real.append(real.fill("buy", "0.1", "50000", "1"))
    ran = db("db", "emergency-close-all", "--session-id", ledger.session)
    assert ran.code == 7 and "binance-main: 0.1 BTCUSDT" in ran.message and "--all" in ran.err
    fenced = "SELECT name, halted FROM authority JOIN accounts ON id = account_id ORDER BY name"
    assert db("db", "query", fenced).out == "binance-main\tf\npaper:one\tt\n"  # the one that was named trades no more
    with pytest.raises(Fenced):
        ledger.append(ledger.mark(999, BTCUSDT="1"))
    assert db("db", "query", "SELECT count(*) FROM positions WHERE status = 'OPEN'").out == "2\n"
    ran = db("db", "emergency-close-all", "--session-id", ledger.session, "--all")
    assert ran.code == 2 and "binance-main" in ran.message
    assert db("db", "query", "SELECT count(*) FROM positions WHERE status = 'OPEN'").out == "1\n"


@pytest.mark.parametrize(
    ("session", "message"),
    [
        ("", "--session-id is empty"),
        ("x", "'x' is no number"),
        ("99", "There is no session 99 in postgresql://trading_bot@127.0.0.1"),
        ("-1", "no number"),
    ],
)
def test_a_session_that_is_none(db: Shell, ledger: Book, session: str, message: str) -> None:
    ran = db("db", "emergency-close-all", f"--session-id={session}")
    assert ran.code == 2 and message in ran.message


def test_trades_made_by_hand_are_imported_once(db: Shell, ledger: Book) -> None:
    text = (
        "time,symbol,side,qty,price,trade_id,fee,fee_asset\n2025-11-22T10:00:00,BTC/USDT,SELL,0.1,52000,77,5.2,USDT\n"
    )
    (db.work / "fills.csv").write_text(text)
    assert db("db", "import-trades", "fills.csv", ok=True).out == "Booked 1; 0 were booked already.\n"
    assert db("db", "import-trades", "fills.csv", ok=True).out == "Booked 0; 1 were booked already.\n"
    assert db("db", "query", "SELECT pnl FROM trades ORDER BY exit_time DESC LIMIT 1").out == "194.8\n"
    for lines in (1, 2):  # an empty one counts, as in an editor
        (db.work / "bad.csv").write_text(text.replace("0.1,", "-1,").replace("fee_asset\n", "fee_asset" + "\n" * lines))
        ran = db("db", "import-trades", "bad.csv")
        assert ran.code == 3 and f"bad.csv, line {lines + 1}: qty is -1, not above 0." in ran.message
    (db.work / "late.csv").write_text(text.replace("77", "78"))
    ran = db("db", "import-trades", "late.csv", "--json", ok=True)
    assert ran.json == {"booked": 1, "already_booked": 0, "short": ["BTCUSDT"]}
    assert "More BTCUSDT was sold than bought" in ran.err
    for bad, said in (("x" * 200_000, "is no CSV"), ("a\0b", "has a NUL")):
        (db.work / "bad.csv").write_text(f"time,symbol,side,qty,price,trade_id\n2025-11-21,BTCUSDT,buy,1,1,{bad}\n")
        ran = db("db", "import-trades", "bad.csv")
        assert ran.code == 3 and said in ran.message


@pytest.mark.parametrize(
    ("sql", "code", "message"),
    [
        ("SELECT 1; SELECT 2", 2, "More than one statement"),
        ("INSERT INTO events DEFAULT VALUES", 2, "only reads; 'INSERT' does not"),
        ("DROP TABLE trades", 2, "only reads"),
        ("WITH x AS (DELETE FROM trades RETURNING 1) SELECT * FROM x", 2, "data-modifying"),
        ("SELECT nextval('trading_sessions_id_seq')", 2, "only reads"),
        ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity", 2, "only reads"),
        ("SELECT pg_read_file('/etc/passwd')", 2, "only reads"),
        ("SELECT pg_switch_wal()", 2, "only reads"),
        ("SELEC 1", 2, "only reads"),
        ("SELECT foo FROM trades", 2, 'column "foo" does not exist'),
        ("SELECT $1", 2, "fills no parameters in"),
        ("SELECT 1/0", 2, "division by zero"),
        ("", 2, "There is no statement"),
        ("SELECT query, mean_exec_time FROM pg_stat_statements ORDER BY mean_exec_time DESC LIMIT 10;", 2, "does not keep"),
    ],
)  # fmt: skip
def test_what_query_refuses(db: Shell, sql: str, code: int, message: str) -> None:
    ran = db("db", "query", sql)
    assert ran.code == code and message in ran.message


def test_query_shows_the_place_of_an_error(db: Shell) -> None:
    assert "  SELECT foo\n         ^\n" in db("db", "query", "SELECT foo\nFROM trades").err


@pytest.mark.parametrize(
    ("form", "good", "answer"),
    [
        ("-- x\nSELECT {}", "1", "1"),
        ("--\r\n\t((SELECT 2, {}))", "1", "2"),
        ("/* a /* nested */ */ (SELECT {})", "1", "1"),
        ("( -- y ( */\n /*/ SHOW */ (SELECT {}) LIMIT 1)", "1", "1"),
        ("WITH w AS (\n\tSELECT {})\nSELECT * FROM w;", "1", "1"),
        ("((WITH w AS (SELECT {}) TABLE w))", "1", "1"),
        ("/**/VALUES ({})", "1", "1"),
        ("TABLE {}", "accounts", None),
        ("/* SELECT */ TABLE {} ;", "accounts", None),
        ("SELECT 'äöü\u2028', {}", "1", "äöü\u2028"),
        ("explain (COSTS OFF) SELECT {}", "1", "Result"),
        ("-- x\n/* SELECT /* */ */ EXPLAIN (COSTS OFF)\n SELECT {}", "1", "Result"),
    ],
)
def test_query_finds_the_first_word_and_the_place_of_an_error(
    db: Shell, form: str, good: str, answer: str | None
) -> None:
    where = from_url(db.env["DATABASE_URL"])
    rows = ask(where, form.format(good), 10).rows
    assert [row[0] for row in rows] == ([] if answer is None else [answer])
    with pytest.raises(UsageError, match='"nope" does not exist') as caught:
        ask(where, form.format("nope"), 10)
    line, mark = caught.value.hint.split("\n")
    assert line and any(asked.startswith(line) for asked in form.format("nope").split("\n"))
    assert mark.endswith("^") and line[len(mark) - len("  ^") :].startswith("nope")
    assert "\t" not in line or "\t" in mark


def test_what_show_shows_and_what_is_no_statement(db: Shell) -> None:
    where = from_url(db.env["DATABASE_URL"])
    for show in ("SHOW transaction_read_only", "-- SELECT\n/* ( */ show transaction_read_only;"):
        assert ask(where, show, 10).rows == [("on",)]
        with pytest.raises(UsageError, match='unrecognized configuration parameter "nope"'):
            ask(where, show.replace("transaction_read_only", "nope"), 10)
    for nothing in ("-- SELECT 1", "/* SELECT /* 1 */", "((", " ; "):
        with pytest.raises(UsageError, match="There is no statement"):
            ask(where, nothing, 10)
    for writing in ("/* SELECT */ DELETE FROM trades", "--\rDELETE FROM trades", "(/* /* */ SELECT */ 1)"):
        with pytest.raises(UsageError, match=r"only reads; '(DELETE|1\))' does not"):
            ask(where, writing, 10)


def test_how_query_answers(db: Shell) -> None:
    assert db("db", "query", "SELECT 'it''s; a \"test\"'", ok=True).out == 'it\'s; a "test"\n'
    ran = db("db", "query", "SELECT NULL", ok=True)
    assert (ran.out, ran.err) == ("\n", "Note: the value is NULL.\n")
    assert db("db", "query", "SELECT 0.00000000015::numeric, 1e-10::numeric, 10.50", ok=True).out == (
        "0.00000000015\t0.0000000001\t10.5\n"
    )
    assert db("db", "query", "SELECT 1 AS a, NULL AS b, true AS c, 'x' AS d", "--json", ok=True).json == [
        {"a": 1, "b": None, "c": True, "d": "x"}
    ]
    assert db("db", "query", "SELECT 1 AS a, 'x,y' AS b", "--csv", ok=True).out == 'a,b\n1,"x,y"\n'
    ran = db("db", "query", "SELECT generate_series(1, 5)", "--limit", "2", ok=True)
    assert ran.out == "1\n2\n" and "only the first 2 rows" in ran.err


@pytest.mark.slow
def test_urls_that_lead_nowhere(server: Postgres, tmp_path: Path) -> None:
    good = server.url("ai_trading_bot")
    cases = [
        ("mysql://x/y", 2, "not a Postgres URL"),
        ("hello", 2, "not a Postgres URL"),
        ("postgresql://bot:12/sEcret@host/db", 2, "has a / or ? in its user or password"),
        ("postgresql://bot:pa@ss:sEcret@127.0.0.1:1/db", 2, "has a @ in its user or password"),
        ("postgresql://u@127.0.0.1:1/db?password=%zzsEcret", 6, "invalid percent-encoded token"),
        ("password=sEcret host=127.0.0.1", 2, "not a Postgres URL"),
        (good.replace("/ai_trading_bot", ""), 2, "names no database"),
        (good.replace(server.password, "wr0ng-secret"), 6, "refuses the user or the password"),
        (good.replace("ai_trading_bot", "no_such_db"), 6, "There is no such database"),
        ("postgresql://u:sEcret@127.0.0.1:1/db", 6, "Nothing listens"),
        ("postgresql://u:sEcret@no.such.host.invalid/db", 6, "is not known"),
        (server.url(server.empty_database()), 6, "has no tables of atb yet"),
    ]
    for url, code, message in cases:
        shell = Shell(tmp_path, DATABASE_URL=url)
        ran = shell("db", "verify")
        assert ran.code == code and message in ran.message, (url, ran.err)
        said = ran.err + ran.out + shell("db", "psql", "-c", "SELECT 1").err
        for secret in (server.password, "wr0ng-secret", "sEcret"):
            assert secret not in said, (url, said)


def answered(listener: socket.socket, version: str) -> None:
    """What a server of that version says to whoever connects: welcome, its version, what it waits for."""

    def message(kind: bytes, body: bytes) -> bytes:
        return kind + (len(body) + 4).to_bytes(4, "big") + body

    client, _ = listener.accept()
    with client:
        if client.recv(10_000)[4:8] == (80_877_103).to_bytes(4, "big"):  # may it be encrypted?
            client.sendall(b"N")
            client.recv(10_000)
        said = message(b"S", b"server_version\0" + version.encode() + b"\0")
        client.sendall(message(b"R", bytes(4)) + said + message(b"Z", b"I"))
        client.recv(10_000)


def test_a_server_that_is_too_old(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answered, args=(listener, "14.19"), daemon=True)
        thread.start()
        url = f"postgresql://me:pw@127.0.0.1:{listener.getsockname()[1]}/old?sslmode=disable"
        ran = Shell(tmp_path, DATABASE_URL=url)("db", "verify")
        thread.join(20)
    assert ran.code == 6 and "is Postgres 14; 15 is the oldest that will do." in ran.message and "pw" not in ran.err


def test_all_that_the_url_says_reaches_psql_and_pg_dump(server: Postgres, db: Shell) -> None:
    """hostaddr saves the connection: no name server knows the host."""
    name = db.env["DATABASE_URL"].rpartition("/")[2]
    said = {
        "hostaddr": "127.0.0.1", "sslmode": "disable", "sslcert": "/c e.pem", "sslkey": "/k.pem", "sslrootcert": "/r.pem",
        "sslcrl": "/l.pem", "sslnegotiation": "postgres", "passfile": "/p", "connect_timeout": "7",
        "application_name": "mine", "options": "-c work_mem=7MB", "target_session_attrs": "read-write",
        "channel_binding": "disable", "require_auth": "scram-sha-256", "client_encoding": "LATIN1",
        "gssencmode": "disable", "ssl_min_protocol_version": "TLSv1.3", "load_balance_hosts": "random",
    }  # fmt: skip
    url = server.url(name).replace("127.0.0.1", "no.such.host.invalid") + f"?{urlencode(said, quote_via=quote)}"
    shell = Shell(db.work.parent, DATABASE_URL=url)
    settings = "SELECT concat_ws(' ', current_setting('application_name'), current_setting('work_mem'))"
    ran = shell("db", "psql", "-XAtc", settings, "-c", "\\encoding", "-c", "\\! env", ok=True)
    assert ran.out.splitlines()[:2] == ["mine 7MB", "LATIN1"]
    variables = dict(line.split("=", 1) for line in ran.out.splitlines() if line.startswith("PG"))
    assert set(said.values()) <= set(variables.values()) and variables["PGSSLKEY"] == "/k.pem"
    assert "CREATE TABLE public.entries" in shell("db", "pg_dump", "--schema-only", ok=True).out
    # The commands themselves keep them, too, but for times that they set.
    assert shell("db", "query", "SHOW work_mem", ok=True).out == "7MB\n"
    assert shell("db", "query", "SHOW statement_timeout", ok=True).out == "1min\n"
    shell("db", "backup", "--verify", shell("db", "backup", "--json", ok=True).json["path"], ok=True)


@pytest.mark.slow
def test_how_long_to_wait_for_a_server_is_the_urls_to_say(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u:sEcret@127.0.0.1:{silent.getsockname()[1]}/db"
        waited = []
        for more in ("", "?connect_timeout=2"):
            began = time.monotonic()
            ran = Shell(tmp_path, DATABASE_URL=url + more)("db", "verify")
            waited.append(time.monotonic() - began)
            assert ran.code == 6 and "does not answer" in ran.message
    assert waited[1] < waited[0] - 2


def test_a_service_of_the_service_file(server: Postgres, db: Shell) -> None:
    name = db.env["DATABASE_URL"].rpartition("/")[2]
    (db.work.parent / ".pg_service.conf").write_text(
        f"[ledger]\nhost=127.0.0.1\nport={server.port}\nuser=trading_bot\npassword={server.password}\n"
    )
    shell = Shell(db.work.parent, DATABASE_URL=f"postgresql:///{name}?service=ledger")
    for command in (["psql", "-XAtc", "SELECT count(*) FROM fills"], ["query", "SELECT count(*) FROM fills"]):
        assert shell("db", *command, ok=True).out == "0\n", command


def test_a_user_without_rights_is_told_so(server: Postgres, db: Shell, ledger: Book) -> None:
    name = db.env["DATABASE_URL"].rpartition("/")[2]
    with psycopg.connect(db.env["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS guest")
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'guest-secret'")
    guest = Shell(db.work.parent, DATABASE_URL=f"postgresql://guest:guest-secret@127.0.0.1:{server.port}/{name}")
    for command in (["query", "SELECT * FROM trades"], ["verify"], ["emergency-close-all", "--session-id", "1"]):
        ran = guest("db", *command)
        assert ran.code == 6 and "may not do that" in ran.message and "guest-secret" not in ran.err, command


def test_without_a_database_nothing_is_made(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    for command in (["verify"], ["query", "SELECT 1"], ["status"], ["sessions"], ["url"], ["rebuild"], ["migrate"]):
        ran = shell("db", *command)
        assert ran.code == 6 and "atb db start" in ran.err, command
    assert not shell.home.exists()


@pytest.mark.slow
def test_a_schema_that_is_newer_or_older(db: Shell, ledger: Book) -> None:
    assert db("db", "migrate", "--check", ok=True).out == f"Schema version: {REVISION}, up to date.\n"
    assert "as it was" in db("db", "migrate", ok=True).out
    for revision, word in (("v9.0.0", "newer than this atb"), ("v0.9.0", f"this atb needs {REVISION}")):
        ledger.connection.execute("UPDATE alembic_version SET version_num = %s", (revision,))
        ledger.connection.commit()
        for command in (["verify"], ["migrate", "--check"], ["emergency-close-all", "--session-id", "1"]):
            ran = db("db", *command)
            assert ran.code == 6 and word in ran.message, command
    assert db("db", "migrate").code == 6


@pytest.mark.slow
def test_down_and_up_again(server: Postgres, db: Shell) -> None:
    ran = db("db", "downgrade", "base")
    assert ran.code == 2 and "drops every table" in ran.message
    assert db("db", "downgrade", "base", "--yes", ok=True).out == f"Schema version: none, was {REVISION}.\n"
    assert (
        db("db", "query", "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'backtest'").out == "0\n"
    )
    assert db("db", "migrate", ok=True).out == f"Schema version: {REVISION}, was none.\n"
    assert db("db", "verify").code == 0
    name = f"made_{server.empty_database()}"
    assert "Created" in Shell(db.work.parent, DATABASE_URL=server.url(name))("db", "migrate", "--create", ok=True).err


@pytest.mark.slow
@pytest.mark.parametrize("revision", ["v1.0.0", "v1.1.0"])
def test_from_every_older_revision_with_what_it_held(db: Shell, real_ledger: Book, revision: str) -> None:
    """Down and up again, and a dump of the older schema: the tables are those of before, also where it could not tell."""
    db("db", "close-position", "--symbol", "BTCUSDT", "--exit-price", "51000", ok=True)
    real_ledger.append(real_ledger.fill("buy", "0.2", "52000", "8", 10_000_000))
    real_ledger.append(real_ledger.fill("sell", "0.1", "50900", "9", 150))
    tables = ("fills", "trading_sessions", "positions", "trades")
    before = [db("db", "query", f"SELECT * FROM {table} ORDER BY 2", ok=True).out for table in tables]
    assert db("db", "query", "SELECT replaced_qty FROM fills WHERE venue_trade_id = '9'").out == "0.1\n"
    real_ledger.connection.execute(
        "UPDATE authority SET heartbeat_at = now() - interval '1 hour'"
    )  # its engine is gone
    real_ledger.connection.commit()
    assert db("db", "downgrade", revision, ok=True).out == f"Schema version: {revision}, was {REVISION}.\n"
    assert db("db", "verify").code == 6
    assert "Note" not in db("db", "backup", "--dir", db.work / "older", ok=True).err
    assert db("db", "migrate", ok=True).out == f"Schema version: {REVISION}, was {revision}.\n"
    for _ in range(2):
        assert [db("db", "query", f"SELECT * FROM {table} ORDER BY 2", ok=True).out for table in tables] == before
        assert db("db", "verify").code == 0
        (dump,) = (db.work / "older").glob("*.gz")
        db("db", "restore", dump, "--yes", ok=True)


@pytest.mark.slow
def test_a_way_down_that_there_is_not(server: Postgres, db: Shell) -> None:
    for revision in ("v0.1.0", "nope", "v1", "head"):
        ran = db("db", "downgrade", revision)
        assert ran.code == 2 and f"knows no schema version '{revision}'" in ran.message, revision
        assert f"Known: v1.0.0, v1.1.0, {REVISION}, base." in ran.err
    assert db("db", "downgrade", REVISION, ok=True).out == f"Schema version: {REVISION}, was {REVISION}.\n"
    db("db", "downgrade", "v1.0.0", ok=True)
    ran = db("db", "downgrade", REVISION)
    assert ran.code == 2 and f"{REVISION} is newer than the schema" in ran.message and "atb db migrate" in ran.err
    ran = Shell(db.work.parent, DATABASE_URL=server.url(server.empty_database()))("db", "downgrade", "v1.0.0")
    assert ran.code == 2 and "v1.0.0 is newer than the schema" in ran.message and "atb db migrate" in ran.err
    with psycopg.connect(db.env["DATABASE_URL"]) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.0.0'")
    ran = db("db", "downgrade", "v1.0.0")
    assert ran.code == 6 and "is v9.0.0, which this atb does not know" in ran.message


def test_tables_changed_by_hand_are_named(db: Shell, ledger: Book) -> None:
    ledger.connection.execute("ALTER TABLE trades DROP COLUMN exit_reason")
    ledger.connection.execute("CREATE TABLE mine (a int)")
    ledger.connection.commit()
    ran = db("db", "verify")
    assert ran.code == 6 and "trades exit_reason is missing" in ran.out and "mine should not be there" in ran.out


def test_asking_and_verifying_import_nothing_that_is_not_needed(db: Shell, ledger: Book) -> None:
    for args in (("query", "SELECT 1"), ("verify",), ("positions",)):
        assert not imported(db, "db", *args) & {*HEAVY, "numpy", "pyarrow", "rich", "alembic", "mako"}, args


def test_lists(db: Shell, ledger: Book) -> None:
    for name in ("sessions", "positions", "trades", "orders", "events"):
        assert isinstance(db("db", name, "--json", ok=True).json, list)
    assert db("db", "positions", "--json").json[0]["unrealized_pnl"] == -100


def test_a_list_of_fewer_than_no_rows_is_refused(db: Shell, ledger: Book) -> None:
    assert db("db", "positions", "--limit", 10**30, ok=True).out == db("db", "positions", "--limit", 0).out != ""
    ran = db("db", "trades", "--limit", "-1")
    assert ran.code == 2 and "--limit -1 is negative" in ran.message


def test_a_backtest_is_logged_apart_from_everything_real(db: Shell) -> None:
    run = ("backtest", "sma_cross", "--symbol", "BTCUSDT", "--provider", "simulated", "--seed", "7", "--days", "60")
    result = db(*run, "--log-to-db", "--json", ok=True).json
    logged = db("db", "query", "SELECT strategy, symbols, final_balance FROM backtest.runs", "--json", ok=True).json
    assert logged == [
        {"strategy": "sma_cross", "symbols": "BTCUSDT", "final_balance": result["statistics"]["end_equity"]}
    ]
    assert int(db("db", "query", "SELECT count(*) FROM backtest.trades").out) == len(result["trades"]) > 0
    assert db("db", "query", "SELECT count(*) FROM trading_sessions").out == "0\n"
    ran = Shell(db.work.parent)(*run, "--log-to-db")
    assert ran.code == 6 and "atb db start" in ran.err


def test_a_steady_journal_waits_out_an_outage(tmp_path: Path) -> None:
    from atb.ledger import embedded
    from atb.ledger.audit import audit
    from atb.ledger.steady import SteadyJournal

    with postgres(tmp_path) as own:
        name = own.database()
        with psycopg.connect(own.url(name)) as connection:
            made = book(connection)
        journal = SteadyJournal(own.where(name), made.account.id, made.epoch, patience_s=30)
        outages: list[str] = []

        def start_again(error: Exception) -> None:
            if not outages:
                embedded.start(own.home, first_port=own.server.port)
            outages.append(str(error))

        journal.on_outage = start_again
        journal.append([made.fill("buy", "1", "100", "1")])
        embedded.stop(own.home)
        assert len(journal.append([made.fill("sell", "1", "110", "2")])) == 1
        journal.close()
        assert outages
        with psycopg.connect(own.url(name)) as connection:
            assert audit(connection, made.account).problems == []
            ((code, message),) = connection.execute("SELECT code, message FROM events").fetchall()
        assert code == "database_outage" and message.startswith("Back after")


def test_a_halted_account_takes_no_entries_but_exits(db: Shell, ledger: Book) -> None:

    halt = {"action": "halt", "reason": "drawdown", "by": "test"}
    ledger.append(Entry("halt", "control", START, halt))
    order = {"symbol": "BTCUSDT", "side": "sell", "type": "market", "qty": Decimal(1)}
    with pytest.raises(UsageError, match="halted"):
        ledger.append(Entry("i1", "intent", START, {**order, "client_order_id": "a", "purpose": "entry"}))
    ledger.append(Entry("i2", "intent", START, {**order, "client_order_id": "b", "purpose": "exit"}))
    ledger.connection.execute("UPDATE authority SET halted = false")
    ledger.connection.commit()
    ran = db("db", "verify")
    assert ran.code == 7 and "By the ledger the account is halted" in ran.message
    db("db", "rebuild", ok=True)
    assert db("db", "query", "SELECT halted FROM authority").out == "t\n"
    assert db("db", "verify").code == 0
