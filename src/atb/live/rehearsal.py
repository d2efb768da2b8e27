"""A rehearsal on history: an account of its own, traded from the first candle to the last through everything that trades live.

At the end it is compared with the backtest of the same candles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from atb.core.timeframe import ManualClock, timeframe_ms
from atb.engine.candles import Candles, Floats
from atb.engine.records import Rules
from atb.engine.sides import Join, as_they_are
from atb.execution.engines import registered
from atb.execution.executor import Event
from atb.execution.session import Session, Wish, open_session
from atb.execution.state import TradingState
from atb.execution.traded import Traded
from atb.ledger.connect import Where
from atb.live.parity import Parity, compare
from atb.live.replay import Replay
from atb.live.signal_config import signal_config
from atb.live.trader import Trader
from atb.strategy.contract import Strategy
from atb.strategy.signals import lookback_of
from atb.venue.simulated_book import Setup
from atb.venue.simulated_broker import SimulatedBroker

VENUE = "replay"


class Part(NamedTuple):
    """One symbol. candles[first:] are traded, those before are only looked back at; signals: as the backtest computed them."""

    traded: Traded
    strategy: Strategy
    candles: Candles
    first: int
    signals: Floats


class Rehearsal(NamedTuple):
    """All that is decided before the first candle."""

    strategy: str
    timeframe: str
    parts: Sequence[Part]
    rules: Rules
    balance: float
    sources: Sequence[str]
    policy_hash: str
    notes: Sequence[str]
    strategy_sha256: str = ""
    join: Join = as_they_are


class Outcome(NamedTuple):
    """What a rehearsal left in the ledger, and how it compares. ended: all candles were played."""

    session_id: int
    account: str
    rows: int
    ended: bool
    equity: Decimal
    trades: int
    parity: Parity | None


def rehearse(
    where: Where, asked: Rehearsal, speed: float | None, progress: Callable[[float], None], stop: Callable[[], bool],
    tell: Callable[[Event], None], home: Path,
) -> Outcome:  # fmt: skip
    """Play it. `stop` ends it after the row that is played; what is held then stays held in its account. `home`: where it is
    known as an engine that runs."""
    first_ms = min(int(part.candles.open_time[part.first]) for part in asked.parts)
    clock = ManualClock(first_ms)
    setup = Setup(venue=VENUE, fee=asked.rules.fee, slip=asked.rules.slip)
    known = {part.traded.symbol: part.traded.rules for part in asked.parts}
    quote = asked.parts[0].traded.symbol.quote
    broker = SimulatedBroker(known, setup, clock, {quote: Decimal(repr(asked.balance))})
    session = open_session(where, _wish(asked, datetime.now(UTC)), clock, lambda state: broker, tell)
    with registered(home, account=session.account.name, session_id=session.id, database=where.shown):
        return _play(session, asked, speed, progress, stop, broker, clock)


def _play(
    session: Session, asked: Rehearsal, speed: float | None, progress: Callable[[float], None], stop: Callable[[], bool],
    broker: SimulatedBroker, clock: ManualClock,
) -> Outcome:  # fmt: skip
    first_ms, renew = clock.time_ms, session.renewal()

    def stopped() -> bool:
        renew()
        return stop()

    trader = Trader(session.executor, [part.strategy for part in asked.parts], asked.timeframe, asked.join)
    lookback = [lookback_of(part.strategy) for part in asked.parts]
    bare = [part.candles.with_sides({}) for part in asked.parts]  # the trader joins side series itself, as it does live
    replay = Replay(trader, broker, clock, bare, lookback, first_ms, speed)
    rows = replay.run(progress, stopped)
    ended = rows == len(replay.times)
    parity = _parity(session, asked) if ended else None
    session.end("STOPPED", datetime.fromtimestamp(clock.now_ms() / 1000, UTC))
    books = session.state.books
    count = sum(fill.side != "buy" for fills in books.history.values() for fill in fills)
    return Outcome(session.id, session.account.name, rows, ended, books.equity, count, parity)


def _wish(asked: Rehearsal, now: datetime) -> Wish:
    """Each rehearsal has an account of its own: it begins with the same money, and disturbs nothing."""
    strategies = {part.traded.symbol.id: part.strategy for part in asked.parts}
    known = signal_config(asked.strategy_sha256, strategies)
    config = {**known, "policy_hash": asked.policy_hash, "sources": list(asked.sources)}
    return Wish(
        f"replay:{asked.strategy}:{now:%Y%m%d-%H%M%S.%f}", VENUE, "paper", [part.traded for part in asked.parts],
        asked.rules, asked.strategy, asked.timeframe, config, Decimal(repr(asked.balance)),
    )  # fmt: skip


def _parity(session: Session, asked: Rehearsal) -> Parity:
    series = [part.candles.window(part.first, len(part.candles)) for part in asked.parts]
    signals = [part.signals[part.first :] for part in asked.parts]
    equity = session.journal.read(lambda connection: closes(connection, session.account.id))
    state: TradingState = session.state
    return compare(state, series, signals, asked.rules, asked.balance, timeframe_ms(asked.timeframe), equity)


def closes(connection: Any, account_id: int) -> list[tuple[int, float]]:
    """(open ms, equity) at each close that an account's ledger tells of."""
    rows = connection.execute(
        "SELECT (body::jsonb ->> 'open_ms')::bigint, balance FROM entries JOIN account_balances USING (account_id, seq) "
        "WHERE account_id = %s AND kind = 'mark' AND why = 'close' ORDER BY seq",
        (account_id,),
    )
    return [(int(at), float(balance)) for at, balance in rows]
