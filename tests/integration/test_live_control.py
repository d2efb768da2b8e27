"""`atb live status | stop | halt | resume | set-stop` beside engines that run, and where none does."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from atb.core.errors import Fenced, UsageError
from atb.core.process import Process
from atb.execution.halt_file import HaltFile
from atb.ledger.accounts import open_account, take_authority
from atb.ledger.connect import from_url
from atb.ledger.entries import Entry
from atb.ledger.line import Line
from tests.database import START, Book, Postgres, book
from tests.engine_process import Running
from tests.integration.shell import Shell

Start = Callable[..., Running]
CANDLES = Path(__file__).parents[1] / "golden" / "candles.csv"
RUNBOOK = (
    "SELECT (peak_balance - current_balance) / peak_balance FROM trading_sessions ORDER BY start_time DESC LIMIT 1;"
)


@pytest.fixture
def url(server: Postgres) -> str:
    return server.url(server.database())


@pytest.fixture
def shell(url: str, tmp_path: Path) -> Shell:
    return Shell(tmp_path, DATABASE_URL=url)


@pytest.fixture
def start(url: str, shell: Shell) -> Iterator[Start]:
    """Starts an engine's process on the account of that name."""
    with ExitStack() as stack:
        yield lambda account, **options: stack.enter_context(Running(url, account, shell.home, **options))


@pytest.fixture
def one(url: str) -> Iterator[Book]:
    """paper:one holds 0.1 BTCUSDT, bought at 50000 and marked at 40000: a drawdown of 10 %. Its stop is at 38000."""
    with psycopg.connect(url) as connection:
        made = book(connection)
        made.append(made.fill("buy", "0.1", "50000", "1"), made.mark(1, BTCUSDT="40000"), level("38000"))
        let_go(made)
        yield made


@pytest.fixture
def real(url: str) -> Iterator[Book]:
    with psycopg.connect(url) as connection:
        made = book(connection, "binance-main", "real")
        made.append(made.fill("buy", "0.2", "50000", "1"), made.mark(1, BTCUSDT="50000"))
        let_go(made)
        yield made


def level(stop: str | None, take: str | None = None) -> Entry:
    body = {"symbol": "BTCUSDT", "stop": stop and Decimal(stop), "take": take and Decimal(take)}
    return Entry(f"level:{stop}:{take}", "level", START + timedelta(minutes=2), body)


def let_go(made: Book) -> None:
    """Nobody holds it: this process would seem to be an engine."""
    made.connection.execute(
        "UPDATE authority SET holder = '', expires_at = NULL WHERE account_id = %s", (made.account.id,)
    )
    made.connection.commit()


def held_elsewhere(made: Book) -> Process:
    process = Process("web-9", 4711, "5", "another-kernel/1/1")
    made.connection.execute(
        "UPDATE authority SET holder = %s, heartbeat_at = now(), expires_at = now() + interval '90 s' WHERE account_id = %s",
        (f"{process} since 2025-11-21T12:00:00Z", made.account.id),
    )
    made.connection.commit()
    return process


def stop_of(shell: Shell) -> str:
    query = "SELECT stop_loss, take_profit FROM positions WHERE status = 'OPEN' ORDER BY account_id LIMIT 1"
    return shell("db", "query", query, ok=True).out.strip("\n")


# Status.


def test_the_status_of_accounts_of_every_kind(shell: Shell, one: Book, real: Book, url: str) -> None:
    with psycopg.connect(url) as connection:
        open_account(connection, "tests", venue="binance", environment="testnet", quote="USDT")
        open_account(connection, "replay:x:1", venue="replay", environment="paper", quote="USDT")
    shell("live", "halt", "--account", "binance-main", "--reason", "too wild", ok=True)
    held_elsewhere(real)
    told = shell("live", "status", "--json", ok=True).json
    assert [(a["account"], a["mode"], a["engine"]) for a in told["accounts"]] == [
        ("paper:one", "paper", "none"), ("binance-main", "real", "running"), ("tests", "testnet", "none"),
    ]  # fmt: skip
    paper, main, new = told["accounts"]
    assert (paper["equity"], paper["peak"], paper["drawdown_frac"]) == ("9000", "10000", 0.1)
    assert (paper["halted"], paper["authority"]["holder"], paper["session"]["id"]) == (False, None, one.session)
    assert paper["positions"] == [
        {
            "market": "spot", "symbol": "BTCUSDT", "side": "LONG", "size": "0.1", "entry_price": "50000",
            "current_price": "40000", "unrealized_pnl": "-1000", "stop": "38000", "take": None,
        }
    ]  # fmt: skip
    assert (main["halted"], main["halt_reason"]) == (True, "too wild")
    assert (main["authority"]["host"], main["authority"]["pid"], main["authority"]["since"]) == (
        "web-9", 4711, "2025-11-21T12:00:00Z",
    )  # fmt: skip
    assert 0 < main["authority"]["lease_left_s"] <= 90 and main["authority"]["heartbeat_age_s"] >= 0
    assert (new["session"], new["equity"], new["drawdown_frac"], new["positions"]) == (None, None, None, [])
    assert told["engines"] == []
    assert len(shell("live", "status", "--all", "--json", ok=True).json["accounts"]) == 4


