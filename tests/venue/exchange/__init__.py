"""A loopback exchange that speaks the protocols of Binance (spot) and Coinbase (advanced trade) to the real ccxt.

    exchange = Exchange(now_ms=NOW)
    exchange.list("BTCUSDT", "BTC", "USDT", {"1h": rows})          # candles only
    exchange.list("ETHUSDT", "ETH", "USDT", price="2500")          # a market that trades
    main = exchange.open_account("main", {"USDT": "10000"})        # main.key.key, main.key.secret
    with Loopback(exchange, Fault("reset", "/order", done=True, times=1)) as server:
        ...                                                        # a client of server.url
        exchange.trade_at("ETHUSDT", "2400")                       # a gap; move_to() goes through what is between
    main.orders, main.trades, main.balances; exchange.log; exchange.invariants()

    exchange.forming, exchange.lag_ms = "low", 2_000               # given candles form as the clock goes, finals are late

It is one state, which outlives its clients; it shows what there is at `exchange.now_ms`, a clock that stands still
until a test sets or runs it. A protocol is a package with a table of ROUTES; the matching knows none of them.
"""

from tests.venue.exchange.accounts import Account, Key, made_key
from tests.venue.exchange.candles import DAY_MS, HOUR_MS, LENGTH_MS, MINUTE_MS, Rows, resampled
from tests.venue.exchange.exchange import Exchange
from tests.venue.exchange.faults import FOREVER, Fault
from tests.venue.exchange.market import Listing, Market
from tests.venue.exchange.orders import Event, Order, OrderList, Trade
from tests.venue.exchange.server import Loopback
from tests.venue.exchange.wire import Reply, Request

__all__ = [
    "DAY_MS",
    "FOREVER",
    "HOUR_MS",
    "LENGTH_MS",
    "MINUTE_MS",
    "Account",
    "Event",
    "Exchange",
    "Fault",
    "Key",
    "Listing",
    "Loopback",
    "Market",
    "Order",
    "OrderList",
    "Reply",
    "Request",
    "Rows",
    "Trade",
    "made_key",
    "resampled",
]
