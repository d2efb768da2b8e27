"""The gate over side series: who looks at a value before it was known is refused, at the true candle."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from atb.core.errors import StrategyError
from atb.engine.candles import Candles
from atb.engine.sides import Side
from atb.strategy import Strategy
from atb.strategy.gate import check_fully, check_on_load
from atb.strategy.signals import compute_signals
from atb.venue.simulated import SIMULATED_START_MS, simulate_candles
from atb.venue.simulated_sides import simulated_sides
from tests.unit.leaks.base import Planted, mean_of, shifted

NAMES = ("funding_rate", "open_interest", "fear_greed", "mine")


def candles(count: int = 3000, seed: int = 7) -> Candles:
    plain = simulate_candles("BTCUSDT", "1h", SIMULATED_START_MS, count, seed)
    return simulated_sides([Side(name) for name in NAMES], plain, seed)


class Peeks(Planted):
    """Buys when the next candle's funding is lower."""

    def view(self, candles: Candles) -> Any:
        funding = candles.side("funding_rate")
        return np.sign(funding - np.append(funding[1:], funding[-1]))


class PeeksAtRareNews(Planted):
    """Knows at the last candle of a day what the next day's index will be."""

    def view(self, candles: Candles) -> Any:
        fear = candles.side("fear_greed")
        return np.where(np.append(fear[1:], fear[-1]) > fear + 10, 1.0, 0.0)


class PeeksFar(Planted):
    """Funding of a day ahead."""

    def view(self, candles: Candles) -> Any:
        return np.where(shifted(candles.side("funding_rate"), -24) < 0.0, 1.0, 0.0)


class Ranks(Planted):
    """Scaled by the mean and deviation of the whole series."""

    def view(self, candles: Candles) -> Any:
        mine = candles.side("mine")
        return (mine - np.nanmean(mine)) / (5.0 * np.nanstd(mine))


class Fills(Planted):
    """Holes filled from behind: what comes after is in front."""

    def view(self, candles: Candles) -> Any:
        interest = np.where(np.arange(len(candles)) % 7 == 3, np.nan, candles.side("open_interest"))
        holes = np.isnan(interest)
        after = np.minimum(np.arange(len(candles)) + 1, len(candles) - 1)
        return np.where(holes, interest[after], interest) / 200_000.0


class NextIsTheSame(Planted):
    """Acts where the next value hardly differs: so rarely that only a market that stands still shows it, all around."""

    kind: ClassVar[str] = "memory"

    def view(self, candles: Candles) -> Any:
        interest = candles.side("open_interest")
        following = np.append(interest[1:], 0.0)
        return np.where(np.abs(following / interest - 1.0) < 1e-5, 1.0, 0.0)


class Remembers(Planted):
    """An average of 30 values, where 20 are declared."""

    kind: ClassVar[str] = "memory"

    def view(self, candles: Candles) -> Any:
        return mean_of(candles.side("mine"), 30)


class Honest(Planted):
    """Out of the market while funding is dear, by nothing but what was known."""

    def view(self, candles: Candles) -> Any:
        cheap = candles.side("funding_rate") < 2e-4
        return np.where(cheap, np.tanh(candles.side("fear_greed") - mean_of(candles.side("fear_greed"), 20)), -1.0)


class OnlySides(Planted):
    """Does not look at prices at all: that is no lag."""

    def view(self, candles: Candles) -> Any:
        return np.where(candles.side("fear_greed") < 40, 1.0, -1.0)


class Late(Planted):
    """The index of a candle ago."""

    kind: ClassVar[str] = "lag"

    def view(self, candles: Candles) -> Any:
        return np.where(shifted(candles.side("fear_greed"), 1) < 40, 1.0, -1.0)


LEAKS = [Peeks, PeeksAtRareNews, PeeksFar, Ranks, Fills, NextIsTheSame, Remembers]


@pytest.mark.parametrize("cls", LEAKS)
def test_a_planted_leak_is_found(cls: type[Planted]) -> None:
    report = check_fully(cls(), candles(), exact=False, lag_is_fatal=True)
    assert not report.passed and report.findings[0].kind == cls.kind, report.findings


def test_the_first_candle_is_named() -> None:
    series = candles()
    t = check_fully(Peeks(), series, exact=False, lag_is_fatal=True).findings[0].t
    funding = series.side("funding_rate")
    first = next(i for i in range(19, len(series)) if funding[i + 1] != funding[i])
    assert t == first


@pytest.mark.parametrize("cls", [Honest, OnlySides])
def test_an_honest_one_passes(cls: type[Planted]) -> None:
    series = candles()
    report = check_fully(cls(), series, exact=True, lag_is_fatal=True)
    assert report.passed and report.findings == []
    check_on_load(cls(), series, compute_signals(cls(), series), 0.1, exact=True)


def test_a_lag_is_told() -> None:
    findings = check_fully(Late(), candles(), exact=False, lag_is_fatal=True).findings
    assert [finding.kind for finding in findings] == ["lag"] and "side series" in findings[0].message


@pytest.mark.parametrize("cls", [Peeks, PeeksAtRareNews, PeeksFar, Ranks, Remembers])
@pytest.mark.parametrize("seed", [7, 8, 9])
def test_loading_finds_it_too(cls: type[Strategy], seed: int) -> None:
    series = candles(seed=seed)
    with pytest.raises(StrategyError, match="look-ahead|memory"):  # noqa: RUF043
        check_on_load(cls(), series, compute_signals(cls(), series), 0.1, exact=False)


def test_values_that_are_missing_hide_nothing() -> None:
    """A look at whether there will be a value is a look ahead."""

    class SeesTheFirst(Planted):
        def view(self, candles: Candles) -> Any:
            known = ~np.isnan(candles.side("mine"))
            return np.where(np.append(known[1:], known[-1]), 1.0, -1.0)

    series = candles()
    column = np.array(series.side("mine"))
    column[:1500] = np.nan
    report = check_fully(SeesTheFirst(), series.with_sides({"mine": column}), exact=False, lag_is_fatal=False)
    assert not report.passed and report.findings[0].kind == "future"
