"""Candles from an exchange through `atb`: page by page into the store, and never asked for again."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atb.core.timeframe import iso, parse_time_ms
from atb.data.layout import SeriesKey
from atb.data.store import CandleStore
from tests.conftest import START_MS, random_candles
from tests.integration.shell import Ran, Shell
from tests.seeds import thinned
from tests.venue.loopback import Exchange, Fault, Loopback, Rows

HOUR_MS = 3_600_000
NAMES = {"binance": ("BTCUSDT", "BTC", "USDT"), "coinbase": ("BTC-USD", "BTC", "USD")}
CANDLES = {"binance": "/klines", "coinbase": "/candles"}
PER_PAGE = {"binance": 1000, "coinbase": 300}
COUNT = 3500
RANGE = ("--start", "2024-01-02", "--end", "2024-05-01")  # inside the COUNT candles
RANGE_HOURS = (parse_time_ms(RANGE[3], "") - parse_time_ms(RANGE[1], "")) // HOUR_MS
venues = pytest.mark.parametrize("venue", thinned(NAMES, 2))


def rows(count: int = COUNT, start_ms: int = START_MS) -> Rows:
    c = random_candles(count, start_ms=start_ms)
    return np.column_stack([c.open_time, c.open, c.high, c.low, c.close, c.volume])


def exchange(venue: str, candles: Rows | None = None) -> Exchange:
    """An exchange with one symbol, whose clock shows the hour after the last candle."""
    candles = rows() if candles is None else candles
    made = Exchange(int(candles[-1, 0]) + HOUR_MS + 1000)
    made.list(*NAMES[venue], {"1h": candles})
    return made


def shell_at(folder: Path, venue: str, url: str) -> Shell:
    return Shell(folder, **{f"ATB_{venue.upper()}_API_URL": url})


def backtest(shell: Shell, venue: str, *args: str, env: Mapping[str, str] | None = None) -> Ran:
    return shell("backtest", "sma_cross", "--symbol", NAMES[venue][0], "--provider", venue, "--json", *args, env=env)


def parts(shell: Shell, venue: str) -> list[tuple[int, int]]:
    """The ranges of the stored parts, in hours since START_MS."""
    store = CandleStore(shell.home / "candles")
    found = store.parts(SeriesKey(venue, "spot", NAMES[venue][0], "1h"))
    return [((part.start_ms - START_MS) // HOUR_MS, (part.end_ms - START_MS) // HOUR_MS) for part in found]


def untimed(ran: Ran) -> dict[str, Any]:
    assert ran.code == 0, ran.err
    return {key: value for key, value in ran.json.items() if key != "timing"}


@contextmanager
def closed_port() -> Iterator[str]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@venues
def test_pages_go_into_the_store_and_are_never_asked_for_again(tmp_path: Path, venue: str) -> None:
    with Loopback(exchange(venue)) as server:
        shell = shell_at(tmp_path, venue, server.url)
        first = backtest(shell, venue, *RANGE)
        # 99 candles of warm-up before the range are asked for too; the exchange has 24.
        pages = -(-(RANGE_HOURS + 99) // PER_PAGE[venue])
        assert pages - 1 <= server.count(CANDLES[venue]) <= pages + 1
        assert untimed(first)["data"][0]["rows"] == RANGE_HOURS
        assert untimed(first)["data"][0]["venue"] == venue
        assert "the first 75 candles are warm-up" in untimed(first)["notes"][0]
        stored = CandleStore(shell.home / "candles").read(SeriesKey(venue, "spot", NAMES[venue][0], "1h"))
        assert stored is not None
        expected = rows()[: RANGE_HOURS + 24]
        assert np.array_equal(
            np.column_stack([stored.open_time, stored.open, stored.high, stored.low, stored.close, stored.volume]),
            expected,
        )
        assert NAMES[venue][0] in first.err and "100%" in first.err and "Note" not in first.err
        before = len(server.requests)
        second = backtest(shell, venue, *RANGE)
        assert len(server.requests) == before
        assert second.err == ""
        assert untimed(second) == untimed(first)
    offline = backtest(shell, venue, *RANGE, "--offline")
    assert untimed(offline) == untimed(first) and offline.err == ""


def test_a_longer_range_asks_for_the_rest_only(tmp_path: Path) -> None:
    with Loopback(exchange("binance")) as server:
        shell = shell_at(tmp_path, "binance", server.url)
        backtest(shell, "binance", "--start", "2024-02-01", "--end", "2024-02-11", "-p", "slow=3", "-p", "fast=2")
        asked = len(server.requests)
        backtest(shell, "binance", "--start", "2024-01-30", "--end", "2024-02-15", "-p", "slow=3", "-p", "fast=2")
        starts = [int(r.query["startTime"]) for r in server.requests[asked:] if "startTime" in r.query]
    # The last stored candle is asked for once more: an exchange that tells it otherwise now is noticed.
    assert [iso(ms) for ms in starts] == ["2024-01-29T22:00:00Z", "2024-02-10T23:00:00Z"]
    assert len(parts(shell, "binance")) == 3


def test_the_tail_is_updated_when_days_are_asked_for(tmp_path: Path) -> None:
    now = int(time.time() * 1000) // HOUR_MS * HOUR_MS
    candles = rows(900, now - 899 * HOUR_MS)  # the last one is open
    with Loopback(exchange("binance", candles)) as server:
        server.exchange.now_ms = now - 100 * HOUR_MS
        shell = shell_at(tmp_path, "binance", server.url)
        early = backtest(shell, "binance", "--days", "20", "--end", iso(now - 100 * HOUR_MS))
        server.exchange.now_ms = now + 1000
        asked = server.count("/klines")
        late = backtest(shell, "binance", "--days", "20")
        assert server.count("/klines") == asked + 1
        assert untimed(early)["data"][0]["last"] == iso(now - 101 * HOUR_MS)
        assert untimed(late)["data"][0]["last"] == iso(now - HOUR_MS)  # closed candles only
        assert untimed(late)["data"][0]["missing_candles"] == 0


def test_without_a_range_all_that_is_stored_is_used_and_said(tmp_path: Path) -> None:
    with Loopback(exchange("binance")) as server:
        shell = shell_at(tmp_path, "binance", server.url)
        backtest(shell, "binance", *RANGE)
        asked = len(server.requests)
        ran = backtest(shell, "binance")
        assert len(server.requests) == asked
    assert untimed(ran)["data"][0]["rows"] == RANGE_HOURS + 24
    assert "Note: BTCUSDT ends with the last stored candle, 2024-05-01 00:00; --days N asks for newer ones." in ran.err


def test_a_hole_of_the_exchange_stays_a_hole_and_is_not_asked_for_again(tmp_path: Path) -> None:
    whole = rows()
    holed = np.delete(whole, slice(1000, 1030), axis=0)
    with Loopback(exchange("binance", holed)) as server:
        shell = shell_at(tmp_path, "binance", server.url)
        first = backtest(shell, "binance", *RANGE)
        asked = len(server.requests)
        assert untimed(backtest(shell, "binance", *RANGE)) == untimed(first)
        assert len(server.requests) == asked
    assert untimed(first)["data"][0]["missing_candles"] == 30
    assert (
        shell("data", "gaps", "BTCUSDT", ok=True).out
        == f"first_missing\tmissing\n{iso(START_MS + 1000 * HOUR_MS)}\t30\n"
    )


# --- an exchange that does not answer


@venues
def test_without_network_and_candles_it_is_said_and_the_exit_is_4(tmp_path: Path, venue: str) -> None:
    with closed_port() as url:
        ran = backtest(shell_at(tmp_path, venue, url), venue, "--days", "20")
    assert ran.code == 4 and ran.out == ""
    assert f"{url.removeprefix('http://')} refused the connection" in ran.message
    assert "--provider simulated" in ran.err


def test_without_network_the_stored_candles_are_used_and_it_is_said(tmp_path: Path) -> None:
    with Loopback(exchange("binance")) as server:
        shell = shell_at(tmp_path, "binance", server.url)
        backtest(shell, "binance", *RANGE)
    with closed_port() as url:
        at = {"ATB_BINANCE_API_URL": url}
        inside = backtest(shell, "binance", *RANGE, env=at)
        assert untimed(inside)["data"][0]["rows"] == RANGE_HOURS and inside.err == ""
        recent = backtest(shell, "binance", "--days", "20", env=at)
        assert untimed(recent)["data"][0]["last"] == "2024-04-30T23:00:00Z"
        assert (
            "Note: BTCUSDT ends with the last stored candle, 2024-05-01 00:00: binance does not answer." in recent.err
        )
        assert untimed(recent)["data"][0]["rows"] == 480
        beyond = backtest(shell, "binance", "--start", "2024-04-01", "--end", "2024-05-10", env=at)
        assert beyond.code == 4 and "refused the connection" in beyond.message


def test_a_proxy_that_cannot_be_used_is_no_absent_exchange(tmp_path: Path) -> None:
    with Loopback(exchange("binance")) as server:
        shell = shell_at(tmp_path, "binance", server.url)
        backtest(shell, "binance", *RANGE)
    at = {"ATB_BINANCE_API_URL": "http://exchange.invalid", "HTTP_PROXY": "socks5://me:secret@p:1080"}
    inside = backtest(shell, "binance", *RANGE, env=at)
    assert untimed(inside)["data"][0]["rows"] == RANGE_HOURS and inside.err == ""
    recent = backtest(shell, "binance", "--days", "20", env=at)
    assert recent.code == 2 and "HTTP_PROXY" in recent.message and "socks5" in recent.message
    assert "secret" not in recent.err
    assert backtest(shell, "binance", "--days", "20", "--offline", env=at).code == 0
    either = shell("backtest", "sma_cross", "--symbol", "BTCUSDT", "--provider", "binance,coinbase", env=at)
    assert either.code == 2 and either.message == recent.message


def test_nor_does_it_matter_where_only_history_is_missing(tmp_path: Path) -> None:
    with Loopback(exchange("binance")) as server:
        shell = shell_at(tmp_path, "binance", server.url)
        backtest(shell, "binance", "--start", "2024-03-01", "--end", "2024-04-01")
        ((first, _),) = parts(shell, "binance")
    at = {"ATB_BINANCE_API_URL": "http://exchange.invalid", "HTTP_PROXY": "socks5://p:1080"}
    begin = iso(START_MS + first * HOUR_MS)
    ran = backtest(shell, "binance", "--start", begin, "--end", "2024-04-01", env=at)
    assert untimed(ran)["data"][0]["first"] == begin


def test_offline_asks_nobody(tmp_path: Path) -> None:
    with Loopback(exchange("binance")) as server:
        shell = shell_at(tmp_path, "binance", server.url)
        empty = backtest(shell, "binance", *RANGE, "--offline")
        assert empty.code == 3 and empty.message.startswith(
            "The store lacks BTCUSDT 1h from 2024-01-02 00:00 to 2024-05-01"
        )
        assert "Leave out --offline" in empty.err
        assert backtest(shell, "binance", "--offline").code == 3
        assert server.requests == []
    assert not (shell.home / "candles").exists()


@pytest.mark.parametrize(
    ("fault", "code", "told"),
    [
        (Fault("status", path="/klines", status=503), 4, "answered HTTP 503"),
        (Fault("status", path="/klines", status=451, body=b'{"msg": "not from here"}'), 5, "HTTP 451 (not from here)"),
        (
            Fault("status", path="/klines", status=400, body=b'{"code": -1100, "msg": "Illegal characters"}'),
            5,
            "HTTP 400 (Illegal characters)",
        ),
        (Fault("html", path="/klines"), 4, "127.0.0.1"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else None,
)
def test_what_the_exchange_answers_decides_the_exit_code(tmp_path: Path, fault: Fault, code: int, told: str) -> None:
    with Loopback(exchange("binance"), fault) as server:
        ran = backtest(shell_at(tmp_path, "binance", server.url), "binance", *RANGE)
    assert ran.code == code and told in ran.message
    assert ran.out == ""


def test_pages_that_came_before_a_failure_stay(tmp_path: Path) -> None:
    with Loopback(exchange("binance"), Fault("status", path="/klines", skip=3, status=451)) as server:
        shell = shell_at(tmp_path, "binance", server.url)
        assert backtest(shell, "binance", *RANGE).code == 5
    assert parts(shell, "binance") == [(-75, 2000)]


@venues
def test_an_unknown_symbol_names_the_nearest(tmp_path: Path, venue: str) -> None:
    made = exchange(venue)
    made.list(*{"binance": ("ETHUSDT", "ETH", "USDT"), "coinbase": ("ETH-USD", "ETH", "USD")}[venue], {"1h": rows(5)})
    wrong = NAMES[venue][0].replace("T", "TT", 1)
    with Loopback(made) as server:
        ran = shell_at(tmp_path, venue, server.url)(
            "backtest", "sma_cross", "--symbol", wrong, "--provider", venue, *RANGE
        )
    assert ran.code == 2
    assert ran.message == f"Unknown symbol '{wrong}' at {venue}."
    assert f"Nearest: {NAMES[venue][0]}" in ran.err


# --- rules


@venues
def test_rules_are_refreshed_remembered_and_used(tmp_path: Path, venue: str) -> None:
    made = Exchange(START_MS + COUNT * HOUR_MS)
    made.list(*NAMES[venue], {"1h": rows()}, tick="0.50000000", lot="0.00200000", min_notional="7.00000000")
    symbol = NAMES[venue][0]
    with Loopback(made) as server:
        shell = shell_at(tmp_path, venue, server.url)
        ran = shell("data", "rules", symbol, "--provider", venue, "--refresh", "--json", ok=True)
        assert (ran.json["lot"], ran.json["tick"], ran.json["min_notional"]) == ("0.002", "0.5", "7")
        assert venue in ran.json["source"]
        asked = len(server.requests)
        assert shell("data", "rules", symbol, "--provider", venue, "--json", ok=True).json == ran.json
        assert len(server.requests) == asked
        used = untimed(backtest(shell, venue, *RANGE))
        assert used["market_rules"][0] == ran.json
        assert all(fill["qty_base"] * 500 == pytest.approx(round(fill["qty_base"] * 500)) for fill in used["fills"])
        unknown = shell("data", "rules", "NOPE/USD", "--provider", venue, "--refresh")
        assert unknown.code == 2 and "Unknown symbol" in unknown.message
    with closed_port() as url:
        nowhere = {f"ATB_{venue.upper()}_API_URL": url}
        down = shell("data", "rules", symbol, "--provider", venue, "--refresh", env=nowhere)
    assert down.code == 4 and "refused the connection" in down.message
    assert "without --refresh the rules" in down.err and "--provider simulated" not in down.err
    assert shell("data", "rules", symbol, "--provider", venue, "--json", ok=True).json == ran.json


# --- interruptions


def hanging(folder: Path, after: int) -> tuple[Loopback, Shell]:
    server = Loopback(exchange("binance"), Fault("hang", path="/klines", skip=after, times=1))
    return server, shell_at(folder, "binance", server.url)


def interrupted(
    shell: Shell, server: Loopback, requests: int, number: signal.Signals
) -> tuple[subprocess.Popen[str], str, str]:
    """Start a download, and send a signal when the server has been asked `requests` times."""
    process = shell.start("backtest", "sma_cross", "--symbol", "BTCUSDT", "--json", *RANGE)
    deadline = time.monotonic() + 30
    while server.count("/klines") < requests and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    return process, out, err


@pytest.mark.parametrize(
    ("number", "code", "said"),
    thinned([(signal.SIGINT, 130, "Interrupted."), (signal.SIGTERM, -15, "Terminated.")], 2),
)
def test_an_interruption_keeps_whole_pages_and_the_next_run_goes_on(
    tmp_path: Path, number: signal.Signals, code: int, said: str
) -> None:
    server, shell = hanging(
        tmp_path, after=3
    )  # the first page, which does not begin where it should, is asked for twice
    with server:
        process, out, err = interrupted(shell, server, 4, number)
        assert process.returncode == code, err
        assert out == "" and f"Error: {said}" in err and "Traceback" not in err
        assert parts(shell, "binance") == [(-75, 2000)]
        asked = len(server.requests)
        done = backtest(shell, "binance", *RANGE)
        assert untimed(done)["data"][0]["rows"] == RANGE_HOURS
        starts = [int(r.query["startTime"]) for r in server.requests[asked:] if "startTime" in r.query]
        assert starts == [START_MS + 1999 * HOUR_MS]  # the last candle that is stored, once more
    left = sorted(p.name.rpartition(".")[2] for p in (shell.home / "candles").rglob("*") if p.is_file())
    assert left == ["lock", "parquet", "parquet"]


def test_an_interruption_before_the_first_page_leaves_nothing(tmp_path: Path) -> None:
    server, shell = hanging(tmp_path, after=0)
    with server:
        process, _, err = interrupted(shell, server, 1, signal.SIGINT)
    assert process.returncode == 130 and "Interrupted." in err
    assert [p for p in (shell.home / "candles").rglob("*") if p.is_file()] == []
