"""A loopback HTTP server that speaks the public protocols of Binance (spot) and Coinbase (advanced trade).

    exchange = Exchange(now_ms=NOW)
    exchange.list("BTCUSDT", "BTC", "USDT", {"1h": rows})
    with Loopback(exchange, Fault("reset", path="/klines", times=2)) as server:
        ...  # a client of server.url; server.requests is what it asked for

`rows` are (n, 6) arrays of open_time ms, open, high, low, close, volume. The server gives what an exchange would have
at `exchange.now_ms`: candles that have opened, the last of them unfinished. A Fault spoils answers: on the wire (an
answer that is none) or in the page (candles that are wrong). More endpoints join as entries of ROUTES.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float64]
Query = dict[str, str]
Spoil = Callable[[Rows], Rows]

FOREVER = 10**9
DAY_MS = 86_400_000
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
LENGTH_MS = {f"{n}m": n * MINUTE_MS for n in (1, 3, 5, 15, 30)}
LENGTH_MS |= {f"{n}h": n * HOUR_MS for n in (1, 2, 4, 6, 8, 12)} | {"1d": DAY_MS, "1w": 7 * DAY_MS}
GRANULARITY = {"ONE_MINUTE": "1m", "FIVE_MINUTE": "5m", "FIFTEEN_MINUTE": "15m", "THIRTY_MINUTE": "30m"}
GRANULARITY |= {"ONE_HOUR": "1h", "TWO_HOUR": "2h", "SIX_HOUR": "6h", "ONE_DAY": "1d"}


class Request(NamedTuple):
    """What a client asked for."""

    method: str
    path: str
    query: Query


class Reply(NamedTuple):
    """An answer: `body` is sent as JSON, or as it is when it is bytes."""

    status: int
    body: Any
    headers: Mapping[str, str] = MappingProxyType({})


class Fault(NamedTuple):
    """Spoils `times` answers to paths that contain `path`, after `skip` good ones."""

    kind: str  # a name in WIRE_FAULTS or PAGE_FAULTS
    path: str = ""
    times: int = FOREVER
    skip: int = 0
    status: int = 503
    retry_after: str = ""
    body: bytes = b"<html>sorry</html>"


# --- the exchange behind the protocols


class Listing(NamedTuple):
    """A symbol with its rules (as the exchange writes them) and its candles by timeframe."""

    base: str
    quote: str
    candles: dict[str, Rows]
    tick: str = "0.01000000"
    lot: str = "0.00001000"
    min_notional: str = "5.00000000"


class Exchange:
    """What both protocols show: symbols, their candles, and the time."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.listings: dict[str, Listing] = {}

    def list(self, symbol: str, base: str, quote: str, candles: dict[str, Rows], **rules: str) -> None:
        self.listings[symbol] = Listing(base, quote, candles, **rules)

    def candles(self, symbol: str, timeframe: str) -> Rows:
        """Every candle that has opened by now; longer timeframes are made from the shortest there is."""
        given = self.listings[symbol].candles
        rows = given.get(timeframe)
        if rows is None:
            finest = min(given, key=LENGTH_MS.__getitem__)
            rows = resampled(given[finest], LENGTH_MS[timeframe])
        return rows[rows[:, 0] <= self.now_ms]