def test_the_status_in_a_pipe_and_on_a_terminal(shell: Shell, one: Book) -> None:
    ran = shell("live", "status", ok=True)
    accounts, positions = ran.out.split("\n\n")
    header, row = (line.split("\t") for line in accounts.splitlines())
    told = dict(zip(header, row, strict=True))
    assert told["account"] == "paper:one" and told["engine"] == "none" and told["held by"] == "-"
    assert (told["halted"], told["equity"], told["drawdown"], told["positions"]) == ("no", "9000.00", "10.00%", "1")
    assert positions.splitlines()[1] == "paper:one\tBTCUSDT\t0.1\t50000\t40000\t-1000.00\t38000\t-"
    shown = shell.on_terminal("live", "status", columns=100)
    assert shown.code == 0 and "38000" in shown.out and "10.00%" in shown.out


def test_the_status_of_engines_that_run_hang_and_are_dead(shell: Shell, start: Start) -> None:
    running, hanging, killed = start("runs"), start("hangs", lease_s=0.5), start("killed", lease_s=90)
    for engine in (running, hanging, killed):
        engine.until("holds")
    hanging.send(signal.SIGSTOP)
    killed.send(signal.SIGKILL)
    killed.process.wait()
    time.sleep(0.6)
    told = shell("live", "status", "--json", ok=True).json
    assert {a["account"]: a["engine"] for a in told["accounts"]} == {
        "runs": "running",
        "hangs": "silent",
        "killed": "dead",
    }
    assert {e["account"]: e["pid"] for e in told["engines"]} == {
        "runs": running.process.pid,
        "hangs": hanging.process.pid,
    }
    assert f"{running.process.pid}\truns\t" in shell("live", "status", ok=True).out


def test_the_status_without_a_database_names_the_engines_all_the_same(shell: Shell, start: Start) -> None:
    running = start("paper:one")
    running.until("holds")
    for text in ("postgresql://u:p@127.0.0.1:1/x", ""):
        ran = shell("live", "status", env={"DATABASE_URL": text})
        assert ran.code == 6 and f"{running.process.pid}\tpaper:one" in ran.out


def test_the_status_of_a_database_without_accounts(shell: Shell) -> None:
    ran = shell("live", "status", ok=True)
    assert ran.out == "" and "Nothing is traded" in ran.err
    assert shell("live", "status", "--json", ok=True).json == {"accounts": [], "engines": []}


# Stop.


def test_an_engine_is_stopped_and_what_it_holds_is_told(shell: Shell, url: str, start: Start, real: Book) -> None:
    running = start("binance-main-2", last_cycle_s=0.5)
    running.until("holds")
    ran = shell("live", "stop", ok=True)
    assert f"binance-main-2 (pid {running.process.pid}): stopped." in ran.out
    assert running.ended()[0] == 0
    again = shell("live", "stop", ok=True)
    assert again.out == "" and "No engine runs." in again.err


