"""Public candles through the real ccxt, against a loopback server speaking the exchanges' protocols."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atb.core.errors import AtbError, ExchangeRefused, ExchangeUnavailable, UsageError
from atb.core.types import MarketRules, Symbol, symbol_for
from atb.venue.ccxt_candles import VENUES, CandlePage, fetch_candles
from atb.venue.ccxt_errors import VERDICTS, Verdict, trouble_of
from atb.venue.ccxt_markets import fetch_market_rules, list_symbols
from atb.venue.reachable import reachable
from tests.venue.loopback import DAY_MS, FOREVER, Exchange, Fault, Loopback, Rows

ccxt = pytest.importorskip("ccxt")

HOUR_MS = 3_600_000
START = 1_704_067_200_000  # 2024-01-01
NAMES = {"binance": ("BTCUSDT", "BTC", "USDT"), "coinbase": ("BTC-USD", "BTC", "USD")}
CANDLES = {"binance": "/klines", "coinbase": "/candles"}
PER_PAGE = {"binance": 1000, "coinbase": 300}


def made(count: int, start: int = START, length_ms: int = HOUR_MS, seed: int = 7) -> Rows:
    """Candles with prices of two decimals."""
    rng = np.random.default_rng(seed)
    close = np.round(40_000 + np.cumsum(rng.normal(0, 50, count)), 2)
    opened = np.append(40_000.0, close[:-1])
    high, low = np.maximum(opened, close) + 1.25, np.minimum(opened, close) - 1.25
    volume = np.round(rng.uniform(0, 900, count), 5)
    return np.column_stack([start + length_ms * np.arange(count), opened, high, low, close, volume])


def with_holes(rows: Rows, *holes: tuple[int, int]) -> Rows:
    keep = np.ones(len(rows), dtype=bool)
    for first, stop in holes:
        keep[first:stop] = False
    return rows[keep]


def market(venue: str, rows: Rows, now_ms: int, timeframe: str = "1h") -> Exchange:
    exchange = Exchange(now_ms)
    exchange.list(*NAMES[venue], {timeframe: rows})
    return exchange


def fetched(venue: str, server: Loopback | str, start: int, end: int, now_ms: int, **options: Any) -> list[CandlePage]:
    """All pages; quick to try again, so that a test of faults takes no time."""
    options = {"timeframe": "1h", "symbol": Symbol(*NAMES[venue]), "backoff_s": 0.01, "timeout_s": 2.0, **options}
    url = server if isinstance(server, str) else server.url
    pages = fetch_candles(venue, start_ms=start, end_ms=end, base_url=url, now_ms=lambda: now_ms, **options)
    return list(pages)


def joined(pages: list[CandlePage]) -> Rows:
    return np.concatenate([page.rows for page in pages]) if pages else np.empty((0, 6))


@contextmanager
def closed_port() -> Iterator[str]:
    """The URL of a port that nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


# --- what is fetched


@pytest.mark.parametrize("venue", VENUES)
def test_every_closed_candle_once_over_holes_and_pages(venue: str) -> None:
    rows = with_holes(made(4000), (0, 10), (299, 302), (998, 1003), (1500, 2300), (3990, 3992))
    now = START + 4000 * HOUR_MS - HOUR_MS // 2  # the last candle is half done
    with Loopback(market(venue, rows, now)) as server:
        pages = fetched(venue, server, START - 200 * HOUR_MS, now + 10 * DAY_MS, now)
    assert np.array_equal(joined(pages), rows[:-1])
    assert all(0 < len(page.rows) <= PER_PAGE[venue] for page in pages)
    assert len(server.requests) <= 4300 / PER_PAGE[venue] + 12
    assert server.count(CANDLES[venue]) == len(server.requests), "no markets, no currencies"


@pytest.mark.parametrize("venue", VENUES)
def test_bounds_need_not_be_aligned(venue: str) -> None:
    rows = made(50)
    with Loopback(market(venue, rows, START + 90 * HOUR_MS)) as server:
        pages = fetched(venue, server, START + 3 * HOUR_MS + 1, START + 9 * HOUR_MS + 1, START + 90 * HOUR_MS)
    assert np.array_equal(joined(pages), rows[4:10])


