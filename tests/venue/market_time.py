"""A feed at the loopback exchange, and the time of both, which only a test moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from atb.core.timeframe import ManualClock
from atb.core.types import Symbol
from atb.data.keeping import Pins
from atb.data.store import CandleStore
from atb.engine.candles import Candles
from atb.execution.executor import Event
from atb.live.candle_history import History
from atb.live.feed import Feed, Row
from atb.venue.candle_tail import CandleTail
from atb.venue.ccxt_candles import fetch_candles
from atb.venue.ccxt_session import Patience
from atb.venue.rate_budget import LIMITS, Limit
from tests.venue.exchange import HOUR_MS, Exchange, Loopback, Rows

SYMBOLS = {
    "binance": [Symbol("BTCUSDT", "BTC", "USDT"), Symbol("ETHUSDT", "ETH", "USDT"), Symbol("XRPUSDT", "XRP", "USDT")],
    "coinbase": [Symbol("BTC-USD", "BTC", "USD"), Symbol("ETH-USD", "ETH", "USD"), Symbol("XRP-USD", "XRP", "USD")],
}
ONCE = Patience(timeout_s=2.0, attempts=1, backoff_s=0.01, max_wait_s=0.1)


class MarketTime:
    """An exchange whose candles form while its clock goes on, and feeds that look at it. ahead_ms: its clock before ours."""

    def __init__(
        self, root: Path, series: list[Rows], now_ms: int, *, venue: str = "binance", timeframe: str = "1h", ahead_ms: int = 0
    ) -> None:  # fmt: skip
        self.root, self.venue, self.timeframe, self.ahead_ms = root, venue, timeframe, ahead_ms
        self.symbols = SYMBOLS[venue][: len(series)]
        self.exchange = Exchange(now_ms)
        self.exchange.forming = "low"
        for symbol, rows in zip(self.symbols, series, strict=True):
            self.exchange.list(symbol.id, symbol.base, symbol.quote, {timeframe: rows})
        self.clock = ManualClock(now_ms - ahead_ms)
        self.server = Loopback(self.exchange)
        self.events: list[Event] = []

    def __enter__(self) -> MarketTime:
        self.limits = dict(LIMITS)
        LIMITS.update(
            {venue: Limit(10**6, 1) for venue in SYMBOLS}
        )  # hours pass in seconds; a budget goes by the real clock
        self.server.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.__exit__(*error)
        LIMITS.update(self.limits)

    def feed(self, lookback: int | list[int] = 1, **options: Any) -> Feed:
        """One that has loaded what it looks back on."""
        feed = self.raw_feed(lookback, **options)
        feed.prepare()
        return feed

    @property
    def pins(self) -> Pins:
        """What sessions look back on."""
        return Pins(self.root / "pins")

    def raw_feed(self, lookback: int | list[int] = 1, **options: Any) -> Feed:
        rates = self.root / "rates"
        tail = CandleTail(
            self.venue, base_url=self.server.url, now_ms=self.clock.now_ms, patience=ONCE, rates=rates
        )  # fmt: skip
        history = History(
            CandleStore(self.root / "candles"), self.venue, url=self.server.url, rates=rates, pins=self.pins,
            account="paper:one",
        )  # fmt: skip
        bars = [lookback] * len(self.symbols) if isinstance(lookback, int) else lookback
        options = {"look_every_s": 300, **options}
        return Feed(tail, history, self.symbols, self.timeframe, bars, self.clock, self.events.append, **options)

    def go_to(self, time_ms: int) -> None:
        """By the exchange's clock."""
        self.exchange.now_ms, self.clock.time_ms = time_ms, time_ms - self.ahead_ms

    def go_on(self, by_ms: int) -> None:
        self.go_to(self.exchange.now_ms + by_ms)

    def step(self, feed: Feed) -> list[Row]:
        """To when the feed is due next, and what it has then."""
        self.go_to(max(feed.next_due_ms(), self.clock.time_ms) + self.ahead_ms)
        return feed.poll()

    def rows_until(self, feed: Feed, time_ms: int) -> list[Row]:
        rows = feed.poll()
        while feed.next_due_ms() + self.ahead_ms <= time_ms:
            rows += self.step(feed)
        self.go_to(time_ms)
        return rows

    def history(self, symbol: Symbol, start_ms: int) -> Candles:
        """All that has closed, as a download gives it."""
        pages = fetch_candles(
            self.venue, symbol, self.timeframe, start_ms, self.exchange.now_ms, base_url=self.server.url,
            now_ms=lambda: self.exchange.now_ms, backoff_s=0.01,
        )  # fmt: skip
        rows = np.concatenate([page.rows for page in pages])
        return Candles(symbol.id, self.timeframe, rows[:, 0].astype(np.int64), *rows.T[1:])

    def told(self, code: str) -> list[str]:
        return [event.message for event in self.events if event.code == code]


def check_windows(market: MarketTime, rows: list[Row], start_ms: int, lookback: int) -> None:
    """Each window is what a backtest of the same candles sees."""
    from tests.conftest import same_candles

    for symbol in market.symbols:
        whole = market.history(symbol, start_ms)
        at = {int(open_ms): i for i, open_ms in enumerate(whole.open_time)}
        for row in rows:
            if symbol.id in row.windows:
                stop = at[row.open_ms] + 1
                seen, should = row.windows[symbol.id], whole.window(stop - lookback, stop)
                assert same_candles(seen, should)
                assert seen.exact("close").tobytes() == should.exact("close").tobytes()


def hours(first_ms: int, count: int) -> list[int]:
    return [first_ms + k * HOUR_MS for k in range(count)]
