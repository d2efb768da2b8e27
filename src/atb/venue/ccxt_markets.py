"""What an exchange says about its symbols: rules for orders, names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from atb.core.errors import ExchangeRefused, ExchangeUnavailable, UsageError, nearest
from atb.core.timeframe import SystemClock, iso_date
from atb.core.types import MarketRules, Symbol
from atb.venue.ccxt_errors import unusable
from atb.venue.ccxt_session import Barred, Patience, Session, UnknownSymbol

# Coinbase's public endpoints in ccxt: all products, one product; + "Candles", + "Ticker"
PRODUCTS = "v3PublicGetBrokerageMarketProducts"
PRODUCT = PRODUCTS + "ProductId"
WITHOUT_REFRESH = "Try again later; without --refresh the rules that atb knows already are shown and used."


def fetch_market_rules(
    venue: str,
    symbol: Symbol,
    *,
    base_url: str | None = None,
    timeout_s: float = 10.0,
    attempts: int = 4,
    backoff_s: float = 0.5,
    rates: Path | None = None,
) -> MarketRules:
    """Lot (base), tick (quote) and minimum notional (quote), exactly as the exchange writes them, dated today (UTC).

    One request for one symbol; `timeout_s`, `attempts`, `backoff_s` and `rates` as in fetch_candles. Raises UsageError (unknown
    symbol), ExchangeUnavailable, ExchangeRefused.
    """
    session = Session(venue, base_url, Patience(timeout_s, attempts, backoff_s), WITHOUT_REFRESH, rates)
    what, today = f"Fetching the rules of {symbol.id}", iso_date(SystemClock().now_ms())
    with contextlib.closing(session), explained(session, symbol):
        if venue == "binance":
            params = {"symbol": symbol.id}
            return session.ask(what, "publicGetExchangeInfo", params, lambda a: binance_rules(a, symbol.id, today))
        params = {"product_id": symbol.id}
        return session.ask(what, PRODUCT, params, lambda a: coinbase_rules(a, symbol.id, today))


def list_symbols(venue: str, *, base_url: str | None = None, timeout_s: float = 10.0) -> list[str]:
    """The exchange's own names of all its spot symbols, sorted. A large answer: for hints, not for normal work."""
    with contextlib.closing(Session(venue, base_url, Patience(timeout_s, attempts=2))) as session:
        return _symbols(session)


@contextlib.contextmanager
def explained(session: Session, symbol: Symbol) -> Iterator[None]:
    """Turns a refusal inside into "unknown symbol" with the nearest names, where that is the reason for it."""
    try:
        yield
    except Barred:
        raise
    except ExchangeRefused as refusal:
        known = _symbols_or_none(session)
        if known is not None and symbol.id in known:
            raise
        if known is None and not isinstance(refusal, UnknownSymbol):
            raise
        what = f"Unknown symbol '{symbol.id}' at {session.venue}."
        raise UsageError(what, nearest(symbol.id, known) if known else "") from None


def _symbols_or_none(session: Session) -> list[str] | None:
    """For an error path: the list, or None where the exchange does not even give that."""
    session.patience = session.patience._replace(attempts=1)
    try:
        return _symbols(session)
    except (ExchangeUnavailable, ExchangeRefused):
        return None


def _symbols(session: Session) -> list[str]:
    what = f"Listing the symbols of {session.venue}"
    if session.venue == "binance":
        params = {"showPermissionSets": "false"}  # a third of the size
        return session.ask(what, "publicGetExchangeInfo", params, lambda a: _names(a, "symbols", "symbol"))
    return session.ask(what, PRODUCTS, {"product_type": "SPOT"}, lambda a: _names(a, "products", "product_id"))


def _names(answer: Any, rows: str, name: str) -> list[str]:
    try:
        return sorted(str(row[name]) for row in answer[rows])
    except (TypeError, LookupError):
        raise unusable("gave an answer that is no list of symbols") from None


def binance_symbol(answer: Any, symbol: str) -> dict[str, Any]:
    """What an exchangeInfo answer says about a symbol, with its filters by name."""
    try:
        entry = next(one for one in answer["symbols"] if one["symbol"] == symbol)
        return {**entry, "filters": {one["filterType"]: one for one in entry["filters"]}}
    except (StopIteration, TypeError, LookupError):
        raise unusable("gave an answer without the symbol's rules") from None


def binance_rules(answer: Any, symbol: str, date: str) -> MarketRules:
    """Rules that hold for market orders, too: where those have a step or bounds of their own, the narrower ones."""
    filters = binance_symbol(answer, symbol)["filters"]
    try:
        notional = filters.get("NOTIONAL") or filters["MIN_NOTIONAL"]
        sizes = [filters[name] for name in ("LOT_SIZE", "MARKET_LOT_SIZE") if name in filters]
        lot = _decimal(filters["LOT_SIZE"]["stepSize"])
        for step in _given(sizes, "stepSize"):
            lot = _common_multiple(lot, step)
        tick, least = _decimal(filters["PRICE_FILTER"]["tickSize"]), _decimal(notional["minNotional"])
        bounds = max(_given(sizes, "minQty"), default=None), min(_given(sizes, "maxQty"), default=None)
        return MarketRules(symbol, lot, tick, least, "binance exchangeInfo", date, *bounds)
    except (AttributeError, TypeError, LookupError, InvalidOperation):
        raise unusable("gave an answer without the symbol's rules") from None


def _given(filters: list[dict[str, Any]], name: str) -> list[Decimal]:
    """The values of a filter's field; Binance writes 0 where there is no such rule."""
    values = [one[name] for one in filters if name in one]
    return [_decimal(value) for value in values if not isinstance(value, str) or Decimal(value) != 0]


def _common_multiple(a: Decimal, b: Decimal) -> Decimal:
    """A step that is a multiple of both; in practice they are powers of ten."""
    large, small = max(a, b), min(a, b)
    return large if large % small == 0 else a * b


def coinbase_rules(answer: Any, symbol: str, date: str) -> MarketRules:
    try:
        if answer["product_id"] != symbol:
            raise LookupError(symbol)
        tick = _decimal(answer.get("price_increment") or answer["quote_increment"])
        lot, least = _decimal(answer["base_increment"]), _decimal(answer["quote_min_size"])
        bounds = [_decimal(answer[name]) if answer.get(name) else None for name in ("base_min_size", "base_max_size")]
        return MarketRules(symbol, lot, tick, least, "coinbase products", date, *bounds)
    except (TypeError, AttributeError, LookupError, InvalidOperation):
        raise unusable("gave an answer without the symbol's rules") from None


def _decimal(text: Any) -> Decimal:
    """A positive step as the exchange writes it, without trailing zeros. Never through float."""
    if not isinstance(text, str):
        raise TypeError(text)
    value = Decimal(text)
    if not value.is_finite() or value <= 0:
        raise InvalidOperation(text)
    return value.quantize(Decimal(1)) if value == value.to_integral_value() else value.normalize()