@pytest.mark.parametrize(
    ("timeframe", "length_ms"), [("1m", 60_000), ("15m", 900_000), ("1d", DAY_MS), ("1w", 7 * DAY_MS)]
)
def test_other_timeframes(timeframe: str, length_ms: int) -> None:
    rows = made(1200, start=START, length_ms=length_ms)  # 2024-01-01 is a Monday: Binance's weeks open there
    now = START + 1200 * length_ms
    with Loopback(market("binance", rows, now, timeframe)) as server:
        pages = fetched("binance", server, START - length_ms // 2, now, now, timeframe=timeframe)
    assert np.array_equal(joined(pages), rows)
    assert len(server.requests) == 2


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("clock_error_ms", [-40 * 60_000, 0, 5 * HOUR_MS])
def test_only_closed_candles_whatever_this_machines_clock_says(venue: str, clock_error_ms: int) -> None:
    rows, now = made(100), START + 60 * HOUR_MS + 35 * 60_000
    with Loopback(market(venue, rows, now)) as server:
        pages = fetched(venue, server, START, FOREVER * 10_000, now + clock_error_ms)
    assert np.array_equal(joined(pages), rows[: 60 if clock_error_ms >= 0 else 59])


@pytest.mark.parametrize("venue", VENUES)
def test_a_candle_is_fetched_at_the_moment_it_closes(venue: str) -> None:
    rows, now = made(100), START + 60 * HOUR_MS
    with Loopback(market(venue, rows, now)) as server:
        assert joined(fetched(venue, server, START + 58 * HOUR_MS, now, now))[-1, 0] == START + 59 * HOUR_MS
        assert fetched(venue, server, now, now + HOUR_MS, now) == []


@pytest.mark.parametrize("venue", VENUES)
def test_years_before_the_listing_cost_few_requests(venue: str) -> None:
    rows, now = made(400, length_ms=60_000), START + 400 * 60_000
    with Loopback(market(venue, rows, now, "1m")) as server:
        pages = fetched(venue, server, START - 1200 * DAY_MS, now, now, timeframe="1m")
        before = fetched(venue, server, START - 900 * DAY_MS, START - DAY_MS, now, timeframe="1m")
    assert np.array_equal(joined(pages), rows)
    assert before == []
    assert len(server.requests) <= 30


@pytest.mark.parametrize("venue", VENUES)
def test_a_symbol_no_longer_traded_just_ends(venue: str) -> None:
    rows, now = made(500), START + 400 * DAY_MS
    with Loopback(market(venue, rows, now)) as server:
        pages = fetched(venue, server, START, now, now)
    assert np.array_equal(joined(pages), rows)
    assert len(server.requests) <= 12


def test_candles_off_the_grid_are_dropped() -> None:
    """As Binance has them after its outage of February 2018: 14.789 s late for hours."""
    rows = made(2600)
    late = rows.copy()
    late[900:2100, 0] += 14_789
    now = START + 2600 * HOUR_MS
    with Loopback(market("binance", late, now)) as server:
        pages = fetched("binance", server, START, now, now)
    assert np.array_equal(joined(pages), with_holes(rows, (900, 2100)))


# --- what goes wrong and passes


TRANSIENT = ["status", "html", "empty body", "null candles", "reset", "truncated", "broken off", "empty list"]
TRANSIENT += [
    "wrong order",
    "duplicated",
    "contradicting",
    "future",
    "shifted off the grid",
    "shifted back",
    "shifted on",
]


@pytest.mark.parametrize(("venue", "skip"), [("binance", 0), ("binance", 1), ("coinbase", 1)])
@pytest.mark.parametrize("kind", TRANSIENT)
def test_a_fault_that_passes_leaves_no_trace(venue: str, kind: str, skip: int) -> None:
    count = PER_PAGE[venue] + 90
    rows, now = made(count), START + count * HOUR_MS
    with Loopback(market(venue, rows, now), Fault(kind, times=1, skip=skip)) as server:
        pages = fetched(venue, server, START, now, now)
    assert np.array_equal(joined(pages), rows)
    assert len(server.requests) <= 4


@pytest.mark.parametrize(
    ("venue", "kind"), [*((v, k) for v in VENUES for k in ("wrong order", "duplicated")), ("binance", "one more")]
)
def test_order_repetition_and_an_unfinished_candle_do_not_matter(venue: str, kind: str) -> None:
    count = PER_PAGE[venue] + 90
    rows, now = made(count), START + count * HOUR_MS
    with Loopback(market(venue, rows, now), Fault(kind)) as server:
        assert np.array_equal(joined(fetched(venue, server, START, now, now)), rows)
    assert len(server.requests) == 2


@pytest.mark.parametrize("venue", VENUES)
def test_a_hang_is_given_up_and_asked_again(venue: str) -> None:
    rows, now = made(50), START + 50 * HOUR_MS
    with Loopback(market(venue, rows, now), Fault("hang", times=1)) as server:
        pages = fetched(venue, server, START, now, now, timeout_s=0.3)
    assert np.array_equal(joined(pages), rows)


@pytest.mark.parametrize("venue", VENUES)
def test_too_many_requests_waits_as_long_as_asked(venue: str) -> None:
    rows, now = made(50), START + 50 * HOUR_MS
    with Loopback(market(venue, rows, now), Fault("status", times=1, status=429, retry_after="1")) as server:
        began = time.monotonic()
        pages = fetched(venue, server, START, now, now)
    assert np.array_equal(joined(pages), rows)
    assert time.monotonic() - began >= 1.0


# --- what goes wrong and stays


PERSISTENT = {
    "status": "answered HTTP 503",
    "html": "no list of candles",
    "empty body": "no list of candles",
    "null candles": "",
    "reset": "broke the connection off",
    "truncated": "no list of candles",
    "broken off": "broke the connection off",
    "empty list": "empty list",
    "contradicting": "contradict",
    "future": "future",
    "shifted back": "other candles than those from 2024-01-01T00:00:00Z",
}


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("kind", PERSISTENT)
def test_a_fault_that_stays_is_a_clear_error_after_few_requests(venue: str, kind: str) -> None:
    rows, now = made(700), START + 700 * HOUR_MS
    with Loopback(market(venue, rows, now), Fault(kind)) as server, pytest.raises(ExchangeUnavailable) as caught:
        fetched(venue, server, START, now, now, attempts=3)
    assert server.url.removeprefix("http://") in caught.value.what
    assert NAMES[venue][0] in caught.value.what
    assert PERSISTENT[kind] in caught.value.what
    assert "--provider simulated" in caught.value.hint
    assert len(server.requests) <= 12


@pytest.mark.parametrize("venue", VENUES)
def test_candles_that_are_never_on_the_grid_are_refused(venue: str) -> None:
    rows, now = made(700), START + 700 * HOUR_MS
    words = "none opening where a 1h candle does|asked for"
    fault = Fault("shifted off the grid")
    with Loopback(market(venue, rows, now), fault) as server, pytest.raises(ExchangeUnavailable, match=words):
        fetched(venue, server, START, now, now)


@pytest.mark.parametrize("venue", VENUES)
def test_pages_before_a_fault_stay_good(venue: str) -> None:
    rows, now = made(1500), START + 1500 * HOUR_MS
    symbol = Symbol(*NAMES[venue])
    with Loopback(market(venue, rows, now), Fault("empty list", skip=1)) as server:
        pages = fetch_candles(venue, symbol, "1h", START, now, base_url=server.url, now_ms=lambda: now, backoff_s=0.01)
        assert np.array_equal(next(pages).rows, rows[: PER_PAGE[venue]])
        with pytest.raises(ExchangeUnavailable):
            next(pages)


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize(
    ("status", "retry_after", "words"),
    [(418, "120", "asks to wait 120 s"), (429, "3600", "asks to wait 3600 s")],
)
def test_an_exchange_that_shuts_the_door_is_not_hammered(venue: str, status: int, retry_after: str, words: str) -> None:
    exchange = market(venue, made(9), START + DAY_MS)
    fault = Fault("status", status=status, retry_after=retry_after)
    with Loopback(exchange, fault) as server, pytest.raises(ExchangeUnavailable, match=words):
        fetched(venue, server, START, START + DAY_MS, START + DAY_MS)
    assert len(server.requests) == 1


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("status", [403, 451])
def test_a_place_or_key_that_is_not_served_is_refused_at_once(venue: str, status: int) -> None:
    fault = Fault("status", status=status, body=b'{"msg": "not from here"}')
    with Loopback(market(venue, made(9), START + DAY_MS), fault) as server:
        with pytest.raises(
            ExchangeRefused, match=rf"HTTP {status} \(not from here\): this location or key is"
        ) as caught:
            fetched(venue, server, START, START + DAY_MS, START + DAY_MS)
        assert len(server.requests) == 1, "nothing else is asked, not even whether the symbol exists"
    assert caught.value.exit_code == 5 and "another network" in caught.value.hint


@pytest.mark.parametrize("venue", VENUES)
def test_a_hang_that_stays_takes_as_long_as_it_was_told_to(venue: str) -> None:
    with Loopback(market(venue, made(9), START + DAY_MS), Fault("hang")) as server:
        began = time.monotonic()
        with pytest.raises(ExchangeUnavailable, match=r"did not answer in time \(2 attempts\)"):
            fetched(venue, server, START, START + DAY_MS, START + DAY_MS, timeout_s=0.2, attempts=2)
    assert time.monotonic() - began < 1.5
    assert len(server.requests) == 2


@pytest.mark.parametrize("venue", VENUES)
def test_nobody_there(venue: str) -> None:
    with closed_port() as url, pytest.raises(ExchangeUnavailable, match="refused the connection") as caught:
        fetched(venue, url.replace("//", "//user:secret@"), START, START + DAY_MS, START + DAY_MS)
    assert "secret" not in str(caught.value) + caught.value.hint


# --- what the user got wrong


@pytest.mark.parametrize(("venue", "wrong"), [("binance", "BTCUSDX"), ("coinbase", "BTX-USD")])
@pytest.mark.parametrize("asked_for", ["candles", "rules"])
def test_an_unknown_symbol_names_the_nearest(venue: str, wrong: str, asked_for: str) -> None:
    symbol = symbol_for("coinbase", wrong) if venue == "coinbase" else Symbol(wrong, "BTC", "USDX")
    with Loopback(market(venue, made(9), START + DAY_MS)) as server, pytest.raises(UsageError) as caught:
        if asked_for == "candles":
            fetched(venue, server, START, START + DAY_MS, START + DAY_MS, symbol=symbol)
        else:
            fetch_market_rules(venue, symbol, base_url=server.url)
    assert caught.value.what == f"Unknown symbol '{wrong}' at {venue}."
    assert caught.value.hint == f"Nearest: {NAMES[venue][0]}."
    assert len(server.requests) == 2


def test_an_unknown_symbol_is_one_even_without_the_list() -> None:
    exchange, fault = market("binance", made(9), START + DAY_MS), Fault("status", path="exchangeInfo")
    with Loopback(exchange, fault) as server, pytest.raises(UsageError, match="Unknown symbol 'BTCUSDX' at binance"):
        symbol = Symbol("BTCUSDX", "BTC", "USDX")
        fetched("binance", server, START, START + DAY_MS, START + DAY_MS, symbol=symbol)


@pytest.mark.parametrize(
    ("venue", "timeframe", "words"),
    [
        ("coinbase", "4h", "It has 1m, 5m, 15m, 30m, 1h, 2h, 6h, 1d."),
        ("binance", "7h", "Nearest"),
        ("binance", "1M", "1d, 1w."),
        ("binance", "3d", "1d, 1w."),
    ],
)
def test_a_timeframe_the_exchange_lacks_names_those_it_has(venue: str, timeframe: str, words: str) -> None:
    with Loopback(market(venue, made(9), START + DAY_MS)) as server, pytest.raises(UsageError) as caught:
        fetched(venue, server, START, START + DAY_MS, START + DAY_MS, timeframe=timeframe)
    assert timeframe in caught.value.what
    assert words in caught.value.hint
    assert server.requests == []


def test_an_unknown_venue_and_a_base_url_that_is_none() -> None:
    with pytest.raises(UsageError, match="Unknown venue 'binanse'"):
        list_symbols("binanse")
    for url in ("127.0.0.1:9000", "ftp://127.0.0.1", "http://"):
        with pytest.raises(UsageError, match="base URL"):
            fetched("binance", url, START, START + DAY_MS, START + DAY_MS)


@pytest.mark.parametrize("venue", VENUES)
def test_a_server_that_is_no_exchange_is_refused_once(venue: str) -> None:
    with Loopback(market(venue, made(9), START + DAY_MS)) as server, pytest.raises(ExchangeRefused, match="404"):
        fetched(venue, server.url + "/elsewhere", START, START + DAY_MS, START + DAY_MS)
    assert len(server.requests) == 2  # the candles, and the list that would have explained an unknown symbol


# --- rules, names, ping


@pytest.mark.parametrize("venue", VENUES)
def test_rules_come_as_the_exchange_writes_them(venue: str) -> None:
    exchange = Exchange(START)
    rules = {"tick": "0.00000010", "lot": "1.00000000", "min_notional": "10.00000000"}
    exchange.list(*NAMES[venue], {"1h": made(9)}, **rules)
    with Loopback(exchange) as server:
        got = fetch_market_rules(venue, Symbol(*NAMES[venue]), base_url=server.url)
    source = {"binance": "binance exchangeInfo", "coinbase": "coinbase products"}[venue]
    today = time.strftime("%Y-%m-%d", time.gmtime())
    most = {"binance": Decimal(120), "coinbase": Decimal(9000)}[venue]
    assert got == MarketRules(
        NAMES[venue][0], Decimal(1), Decimal("1E-7"), Decimal(10), source, today, Decimal(1), most
    )
    assert (str(got.lot), str(got.min_notional)) == ("1", "10")
    assert len(server.requests) == 1


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("bad", ["0.00000000", "abc", "NaN", ""])
def test_rules_that_cannot_be_are_not_believed(venue: str, bad: str) -> None:
    exchange = Exchange(START)
    exchange.list(*NAMES[venue], {"1h": made(9)}, lot=bad)
    words, fault = "without the symbol's rules", Fault("html", times=1)
    with Loopback(exchange, fault) as server, pytest.raises(ExchangeUnavailable, match=words):
        fetch_market_rules(venue, Symbol(*NAMES[venue]), base_url=server.url, attempts=2, backoff_s=0.01)


@pytest.mark.parametrize("venue", VENUES)
def test_names_of_all_symbols(venue: str) -> None:
    exchange = market(venue, made(9), START)
    exchange.list("AAA-USD", "AAA", "USD", {"1h": made(9)})
    with Loopback(exchange) as server:
        assert list_symbols(venue, base_url=server.url) == ["AAA-USD", NAMES[venue][0]]


@pytest.mark.parametrize("venue", VENUES)
def test_reachable(venue: str) -> None:
    with Loopback(market(venue, made(9), START)) as server:
        assert reachable(venue, server.url, 2.0)
    for kind in ("html", "status", "reset", "hang", "trickle"):
        with Loopback(market(venue, made(9), START), Fault(kind)) as server:
            began = time.monotonic()
            assert not reachable(venue, server.url, 0.3)
            assert time.monotonic() - began < 1.0
    with closed_port() as url:
        assert not reachable(venue, url, 0.3)
    assert not reachable(venue, "no url", 0.3)
    assert not reachable("nowhere", None, 0.3)


# --- the table of failures


def test_every_ccxt_exception_has_a_verdict() -> None:
    classes = [getattr(ccxt, name) for name in ccxt.errors.__all__ if name != "error_hierarchy"]
    verdicts = {cls.__name__: trouble_of(cls("binance said so")).verdict for cls in classes}
    assert verdicts["BadSymbol"] is verdicts["AuthenticationError"] is Verdict.REFUSED
    assert verdicts["RequestTimeout"] is verdicts["OnMaintenance"] is verdicts["OperationFailed"] is Verdict.AGAIN
    assert verdicts["DDoSProtection"] is verdicts["RateLimitExceeded"] is Verdict.LIMITED
    assert {type(key) for key in VERDICTS} == {int, str}


def test_the_exchanges_own_code_goes_before_ccxts_class() -> None:
    assert trouble_of(ccxt.ExchangeError('binance {"code":-1001,"msg":"Internal error."}')).verdict is Verdict.AGAIN
    trouble = trouble_of(ccxt.BadRequest('binance {"code":-1121,"msg":"Invalid symbol."}'))
    assert (trouble.verdict, trouble.reason) == (Verdict.UNKNOWN_SYMBOL, "answered Invalid symbol")


def test_a_server_error_may_be_asked_again_whatever_ccxt_calls_it() -> None:
    """Coinbase's 500 with a JSON body arrives as a plain ExchangeError, like a wrong request."""
    exchange, body = market("coinbase", made(9), START + DAY_MS), b'{"error":"internal_server_error","message":"oops"}'
    with Loopback(exchange, Fault("status", times=1, status=500, body=body)) as server:
        pages = fetched("coinbase", server, START, START + DAY_MS, START + DAY_MS)
    assert len(joined(pages)) == 9


def test_importing_costs_no_ccxt() -> None:
    code = "import sys, atb.venue.ccxt_candles, atb.venue.ccxt_markets; sys.exit('ccxt' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


# --- real candles


@pytest.fixture
def real_data() -> Path:
    folder = os.environ.get("ATB_TEST_DATA")
    if not folder:
        pytest.skip("ATB_TEST_DATA is not set: real candles were NOT tested")
    return Path(folder)


def test_real_candles_over_real_outages(real_data: Path) -> None:
    """Binance's first months: four outages, a candle cut short, from before the listing."""
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(real_data / "binance_BTCUSDT_1h.parquet").slice(0, 6000)
    columns = [table.column(name).to_numpy() for name in ("open", "high", "low", "close", "volume")]
    opened = table.column("open_time").to_numpy().astype("datetime64[ms]").astype(np.int64)
    rows = np.column_stack([opened, *columns]).astype(np.float64)
    now = int(opened[-1]) + 20 * 60_000
    with Loopback(market("binance", rows, now)) as server:
        pages = fetched("binance", server, int(opened[0]) - 90 * DAY_MS, now, now)
    assert np.array_equal(joined(pages), rows[:-1])
    assert len(server.requests) <= 12


def test_the_loopback_answers_as_binance_did(real_data: Path) -> None:
    real = json.loads((real_data / "raw/binance_klines_rest/ETHUSDT_1h_2018-02-01.json").read_text())
    rows = np.array([[float(field) for field in row[:6]] for row in real])
    exchange = Exchange(int(rows[-1, 0]) + 2 * HOUR_MS)
    exchange.list("ETHUSDT", "ETH", "USDT", {"1h": rows})
    client = ccxt.binance({"urls": {"api": {"public": "http://127.0.0.1:1/api/v3"}}})
    with Loopback(exchange) as server:
        client.urls["api"]["public"] = server.url + "/api/v3"
        answer = client.publicGetKlines({"symbol": "ETHUSDT", "interval": "1h", "startTime": real[0][0], "limit": 1000})
        pages = fetched(
            "binance", server, real[0][0], exchange.now_ms, exchange.now_ms, symbol=Symbol("ETHUSDT", "ETH", "USDT")
        )
    assert [row[:6] for row in answer] == [row[:6] for row in real]
    assert {len(row) for row in answer} == {len(row) for row in real} == {12}
    assert np.array_equal(joined(pages), rows)


def test_rules_from_a_real_exchange_info(real_data: Path) -> None:
    from atb.venue.ccxt_markets import binance_rules

    answer = json.loads((real_data / "raw/binance_spot_exchangeInfo.majors.json").read_text())
    rules = binance_rules(answer, "BTCUSDT", "today")
    assert (rules.lot, rules.tick, rules.min_notional) == (Decimal("0.00001"), Decimal("0.01"), Decimal(5))
    assert (rules.min_qty, rules.max_qty) == (Decimal("0.00001"), Decimal("129.84957276"))  # the most of a market order
    with pytest.raises(Exception, match="without the symbol's rules"):
        binance_rules(answer, "NOSUCH", "today")


def test_errors_are_our_own() -> None:
    """Nothing of ccxt, requests or tenacity leaves the package: callers catch AtbError alone."""
    assert issubclass(ExchangeUnavailable, AtbError)
    with closed_port() as url, pytest.raises(AtbError):
        list_symbols("binance", base_url=url, timeout_s=0.5)
