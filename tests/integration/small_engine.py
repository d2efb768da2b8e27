"""A process with everything that a trading loop has around it, and no trading.

`python -m tests.integration.small_engine HOME PORT [MODE] [moving|plain]` says `ready PORT`, then does what its standard input
says, one word a line, and answers `done`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

from atb.core.process import this_process
from atb.core.timeframe import SystemClock
from atb.execution.executor import Event
from atb.live.health_pages import health_pages
from atb.live.health_server import HealthServer
from atb.live.judgement import Limits
from atb.live.log_file import NAME, LogFile
from atb.live.redact import Redactor
from atb.live.screen import Looks, open_screen
from atb.live.status import About, Halt, Holding, Status
from atb.live.teller import Teller

CHECK_MS = 1_000  # three of them are what a busy machine may take
SECRET = "a-very-secret-key"


class SmallEngine:
    """A loop that does nothing, often."""

    def __init__(self, home: Path, port: int, mode: str, looks: Looks) -> None:
        self.clock, clean, now_ms = SystemClock(), Redactor([SECRET]), SystemClock().now_ms()
        about = About(mode, "binance", f"{mode}-account", 5, "sma_cross", ("BTCUSDT",), "1h", "0123456789abcdef",
                      "postgresql://trading_bot@localhost/ai_trading_bot", now_ms)  # fmt: skip
        self.status, limits = Status(about, clean), Limits(CHECK_MS)
        self.screen = open_screen(self.status, self.clock, limits, sys.stderr, looks)
        self.tell = Teller(self.status, self.clock, clean, LogFile(home / "logs" / NAME), self.screen.tell)
        self.server = HealthServer(health_pages(self.status, self.clock, limits), port=port, tell=self.tell)
        self.home, self.frozen = home, False

    def start(self) -> None:
        self.server.start()
        folder = self.home / "engines"
        folder.mkdir(parents=True, exist_ok=True)
        account, port = self.status.snapshot.about.account, self.server.port
        told = {"process": this_process()._asdict(), "account": account, "session_id": 5, "health_port": port}
        (folder / f"{os.getpid()}.json").write_text(json.dumps(told))
        self.screen.start()
        self.tell(Event("info", "started", "a small engine"))
        threading.Thread(target=self.loop, daemon=True).start()

    def loop(self) -> None:
        while True:
            if not self.frozen:
                self.cycle()
            time.sleep(0.05)

    def cycle(self) -> None:
        now_ms = self.clock.now_ms()
        self.status.update(equity=Decimal("10500.45"), peak=Decimal("10900"), data_ms=now_ms)
        self.status.candle_closed("BTCUSDT", now_ms - 60_000)
        self.tell.tick()
        self.server.keep_up()
        self.status.cycle_done(now_ms)

    def obey(self, word: str) -> None:
        now_ms = self.clock.now_ms()
        if word in ("freeze", "thaw"):
            self.frozen = word == "freeze"
        elif word == "database":
            self.status.lost("database", f"connection refused, postgresql://trading_bot:{SECRET}@localhost", now_ms)
        elif word == "back":
            self.status.reached("database", now_ms)
        elif word == "halt":
            self.status.update(halt=Halt("drawdown 25.3 %", now_ms))
        elif word == "hold":
            held = Holding("BTCUSDT", Decimal("0.1"), Decimal(48000), stop_loss=Decimal(47000))
            self.status.update(positions=[held._replace(unprotected_since_ms=now_ms)])
        else:
            self.tell(Event("info", "said", word))


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(home: str, port: str, mode: str = "paper", looks: str = "plain") -> None:
    engine = SmallEngine(Path(home), int(port), mode, Looks(looks == "moving"))
    engine.start()
    say(f"ready {engine.server.port}")
    try:
        for line in sys.stdin:
            engine.obey(line.strip())
            say("done")
        threading.Event().wait()  # nobody says anything any more
    except KeyboardInterrupt:
        engine.screen.stop()
        engine.tell.close()
        engine.server.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
