"""The pages of the health server: /health for people, cron and load balancers, /metrics for Prometheus."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from atb.core.timeframe import Clock, iso
from atb.live.health_server import Page
from atb.live.judgement import Limits, Verdict, judge
from atb.live.prometheus import metrics
from atb.live.status import Holding, Link, Snapshot, Status


def health_pages(status: Status, clock: Clock, limits: Limits) -> dict[str, Callable[[], Page]]:
    """What a HealthServer serves of an engine."""

    def health() -> Page:
        snapshot, now_ms = status.snapshot, clock.now_ms()
        verdict = judge(snapshot, now_ms, limits)
        text = json.dumps(document(snapshot, verdict, now_ms), indent=2, allow_nan=False)
        return Page(200 if verdict.healthy else 503, "application/json", text + "\n")

    def numbers() -> Page:
        snapshot, now_ms = status.snapshot, clock.now_ms()
        return Page(200, "text/plain; version=0.0.4", metrics(snapshot, judge(snapshot, now_ms, limits), now_ms))

    return {"/health": health, "/metrics": numbers}


def document(snapshot: Snapshot, verdict: Verdict, now_ms: int) -> dict[str, Any]:
    """The JSON of /health: first what monitors look at, then what people do. docs/health.md has it field by field."""
    about, halt = snapshot.about, snapshot.halt
    return {
        "status": "healthy" if verdict.healthy else "unhealthy",
        "uptime_seconds": max(0, now_ms - about.started_ms) // 1000,
        "active_positions": len(snapshot.positions),
        "balance": _number(snapshot.equity),
        "last_data_update": _time(snapshot.data_ms),
        "reasons": list(verdict.reasons),
        "notes": list(verdict.notes),
        "entries_blocked": [blocked.why for blocked in snapshot.blocked],
        "mode": about.mode, "account": about.account, "session_id": about.session_id, "venue": about.venue,
        "strategy": about.strategy, "symbols": list(about.symbols), "timeframe": about.timeframe,
        "policy_hash": about.policy_hash, "pid": os.getpid(),
        "last_cycle": _time(snapshot.cycle_ms),
        "last_cycle_age_seconds": _seconds(None if snapshot.cycle_ms is None else now_ms - snapshot.cycle_ms),
        "cycles": snapshot.cycles,
        "last_candle": {symbol: _time(close_ms) for symbol, close_ms in snapshot.candles.items()},
        "stale": list(snapshot.stale),
        "feed": snapshot.feed,
        "stream": None if snapshot.stream is None else _link(snapshot.stream),
        "next_decision": _time(snapshot.next_decision_ms),
        "database": _link(snapshot.database) | {"url": about.database},
        "exchange": _link(snapshot.exchange),
        "log": _link(snapshot.log),
        "clock_skew_seconds": _seconds(snapshot.skew_ms),
        "halted": None if halt is None else {"why": halt.why, "since": _time(halt.since_ms), "by_operator": halt.by_operator},
        "peak_balance": _number(snapshot.peak),
        "unrealized_pnl": _number(snapshot.unrealized_pnl),
        "drawdown": _number(snapshot.drawdown_frac),
        "unprotected_seconds": _seconds(unprotected_ms(snapshot, now_ms)),
        "unprotected_seconds_total": _seconds(total_unprotected_ms(snapshot, now_ms)),
        "unprotected_seconds_worst": _seconds(max(snapshot.unprotected_worst_ms, unprotected_ms(snapshot, now_ms))),
        "positions": [_position(held, now_ms) for held in snapshot.positions],
    }  # fmt: skip


def unprotected_ms(snapshot: Snapshot, now_ms: int) -> int:
    """How long the worst open position has been without its stop by now."""
    return max((held.unprotected_ms(now_ms) for held in snapshot.positions), default=0)


def total_unprotected_ms(snapshot: Snapshot, now_ms: int) -> int:
    return snapshot.unprotected_ms + sum(held.unprotected_ms(now_ms) for held in snapshot.positions)


def _position(held: Holding, now_ms: int) -> dict[str, Any]:
    return {
        "symbol": held.symbol, "qty_base": _number(held.qty_base), "entry_price": _number(held.entry_price),
        "last_price": _number(held.last_price), "unrealized_pnl": _number(held.unrealized_pnl),
        "stop_loss": _number(held.stop_loss), "take_profit": _number(held.take_profit),
        "unprotected_seconds": _seconds(held.unprotected_ms(now_ms)),
    }  # fmt: skip


def _link(link: Link) -> dict[str, Any]:
    return {"status": "ok" if link.ok else "error", "since": _time(link.since_ms or None), "error": link.error}


def _number(value: Decimal | None) -> float | None:
    """For people and monitors; the books have the exact one."""
    return None if value is None or not value.is_finite() else float(value)


def _time(time_ms: int | None) -> str | None:
    return None if time_ms is None else iso(time_ms // 1000 * 1000)


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else round(ms / 1000, 1)