def resampled(rows: Rows, length_ms: int) -> Rows:
    """Candles of `length_ms` made of shorter ones."""
    opens, first = np.unique(rows[:, 0] // length_ms * length_ms, return_index=True)
    last = np.append(first[1:], len(rows)) - 1
    high, low = np.maximum.reduceat(rows[:, 2], first), np.minimum.reduceat(rows[:, 3], first)
    volume = np.add.reduceat(rows[:, 5], first)
    return np.column_stack([opens, rows[first, 1], high, low, rows[last, 4], volume])


# --- Binance


def binance_ping(exchange: Exchange, query: Query, spoil: Spoil) -> Reply:
    return Reply(200, {})


def binance_time(exchange: Exchange, query: Query, spoil: Spoil) -> Reply:
    return Reply(200, {"serverTime": exchange.now_ms})


def binance_error(code: int, message: str) -> Reply:
    return Reply(400, {"code": code, "msg": message})


def binance_info(exchange: Exchange, query: Query, spoil: Spoil) -> Reply:
    wanted = json.loads(query["symbols"]) if "symbols" in query else [query["symbol"]] if "symbol" in query else None
    if wanted is not None and not set(wanted) <= set(exchange.listings):
        return binance_error(-1121, "Invalid symbol.")
    symbols = [binance_symbol(name, exchange.listings[name]) for name in wanted or exchange.listings]
    body = {"timezone": "UTC", "serverTime": exchange.now_ms, "rateLimits": [], "symbols": symbols}
    return Reply(200, body, {"x-mbx-used-weight-1m": "20"})


def binance_symbol(name: str, listing: Listing) -> dict[str, Any]:
    lot, tick = listing.lot, listing.tick
    notional = {"minNotional": listing.min_notional, "applyMinToMarket": True, "maxNotional": "9000000.00000000"}
    return {
        "symbol": name,
        "status": "TRADING",
        "baseAsset": listing.base,
        "quoteAsset": listing.quote,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
        "isSpotTradingAllowed": True,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000.00000000", "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": "9000.00000000", "stepSize": lot},
            {"filterType": "NOTIONAL", **notional, "applyMaxToMarket": False, "avgPriceMins": 5},
        ],
        "permissions": [],
    }


def binance_klines(exchange: Exchange, query: Query, spoil: Spoil) -> Reply:
    """The first `limit` candles from startTime on; without it the newest ones up to endTime."""
    if query["symbol"] not in exchange.listings:
        return binance_error(-1121, "Invalid symbol.")
    if query["interval"] not in LENGTH_MS:
        return binance_error(-1120, "Invalid interval.")
    limit = min(int(query.get("limit", 500)), 1000)
    rows = exchange.candles(query["symbol"], query["interval"])
    rows = rows[rows[:, 0] <= int(query.get("endTime", exchange.now_ms))]
    rows = rows[rows[:, 0] >= int(query["startTime"])][:limit] if "startTime" in query else rows[-limit:]
    length = LENGTH_MS[query["interval"]]
    return Reply(200, [kline(row, length) for row in spoil(rows)], {"x-mbx-used-weight-1m": "2"})


def kline(row: Rows, length_ms: int) -> list[Any]:
    opened, *numbers = row
    fields = [f"{number:.8f}" for number in numbers]
    return [int(opened), *fields, int(opened) + length_ms - 1, "0.00000000", 0, "0.00000000", "0.00000000", "0"]


# --- Coinbase


def coinbase_error(status: int, error: str, message: str) -> Reply:
    return Reply(status, {"error": error, "error_details": message, "message": message})


def coinbase_unknown(product: str) -> Reply:
    return coinbase_error(404, "NOT_FOUND", f"Product {product} not supported")


