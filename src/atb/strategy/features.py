"""The features of model kind "basic": what the model sees of the last LOOKBACK candles, free of price and of scale.

Finite memory, bit for bit: everything that is summed is a whole number (fixed-point log returns, exact volumes), so the
row of candle t is the same from the whole series and from the LOOKBACK candles that end with t. One logarithm a candle
serves returns, volatilities and averages alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from atb.core.timeframe import HOUR_MS
from atb.engine.candles import Candles, Floats, Ints
from atb.engine.indicators import RETURN_UNIT, fixed_returns, rolling_max, rolling_min, rolling_sum

Floats32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

FEATURE_VERSION = 1  # rises with any change of a feature: a model of another version is refused
LONG = 168  # candles: a week of hours
SHORT = 24
LOOKBACK = LONG + 1  # LONG returns need one close more
CHUNK = 16_384  # rows worth computing at once: the columns in work then stay in the processor's cache
SMALLEST_RATIO = 1.0 / 64.0  # of two volatilities: a market that stood still for hours would otherwise be -infinity

RETURN_SPANS = (1, 3, 6, 12, 24, 72, 168)  # candles
FEATURES = (
    *(f"return_{span}" for span in RETURN_SPANS),  # log return over volatility x sqrt(span)
    "volatility_6_24",  # log of the ratio of realised volatilities
    "volatility_24_168",
    "channel_24",  # close in the Donchian channel: -1 at the low, 1 at the high
    "average_24",  # log distance from the mean log price over volatility x sqrt(24)
    "volume_1",  # log1p of volume over its mean of 168 candles, 0 at the mean
    "volume_24",
    "body",  # (close - open) / (high - low)
    "close_in_range",  # close in its own candle: -1 at the low, 1 at the high
    "hour_sin",  # hour of the day, UTC
    "hour_cos",
)

_ANGLES = np.arange(24) * (2.0 * np.pi / 24.0)
_HOUR_SIN, _HOUR_COS = np.sin(_ANGLES), np.cos(_ANGLES)  # a table: the same bits for the same hour, always


class _Base(NamedTuple):
    """What several features share. log_price: int64[n], counted from the first close; volatility: float64[n]."""

    candles: Candles
    log_price: Ints
    squares: Ints
    volatility: Floats


def compute_features(candles: Candles) -> Floats32:
    """float32[n, len(FEATURES)]; the first LOOKBACK - 1 rows are NaN. For long series go through `feature_rows`."""
    out = np.full((len(candles), len(FEATURES)), np.nan, dtype=np.float32)
    if len(candles) >= LOOKBACK:
        out[LOOKBACK - 1 :] = feature_rows(candles, LOOKBACK - 1, len(candles))
    return out


def feature_rows(candles: Candles, start: int, stop: int) -> Floats32:
    """The rows start..stop - 1 as float32[stop - start, len(FEATURES)]; start must be at least LOOKBACK - 1.

    A row holds a non-finite number where the market gives no answer (it stood still, or a candle in reach is not a
    candle): then there is no prediction. Needs memory for stop - start rows only, so callers go in steps of CHUNK.
    """
    if start < LOOKBACK - 1:
        raise ValueError(f"row {start} has fewer than {LOOKBACK} candles behind it")
    part = candles.window(start - LOOKBACK + 1, stop)
    out = np.empty((stop - start, len(FEATURES)), dtype=np.float32)
    with np.errstate(all="ignore"):
        for j, column in enumerate(_columns(part)):
            out[:, j] = column[LOOKBACK - 1 :]
    usable = _usable(part)
    if not usable.all():
        out[rolling_sum((~usable).astype(np.int64), LOOKBACK) > 0] = np.nan
    return out


def _columns(candles: Candles) -> list[Floats]:
    """One float64[n] for each of FEATURES; rows before LOOKBACK - 1 mean nothing."""
    returns = fixed_returns(candles.close)
    log_price = np.concatenate([np.zeros(1, np.int64), np.cumsum(returns)])
    squares = returns * returns
    base = _Base(candles, log_price, squares, _volatility(squares, LONG))
    hours = candles.open_time // HOUR_MS % 24
    return [
        *(_return(base, span) for span in RETURN_SPANS),
        _log_ratio(_volatility(squares, 6), _volatility(squares, SHORT)),
        _log_ratio(_volatility(squares, SHORT), base.volatility),
        _position(candles.close, rolling_min(candles.low, SHORT), rolling_max(candles.high, SHORT)),
        _distance(base, SHORT),
        *_volumes(candles),
        _share(candles.close - candles.open, candles.high - candles.low),
        _position(candles.close, candles.low, candles.high),
        _HOUR_SIN[hours],
        _HOUR_COS[hours],
    ]


def _volatility(squares: Ints, window: int) -> Floats:
    """Root mean square of `window` returns, float64[n]; NaN where there are fewer."""
    out = np.full(len(squares) + 1, np.nan)
    out[window:] = np.sqrt(rolling_sum(squares, window) / window) / RETURN_UNIT
    return out


def _return(base: _Base, span: int) -> Floats:
    out = np.full(len(base.log_price), np.nan)
    moved = (base.log_price[span:] - base.log_price[:-span]) / RETURN_UNIT
    out[span:] = moved / (base.volatility[span:] * np.sqrt(span))
    return out


def _distance(base: _Base, window: int) -> Floats:
    """Log price over the mean log price of `window` candles, in units of the volatility over that time."""
    out = np.full(len(base.log_price), np.nan)
    price = base.log_price[window - 1 :]
    above = (window * price - rolling_sum(base.log_price, window)) / (window * RETURN_UNIT)
    out[window - 1 :] = above / (base.volatility[window - 1 :] * np.sqrt(window))
    return out


def _log_ratio(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(a / b, SMALLEST_RATIO)))


def _position(value: Floats, low: Floats, high: Floats) -> Floats:
    """Where value is between low (-1) and high (1); 0 where the two are one."""
    return np.where(high > low, (2.0 * value - low - high) / (high - low), 0.0)


def _share(part: Floats, whole: Floats) -> Floats:
    return np.where(whole > 0, part / whole, 0.0)


def _volumes(candles: Candles) -> tuple[Floats, Floats]:
    """Volume of 1 and of SHORT candles against the mean of LONG; 0 volume is a number like any other."""
    n = len(candles)
    volume = candles.exact("volume")
    short, long = np.full(n, np.nan), np.full(n, np.nan)
    short[SHORT - 1 :] = rolling_sum(volume, SHORT) / SHORT
    long[LONG - 1 :] = rolling_sum(volume, LONG) / LONG
    return _log1p_ratio(volume.astype(np.float64), long), _log1p_ratio(short, long)


def _log1p_ratio(value: Floats, mean: Floats) -> Floats:
    return np.asarray(np.log1p(np.where(mean > 0, value / mean, 0.0)) - np.log(2.0))


def _usable(candles: Candles) -> Bools:
    """Candles with positive, finite prices and a finite volume (NaN compares false)."""
    c = candles
    good: Bools = (c.low > 0) & (c.open > 0) & (c.close > 0) & (c.high < np.inf) & (c.volume >= 0) & (c.volume < np.inf)
    return good
