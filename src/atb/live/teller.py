"""Where events go: log file, screen, the database's table, status.

From any thread. No place's failure stops the others, or who tells.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from atb.core.timeframe import Clock
from atb.core.words import counted
from atb.execution.executor import Event
from atb.live.event_table import EventTable
from atb.live.log_file import LogFile
from atb.live.repeats import Repeats
from atb.live.status import Status, Told

ENGINE = "LiveTradingEngine"  # what operators look for in the log
BEFORE_THE_TABLE = 200


class Teller:
    """Give it to whatever has a `tell`. `show` gets each event that a person should see at once (a screen's `tell`).

    Call `tick` once a cycle: it tells the counts of what was repeated, and writes what the log file would not take before.
    """

    def __init__(
        self, status: Status, clock: Clock, clean: Callable[[str], str], log: LogFile | None = None,
        show: Callable[[Told], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.status, self.clock, self.clean, self.log, self.show = status, clock, clean, log, show
        self._table: EventTable | None = None
        self._untabled: deque[Told] = deque(maxlen=BEFORE_THE_TABLE)
        self._repeats, self._lock = Repeats(), threading.RLock()

    def __call__(self, event: Event) -> None:
        self.tell(event)

    def tell(self, event: Event, component: str = ENGINE) -> None:
        told = Told(self.clock.now_ms(), event.severity, component, event.code, self.clean(event.message))
        with self._lock:
            for each in self._repeats.admit(told):
                self._deliver(each)

    def speaking_as(self, component: str) -> Callable[[Event], None]:
        """A `tell` for another part than the engine."""
        return lambda event: self.tell(event, component)

    def store_in(self, table: EventTable) -> None:
        """From here on events go into the database, too; those of before as the first."""
        with self._lock:
            self._table = table
            while self._untabled:
                table.put(self._untabled.popleft())

    def tick(self) -> None:
        with self._lock:
            for told in self._repeats.due(self.clock.now_ms()):
                self._deliver(told)
            if self.log is not None and self.log.problem:
                self.log.retry()
                self._judge_log(self.log)

    def close(self, timeout_s: float = 2.0) -> None:
        """Tell what is left, and wait for the database for no longer than that."""
        with self._lock:
            for told in self._repeats.due(self.clock.now_ms(), everything=True):
                self._deliver(told)
            if self.log is not None:
                self.log.close()
        if self._table is not None:
            self._table.close(timeout_s)

    def _deliver(self, told: Told) -> None:
        if self.log is not None:
            self.log.write(told.line)
        self._elsewhere(told)
        if self.log is not None:
            self._judge_log(self.log)

    def _elsewhere(self, told: Told) -> None:
        if told.severity == "debug":
            return
        self.status.happened(told)
        self.show(told)
        if self._table is not None:
            self._table.put(told)
        else:
            self._untabled.append(told)

    def _judge_log(self, log: LogFile) -> None:
        """A log file that fails, or is back, is an event itself."""
        was_well, now_ms = self.status.snapshot.log.ok, self.clock.now_ms()
        if log.problem and was_well:
            self.status.lost("log", log.problem, now_ms)
            said = f"The log file cannot be written: {log.problem}. Trading goes on; lines wait for it."
            self._elsewhere(Told(now_ms, "error", "LogFile", "log_lost", self.clean(said)))
        elif not log.problem and not was_well:
            self.status.reached("log", now_ms)
            said = f"The log file is written again; {counted(log.dropped, 'line')} had to be dropped."
            back = Told(now_ms, "warning", "LogFile", "log_back", said)
            log.write(back.line)
            log.dropped = 0
            self._elsewhere(back)
