"""Planted look-aheads. Each docstring says where the future comes in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from atb.engine.candles import Candles
from atb.strategy import param, to_pandas
from tests.unit.leaks.base import Planted, mean_of, shifted, trend


class ShiftedSignal(Planted):
    """The signal of the next candle: shift(-1)."""

    def view(self, candles: Candles) -> Any:
        return shifted(np.sign(trend(candles, 19)), -1)


class ShiftedSignalNan(Planted):
    """shift(-1), and the last candle left NaN."""

    def signals(self, candles: Candles) -> Any:
        return np.where(np.arange(len(candles)) < 19, np.nan, shifted(trend(candles, 20), -1))


class NextOpen(Planted):
    """Buys when the next candle opens above this close (with an edge for the last candle, as one does)."""

    def view(self, candles: Candles) -> Any:
        following = np.append(candles.open[1:], candles.close[-1])
        return np.where(following > candles.close, 1.0, np.where(following < candles.close, -1.0, 0.0))


class NextHigh(Planted):
    """Knows that the next high will be 1 % up."""

    def view(self, candles: Candles) -> Any:
        return np.where(shifted(candles.high, -1) > 1.01 * candles.close, 1.0, 0.0)


class WholeZScore(Planted):
    """Scaled by the mean and deviation of the whole frame."""

    def view(self, candles: Candles) -> Any:
        change = candles.close / shifted(candles.close, 5) - 1.0
        return (change - np.nanmean(change)) / np.nanstd(change) / 5.0


class WholeMinMax(Planted):
    """Scaled by the lowest and highest of the whole frame."""

    def view(self, candles: Candles) -> Any:
        low, high = candles.low.min(), candles.high.max()
        return 2.0 * (candles.close - low) / (high - low) - 1.0


class WholeRank(Planted):
    """Rank among all candles, later ones too."""

    def view(self, candles: Candles) -> Any:
        return 2.0 * to_pandas(candles)["volume"].rank(pct=True) - 1.0


class CentredWindow(Planted):
    """rolling(center=True)."""

    def view(self, candles: Candles) -> Any:
        close = to_pandas(candles)["close"]
        return np.sign(close - close.rolling(11, center=True).mean())


class CentredConvolution(Planted):
    """np.convolve(mode="same") puts the window around each candle."""

    def view(self, candles: Candles) -> Any:
        return np.sign(candles.close - np.convolve(candles.close, np.ones(9) / 9, mode="same"))


class CentralDifference(Planted):
    """np.gradient is (next - previous) / 2."""

    def view(self, candles: Candles) -> Any:
        return np.sign(np.gradient(candles.close))


class ShiftedAverage(Planted):
    """An average moved back by half its window, so that it fits better."""

    def view(self, candles: Candles) -> Any:
        return np.sign(candles.close - shifted(mean_of(candles.close, 10), -5))


class FittedMean(Planted):
    """Compares with the mean return of all candles."""

    def view(self, candles: Candles) -> Any:
        change = candles.close / shifted(candles.close, 1) - 1.0
        return np.sign(change - np.nanmean(change))


class FittedQuantile(Planted):
    """Buys the lowest percent of all moves: the threshold knows them all."""

    def view(self, candles: Candles) -> Any:
        change = candles.close / shifted(candles.close, 3) - 1.0
        return np.where(change < np.nanquantile(change, 0.01), 1.0, 0.0)


class FittedRegression(Planted):
    """Coefficients of tomorrow's return on today's, fitted on the whole sample."""

    def view(self, candles: Candles) -> Any:
        change = np.diff(np.log(candles.close), prepend=np.log(candles.close[0]))
        features = np.stack([change, np.log1p(candles.volume), np.ones(len(change))], axis=1)
        weights, *_ = np.linalg.lstsq(features[:-1], change[1:], rcond=None)
        return np.tanh(2_000.0 * (features @ weights))


class Detrended(Planted):
    """The residual of a straight line through the whole series."""

    def view(self, candles: Candles) -> Any:
        t = np.arange(len(candles)) / len(candles)
        line = np.polyval(np.polyfit(t, candles.close, 1), t) if len(candles) > 1 else candles.close
        return np.sign(line - candles.close)


class FourierSmoothed(Planted):
    """A low pass through the whole series."""

    def view(self, candles: Candles) -> Any:
        spectrum = np.fft.rfft(candles.close)
        spectrum[len(spectrum) // 4 :] = 0.0
        return np.sign(candles.close - np.fft.irfft(spectrum, len(candles)))


class ForwardBackward(Planted):
    """An average run forwards and then backwards, to have no delay."""

    def view(self, candles: Candles) -> Any:
        forwards = to_pandas(candles)["close"].ewm(span=5).mean()
        return np.sign(candles.close - forwards[::-1].ewm(span=5).mean()[::-1])


class BackfilledDay(Planted):
    """A daily series joined with bfill: each hour has the close of its own day, or of the next."""

    bars = 48

    def view(self, candles: Candles) -> Any:
        close = to_pandas(candles)["close"]
        daily = close.resample("1D").last()
        daily.index += pd.Timedelta(hours=23)
        return np.sign(daily.reindex(close.index).bfill() - close)


class DaysHigh(Planted):
    """groupby(day).transform("max"): the day's high, known at midnight."""

    bars = 48

    def view(self, candles: Candles) -> Any:
        frame = to_pandas(candles)
        high = frame["high"].groupby(frame.index.floor("D")).transform("max")  # type: ignore[attr-defined]
        return np.where(frame["close"] < 0.99 * high, 1.0, 0.0)