def test_what_stays_open_is_told_with_its_stop(url: str, real: Book, one: Book) -> None:
    from atb.ops.stopping import left_open

    def told() -> list[str]:
        return [position.told for position in left_open(from_url(url), ["binance-main", "paper:one"])]

    assert "on paper, where nothing happens to it until the next start" in told()[-1] + told()[0]
    assert "0.2 BTCUSDT of binance-main stays open WITHOUT a working stop at the exchange." in told()
    order = {
        "client_order_id": "s1", "symbol": "BTCUSDT", "side": "sell", "type": "stop", "qty": Decimal("0.2"), "purpose": "stop",
        "stop_price": Decimal(45000),
    }  # fmt: skip
    real.append(
        Entry("i", "intent", START, order), Entry("o", "order", START, {"client_order_id": "s1", "state": "open"})
    )
    real.append(level("45000"))
    assert "0.2 BTCUSDT of binance-main stays open, and its stop at 45000 rests at the exchange." in told()


def test_an_engine_that_does_not_end_is_killed(shell: Shell, start: Start) -> None:
    running = start("paper:one", deaf=1)
    running.until("holds")
    ran = shell("live", "stop", "--timeout", "1", ok=True)
    assert "killed: it did not end within 1 s" in ran.out
    assert running.process.wait(10) == -signal.SIGKILL


@pytest.mark.slow
def test_of_several_engines_one_is_named(shell: Shell, start: Start) -> None:
    first, second, third = start("one", session_id=41), start("two", session_id=42), start("three")
    for engine in (first, second, third):
        engine.until("holds")
    ran = shell("live", "stop")
    assert ran.code == 2 and "one (pid" in ran.message and "two (pid" in ran.message and "--all" in ran.err
    assert all(engine.process.poll() is None for engine in (first, second, third))
    shell("live", "stop", "--session-id", "42", ok=True)
    assert second.process.wait(10) == 0 and first.process.poll() is None
    shell("live", "stop", "--account", "one", ok=True)
    assert first.process.wait(10) == 0 and third.process.poll() is None
    assert "No engine of two runs." in shell("live", "stop", "--account", "two", ok=True).err
    start("four").until("holds")
    shell("live", "stop", "--all", ok=True)
    assert third.process.wait(10) == 0


def test_an_engine_on_another_host_is_not_stopped_from_here(shell: Shell, one: Book) -> None:
    held_elsewhere(one)
    for args in ((), ("--account", "paper:one"), ("--session-id", str(one.session))):
        ran = shell("live", "stop", *args)
        assert ran.code == 9 and "held by web-9 pid 4711 since 2025-11-21 12:00:00 UTC" in ran.message
        assert "Stop it on web-9: atb live stop --account paper:one" in ran.err


def test_an_engine_of_another_atb_home_is_named(shell: Shell, url: str, tmp_path: Path) -> None:
    with Running(url, "paper:one", tmp_path / "other") as running:
        running.until("holds")
        ran = shell("live", "stop")
        assert ran.code == 9 and f"kill -TERM {running.process.pid}" in ran.err and running.process.poll() is None


@pytest.mark.slow
def test_an_engine_is_stopped_while_the_database_is_down(shell: Shell, start: Start) -> None:
    away = {"DATABASE_URL": "postgresql://u:p@127.0.0.1:1/x"}
    running = start("paper:one")
    running.until("holds")
    ran = shell("live", "stop", env=away, ok=True)
    assert "stopped." in ran.out and "could not be listed" in ran.err
    assert running.process.wait(10) == 0
    ran = shell("live", "stop", env=away)
    assert ran.code == 6 and "whether one runs on another host could not be asked" in ran.message
    assert (
        "No engine runs." in shell("live", "stop", env={"DATABASE_URL": ""}, ok=True).err
    )  # and no database of our own


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--account", "paper:won"), "no account paper:won"),
        (("--session-id", "x"), "no number of a session"),
        (("--session-id", "99"), "no session 99"),
        (("--account", "a", "--all"), "each say what is meant"),
        (("--timeout", "-1"), "no number of seconds"),
        (("--timeout", "nan"), "no number of seconds"),
    ],
)
def test_stop_with_what_means_nothing(shell: Shell, one: Book, args: tuple[str, ...], said: str) -> None:
    ran = shell("live", "stop", *args)
    assert ran.code == 2 and said in ran.message


