"""What a running session looks like, for screen and health."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from atb.core.money import price_to_decimal
from atb.execution.session import Session
from atb.live.feed import Feed
from atb.live.status import Halt, Holding


def picture(session: Session, feed: Feed, now_ms: int) -> dict[str, Any]:
    """The fields of a live.status.Snapshot that follow from the session's state and its market data."""
    state, bare = session.state, session.executor.bare
    return {
        "equity": state.books.equity,
        "peak": state.books.peak,
        "positions": _holdings(session, feed, now_ms),
        "unprotected_ms": bare.total_ms,
        "unprotected_worst_ms": bare.worst_ms,
        "next_decision_ms": feed.next_open_ms + feed.step_ms,
        "data_ms": max((series.fresh_ms for series in feed.series), default=None),
        "skew_ms": feed.exchange_now_ms() - now_ms,
        "stale": tuple(feed.stale(now_ms)),
        "feed": "poll",
        "halt": Halt(state.books.halted, now_ms, not state.stepper.account.halted) if state.books.halted else None,
    }


def _holdings(session: Session, feed: Feed, now_ms: int) -> tuple[Holding, ...]:
    state, running = session.state, feed.running()
    bare = session.executor.bare.now(now_ms)
    out = []
    for s, (symbol, rules) in enumerate(state.traded[: state.count]):
        held = state.books.positions.get((symbol.market, symbol.id))
        if held is None:
            continue
        last = held.last_price
        if symbol.id in running:
            last = Decimal(repr(running[symbol.id].last))
        p = state.position(s)
        entry = held.cost / held.qty if held.qty else Decimal(0)
        out.append(
            Holding(
                symbol.id, held.qty, entry, last, (last - entry) * held.qty,
                None if p.stop != p.stop else price_to_decimal(p.stop, rules.tick),
                None if p.take != p.take else price_to_decimal(p.take, rules.tick),
                now_ms - bare[s] if s in bare else None,
            )
        )  # fmt: skip
    return tuple(out)
