"""A process that holds an account as an engine does, to be stopped, killed and hung by tests.

    python -m tests.engine_process URL ACCOUNT HOME [name=value ...]

It prints a line of JSON for each thing that happens, and ends as an engine would: 0 after SIGTERM, 9 when it is fenced.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from atb.core.errors import AtbError
from atb.execution.authority import wait_for_authority
from atb.execution.engines import registered
from atb.ledger.accounts import open_account
from atb.ledger.connect import connect, from_url
from atb.ledger.lease import release, renew

ROOT = Path(__file__).resolve().parents[1]
LONGEST_S = 120.0  # that a test waits for it to say something


class Running:
    """The process, seen from a test."""

    def __init__(self, url: str, account: str, home: Path, *before: str, **options: Any) -> None:
        said = [f"{name}={value}" for name, value in options.items()]
        command = [*before, sys.executable, "-m", "tests.engine_process", url, account, str(home), *said]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def until(self, what: str) -> dict[str, Any]:
        """The next line that tells of it. A process that never does is killed."""
        assert self.process.stdout is not None and self.process.stderr is not None
        patience = threading.Timer(LONGEST_S, self.process.kill)
        patience.start()
        try:
            for line in self.process.stdout:
                told: dict[str, Any] = json.loads(line)
                if told["what"] == what:
                    return told
        finally:
            patience.cancel()
        raise AssertionError(f"it ended without '{what}': {self.process.stderr.read()}")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> tuple[int, str]:
        """Its exit code and what it said last, waited for."""
        out, _ = self.process.communicate(timeout=60)
        lines = out.splitlines()
        return self.process.returncode, lines[-1] if lines else ""


def say(what: str, **more: Any) -> None:
    sys.stdout.write(json.dumps({"what": what, **more}) + "\n")
    sys.stdout.flush()


def main(url: str, name: str, home: str, options: dict[str, float]) -> None:
    lease_s, wait_s = options.get("lease_s", 15.0), options.get("wait_s", 20.0)
    stopping: list[int] = []
    if options.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    with connect(from_url(url)) as connection:
        account = open_account(connection, name, venue="binance", environment="paper", quote="USDT")
        connection.commit()
        if start_at := options.get("start_at"):
            time.sleep(max(0.0, start_at - time.time()))
        epoch = wait_for_authority(
            connection, account, lease_s=lease_s, wait_s=wait_s, tell=lambda e: say(e.code, message=e.message)
        )
        with registered(Path(home), account=name, session_id=int(options.get("session_id", 0)), database="test"):
            say("holds", epoch=epoch)
            if options.get("hang_in_append"):
                connection.execute("SELECT epoch FROM authority WHERE account_id = %s FOR UPDATE", (account.id,))
                say("locked")
                time.sleep(3600)
            while not stopping:
                try:
                    renew(connection, account.id, epoch, lease_s)
                except (
                    psycopg.OperationalError
                ):  # ended by whoever waited for its lock: another one tells who has it now
                    with connect(from_url(url)) as another:
                        renew(another, account.id, epoch, lease_s)
                time.sleep(0.05)
            time.sleep(options.get("last_cycle_s", 0.0))
            release(connection, account.id, epoch)


def run(arguments: Sequence[str]) -> None:
    url, name, home, *rest = arguments
    try:
        main(url, name, home, {key: float(value) for key, _, value in (text.partition("=") for text in rest)})
    except AtbError as error:
        say("error", message=error.what, hint=error.hint)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        run(sys.argv[1:])
