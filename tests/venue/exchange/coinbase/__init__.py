"""Coinbase's advanced-trade protocol: which path is answered by what."""

from __future__ import annotations

from tests.venue.exchange.coinbase import public
from tests.venue.exchange.wire import Handler

API = "/api/v3/brokerage/"
PRODUCTS = API + "market/products"
ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", API + "time"): public.time,
    ("GET", PRODUCTS): public.products,
    ("GET", PRODUCTS + "/(?P<product>[^/]+)"): public.product,
    ("GET", PRODUCTS + "/(?P<product>[^/]+)/candles"): public.candles,
    ("GET", PRODUCTS + "/(?P<product>[^/]+)/ticker"): public.ticker,
}
