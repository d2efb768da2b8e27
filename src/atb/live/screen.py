"""What an operator sees of an engine: plain lines while it starts; then a view that is redrawn on a terminal, plain lines
elsewhere.

Both write by a thread of their own: a terminal that is stopped with Ctrl-S, or a pipe that nobody reads, stops no trading. The
view stays in the terminal's normal screen, so the last state is still there after Ctrl-C, and even after a kill.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TextIO

from atb.core.timeframe import Clock
from atb.live.judgement import Limits, judge
from atb.live.status import Status, Told, iso_milliseconds
from atb.live.view import Size, heading, missed, view

if TYPE_CHECKING:
    from rich.console import Console

REDRAW_S = 1.0
END_S = 2.0  # how long the end of a program waits for a terminal
WAITING = 1_000
SMALLEST = Size(20, 5)
GONE = (OSError, ValueError)  # the terminal was closed


class Looks(NamedTuple):
    """What a stream can show. moving: a terminal that obeys escape codes; blocks: it has block characters."""

    moving: bool = False
    colour: bool = False
    blocks: bool = False


class Screen(Protocol):
    def start(self) -> None: ...

    def tell(self, told: Told) -> None: ...

    def stop(self) -> None: ...


def open_screen(status: Status, clock: Clock, limits: Limits, stream: TextIO, looks: Looks) -> Screen:
    """The screen for `stream`. What is told before `start` is lines, on a terminal too: a start that waits says for whom, and one
    that fails why."""
    if looks.moving:
        return LiveView(status, clock, limits, stream, looks)
    return PlainLines(status, clock, stream)


class PlainLines:
    """A line for each event, and one when the engine begins. Lines that nobody takes are left out, the oldest first, and
    counted."""

    def __init__(self, status: Status, clock: Clock, stream: TextIO) -> None:
        self.status, self.clock, self.stream = status, clock, stream
        self._lines: deque[str] = deque()
        self._left_out, self._ending = 0, False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="screen", daemon=True)
        self._thread.start()

    def start(self) -> None:
        self._put(f"{iso_milliseconds(self.clock.now_ms())} {heading(self.status.snapshot)}")

    def tell(self, told: Told) -> None:
        self._put(told.line)

    def stop(self) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(END_S)

    def _put(self, line: str) -> None:
        with self._changed:
            if self._ending:
                return
            self._lines.append(line)
            if len(self._lines) > WAITING:
                self._lines.popleft()
                self._left_out += 1
            self._changed.notify()

    def _run(self) -> None:
        while lines := self._taken():
            try:
                self.stream.write("".join(f"{line}\n" for line in lines))
                self.stream.flush()
            except GONE:
                return

    def _taken(self) -> list[str]:
        """What waits, as soon as something does; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._ending)
            lines = [missed(self._left_out)] * bool(self._left_out) + list(self._lines)
            self._lines.clear()
            self._left_out = 0
            return lines


class LiveView:
    """Lines until `start`, then the view below them, redrawn about once a second from the newest snapshot."""

    def __init__(self, status: Status, clock: Clock, limits: Limits, stream: TextIO, looks: Looks) -> None:
        self.status, self.clock, self.limits, self.stream, self.looks = status, clock, limits, stream, looks
        self._before = PlainLines(status, clock, stream)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="screen", daemon=True)

    def start(self) -> None:
        self._before.stop()
        self._thread.start()

    def tell(self, told: Told) -> None:
        """Once the view is there the status has it."""
        self._before.tell(told)

    def stop(self) -> None:
        """The last state stays on the screen."""
        self._before.stop()
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(END_S)

    def _run(self) -> None:
        from rich.live import Live

        console = self._console()
        try:
            with Live(
                console=console,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="crop",
            ) as live:
                while True:
                    last = self._ended.is_set()
                    live.update(self._drawn(console), refresh=True)
                    if last:
                        return
                    self._ended.wait(REDRAW_S)
        except GONE:
            return

    def _console(self) -> Console:
        from rich.console import Console

        return Console(
            file=self.stream,
            force_terminal=True,
            no_color=not self.looks.colour,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def _drawn(self, console: Console) -> Any:
        from rich.console import Group

        columns, rows = console.size
        size = Size(max(columns, SMALLEST.columns), max(rows - 1, SMALLEST.rows))
        return Group(*self.lines(size))

    def lines(self, size: Size) -> Sequence[Any]:
        """What is drawn now."""
        snapshot, now_ms = self.status.snapshot, self.clock.now_ms()
        return view(snapshot, judge(snapshot, now_ms, self.limits), now_ms, size, self.looks.blocks)
