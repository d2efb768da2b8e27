"""The loopback exchange as a program: python -m tests.venue.exchange --port 9000 --seed 7

It prints one line of JSON (url, key, secret) once it answers, and runs until it is ended. Its state outlives whatever
trades with it. The market stands still unless --walk is given, or control.py's endpoints move it.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np

from tests.venue.exchange import DAY_MS, LENGTH_MS, Exchange, Loopback, Rows, coinbase

TICK_S = 0.05


def history(seed: int, count: int, timeframe: str, end_ms: int, price: float) -> Rows:
    """A random walk that ends at this price, in candles that have closed."""
    rng, length = np.random.default_rng(seed), LENGTH_MS[timeframe]
    steps = rng.normal(0, 0.012 * (length / DAY_MS) ** 0.5, count)
    close = np.round(price * np.exp(np.cumsum(steps) - np.sum(steps)), 2)
    opened = np.append(close[:1], close[:-1])
    spread = 1 + np.abs(rng.normal(0, 0.002 * (length / DAY_MS) ** 0.5, count))
    high, low = np.round(np.maximum(opened, close) * spread, 2), np.round(np.minimum(opened, close) / spread, 2)
    first = end_ms // length * length - count * length
    volume = np.round(rng.uniform(1, 90, count), 5)
    return np.column_stack([first + length * np.arange(count), opened, high, low, close, volume])


def wander(exchange: Exchange, seed: int, walk_bps: float, stop: threading.Event) -> None:
    """Each tick a step of about so many basis points, in every market that trades."""
    rng = random.Random(seed)
    while not stop.wait(TICK_S):
        for name, market in exchange.markets.items():
            step = 1 + rng.gauss(0, walk_bps / 10_000)
            if market.status == "TRADING":
                exchange.move_to(name, round(float(market.price) * step, 2), round(rng.uniform(0.01, 2), 5))


def made(options: argparse.Namespace) -> Exchange:
    exchange = Exchange(options.now_ms or int(time.time() * 1000))
    for symbol in options.symbol:
        name, base, quote, price = symbol.split(":")
        rows = history(options.seed, options.history, options.timeframe, exchange.now_ms, float(price))
        exchange.list(name, base, quote, {options.timeframe: rows} if len(rows) else {}, price=price)
    deposits = dict(balance.split("=") for balance in options.balance)
    for account in options.account:
        if options.coinbase:
            coinbase.open_account(exchange, account, deposits)
        else:
            exchange.open_account(account, deposits, may_withdraw=options.may_withdraw)
    for market in exchange.markets.values() if options.halted else ():
        market.status = "HALT"
    exchange.clock.run(options.factor)
    return exchange


def read(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.venue.exchange")
    parser.add_argument("--port", type=int, default=0, help="0: any")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--symbol", action="append", help="NAME:BASE:QUOTE:PRICE, several times")
    parser.add_argument("--account", action="append", help="a name, several times; default main")
    parser.add_argument("--balance", action="append", help="ASSET=AMOUNT, several times; default USDT=10000")
    parser.add_argument("--now-ms", type=int, default=0, help="where the clock begins; default now")
    parser.add_argument("--factor", type=float, default=1.0, help="how fast it runs; 0 stands still")
    parser.add_argument("--history", type=int, default=1000, help="how many candles there are before that")
    parser.add_argument("--timeframe", default="1h", choices=LENGTH_MS)
    parser.add_argument("--coinbase", action="store_true", help="keys and fees as there")
    parser.add_argument("--walk", type=float, default=0.0, metavar="BPS", help="move by about this in each tick")
    parser.add_argument("--may-withdraw", action="store_true", help="that is what the keys may do, too")
    parser.add_argument("--halted", action="store_true", help="nothing trades")
    options = parser.parse_args(arguments)
    options.symbol = options.symbol or ["BTCUSDT:BTC:USDT:40000"]
    options.account = options.account or ["main"]
    options.balance = options.balance or ["USDT=10000"]
    return options


def main(arguments: Sequence[str]) -> None:
    options, stop = read(arguments), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    exchange = made(options)
    with Loopback(exchange, seed=options.seed, port=options.port, controlled=True) as server:
        key = exchange.accounts[options.account[0]].key
        told = {"url": server.url, "key": key.key, "secret": key.secret, "now_ms": exchange.now_ms}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        if options.walk:
            threading.Thread(target=wander, args=(exchange, options.seed, options.walk, stop), daemon=True).start()
        stop.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
