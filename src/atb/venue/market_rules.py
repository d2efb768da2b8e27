"""Lot, tick and minimum notional of each symbol: from the exchange when it was asked, else from the shipped, dated table."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from atb.core.errors import DataError
from atb.core.types import MarketRules, Symbol

SHIPPED = Path(__file__).with_name("market_rules.json")


def rules_for(venue: str, symbol: Symbol, refreshed: Path | None = None) -> MarketRules:
    """The rules for a symbol. `refreshed`: a file of rules fetched from exchanges, which come first.

    A symbol in neither gets the venue's cautious defaults, with "assumed" as their source.
    """
    own = _read(refreshed) if refreshed is not None and refreshed.is_file() else {}
    row = own.get(venue, {}).get(symbol.id)
    if row is not None:
        return _rules(symbol.id, row, row["source"], row["date"])
    table = _read(SHIPPED)
    entry = table.get(venue) or table["binance"]
    row = entry["rules"].get(symbol.id)
    if row is not None:
        return _rules(symbol.id, row, entry["source"], entry["date"])
    return _rules(symbol.id, entry["otherwise"], "assumed", entry["date"])


def store_rules(path: Path, venue: str, rules: MarketRules) -> None:
    """Add rules fetched from an exchange to the user's own file, atomically."""
    own = _read(path) if path.is_file() else {}
    row = {
        "lot": f"{rules.lot:f}",
        "tick": f"{rules.tick:f}",
        "min_notional": f"{rules.min_notional:f}",
        "source": rules.source,
        "date": rules.date,
    }
    own.setdefault(venue, {})[rules.symbol] = row
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(own, indent=1, sort_keys=True))
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror}.", "Point ATB_HOME at a writable folder."
        ) from None


def _rules(symbol: str, row: dict[str, str], source: str, date: str) -> MarketRules:
    return MarketRules(symbol, Decimal(row["lot"]), Decimal(row["tick"]), Decimal(row["min_notional"]), source, date)


def _read(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}.", f"Remove it: rm '{path}'") from None
    return data
