"""Coinbase's words for orders, executions and balances, and ours. A word in no table raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import Any, NamedTuple, TypeVar

from atb.core.money import DIGITS
from atb.core.order_id import parse_order_id
from atb.core.orders import OTHER, Balance, KeyRights, NewOrder, SeenFill, SeenOrder
from atb.core.types import Symbol
from atb.venue.broker import Features
from atb.venue.ccxt_errors import Trouble, Verdict, unusable
from atb.venue.ccxt_markets import coinbase_rules
from atb.venue.fields import amount, flag, plain, positive, row, rows, text
from atb.venue.listings import Listing
from atb.venue.new_orders import check_numbers, malformed

T = TypeVar("T")


class Kind(NamedTuple):
    """How Coinbase configures an order type. post_only: None where it has no such field."""

    name: str
    price: bool
    stop_price: bool
    post_only: bool | None


KINDS = {
    "market": Kind("market_market_ioc", price=False, stop_price=False, post_only=None),
    "limit": Kind("limit_limit_gtc", price=True, stop_price=False, post_only=False),
    "stop_limit": Kind("stop_limit_stop_limit_gtc", price=True, stop_price=True, post_only=None),
    "take_limit": Kind("limit_limit_gtc", price=True, stop_price=False, post_only=True),
}
TYPES = {(kind.name, kind.post_only): ours for ours, kind in KINDS.items()}
STATES = {
    "PENDING": "open",
    "QUEUED": "open",
    "OPEN": "open",
    "CANCEL_QUEUED": "open",  # it may still fill
    "EDIT_QUEUED": "open",
    "FILLED": "filled",
    "CANCELLED": "cancelled",
    "EXPIRED": "expired",
    "FAILED": "rejected",
}
SIDES = {"buy": "BUY", "sell": "SELL"}
STOPS_FROM = {"buy": "STOP_DIRECTION_STOP_UP", "sell": "STOP_DIRECTION_STOP_DOWN"}
_OUR_SIDES = {name: ours for ours, name in SIDES.items()}
# Coinbase has no stop that becomes a market order, and its bracket is one order, where a pair is two.
FEATURES = Features(("stop_limit",), 500, pairs=False)


def order_params(order: NewOrder) -> dict[str, Any]:
    """The parameters of POST orders. Raises OrderRefused (malformed) before anything is sent."""
    kind = KINDS.get(order.type)
    if kind is None or order.side not in SIDES:
        raise malformed(order, f"cannot be a {order.side} {order.type} order at Coinbase")
    check_numbers(order, kind.price, kind.stop_price)
    fields: dict[str, Any] = {"base_size": plain(order.qty)}
    if order.price is not None:
        fields["limit_price"] = plain(order.price)
    if order.stop_price is not None:
        fields |= {"stop_price": plain(order.stop_price), "stop_direction": STOPS_FROM[order.side]}
    if kind.post_only is not None:
        fields["post_only"] = kind.post_only
    return {
        "client_order_id": order.client_order_id,
        "product_id": order.symbol.id,
        "side": SIDES[order.side],
        "order_configuration": {kind.name: fields},
    }


def read_accepted(answer: Any, order: NewOrder) -> str:
    """Coinbase's id of the order that it has taken. What became of it, the answer does not say."""
    accepted = row(answer, "order")
    if not flag(accepted, "success"):
        raise unusable("gave an answer that is neither a success nor an error")
    told = row(accepted.get("success_response"), "order")
    if told.get("client_order_id") not in (None, order.client_order_id):
        raise unusable("answered with an order that is not the one that was sent")
    return text(told, "order_id")


def read_one(answer: Any, symbol: Symbol) -> SeenOrder:
    return read_order(row(answer, "order").get("order"), symbol)


def read_order(answer: Any, symbol: Symbol) -> SeenOrder:
    """An order as Coinbase tells of it."""
    seen = row(answer, "order")
    if text(seen, "product_id") != symbol.id:
        raise unusable("gave an order of another symbol")
    ours, fields = _configured(seen)
    kind, status = KINDS[ours], _known(seen, "status", STATES)
    qty, filled = positive(fields, "base_size"), amount(seen, "filled_size")
    if filled > qty:
        raise unusable("gave an order that is filled more than whole")
    created = instant(seen, "created_time")
    return SeenOrder(
        client_order_id=text(seen, "client_order_id"),
        venue_order_id=text(seen, "order_id"),
        symbol=symbol,
        side=_known(seen, "side", _OUR_SIDES),
        type=ours,
        qty=qty,
        price=positive(fields, "limit_price") if kind.price else None,
        stop_price=positive(fields, "stop_price") if kind.stop_price else None,
        state="partially_filled" if status == "open" and filled else status,
        created_at=created,
        updated_at=instant(seen, "last_fill_time") if seen.get("last_fill_time") else created,
        filled_qty=filled,
    )


