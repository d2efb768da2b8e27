"""Binance's words for orders, executions and balances, and ours: one table each, read both ways. A word in no table raises."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from atb.core.order_id import parse_order_id
from atb.core.orders import OTHER, Balance, NewOrder, SeenFill, SeenOrder
from atb.core.types import Symbol
from atb.venue.ccxt_errors import Trouble, Verdict, unusable
from atb.venue.fields import amount, flag, moment, plain, positive, row, rows, text, whole
from atb.venue.new_orders import check_numbers, malformed


class Kind(NamedTuple):
    """How Binance names an order type, and which fields go with it."""

    name: str
    price: bool
    stop_price: bool
    rests: bool  # until cancelled; LIMIT_MAKER takes no timeInForce


KINDS = {
    "market": Kind("MARKET", price=False, stop_price=False, rests=False),
    "limit": Kind("LIMIT", price=True, stop_price=False, rests=True),
    "stop": Kind("STOP_LOSS", price=False, stop_price=True, rests=False),
    "stop_limit": Kind("STOP_LOSS_LIMIT", price=True, stop_price=True, rests=True),
    # It never takes: one whose price the market has passed already is refused (would_match), not filled at once.
    "take_limit": Kind("LIMIT_MAKER", price=True, stop_price=False, rests=False),
}
NO_KIND = Kind("", price=False, stop_price=False, rests=False)
TYPES = {kind.name: ours for ours, kind in KINDS.items()}
STATES = {
    "NEW": "open",
    "PENDING_NEW": "open",  # waits for another order of its list
    "PENDING_CANCEL": "open",  # documented as unused: working until it says otherwise
    "PARTIALLY_FILLED": "partially_filled",
    "FILLED": "filled",
    "CANCELED": "cancelled",
    "REJECTED": "rejected",
    "EXPIRED": "expired",
    "EXPIRED_IN_MATCH": "expired",  # it would have traded with an order of the same account
}
SIDES = {"buy": "BUY", "sell": "SELL"}
_OUR_SIDES = {name: ours for ours, name in SIDES.items()}


def order_params(order: NewOrder) -> dict[str, str]:
    """The parameters of POST order. Raises OrderRefused (malformed) before anything is sent."""
    kind = _kind(order)
    params = {
        "symbol": order.symbol.id,
        "side": SIDES[order.side],
        "type": kind.name,
        "quantity": plain(order.qty),
        "newClientOrderId": order.client_order_id,
        "newOrderRespType": "RESULT",
    }
    return params | {name: value for name, value in _prices(order, kind).items() if value}


def pair_params(take: NewOrder, stop: NewOrder) -> dict[str, str]:
    """The parameters of POST orderList/oco: a leg above the market and one below, of the same quantity."""
    if (take.symbol, take.side, take.qty) != (stop.symbol, stop.side, stop.qty) or take.type != "take_limit":
        raise malformed(take, "and its stop are no pair")
    above, below = (take, stop) if take.side == "sell" else (stop, take)
    params = {
        "symbol": take.symbol.id,
        "side": SIDES[take.side],
        "quantity": plain(take.qty),
        "newOrderRespType": "RESULT",
    }
    return params | _leg("above", above) | _leg("below", below)


def _leg(where: str, order: NewOrder) -> dict[str, str]:
    kind = _kind(order)
    fields = {"type": kind.name, "clientOrderId": order.client_order_id, **_prices(order, kind)}
    return {f"{where}{name[0].upper()}{name[1:]}": value for name, value in fields.items() if value}


def _prices(order: NewOrder, kind: Kind) -> dict[str, str]:
    return {
        "price": plain(order.price) if order.price else "",
        "stopPrice": plain(order.stop_price) if order.stop_price else "",
        "timeInForce": "GTC" if kind.rests else "",
    }


def _kind(order: NewOrder) -> Kind:
    """The order's type at Binance; its numbers must be those that go with it."""
    kind = KINDS.get(order.type)
    if kind is None or order.side not in SIDES:
        raise malformed(order, f"cannot be a {order.side} {order.type} order")
    check_numbers(order, kind.price, kind.stop_price)
    return kind


def read_order(answer: Any, symbol: Symbol, client_order_id: str | None = None) -> SeenOrder:
    """An order as Binance tells of it. client_order_id: whose it must be."""
    seen = row(answer, "order")
    # After a cancel `clientOrderId` is the id of the cancel.
    own_id = text(seen, "origClientOrderId" if seen.get("origClientOrderId") else "clientOrderId")
    if text(seen, "symbol") != symbol.id or client_order_id not in (None, own_id):
        raise unusable("gave another order than the one that was asked for")
    return _read(seen, symbol, own_id, KINDS[_known(seen, "type", TYPES)])