def test_a_rehearsal_that_runs_is_seen_and_stopped(shell: Shell) -> None:
    replay = ("--symbol", "BTCUSDT", "--provider", "replay", "--data", str(CANDLES))
    process = shell.start("live", "sma_cross", *replay, "--speed", "1")
    try:
        until = time.monotonic() + 60
        while not (told := shell("live", "status", "--json", ok=True).json)["engines"]:
            assert time.monotonic() < until and process.poll() is None
        [account] = told["accounts"]
        assert (
            account["engine"] == "running" and account["authority"]["pid"] == process.pid == told["engines"][0]["pid"]
        )
        shell("live", "stop", ok=True)
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0 and "ended before the last candle" in out
    finally:
        process.kill()
    assert shell("live", "status", "--json", ok=True).json == {"accounts": [], "engines": []}


# Halt and resume.


def test_a_halt_and_a_resume_that_lets_the_drawdown_begin_anew(shell: Shell, one: Book) -> None:
    assert Decimal(shell("db", "query", RUNBOOK, ok=True).out) == Decimal("0.1")
    ran = shell("live", "halt", "--reason", "exchange maintenance", ok=True)
    assert "paper:one is halted" in ran.out
    with pytest.raises(UsageError, match="halted"):
        one.append(entry_intent("a"))
    one.connection.rollback()
    again = shell("live", "halt", "--reason", "something else", ok=True)
    assert "was halted already: exchange maintenance" in again.out
    ran = shell("live", "resume", "--reason", "it is over", ok=True)
    assert (
        "It was halted: exchange maintenance. The drawdown of 10.00% is over: it begins anew at 9,000.00 USDT."
        in ran.out
    )
    assert Decimal(shell("db", "query", RUNBOOK, ok=True).out) == 0
    assert "there is nothing to resume" in shell("live", "resume", "--reason", "again", ok=True).out
    one.append(entry_intent("b"), one.mark(3, BTCUSDT="31000"))  # the old epoch counts: nobody was fenced
    assert Decimal(shell("db", "query", RUNBOOK, ok=True).out) == Decimal("0.1")
    rows = shell(
        "db", "query", "SELECT body FROM entries WHERE kind = 'control' ORDER BY seq", ok=True
    ).out.splitlines()
    assert len(rows) == 2 and '"by":"typed by ' in rows[0] and '"reason":"it is over"' in rows[1]
    shell("db", "verify", ok=True)
    shell("db", "rebuild", ok=True)
    shell("db", "verify", ok=True)


@pytest.mark.slow
def test_a_halt_without_the_database_is_a_file_that_resume_clears(shell: Shell, one: Book) -> None:
    away = {**shell.env, "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}
    ran = shell("live", "halt", "--reason", "the disk", "--account", "paper:one", env=away)
    assert ran.code == 0 and "paper:one is halted by the file" in ran.out and "other hosts" in ran.err
    shell("live", "halt", "--reason", "all of it", env=away, ok=True)
    whys = [HaltFile(shell.home, name).why() for name in ("paper:one", "another")]
    assert "the disk" in whys[0] and "all of it" in whys[1]
    told = shell("live", "status", ok=True).err
    assert "paper:one halted (typed by" in told and "every account of this host halted" in told
    again = shell("live", "resume", "--account", "paper:one", "--reason", "a new disk", ok=True)
    assert f"rm {shell.home / 'HALT'}" in again.err
    (shell.home / "HALT").unlink()
    shell("live", "halt", "--reason", "once more", "--account", "paper:one", env=away, ok=True)
    assert "does not halt paper:one any more" in shell("live", "resume", "--reason", "over", ok=True).out
    assert not (shell.home / "HALT").exists()


def entry_intent(name: str) -> Entry:
    body = {
        "client_order_id": name, "symbol": "BTCUSDT", "side": "buy", "type": "market", "qty": Decimal(1), "purpose": "entry",
    }  # fmt: skip
    return Entry(f"intent:{name}", "intent", START, body)


@pytest.mark.parametrize("command", ["halt", "resume"])
def test_of_several_accounts_one_is_named(shell: Shell, one: Book, real: Book, url: str, command: str) -> None:
    ran = shell("live", command, "--reason", "x")
    assert ran.code == 2 and "paper:one (paper, engine: none)" in ran.message and "binance-main (real" in ran.message
    assert "--account NAME" in ran.err
    assert shell("db", "query", "SELECT count(*) FROM entries WHERE kind = 'control'").out == "0\n"
    shell("live", command, "--reason", "x", "--session-id", real.session, ok=True)
    shell("live", command, "--reason", "x", "--account", "paper:one", ok=True)


def test_a_rehearsal_that_has_ended_is_no_candidate(shell: Shell, one: Book, url: str) -> None:
    with psycopg.connect(url) as connection:
        open_account(connection, "replay:x:1", venue="replay", environment="paper", quote="USDT")
    shell("live", "halt", "--reason", "x", ok=True)
    assert "replay:x:1 is halted" in shell("live", "halt", "--reason", "x", "--account", "replay:x:1", ok=True).out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--reason", " "), "--reason is empty"),
        (("--reason", "x", "--account", "paper:won"), "no account paper:won"),
        (("--reason", "x", "--account", "paper:one", "--session-id", "1"), "both say which"),
        (("--reason", "x", "--session-id", "7x"), "no number of a session"),
        (("--account", "paper:one"), "Missing option '--reason'"),
    ],
)
def test_halt_with_what_means_nothing(shell: Shell, one: Book, args: tuple[str, ...], said: str) -> None:
    ran = shell("live", "halt", *args)
    assert ran.code == 2 and said in ran.err
    assert shell("db", "query", "SELECT count(*) FROM entries WHERE kind = 'control'").out == "0\n"