def coinbase_time(exchange: Exchange, query: Query, spoil: Spoil) -> Reply:
    seconds = str(exchange.now_ms // 1000)
    return Reply(200, {"iso": instant(exchange.now_ms), "epochSeconds": seconds, "epochMillis": str(exchange.now_ms)})


def coinbase_products(exchange: Exchange, query: Query, spoil: Spoil) -> Reply:
    products = [coinbase_product(name, listing) for name, listing in exchange.listings.items()]
    return Reply(200, {"products": products, "num_products": len(products)})


def coinbase_one(exchange: Exchange, query: Query, spoil: Spoil) -> Reply:
    listing = exchange.listings.get(query["product"])
    return Reply(200, coinbase_product(query["product"], listing)) if listing else coinbase_unknown(query["product"])


def coinbase_product(name: str, listing: Listing) -> dict[str, Any]:
    return {
        "product_id": name,
        "base_increment": listing.lot,
        "quote_increment": listing.tick,
        "price_increment": listing.tick,
        "quote_min_size": listing.min_notional,
        "base_min_size": listing.lot,
        "status": "online",
        "trading_disabled": False,
        "product_type": "SPOT",
        "base_currency_id": listing.base,
        "quote_currency_id": listing.quote,
        "alias": "",
        "alias_to": [],
    }


def coinbase_candles(exchange: Exchange, query: Query, spoil: Spoil) -> Reply:
    """The candles that open from start to end (both included), newest first, at most 350."""
    if query["product"] not in exchange.listings:
        return coinbase_unknown(query["product"])
    if query.get("granularity") not in GRANULARITY:
        return coinbase_error(400, "INVALID_ARGUMENT", "granularity argument is invalid")
    timeframe = GRANULARITY[query["granularity"]]
    start, end = int(query["start"]) * 1000, int(query["end"]) * 1000
    if (end - start) // LENGTH_MS[timeframe] >= 350:
        reason = "start and end argument is invalid - number of candles requested should be less than 350"
        return coinbase_error(400, "INVALID_ARGUMENT", reason)
    rows = exchange.candles(query["product"], timeframe)
    rows = spoil(rows[(rows[:, 0] >= start) & (rows[:, 0] <= end)][::-1])
    return Reply(200, {"candles": [bucket(row) for row in rows]})


def bucket(row: Rows) -> dict[str, str]:
    opened, *numbers = row
    names = ("open", "high", "low", "close", "volume")
    return {"start": str(int(opened) // 1000), **{n: repr(float(v)) for n, v in zip(names, numbers, strict=True)}}


def coinbase_ticker(exchange: Exchange, query: Query, spoil: Spoil) -> Reply:
    """The newest trade, at the opening of the newest candle."""
    if query["product"] not in exchange.listings:
        return coinbase_unknown(query["product"])
    given = exchange.listings[query["product"]].candles
    newest = spoil(exchange.candles(query["product"], min(given, key=LENGTH_MS.__getitem__))[-1:])
    trades = [{"trade_id": "1", "product_id": query["product"], "time": instant(row[0])} for row in newest]
    return Reply(200, {"trades": trades, "best_bid": "", "best_ask": ""})


def instant(time_ms: float) -> str:
    return str(np.datetime64(int(time_ms), "ms")) + "Z"


# --- faults


def html(fault: Fault) -> Reply:
    return Reply(200, b"<html><body>Please try again</body></html>", {"Content-Type": "text/html"})


def error_status(fault: Fault) -> Reply:
    headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
    return Reply(fault.status, fault.body, {"Content-Type": "text/html", **headers})


# Instead of an answer. None: the handler's method of that name does something to the connection.
WIRE_FAULTS: dict[str, Callable[[Fault], Reply] | None] = {
    "status": error_status,
    "html": html,
    "empty body": lambda fault: Reply(200, b""),
    "null candles": lambda fault: Reply(200, [None, [None] * 12]),
    "reset": None,
    "hang": None,
    "trickle": None,  # a byte now and then, so that no single read takes long
    "truncated": None,  # cut JSON that claims to be whole
    "broken off": None,  # less than the announced length
}


def shifted(by_ms: int) -> Spoil:
    def shift(rows: Rows) -> Rows:
        moved = rows.copy()
        moved[:, 0] += by_ms
        return moved

    return shift


def contradicting(rows: Rows) -> Rows:
    other = rows.copy()
    other[:, 4] *= 1.01
    return np.concatenate([rows, other])


def with_future(rows: Rows) -> Rows:
    """One more candle, of a time to come."""
    later = rows[-1:].copy()
    later[:, 0] += 400 * DAY_MS
    return np.concatenate([rows, later])


def with_next(rows: Rows) -> Rows:
    """One candle more than asked for: the one that follows, unfinished."""
    if len(rows) < 2:
        return rows
    following = rows[np.argmax(rows[:, 0])].copy()
    following[0] += abs(rows[1, 0] - rows[0, 0])
    return np.concatenate([rows, [following]])


PAGE_FAULTS: dict[str, Spoil] = {
    "empty list": lambda rows: rows[:0],
    "wrong order": lambda rows: np.roll(rows, 7, axis=0)[::-1],
    "duplicated": lambda rows: np.concatenate([rows, rows[::2]]),
    "contradicting": contradicting,
    "future": with_future,
    "one more": with_next,
    "shifted off the grid": shifted(1_234_000),
    "shifted back": shifted(-40 * DAY_MS),
    "shifted on": shifted(3_600_000 * 5),
}


# --- the server

PRODUCTS = "/api/v3/brokerage/market/products"
ROUTES: dict[tuple[str, str], Callable[[Exchange, Query, Spoil], Reply]] = {
    ("GET", "/api/v3/ping"): binance_ping,
    ("GET", "/api/v3/time"): binance_time,
    ("GET", "/api/v3/exchangeInfo"): binance_info,
    ("GET", "/api/v3/klines"): binance_klines,
    ("GET", "/api/v3/brokerage/time"): coinbase_time,
    ("GET", PRODUCTS): coinbase_products,
    ("GET", PRODUCTS + "/(?P<product>[^/]+)"): coinbase_one,
    ("GET", PRODUCTS + "/(?P<product>[^/]+)/candles"): coinbase_candles,
    ("GET", PRODUCTS + "/(?P<product>[^/]+)/ticker"): coinbase_ticker,
}


class Loopback:
    """The server: a context manager. `url` is its root, `requests` what came in (also those that were spoilt)."""

    def __init__(self, exchange: Exchange, *faults: Fault) -> None:
        self.exchange = exchange
        self.faults = faults
        self._seen = [0] * len(faults)
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_of": self}))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()

    def count(self, path: str) -> int:
        """How many requests had `path` in theirs."""
        return sum(path in request.path for request in self.requests)

    def arrived(self, request: Request) -> Fault | None:
        """Notes a request and takes the fault that is due for it."""
        with self._lock:
            self.requests.append(request)
            for i, fault in enumerate(self.faults):
                if fault.path in request.path:
                    self._seen[i] += 1
                    if fault.skip < self._seen[i] <= fault.skip + fault.times:
                        return fault
        return None

    def reply(self, request: Request, spoil: Spoil) -> Reply:
        for (method, pattern), handler in ROUTES.items():
            if method == request.method and (found := re.fullmatch(pattern, request.path)):
                return handler(self.exchange, {**request.query, **found.groupdict()}, spoil)
        return Reply(404, b"<html>no such path</html>", {"Content-Type": "text/html"})


class _Handler(BaseHTTPRequestHandler):
    """One connection, kept alive."""

    server_of: Loopback
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        request = Request(self.command, parts.path, query)
        fault = self.server_of.arrived(request)
        if fault is None or fault.kind in PAGE_FAULTS:
            spoil = PAGE_FAULTS[fault.kind] if fault else lambda rows: rows
            self.send(self.server_of.reply(request, spoil))
        elif (instead := WIRE_FAULTS[fault.kind]) is not None:
            self.send(instead(fault))
        else:
            getattr(self, fault.kind.replace(" ", "_"))(request)

    def send(self, reply: Reply, cut: int = 0, announced: int = 0) -> None:
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        body = body[: len(body) - cut]
        date = formatdate(self.server_of.exchange.now_ms / 1000, usegmt=True)
        headers = {"Date": date, "Content-Type": "application/json", "Content-Length": str(len(body) + announced)}
        lines = [f"{name}: {value}" for name, value in {**headers, **reply.headers}.items()]
        head = "\r\n".join([f"HTTP/1.1 {reply.status} {self.responses.get(reply.status, ('?',))[0]}", *lines, "", ""])
        self.wfile.write(head.encode() + body)

    def reset(self, request: Request) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.close_connection = True
        self.connection.close()

    def hang(self, request: Request) -> None:
        self.server_of.closing.wait(30)
        self.close_connection = True

    def trickle(self, request: Request) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
        with contextlib.suppress(OSError):  # until the client has had enough
            while not self.server_of.closing.wait(0.05):
                self.wfile.write(b"{")
        self.close_connection = True

    def truncated(self, request: Request) -> None:
        self.send(self.server_of.reply(request, lambda rows: rows), cut=20)

    def broken_off(self, request: Request) -> None:
        self.send(self.server_of.reply(request, lambda rows: rows), cut=20, announced=20)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests look at `requests`."""