def read_any_order(answer: Any, symbol: Symbol) -> SeenOrder:
    """An order in a list of all: one that is not ours may be of a type that we have no word for."""
    seen = row(answer, "order")
    own_id = text(seen, "clientOrderId")
    if seen.get("type") in TYPES or parse_order_id(own_id) is not None:
        return read_order(seen, symbol, own_id)
    if text(seen, "symbol") != symbol.id:
        raise unusable("gave an order of another symbol")
    return _read(seen, symbol, own_id, NO_KIND)


def _read(seen: Mapping[str, Any], symbol: Symbol, own_id: str, kind: Kind) -> SeenOrder:
    qty, filled = amount(seen, "origQty"), amount(seen, "executedQty")
    if filled > qty:
        raise unusable("gave an order that is filled more than whole")
    told = "time" if "time" in seen else _latest(seen)  # a cancel's answer does not tell when the order was made
    return SeenOrder(
        client_order_id=own_id,
        venue_order_id=str(whole(seen, "orderId")),
        symbol=symbol,
        side=_known(seen, "side", _OUR_SIDES),
        type=TYPES.get(kind.name, OTHER),
        qty=qty,
        price=positive(seen, "price") if kind.price else None,
        stop_price=positive(seen, "stopPrice") if kind.stop_price else None,
        state=_known(seen, "status", STATES),
        created_at=moment(seen, told),
        updated_at=moment(seen, _latest(seen)),
        filled_qty=filled,
    )


def _latest(seen: Mapping[str, Any]) -> str:
    return "updateTime" if "updateTime" in seen else "transactTime"


def read_cancelled(answer: Any, symbol: Symbol, client_order_id: str) -> SeenOrder:
    """A cancelled order's last state. Cancelling a leg of a pair cancels both, and the answer has both."""
    seen = row(answer, "order")
    if "orderReports" not in seen:
        return read_order(seen, symbol, client_order_id)
    return _report(seen, symbol, client_order_id)


def read_pair(answer: Any, take: NewOrder, stop: NewOrder) -> tuple[SeenOrder, SeenOrder]:
    seen = row(answer, "pair of orders")
    return _report(seen, take.symbol, take.client_order_id), _report(seen, stop.symbol, stop.client_order_id)


def _report(seen: Mapping[str, Any], symbol: Symbol, client_order_id: str) -> SeenOrder:
    for report in rows(seen.get("orderReports"), "order"):
        if client_order_id in (report.get("origClientOrderId"), report.get("clientOrderId")):
            return read_order(report, symbol, client_order_id)
    raise unusable("gave an answer without the order that was asked for")


def read_placed(answer: Any, order: NewOrder) -> SeenOrder:
    """The answer to an order, which must be the order that was sent."""
    seen = read_order(answer, order.symbol, order.client_order_id)
    same = ("side", "type", "qty", "price", "stop_price")
    if any(getattr(seen, name) != getattr(order, name) for name in same):
        raise unusable("answered with an order that is not the one that was sent")
    return seen


def read_fill(answer: Mapping[str, Any], symbol: Symbol) -> SeenFill:
    """An execution. `fee_quote` is left out: where the fee is in a third asset, its worth has to be asked for."""
    if text(answer, "symbol") != symbol.id:
        raise unusable("gave executions of another symbol")
    return SeenFill(
        venue_trade_id=str(whole(answer, "id")),
        venue_order_id=str(whole(answer, "orderId")),
        symbol=symbol,
        side="buy" if flag(answer, "isBuyer") else "sell",
        qty=positive(answer, "qty"),
        price=positive(answer, "price"),
        fee=amount(answer, "commission"),
        fee_asset=text(answer, "commissionAsset"),
        fee_quote=None,
        at=moment(answer, "time"),
    )


def read_balances(answer: Any) -> dict[str, Balance]:
    """Every asset of which there is some."""
    found: dict[str, Balance] = {}
    for one in rows(row(answer, "account").get("balances"), "balance"):
        balance = Balance(text(one, "asset"), amount(one, "free"), amount(one, "locked"))
        if balance.asset in found:
            raise unusable("gave two balances of one asset")
        if balance.total != Decimal(0):
            found[balance.asset] = balance
    return found


def _known(seen: Mapping[str, Any], name: str, table: Mapping[str, str]) -> str:
    """Our word for the exchange's. One that is in no table is the same each time: no use in asking again."""
    word = text(seen, name)
    if word not in table:
        raise Trouble(
            Verdict.CLOSED, f"tells of order {seen.get('orderId')} with the {name} {word}, which atb does not know"
        )
    return table[word]
