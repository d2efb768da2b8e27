"""What anybody may ask of Coinbase: time, products, candles, the newest trade."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tests.venue.exchange.candles import LENGTH_MS, Rows
from tests.venue.exchange.coinbase.account import many
from tests.venue.exchange.coinbase.errors import invalid, unknown_product
from tests.venue.exchange.coinbase.render import instant, number
from tests.venue.exchange.market import Market
from tests.venue.exchange.wire import Call, Reply

DEPTH_QTY = Decimal(1000)
GRANULARITY = {"ONE_MINUTE": "1m", "FIVE_MINUTE": "5m", "FIFTEEN_MINUTE": "15m", "THIRTY_MINUTE": "30m"}
GRANULARITY |= {"ONE_HOUR": "1h", "TWO_HOUR": "2h", "SIX_HOUR": "6h", "ONE_DAY": "1d"}


def time(call: Call) -> Reply:
    now_ms = call.now_ms
    return Reply(200, {"iso": instant(now_ms), "epochSeconds": str(now_ms // 1000), "epochMillis": str(now_ms)})


def time_v2(call: Call) -> Reply:
    return Reply(200, {"data": {"iso": instant(call.now_ms), "epoch": call.now_ms // 1000}})


def nothing_v2(call: Call) -> Reply:
    """Lists of currencies, which ccxt asks for with the markets."""
    return Reply(200, {"data": []})


def products(call: Call) -> Reply:
    """There is nothing but spot."""
    listed = [] if call.query.get("product_type", "SPOT") != "SPOT" else call.exchange.listings
    found = [_product(call.exchange.market(name)) for name in listed]
    return Reply(200, {"products": found, "num_products": len(found)})


def product(call: Call) -> Reply:
    return Reply(200, _product(_market(call)))


def best(call: Call) -> Reply:
    names = many(call, "product_ids") or list(call.exchange.listings)
    books = [call.exchange.market(name) for name in names if name in call.exchange.listings]
    return Reply(200, {"pricebooks": [_book(call, market) for market in books]})


def book(call: Call) -> Reply:
    if call.query.get("product_id") not in call.exchange.listings:
        raise unknown_product(call.query.get("product_id", ""))
    return Reply(200, {"pricebook": _book(call, call.exchange.market(call.query["product_id"]))})


def _book(call: Call, market: Market) -> dict[str, Any]:
    """One level."""
    sides = {"bids": market.bid, "asks": market.ask}
    qty = number(market.available(DEPTH_QTY))
    levels = {side: [{"price": number(price), "size": qty}] for side, price in sides.items()}
    return {"product_id": market.name, **levels, "time": instant(call.now_ms)}


def _market(call: Call) -> Market:
    if call.query["product"] not in call.exchange.listings:
        raise unknown_product(call.query["product"])
    return call.exchange.market(call.query["product"])


def _product(market: Market) -> dict[str, Any]:
    listing = market.listing
    return {
        "product_id": market.name,
        "price": number(market.price) if market.price else "",
        "base_increment": listing.lot,
        "quote_increment": listing.tick,
        "price_increment": listing.tick,
        "quote_min_size": listing.min_notional,
        "base_min_size": listing.lot,
        "base_max_size": listing.max_qty,
        "status": "online" if market.status == "TRADING" else "offline",
        "trading_disabled": market.status != "TRADING",
        "product_type": "SPOT",
        "base_currency_id": listing.base,
        "quote_currency_id": listing.quote,
        "alias": "",
        "alias_to": [],
    }


def candles(call: Call) -> Reply:
    """The candles that open from start to end (both included), newest first, at most 350."""
    query, market = call.query, _market(call)
    if query.get("granularity") not in GRANULARITY:
        raise invalid("granularity argument is invalid")
    timeframe = GRANULARITY[query["granularity"]]
    start, end = int(query["start"]) * 1000, int(query["end"]) * 1000
    if (end - start) // LENGTH_MS[timeframe] >= 350:
        raise invalid("start and end argument is invalid - number of candles requested should be less than 350")
    rows = call.exchange.candles(market.name, timeframe)
    rows = call.spoil(rows[(rows[:, 0] >= start) & (rows[:, 0] <= end)][::-1])
    return Reply(200, {"candles": [_bucket(row) for row in rows]})


def _bucket(row: Rows) -> dict[str, str]:
    opened, *numbers = row
    names = ("open", "high", "low", "close", "volume")
    return {"start": str(int(opened) // 1000), **{n: repr(float(v)) for n, v in zip(names, numbers, strict=True)}}


def ticker(call: Call) -> Reply:
    """The newest trade, at the opening of the newest candle."""
    market = _market(call)
    finest = min(market.listing.candles, key=LENGTH_MS.__getitem__, default="1m")
    newest = call.spoil(call.exchange.candles(market.name, finest)[-1:])
    said = {"trade_id": "1", "product_id": market.name, "price": number(market.price), "size": "1", "side": "BUY"}
    trades = [{**said, "time": instant(row[0])} for row in newest]
    return Reply(200, {"trades": trades, "best_bid": number(market.bid), "best_ask": number(market.ask)})
