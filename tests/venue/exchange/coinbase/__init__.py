"""Coinbase's advanced-trade protocol: which path is answered by what, for whom."""

from __future__ import annotations

from collections.abc import Callable

from tests.venue.exchange.accounts import Account
from tests.venue.exchange.coinbase import account, orders, public
from tests.venue.exchange.coinbase.auth import key_of, made_key
from tests.venue.exchange.coinbase.errors import ApiError
from tests.venue.exchange.exchange import Exchange
from tests.venue.exchange.money import Number
from tests.venue.exchange.wire import Call, Handler, Reply

__all__ = ["ROUTES", "made_key", "open_account"]

Signed = Callable[[Call, Account], Reply]
TOO_FAST = ApiError(429, "rate_limit_exceeded", "Too many requests")


def open_account(exchange: Exchange, name: str, deposits: dict[str, Number], **rights: bool) -> Account:
    """With a key of Coinbase's kind, and fees in quote as there."""
    mine = exchange.open_account(name, deposits, **rights)
    mine.key, mine.pays_in_quote = made_key(name, **rights), True
    exchange.add_key(mine.key)
    return mine


def anybody(handler: Handler) -> Handler:
    return lambda call: _served(call, lambda: (None, handler(call)))


def reads(handler: Signed) -> Handler:
    return lambda call: _served(call, lambda: _for_account(call, handler, trades=False))


def trades(handler: Signed) -> Handler:
    return lambda call: _served(call, lambda: _for_account(call, handler, trades=True))


def _for_account(call: Call, handler: Signed, trades: bool) -> tuple[Account, Reply]:
    key = key_of(call)
    mine = call.exchange.accounts[key.account]
    if not (key.may_trade and mine.may_trade if trades else key.may_read):
        raise ApiError(403, "PERMISSION_DENIED", "Missing required scopes")
    return mine, handler(call, mine)


def _served(call: Call, handler: Callable[[], tuple[Account | None, Reply]]) -> Reply:
    """Counted, answered, written down."""
    before, mine = len(call.exchange.events), None
    try:
        if call.exchange.rates.call(call.exchange.now_ms):
            raise TOO_FAST
        mine, reply = handler()
    except ApiError as error:
        reply = error.reply
    call.exchange.record(call.request, mine.name if mine else "", reply.status, before)
    return reply


API = "/api/v3/brokerage/"
ONE, ORDERS = "/(?P<product>[^/]+)", API + "orders"
ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", API + "time"): anybody(public.time),
    ("GET", "/v2/time"): anybody(public.time_v2),
    ("GET", "/v2/(currencies|currencies/crypto|exchange-rates)"): anybody(public.nothing_v2),
    ("POST", ORDERS): trades(orders.create),
    ("POST", ORDERS + "/batch_cancel"): trades(orders.batch_cancel),
    ("GET", ORDERS + "/historical/batch"): reads(account.orders),
    ("GET", ORDERS + "/historical/fills"): reads(account.fills),
    ("GET", ORDERS + "/historical/(?P<order>[^/]+)"): reads(account.order),
    ("GET", API + "accounts"): reads(account.wallets),
    ("GET", API + "transaction_summary"): reads(account.summary),
    ("GET", API + "key_permissions"): reads(account.permissions),
    ("GET", API + "best_bid_ask"): reads(lambda call, mine: public.best(call)),
    ("GET", API + "market/product_book"): anybody(public.book),
}
for _root in ("products", "market/products"):  # for those with a key, and for anybody
    ROUTES |= {
        ("GET", API + _root): anybody(public.products),
        ("GET", API + _root + ONE): anybody(public.product),
        ("GET", API + _root + ONE + "/candles"): anybody(public.candles),
        ("GET", API + _root + ONE + "/ticker"): anybody(public.ticker),
    }
