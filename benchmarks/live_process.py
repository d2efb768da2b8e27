"""`atb live` as a process at the loopback exchange, on paper: how soon it decides, where the time goes, its memory."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

from atb.core.timeframe import SystemClock, moment
from atb.core.types import MarketRules, Symbol
from atb.engine.rules import make_rules
from atb.execution.session import Wish, open_session
from atb.execution.traded import Traded
from atb.ledger.connect import Where, connect
from atb.ledger.connect import embedded as where_of
from atb.ledger.embedded import start, stop
from atb.ledger.entries import Entry
from atb.ledger.migrate import migrate
from atb.venue.simulated_book import Setup
from atb.venue.simulated_broker import SimulatedBroker
from benchmarks.ledger import FIRST_PORT, MIGRATIONS
from benchmarks.live import MANY, POLICY
from benchmarks.measure import Row
from benchmarks.shell import ATB, environment
from tests.venue.exchange_process import ExchangeProcess

ROOT = Path(__file__).resolve().parent.parent
MINUTE_MS = 60_000
MISSED = 3  # candles that closed since the account was traded last: the first decision need not wait for a close
DECIDED = "SELECT min(recorded_at), max(recorded_at) FROM entries WHERE kind = %s AND session_id = %s"
WAIT_S = 120.0


def starts(quick: bool) -> list[Row]:
    """From the command to its first decision on one symbol (the shortest of some); then on fifty, and their memory."""
    rounds, best = 2 if quick else 5, dict[str, float]()
    with tempfile.TemporaryDirectory() as folder, database(Path(folder)) as where:
        with exchange(["BTCUSDT"]) as market:
            for number in range(rounds):
                laps, _ = begun(where, Path(folder), market, ["BTCUSDT"], f"one {number}")
                best = laps if not best or sum(laps.values()) < sum(best.values()) else best
        names = [f"C{s:02d}USDT" for s in range(MANY)]
        with exchange(names) as market:
            many, memory_mb = begun(where, Path(folder), market, names, "many")
    return [
        Row("start to first decision, one symbol", sum(best.values()), "s", 5.0),
        *(Row(f"  {name}", seconds, "s") for name, seconds in best.items()),
        Row("import ccxt", import_s("ccxt"), "s"),
        Row(f"start to first decision, {MANY} symbols", sum(many.values()), "s"),
        *(Row(f"  {name}", seconds, "s") for name, seconds in many.items()),
        Row(f"{MANY} symbols: largest memory", memory_mb, "MB", 300.0),
    ]


def begun(
    where: Where, folder: Path, market: ExchangeProcess, names: Sequence[str], account: str
) -> tuple[dict[str, float], float]:
    """Seconds of the stages of one start, and the megabytes that the process had at most."""
    before = traded_before(where, names, account)
    env = environment() | {"ATB_HOME": str(folder)} | market.address
    env.pop("DATABASE_URL", None)
    command = [
        ATB,
        "live",
        "sma_cross",
        "--timeframe",
        "1m",
        "--check-interval",
        "1",
        "--health-port",
        "0",
        "--account",
        account,
    ]
    command += ["-p", "fast=3", "-p", "slow=8", *(word for name in names for word in ("--symbol", name))]
    at = time.time()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        with Lines(process) as lines:
            mode = lines.when("*** PAPER")
            session, decided = written(where, account, before)
            memory_mb = most_memory_mb(process.pid)
    finally:
        process.kill()
        process.wait()
    laps = {
        "python, command line, database": mode - at, "ccxt, market rules, ledger": session - mode,
        "candles to look back on, and those missed; decision": decided - session,
    }  # fmt: skip
    return laps, memory_mb


class Lines:
    """What a process says, and when."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.said = process, list[tuple[float, str]]()
        self.thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Lines:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.thread.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append((time.time(), line))

    def when(self, text: str) -> float:
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until and self.thread.is_alive():
            for at, line in list(self.said):
                if text in line:
                    return at
            time.sleep(0.01)
        raise RuntimeError(f"'{text}' was never said: {''.join(line for _, line in self.said)}")


def written(where: Where, account: str, before: int) -> tuple[float, float]:
    """When the session of the account after session `before` was opened, and when its first decision was written down."""
    query = (
        "SELECT max(id) FROM trading_sessions WHERE account_id = (SELECT id FROM accounts WHERE name = %s) AND id > %s"
    )
    until = time.monotonic() + WAIT_S
    with connect(where) as connection:
        while time.monotonic() < until:
            (number,) = connection.execute(query, (account, before)).fetchone() or (None,)
            opened, decided = (connection.execute(DECIDED, (kind, number)).fetchone() for kind in ("session", "mark"))
            connection.rollback()
            if opened is not None and decided is not None and decided[0] is not None:
                return opened[0].timestamp(), decided[0].timestamp()
            time.sleep(0.01)
    raise RuntimeError("Nothing was decided.")


def traded_before(where: Where, names: Sequence[str], account: str) -> int:
    """An account that was traded until some candles ago, and holds nothing: its session."""
    clock, rules = SystemClock(), make_rules(POLICY, 10.0, 5.0)
    traded = [
        Traded(Symbol(n, n[:-4], "USDT"), MarketRules(n, Decimal("0.00001"), Decimal("0.01"), Decimal(5), "bench", ""))
        for n in names
    ]
    wish = Wish(account, "binance", "paper", traded, rules, "sma_cross", "1m", {}, Decimal(10_000))
    known = {t.symbol: t.rules for t in traded}
    session = open_session(where, wish, clock, lambda state: SimulatedBroker(known, Setup(), clock, {}))
    last = (clock.now_ms() // MINUTE_MS - 1 - MISSED) * MINUTE_MS
    body = {
        "prices": {n: Decimal(40_000) for n in names}, "why": "close", "open_ms": last, "signals": dict.fromkeys(names, "0.0"),
    }  # fmt: skip
    session.executor.append([Entry(f"mark:1m:{last}", "mark", moment(last + MINUTE_MS), body, session.id)])
    session.end("STOPPED", moment(clock.now_ms()))
    return session.id


def most_memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def import_s(module: str) -> float:
    seconds = []
    for code in ("pass", f"import {module}") * 3:
        at = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        seconds.append(time.perf_counter() - at)
    return min(seconds[1::2]) - min(seconds[::2])


@contextlib.contextmanager
def database(folder: Path) -> Iterator[Where]:
    server = start(folder, first_port=FIRST_PORT)
    try:
        where = where_of(server)
        migrate(where, MIGRATIONS)
        yield where
    finally:
        stop(folder)


def exchange(names: Sequence[str]) -> ExchangeProcess:
    """With these symbols."""
    symbols = [each for name in names for each in ("--symbol", f"{name}:{name[:-4]}:USDT:40000")]
    return ExchangeProcess("--timeframe", "1m", "--history", "400", "--walk", "2", *symbols)
