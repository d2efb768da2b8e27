"""The loop over time: candles as they close, a look at every check interval in between, until somebody ends it.

One thread, and one order of things in a cycle: what others wrote, candles that closed, the market as it is now, levels that no
order watches, what the account is worth, the lease. What passes by itself (an exchange or a database that is away) is told, and
tried again in the next cycle; anything else ends the engine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from atb.core.errors import DatabaseError, ExchangeRefused, ExchangeUnavailable
from atb.core.timeframe import Clock
from atb.execution.executor import Event
from atb.execution.session import Session
from atb.ledger.running import RunningMark
from atb.live.breaker import Breaker
from atb.live.entry_blocks import EntryBlocks
from atb.live.feed import Feed, Row
from atb.live.paper_market import PaperMarket
from atb.live.picture import picture
from atb.live.running import RunningPrices, running_mark
from atb.live.status import Status
from atb.live.trader import Trader

LONGEST_SLEEP_S = 1.0
SOON_S = 2.0
CLOSING_S = 60.0  # until positions that are to be closed at the end are given up


class Options(NamedTuple):
    """check_interval_s: between looks. disabled: where trading is switched off, empty where nowhere; asked in each cycle."""

    check_interval_s: float
    disabled: Callable[[], str]
    close_on_exit: bool = False
    fresh_s: float = 300.0  # an entry that was decided on a candle that closed longer ago is not sent


class Loop:
    """A session that trades. `end` is called by whoever ends it; `compare` looks in every cycle for what others did to the
    account, `each` is called at its end. `keep` gets what the account is worth, once a cycle."""

    def __init__(
        self, session: Session, trader: Trader, feed: Feed, market: PaperMarket | None, clock: Clock, options: Options,
        status: Status, tell: Callable[[Event], None], each: Callable[[], None] = lambda: None,
        compare: Callable[[], object] = lambda: None, keep: Callable[[RunningMark], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.session, self.trader, self.feed, self.market = session, trader, feed, market
        self.clock, self.options, self.status, self.tell, self.each = clock, options, status, tell, each
        self.compare, self.keep = compare, keep
        self.stop = threading.Event()
        self.prices, self.breaker = RunningPrices(), Breaker(tell)
        self.blocks = EntryBlocks(session, trader, feed, clock, options.disabled, self.breaker)
        session.executor.no_entries = lambda: self.blocks.why() or self._too_late()

    def run(self) -> None:
        """Until `stop` is set. What is held then stays held and protected, unless it is to be closed."""
        self.trader.begin()
        while not self.stop.is_set():
            self.turn()
            self.feed.listen()  # after the first cycle: what loads a stream would delay it
            self._wait()
        if self.options.close_on_exit:
            self.close_all()

    def end(self) -> None:
        """End it after the cycle that runs. For any thread, and signal handlers."""
        self.stop.set()
        self.feed.stirred.set()

    def turn(self) -> None:
        """One cycle, and what it says of exchange and database."""
        now = self.clock.now_ms()
        try:
            self.cycle()
            self.status.reached("database", now)
            self._judge_exchange(now)
            self.status.cycle_done(self.clock.now_ms())
        except DatabaseError as error:
            self.status.lost("database", error.what, now)
            self.tell(Event("error", "database_away", f"{error.what} Nothing new is bought; it is tried again."))
        except (ExchangeUnavailable, ExchangeRefused) as error:
            self.status.lost("exchange", error.what, now)
            self.tell(Event("error", "exchange_away", f"{error.what} It is tried again."))
        self.status.update(**self.picture())
        self.each()

    def picture(self) -> dict[str, Any]:
        """The fields of a live.status.Snapshot that this knows."""
        found = picture(self.session, self.feed, self.prices, self.clock.now_ms())
        return {**found, "blocked": tuple(self.blocks.all())}

    def cycle(self) -> None:
        executor = self.session.executor
        executor.catch_up()
        rows = self.feed.poll()
        self.blocks.look()  # by what is known now
        for row in rows:
            self._row(row, last=row is rows[-1])
        self._look_at_equity()
        if self.market is not None:
            self.market.look()
        else:
            self.trader.look(self.clock.now_ms())
        self._watch()
        self.compare()
        if not executor.journal.away:
            self.keep(running_mark(self.session.state, self.prices, self.clock.now_ms()))
        self.session.renew()

    def close_all(self) -> None:
        """Sell all that is held, and wait until it is sold."""
        for s in self._held():
            self.session.executor.get_out(s, "signal", "--close-on-exit")
        until = self.clock.now_ms() + CLOSING_S * 1000
        while self._held() and self.clock.now_ms() < until:
            self.turn()
            threading.Event().wait(min(LONGEST_SLEEP_S, self.options.check_interval_s))
        left = " ".join(self.session.state.traded[s].symbol.id for s in self._held())
        if left:
            self.tell(Event("error", "not_closed", f"{left} could not be closed within {CLOSING_S:.0f} s."))

    def _held(self) -> list[int]:
        state = self.session.state
        return [s for s in range(state.count) if state.position(s).qty]

    def _row(self, row: Row, last: bool) -> None:
        """A candle of each symbol has closed. After an outage there are several: only the last is acted on."""
        if self.market is not None:
            self.market.play(row)
        elif last:
            self.session.executor.pull()
        self.breaker.judged()
        self.prices.closed(row.windows)
        self.trader.close(row.open_ms, row.windows, act=last or self.market is not None)
        for name in row.windows:
            self.status.candle_closed(name, row.open_ms + self.feed.step_ms)

    def _look_at_equity(self) -> None:
        """Before anything is sent that was decided earlier."""
        self.prices.see(self.feed.running())
        self.breaker.look(self.session.state, self.prices, self.feed.next_open_ms)

    def _watch(self) -> None:
        running = self.feed.running()
        state = self.session.state
        last = {
            s: running[t.symbol.id].last for s, t in enumerate(state.traded[: state.count]) if t.symbol.id in running
        }
        self.session.executor.watch(last)
        bare = self.session.executor.bare.now(self.clock.now_ms())
        self.feed.hurried = [state.traded[s].symbol.id for s in bare]
        self.trader.trough(running_mark(state, self.prices, self.clock.now_ms()).equity, last)

    def _too_late(self) -> str:
        """A decision from before an outage enters nothing. (On paper it is played when it was made.)"""
        decided_ms = self.session.state.last_open_ms
        if self.market is not None or decided_ms is None:
            return ""
        age_s = (self.feed.exchange_now_ms() - decided_ms - self.feed.step_ms) / 1000
        return f"the candle that was decided on closed {age_s:.0f} s ago" if age_s > self.options.fresh_s else ""

    def _judge_exchange(self, now_ms: int) -> None:
        if self.feed.trouble:
            self.status.lost("exchange", next(iter(self.feed.trouble.values())), now_ms)
        else:
            self.status.reached("exchange", now_ms)

    def _is_under_way(self) -> bool:
        """An order whose end is awaited, or a position without its stop: it is looked at again soon."""
        state = self.session.state
        bare = self.session.executor.bare.now(self.clock.now_ms())
        return bool(bare) or (self.market is None and any(state.waits(s) for s in range(state.count)))

    def _wait(self) -> None:
        """Until the next candle or look is due, a stream tells of a close, or somebody ends it."""
        interval_s = (
            min(self.options.check_interval_s, SOON_S) if self._is_under_way() else self.options.check_interval_s
        )
        due_ms = min(self.feed.next_due_ms(), self.clock.now_ms() + round(interval_s * 1000))
        while not self.stop.is_set() and (left_ms := due_ms - self.clock.now_ms()) > 0:
            if self.feed.stirred.wait(min(left_ms / 1000, LONGEST_SLEEP_S)):
                break
        self.feed.stirred.clear()
