"""The endpoints by which another process moves the market and looks into the exchange. JSON in, JSON out.

POST /control/price     {"symbol": "BTCUSDT", "price": "39000", "walk": false}
POST /control/clock     {"advance_ms": 60000} or {"now_ms": ...} or {"factor": 1.0}
POST /control/fault     {"kind": "reset", "path": "/order", "done": true, ...}; POST /control/heal {}
POST /control/market    {"symbol": "BTCUSDT", "status": "HALT", "liquidity": "0.5", "level": "0.1", "spread": "1"}
POST /control/expire    {"order": 7}; POST /control/fill {"order": 7, "share": 0.5}
POST /control/deposit   {"account": "main", "asset": "USDT", "amount": "1000"}
POST /control/move      {"account": "main", "kind": "withdrawal", "asset": "USDT", "amount": "100", "fee": "1",
                         "into": ["BNB", "0.1"], "told": true}
POST /control/order     {"account": "main", "symbol": "BTCUSDT", "side": "SELL", "qty": "0.1", "price": "50000"}
GET  /control/state     now, prices, accounts with balances, orders and trades; what is broken, if anything
GET  /control/log       every request that was processed, with its effect
GET  /control/unprotected?account=main&symbol=BTCUSDT&start=...&end=...   milliseconds
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.venue.exchange.accounts import Account
from tests.venue.exchange.binance.render import queried, traded
from tests.venue.exchange.exchange import Exchange
from tests.venue.exchange.faults import Fault, Plan
from tests.venue.exchange.invariants import broken
from tests.venue.exchange.money import exact
from tests.venue.exchange.wire import Call, Handler, Reply

ROOT = "/control/"
Json = dict[str, Any]
Action = Callable[[Exchange, Json], Any]


def price(exchange: Exchange, asked: Json) -> None:
    move = exchange.move_to if asked.get("walk") else exchange.trade_at
    move(asked["symbol"], asked["price"], asked.get("volume", 1))


def clock(exchange: Exchange, asked: Json) -> Json:
    if "now_ms" in asked or "advance_ms" in asked:
        exchange.now_ms = asked.get("now_ms", exchange.now_ms) + asked.get("advance_ms", 0)
    if "factor" in asked:
        exchange.clock.run(asked["factor"])
    exchange.catch_up()
    return {"now_ms": exchange.now_ms}


def market(exchange: Exchange, asked: Json) -> None:
    chosen = exchange.markets[asked["symbol"]]
    chosen.status = asked.get("status", chosen.status)
    if "spread" in asked:
        chosen.spread = exact(asked["spread"])
    if "liquidity" in asked or "level" in asked:
        exchange.shallow(asked["symbol"], asked.get("liquidity"), asked.get("level"))


def expire(exchange: Exchange, asked: Json) -> None:
    exchange.expire(exchange.engine.orders[asked["order"]])


def fill(exchange: Exchange, asked: Json) -> None:
    exchange.fill(exchange.engine.orders[asked["order"]], asked.get("share", 1))


def deposit(exchange: Exchange, asked: Json) -> None:
    exchange.account(asked["account"]).deposit(asked["asset"], asked["amount"])


def move(exchange: Exchange, asked: Json) -> None:
    with exchange.lock:
        exchange.owner.move(exchange.account(asked.pop("account")), **asked)


def order(exchange: Exchange, asked: Json) -> Json:
    """By hand."""
    with exchange.lock:
        exchange.market(asked["symbol"])
        placed = exchange.owner.order(exchange.account(asked.pop("account")), **asked)
        return {"order": placed.id, "client_id": placed.client_id}


def state(exchange: Exchange, asked: Json) -> Json:
    return {
        "now_ms": exchange.now_ms,
        "prices": {name: str(exchange.market(name).price) for name in exchange.listings},
        "accounts": {name: _account(mine) for name, mine in exchange.accounts.items()},
        "broken": list(broken(exchange.accounts.values(), exchange.engine)),
    }


def log(exchange: Exchange, asked: Json) -> list[Json]:
    return [
        {**entry._asdict(), "params": dict(entry.params), "effect": [str(event) for event in entry.effect]}
        for entry in exchange.log
    ]


def unprotected(exchange: Exchange, asked: Json) -> Json:
    span = int(asked.get("start", 0)), int(asked.get("end", exchange.now_ms))
    besides = asked.get("besides", 0)
    return {"unprotected_ms": exchange.unprotected_ms(asked["account"], asked["symbol"], *span, besides)}


def _account(mine: Account) -> Json:
    return {
        "balances": {
            asset: {"free": str(balance.free), "locked": str(balance.locked)}
            for asset, balance in mine.balances.items()
        },
        "orders": [queried(order) for order in mine.orders],
        "trades": [traded(trade) for trade in mine.trades],
    }


ACTIONS: dict[tuple[str, str], Action] = {
    ("POST", "price"): price,
    ("POST", "clock"): clock,
    ("POST", "market"): market,
    ("POST", "expire"): expire,
    ("POST", "fill"): fill,
    ("POST", "deposit"): deposit,
    ("POST", "move"): move,
    ("POST", "order"): order,
    ("GET", "state"): state,
    ("GET", "log"): log,
    ("GET", "unprotected"): unprotected,
}


def routes(plan: Plan) -> dict[tuple[str, str], Handler]:
    """With those that concern the server's faults."""
    faults: dict[tuple[str, str], Action] = {
        ("POST", "fault"): lambda exchange, asked: plan.add(_fault(asked)),
        ("POST", "heal"): lambda exchange, asked: plan.clear(),
    }
    return {(method, ROOT + name): _handler(action) for (method, name), action in {**ACTIONS, **faults}.items()}


def _fault(asked: Json) -> Fault:
    body = asked.pop("body", None)
    return Fault(**asked) if body is None else Fault(**asked, body=body.encode())


def _handler(action: Action) -> Handler:
    """A mistake in what was asked is told to who asked."""

    def handle(call: Call) -> Reply:
        try:
            return Reply(200, action(call.exchange, dict(call.query)))
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            return Reply(400, {"error": f"{type(error).__name__}: {error}"})

    return handle
