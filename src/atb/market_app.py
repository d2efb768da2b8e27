"""What is made from the settings for market data: the store, and how exchanges are asked. Imports what is needed, when it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from atb.core.timeframe import SystemClock
from atb.settings import Settings

if TYPE_CHECKING:
    from atb.backtest.sources import Source
    from atb.core.types import MarketRules, Symbol
    from atb.data.keeping import Pins
    from atb.data.side_join import SideJoin
    from atb.data.side_store import SideKey, SideStore
    from atb.data.store import CandleStore
    from atb.data.usage import Usage
    from atb.market.filling import Asking
    from atb.market.prefill import Done, Job, Outcome
    from atb.market.side_download import Downloaded
    from atb.venue.traded_symbols import Traded


class MarketApp:
    """The part of the App that market data needs."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def store(self) -> CandleStore:
        from atb.data.former import adopt_former
        from atb.data.store import CandleStore

        if isinstance(self.settings.candles, Path):
            adopt_former(self.settings.candles)
        return CandleStore(self.settings.candles, self.usage())

    def asking(self, attempts: int = 4) -> Asking:
        """How exchanges are asked for candles."""
        from atb.market.filling import Asking

        mine = self.settings
        return Asking(mine.url, mine.rates, attempts, self.timeout_s())

    def timeout_s(self) -> float:
        """For each request for candles or rules."""
        return self.settings.request_timeout_s or 10.0

    def provider(self, text: str, say: Callable[[str], None]) -> str:
        """Of `binance,coinbase` the first that answers; the one that is named alone is not asked."""
        from atb.market.fallback import first_that_answers, providers_of
        from atb.venue.reachable import reachable

        mine = self.settings
        return first_that_answers(
            providers_of(text), lambda venue: reachable(venue, mine.url(venue), rates=mine.rates), say
        )

    def prefill(
        self, jobs: Sequence[Job], now_ms: int, workers: int, progress: Callable[[Done], None]
    ) -> list[Outcome]:
        """Fetch what is missing of several series."""
        from atb.market.prefill import prefill
        from atb.venue.reachable import reachable

        venues = {job.key.venue for job in jobs}
        answers = all(reachable(venue, self.settings.url(venue), rates=self.settings.rates) for venue in venues)
        asking = self.asking(4 if answers else 1)
        return prefill(self.store(), jobs, now_ms, asking, workers=workers, progress=progress)

    def watch(
        self, venue: str, symbol: Symbol, timeframe: str, every_s: float, running: Callable[[list[float]], None],
        trouble: Callable[[str], None],
    ) -> Iterator[list[float]]:  # fmt: skip
        """The candles of a series as they close, without end."""
        from atb.market.watching import watch
        from atb.venue.candle_tail import LIVE, CandleTail

        mine, now_ms = self.settings, SystemClock().now_ms
        patience = LIVE.within(mine.request_timeout_s)
        tail = CandleTail(venue, base_url=mine.url(venue), now_ms=now_ms, patience=patience, rates=mine.rates)
        return watch(tail, symbol, timeframe, every_s, running, trouble)

    def traded_symbols(self, venue: str) -> list[Traded]:
        from atb.venue.ccxt_session import Patience
        from atb.venue.traded_symbols import traded_symbols

        mine = self.settings
        patience = Patience(attempts=2).within(mine.request_timeout_s)
        return traded_symbols(venue, base_url=mine.url(venue), patience=patience, rates=mine.rates)

    def sides(self) -> SideStore:
        from atb.data.side_store import SideStore

        return SideStore(self.settings.sides)

    def join(self) -> SideJoin:
        """What gives candles their side series."""
        from atb.data.side_join import SideJoin

        return SideJoin(self.sides())

    def download_side(
        self, key: SideKey, start_ms: int | None = None, period: str | None = None, attempts: int = 4
    ) -> Downloaded:  # fmt: skip
        """Fetch what is new of a side series."""
        from atb.market.side_download import Asking, download
        from atb.venue.ccxt_session import Patience

        mine = self.settings
        patience = Patience(attempts=attempts).within(mine.request_timeout_s)
        asking = Asking(mine.side_url, mine.rates, patience)
        return download(self.sides(), key, asking, SystemClock().now_ms(), start_ms, period)

    def usage(self) -> Usage:
        from atb.data.usage import Usage

        return Usage(self.settings.home / "cache-usage.json")

    def pins(self) -> Pins:
        """What live sessions look back on."""
        from atb.data.keeping import Pins

        return Pins(self.settings.home / "looked-back-on")

    def evict(self) -> list[str]:
        """Bring the store back within its limit, where one is set. What was done, in words."""
        from atb.core.words import counted, in_bytes
        from atb.data.keeping import remove, too_much

        limit = self.settings.candles_limit_bytes
        if limit is None:
            return []
        store = self.store()
        going = too_much(store, limit, self.pins().held(SystemClock().now_ms()))
        remove(store, going)
        if not going:
            return []
        size = in_bytes(sum(each.part.size for each in going))
        return [f"The store was larger than {in_bytes(limit)}: {counted(len(going), 'part')} ({size}) went."]

    def market_rules(self, source: Source) -> MarketRules:
        from atb.venue.market_rules import rules_for

        return rules_for(source.rules_venue, source.symbol, self.settings.market_rules)

    def refresh_rules(self, venue: str, symbol: Symbol) -> None:
        """Ask the exchange for a symbol's rules and remember them."""
        from atb.venue.ccxt_markets import fetch_market_rules
        from atb.venue.market_rules import store_rules
        from atb.venue.reachable import reachable

        url = self.settings.url(venue)
        rates = self.settings.rates
        attempts = 4 if reachable(venue, url, rates=rates) else 1  # where nobody answers a ping, one attempt tells why
        rules = fetch_market_rules(
            venue, symbol, base_url=url, timeout_s=self.timeout_s(), attempts=attempts, rates=rates
        )
        store_rules(self.settings.market_rules, venue, rules)
