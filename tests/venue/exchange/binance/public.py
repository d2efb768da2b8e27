"""What anybody may ask: time, rules, candles, prices."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np

from tests.venue.exchange.binance.errors import ApiError, missing
from tests.venue.exchange.binance.rules import symbol_info
from tests.venue.exchange.candles import DAY_MS, LENGTH_MS, Rows
from tests.venue.exchange.market import Market
from tests.venue.exchange.money import written
from tests.venue.exchange.wire import Call, Reply

DEPTH_QTY = Decimal(1000)


def ping(call: Call) -> Reply:
    return Reply(200, {})


def time(call: Call) -> Reply:
    return Reply(200, {"serverTime": call.now_ms})


def info(call: Call) -> Reply:
    symbols = [symbol_info(market) for market in _asked(call)]
    rates = call.exchange.rates
    limits = (
        ("REQUEST_WEIGHT", "MINUTE", 1, rates.weight_a_minute),
        ("ORDERS", "SECOND", 10, rates.orders_in_10s),
        ("ORDERS", "DAY", 1, rates.orders_a_day),
        ("RAW_REQUESTS", "MINUTE", 5, 61_000),
    )
    names = ("rateLimitType", "interval", "intervalNum", "limit")
    return Reply(
        200,
        {
            "timezone": "UTC",
            "serverTime": call.now_ms,
            "rateLimits": [dict(zip(names, limit, strict=True)) for limit in limits],
            "exchangeFilters": [],
            "symbols": symbols,
        },
    )


def klines(call: Call) -> Reply:
    """The first `limit` candles from startTime on; without it the newest ones up to endTime."""
    query, exchange = call.query, call.exchange
    name = _named(call).name
    if query["interval"] not in LENGTH_MS:
        raise ApiError(-1120, "Invalid interval.")
    limit = min(int(query.get("limit", 500)), 1000)
    rows = exchange.candles(name, query["interval"])
    rows = rows[rows[:, 0] <= int(query.get("endTime", exchange.now_ms))]
    rows = rows[rows[:, 0] >= int(query["startTime"])][:limit] if "startTime" in query else rows[-limit:]
    length = LENGTH_MS[query["interval"]]
    return Reply(200, [_kline(row, length) for row in call.spoil(rows)])


def price(call: Call) -> Reply:
    return _tickers(call, lambda market: {"symbol": market.name, "price": written(market.price)})


def book(call: Call) -> Reply:
    return _tickers(
        call,
        lambda market: {
            "symbol": market.name,
            "bidPrice": written(market.bid),
            "bidQty": written(_depth(market)),
            "askPrice": written(market.ask),
            "askQty": written(_depth(market)),
        },
    )


def day(call: Call) -> Reply:
    return _tickers(call, lambda market: _day(call, market))


def average(call: Call) -> Reply:
    market = _named(call)
    at_ms = market.recent[-1][0] if market.recent else call.now_ms
    return Reply(200, {"mins": 5, "price": written(market.average(call.exchange.now_ms)), "closeTime": at_ms})


def depth(call: Call) -> Reply:
    """One level."""
    market = _named(call)
    qty = written(_depth(market))
    bids, asks = [[written(market.bid), qty]], [[written(market.ask), qty]]
    return Reply(200, {"lastUpdateId": call.exchange.now_ms, "bids": bids, "asks": asks})


def _kline(row: Rows, length_ms: int) -> list[Any]:
    opened, *numbers = row
    fields = [f"{number:.8f}" for number in numbers]
    return [int(opened), *fields, int(opened) + length_ms - 1, "0.00000000", 0, "0.00000000", "0.00000000", "0"]


def _named(call: Call) -> Market:
    if "symbol" not in call.query:
        raise missing("symbol")
    return _asked(call)[0]


def _asked(call: Call) -> list[Market]:
    """The one symbol or those that were asked for, else all."""
    query, listings = call.query, call.exchange.listings
    wanted = json.loads(query["symbols"]) if "symbols" in query else [query["symbol"]] if "symbol" in query else None
    if wanted is not None and not set(wanted) <= set(listings):
        raise ApiError(-1121, "Invalid symbol.")
    return [call.exchange.market(name) for name in wanted or listings]


def _tickers(call: Call, render: Any) -> Reply:
    """An object for one symbol, a list for several."""
    found = [render(market) for market in _asked(call)]
    return Reply(200, found[0] if "symbol" in call.query else found)


def _depth(market: Market) -> Decimal:
    return market.available(DEPTH_QTY)


def _day(call: Call, market: Market) -> dict[str, Any]:
    """The last 24 hours, by the finest candles there are."""
    finest = min((name for name in market.listing.candles), key=LENGTH_MS.__getitem__, default="1m")
    now_ms = call.exchange.now_ms
    rows = call.exchange.candles(market.name, finest)
    rows = rows[rows[:, 0] >= now_ms - DAY_MS]
    flat = np.array([[now_ms, *[float(market.price)] * 4, 0.0]])
    rows = rows if len(rows) else flat
    first, high, low, volume = rows[0, 1], rows[:, 2].max(), rows[:, 3].min(), rows[:, 5].sum()
    last = float(market.price)
    numbers = {
        "priceChange": last - first,
        "weightedAvgPrice": (rows[:, 4] * rows[:, 5]).sum() / volume if volume else last,
        "prevClosePrice": first,
        "lastPrice": last,
        "bidPrice": float(market.bid),
        "askPrice": float(market.ask),
        "openPrice": first,
        "highPrice": high,
        "lowPrice": low,
        "volume": volume,
        "quoteVolume": (rows[:, 4] * rows[:, 5]).sum(),
    }
    return {
        "symbol": market.name,
        **{name: f"{number:.8f}" for name, number in numbers.items()},
        "priceChangePercent": f"{(last / first - 1) * 100:.3f}",
        "openTime": now_ms - DAY_MS,
        "closeTime": now_ms,
        "count": len(rows),
    }
