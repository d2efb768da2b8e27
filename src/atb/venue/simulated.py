"""A seeded market simulator: candles that move like a market's, and are never passed off as one.

One-candle log returns are GARCH(1,1) with Student-t shocks (volatility clusters, tails are fat), a drift and a
volatility level that switch between regimes (calm, bull, bear, stress: a Markov chain), and rare jumps. The same
symbol, timeframe, start and seed give the same candles on every machine; a longer series begins like a shorter one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from atb.core.timeframe import DAY_MS, timeframe_ms
from atb.engine.candles import Candles, Floats

SIMULATED_START_MS = 1_704_067_200_000  # 2024-01-01: where a simulated series begins unless a start is given
DIGITS = 2
Progress = Callable[[float], None]  # share done
BLOCK = 4096  # candles drawn at once, so that a longer series begins like a shorter one


class Regime(NamedTuple):
    """Annual drift and volatility (log), and how many days the regime lasts on average."""

    drift: float
    volatility: float
    days: float


REGIMES = (Regime(0.0, 0.35, 20), Regime(0.9, 0.55, 30), Regime(-0.9, 0.65, 20), Regime(-0.5, 1.3, 4))
ALPHA, BETA = 0.08, 0.90  # GARCH: weight of the last shock, of the last variance
DEGREES = 5  # of freedom of the shocks
JUMPS_A_YEAR, JUMP_SIZE = 12, 0.035
FIRST_PRICES = {"BTC": 60_000.0, "ETH": 3_000.0, "BNB": 500.0, "SOL": 150.0}  # of the right order; others: 10 to 4,000


def simulate_candles(
    symbol: str, timeframe: str, start_ms: int, count: int, seed: int, on_progress: Progress | None = None,
    correlation: float = 0.0,
) -> Candles:  # fmt: skip
    """`count` candles from `start_ms`; symbol and seed choose the path and the price it starts from. correlation: of the shocks
    with those of any other symbol, 0 to 1."""
    length = timeframe_ms(timeframe)
    key = hashlib.sha256(f"{symbol}|{timeframe}|{start_ms}|{seed}".encode()).digest()
    state = _State(_first_price(symbol), length / (365 * DAY_MS))
    blocks = []
    number = -(-count // BLOCK)
    for index in range(number):
        random = np.random.Generator(np.random.PCG64([*key[:16], index]))
        shared = _shared(f"{timeframe}|{start_ms}|{seed}", index) if correlation else None
        blocks.append(_block(random, state, shared, correlation))
        if on_progress is not None:
            on_progress((index + 1) / number)
    open_, high, low, close, volume = (np.concatenate(c)[:count] for c in zip(*blocks, strict=True))
    times = start_ms + length * np.arange(count, dtype=np.int64)
    return Candles(symbol, timeframe, times, open_, high, low, close, volume)


def _first_price(symbol: str) -> float:
    known = FIRST_PRICES.get(symbol[:3])
    return (
        known if known else float(round(10.0 ** (1.0 + 2.6 * hashlib.sha256(symbol.encode()).digest()[0] / 255.0), 2))
    )


class _State:
    """What one block hands to the next: price, relative variance, regime."""

    def __init__(self, price: float, years: float) -> None:
        self.price = price
        self.years = years
        self.variance = 1.0
        self.regime = 0


class _Shared(NamedTuple):
    """What all symbols of a market feel: shocks, and when and into which regime it turns."""

    shocks: Floats
    switch: Floats
    which: Floats


def _shared(market: str, index: int) -> _Shared:
    key = hashlib.sha256(f"shared|{market}".encode()).digest()
    random = np.random.Generator(np.random.PCG64([*key[:16], index]))
    return _Shared(_shocks(random), random.random(BLOCK), random.random(BLOCK))


def _shocks(random: np.random.Generator) -> Floats:
    """Student-t of variance 1."""
    return np.asarray(random.standard_t(DEGREES, BLOCK) / np.sqrt(DEGREES / (DEGREES - 2)))


def _block(
    random: np.random.Generator, state: _State, shared: _Shared | None, correlation: float
) -> tuple[Floats, ...]:
    shocks = _shocks(random)
    jumps = np.where(random.random(BLOCK) < JUMPS_A_YEAR * state.years, random.normal(0, JUMP_SIZE, BLOCK), 0.0)
    switch, which = random.random(BLOCK), random.random(BLOCK)
    if shared is not None:
        shocks = correlation**0.5 * shared.shocks + (1.0 - correlation) ** 0.5 * shocks
        switch, which = shared.switch, shared.which
    reach = np.abs(random.normal(0, 1, (2, BLOCK)))
    noise = random.normal(0, 0.5, BLOCK)
    returns, sigma = _returns(shocks, switch, which, state)
    close = state.price * np.exp(np.cumsum(returns + jumps))
    open_ = np.concatenate([[state.price], close[:-1]])
    state.price = float(close[-1])
    high = np.maximum(open_, close) * np.exp(0.5 * sigma * reach[0])
    low = np.minimum(open_, close) * np.exp(-0.5 * sigma * reach[1])
    activity = np.abs(returns) / sigma
    volume = np.round(1000.0 * np.exp(noise + 0.5 * activity) * (sigma / sigma.mean()), 3)
    return *_on_grid(open_, high, low, close), volume


def _returns(shocks: Floats, switch: Floats, which: Floats, state: _State) -> tuple[Floats, Floats]:
    """Log returns and their standard deviations, candle by candle (each depends on the one before)."""
    returns, sigmas = [], []
    variance, regime = state.variance, state.regime
    root = state.years**0.5
    for shock, leave, pick in zip(shocks.tolist(), switch.tolist(), which.tolist(), strict=True):
        drift, volatility, days = REGIMES[regime]
        sigma = volatility * root * variance**0.5
        returns.append((drift - 0.5 * volatility**2) * state.years + sigma * shock)
        sigmas.append(sigma)
        variance = min(25.0, (1 - ALPHA - BETA) + (ALPHA * shock * shock + BETA) * variance)
        if leave < state.years * 365 / days:
            regime = (regime + 1 + int(pick * (len(REGIMES) - 1))) % len(REGIMES)
    state.variance, state.regime = variance, regime
    return np.array(returns), np.array(sigmas)


def _on_grid(*columns: Floats) -> tuple[Floats, ...]:
    """Prices rounded to DIGITS places, never to 0, with high and low still around open and close."""
    return tuple(np.maximum(np.round(column, DIGITS), 10.0**-DIGITS) for column in columns)
