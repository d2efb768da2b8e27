"""Opens an account at an exchange: the one place that knows which venue is traded how."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from atb.core.errors import UsageError, nearest
from atb.core.keys import ApiKey
from atb.core.types import Symbol
from atb.venue.broker import Broker
from atb.venue.ccxt_session import VENUES, Patience
from atb.venue.listings import RULES_LAST_S

# A trader asks again within its check interval anyway; what waits for long here keeps it from its stops.
LIVE = Patience(timeout_s=10.0, attempts=3, backoff_s=0.25, max_wait_s=5.0)


def open_broker(
    venue: str,
    key: ApiKey,
    symbols: Sequence[Symbol],
    *,
    base_url: str | None = None,
    rates: Path | None = None,
    rules_file: Path | None = None,
    rules_last_s: float = RULES_LAST_S,
    patience: Patience = LIVE,
) -> Broker:
    """The account that `key` opens. symbols: those that will be traded. Asks nothing yet.

    `rates`: the folder of the budget that all processes share; `rules_file`: where market rules are remembered; they are asked
    for again after `rules_last_s`.
    """
    if venue not in VENUES:
        raise UsageError(f"There is no trading at '{venue}'.", nearest(venue, list(VENUES)))
    if venue == "coinbase":
        from atb.venue.coinbase_broker import CoinbaseBroker, CoinbaseSession

        return CoinbaseBroker(CoinbaseSession(venue, base_url, patience, key, rates), symbols, rules_file, rules_last_s)
    from atb.venue.binance_broker import BinanceBroker
    from atb.venue.ccxt_signed import SignedSession

    return BinanceBroker(SignedSession(venue, base_url, patience, key, rates), symbols, rules_file, rules_last_s)
