"""The watching script as cron runs it, tested against its own failures: an alert each time, and only one of each."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from atb.ledger import embedded
from tests.database import Book, Postgres, book, postgres
from tests.integration.test_health import Engine, eventually

OPS = Path(__file__).resolve().parents[2] / "ops"
CRON_PATH = "/usr/bin:/bin"


class Watch:
    """The script beside a .venv, a home with an engine in it, and whatever alerts it sends."""

    def __init__(self, folder: Path, server: Postgres, database: str) -> None:
        self.folder, self.home, self.server = folder, folder / "home", server
        self.alerts, self.state = folder / "alerts", folder / "state"
        shutil.copytree(OPS, folder / "ops")
        (folder / ".venv/bin").mkdir(parents=True)
        (folder / ".venv/bin/atb").symlink_to(Path(sys.executable).with_name("atb"))
        (folder / ".env").write_text(f"DATABASE_URL={server.url(database)}\n")
        self.engine = Engine(self.home)
        self.engine.until(healthy=True)

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        hook = f'{{ echo "$SUBJECT"; cat; }} >> {self.alerts}'
        own = {"PATH": CRON_PATH, "HOME": str(self.folder), "ATB_HOME": str(self.home), "STATE_DIR": str(self.state),
               "ALERT": hook, "MIN_FREE_PERCENT": "0"}  # fmt: skip
        script = ["sh", str(self.folder / "ops/monitor.sh"), *args]
        return subprocess.run(script, cwd="/", env=own | env, capture_output=True, text=True, check=False)

    def sent(self) -> str:
        text = self.alerts.read_text() if self.alerts.exists() else ""
        self.alerts.unlink(missing_ok=True)
        return text


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with postgres(tmp_path_factory.mktemp("monitor")) as made:
        yield made


@pytest.fixture
def made(server: Postgres, tmp_path: Path) -> Iterator[tuple[Watch, Book]]:
    import psycopg

    database = server.database()
    with psycopg.connect(server.url(database)) as connection:
        ledger = book(connection, environment="real")
        ledger.append(ledger.mark(1, BTCUSDT="50000"))
        watch = Watch(tmp_path, server, database)
        yield watch, ledger
        watch.engine.end()


def test_all_is_well_then_a_loop_that_is_dead_is_told_once(made: tuple[Watch, Book]) -> None:
    watch, _ = made
    done = watch.run()
    assert (done.returncode, done.stdout, done.stderr, watch.sent()) == (0, "", "", ""), done
    watch.engine.say("freeze")
    watch.engine.until(healthy=False)
    assert watch.run().returncode == 11
    sent = watch.sent()
    assert sent.startswith("Trading alert: engine\n") and "The last cycle ended" in sent
    assert watch.run().returncode == 11 and watch.sent() == ""  # it was told
    assert watch.run(REPEAT_MINUTES="0").returncode == 11 and "Trading alert: engine" in watch.sent()
    watch.engine.say("thaw")
    watch.engine.until(healthy=True)
    assert watch.run().returncode == 0 and watch.sent().startswith("Trading: all is well again")
    assert watch.run().returncode == 0 and watch.sent() == ""


@pytest.mark.slow
def test_a_frozen_process(made: tuple[Watch, Book]) -> None:
    watch, _ = made
    watch.engine.process.send_signal(signal.SIGSTOP)
    assert watch.run().returncode == 11 and "did not answer within" in watch.sent()


def test_a_killed_engine(made: tuple[Watch, Book]) -> None:
    watch, _ = made
    watch.engine.process.kill()
    watch.engine.process.wait()
    assert watch.run().returncode == 11 and "is gone, and did not end its session" in watch.sent()


def test_the_database_is_down(made: tuple[Watch, Book], tmp_path: Path) -> None:
    watch, _ = made
    url = "postgresql://trading_bot:hidden-word@127.0.0.1:1/ai_trading_bot"
    (watch.folder / ".env").write_text(f"DATABASE_URL={url}\n")
    done = watch.run()
    sent = watch.sent()
    assert done.returncode == 11 and sent.startswith("Trading alert: database drawdown\n")
    assert "CRITICAL: the database is down" in sent and "WARNING: the drawdown cannot be told (exit code 6)" in sent
    assert "hidden-word" not in sent + done.stderr
    (watch.folder / ".env").write_text("")  # cron lost its environment
    assert watch.run(REPEAT_MINUTES="0").returncode == 11 and "There is no database" in watch.sent()


def test_the_drawdown_of_what_is_traded(made: tuple[Watch, Book]) -> None:
    watch, ledger = made
    ledger.append(ledger.fill("buy", "0.1", "50000", "t1", 2), ledger.mark(3, BTCUSDT="20000"))
    assert watch.run().returncode == 11
    assert re.search(r"WARNING: the drawdown is 0\.30*\d* of the peak, above 0\.15\.", watch.sent())
    assert watch.run(MAX_DRAWDOWN="0.31").returncode == 0


def test_an_account_on_paper_that_is_newer_does_not_hide_the_real_one(made: tuple[Watch, Book]) -> None:
    watch, ledger = made
    ledger.append(ledger.fill("buy", "0.1", "50000", "t1", 2), ledger.mark(3, BTCUSDT="20000"))
    book(ledger.connection, "paper:newer")
    assert watch.run().returncode == 11 and "WARNING: the drawdown is 0.3" in watch.sent()


def test_a_ledger_without_a_session_is_no_good_news(server: Postgres, made: tuple[Watch, Book]) -> None:
    watch, _ = made
    (watch.folder / ".env").write_text(f"DATABASE_URL={server.url(server.database())}\n")
    assert watch.run().returncode == 11 and "the drawdown cannot be told: no session has a peak" in watch.sent()


def test_a_full_disk(made: tuple[Watch, Book]) -> None:
    watch, _ = made
    assert watch.run(MIN_FREE_PERCENT="100").returncode == 11
    sent = watch.sent()
    assert sent.count("WARNING") == 1 and re.search(r"\d+ % of the disk of .* is free, less than 100 %", sent)


def test_an_alert_that_cannot_be_sent_is_tried_again(made: tuple[Watch, Book]) -> None:
    watch, _ = made
    done = watch.run(ATB="/nowhere/atb", ALERT="exit 3")
    assert done.returncode == 1 and "the alert could not be sent" in done.stderr
    done = watch.run(ATB="/nowhere/atb")
    assert done.returncode == 127 and "atb was not found" in watch.sent()
    done = watch.run(ATB="/nowhere/atb", ALERT="", REPEAT_MINUTES="0")
    assert done.returncode == 127 and "nobody was told but who reads this" in done.stderr


def test_without_a_place_for_its_memory_it_tells_everything_anew(made: tuple[Watch, Book]) -> None:
    watch, _ = made
    for _ in range(2):
        done = watch.run(ATB="/nowhere/atb", STATE_DIR="/proc/none")
        assert done.returncode == 127 and "atb was not found" in watch.sent() and "cannot be written" in done.stderr


def test_the_channel_can_be_tested(made: tuple[Watch, Book]) -> None:
    watch, _ = made
    assert watch.run("test").returncode == 0 and watch.sent().startswith("Trading alert: a test\n")
    assert watch.run("test", ALERT="false").returncode == 1
    assert watch.run("tset").returncode == 2


@pytest.mark.parametrize("setting", [{"MAX_DRAWDOWN": "15%"}, {"MIN_FREE_PERCENT": "x"}, {"REPEAT_MINUTES": "-5"}])
def test_settings_that_mean_nothing(tmp_path: Path, setting: dict[str, str]) -> None:
    done = subprocess.run(
        ["sh", OPS / "monitor.sh"], env={"PATH": CRON_PATH, **setting}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr.startswith("Error: ")


def test_it_is_plain_sh() -> None:
    text = (OPS / "monitor.sh").read_text()
    assert text.startswith("#!/bin/sh\n") and os.access(OPS / "monitor.sh", os.X_OK)
    for shell in ("dash", "sh"):
        if shutil.which(shell):
            assert subprocess.run([shell, "-n", OPS / "monitor.sh"], check=False).returncode == 0
    for word in ("[[", "local ", "function ", "<<<", "echo -e", "source "):
        assert word not in "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")), word
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", OPS / "monitor.sh"], check=False).returncode == 0


@pytest.mark.slow
def test_an_outage_that_ends(tmp_path: Path) -> None:
    """The server itself goes, and comes back."""
    import psycopg

    with postgres(tmp_path / "own") as server:
        database = server.database()
        with psycopg.connect(server.url(database)) as connection:
            ledger = book(connection)
            ledger.append(ledger.mark(1, BTCUSDT="50000"))
        watch = Watch(tmp_path / "watch", server, database)
        try:
            assert watch.run().returncode == 0
            embedded.stop(server.home)
            assert watch.run().returncode == 11 and "Trading alert: database drawdown" in watch.sent()
            embedded.start(server.home, first_port=server.port)
            eventually(lambda: watch.run().returncode == 0)
            assert "all is well again" in watch.sent()
        finally:
            watch.engine.end()
