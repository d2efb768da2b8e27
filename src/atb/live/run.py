"""A session at an exchange, from its opening to its end: puts together what trades and what shows it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple, TextIO

from atb.core.errors import DatabaseError, ExchangeUnavailable, Fenced, UsageError
from atb.core.timeframe import Clock, ManualClock, moment, timeframe_ms
from atb.engine.sides import Join, as_they_are
from atb.execution.engines import registered
from atb.execution.executor import Event
from atb.execution.reconcile import Verdict
from atb.execution.session import Session, Wish, open_session
from atb.execution.state import TradingState
from atb.ledger.connect import Where
from atb.ledger.lease import lease_s
from atb.ledger.running import RunningMark
from atb.live.ending import left_protected
from atb.live.event_table import EventTable
from atb.live.feed import Feed
from atb.live.health_pages import health_pages
from atb.live.health_server import HealthServer
from atb.live.judgement import Limits
from atb.live.log_file import NAME, LogFile
from atb.live.loop import Loop, Options
from atb.live.mark_table import MarkTable
from atb.live.paper_market import PaperMarket, exchange_of
from atb.live.prepare import Ready, facts
from atb.live.redact import Redactor
from atb.live.request import DEFAULT_PAPER_BALANCE
from atb.live.screen import Looks, open_screen
from atb.live.side_refresh import Fresh, kept_fresh
from atb.live.start import agree, check_key, check_money, resumed
from atb.live.status import About, Status
from atb.live.teller import Teller
from atb.live.trader import Trader
from atb.venue.broker import Broker
from atb.venue.simulated_book import Setup

PATIENCE_S = 2.0  # a cycle waits so long for a database that is away; the next one tries again


class Around(NamedTuple):
    """What a session meets. broker: the account at the exchange, None on paper.

    feed: market data, given the last row that was decided and who is told. disabled: where trading is switched off, empty
    where nowhere. show: the verdict of the start, for people. secrets: what must never be shown. join: what gives windows their
    side series; sides: those that are asked for anew while it runs.
    """

    where: Where
    home: Path
    logs: Path
    clock: Clock
    broker: Broker | None
    feed: Callable[[int | None, Callable[[Event], None]], Feed]
    disabled: Callable[[], str]
    show: Callable[[Verdict], None]
    secrets: Sequence[str]
    stream: TextIO
    looks: Looks
    join: Join = as_they_are
    sides: Sequence[Fresh] = ()


class Shown:
    """What shows a session: status, screen, log file, health server."""

    def __init__(self, ready: Ready, around: Around) -> None:
        asked = ready.asked
        clean = Redactor(around.secrets)
        symbols = tuple(t.symbol.id for t in ready.traded)
        self.about = About(
            ready.mode.environment, asked.venue, ready.account, 0, asked.strategy, symbols, asked.timeframe,
            ready.policy.digest(), around.where.shown, around.clock.now_ms(), ready.traded[0].symbol.quote,
        )  # fmt: skip
        self.status = Status(self.about, clean)
        limits = Limits(round(asked.check_interval_s * 1000))
        self.screen = open_screen(self.status, around.clock, limits, around.stream, around.looks)
        self.teller = Teller(self.status, around.clock, clean, LogFile(around.logs / NAME), self.screen.tell)
        pages = health_pages(self.status, around.clock, limits)
        tell = self.teller.speaking_as("HealthServer")
        self.server = HealthServer(pages, asked.health_host, asked.health_port, tell)
        self.marks: MarkTable | None = None
        self._every_s = asked.check_interval_s

    def opened(self, session: Session, where: Where) -> None:
        """From now on everything knows which session it is."""
        self.status.update(about=self.about._replace(session_id=session.id))
        self.teller.store_in(EventTable(where, session.account.id, session.id))
        self.marks = MarkTable(where, session.account.id, session.id, session.epoch, self._every_s)

    def mark(self, mark: RunningMark) -> None:
        if self.marks is not None:
            self.marks.put(mark)

    def each_cycle(self) -> None:
        self.teller.tick()
        self.server.keep_up()

    def close(self) -> None:
        self.screen.stop()
        if self.marks is not None:
            self.marks.close()
        self.teller.close()
        self.server.stop()


def trade(ready: Ready, around: Around, stop: Callable[[Callable[[], None]], None]) -> None:
    """Trade until somebody ends it. `stop` is given what ends the loop after the cycle that runs."""
    shown = Shown(ready, around)
    try:
        if around.broker is not None:
            check_key(around.broker, shown.teller)
        paper = ManualClock(0)
        session = open_session(
            around.where, _wish(ready), around.clock, _broker(ready, around, paper), shown.teller, patience_s=PATIENCE_S,
            lease_s=lease_s(ready.asked.check_interval_s), home=around.home,
        )  # fmt: skip
        shown.opened(session, around.where)
        # On paper nothing rests anywhere: the next start folds what there was.
        covered = contextlib.nullcontext() if around.broker is None else left_protected(session, shown.teller)
        with _ended(session, around.clock), covered:
            _trade(ready, around, shown, session, paper, stop)
    finally:
        shown.close()


def _trade(
    ready: Ready, around: Around, shown: Shown, session: Session, paper: ManualClock, stop: Callable[[Callable[[], None]], None]
) -> None:  # fmt: skip
    compare = _begin(ready, around, shown, session)
    tell = shown.teller.speaking_as("Feed")
    with contextlib.closing(around.feed(session.state.last_open_ms, tell)) as feed:
        _prepare(feed)
        for series in feed.series:
            shown.status.candle_closed(series.symbol.id, series.until_ms)
        loop = _loop(ready, around, shown, session, feed, paper, compare)
        stop(loop.end)
        shown.status.update(**loop.picture())
        shown.screen.start()
        fresh = kept_fresh(around.sides, shown.teller.speaking_as("SideSeries"))
        with fresh, registered(
            around.home, account=session.account.name, session_id=session.id, database=around.where.shown,
            health_port=shown.server.port,
        ):  # fmt: skip
            loop.run()


def _begin(ready: Ready, around: Around, shown: Shown, session: Session) -> Callable[[], object]:
    """Say what follows and compare with the exchange. Returns what compares in each cycle."""
    asked, tell = ready.asked, shown.teller
    _say(facts(ready, around.where.shown), tell)
    reconciler = None if around.broker is None else agree(session, asked, around.show, tell)
    state = session.state
    check_money(state)
    _say(resumed(state, asked), tell)
    shown.server.start_or_warn(may_fail=any(state.held(s) for s in range(state.count)))
    return reconciler.look if reconciler else lambda: None


def _loop(
    ready: Ready, around: Around, shown: Shown, session: Session, feed: Feed, paper: ManualClock,
    compare: Callable[[], object],
) -> Loop:  # fmt: skip
    asked, executor = ready.asked, session.executor
    trader = Trader(executor, ready.strategies, asked.timeframe, around.join)
    market = None
    if around.broker is None:
        market = PaperMarket(feed, executor.broker, paper, session.state, trader.look)  # type: ignore[arg-type]
    options = Options(asked.check_interval_s, around.disabled, asked.close_on_exit)
    return Loop(
        session, trader, feed, market, around.clock, options, shown.status, shown.teller, shown.each_cycle, compare,
        shown.mark,
    )  # fmt: skip


def _prepare(feed: Feed) -> None:
    try:
        feed.prepare()
    except ExchangeUnavailable as error:
        raise ExchangeUnavailable(
            error.what, "Nothing was entered; what rests at the exchange rests. Start again when it answers."
        ) from None


def _say(facts: Mapping[str, str], tell: Callable[[Event], None]) -> None:
    for name, text in facts.items():
        tell(Event("info", "start", f"{name}: {text}"))


@contextlib.contextmanager
def _ended(session: Session, clock: Clock) -> Iterator[None]:
    """However it ends, the ledger says so, and the account is free."""
    try:
        yield
    except Fenced:
        session.journal.close()  # it is somebody else's now
        raise
    except BaseException as error:
        _end(session, clock, "STOPPED" if isinstance(error, UsageError) else "FAILED")
        raise
    _end(session, clock, "STOPPED")


def _end(session: Session, clock: Clock, status: str) -> None:
    with contextlib.suppress(DatabaseError):
        session.end(status, moment(clock.now_ms()))
        return
    session.release()


def _wish(ready: Ready) -> Wish:
    asked = ready.asked
    balance = DEFAULT_PAPER_BALANCE if asked.initial_balance is None else asked.initial_balance
    return Wish(
        ready.account, asked.venue, ready.mode.environment, ready.traded, ready.rules, asked.strategy, asked.timeframe,
        ready.config, Decimal(repr(balance)), ready.key_identity, Decimal(repr(asked.stop_offset)),
    )  # fmt: skip


def _broker(ready: Ready, around: Around, paper: ManualClock) -> Callable[[TradingState], Broker]:
    if around.broker is not None:
        real = around.broker
        return lambda state: real
    setup = Setup(venue=ready.asked.venue, fee=ready.rules.fee, slip=ready.rules.slip)
    return lambda state: exchange_of(state, setup, paper, timeframe_ms(ready.asked.timeframe))