def read_any_order(answer: Any, symbol: Symbol) -> SeenOrder:
    """An order in a list of all: one that is not ours may be of a type that we have no word for."""
    seen = row(answer, "order")
    try:
        return read_order(seen, symbol)
    except Trouble:
        if parse_order_id(str(seen.get("client_order_id"))) is not None or seen.get("product_id") != symbol.id:
            raise
    return _foreign(seen, symbol)


def _foreign(seen: Mapping[str, Any], symbol: Symbol) -> SeenOrder:
    """What matters of it: whether it works, and what it has done. One that is told in quote has no quantity of its own."""
    status, filled, created = _known(seen, "status", STATES), amount(seen, "filled_size"), instant(seen, "created_time")
    given = row(seen.get("order_configuration"), "order configuration")
    sizes = [fields["base_size"] for fields in given.values() if isinstance(fields, dict) and fields.get("base_size")]
    qty = positive({"base_size": sizes[0]}, "base_size") if sizes else filled
    return SeenOrder(
        client_order_id=str(seen.get("client_order_id") or ""), venue_order_id=text(seen, "order_id"), symbol=symbol,
        side=_known(seen, "side", _OUR_SIDES), type=OTHER, qty=qty, price=None, stop_price=None,
        state="partially_filled" if status == "open" and filled else status, created_at=created, updated_at=created,
        filled_qty=filled,
    )  # fmt: skip


def _configured(seen: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Our type of an order, and the fields of its configuration, which has one name."""
    given = row(seen.get("order_configuration"), "order configuration")
    names = [name for name, fields in given.items() if fields is not None]
    fields = row(given[names[0]], "order configuration") if len(names) == 1 else {}
    name = names[0] if names else "none"
    post_only = flag(fields, "post_only") if name == KINDS["limit"].name else None
    if (name, post_only) not in TYPES:
        raise _strange(seen, "type", name)
    return TYPES[name, post_only], fields


def read_page(answer: Any, name: str, read: Callable[[Mapping[str, Any]], T]) -> tuple[list[T], str]:
    """The rows of a page, and where the next begins; empty at the end."""
    page = row(answer, "page")
    cursor = page.get("cursor") or ""
    if not isinstance(cursor, str):
        raise unusable("gave a page with a cursor that is none")
    more = flag(page, "has_next") if "has_next" in page else bool(cursor)
    return [read(one) for one in rows(page.get(name), name.removesuffix("s"))], cursor if more else ""


def read_fill(answer: Mapping[str, Any], symbol: Symbol, lot: Decimal) -> SeenFill:
    """An execution; its fee is always in quote. One that is told in quote is counted in lots of base."""
    if text(answer, "product_id") != symbol.id or answer.get("trade_type", "FILL") != "FILL":
        raise Trouble(Verdict.CLOSED, f"tells of an execution {answer.get('trade_id')} that atb cannot book")
    price, size = positive(answer, "price"), positive(answer, "size")
    if answer.get("size_in_quote"):
        with localcontext(prec=DIGITS):
            size = (size / price / lot).to_integral_value() * lot
    return SeenFill(
        venue_trade_id=text(answer, "trade_id"),
        venue_order_id=text(answer, "order_id"),
        symbol=symbol,
        side=_known(answer, "side", _OUR_SIDES),
        qty=size,
        price=price,
        fee=amount(answer, "commission"),
        fee_asset=symbol.quote,
        fee_quote=None,
        at=instant(answer, "trade_time"),
    )


def read_balance(answer: Mapping[str, Any]) -> Balance:
    free, hold = (row(answer.get(name), "balance") for name in ("available_balance", "hold"))
    return Balance(text(answer, "currency"), amount(free, "value"), amount(hold, "value"))


def read_rights(answer: Any) -> KeyRights:
    told = row(answer, "list of rights")
    return KeyRights(flag(told, "can_trade"), flag(told, "can_transfer"))


def read_listing(answer: Any, symbol: Symbol, date: str) -> Listing:
    product = row(answer, "product")
    flags = ("trading_disabled", "is_disabled", "view_only", "cancel_only", "limit_only", "post_only", "auction_mode")
    closed = [name for name in flags if product.get(name) is True]
    status = text(product, "status")
    why = ", ".join([status] * (status != "online") + closed)
    return Listing(coinbase_rules(answer, symbol.id, date), why, FEATURES)


def instant(fields: Mapping[str, Any], name: str) -> datetime:
    """A time as in 2024-01-31T12:00:00.123456Z."""
    try:
        at = datetime.fromisoformat(text(fields, name))
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise unusable(f"gave an answer without a usable {name}") from None


def _known(seen: Mapping[str, Any], name: str, table: Mapping[str, str]) -> str:
    word = text(seen, name)
    if word not in table:
        raise _strange(seen, name, word)
    return table[word]


def _strange(seen: Mapping[str, Any], name: str, word: str) -> Trouble:
    return Trouble(
        Verdict.CLOSED, f"tells of order {seen.get('order_id')} with the {name} {word}, which atb does not know"
    )