def test_a_setting_that_is_wrong_stops_nothing_that_does_not_ask_for_it(shell: Shell, one: Book) -> None:
    wrong = {"ENABLE_TRADING": "ture", "ATB_BINANCE_API_URL": "nonsense", "ATB_LOG_DIR": "~nobody_here/x"}
    wrong |= {"ATB_TESTNET": "perhaps", "ATB_REQUEST_TIMEOUT_S": "soon", "ATB_BINANCE_WS_URL": "x"}
    for command in (("live", "halt", "--reason", "test"), ("live", "stop"), ("live", "status"), ("strategies", "list")):
        assert shell(*command, env=wrong).code == 0, command
    assert shell("health", "check", env=wrong).code == 11  # none runs
    run = ("backtest", "sma_cross", "--symbol", "BTCUSDT")
    assert shell(*run, "--data", CANDLES, env=wrong).code == 0
    asked = shell(*run, "--days", "9", env=wrong)
    assert asked.code == 2 and asked.message == "ATB_BINANCE_API_URL='nonsense' is not a URL."


def test_nothing_to_be_halted(shell: Shell) -> None:
    ran = shell("live", "halt", "--reason", "x")
    assert ran.code == 2 and "Nothing is traded in postgresql://" in ran.message
    assert shell("live", "halt", "--reason", "x", env={"DATABASE_URL": ""}).code in (2, 6)


def test_an_entry_beside_an_account_that_changes_hands(url: str, one: Book) -> None:
    """Whoever takes it over in between: the entry is appended at the epoch that counts then."""
    with Line(from_url(url)) as line:
        first = line.append
        taken: list[int] = []

        def append(account_id: int, epoch: int, entries: list[Entry]) -> object:
            if not taken:
                taken.append(take_authority(one.connection, account_id))
            return first(account_id, epoch, entries)

        line.append = append  # type: ignore[method-assign, assignment]
        halt = Entry("h", "control", START, {"action": "halt", "reason": "x", "by": "test"})
        [chained] = line.append_beside(one.account.id, [halt])
        assert chained.epoch == taken[0]
        with pytest.raises(Fenced):
            first(one.account.id, one.epoch, [halt._replace(id="other")])


# A tighter stop.


def set_stop(shell: Shell, price: str, *more: str) -> tuple[int, str]:
    ran = shell("live", "set-stop", "--symbol", "BTCUSDT", "--price", price, *more)
    return ran.code, ran.err + ran.out


def test_a_tighter_stop(shell: Shell, one: Book) -> None:
    one.append(level("38000", "60000"))
    code, said = set_stop(shell, "39000")
    assert (
        code == 0
        and "belongs at 39000 now; it was at 38000. No engine runs: the order is moved at the next start." in said
    )
    assert stop_of(shell) == "39000\t60000"
    held_elsewhere(one)
    code, said = set_stop(shell, "39000.019")
    assert code == 0 and "between two ticks of 0.01: rounded down to 39000.01" in said
    assert "Its engine (web-9 pid 4711) moves the order within one check interval." in said
    assert stop_of(shell) == "39000.01\t60000"
    code, said = set_stop(shell, "39000.01")
    assert code == 0 and "is at 39000.01 already" in said
    assert shell("db", "query", "SELECT count(*) FROM entries WHERE body LIKE '%operator%'").out == "2\n"
    one.append(one.mark(9, BTCUSDT="41000"))  # nobody was fenced
    shell("db", "verify", ok=True)


