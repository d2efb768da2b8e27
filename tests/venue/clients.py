"""The real ccxt, unmodified, as a client of the loopback exchange."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.venue.exchange import Account, Exchange, Key, Loopback

ccxt = pytest.importorskip("ccxt")

NOW = 1_704_067_200_000  # 2024-01-01
PAIR, SYMBOL = "BTC/USDT", "BTCUSDT"


class Refusal(NamedTuple):
    """What an exchange answered instead."""

    status: int
    code: int
    message: str
    error: type[Exception]


def market(price: str = "40000", **balances: str) -> tuple[Exchange, Account]:
    """BTCUSDT and an account; by default one with 10,000 USDT."""
    exchange = Exchange(NOW)
    exchange.list(SYMBOL, "BTC", "USDT", price=price)
    return exchange, exchange.open_account("main", balances or {"USDT": "10000"})


def binance(server: Loopback, key: Key | None = None, timeout_s: float = 5.0) -> Any:
    """With the exchange's own clock; of its first account unless told otherwise."""
    client = binance_at(server.url, key or next(iter(server.exchange.accounts.values())).key, timeout_s)
    client.milliseconds = lambda: server.exchange.now_ms
    return client


def binance_at(url: str, key: Key, timeout_s: float = 5.0) -> Any:
    """With the clock of this machine."""
    api = {"public": url + "/api/v3", "private": url + "/api/v3", "sapi": url + "/sapi/v1"}
    options = {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False, "fetchMargins": False}
    return ccxt.binance(
        {
            "apiKey": key.key,
            "secret": key.secret,
            "timeout": round(timeout_s * 1000),
            "enableRateLimit": False,
            "urls": {"api": api},
            "options": {**options, "warnOnFetchOpenOrdersWithoutSymbol": False},
        }
    )


def coinbase(server: Loopback, key: Key | None = None, timeout_s: float = 5.0) -> Any:
    """With the exchange's own clock; of its first account unless told otherwise."""
    used = key or next(iter(server.exchange.accounts.values())).key
    client = ccxt.coinbase(
        {
            "apiKey": used.key,
            "secret": used.secret,
            "timeout": round(timeout_s * 1000),
            "enableRateLimit": False,
            "urls": {"api": {"rest": server.url}},
        }
    )
    client.milliseconds = lambda: server.exchange.now_ms
    client.seconds = lambda: server.exchange.now_ms // 1000
    return client


def refusal(ask: Callable[..., Any], *arguments: Any, **more: Any) -> Refusal:
    """How a request was refused: by HTTP status and the exchange's own code, as ccxt's classes mislead."""
    with pytest.raises(ccxt.BaseError) as caught:
        ask(*arguments, **more)
    causes: BaseException | None = caught.value
    while causes is not None and getattr(causes, "response", None) is None:
        causes = causes.__cause__ or causes.__context__
    if causes is None:
        raise AssertionError(f"not refused by an answer: {caught.value!r}") from caught.value
    response = causes.response  # type: ignore[attr-defined]
    answer = response.json()
    return Refusal(response.status_code, answer["code"], answer["msg"], caught.type)


class Desk:
    """An exchange, an account of it, and its client."""

    def __init__(self, exchange: Exchange, main: Account, server: Loopback) -> None:
        self.exchange, self.main, self.server = exchange, main, server
        self.client: Any = binance(server)

    def order(self, kind: str, side: str, qty: object, price: object = None, **params: Any) -> dict[str, Any]:
        """As the exchange itself answers it."""
        asked = {"symbol": SYMBOL, "side": side, "type": kind, "quantity": qty, "price": price, **params}
        answer = self.client.private_post_order({name: value for name, value in asked.items() if value is not None})
        return dict(answer)

    def stop(self, qty: object, stop: object, **params: Any) -> dict[str, Any]:
        return self.order("STOP_LOSS", "SELL", qty, stopPrice=stop, newOrderRespType="RESULT", **params)

    def oco(self, qty: object, above: object, stop: object, **params: Any) -> dict[str, Any]:
        below = {"belowType": "STOP_LOSS", "belowStopPrice": stop}
        asked = {"symbol": SYMBOL, "side": "SELL", "quantity": qty, "aboveType": "LIMIT_MAKER", "abovePrice": above}
        return dict(self.client.private_post_orderlist_oco({**asked, **below, **params}))

    def held(self, asset: str) -> Any:
        """Free and locked."""
        return tuple(self.main.balances[asset])

    def seen(self, order_id: object) -> dict[str, Any]:
        return dict(self.client.private_get_order({"symbol": SYMBOL, "orderId": order_id}))

    def states(self) -> list[str]:
        return [order.status for order in self.main.orders]
