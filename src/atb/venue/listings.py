"""What an exchange says about the symbols that are traded: their rules, whether they are traded now, what orders they offer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from atb.core.errors import DataError, ExchangeRefused, ExchangeUnavailable
from atb.core.timeframe import SystemClock, iso_date
from atb.core.types import MarketRules, Symbol
from atb.venue.broker import Features
from atb.venue.ccxt_markets import explained
from atb.venue.ccxt_session import Session
from atb.venue.market_rules import rules_for, store_rules

RULES_LAST_S = 86_400.0  # they change a few times a year


class Listing(NamedTuple):
    """closed: why the symbol is not traded now, in the exchange's word; empty where it is."""

    rules: MarketRules
    closed: str
    features: Features


class Question(NamedTuple):
    """How a venue is asked about a symbol: ccxt's endpoint, its parameters, how the answer is read (as of a date)."""

    endpoint: str
    params: Callable[[Symbol], dict[str, Any]]
    read: Callable[[Any, Symbol, str], Listing]


class Listings:
    """Asked for again after `last_s`. `file`: where the rules are remembered for when nobody answers."""

    def __init__(self, session: Session, question: Question, file: Path | None, last_s: float = RULES_LAST_S) -> None:
        self._session = session
        self._question = question
        self._file = file
        self._last_s = last_s
        self._known: dict[str, tuple[Listing, float]] = {}

    def rules(self, symbol: Symbol, fresh: bool = False) -> MarketRules:
        """fresh: asked for now. ExchangeRefused where the symbol is not traded now. Without an answer the last rules that
        an exchange told."""
        if fresh:
            self._known.pop(symbol.id, None)
        try:
            listing = self.of(symbol)
        except ExchangeUnavailable:
            told = rules_for(self._session.venue, symbol, self._file)
            if self._file is None or told.source != _source(self._session.venue):
                raise
            return told
        if listing.closed:
            what = f"{symbol.id} is not traded at {self._session.host}: its status is {listing.closed}."
            raise ExchangeRefused(what, "Try again later, or another symbol.")
        return listing.rules

    def of(self, symbol: Symbol) -> Listing:
        listing, read_at_s = self._known.get(symbol.id, (None, 0.0))
        if listing is None or time.monotonic() - read_at_s >= self._last_s:
            listing = self._fetch(symbol)
            self._known[symbol.id] = listing, time.monotonic()
        return listing

    def _fetch(self, symbol: Symbol) -> Listing:
        ask, today = self._question, iso_date(SystemClock().now_ms())
        what = f"Fetching the rules of {symbol.id}"
        with explained(self._session, symbol):
            listing = self._session.ask(what, ask.endpoint, ask.params(symbol), lambda a: ask.read(a, symbol, today))
        if self._file is not None:
            with contextlib.suppress(DataError):  # to remember them is a service, not a condition
                store_rules(self._file, self._session.venue, listing.rules)
        return listing


def _source(venue: str) -> str:
    """How rules that came from the exchange are marked, as opposed to those of the shipped table."""
    return {"binance": "binance exchangeInfo", "coinbase": "coinbase products"}[venue]
