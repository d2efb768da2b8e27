"""Lot, tick and minimum notional of each symbol: from the exchange when it was asked, else from the shipped, dated table."""

from __future__ import annotations

import contextlib
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

from atb.core.errors import DataError
from atb.core.types import MarketRules, Symbol

BOUNDS = ("min_qty", "max_qty")  # which older files have not
SHIPPED = Path(__file__).with_name("market_rules.json")


def rules_for(venue: str, symbol: Symbol, refreshed: Path | None = None) -> MarketRules:
    """The rules for a symbol. `refreshed`: a file of rules fetched from exchanges, which come first.

    A symbol in neither gets the venue's cautious defaults, with "assumed" as their source.
    """
    if refreshed is not None and refreshed.is_file():
        own = _read(refreshed)
        try:
            row = own.get(venue, {}).get(symbol.id)
            if row is not None:
                return _rules(symbol.id, row, str(row["source"]), str(row["date"]))
        except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
            raise _unreadable(refreshed, f"the rules of {symbol.id} are not whole ({error})") from None
    table = _read(SHIPPED)
    entry = table.get(venue) or table["binance"]
    row = entry["rules"].get(symbol.id)
    if row is not None:
        return _rules(symbol.id, row, entry["source"], entry["date"])
    return _rules(symbol.id, entry["otherwise"], "assumed", entry["date"])


def remark(rules: MarketRules, venue: str) -> str:
    """What to say about rules that are only assumed, and how to ask `venue` ("": nobody) for them; else nothing."""
    if rules.source != "assumed":
        return ""
    provider = "" if venue == "binance" else f" --provider {venue}"
    ask = f" Ask the exchange: atb data rules {rules.symbol}{provider} --refresh" if venue else ""
    return f"{rules.symbol} is not in the table of {rules.date}: its lot, tick and minimum notional are assumed.{ask}"


def store_rules(path: Path, venue: str, rules: MarketRules) -> None:
    """Add rules fetched from an exchange to the user's own file, atomically."""
    own = _read(path) if path.is_file() else {}
    row = {
        "lot": f"{rules.lot:f}",
        "tick": f"{rules.tick:f}",
        "min_notional": f"{rules.min_notional:f}",
        "source": rules.source,
        "date": rules.date,
        **{name: f"{value:f}" for name in BOUNDS if (value := getattr(rules, name)) is not None},
    }
    if not isinstance(own.setdefault(venue, {}), dict):
        raise _unreadable(path, f"{venue} is no table")
    own[venue][rules.symbol] = row
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(own, indent=1, sort_keys=True))
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror}.", "Point ATB_HOME at a writable folder."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _rules(symbol: str, row: dict[str, str], source: str, date: str) -> MarketRules:
    lot, tick, min_notional = (Decimal(row[name]) for name in ("lot", "tick", "min_notional"))
    if not (
        0 < lot < Decimal("Infinity") and 0 < tick < Decimal("Infinity") and 0 <= min_notional < Decimal("Infinity")
    ):
        raise ValueError(f"lot {lot}, tick {tick}, minimum {min_notional}")
    bounds = [Decimal(row[name]) if name in row else None for name in BOUNDS]
    if not all(value is None or 0 < value < Decimal("Infinity") for value in bounds):
        raise ValueError(f"quantities from {bounds[0]} to {bounds[1]}")
    return MarketRules(symbol, lot, tick, min_notional, source, date, *bounds)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from None
    if not isinstance(data, dict):
        raise _unreadable(path, "it is no table of rules")
    return data


def _unreadable(path: Path, why: str) -> DataError:
    return DataError(f"{path} cannot be read: {why}.", f"Remove it; --refresh writes it again: rm '{path}'")
