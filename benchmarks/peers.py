"""The same work in backtesting.py and vectorbt, in the same run. `make bench` installs them; without them this says so."""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from atb.engine.candles import Candles, Floats
from atb.strategy import to_pandas
from benchmarks.measure import Row, best_of
from benchmarks.work import BALANCE, FEE, FRACTION, SLIP, STOP, TAKE, crossing, market, run_engine

BARS = 17_500


def same_work(quick: bool) -> list[Row]:
    """A crossing of averages with stop, take, fees and summary on 17,500 bars, in multiples of ours.

    What the peers leave out: backtesting.py has no trailing stop here and trades fractions through an integer unit;
    vectorbt has no take-limit rule within a candle, no lots, no refusals. Neither marks ambiguous candles.
    """
    candles, cache = market(BARS), Path(tempfile.mkdtemp())
    signal = crossing(candles)
    works: dict[str, Any] = {"atb": lambda: run_engine([candles], [signal], "compiled", cache)}
    if importlib.util.find_spec("backtesting"):
        works["backtesting.py"] = backtesting_work(candles, signal)
    if importlib.util.find_spec("vectorbt"):
        works["vectorbt"] = vectorbt_work(candles, signal)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds = best_of(works, 3)
    rows = [Row(f"{name}, in runs of atb", seconds[name] / seconds["atb"], "x") for name in works if name != "atb"]
    return rows or [Row("neither peer is installed: make bench", 0.0, "")]


def backtesting_work(candles: Candles, signal: Floats) -> Any:
    import backtesting

    backtesting.backtesting._tqdm = lambda items, **_: items  # no progress bar in a measurement
    frame = to_pandas(candles).rename(columns=str.capitalize)

    class Crossing(backtesting.Strategy):  # type: ignore[misc]
        def init(self) -> None:
            self.signal = self.I(lambda: signal)

        def next(self) -> None:
            price = self.data.Close[-1]
            if not self.position and self.signal[-1] > 0:
                self.buy(size=FRACTION, sl=price * (1 - STOP), tp=price * (1 + TAKE))
            elif self.position and self.signal[-1] < 0:
                self.position.close()

    return lambda: backtesting.Backtest(frame, Crossing, cash=1e7, commission=FEE, spread=SLIP).run()


def vectorbt_work(candles: Candles, signal: Floats) -> Any:
    import vectorbt

    close = to_pandas(candles)["close"]
    entries, exits = np.roll(signal > 0, 1), np.roll(signal < 0, 1)

    def work() -> Any:
        return vectorbt.Portfolio.from_signals(
            close, entries, exits, open=candles.open, high=candles.high, low=candles.low, price=candles.open,
            size=FRACTION, size_type="percent", sl_stop=STOP, tp_stop=TAKE, fees=FEE, slippage=SLIP,
            init_cash=BALANCE, freq="1h",
        ).stats()  # fmt: skip

    return work
