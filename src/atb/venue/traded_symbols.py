"""What trades at an exchange, and how much of it: its spot symbols, the most traded of the last 24 hours first."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

from atb.venue.ccxt_errors import unusable
from atb.venue.ccxt_markets import PRODUCTS
from atb.venue.ccxt_session import Patience, Session

WHAT = "Listing what is traded"


class Traded(NamedTuple):
    """quote_volume: of the last 24 hours, in quote units."""

    symbol: str
    base: str
    quote: str
    quote_volume: float


def traded_symbols(venue: str, *, base_url: str | None, patience: Patience, rates: Path | None = None) -> list[Traded]:
    """Raises ExchangeUnavailable, ExchangeRefused."""
    with contextlib.closing(Session(venue, base_url, patience, "", rates)) as session:
        found = _binance(session) if venue == "binance" else _coinbase(session)
    return sorted(found, key=lambda each: (-each.quote_volume, each.symbol))


def _binance(session: Session) -> list[Traded]:
    volumes = session.ask(WHAT, "publicGetTicker24hr", {"type": "MINI"}, _read_volumes)

    def read(answer: Any) -> list[Traded]:
        try:
            trading = [row for row in answer["symbols"] if row["status"] == "TRADING"]
            named = [(str(row["symbol"]), str(row["baseAsset"]), str(row["quoteAsset"])) for row in trading]
        except (TypeError, LookupError):
            raise unusable("gave an answer that is no list of symbols") from None
        return [Traded(*names, volumes.get(names[0], 0.0)) for names in named]

    return session.ask(WHAT, "publicGetExchangeInfo", {"showPermissionSets": "false"}, read)


def _read_volumes(answer: Any) -> dict[str, float]:
    try:
        return {str(row["symbol"]): float(row["quoteVolume"]) for row in answer}
    except (TypeError, ValueError, LookupError):
        raise unusable("gave an answer without volumes") from None


def _coinbase(session: Session) -> list[Traded]:
    def read(answer: Any) -> list[Traded]:
        try:
            online = [
                row for row in answer["products"] if row["status"] == "online" and not row.get("trading_disabled")
            ]
            return [
                Traded(
                    str(row["product_id"]), str(row["base_currency_id"]), str(row["quote_currency_id"]),
                    float(row.get("approximate_quote_24h_volume") or 0.0),
                )
                for row in online
            ]  # fmt: skip
        except (TypeError, ValueError, LookupError):
            raise unusable("gave an answer that is no list of products") from None

    return session.ask(WHAT, PRODUCTS, {"product_type": "SPOT"}, read)
