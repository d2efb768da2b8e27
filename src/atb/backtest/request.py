"""What a backtest is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from atb.engine.simulation import EngineChoice

DEFAULT_FEE_BPS = 10.0
DEFAULT_SLIPPAGE_BPS = 5.0
DEFAULT_BALANCE = 10_000.0
DEFAULT_DAYS = 365
DEFAULT_SEED = 7
DEFAULT_MAX_GAP_SHARE = 0.02
PROVIDERS = ("binance", "coinbase", "file", "simulated")


class Span(NamedTuple):
    """Which candles: open times in [start_ms, end_ms); None: as far as there is data. `days`: that many before the end."""

    start_ms: int | None = None
    end_ms: int | None = None
    days: float | None = None


class Request(NamedTuple):
    """One backtest. Money in quote, costs in basis points of the notional."""

    strategy: str
    symbols: tuple[str, ...]
    timeframe: str | None = None
    provider: str = "binance"
    data: tuple[Path, ...] = ()
    span: Span = Span()
    seed: int | None = None  # of the simulator
    scenario: str = "normal"  # what happens in a simulated market
    correlation: float = 0.0  # of the shocks of its symbols
    initial_balance: float = DEFAULT_BALANCE
    fee_bps: float = DEFAULT_FEE_BPS
    slippage_bps: float = DEFAULT_SLIPPAGE_BPS
    params: Mapping[str, float] = {}
    policy_file: Mapping[str, Any] = {}
    policy_flags: Mapping[str, Any] = {}
    model_version: str | None = None
    max_gap_share: float = DEFAULT_MAX_GAP_SHARE
    allow_gaps: bool = False
    offline: bool = False
    engine: EngineChoice = "auto"
