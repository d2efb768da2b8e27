"""The port for orders at Binance (spot), over ccxt's endpoint methods."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from atb.core.errors import ExchangeRefused, ExchangeUnavailable
from atb.core.orders import Balance, KeyRights, NewOrder, SeenFill, SeenOrder, SeenTransfer
from atb.core.types import MarketRules, Symbol
from atb.venue.binance_fills import FillPages
from atb.venue.binance_history import OrderPages
from atb.venue.binance_orders import (
    KINDS,
    order_params,
    pair_params,
    read_any_order,
    read_balances,
    read_cancelled,
    read_order,
    read_pair,
    read_placed,
)
from atb.venue.binance_transfers import read_transfers
from atb.venue.broker import Features, OrderRefused, OrderUnknown, Window
from atb.venue.ccxt_markets import binance_rules, binance_symbol
from atb.venue.ccxt_session import Answered
from atb.venue.ccxt_signed import SignedSession, last_state
from atb.venue.fields import flag, row, rows, text
from atb.venue.listings import RULES_LAST_S, Listing, Listings, Question
from atb.venue.new_orders import priority_of
from atb.venue.rate_budget import Priority

CANCEL_WINDOW_MS = 5000  # a cancel that comes late does what was wanted
STOP_TYPES = ("stop", "stop_limit")  # best first: a stop-limit that the price jumps over stays unfilled
FEWEST_STOPS = 5  # what Binance allows where its filter does not say
CAUTIOUS = Features(("stop_limit",), FEWEST_STOPS, pairs=False)
NO_SUCH_ORDER = -2013


class BinanceBroker:
    """One account. `symbols`: those that will be traded; what all of them offer are the venue's `features`."""

    venue = "binance"

    def __init__(
        self, session: SignedSession, symbols: Sequence[Symbol], rules_file: Path | None = None,
        rules_last_s: float = RULES_LAST_S,
    ) -> None:  # fmt: skip
        self.session = session
        self.symbols = tuple(symbols)
        self._listings = Listings(session, QUESTION, rules_file, rules_last_s)
        self._fills = FillPages(session)
        self._orders = OrderPages(session)

    def now_ms(self) -> int:
        return self.session.clock.now_ms()

    @cached_property
    def features(self) -> Features:
        every = [self._listings.of(symbol).features for symbol in self.symbols]
        if not every:
            return CAUTIOUS
        stop_types = tuple(name for name in STOP_TYPES if all(name in one.stop_types for one in every))
        return Features(stop_types, min(one.max_stops for one in every), all(one.pairs for one in every))

    def market_rules(self, symbol: Symbol, fresh: bool = False) -> MarketRules:
        """ExchangeRefused where the symbol is not traded now. Without an answer the last rules that were told."""
        return self._listings.rules(symbol, fresh)

    def place(self, order: NewOrder, window: Window) -> SeenOrder:
        params = order_params(order) | _within(window)
        what = f"Placing {order.client_order_id} ({order.side} {order.type} {order.symbol.id})"
        return self.session.tell(what, "privatePostOrder", params, lambda a: read_placed(a, order), priority_of(order))

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
        return last_state(lambda: self.find(symbol, client_order_id), failure)

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

    def orders(self, symbol: Symbol, since_ms: int) -> list[SeenOrder]:
        return self._orders.since(symbol, since_ms)

    def transfers(self, since_ms: int) -> list[SeenTransfer] | None:
        return read_transfers(self.session, since_ms, self.now_ms())

    def balances(self) -> dict[str, Balance]:
        return self.session.ask(
            "Reading the balances", "privateGetAccount", {"omitZeroBalances": "true"}, read_balances
        )

    def rights(self) -> KeyRights:
        """None, None where the place has no such question, as test networks."""

        def read(answer: Any) -> KeyRights:
            told = row(answer, "list of rights")
            only_from = flag(told, "ipRestrict") if "ipRestrict" in told else None
            return KeyRights(flag(told, "enableSpotAndMarginTrading"), flag(told, "enableWithdrawals"), only_from)

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
            return [read_any_order(one, symbol) for one in rows(answer, "order")]

        what = f"Reading the open orders of {symbol.id}"
        return self.session.ask(what, "privateGetOpenOrders", {"symbol": symbol.id}, read)

    def _at_once(self, what: str) -> dict[str, int]:
        try:
            self.session.measure_clock_if_old()
            return _within(Window(self.now_ms(), CANCEL_WINDOW_MS))
        except (ExchangeUnavailable, ExchangeRefused) as error:
            raise OrderRefused(f"{what}: nothing was sent. {error.what}", "not_sent") from None


def _read_listing(answer: Any, symbol: Symbol, date: str) -> Listing:
    entry = binance_symbol(answer, symbol.id)
    offered = entry.get("orderTypes") or []
    stop_types = tuple(name for name in STOP_TYPES if KINDS[name].name in offered)
    most = entry["filters"].get("MAX_NUM_ALGO_ORDERS", {}).get("maxNumAlgoOrders", FEWEST_STOPS)
    pairs = entry.get("ocoAllowed") is True and KINDS["take_limit"].name in offered
    status = text(entry, "status") if entry.get("isSpotTradingAllowed") is not False else "NO SPOT TRADING"
    closed = "" if status == "TRADING" else status
    return Listing(binance_rules(answer, symbol.id, date), closed, Features(stop_types, int(most), pairs))


QUESTION = Question("publicGetExchangeInfo", lambda symbol: {"symbol": symbol.id}, _read_listing)


def _within(window: Window) -> dict[str, int]:
    return {"timestamp": window.made_at_ms, "recvWindow": window.length_ms}
