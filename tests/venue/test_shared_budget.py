"""What the exchange says about our weight reaches every process of the machine, through the real ccxt."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from atb.core.errors import ExchangeUnavailable
from atb.core.types import Symbol
from atb.venue.ccxt_candles import fetch_candles
from atb.venue.ccxt_markets import fetch_market_rules
from atb.venue.ccxt_session import host_of
from atb.venue.rate_budget import LIMITS, Priority, RateBudget
from atb.venue.reachable import reachable
from tests.venue.exchange import HOUR_MS, Exchange, Fault, Loopback

ccxt = pytest.importorskip("ccxt")

NOW = 1_704_067_200_000
SYMBOL = Symbol("BTCUSDT", "BTC", "USDT")


def exchange() -> Exchange:
    one = Exchange(NOW)
    opened = NOW - HOUR_MS * np.arange(50, 0, -1)
    one.list("BTCUSDT", "BTC", "USDT", {"1h": np.column_stack([opened, *[np.full(50, 9.0)] * 5])})
    return one


def fetched(server: Loopback, rates: Path, max_wait_s: float = 65.0) -> int:
    pages = fetch_candles(
        "binance",
        SYMBOL,
        "1h",
        0,
        NOW,
        base_url=server.url,
        now_ms=lambda: NOW,
        rates=rates,
        backoff_s=0.01,
        max_wait_s=max_wait_s,
    )
    return sum(len(page.rows) for page in pages)


def budget(server: Loopback, rates: Path) -> RateBudget:
    return RateBudget(rates, host_of(server.url), LIMITS["binance"])


def test_reads_take_what_they_weigh_and_learn_what_others_use(tmp_path: Path) -> None:
    with Loopback(exchange()) as server:
        assert fetched(server, tmp_path) == 50
        fetch_market_rules("binance", SYMBOL, base_url=server.url, rates=tmp_path)
        one = budget(server, tmp_path)
        with one._tally() as (tally, _):
            # Two pages and the rules; unless a minute ended in between.
            assert tally.taken in (24, 22, 20, 0)


def test_too_fast_silences_every_process_until_the_exchange_says(tmp_path: Path) -> None:
    with Loopback(exchange(), Fault("status", times=1, status=429, retry_after="1")) as server:
        began = time.monotonic()
        assert fetched(server, tmp_path) == 50
        assert time.monotonic() - began > 1.0
    with Loopback(exchange(), Fault("status", times=1, status=418, retry_after="90")) as server:
        with pytest.raises(ExchangeUnavailable, match="418"):
            fetched(server, tmp_path)
        assert 85 < budget(server, tmp_path).take(1, Priority.PROTECT) < 90.01
        with pytest.raises(ExchangeUnavailable, match=r"is not asked for another \d\d s"):
            fetched(server, tmp_path)
        assert not reachable("binance", server.url, rates=tmp_path)
        assert len(server.requests) == 1, "during a ban each request makes it longer"


def test_a_ban_that_names_its_end_in_words_is_kept(tmp_path: Path) -> None:
    until = round((time.time() + 500) * 1000)
    body = f'{{"code":-1003,"msg":"Way too much request weight used; IP banned until {until}. Please"}}'.encode()
    with Loopback(exchange(), Fault("status", times=1, status=418, body=body)) as server:
        with pytest.raises(ExchangeUnavailable):
            fetched(server, tmp_path)
        assert 490 < budget(server, tmp_path).silent_s() < 500.01


def test_a_full_budget_is_waited_for_but_not_for_ever(tmp_path: Path) -> None:
    with Loopback(exchange()) as server:
        one = budget(server, tmp_path)
        while one.take(2, Priority.DATA) == 0:
            pass
        with pytest.raises(ExchangeUnavailable, match="used up"):
            fetched(server, tmp_path, max_wait_s=0.001)
        assert server.requests == []
