"""What a running session looks like, for screen and health."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from atb.core.money import price_to_decimal
from atb.execution.session import Session
from atb.execution.state import TradingState
from atb.live.feed import Feed
from atb.live.running import RunningPrices, running_mark
from atb.live.status import Halt, Holding, Link


def picture(session: Session, feed: Feed, prices: RunningPrices, now_ms: int) -> dict[str, Any]:
    """The fields of a live.status.Snapshot that follow from the session's state and its market data."""
    state, bare = session.state, session.executor.bare
    mark = running_mark(state, prices, now_ms)
    return {
        "equity": mark.equity,
        "peak": mark.peak,
        "unrealized_pnl": mark.unrealized_pnl,
        "positions": _holdings(session, prices, now_ms),
        "unprotected_ms": bare.total_ms,
        "unprotected_worst_ms": bare.worst_ms,
        "next_decision_ms": feed.next_open_ms + feed.step_ms,
        "data_ms": max((series.fresh_ms for series in feed.series), default=None),
        "skew_ms": feed.exchange_now_ms() - now_ms,
        "stale": tuple(feed.stale(now_ms)),
        **_feed(feed),
        "halt": _halt(state, now_ms),
    }


def _feed(feed: Feed) -> dict[str, Any]:
    stream = feed.stream
    if stream is None:
        return {"feed": "poll", "stream": None}
    return {"feed": "stream" if stream.live else "poll", "stream": Link(stream.live, stream.since_ms, stream.why)}


def _halt(state: TradingState, now_ms: int) -> Halt | None:
    if not state.books.halted:
        return None
    since_ms = now_ms if state.halted_ms is None else state.halted_ms
    return Halt(state.books.halted, since_ms, not state.stepper.account.halted)


def _holdings(session: Session, prices: RunningPrices, now_ms: int) -> tuple[Holding, ...]:
    state = session.state
    bare = session.executor.bare.now(now_ms)
    out = []
    for s, (symbol, rules) in enumerate(state.traded[: state.count]):
        held = state.books.positions.get((symbol.market, symbol.id))
        if held is None:
            continue
        last, p = prices.of(state, held.key), state.position(s)
        entry = held.cost / held.qty if held.qty else Decimal(0)
        out.append(
            Holding(
                symbol.id, held.qty, entry, last, last * held.qty - held.cost,
                None if p.stop != p.stop else price_to_decimal(p.stop, rules.tick),
                None if p.take != p.take else price_to_decimal(p.take, rules.tick),
                now_ms - bare[s] if s in bare else None,
            )
        )  # fmt: skip
    return tuple(out)
