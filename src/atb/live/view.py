"""The live view as lines of a terminal: what must be seen is always there, the rest as far as there is room."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple

from atb.core.timeframe import iso
from atb.core.words import counted, duration
from atb.live.judgement import Verdict
from atb.live.letters import large
from atb.live.status import SHOWN_MODES, Holding, Snapshot, Told

if TYPE_CHECKING:
    from rich.text import Text

MODE_STYLES = {"paper": "bold black on green", "testnet": "bold black on yellow", "real": "bold white on red"}
SEVERITY_STYLES = {"warning": "yellow", "error": "red", "critical": "bold red"}
LARGE_FROM = (66, 29)  # columns and rows
Line = tuple[str, str]  # text and style


class Size(NamedTuple):
    columns: int
    rows: int


class Part(NamedTuple):
    """Lines of one kind; `least` of them are shown in any case. newest: what is left out are the first ones."""

    lines: Sequence[Line]
    least: int
    newest: bool = False


def view(snapshot: Snapshot, verdict: Verdict, now_ms: int, size: Size, blocks: bool = True) -> list[Text]:
    """At most `size.rows` lines, none longer than `size.columns`."""
    from rich.text import Text

    parts = [
        Part(_mode(snapshot, size, blocks), 9),
        Part(_money(snapshot), 1),
        Part(_health(verdict, size.columns), 2),
        Part(_positions(snapshot, now_ms, size.columns), 3),
        Part(_times(snapshot, now_ms), 1),
        Part(_about(snapshot), 1),
        Part([_event(told) for told in snapshot.events], 2, newest=True),
    ]
    lines = [Text(text, style=style, no_wrap=True) for text, style in fit(parts, size.rows)]
    for line in lines:
        line.truncate(size.columns, overflow="ellipsis" if blocks else "crop")
    return lines


def fit(parts: Sequence[Part], rows: int) -> list[Line]:
    """What there is room for: of each part its least, then of each, in their order, as much as there is."""
    shown = [min(part.least, len(part.lines)) for part in parts]
    for i, part in enumerate(parts):
        shown[i] += max(0, min(len(part.lines) - shown[i], rows - sum(shown)))
    lines = [line for part, count in zip(parts, shown, strict=True) for line in _some(part, count)]
    return lines[:rows]


def _some(part: Part, count: int) -> Sequence[Line]:
    left = len(part.lines) - count
    if part.newest or left <= 0 or count < 2:
        return part.lines[max(0, left) :] if part.newest else part.lines[:count]
    return [*part.lines[: count - 1], (f"  ... {left + 1} more", "")]


def _mode(snapshot: Snapshot, size: Size, blocks: bool) -> list[Line]:
    mode = snapshot.about.mode
    shown, style = SHOWN_MODES[mode], MODE_STYLES[mode]
    if size.columns < LARGE_FROM[0] or size.rows < LARGE_FROM[1]:
        return [(f" {' '.join(shown)} ".center(size.columns), style)]
    rows = ["", *large(shown, blocks), ""]
    return [*((row.center(size.columns), style) for row in rows), ("", "")]


def _about(snapshot: Snapshot) -> list[Line]:
    a = snapshot.about
    return [
        (f"account   {a.account}, session {a.session_id}, at {a.venue}", ""),
        (f"strategy  {a.strategy} on {' '.join(a.symbols)} {a.timeframe}, policy {a.policy_hash[:12]}", ""),
        (f"database  {a.database}", ""),
    ]


def _money(snapshot: Snapshot) -> list[Line]:
    if snapshot.equity is None:
        return [("equity    not known yet", "bold")]
    drawdown = snapshot.drawdown_frac
    under = (
        "" if drawdown is None or snapshot.peak is None else f", {drawdown:.1%} under its peak of {snapshot.peak:,.2f}"
    )
    return [(f"equity    {snapshot.equity:,.2f} {snapshot.about.quote}{under}", "bold")]


def _health(verdict: Verdict, columns: int) -> list[Line]:
    lines = [("health    healthy", "green") if verdict.healthy else ("health    UNHEALTHY", "bold red")]
    for texts, style in ((verdict.reasons, "red"), (verdict.notes, "yellow")):
        lines += [(line, style) for text in texts for line in _wrapped(text, columns)]
    return lines


def _wrapped(text: str, columns: int) -> list[str]:
    return wrap(text, columns, initial_indent="  ", subsequent_indent="    ")


def _times(snapshot: Snapshot, now_ms: int) -> list[Line]:
    if not snapshot.candles:
        candle = "none yet"
    else:
        symbol, close_ms = min(snapshot.candles.items(), key=lambda item: item[1])
        others = f" (the oldest of {len(snapshot.candles)})" if len(snapshot.candles) > 1 else ""
        candle = f"{symbol} closed {_clock(close_ms)}, {duration(now_ms - close_ms)} ago{others}"
    due_ms = snapshot.next_decision_ms
    due = "" if due_ms is None else f"next decision {_clock(due_ms)}, in {duration(due_ms - now_ms)}"
    cycle = "" if snapshot.cycle_ms is None else f"last cycle {duration(now_ms - snapshot.cycle_ms)} ago"
    feed = f"by {snapshot.feed}" if snapshot.feed else ""
    return [(f"candle    {candle}", ""), (f"time      {_joined(_clock(now_ms), due, cycle, feed)}", "")]


def _joined(*texts: str) -> str:
    return ", ".join(text for text in texts if text)


def _event(told: Told) -> Line:
    return f"{_clock(told.at_ms)}  {told.severity:<8}  {told.message}", SEVERITY_STYLES.get(told.severity, "")


def _clock(time_ms: int) -> str:
    """`15:30:00Z`."""
    return iso(time_ms // 1000 * 1000)[11:]


def _positions(snapshot: Snapshot, now_ms: int, columns: int) -> list[Line]:
    if not snapshot.positions:
        return [("positions none", "")]
    header = ["positions", "quantity", "entry", "last", "pnl", "stop", ""]
    rows = [_cells(held, now_ms) for held in snapshot.positions]
    alarm = [held.unprotected_since_ms is not None for held in snapshot.positions]
    texts = _table([header, *rows], columns, spare=[2, 1, 3])
    return [(texts[0], "dim"), *((text, "bold red" if bad else "") for text, bad in zip(texts[1:], alarm, strict=True))]


def _cells(held: Holding, now_ms: int) -> list[str]:
    protection = "no stop wanted" if held.stop_loss is None else "protected"
    if held.unprotected_since_ms is not None:
        protection = f"NO STOP for {duration(held.unprotected_ms(now_ms))}"
    pnl = "?" if held.unrealized_pnl is None else f"{held.unrealized_pnl:+,.2f}"
    return [held.symbol, *(_plain(v) for v in (held.qty_base, held.entry_price, held.last_price)), pnl,
            _plain(held.stop_loss), protection]  # fmt: skip


def _plain(value: Decimal | None) -> str:
    return "-" if value is None else f"{value.normalize():,f}"


def _table(rows: Sequence[Sequence[str]], columns: int, spare: Sequence[int]) -> list[str]:
    """Aligned columns, without some of the `spare` ones where they would not fit."""
    kept = list(range(len(rows[0])))
    widths = [max(len(row[i]) for row in rows) for i in kept]
    for i in spare:
        if sum(widths[k] + 2 for k in kept) - 2 > columns:
            kept.remove(i)
    last = len(rows[0]) - 1
    return [
        "  ".join(row[i].ljust(widths[i]) if i in (0, last) else row[i].rjust(widths[i]) for i in kept).rstrip()
        for row in rows
    ]


def heading(snapshot: Snapshot) -> str:
    """All that a start says, in one line."""
    a = snapshot.about
    return (
        f"{SHOWN_MODES[a.mode]}: {a.strategy} on {' '.join(a.symbols)} {a.timeframe} at {a.venue}, account {a.account}, "
        f"session {a.session_id}, policy {a.policy_hash[:12]}, database {a.database}"
    )


def missed(count: int) -> str:
    return f"... {counted(count, 'line')} left out: nobody has read them"
