"""The numbers of /health as Prometheus reads them."""

from __future__ import annotations

from decimal import Decimal

from atb.live.judgement import Verdict
from atb.live.status import Snapshot

Value = Decimal | int | float | bool | None


def metrics(snapshot: Snapshot, verdict: Verdict, now_ms: int) -> str:
    """The text format, version 0.0.4. What is not known is left out: no number is better than a made-up one."""
    about = snapshot.about
    names = {"mode": about.mode, "venue": about.venue, "account": about.account, "strategy": about.strategy}
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in names.items())
    lines = [_head("atb_engine_info", "gauge", "What runs here."), f"atb_engine_info{{{labels}}} 1"]
    for name, kind, text, value in _numbers(snapshot, verdict, now_ms):
        if value is not None:
            lines += [_head(name, kind, text), f"{name} {float(value):.15g}"]
    lines.append(_head("atb_candle_age_seconds", "gauge", "Time since the last closed candle of a symbol closed."))
    lines += [
        f'atb_candle_age_seconds{{symbol="{_escaped(symbol)}"}} {(now_ms - close_ms) / 1000:.15g}'
        for symbol, close_ms in snapshot.candles.items()
    ]
    return "\n".join(lines) + "\n"


def _numbers(s: Snapshot, verdict: Verdict, now_ms: int) -> list[tuple[str, str, str, Value]]:
    open_ms = sum(held.unprotected_ms(now_ms) for held in s.positions)
    age_s = None if s.cycle_ms is None else (now_ms - s.cycle_ms) / 1000
    skew_s = None if s.skew_ms is None else s.skew_ms / 1000
    return [
        ("atb_healthy", "gauge", "1: healthy, by the same judgement as /health.", verdict.healthy),
        ("atb_uptime_seconds", "gauge", "Time since the engine was started.", (now_ms - s.about.started_ms) / 1000),
        ("atb_cycles_total", "counter", "Completed cycles.", s.cycles),
        ("atb_last_cycle_age_seconds", "gauge", "Time since the last completed cycle.", age_s),
        ("atb_equity", "gauge", "Marked-to-market equity in quote currency.", s.equity),
        ("atb_unrealized_pnl", "gauge", "Of the open positions, in quote currency.", s.unrealized_pnl),
        ("atb_drawdown_ratio", "gauge", "How far equity is under its peak.", s.drawdown_frac),
        ("atb_open_positions", "gauge", "Open positions.", len(s.positions)),
        ("atb_unprotected_seconds_total", "counter", "Time without a stop.", (s.unprotected_ms + open_ms) / 1000),
        ("atb_database_up", "gauge", "1: the database answers.", s.database.ok),
        ("atb_exchange_up", "gauge", "1: the exchange answers.", s.exchange.ok),
        ("atb_stream_up", "gauge", "1: candles are told by a stream.", None if s.stream is None else s.stream.ok),
        ("atb_clock_skew_seconds", "gauge", "The exchange's clock less ours.", skew_s),
        ("atb_halted", "gauge", "1: no entries, by an operator or a limit.", s.halt is not None),
        ("atb_entries_blocked", "gauge", "1: no entries, for whatever reason.", bool(s.blocked)),
    ]  # fmt: skip


def _head(name: str, kind: str, text: str) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} {kind}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
