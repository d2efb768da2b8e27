"""The rules of a symbol: as exchangeInfo shows them, and as an order is held to them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tests.venue.exchange.binance.errors import ApiError, failed
from tests.venue.exchange.binance.render import STOPS
from tests.venue.exchange.engine import Engine
from tests.venue.exchange.market import Listing, Market
from tests.venue.exchange.orders import Order

Json = dict[str, Any]


def symbol_info(market: Market) -> Json:
    listing = market.listing
    return {
        "symbol": market.name,
        "status": market.status,
        "baseAsset": listing.base,
        "baseAssetPrecision": 8,
        "quoteAsset": listing.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": list(listing.order_types),
        "icebergAllowed": False,
        "ocoAllowed": listing.pairs,
        "otoAllowed": False,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": False,
        "cancelReplaceAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": filters(listing),
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_MAKER"],
    }


def filters(listing: Listing) -> list[Json]:
    lot, tick = listing.lot, listing.tick
    names = ("bidMultiplierUp", "bidMultiplierDown", "askMultiplierUp", "askMultiplierDown")
    bands = dict(zip(names, listing.bands, strict=True))
    least = {"minNotional": listing.min_notional, "applyMinToMarket": listing.apply_min_to_market}
    most = {"maxNotional": listing.max_notional, "applyMaxToMarket": False, "avgPriceMins": 5}
    at_market = {"minQty": "0.00000000", "maxQty": listing.max_market_qty, "stepSize": "0.00000000"}
    return [
        {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": listing.max_price, "tickSize": tick},
        {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": listing.max_qty, "stepSize": lot},
        {"filterType": "MARKET_LOT_SIZE", **at_market},
        {"filterType": "PERCENT_PRICE_BY_SIDE", **bands, "avgPriceMins": 5},
        {"filterType": "NOTIONAL", **least, **most},
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": listing.max_orders},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": listing.max_stops},
    ]


def check(order: Order, market: Market, now_ms: int) -> None:
    """Raises for the first filter that the order fails."""
    listing = market.listing
    for price in (order.price, order.stop):
        if price is not None and not _fits(price, listing.tick, listing.tick, listing.max_price):
            raise failed("PRICE_FILTER")
    if not order.quote_qty and not _fits(order.qty, listing.lot, listing.lot, listing.max_qty):
        raise failed("LOT_SIZE")
    if order.price is None and order.qty > Decimal(listing.max_market_qty):
        raise failed("MARKET_LOT_SIZE")
    average = market.average(now_ms)
    if order.price is not None and not _within_band(order, order.price, average, listing):
        raise failed("PERCENT_PRICE_BY_SIDE")
    if not _worth_it(order, average, listing):
        raise failed("NOTIONAL")


def check_counts(new: tuple[Order, ...], engine: Engine, market: Market) -> None:
    """How many orders, and how many stops, an account may have open in a symbol."""
    listing = market.listing
    mine = [order for order in engine.open(market.name) if order.account is new[0].account]
    if len(mine) + len(new) > listing.max_orders:
        raise failed("MAX_NUM_ORDERS")
    stops = sum(order.type in STOPS for order in new)
    if stops and sum(order.type in STOPS for order in mine) + stops > listing.max_stops:
        raise failed("MAX_NUM_ALGO_ORDERS")


def check_type(order: Order, listing: Listing) -> None:
    if order.type not in listing.order_types:
        name = order.type.replace("_", " ").capitalize()
        raise ApiError(-1013, f"{name} orders are not supported for this symbol.")


def _fits(number: Decimal, step: str, least: str, most: str) -> bool:
    return number % Decimal(step) == 0 and Decimal(least) <= number <= Decimal(most)


def _within_band(order: Order, price: Decimal, average: Decimal, listing: Listing) -> bool:
    bid_up, bid_down, ask_up, ask_down = (Decimal(band) for band in listing.bands)
    up, down = (bid_up, bid_down) if order.side == "BUY" else (ask_up, ask_down)
    return average * down <= price <= average * up


def _worth_it(order: Order, average: Decimal, listing: Listing) -> bool:
    """At its own price; at the market, by the average of the last minutes."""
    if order.price is not None:
        return Decimal(listing.min_notional) <= order.qty * order.price <= Decimal(listing.max_notional)
    worth = order.quote_qty or order.qty * average
    return not listing.apply_min_to_market or worth >= Decimal(listing.min_notional)
