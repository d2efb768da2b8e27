"""What a session trades: symbols with what the exchange demands of their orders, as a session's configuration keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from atb.core.types import MarketRules, Symbol


class Traded(NamedTuple):
    """A symbol that a session trades, and what the exchange demands of its orders."""

    symbol: Symbol
    rules: MarketRules


def market_config(traded: Traded) -> dict[str, str]:
    """A symbol and its rules as a session's configuration tells them; `traded_from` reads them."""
    symbol, rules = traded
    known = {name: getattr(rules, name) for name in ("lot", "tick", "min_notional", "min_qty", "max_qty")}
    numbers = {name: f"{value:f}" for name, value in known.items() if value is not None}
    return {"symbol": symbol.id, "base": symbol.base, "quote": symbol.quote, "market": symbol.market, **numbers}


def traded_from(known: Mapping[str, str]) -> Traded:
    symbol = Symbol(known["symbol"], known["base"], known["quote"], known["market"])
    lot, tick, least = (Decimal(known[name]) for name in ("lot", "tick", "min_notional"))
    smallest, largest = (Decimal(known[name]) if name in known else None for name in ("min_qty", "max_qty"))
    return Traded(symbol, MarketRules(symbol.id, lot, tick, least, "ledger", "", smallest, largest))
