"""Ask a strategy for its signals and refuse what is not an answer."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from atb.core.errors import AtbError, StrategyError
from atb.core.timeframe import iso_minute
from atb.core.words import counted
from atb.engine.candles import COLUMNS, Candles, Floats
from atb.strategy.contract import Strategy
from atb.strategy.loader import aside, error_in

CANDLE_COLUMNS = ("open_time", *COLUMNS)
COPY_FIRST = "Candles are read-only; work on a copy, as in close = candles.close.copy()."


def compute_signals(strategy: Strategy, candles: Candles) -> Floats:
    """`strategy.signals(candles)`, checked: float64[n] in [-1, 1], NaN only while warming up (or where it is meant)."""
    signals = ask(strategy, candles)
    check_values(signals, candles, strategy)
    return signals


def ask(strategy: Strategy, candles: Candles) -> Floats:
    """`strategy.signals(candles)` as float64[n], whatever its values; the candles must stay as they were."""
    columns, sides = [getattr(candles, name) for name in CANDLE_COLUMNS], dict(candles.sides)
    try:
        with aside():
            answer = strategy.signals(candles)
    except AtbError:
        raise
    except (Exception, SystemExit) as error:
        raise _failure(strategy, error) from error
    for name, column in zip(CANDLE_COLUMNS, columns, strict=True):
        if getattr(candles, name) is not column or column.flags.writeable:  # the engine trades on the same arrays
            raise StrategyError(f"{place(strategy)}: signals() changed candles.{name}.", COPY_FIRST)
    if any(candles.sides.get(name) is not column or column.flags.writeable for name, column in sides.items()):
        raise StrategyError(f"{place(strategy)}: signals() changed the side series of the candles.", COPY_FIRST)
    return _as_floats(answer, len(candles), strategy)


def _failure(strategy: Strategy, error: BaseException) -> StrategyError:
    told = error_in(source_path(strategy), error, "failed in signals()")
    if isinstance(error, ValueError) and "read-only" in str(error):
        return StrategyError(told.what, COPY_FIRST)
    return told


def lookback_of(strategy: Strategy) -> int:
    """`strategy.lookback_bars`, checked: a whole number of at least 1."""
    try:
        with aside():
            bars = strategy.lookback_bars
    except AtbError:
        raise
    except (Exception, SystemExit) as error:
        raise error_in(source_path(strategy), error, "failed in lookback_bars") from error
    if isinstance(bars, bool) or not isinstance(bars, int | np.integer) or bars < 1:
        raise StrategyError(f"{place(strategy)}: lookback_bars must be a whole number of at least 1, not {bars!r}.")
    return int(bars)


def source_path(strategy: Strategy) -> Path:
    """The file of the strategy's class."""
    name = type(strategy).__module__
    return Path(getattr(sys.modules.get(name), "__file__", None) or name)


def place(strategy: Strategy) -> str:
    """File and line of the strategy's `signals`, or the file alone where they are inherited or wrapped."""
    path = str(source_path(strategy))
    code = getattr(type(strategy).signals, "__code__", None)
    return f"{path}, line {code.co_firstlineno}" if code and code.co_filename == path else path


def _as_floats(answer: object, n: int, strategy: Strategy) -> Floats:
    try:
        signals = np.ascontiguousarray(answer, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StrategyError(f"{place(strategy)}: signals() did not return numbers: {error}.") from None
    if signals.shape != (n,):
        raise StrategyError(
            f"{place(strategy)}: signals() returned shape {signals.shape} for {counted(n, 'candle')}.",
            "Return one number for each candle, NaN while warming up.",
        )
    return signals


def check_values(signals: Floats, candles: Candles, strategy: Strategy) -> None:
    """Refuse signals outside [-1, 1], and NaN after the warm-up unless the strategy is silent at times."""
    wild = np.isinf(signals) | (np.abs(signals) > 1.0)
    if wild.any():
        t = int(np.argmax(wild))
        raise StrategyError(
            f"{place(strategy)}: the signal of candle {t} ({iso_minute(int(candles.open_time[t]))}) is {signals[t]:g}, "
            "outside [-1, 1].",
            "Scale or clip the signals.",
        )
    after = np.isnan(signals[lookback_of(strategy) - 1 :])
    if after.any() and not strategy.silent_at_times:
        t = int(np.argmax(after)) + lookback_of(strategy) - 1
        raise StrategyError(
            f"{place(strategy)}: the signal of candle {t} ({iso_minute(int(candles.open_time[t]))}) is NaN, after the "
            f"warm-up of {counted(lookback_of(strategy), 'candle')} ({counted(int(after.sum()), 'such candle')}).",
            "Return 0 for 'no opinion', correct lookback_bars, or set silent_at_times = True if NaN is meant.",
        )
