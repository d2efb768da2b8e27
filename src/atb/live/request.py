"""What a live session is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

DEFAULT_CHECK_INTERVAL_S = 60.0
DEFAULT_TIMEFRAME = "1h"
DEFAULT_PAPER_BALANCE = 10_000.0


class LiveRequest(NamedTuple):
    """A session at an exchange. Money in quote, costs in basis points of the notional (of a paper account: what it pays)."""

    strategy: str
    symbols: tuple[str, ...]
    timeframe: str = DEFAULT_TIMEFRAME
    venue: str = "binance"
    params: Mapping[str, float] = {}
    policy_file: Mapping[str, Any] = {}
    policy_flags: Mapping[str, Any] = {}
    model_version: str | None = None
    fee_bps: float = 10.0
    slippage_bps: float = 5.0
    initial_balance: float | None = None
    paper: bool = False
    account: str = ""  # of paper: its name
    check_interval_s: float = DEFAULT_CHECK_INTERVAL_S
    resume: bool = False
    close_on_exit: bool = False
    on_halt: str = "close"
    allow_unprotected: bool = False
    embedded_allowed: bool = False
    stop_offset: float = 0.01
    health_host: str = "127.0.0.1"
    health_port: int = 8000
    log_dir: str = ""
    stream: bool = True
