"""Operators and an engine at the same account at once: never oversold, nothing lost or doubled, each told the truth.

SEEDS sets how many rounds the slow suite plays (tests.seeds).
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from decimal import Decimal
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import psycopg
import pytest

from atb.cli import db_closing
from atb.core.errors import Disagreement, Fenced, UsageError
from atb.ledger.accounts import take_authority
from atb.ledger.audit import audit
from atb.ledger.connect import from_url
from atb.ledger.line import Line
from atb.ledger.steady import SteadyJournal
from atb.ops.closing import LOOKS, AtLastMark, Closer, Execution, Held, RecordOnly, close_all
from tests.database import Book, Postgres, book
from tests.integration.shell import TIMEOUT_S, Ran, Shell
from tests.seeds import seeds

# 4 and 7: another operator closed a part of it while all was being closed; the rest is open, and named.
REFUSALS = {
    2: ("is not held", "cannot be closed"), 9: ("another has authority over it",), 4: ("cannot be closed",),
    7: ("cannot be closed",),
}  # fmt: skip


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes of their own that have imported everything: so they meet at the database, not at the disk."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["atb.cli.root", "atb.ops.emergency", "atb.ledger.line", "psycopg", __name__])
    return context


class Done(NamedTuple):
    """A command and how it ended; or the engine, with the ids that were acknowledged to it."""

    args: tuple[str, ...]
    ran: Ran
    acknowledged: list[str]


def command(args: tuple[str, ...], env: dict[str, str], start: Any, results: Any) -> None:
    """`atb` with `args`, from the start that is common to all."""
    from atb.cli.root import run

    os.environ.update(env)
    sys.argv = ["atb", *args]
    out, err, code = io.StringIO(), io.StringIO(), 0
    start.wait()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            run()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
    results.put(Done(args, Ran(code, out.getvalue(), err.getvalue()), []))


def engine(
    url: str, held: tuple[int, int, int], seed: int, sides: Sequence[str], start: Any, stop: Any, results: Any
) -> None:
    """Trades and marks one unit at a time until it is told to stop or is fenced."""
    account_id, epoch, session = held
    made = Book(None, None, epoch, session)  # type: ignore[arg-type]
    journal, random, acknowledged = (
        SteadyJournal(from_url(url), account_id, epoch, patience_s=TIMEOUT_S),
        Random(seed),
        [],
    )
    start.wait()
    code = 0
    for number in range(10_000):
        side = random.choice(sides)
        if side == "mark":
            entry = made.mark(1000 + number, BTCUSDT=str(100 + number % 7))
        else:
            entry = made.fill(side, "1", "100", f"engine-{number}", 1000 + number, reduce_only=side == "sell")
        try:
            acknowledged += [chained.entry.id for chained in journal.append([entry])]
        except UsageError:
            assert side == "sell"  # nothing was left to sell
        except Fenced:
            code = 9
            break
        if stop.is_set():
            break
    journal.close()
    results.put(Done(("engine",), Ran(code, "", ""), acknowledged))


class Round(NamedTuple):
    """What is played: an account that holds 10 BTCUSDT, and what happens to it at once."""

    environment: str
    commands: list[tuple[str, ...]]
    with_engine: bool

    @property
    def emergencies(self) -> int:
        return sum("emergency-close-all" in args for args in self.commands)


def close(random: Random) -> tuple[str, ...]:
    quantity = random.choice(([], [], ["--quantity", random.choice(("1", "4", "6", "10"))]))
    return ("db", "close-position", "--symbol", "BTCUSDT", "--exit-price", "100", "--json", *quantity)


def a_round(seed: int, session: int) -> Round:
    random = Random(seed)
    environment = random.choice(("paper", "real"))
    commands = [close(random) for _ in range(random.randint(1, 3))]
    by_hand = ["--record-only", "--exit-price", "100"] if environment == "real" else []
    emergency = ("db", "emergency-close-all", "--session-id", str(session), "--json", *by_hand)
    commands += [emergency] * random.choice((0, 1, 1, 2))
    random.shuffle(commands)
    return Round(environment, commands, random.random() < 0.5)


def play(
    processes: ForkServerContext, url: str, made: Book, played: Round, env: dict[str, str], seed: int
) -> list[Done]:
    """Everything at once; returns when all has ended."""
    count = len(played.commands) + played.with_engine
    start, stop, results = processes.Barrier(count), processes.Event(), processes.Queue()
    workers = [processes.Process(target=command, args=(args, env, start, results)) for args in played.commands]
    for worker in workers:
        worker.start()
    machine: list[ForkServerProcess] = []
    if played.with_engine:
        held = (made.account.id, made.epoch, made.session)
        # A sale that the exchange tells of may be the exit that an operator records: then it is not one more.
        sides = ("buy", "mark", "buy") + (("sell",) if played.environment == "paper" else ())
        machine = [processes.Process(target=engine, args=(url, held, seed, sides, start, stop, results))]
        machine[0].start()
    done = [results.get(timeout=TIMEOUT_S) for _ in workers] if not machine else []
    for worker in workers:
        worker.join(TIMEOUT_S)
    stop.set()
    done += [results.get(timeout=TIMEOUT_S) for _ in range(count - len(done))]
    for worker in machine:
        worker.join(TIMEOUT_S)
    assert [worker.exitcode for worker in [*workers, *machine]] == [0] * count
    return done


def closed_by(done: Sequence[Done]) -> Decimal:
    """What the receipts of the commands add up to."""
    receipts = [json.loads(each.ran.out)["closed"] for each in done if each.ran.out]
    return sum((Decimal(line["qty"]) for lines in receipts for line in lines), Decimal(0))


def check_told(done: Done, played: Round) -> None:
    """Each command did its work and says so, or was refused for a reason that is one."""
    code, err = done.ran.code, done.ran.err
    assert "Traceback" not in err and err.count("Error:") == (code != 0), done
    if code == 0:
        assert "emergency-close-all" in done.args or json.loads(done.ran.out)["closed"], done
        return
    assert code in REFUSALS and any(reason in err for reason in REFUSALS[code]), (done.ran, played)
    if code in (4, 7):
        assert code == (7 if played.environment == "paper" else 4) and "emergency-close-all" in done.args
    if code == 9:
        assert played.emergencies > ("emergency-close-all" in done.args), done


def check_ledger(made: Book, played: Round, done: Sequence[Done]) -> None:
    """All that was acknowledged is there once, nothing else is, and never more was sold than was held."""
    connection = made.connection
    assert audit(connection, made.account).problems == []
    rows = connection.execute(
        "SELECT id FROM entries WHERE account_id = %s ORDER BY seq", (made.account.id,)
    ).fetchall()
    names = [name for (name,) in rows]
    acknowledged = [name for each in done for name in each.acknowledged]
    assert len(set(names)) == len(names) and set(acknowledged) <= set(names)
    assert [name for name in names if "engine-" in name or name.startswith("mark:1")] == acknowledged
    by_hand = "SELECT coalesce(sum(qty), 0) FROM fills WHERE side = 'sell' AND id !~ 'engine-'"
    ((sold,),) = connection.execute(by_hand).fetchall()
    assert sold == closed_by(done)
    ((least,),) = connection.execute(RUNNING_LEAST).fetchall()
    assert least >= 0
    held = connection.execute("SELECT size FROM positions WHERE status = 'OPEN'").fetchall()
    ((expected,),) = connection.execute("SELECT sum(CASE side WHEN 'buy' THEN qty ELSE -qty END) FROM fills").fetchall()
    assert held == ([(expected,)] if expected else [])
    told_open = [each for each in done if each.ran.code in (4, 7)]
    ends = [(each.args[:2], each.ran.code, each.ran.err[-500:]) for each in done]
    assert not held or told_open or not played.emergencies, ends
    connection.rollback()


RUNNING_LEAST = (
    "SELECT min(held) FROM (SELECT sum(CASE side WHEN 'buy' THEN qty ELSE -qty END) OVER (ORDER BY seq) AS held "
    "FROM fills) AS held"
)


def one_round(server: Postgres, processes: ForkServerContext, folder: Path, seed: int) -> list[int]:
    """Returns how the commands ended."""
    name = server.database()
    url = server.url(name)
    shell = Shell(folder / name, DATABASE_URL=url)
    with psycopg.connect(url) as connection:
        environment = a_round(seed, 0).environment
        made = book(connection, "binance-main", environment)
        made.append(made.fill("buy", "10", "100", "1"), made.mark(0, BTCUSDT="100"))
        played = a_round(seed, made.session)
        done = play(processes, url, made, played, shell.env, seed)
        for each in done:
            if each.args != ("engine",):
                check_told(each, played)
        check_ledger(made, played, done)
    return [each.ran.code for each in done]


def rounds(server: Postgres, processes: ForkServerContext, folder: Path, seeds: range) -> None:
    codes = [code for seed in seeds for code in one_round(server, processes, folder, seed)]
    # They did meet: some were refused since another was faster, and some were fenced.
    assert {0, 2, 9} <= set(codes)


@pytest.mark.slow
def test_ten_rounds_of_operators_and_an_engine(server: Postgres, processes: ForkServerContext, tmp_path: Path) -> None:
    rounds(server, processes, tmp_path, range(10))


@pytest.mark.slow
def test_many_rounds_of_operators_and_an_engine(server: Postgres, processes: ForkServerContext, tmp_path: Path) -> None:
    rounds(server, processes, tmp_path, seeds(1000, 40))


def test_three_shells_close_one_position_once(server: Postgres, tmp_path: Path) -> None:
    shell = Shell(tmp_path, DATABASE_URL=server.url(server.database()))
    with psycopg.connect(shell.env["DATABASE_URL"]) as connection:
        made = book(connection)
        made.append(made.fill("buy", "10", "100", "1"))
        running = [shell.start(*close(Random(0))[:6], "--json") for _ in range(3)]
        ends = [(process.communicate(timeout=TIMEOUT_S), process.returncode) for process in running]
        assert sorted(code for _, code in ends) == [0, 2, 2], ends
        assert audit(connection, made.account).problems == []
    assert shell("db", "query", "SELECT count(*), sum(qty) FROM fills WHERE side = 'sell'", ok=True).out == "1\t10\n"


def test_whoever_is_fenced_while_closing_all_says_that_another_has_authority(server: Postgres) -> None:
    url = server.url(server.database())
    with psycopg.connect(url) as connection, Line(from_url(url)) as line:
        made = book(connection)
        made.append(made.fill("buy", "10", "100", "1"), made.mark(0, BTCUSDT="100"))

        class Overtaken(AtLastMark):
            def close(self, held: Held) -> Execution:
                take_authority(connection, made.account.id)
                return super().close(held)

        closed, left = close_all(line, made.account, made.epoch, Overtaken(), reason="test", evidence="test")
        with pytest.raises(Fenced, match=r"10 BTCUSDT of paper:one is still open: .* another has authority over it"):
            db_closing._print_receipt(closed, left, json=False)
        assert closed == [] and audit(connection, made.account).problems == []


def closed_while(server: Postgres, environment: str, closer: Closer, *meanwhile: tuple[str, str]) -> Any:
    """10 BTCUSDT closed by `closer`, and after its first answer these trades are told: symbol and quantity, sales negative."""
    url = server.url(server.database())
    with psycopg.connect(url) as connection, Line(from_url(url)) as line:
        made = book(connection, "one", environment)
        made.append(made.fill("buy", "10", "100", "1"), made.mark(0, BTCUSDT="100", ETHUSDT="7"))
        untold, real_close = list(meanwhile), closer.close

        def close(held: Held) -> Execution:
            execution = real_close(held)
            while untold:
                symbol, qty = untold.pop()
                side = "sell" if qty.startswith("-") else "buy"
                late = made.fill(side, qty.lstrip("-"), "100", f"late-{symbol}", 1, symbol=symbol)
                made.append(late)
            return execution

        closer.close = close  # type: ignore[method-assign]
        closed, left = close_all(line, made.account, made.epoch, closer, reason="test", evidence="test")
        assert audit(connection, made.account).problems == []
        return [(c.symbol, c.qty) for c in closed], [(held.symbol, held.size, why.what) for held, why in left]


def test_what_appears_while_all_is_closed_is_closed_too(server: Postgres) -> None:
    closed, left = closed_while(server, "paper", AtLastMark(), ("BTCUSDT", "3"), ("ETHUSDT", "2"))
    assert closed == [("BTCUSDT", 10), ("BTCUSDT", 3), ("ETHUSDT", 2)] and left == []


@pytest.mark.parametrize("by_hand", [False, True])
def test_what_another_closed_a_moment_before_does_not_keep_the_rest_open(server: Postgres, by_hand: bool) -> None:
    closer: Closer = RecordOnly({}, Decimal(100)) if by_hand else AtLastMark()
    closed, left = closed_while(server, "real" if by_hand else "paper", closer, ("BTCUSDT", "-4"))
    assert closed == [("BTCUSDT", 6)] and left == []


def test_what_appears_while_an_exit_by_hand_is_booked_is_told_and_left(server: Postgres) -> None:
    by_hand = RecordOnly({}, Decimal(100))
    closed, left = closed_while(server, "real", by_hand, ("BTCUSDT", "3"), ("ETHUSDT", "2"))
    assert closed == [("BTCUSDT", 10)]
    assert [line[:2] for line in left] == [("BTCUSDT", 3), ("ETHUSDT", 2)]
    assert "appeared while" in left[0][2] and "no price for ETHUSDT" in left[1][2]
    each = RecordOnly({"ETHUSDT": Decimal(7)}, Decimal(100))
    closed, left = closed_while(server, "real", each, ("ETHUSDT", "2"))
    assert closed == [("BTCUSDT", 10), ("ETHUSDT", 2)] and left == []


def test_what_cannot_be_closed_is_tried_again_only_if_something_changed(server: Postgres) -> None:
    class Refusing(AtLastMark):
        asked = 0

        def close(self, held: Held) -> Execution:
            self.asked += 1
            raise Disagreement(f"attempt {self.asked}")

    refusing = Refusing()
    closed, left = closed_while(server, "paper", refusing)
    assert closed == [] and refusing.asked == 1 and left == [("BTCUSDT", 10, "attempt 1")]


def test_closing_all_ends_although_something_appears_each_time(server: Postgres) -> None:
    url = server.url(server.database())
    with psycopg.connect(url) as connection, Line(from_url(url)) as line:
        made = book(connection)
        made.append(made.fill("buy", "1", "100", "0"))

        class Busy(AtLastMark):
            times = 0

            def close(self, held: Held) -> Execution:
                self.times += 1
                made.append(made.fill("buy", "1", "100", str(self.times)))
                return super().close(held)

        busy = Busy()
        closed, left = close_all(line, made.account, made.epoch, busy, reason="test", evidence="test")
        assert len(closed) == busy.times == LOOKS and [(str(h.size.normalize()), why.what) for h, why in left] == [
            ("1", "it is held still.")
        ]