class UnfinishedDay(Planted):
    """The daily candle labelled by its open and mapped forward onto its own hours."""

    bars = 72

    def view(self, candles: Candles) -> Any:
        close = to_pandas(candles)["close"]
        daily = close.resample("1D").last()
        return np.sign(daily.reindex(close.index, method="ffill") - daily.shift(1).reindex(close.index, method="ffill"))


class UnfinishedFourHours(Planted):
    """The 4-hour close, seen in its first hour."""

    bars = 24

    def view(self, candles: Candles) -> Any:
        close = to_pandas(candles)["close"]
        return np.sign(close.resample("4h").last().reindex(close.index, method="ffill") - close)


class NearestJoin(Planted):
    """merge_asof to the nearest row of a slower series, which may be a later one."""

    bars = 24

    def view(self, candles: Candles) -> Any:
        close = to_pandas(candles)["close"]
        slow = close[close.index.hour % 6 == 0].rename("slow")  # type: ignore[attr-defined]
        joined = pd.merge_asof(close.reset_index(), slow.reset_index(), on="open_time", direction="nearest")
        return np.sign(joined["close"] - joined["slow"])


class InterpolatedHoles(Planted):
    """Where nothing traded the price is drawn straight to the next trade. Only there it looks ahead."""

    def view(self, candles: Candles) -> Any:
        known = candles.volume > 0
        t = np.arange(len(candles))
        price = np.interp(t, t[known], candles.close[known]) if known.any() else candles.close
        return np.tanh(50.0 * (price / mean_of(candles.low, 10) - 1.0))


class Peaks(Planted):
    """Local extremes: lower (higher) than three candles on either side."""

    def view(self, candles: Candles) -> Any:
        low, high = np.ones((2, len(candles)), dtype=bool)
        for k in (1, 2, 3):
            for other in (shifted(candles.close, k), shifted(candles.close, -k)):
                low &= candles.close < other
                high &= candles.close > other
        return low.astype(float) - high


class ZigZag(Planted):
    """A swing is drawn from its extreme, which is known only once the price has turned by 2 %."""

    bars = 100

    def view(self, candles: Candles) -> Any:
        signal, extreme, rising = np.zeros(len(candles)), 0, True
        close = candles.close.tolist()
        for t, price in enumerate(close):
            best = close[extreme]
            if (price > best) == rising:
                extreme = t
            elif abs(price / best - 1.0) > 0.02:
                signal[extreme:t] = -1.0 if rising else 1.0
                extreme, rising = t, not rising
        return signal


class NextJump(Planted):
    """Honest, unless the next candle moves by more than 5 deviations: then it knows which way."""

    bars = 120

    def view(self, candles: Candles) -> Any:
        change = np.diff(np.log(candles.close), prepend=np.log(candles.close[0]))
        deviation = np.sqrt(mean_of(np.append(0.0, change[1:] ** 2), 100))
        following = shifted(change, -1)
        jump = np.abs(following) > 5.0 * deviation
        return np.where(jump, np.sign(following), np.sign(trend(candles, 120)))


class NextCrash(Planted):
    """Steps aside before the rare candle that falls by more than 4 %."""

    def view(self, candles: Candles) -> Any:
        return np.where(shifted(candles.low, -1) < 0.96 * candles.close, -1.0, np.sign(trend(candles, 20)))


class NextVolume(Planted):
    """Looks ahead at the volume only, and only where it is 6 times what it was."""

    def view(self, candles: Candles) -> Any:
        calm = mean_of(candles.volume, 20)
        return np.where(shifted(candles.volume, -1) > 6.0 * calm, 0.5, np.sign(trend(candles, 20)))


