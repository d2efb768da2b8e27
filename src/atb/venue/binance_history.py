"""All orders of an account since a time, page by page."""

from __future__ import annotations

from typing import Any

from atb.core.orders import SeenOrder
from atb.core.types import Symbol
from atb.venue.binance_orders import read_any_order
from atb.venue.ccxt_errors import unusable
from atb.venue.ccxt_session import Session
from atb.venue.fields import rows

PAGE = 1000  # Binance's most


class OrderPages:
    """Reads orders. The first page is by time, each further one by the exchange's order ids, as executions are."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def since(self, symbol: Symbol, since_ms: int) -> list[SeenOrder]:
        page = self._page(symbol, {"startTime": max(0, since_ms)}, 0)
        orders = list(page)
        while len(page) >= PAGE:
            following = int(page[-1].venue_order_id) + 1
            page = self._page(symbol, {"orderId": following}, following)
            orders += page
        return orders

    def _page(self, symbol: Symbol, begin: dict[str, int], first_id: int) -> list[SeenOrder]:
        def read(answer: Any) -> list[SeenOrder]:
            page = [read_any_order(one, symbol) for one in rows(answer, "order")]
            ids = [int(order.venue_order_id) for order in page]
            if len(set(ids)) < len(ids) or (ids and min(ids) < first_id):
                raise unusable("gave other orders than those that were asked for")
            return sorted(page, key=lambda order: int(order.venue_order_id))

        params = {"symbol": symbol.id, "limit": PAGE, **begin}
        return self.session.ask(f"Reading the orders of {symbol.id}", "privateGetAllOrders", params, read)
