"""The live view: what must be seen is there on every terminal, large or small."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from atb.core.timeframe import ManualClock
from atb.live.judgement import Limits, judge
from atb.live.letters import LETTERS, large
from atb.live.screen import LiveView, Looks, PlainLines, open_screen
from atb.live.status import SHOWN_MODES, Holding, Link, Snapshot, Status, Told
from atb.live.view import Part, Size, fit, view
from tests.unit.test_health import ABOUT, LIMITS, NOW, WELL

NAKED = Holding(
    "ETHUSDT", Decimal("1.20"), Decimal("3123.1"), Decimal(3100), Decimal("-27.72"), Decimal(2990), None, NOW - 45_000
)
EVENTS = tuple(
    Told(NOW - i * 60_000, "error" if i == 1 else "info", "LiveTradingEngine", "x", f"event {i} [red]as it is[/red]")
    for i in range(40, 0, -1)
)
BUSY = WELL._replace(positions=(*WELL.positions, NAKED), events=EVENTS)


def drawn(snapshot: Snapshot, columns: int, rows: int, blocks: bool = True, **more: Any) -> list[str]:
    console = Console(record=True, width=columns, height=rows, file=io.StringIO(), markup=False, **more)
    for line in view(snapshot, judge(snapshot, NOW, LIMITS), NOW, Size(columns, rows), blocks):
        console.print(line)
    lines = console.export_text().splitlines()
    assert len(lines) <= rows and all(len(line) <= columns for line in lines)
    return lines


@pytest.mark.parametrize(("columns", "rows"), [(60, 14), (60, 15), (200, 50), (80, 24)])
def test_what_must_be_seen_is_seen(columns: int, rows: int) -> None:
    shown = "\n".join(drawn(BUSY, columns, rows))
    for text in (
        "10,500.45 USDT, 12.5% under its peak of 12,000.00", "UNHEALTHY", "no stop at the exchange", "NO STOP for 45 s",
        "2,990", "protected", "closed 15:12:20Z", "next decision 15:14:20Z", "real-account, session 5", "event 1 [red]as it is",
    ):  # fmt: skip
        assert text in shown, text


def test_the_mode_is_in_letters_that_nobody_overlooks() -> None:
    for mode, name in SHOWN_MODES.items():
        snapshot = BUSY._replace(about=ABOUT._replace(mode=mode))
        assert " ".join(name) in drawn(snapshot, 60, 15)[0]
        wide = drawn(snapshot, 200, 50)
        assert [row.strip() for row in wide[1:6]] == [row.strip() for row in large(name)]
        assert all("█" not in line and "…" not in line for line in drawn(snapshot, 200, 50, blocks=False))
    assert all(len({len(row) for row in letter.split("|")}) == 1 for letter in LETTERS.values())


@pytest.mark.parametrize("columns", [20, 33, 60, 79, 200])
@pytest.mark.parametrize("rows", [5, 8, 15, 50])
def test_nothing_is_ever_wider_or_longer_than_the_terminal(columns: int, rows: int) -> None:
    for snapshot in (BUSY, WELL, Snapshot(ABOUT), BUSY._replace(positions=(NAKED,) * 30)):
        assert drawn(snapshot, columns, rows)[0].replace(" ", "") in ("REALMONEY", "", "REALMONE…")


def test_before_anything_is_known() -> None:
    shown = "\n".join(drawn(Snapshot(ABOUT), 80, 24))
    for text in ("not known yet", "No cycle is completed yet", "positions none", "candle    none yet"):
        assert text in shown


def test_much_is_cut_to_what_fits_and_says_so() -> None:
    shown = drawn(BUSY._replace(positions=(NAKED,) * 30), 80, 24)
    assert any(line.strip().startswith("... ") and line.endswith(" more") for line in shown)
    assert fit([Part([("a", "")] * 5, 2), Part([("b", "")] * 5, 1, newest=True)], 5) == [
        ("a", ""), ("a", ""), ("a", ""), ("  ... 2 more", ""), ("b", "")
    ]  # fmt: skip


def test_colours_only_where_they_are_wanted() -> None:
    status, clock = Status(ABOUT), ManualClock(NOW)
    for colour in (True, False):
        out = io.StringIO()
        screen = LiveView(status, clock, LIMITS, out, Looks(True, colour, True))
        screen.start()
        screen.stop()
        codes = {
            code for part in out.getvalue().split("\x1b[")[1:] if "m" in part for code in part.split("m")[0].split(";")
        }
        assert "REAL" in out.getvalue().replace(" ", "") and ("41" in codes or "31" in codes) == colour
        assert "\x1b[?1049h" not in out.getvalue()  # the normal screen: the last state stays there


def test_plain_lines_begin_with_what_runs() -> None:
    out, status = io.StringIO(), Status(ABOUT)
    screen = open_screen(status, ManualClock(NOW), LIMITS, out, Looks())
    screen.start()
    screen.tell(EVENTS[-1])
    for _ in range(100):
        status.cycle_done(NOW)  # a cycle is no line
    screen.stop()
    first, second = out.getvalue().splitlines()
    assert first == (
        "2025-11-21T15:13:20.000Z REAL MONEY: ml_basic on BTCUSDT ETHUSDT 1h at binance, account real-account, session 5, "
        "policy 0123456789ab, database postgresql://trading_bot@localhost/ai_trading_bot"
    )
    assert second == "2025-11-21T15:12:20.000Z ERROR    LiveTradingEngine x: event 1 [red]as it is[/red]"


@pytest.mark.parametrize("looks", [Looks(), Looks(True, True, True)], ids=["lines", "view"])
def test_what_is_told_before_the_start_is_seen_at_once_and_also_when_there_is_none(looks: Looks) -> None:
    out = io.StringIO()
    screen = open_screen(Status(ABOUT), ManualClock(NOW), LIMITS, out, looks)
    screen.tell(EVENTS[0])
    end = time.monotonic() + 30.0
    while "event 40" not in out.getvalue():
        assert time.monotonic() < end, "nobody sees it while it waits"
        time.sleep(0.01)
    screen.tell(EVENTS[1])
    screen.stop()  # the start has failed
    assert [line.split(": ")[1] for line in out.getvalue().splitlines()] == [told.message for told in EVENTS[:2]]


def test_the_view_comes_after_the_lines_of_the_start() -> None:
    out = io.StringIO()
    screen = LiveView(Status(ABOUT), ManualClock(NOW), LIMITS, out, Looks(True, True, True))
    screen.tell(EVENTS[0])
    screen.start()
    screen.tell(EVENTS[1])
    screen.stop()
    text = out.getvalue()
    assert text.index("event 40") < text.index("\x1b") and "event 39" not in text  # the status has it, not this screen


class Stuck(io.StringIO):
    """A pipe that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def write(self, text: str) -> int:
        self.free.wait()
        return super().write(text)