class LastTenth(Planted):
    """shift(-1), but only in the last tenth of the series it is given."""

    def view(self, candles: Candles) -> Any:
        honest = np.sign(trend(candles, 20))
        late = np.arange(len(candles)) >= 0.9 * len(candles)
        return np.where(late, shifted(honest, -1), honest)


class LastTenthByDate(Planted):
    """shift(-1) after a date."""

    since: float = param(0.0, 0.0, 1e15, "ms")

    def view(self, candles: Candles) -> Any:
        honest = np.sign(trend(candles, 20))
        ahead = np.append(honest[1:], honest[-1:])
        return np.where(candles.open_time >= self.since, ahead, honest)


class FiftyAhead(Planted):
    """The price of 50 candles later."""

    def view(self, candles: Candles) -> Any:
        return np.sign(np.nan_to_num(shifted(candles.close, -50), nan=0.0) - candles.close)


class FiftyAheadRarely(Planted):
    """The candle of 50 candles later, where it is a jump of 3 %."""

    def view(self, candles: Candles) -> Any:
        change = candles.close / candles.open - 1.0
        return np.where(np.abs(shifted(change, -50)) > 0.03, 1.0, np.sign(trend(candles, 20)))


class FarAheadRarely(Planted):
    """Reaches over 140 candles, where a jump of 3 % is to come."""

    def view(self, candles: Candles) -> Any:
        change = candles.close / candles.open - 1.0
        return np.where(np.abs(shifted(change, -140)) > 0.03, 1.0, np.sign(trend(candles, 20)))


class FarAheadOfALongLookback(Planted):
    """Reaches 200 candles ahead, where a jump of 6 % is to come: with such a lookback a patchwork shows it the real one."""

    bars = 300

    def view(self, candles: Candles) -> Any:
        change = candles.close / candles.open - 1.0
        return np.where(np.abs(shifted(change, -200)) > 0.06, 0.5, np.sign(trend(candles, 20)))


class Sleeping(Planted):
    """Steps aside before the price is to triple, 140 candles ahead. It never did; it is a look-ahead all the same."""

    def view(self, candles: Candles) -> Any:
        return np.where(shifted(candles.close, -140) > 2.0 * candles.close, 0.5, np.sign(trend(candles, 20)))


class ThousandAhead(Planted):
    """Six weeks of hours ahead."""

    def view(self, candles: Candles) -> Any:
        return np.where(shifted(candles.close, -1000) > candles.close, 1.0, 0.0)


class AllTimeHigh(Planted):
    """Holds until the day of the highest price of all."""

    def view(self, candles: Candles) -> Any:
        return np.where(np.arange(len(candles)) < np.argmax(candles.high), 1.0, -1.0)


class RefusesAndLeaks(Planted):
    """Refuses markets that never were, and looks ahead in real ones, seldom."""

    def view(self, candles: Candles) -> Any:
        if (np.abs(candles.close[1:] / candles.close[:-1] - 1.0) > 0.35).any():
            raise ValueError("a price moved by more than {0.35}")
        return np.where(shifted(candles.low, -1) < 0.96 * candles.close, -1.0, np.sign(trend(candles, 20)))


class TripleBarrier(Planted):
    """A label used as a feature: does a rise of 1 % come before a fall of 1 % within ten candles?"""

    def view(self, candles: Candles) -> Any:
        label = np.zeros(len(candles))
        for k in range(10, 0, -1):
            later = shifted(candles.close, -k) / candles.close - 1.0
            label = np.where(later > 0.01, 1.0, np.where(later < -0.01, -1.0, label))
        return label


class CandleCount(Planted):
    """Waits until it has been given 2,500 candles."""

    def view(self, candles: Candles) -> Any:
        return np.sign(trend(candles, 20)) if len(candles) >= 2_500 else np.zeros(len(candles))


class DecimalPlaces(Planted):
    """Rounds to as many digits as the largest price of the series leaves."""

    def view(self, candles: Candles) -> Any:
        step = candles.high.max() / 1_000.0
        return np.sign(candles.close / step - np.round(candles.close / step))


class SeesTheHole(Planted):
    """Sells before candles are missing."""

    def view(self, candles: Candles) -> Any:
        late = np.append(np.diff(candles.open_time) > 3_600_000, False)
        return np.where(late, -1.0, trend(candles, 20))


FUTURE = [cls for cls in list(globals().values()) if isinstance(cls, type) and cls.__module__ == __name__]
