"""All executions of an account since a time, page by page, with the worth of fees in a third asset."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

from atb.core.errors import ExchangeUnavailable
from atb.core.money import DIGITS
from atb.core.orders import SeenFill
from atb.core.timeframe import MINUTE_MS, iso
from atb.core.types import Symbol
from atb.venue.binance_orders import read_fill
from atb.venue.ccxt_errors import unusable
from atb.venue.ccxt_session import UnknownSymbol
from atb.venue.ccxt_signed import SignedSession
from atb.venue.fields import amount, rows

PAGE = 1000  # Binance's most
OLDEST_PRICE_MS = 60 * MINUTE_MS  # an older one is not the price at that time
# How long an execution may wait for the worth of its fee: what it bought has no stop until it is told.
AWAITED_MS = 10_000


class FillPages:
    """Reads executions. The first page is by time, which gives the oldest since then; each further one by trade id: many
    executions share a millisecond, none an id."""

    def __init__(self, session: SignedSession) -> None:
        self.session = session
        self._prices: dict[tuple[str, int], Decimal | None] = {}
        self._no_market: set[str] = set()
        self._silent: set[str] = set()  # markets of which no price is told now

    def since(self, symbol: Symbol, since_ms: int) -> list[SeenFill]:
        self._silent.clear()
        page = self._page(symbol, {"startTime": max(0, since_ms)}, 0)
        fills = list(page)
        while len(page) >= PAGE:
            following = int(page[-1].venue_trade_id) + 1
            page = self._page(symbol, {"fromId": following}, following)
            fills += page
        return [self._with_worth(fill) for fill in fills]

    def _page(self, symbol: Symbol, begin: dict[str, int], first_id: int) -> list[SeenFill]:
        def read(answer: Any) -> list[SeenFill]:
            page = [read_fill(one, symbol) for one in rows(answer, "execution")]
            ids = [int(fill.venue_trade_id) for fill in page]
            if len(set(ids)) < len(ids) or (ids and min(ids) < first_id):
                raise unusable("gave other executions than those that were asked for")
            return sorted(page, key=lambda fill: int(fill.venue_trade_id))

        params = {"symbol": symbol.id, "limit": PAGE, **begin}
        return self.session.ask(f"Reading the executions of {symbol.id}", "privateGetMyTrades", params, read)

    def _with_worth(self, fill: SeenFill) -> SeenFill:
        """With `fee_quote`, where the fee is in a third asset that has a market in quote."""
        if fill.fee_asset in (fill.symbol.base, fill.symbol.quote):
            return fill
        if not fill.fee:
            return fill._replace(fee_quote=Decimal(0))
        price = self._price(fill.fee_asset + fill.symbol.quote, round(fill.at.timestamp() * 1000))
        with localcontext(prec=DIGITS):
            return fill._replace(fee_quote=None if price is None else price * fill.fee)

    def _price(self, market: str, at_ms: int) -> Decimal | None:
        """The price at which the minute of `at_ms` opened; None where there is no such market, or it stood still.

        While it cannot be asked for, the latest that is known; none where that takes too long.
        """
        minute = at_ms // MINUTE_MS * MINUTE_MS
        if market in self._no_market:
            return None
        if (market, minute) in self._prices:
            return self._prices[market, minute]
        if market not in self._silent:
            try:
                price = self._prices[market, minute] = self._fetch_price(market, minute)
                return price
            except UnknownSymbol:
                self._no_market.add(market)
                return None
            except ExchangeUnavailable:
                self._silent.add(market)
        return self._latest(market, minute, at_ms)

    def _latest(self, market: str, minute: int, at_ms: int) -> Decimal | None:
        known = {at: price for (name, at), price in self._prices.items() if name == market and price is not None}
        latest = max((at for at in known if 0 <= minute - at <= OLDEST_PRICE_MS), default=None)
        if latest is None and self.session.clock.now_ms() < at_ms + AWAITED_MS:
            raise ExchangeUnavailable(f"Reading the price of {market}: {self.session.host} does not tell it.")
        return None if latest is None else known[latest]

    def _fetch_price(self, market: str, minute: int) -> Decimal | None:
        def read(answer: Any) -> Decimal | None:
            if not isinstance(answer, list) or not all(isinstance(one, list) and len(one) > 4 for one in answer):
                raise unusable("gave an answer that is no list of candles")
            last = next((one for one in reversed(answer) if isinstance(one[0], int) and one[0] <= minute), None)
            if last is None or minute - last[0] > OLDEST_PRICE_MS:
                return None
            # A minute without trades may be left out; then the close of the last one before it.
            return amount({"price": last[1] if last[0] == minute else last[4]}, "price") or None

        params = {"symbol": market, "interval": "1m", "endTime": minute, "limit": 1}
        return self.session.ask(f"Reading the price of {market} at {iso(minute)}", "publicGetKlines", params, read)
