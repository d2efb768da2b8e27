"""From a source into the store of side series: all that is new, or nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from atb.core.timeframe import timeframe_ms
from atb.data.side_store import SideKey, SideStore, last_known
from atb.engine.sides import SideRows
from atb.venue.ccxt_session import Patience, Session
from atb.venue.side_sources import PERIODS, SOURCES, fear_greed, funding_rates, open_interests

HINT = "Try again later; what is stored stays."


class Asking(NamedTuple):
    """How sources are asked. url: the API root of a venue, None: the real one."""

    url: Callable[[str], str | None]
    rates: Path | None = None
    patience: Patience = Patience()


class Downloaded(NamedTuple):
    """told: how many values the source gave; new: how many of them were not known."""

    told: int
    new: int


def key_of(name: str, symbol: str) -> SideKey:
    """Which series a download fills."""
    source = SOURCES[name]
    return SideKey(name, source.venue, symbol if source.has_symbol else "")


def download(
    store: SideStore, key: SideKey, asking: Asking, now_ms: int, start_ms: int | None = None, period: str | None = None
) -> Downloaded:  # fmt: skip
    """Fetch a series from `start_ms` on; None: from the last stored value on, which is asked for once more.

    period: of open interest; None: as it is stored, else 1h.
    """
    stored = store.read(key)
    last = last_known(stored)
    if start_ms is None:
        start_ms = SOURCES[key.name].since_ms if last is None else last[0]
    rows = _fetched(key, asking, (start_ms, now_ms), period or _period(stored))
    return Downloaded(len(rows.time_ms), store.add(key, rows, now_ms))


def _fetched(key: SideKey, asking: Asking, span: tuple[int, int], period: str) -> SideRows:
    if key.name == "fear_greed":
        return fear_greed(asking.url(key.venue), *span, asking.patience.timeout_s)
    session = Session(key.venue, asking.url(key.venue), asking.patience, HINT, asking.rates)
    with contextlib.closing(session):
        if key.name == "funding_rate":
            return funding_rates(session, key.symbol, *span)
        return open_interests(session, key.symbol, *span, period)


def _period(stored: SideRows) -> str:
    """The distance of the stored values."""
    steps = np.diff(np.sort(stored.time_ms))
    usual = int(np.median(steps)) if len(steps) else 0
    return next((period for period in PERIODS if timeframe_ms(period) == usual), "1h")
