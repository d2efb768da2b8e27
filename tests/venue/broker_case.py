"""A desk for the tests of brokers: a loopback exchange whose clock runs, one account, and a broker of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from atb.core.keys import ApiKey
from atb.core.order_id import client_order_id
from atb.core.orders import NewOrder
from atb.core.types import Symbol
from atb.venue.broker import Window
from atb.venue.ccxt_session import Patience
from tests.venue.exchange import Account, Exchange, Fault, Loopback, coinbase

NOW = 1_704_067_230_000  # 2024-01-01, in the middle of a minute
BTC, ETH = Symbol("BTCUSDT", "BTC", "USDT"), Symbol("ETHUSDT", "ETH", "USDT")
BTC_USD, ETH_USD = Symbol("BTC-USD", "BTC", "USD"), Symbol("ETH-USD", "ETH", "USD")
PATIENCE = Patience(timeout_s=1.0, attempts=2, backoff_s=0.01, max_wait_s=0.5)


@dataclass
class Case:
    exchange: Exchange
    server: Loopback
    account: Account
    folder: Path | None = None
    ids: Iterator[str] = field(default_factory=lambda: (f"atb-3fk2-9ab1-sk2q4o-e{n}" for n in range(9999)))

    @property
    def key(self) -> ApiKey:
        return ApiKey(self.account.key.key, self.account.key.secret)

    def order(
        self,
        side: str = "buy",
        type: str = "market",
        qty: str = "0.01",
        price: str | None = None,
        stop: str | None = None,
        symbol: Symbol = BTC,
    ) -> NewOrder:
        at, trigger = (None if text is None else Decimal(text) for text in (price, stop))
        return NewOrder(next(self.ids), symbol, side, type, Decimal(qty), at, trigger)

    def window(self, length_ms: int = 2000, ago_ms: int = 0) -> Window:
        return Window(self.exchange.now_ms - ago_ms, length_ms)


@contextlib.contextmanager
def coinbase_desk(*faults: Fault, folder: Path | None = None) -> Iterator[Case]:
    """At Coinbase; ids are of a candle that has just closed there."""
    exchange = Exchange(NOW)
    for name, price in (("BTC", "40000"), ("ETH", "2500")):
        exchange.list(f"{name}-USD", name, "USD", price=price, lot="0.00000001", min_notional="1")
    account = coinbase.open_account(exchange, "main", {"USD": "10000", "BTC": "1"})
    exchange.clock.run()
    minutes = (client_order_id("main", BTC_USD.id, NOW // 60_000 * 60_000, "entry", n) for n in range(1000))
    with Loopback(exchange, *faults) as server:
        yield Case(exchange, server, account, folder, minutes)
    exchange.invariants()


@contextlib.contextmanager
def desk(*faults: Fault, folder: Path | None = None, deposits: dict[str, str] | None = None) -> Iterator[Case]:
    exchange = Exchange(NOW)
    exchange.list("BTCUSDT", "BTC", "USDT", price="40000")
    exchange.list("ETHUSDT", "ETH", "USDT", price="2500")
    exchange.list("BNBUSDT", "BNB", "USDT", price="300")
    account = exchange.open_account("main", deposits or {"USDT": "10000", "BTC": "1"})
    exchange.clock.run()
    with Loopback(exchange, *faults) as server:
        yield Case(exchange, server, account, folder)
    exchange.invariants()
