"""The port for orders at Coinbase (Advanced Trade, spot), over ccxt's endpoint methods.

Two things are unlike Binance. Coinbase finds orders by its own ids only, so an order is looked for by ours in the list of
those since the candle that is in our id. And a request has no window: its signature is made to end when the window does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from atb.core.errors import ExchangeRefused, ExchangeUnavailable
from atb.core.order_id import parse_order_id
from atb.core.orders import FINAL, WORKING, Balance, KeyRights, NewOrder, SeenFill, SeenOrder, SeenTransfer
from atb.core.timeframe import moment
from atb.core.types import MarketRules, Symbol
from atb.venue.broker import OrderRefused, OrderUnknown, Window
from atb.venue.ccxt_markets import PRODUCT
from atb.venue.ccxt_session import Answered, UnknownSymbol
from atb.venue.ccxt_signed import LOOK_UP, SignedSession, last_state
from atb.venue.coinbase_orders import (
    FEATURES,
    order_params,
    read_accepted,
    read_any_order,
    read_balance,
    read_fill,
    read_listing,
    read_one,
    read_order,
    read_page,
    read_rights,
)
from atb.venue.fields import flag, row, rows, text
from atb.venue.listings import RULES_LAST_S, Listings, Question
from atb.venue.new_orders import malformed, priority_of
from atb.venue.rate_budget import Priority

ORDERS = "v3PrivateGetBrokerageOrdersHistorical"
WORKING_WORDS = (
    ["OPEN"],
    ["PENDING", "QUEUED", "CANCEL_QUEUED", "EDIT_QUEUED"],
)  # OPEN cannot be asked for with others
PAGE = 250
MOST_PAGES = 400
AS_SENT = ("client_order_id", "side", "type", "qty", "price", "stop_price")
SECOND_MS = 1000
SIGNED_S = 120  # how long ccxt makes a signature last
CANCEL_LOOKS, CANCEL_PAUSE_S = 6, 0.25  # a cancel is taken at once and done a little later
QUESTION = Question(PRODUCT, lambda symbol: {"product_id": symbol.id}, read_listing)

T = TypeVar("T")


class CoinbaseSession(SignedSession):
    """Signs as of the exchange's clock, until the end of a request's window where it has one (`until_ms`)."""

    scope = " private"
    public = "v3Public"

    def _stamped(self, params: dict[str, Any]) -> dict[str, Any]:
        until_ms = params.get("until_ms")
        begins_s = self.clock.now_ms() // 1000 if until_ms is None else until_ms // SECOND_MS - SIGNED_S
        self.client.seconds = lambda: begins_s  # ccxt signs from then on, for SIGNED_S
        return {name: value for name, value in params.items() if name != "until_ms"}


class CoinbaseBroker:
    """One account."""

    venue = "coinbase"
    features = FEATURES

    def __init__(
        self, session: CoinbaseSession, symbols: Sequence[Symbol], rules_file: Path | None = None,
        rules_last_s: float = RULES_LAST_S,
    ) -> None:  # fmt: skip
        self.session = session
        self.symbols = tuple(symbols)
        self._listings = Listings(session, QUESTION, rules_file, rules_last_s)
        self._ids: dict[str, str] = {}  # Coinbase's by ours

    def now_ms(self) -> int:
        return self.session.clock.now_ms()

    def market_rules(self, symbol: Symbol, fresh: bool = False) -> MarketRules:
        """ExchangeRefused where the symbol is not traded now. Without an answer the last rules that were told."""
        return self._listings.rules(symbol, fresh)

    def place(self, order: NewOrder, window: Window) -> SeenOrder:
        what = f"Placing {order.client_order_id} ({order.side} {order.type} {order.symbol.id})"
        until_ms = signed_until_ms(order, window)
        params = {**order_params(order), "until_ms": until_ms}
        try:
            order_id = self.session.tell(
                what, "v3PrivatePostBrokerageOrders", params, lambda a: read_accepted(a, order), priority_of(order)
            )
        except OrderRefused as refused:
            if refused.reason == "barred" and self.now_ms() >= until_ms:
                raise OrderRefused(refused.what, "clock") from None  # its signature had ended
            raise
        self._ids[order.client_order_id] = order_id
        return self._placed(what, order, order_id)

    def place_pair(self, take: NewOrder, stop: NewOrder, window: Window) -> tuple[SeenOrder, SeenOrder]:
        raise malformed(take, "and its stop cannot be a pair at Coinbase")

    def cancel(self, symbol: Symbol, client_order_id: str) -> SeenOrder:
        what = f"Cancelling {client_order_id} ({symbol.id})"
        seen = self._before_cancel(what, symbol, client_order_id)
        if seen.state in FINAL:
            return seen

        def read(answer: Any) -> str:
            """Empty, or why it was not cancelled."""
            result = rows(row(answer, "cancel").get("results"), "cancel")[0]
            return "" if flag(result, "success") else text(result, "failure_reason")

        failure: OrderRefused | OrderUnknown
        params = {"order_ids": [seen.venue_order_id]}
        endpoint = "v3PrivatePostBrokerageOrdersBatchCancel"
        try:
            reason = self.session.tell(what, endpoint, params, read, Priority.PROTECT)
            failure = OrderRefused(f"{what}: {self.session.host} answered {reason}.", "refused")
        except OrderUnknown as unknown:
            reason, failure = "unknown", unknown
        if not reason:
            return self._cancelled(what, symbol, seen.venue_order_id)
        return last_state(lambda: self._by_id(symbol, seen.venue_order_id), failure)

    def find(self, symbol: Symbol, client_order_id: str) -> SeenOrder | None:
        if client_order_id in self._ids:
            return self._known(symbol, self._ids[client_order_id])

        def read(one: Mapping[str, Any]) -> SeenOrder | None:
            return read_order(one, symbol) if one.get("client_order_id") == client_order_id else None

        params: dict[str, Any] = {"product_ids": [symbol.id]}
        if (parts := parse_order_id(client_order_id)) is not None:
            params["start_date"] = _iso(parts.candle_ms)
        what = f"Looking up {client_order_id} ({symbol.id})"
        for seen in self._pages(what, ORDERS + "Batch", "orders", params, read):
            if seen is not None:
                self._ids[client_order_id] = seen.venue_order_id
                return seen
        return None

    def open_orders(self, symbols: Sequence[Symbol]) -> list[SeenOrder]:
        return [order for symbol in symbols for order in self._open_orders(symbol)]

    def fills(self, symbol: Symbol, since_ms: int) -> list[SeenFill]:
        """Told newest first; by trade id, so that one that comes while pages are read is not there twice."""
        what = f"Reading the executions of {symbol.id}"
        params = {"product_ids": [symbol.id], "start_sequence_timestamp": _iso(since_ms)}
        lot = self._listings.of(symbol).rules.lot
        pages = self._pages(what, ORDERS + "Fills", "fills", params, lambda one: read_fill(one, symbol, lot))
        found = {fill.venue_trade_id: fill for fill in pages}
        return sorted(found.values(), key=lambda fill: (fill.at, fill.venue_trade_id))

    def orders(self, symbol: Symbol, since_ms: int) -> list[SeenOrder]:
        """Told newest first."""
        params = {"product_ids": [symbol.id], "start_date": _iso(since_ms)}
        what = f"Reading the orders of {symbol.id}"
        pages = self._pages(what, ORDERS + "Batch", "orders", params, lambda one: read_any_order(one, symbol))
        found = {seen.venue_order_id: seen for seen in pages}
        return sorted(found.values(), key=lambda seen: (seen.created_at, seen.venue_order_id))

    def transfers(self, since_ms: int) -> list[SeenTransfer] | None:
        """Advanced Trade tells nobody of deposits, withdrawals or conversions."""
        return None

    def balances(self) -> dict[str, Balance]:
        """An asset may lie in more than one wallet."""
        found: dict[str, Balance] = {}
        for asset, free, locked in self._pages(
            "Reading the balances", "v3PrivateGetBrokerageAccounts", "accounts", {}, read_balance
        ):
            known = found.get(asset, Balance(asset, Decimal(0), Decimal(0)))
            found[asset] = Balance(asset, known.free + free, known.locked + locked)
        return {asset: balance for asset, balance in found.items() if balance.total}

    def rights(self) -> KeyRights:
        return self.session.ask("Reading the key's rights", "v3PrivateGetBrokerageKeyPermissions", {}, read_rights)

    def close(self) -> None:
        self.session.close()

    def _open_orders(self, symbol: Symbol) -> list[SeenOrder]:
        what = f"Reading the open orders of {symbol.id}"
        found: dict[str, SeenOrder] = {}
        for words in WORKING_WORDS:
            params = {"product_ids": [symbol.id], "order_status": words}
            for seen in self._pages(what, ORDERS + "Batch", "orders", params, lambda one: read_any_order(one, symbol)):
                found[seen.venue_order_id] = seen
        return [seen for seen in found.values() if seen.state in WORKING]

    def _by_id(self, symbol: Symbol, order_id: str) -> SeenOrder:
        what = f"Looking up order {order_id} ({symbol.id})"
        return self.session.ask(what, ORDERS + "OrderId", {"order_id": order_id}, lambda a: read_one(a, symbol))

    def _known(self, symbol: Symbol, order_id: str) -> SeenOrder | None:
        """None: not to be seen yet."""
        try:
            return self._by_id(symbol, order_id)
        except UnknownSymbol:
            return None
        except Answered as answered:
            if answered.status == 404:
                return None
            raise

    def _placed(self, what: str, order: NewOrder, order_id: str) -> SeenOrder:
        """What became of an order that was taken. While nobody tells, it works: it is there, under this id."""
        try:
            seen = self._by_id(order.symbol, order_id)
        except (ExchangeUnavailable, ExchangeRefused):
            now = moment(self.now_ms())
            return SeenOrder(order.client_order_id, order_id, *order[1:], "open", now, now)
        if any(getattr(seen, name) != getattr(order, name) for name in AS_SENT):
            raise OrderUnknown(f"{what}: {self.session.host} has another order by this id.", LOOK_UP)
        return seen

    def _before_cancel(self, what: str, symbol: Symbol, client_order_id: str) -> SeenOrder:
        """The order to be cancelled, for Coinbase's id of it. Nothing was sent where this fails."""
        try:
            seen = self.find(symbol, client_order_id)
        except (ExchangeUnavailable, ExchangeRefused) as error:
            raise OrderRefused(f"{what}: nothing was sent. {error.what}", "not_sent") from None
        if seen is None:
            raise OrderRefused(f"{what}: {self.session.host} knows of no such order.", "unknown_order")
        return seen

    def _cancelled(self, what: str, symbol: Symbol, order_id: str) -> SeenOrder:
        """The order's end, after a cancel that was taken."""
        taken = OrderUnknown(f"{what}: it was taken, and is not done yet.", LOOK_UP)
        for _ in range(CANCEL_LOOKS - 1):
            try:
                return last_state(lambda: self._by_id(symbol, order_id), taken)
            except OrderUnknown:
                time.sleep(CANCEL_PAUSE_S)
        return last_state(lambda: self._by_id(symbol, order_id), taken)

    def _pages(
        self, what: str, endpoint: str, name: str, params: dict[str, Any], read: Callable[[Mapping[str, Any]], T]
    ) -> Iterator[T]:
        """Every row of every page, as `read` understands it."""
        cursor = ""
        for _ in range(MOST_PAGES):
            asked = {**params, "limit": PAGE, **({"cursor": cursor} if cursor else {})}
            found, following = self.session.ask(what, endpoint, asked, lambda a: read_page(a, name, read))
            yield from found
            if not following:
                return
            if following == cursor:
                break
            cursor = following
        raise ExchangeUnavailable(f"{what}: the pages of {self.session.host} have no end.")


def signed_until_ms(order: NewOrder, window: Window) -> int:
    """When a request's signature ends: a whole second. A purchase must not come after its window; a sale may, by less than
    a second, rather than have hardly any."""
    until_ms = window.made_at_ms + window.length_ms
    late_ms = until_ms % SECOND_MS
    return until_ms if not late_ms else until_ms - late_ms + (SECOND_MS if order.side == "sell" else 0)


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
