"""Why nothing may be bought now: for the executor before each entry, and for health."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from atb.core.timeframe import Clock
from atb.execution.session import Session
from atb.live.breaker import Breaker
from atb.live.feed import Feed
from atb.live.status import Blocked
from atb.live.trader import Trader


class EntryBlocks:
    """`look` once a cycle: settings and the age of data are asked then. disabled: where trading is switched off, empty where
    nowhere."""

    def __init__(
        self, session: Session, trader: Trader, feed: Feed, clock: Clock, disabled: Callable[[], str], breaker: Breaker
    ) -> None:  # fmt: skip
        self.session, self.trader, self.feed, self.clock = session, trader, feed, clock
        self.disabled, self.breaker = disabled, breaker
        self._off = self._stale = ""

    def look(self) -> None:
        off, stale = self.disabled(), self.feed.stale(self.clock.now_ms())
        self._off = f"trading is switched off ({off})" if off else ""
        self._stale = f"nothing new is known of {' '.join(stale)}" if stale else ""

    def why(self) -> str:
        """What the executor does not know by itself; empty where nothing keeps it from an entry."""
        return self._off or self._stale or self.breaker.why

    def all(self) -> Iterator[Blocked]:
        """Everything, in the words of the event that tells of an entry that was not made."""
        executor, halted = self.session.executor, self.session.state.books.halted
        found = (
            (f"the account is halted: {halted}" if halted else "", "told"),
            (executor.halted() and f"the file HALT: {executor.halted()}", "meant"),
            (self._off, "meant"),
            (self.breaker.why, "meant"),
            (executor.hold, "wrong"),
            (self._stale, "told"),
            ("the database is out" if executor.journal.away else "", "told"),
            *((f"the strategy fails for {name}: {why}", "wrong") for name, why in self.trader.failing.items()),
        )
        return (Blocked(why, kind) for why, kind in found if why)  # type: ignore[arg-type]