def test_a_pipe_that_nobody_reads_stops_nobody() -> None:
    out = Stuck()
    screen = PlainLines(Status(ABOUT), ManualClock(NOW), out)
    screen.start()
    time.sleep(0.05)
    for told in EVENTS * 100:  # would never come back if it waited
        screen.tell(told)
    out.free.set()
    screen.stop()
    lines = out.getvalue().splitlines()
    assert len(lines) <= 1_002 and lines[-1].endswith("event 1 [red]as it is[/red]")
    assert any("lines left out" in line for line in lines)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("I/O operation on closed file")])
def test_a_terminal_that_is_gone_is_nobodys_problem(error: Exception) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    for looks in (Looks(), Looks(True)):
        screen = open_screen(Status(ABOUT), ManualClock(NOW), LIMITS, Gone(), looks)
        screen.start()
        screen.tell(EVENTS[0])
        screen.stop()
        assert not screen._thread.is_alive()  # type: ignore[attr-defined]


def test_rich_is_imported_by_a_terminal_only() -> None:
    script = (
        "import sys, io\n"
        "from atb.live.screen import Looks, open_screen\n"
        "from atb.live.health_pages import health_pages\n"
        "from tests.unit.test_health import ABOUT, LIMITS\n"
        "from atb.live.status import Status\nfrom atb.core.timeframe import SystemClock\n"
        "screen = open_screen(Status(ABOUT), SystemClock(), LIMITS, io.StringIO(), Looks())\n"
        "screen.start(); screen.stop()\n"
        "assert 'rich' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "."}
    )
    assert done.returncode == 0, done.stderr


def test_an_outage_is_on_the_screen() -> None:
    shown = "\n".join(drawn(BUSY._replace(database=Link(False, NOW - 9_000, "refused")), 80, 24))
    assert "The database has been out for 9 s: refused" in shown
    assert Limits(1).late_ms == 3
