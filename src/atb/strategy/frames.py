"""Candles as a DataFrame, for strategies that are written with pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atb.engine.candles import COLUMNS, Candles

if TYPE_CHECKING:
    import pandas as pd


def to_pandas(candles: Candles) -> pd.DataFrame:
    """Columns open, high, low, close, volume and the side series, indexed by open time (UTC). Imports pandas (0.3 s)."""
    import pandas as pd

    index = pd.DatetimeIndex(candles.open_time.astype("datetime64[ms]"), name="open_time").tz_localize("UTC")
    return pd.DataFrame({**{name: getattr(candles, name) for name in COLUMNS}, **candles.sides}, index=index)
