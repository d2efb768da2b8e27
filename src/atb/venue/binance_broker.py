"""The port for orders at Binance (spot), over ccxt's endpoint methods."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from atb.core.errors import DataError, ExchangeRefused, ExchangeUnavailable
from atb.core.orders import FINAL, Balance, KeyRights, NewOrder, SeenFill, SeenOrder
from atb.core.timeframe import SystemClock, iso_date
from atb.core.types import MarketRules, Symbol
from atb.venue.binance_fills import FillPages
from atb.venue.binance_orders import (
    KINDS,
    order_params,
    pair_params,
    read_balances,
    read_cancelled,
    read_order,
    read_pair,
    read_placed,
)
from atb.venue.broker import Features, OrderRefused, OrderUnknown, Window
from atb.venue.ccxt_markets import binance_rules, binance_symbol, explained
from atb.venue.ccxt_session import Answered
from atb.venue.ccxt_signed import LOOK_UP, SignedSession
from atb.venue.fields import flag, row, rows, text
from atb.venue.market_rules import rules_for, store_rules
from atb.venue.rate_budget import Priority

CANCEL_WINDOW_MS = 5000  # a cancel that comes late does what was wanted
STOP_TYPES = ("stop", "stop_limit")  # best first: a stop-limit that the price jumps over stays unfilled
RULES_HOLD_S = 86_400.0
FEWEST_STOPS = 5  # what Binance allows where its filter does not say
CAUTIOUS = Features(("stop_limit",), FEWEST_STOPS, pairs=False)
NO_SUCH_ORDER = -2013


class Listing(NamedTuple):
    """What Binance says about a symbol, and the steady count when it did."""

    rules: MarketRules
    status: str
    features: Features
    read_at_s: float


class BinanceBroker:
    """One account. `symbols`: those that will be traded; what all of them offer are the venue's `features`."""

    venue = "binance"

    def __init__(self, session: SignedSession, symbols: Sequence[Symbol], rules_file: Path | None = None) -> None:
        self.session = session
        self.symbols = tuple(symbols)
        self._rules_file = rules_file
        self._listings: dict[str, Listing] = {}
        self._fills = FillPages(session)

    def now_ms(self) -> int:
        return self.session.clock.now_ms()

    @cached_property
    def features(self) -> Features:
        every = [self._listing(symbol).features for symbol in self.symbols]
        if not every:
            return CAUTIOUS
        stop_types = tuple(name for name in STOP_TYPES if all(name in one.stop_types for one in every))
        return Features(stop_types, min(one.max_stops for one in every), all(one.pairs for one in every))

    def market_rules(self, symbol: Symbol) -> MarketRules:
        """ExchangeRefused where the symbol is not traded now. Without an answer the last rules that were told."""
        try:
            listing = self._listing(symbol)
        except ExchangeUnavailable:
            known = rules_for(self.venue, symbol, self._rules_file)
            if self._rules_file is None or not known.source.startswith("binance exchangeInfo"):
                raise
            return known
        if listing.status != "TRADING":
            what = f"{symbol.id} is not traded at {self.session.host}: its status is {listing.status}."
            raise ExchangeRefused(what, "Try again later, or another symbol.")
        return listing.rules

    def place(self, order: NewOrder, window: Window) -> SeenOrder:
        params = order_params(order) | _within(window)
        what = f"Placing {order.client_order_id} ({order.side} {order.type} {order.symbol.id})"
        return self.session.tell(what, "privatePostOrder", params, lambda a: read_placed(a, order), _priority(order))

    def place_pair(self, take: NewOrder, stop: NewOrder, window: Window) -> tuple[SeenOrder, SeenOrder]:
        params = pair_params(take, stop) | _within(window)
        what = f"Placing {take.client_order_id} with {stop.client_order_id} ({take.side} {take.symbol.id})"
        return self.session.tell(
            what, "privatePostOrderListOco", params, lambda a: read_pair(a, take, stop), Priority.PROTECT
        )

    def cancel(self, symbol: Symbol, client_order_id: str) -> SeenOrder:
        what = f"Cancelling {client_order_id} ({symbol.id})"
        params = {"symbol": symbol.id, "origClientOrderId": client_order_id, **self._at_once(what)}

        def read(answer: Any) -> SeenOrder:
            return read_cancelled(answer, symbol, client_order_id)

        failure: OrderRefused | OrderUnknown
        try:
            return self.session.tell(what, "privateDeleteOrder", params, read, Priority.PROTECT)
        except OrderUnknown as unknown:
            failure = unknown
        except OrderRefused as refused:
            if refused.reason != "unknown_order":
                raise
            failure = refused  # filled, or cancelled with its pair: its last state is what is asked for
        return self._last_state(what, symbol, client_order_id, failure)

    def find(self, symbol: Symbol, client_order_id: str) -> SeenOrder | None:
        params = {"symbol": symbol.id, "origClientOrderId": client_order_id}
        try:
            return self.session.ask(
                f"Looking up {client_order_id} ({symbol.id})",
                "privateGetOrder",
                params,
                lambda answer: read_order(answer, symbol, client_order_id),
            )
        except Answered as answered:
            if answered.code == NO_SUCH_ORDER:
                return None
            raise

    def open_orders(self, symbols: Sequence[Symbol]) -> list[SeenOrder]:
        return [order for symbol in symbols for order in self._open_orders(symbol)]

    def fills(self, symbol: Symbol, since_ms: int) -> list[SeenFill]:
        return self._fills.since(symbol, since_ms)

    def balances(self) -> dict[str, Balance]:
        return self.session.ask(
            "Reading the balances", "privateGetAccount", {"omitZeroBalances": "true"}, read_balances
        )

    def rights(self) -> KeyRights:
        """None, None where the place has no such question, as test networks."""

        def read(answer: Any) -> KeyRights:
            told = row(answer, "list of rights")
            return KeyRights(flag(told, "enableSpotAndMarginTrading"), flag(told, "enableWithdrawals"))

        try:
            return self.session.ask("Reading the key's rights", "sapiGetAccountApiRestrictions", {}, read)
        except Answered as answered:
            if answered.status == 404:
                return KeyRights(None, None)
            raise

    def close(self) -> None:
        self.session.close()

    def _open_orders(self, symbol: Symbol) -> list[SeenOrder]:
        def read(answer: Any) -> list[SeenOrder]:
            return [read_order(one, symbol) for one in rows(answer, "order")]

        what = f"Reading the open orders of {symbol.id}"
        return self.session.ask(what, "privateGetOpenOrders", {"symbol": symbol.id}, read)

    def _last_state(
        self, what: str, symbol: Symbol, client_order_id: str, failure: OrderRefused | OrderUnknown
    ) -> SeenOrder:
        """After a cancel without a usable answer: what the order is now, if that is final."""
        try:
            seen = self.find(symbol, client_order_id)
        except (ExchangeUnavailable, ExchangeRefused) as error:
            raise OrderUnknown(f"{failure.what} {error.what}", LOOK_UP) from None
        if seen is None:
            raise failure
        if seen.state in FINAL:
            return seen
        raise OrderUnknown(f"{what}: {self.session.host} still tells of it as {seen.state}. {failure.what}", LOOK_UP)

    def _at_once(self, what: str) -> dict[str, int]:
        try:
            self.session.measure_clock_if_old()
            return _within(Window(self.now_ms(), CANCEL_WINDOW_MS))
        except (ExchangeUnavailable, ExchangeRefused) as error:
            raise OrderRefused(f"{what}: nothing was sent. {error.what}", "not_sent") from None

    def _listing(self, symbol: Symbol) -> Listing:
        known = self._listings.get(symbol.id)
        if known is not None and time.monotonic() - known.read_at_s < RULES_HOLD_S:
            return known
        today = iso_date(SystemClock().now_ms())
        what, params = f"Fetching the rules of {symbol.id}", {"symbol": symbol.id}
        with explained(self.session, symbol):
            listing = self.session.ask(what, "publicGetExchangeInfo", params, lambda a: _read_listing(a, symbol, today))
        self._listings[symbol.id] = listing
        if self._rules_file is not None:
            with contextlib.suppress(DataError):  # to remember them is a service, not a condition
                store_rules(self._rules_file, self.venue, listing.rules)
        return listing


def _read_listing(answer: Any, symbol: Symbol, date: str) -> Listing:
    entry = binance_symbol(answer, symbol.id)
    offered = entry.get("orderTypes") or []
    stop_types = tuple(name for name in STOP_TYPES if KINDS[name].name in offered)
    most = entry["filters"].get("MAX_NUM_ALGO_ORDERS", {}).get("maxNumAlgoOrders", FEWEST_STOPS)
    pairs = entry.get("ocoAllowed") is True and KINDS["take_limit"].name in offered
    rules = binance_rules(answer, symbol.id, date)
    status = text(entry, "status") if entry.get("isSpotTradingAllowed") is not False else "NO SPOT TRADING"
    return Listing(rules, status, Features(stop_types, int(most), pairs), time.monotonic())


def _within(window: Window) -> dict[str, int]:
    return {"timestamp": window.made_at_ms, "recvWindow": window.length_ms}


def _priority(order: NewOrder) -> Priority:
    """On spot, without shorts, a sell always lessens what is held; so do stops."""
    return Priority.PROTECT if order.side == "sell" else Priority.ENTRY
