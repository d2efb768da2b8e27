"""The nouns that every layer shares. Frozen; each number says its unit."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from atb.core.errors import UsageError

QUOTES = ("USDT", "USDC", "FDUSD", "TUSD", "BUSD", "USD", "EUR", "GBP", "TRY", "BTC", "ETH", "BNB")


class Symbol(NamedTuple):
    """An instrument: `id` is the exchange's own name (BTCUSDT, BTC-USD)."""

    id: str
    base: str
    quote: str
    market: str = "spot"

    @property
    def ccxt(self) -> str:
        """ccxt's unified name, `BTC/USDT`."""
        return f"{self.base}/{self.quote}"


class MarketRules(NamedTuple):
    """What the exchange demands of orders for one symbol, and where and when we read it."""

    symbol: str
    lot: Decimal  # base units an order's quantity is a multiple of
    tick: Decimal  # quote units an order's price is a multiple of
    min_notional: Decimal  # quote units an order must be worth
    source: str
    date: str
    min_qty: Decimal | None = None  # base units of one order, market orders included; None: not known
    max_qty: Decimal | None = None


def split_name(name: str) -> tuple[str, str]:
    """Base and quote of `BTC/USDT`, `BTC-USD`, `BTCUSDT`; a UsageError where that cannot be told."""
    text = name.strip().upper()
    if ":" in text:
        raise UsageError(f"'{name}' names a perpetual or future; only spot is supported.", f"Try {text.split(':')[0]}.")
    for separator in ("/", "-", "_"):
        if separator in text:
            base, _, quote = text.partition(separator)
            if base.isalnum() and quote.isalnum():
                return base, quote
    for quote in QUOTES:
        if text.endswith(quote) and len(text) > len(quote) and text.isalnum():
            return text[: -len(quote)], quote
    example = text if text.isalnum() and text not in QUOTES[:7] else "BTC"
    hint = f"Write the exchange's own name ({example}USDT, {example}-USD) or {example}/USDT."
    raise UsageError(f"'{name}' is not a symbol.", hint)


def symbol_for(venue: str, name: str) -> Symbol:
    """The symbol a name means at a venue, in that venue's own spelling."""
    base, quote = split_name(name)
    joined = f"{base}-{quote}" if venue == "coinbase" else f"{base}{quote}"
    return Symbol(joined, base, quote)
