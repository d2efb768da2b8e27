"""What a running engine knows of itself, for the screen, for health and for whoever looks.

Writers take turns (as a rule there is one, the loop's thread). Each puts a whole new `Snapshot` in the place of the old one in
a single assignment; who reads takes the one there is, without a lock, and can hold it for as long as it likes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from atb.core.timeframe import iso

EVENTS_KEPT = 50
SHOWN_MODES = {"paper": "PAPER", "testnet": "TESTNET", "real": "REAL MONEY"}


class About(NamedTuple):
    """What does not change while the engine runs. mode: paper, testnet or real; database: as `Where.shown`, masked."""

    mode: str
    venue: str
    account: str
    session_id: int
    strategy: str
    symbols: tuple[str, ...]
    timeframe: str
    policy_hash: str
    database: str
    started_ms: int
    quote: str = "USDT"


class Holding(NamedTuple):
    """An open position. unprotected_since_ms: it should have a stop at the exchange, and has had none since then.

    Where the Policy has no stop, none is missing.
    """

    symbol: str
    qty_base: Decimal
    entry_price: Decimal
    last_price: Decimal | None = None
    unrealized_pnl: Decimal | None = None
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    unprotected_since_ms: int | None = None

    def unprotected_ms(self, now_ms: int) -> int:
        return 0 if self.unprotected_since_ms is None else max(0, now_ms - self.unprotected_since_ms)


class Link(NamedTuple):
    """Whether something that is needed answers, since when, and what it says if not."""

    ok: bool = True
    since_ms: int = 0
    error: str = ""


class Halt(NamedTuple):
    """Why there are no entries. by_operator: somebody wanted it; otherwise a limit was hit."""

    why: str
    since_ms: int
    by_operator: bool = False


class Blocked(NamedTuple):
    """What keeps entries from being made. kind: meant, by an operator or a rule; wrong, so that somebody has to look; told, as
    another part of the state says it already."""

    why: str
    kind: Literal["meant", "wrong", "told"]


class Told(NamedTuple):
    """An event as it was told. count: how many times, where repetitions were told as one."""

    at_ms: int
    severity: str
    component: str
    code: str
    message: str
    times: int = 1

    @property
    def line(self) -> str:
        """As in the log file and on plain output: time, severity, component, code, message."""
        return f"{iso_milliseconds(self.at_ms)} {self.severity.upper():<8} {self.component} {self.code}: {self.message}"


class Snapshot(NamedTuple):
    """The state of an engine at one moment. Times are UTC in ms; None: not yet.

    cycle_ms: when the last whole cycle ended. data_ms: when market data last arrived. candles: by symbol, when its last closed
    candle closed. stale: symbols whose data must not be acted on. blocked: why nothing is bought now. equity and
    unrealized_pnl are those of the prices that run. skew_ms: the exchange's clock less ours. unprotected_ms: how
    long positions that are protected again were without their stop; worst: the longest one (execution.bare).
    """

    about: About
    cycle_ms: int | None = None
    cycles: int = 0
    data_ms: int | None = None
    candles: Mapping[str, int] = MappingProxyType({})
    next_decision_ms: int | None = None
    equity: Decimal | None = None
    peak: Decimal | None = None
    unrealized_pnl: Decimal | None = None
    positions: tuple[Holding, ...] = ()
    unprotected_ms: int = 0
    unprotected_worst_ms: int = 0
    database: Link = Link()
    exchange: Link = Link()
    log: Link = Link()
    skew_ms: int | None = None
    halt: Halt | None = None
    blocked: tuple[Blocked, ...] = ()
    stale: tuple[str, ...] = ()
    feed: str = ""  # stream or poll
    stream: Link | None = None  # None: there is none
    events: tuple[Told, ...] = ()

    @property
    def drawdown_frac(self) -> Decimal | None:
        """How far equity is under its peak."""
        if self.equity is None or not self.peak or self.peak <= 0:
            return None
        return max(Decimal(0), 1 - self.equity / self.peak)


class Status:
    """Holds the newest snapshot. `clean` takes out of a text what nobody should read (live/redact.py)."""

    def __init__(self, about: About, clean: Callable[[str], str] = str) -> None:
        self.snapshot = Snapshot(about)
        self._clean, self._lock = clean, threading.Lock()

    def update(self, **changes: Any) -> None:
        """Change fields of the snapshot, all at once. Lists and dicts are copied: what is there never changes."""
        frozen = {name: _frozen(value) for name, value in changes.items()}
        with self._lock:
            self.snapshot = self.snapshot._replace(**frozen)

    def cycle_done(self, now_ms: int) -> None:
        """A whole cycle has ended: nothing else shows that the engine lives."""
        with self._lock:
            self.snapshot = self.snapshot._replace(cycle_ms=now_ms, cycles=self.snapshot.cycles + 1)

    def candle_closed(self, symbol: str, close_ms: int) -> None:
        with self._lock:
            candles = MappingProxyType({**self.snapshot.candles, symbol: close_ms})
            self.snapshot = self.snapshot._replace(candles=candles)

    def reached(self, what: Literal["database", "exchange", "log"], now_ms: int) -> None:
        """It answers. Since when is kept where it did so before."""
        self._link(what, True, "", now_ms)

    def lost(self, what: Literal["database", "exchange", "log"], error: str, now_ms: int) -> None:
        """It does not answer, or not usably."""
        self._link(what, False, self._clean(error), now_ms)

    def happened(self, told: Told) -> None:
        with self._lock:
            events = (*self.snapshot.events, told)[-EVENTS_KEPT:]
            self.snapshot = self.snapshot._replace(events=events)

    def _link(self, what: str, ok: bool, error: str, now_ms: int) -> None:
        with self._lock:
            before: Link = getattr(self.snapshot, what)
            since_ms = before.since_ms if before.since_ms and before.ok == ok else now_ms
            self.snapshot = self.snapshot._replace(**{what: Link(ok, since_ms, error)})  # type: ignore[arg-type]


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return MappingProxyType(dict(value))
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str | tuple) else value


def iso_milliseconds(time_ms: int) -> str:
    """`2025-11-21T15:30:00.123Z`: always as long, so that lines sort."""
    return f"{iso(time_ms // 1000 * 1000)[:-1]}.{time_ms % 1000:03d}Z"
