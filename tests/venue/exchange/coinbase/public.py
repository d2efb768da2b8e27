"""What anybody may ask of Coinbase: time, products, candles, the newest trade."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.venue.exchange.candles import LENGTH_MS, Rows
from tests.venue.exchange.market import Listing
from tests.venue.exchange.wire import Call, Reply

GRANULARITY = {"ONE_MINUTE": "1m", "FIVE_MINUTE": "5m", "FIFTEEN_MINUTE": "15m", "THIRTY_MINUTE": "30m"}
GRANULARITY |= {"ONE_HOUR": "1h", "TWO_HOUR": "2h", "SIX_HOUR": "6h", "ONE_DAY": "1d"}


def error(status: int, name: str, message: str) -> Reply:
    return Reply(status, {"error": name, "error_details": message, "message": message})


def unknown(product: str) -> Reply:
    return error(404, "NOT_FOUND", f"Product {product} not supported")


def time(call: Call) -> Reply:
    now_ms = call.now_ms
    return Reply(200, {"iso": instant(now_ms), "epochSeconds": str(now_ms // 1000), "epochMillis": str(now_ms)})


def products(call: Call) -> Reply:
    found = [_product(name, listing) for name, listing in call.exchange.listings.items()]
    return Reply(200, {"products": found, "num_products": len(found)})


def product(call: Call) -> Reply:
    name = call.query["product"]
    listing = call.exchange.listings.get(name)
    return Reply(200, _product(name, listing)) if listing else unknown(name)


def _product(name: str, listing: Listing) -> dict[str, Any]:
    return {
        "product_id": name,
        "base_increment": listing.lot,
        "quote_increment": listing.tick,
        "price_increment": listing.tick,
        "quote_min_size": listing.min_notional,
        "base_min_size": listing.lot,
        "status": "online",
        "trading_disabled": False,
        "product_type": "SPOT",
        "base_currency_id": listing.base,
        "quote_currency_id": listing.quote,
        "alias": "",
        "alias_to": [],
    }


def candles(call: Call) -> Reply:
    """The candles that open from start to end (both included), newest first, at most 350."""
    query = call.query
    if query["product"] not in call.exchange.listings:
        return unknown(query["product"])
    if query.get("granularity") not in GRANULARITY:
        return error(400, "INVALID_ARGUMENT", "granularity argument is invalid")
    timeframe = GRANULARITY[query["granularity"]]
    start, end = int(query["start"]) * 1000, int(query["end"]) * 1000
    if (end - start) // LENGTH_MS[timeframe] >= 350:
        reason = "start and end argument is invalid - number of candles requested should be less than 350"
        return error(400, "INVALID_ARGUMENT", reason)
    rows = call.exchange.candles(query["product"], timeframe)
    rows = call.spoil(rows[(rows[:, 0] >= start) & (rows[:, 0] <= end)][::-1])
    return Reply(200, {"candles": [_bucket(row) for row in rows]})


def _bucket(row: Rows) -> dict[str, str]:
    opened, *numbers = row
    names = ("open", "high", "low", "close", "volume")
    return {"start": str(int(opened) // 1000), **{n: repr(float(v)) for n, v in zip(names, numbers, strict=True)}}


def ticker(call: Call) -> Reply:
    """The newest trade, at the opening of the newest candle."""
    name = call.query["product"]
    if name not in call.exchange.listings:
        return unknown(name)
    given = call.exchange.listings[name].candles
    finest = min(given, key=LENGTH_MS.__getitem__, default="1m")
    newest = call.spoil(call.exchange.candles(name, finest)[-1:])
    trades = [{"trade_id": "1", "product_id": name, "time": instant(row[0])} for row in newest]
    return Reply(200, {"trades": trades, "best_bid": "", "best_ask": ""})


def instant(time_ms: float) -> str:
    return str(np.datetime64(int(time_ms), "ms")) + "Z"