def test_the_first_stop_of_a_position(shell: Shell, real: Book) -> None:
    code, said = set_stop(shell, "45000")
    assert code == 0 and "it had none" in said and stop_of(shell) == "45000\t"


@pytest.mark.parametrize(
    ("price", "said"),
    [
        ("37000", "is at 38000; 37000 is looser"),
        ("40000", "40000 is not below the last mark of BTCUSDT, 40000"),
        ("41000", "not below the last mark"),
        ("0", "no price"), ("-5", "no price"), ("0.001", "no price"), ("x", "is not a number"), ("nan", "is not a number"),
    ],
)  # fmt: skip
def test_a_stop_that_would_not_protect_better(shell: Shell, one: Book, price: str, said: str) -> None:
    code, told = set_stop(shell, price)
    assert code == 2 and said in told and stop_of(shell) == "38000\t"


def test_a_stop_of_what_is_not_held_or_held_twice(shell: Shell, one: Book, real: Book) -> None:
    ran = shell("live", "set-stop", "--symbol", "ETHUSDT", "--price", "1")
    assert ran.code == 2 and "ETHUSDT is not held" in ran.message
    code, told = set_stop(shell, "39000")
    assert code == 2 and "held by more than one account" in told
    assert set_stop(shell, "39000", "--account", "binance-main")[0] == 0
    assert set_stop(shell, "39000", "--account", "nobody")[0] == 2


def test_a_short_position_has_no_such_stop(shell: Shell, url: str) -> None:
    with psycopg.connect(url) as connection:
        made = book(connection)
        made.append(made.fill("sell", "0.1", "50000", "1"))
        code, told = set_stop(shell, "45000")
        assert code == 2 and "held short" in told


def test_the_engine_moved_it_further_meanwhile(url: str, one: Book) -> None:
    """What was read is old when it is written: the ledger itself refuses the looser stop."""
    from atb.ops import control
    from atb.ops.closing import open_positions
    from atb.venue.market_rules import rules_for

    with Line(from_url(url)) as line:
        [held] = open_positions(line.connection, one.account)
        line.connection.rollback()
        from atb.core.types import symbol_for

        rules = rules_for("binance", symbol_for("binance", "BTCUSDT"))
        beside = line.append_beside

        def later(account_id: int, entries: list[Entry]) -> object:
            one.append(level("39500"))
            return beside(account_id, entries)

        line.append_beside = later  # type: ignore[method-assign, assignment]
        with pytest.raises(UsageError, match="stop of BTCUSDT is 39500 by now, and an operator only makes it tighter"):
            control.set_stop(line, held, Decimal(39000), rules, "test")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("stopp",), "Did you mean: atb live stop"),
        (("statuss", "--json"), "Did you mean: atb live status"),
        (("hlt", "--reason", "x"), "Did you mean: atb live halt"),
        (("halt",), "Missing option '--reason'"),
        (("sync-balance",), "Missing option '--provider'"),
        (("parity",), "Missing option '--session-id'"),
        (("--json", "status"), "No such option: --json"),
    ],
)  # fmt: skip
def test_a_command_that_is_misspelt_or_lacks_something(tmp_path: Path, args: tuple[str, ...], says: str) -> None:
    ran = Shell(tmp_path)("live", *args)
    assert ran.code == 2 and ran.out == "" and says in ran.err


def test_options_before_the_strategy_and_one_that_is_called_like_a_command(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.write("strategies/stopp.py", "import no_such_module\n")
    assert "no_such_module" in shell("live", "stopp", "--symbol", "BTCUSDT", "--paper-trading").message
    assert "'sma_cros'" in shell("live", "--paper-trading", "--symbol", "BTCUSDT", "sma_cros").message


def test_a_strategy_still_needs_no_subcommand(shell: Shell) -> None:
    ran = shell("live", "no_such_strategy", "--symbol", "BTCUSDT", "--provider", "replay", "--data", str(CANDLES))
    assert ran.code != 0 and "no_such_strategy" in ran.message
    assert "status" in shell("live", "--help", ok=True).out
