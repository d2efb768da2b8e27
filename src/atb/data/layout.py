"""How the candle store names its folders and files.

    venue=binance/market=spot/symbol=BTCUSDT/timeframe=1h/part-FROM-TO-HASH.parquet

The folders are those of Hive, so that DuckDB, Polars, Spark and Arrow read venue, market, symbol and timeframe as columns.
A part's name says which range was asked of the exchange (ms, end exclusive): a hole in it is the exchange's own, and what no
part covers has not been asked for. HASH is the beginning of `candles_hash` of its rows.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from atb.core.types import Symbol

FETCHED = "part"  # from the exchange
IMPORTED = "import"  # from a file
DERIVED = "derived"  # from candles of a lower timeframe
KINDS = (FETCHED, IMPORTED, DERIVED)
PART = re.compile(rf"({'|'.join(KINDS)})-(\d+)-(\d+)-([0-9a-f]{{16}})\.parquet")
LEVELS = ("venue", "market", "symbol", "timeframe")


class SeriesKey(NamedTuple):
    """Which series: venue, market, the exchange's own symbol, timeframe."""

    venue: str
    market: str
    symbol: str
    timeframe: str

    @property
    def path(self) -> str:
        """The folder of the series below the store's root."""
        return "/".join(f"{level}={value}" for level, value in zip(LEVELS, self, strict=True))

    @property
    def shown(self) -> str:
        return f"{self.venue} {self.symbol} {self.timeframe}"


def series_key(venue: str, symbol: Symbol, timeframe: str) -> SeriesKey:
    return SeriesKey(venue, symbol.market, symbol.id, timeframe)


class Part(NamedTuple):
    """One file, and the range it covers: ms, end exclusive.

    path: below the store's root. written_ms, read_ms: when it was written, and read last as far as that is known.
    """

    path: str
    start_ms: int
    end_ms: int
    kind: str = FETCHED
    digest: str = ""
    size: int = 0
    written_ms: int = 0
    read_ms: int = 0

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def order(self) -> tuple[int, int, str]:
        return self.start_ms, self.end_ms, self.name


def part_name(kind: str, start_ms: int, end_ms: int, digest: str) -> str:
    return f"{kind}-{start_ms}-{end_ms}-{digest[:16]}.parquet"


def level_of(folder: str, level: str) -> str | None:
    """The value in a folder's name, `binance` of `venue=binance`; None where it is no folder of that level."""
    name, separator, value = folder.partition("=")
    return value if separator and name == level and value else None
