"""Is a running engine well? One pure judgement for the health server, the screen and whoever else asks.

Healthy is what was seen to be so: a cycle that was completed, candles that came, a database and an exchange that answered, a stop
behind every position. An engine that does what it was told after an operator's halt is healthy, with a note; so is one whose
entries are switched off, or stopped by the breaker until the next close. One that a limit has halted is not, until somebody ends
the halt; nor is one that enters nothing because something is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from atb.core.timeframe import DAY_MS, MINUTE_MS, SECOND_MS, timeframe_ms
from atb.core.words import duration
from atb.live.status import Halt, Snapshot

RESUME = "atb live resume --reason TEXT"


class Limits(NamedTuple):
    """What is still well. late_cycles: so many check intervals may pass without a completed cycle. data_grace_ms: how
    long after its close a candle may be missing."""

    check_interval_ms: int
    late_cycles: int = 3
    skew_ms: int = SECOND_MS
    data_grace_ms: int = MINUTE_MS

    @property
    def late_ms(self) -> int:
        return self.late_cycles * self.check_interval_ms


class Verdict(NamedTuple):
    """reasons: why it is not healthy. notes: what an operator should know although it is."""

    healthy: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()


def judge(snapshot: Snapshot, now_ms: int, limits: Limits) -> Verdict:
    """The verdict on an engine, with every reason for it in words and numbers."""
    reasons = (
        *_cycle(snapshot, now_ms, limits), *_links(snapshot, now_ms), *_data(snapshot, now_ms, limits),
        *_clock(snapshot, limits), *_protection(snapshot, now_ms, limits), *_limit_hit(snapshot.halt, now_ms),
        *_blocked(snapshot, "wrong"),
    )  # fmt: skip
    return Verdict(not reasons, reasons, tuple(_notes(snapshot, now_ms)))


def _cycle(snapshot: Snapshot, now_ms: int, limits: Limits) -> Iterator[str]:
    if snapshot.cycle_ms is None:
        yield f"No cycle is completed yet: the engine was started {duration(now_ms - snapshot.about.started_ms)} ago."
        return
    age_ms = now_ms - snapshot.cycle_ms
    if age_ms > limits.late_ms:
        allowed = f"{limits.late_cycles} check intervals ({duration(limits.late_ms)})"
        yield f"The last cycle ended {duration(age_ms)} ago: more than {allowed}."
    elif age_ms < -limits.late_ms:
        yield f"The last cycle ended {duration(-age_ms)} in the future: this machine's clock was set back."


def _links(snapshot: Snapshot, now_ms: int) -> Iterator[str]:
    for name, link in (("database", snapshot.database), ("exchange", snapshot.exchange)):
        if not link.ok:
            yield f"The {name} has been out for {duration(now_ms - link.since_ms)}: {link.error}"


def _data(snapshot: Snapshot, now_ms: int, limits: Limits) -> Iterator[str]:
    if snapshot.cycle_ms is None:
        return
    length_ms = 31 * DAY_MS if snapshot.about.timeframe == "1M" else timeframe_ms(snapshot.about.timeframe)
    grace_ms = max(limits.data_grace_ms, limits.late_ms)
    for symbol in snapshot.about.symbols:
        close_ms = snapshot.candles.get(symbol)
        if close_ms is None:
            yield f"There is no closed candle of {symbol} yet."
        elif now_ms - close_ms > length_ms + grace_ms:
            yield f"The last {snapshot.about.timeframe} candle of {symbol} closed {duration(now_ms - close_ms)} ago."
        elif symbol in snapshot.stale:
            yield f"The data of {symbol} is stale."


def _clock(snapshot: Snapshot, limits: Limits) -> Iterator[str]:
    if snapshot.skew_ms is not None and abs(snapshot.skew_ms) > limits.skew_ms:
        side = "behind" if snapshot.skew_ms > 0 else "ahead of"
        off, allowed = abs(snapshot.skew_ms) / 1000, limits.skew_ms / 1000
        yield f"This machine's clock is {off:.1f} s {side} the exchange's: more than {allowed:g} s."


def _protection(snapshot: Snapshot, now_ms: int, limits: Limits) -> Iterator[str]:
    for held in snapshot.positions:
        if held.unprotected_ms(now_ms) > limits.check_interval_ms:
            yield f"The position in {held.symbol} has had no stop at the exchange for {duration(held.unprotected_ms(now_ms))}."


def _limit_hit(halt: Halt | None, now_ms: int) -> Iterator[str]:
    if halt is not None and not halt.by_operator:
        yield f"Halted for {duration(now_ms - halt.since_ms)} ({halt.why}): no entries until {RESUME}"


def _blocked(snapshot: Snapshot, kind: str) -> Iterator[str]:
    for blocked in snapshot.blocked:
        if blocked.kind == kind:
            yield f"No entries: {blocked.why}"


def _notes(snapshot: Snapshot, now_ms: int) -> Iterator[str]:
    halt = snapshot.halt
    if halt is not None and halt.by_operator:
        yield f"Halted by an operator for {duration(now_ms - halt.since_ms)} ({halt.why}): no entries until {RESUME}"
    yield from _blocked(snapshot, "meant")
    stream = snapshot.stream
    if stream is not None and stream.since_ms and not stream.ok:
        yield f"Candles are asked for: the stream has been lost for {duration(now_ms - stream.since_ms)}: {stream.error}"
    if not snapshot.log.ok:
        yield f"The log file has not been written for {duration(now_ms - snapshot.log.since_ms)}: {snapshot.log.error}"
