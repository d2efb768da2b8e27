"""`atb data` as an operator uses it: prefill, look, verify, repair, clear; with good and bad input."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atb.core.timeframe import DAY_MS, SystemClock, timeframe_ms
from atb.data.layout import SeriesKey
from atb.data.store import CandleStore
from tests.integration.shell import Ran, Shell, plain
from tests.venue.exchange.__main__ import history
from tests.venue.loopback import Exchange, Fault, Loopback

pytest.importorskip("ccxt")
DAYS = 120
LIST = ("--symbols", "BTCUSDT", "ETHUSDT", "--timeframes", "1h", "4h")


def exchange() -> Exchange:
    """Of today: commands go by the clock."""
    now = SystemClock().now_ms()
    made = Exchange(now)
    for i, (base, price) in enumerate((("BTC", 40_000.0), ("ETH", 2_000.0))):
        rows = {tf: history(3 + i, DAYS * DAY_MS // timeframe_ms(tf), tf, now, price) for tf in ("1h", "4h", "1d")}
        made.list(f"{base}USDT", base, "USDT", rows, price=str(price))
    made.clock.run(1.0)
    return made


class Desk:
    def __init__(self, shell: Shell, server: Loopback) -> None:
        self.shell, self.server = shell, server

    @property
    def store(self) -> CandleStore:
        return CandleStore(self.shell.home / "candles")

    def __call__(self, *args: object, **more: Any) -> Ran:
        return self.shell("data", *args, **more)

    def cache(self, *args: object, **more: Any) -> Ran:
        return self.shell("data", "cache-manager", *args, **more)

    def prefill(self, *args: object, years: float = 0.2, ok: bool = True) -> Ran:
        return self("prefill-cache", *(args or LIST), "--years", years, ok=ok)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Loopback(exchange(), seed=1) as server:
        yield Desk(Shell(tmp_path, ATB_BINANCE_API_URL=server.url), server)


def key(symbol: str = "BTCUSDT", timeframe: str = "1h") -> SeriesKey:
    return SeriesKey("binance", "spot", symbol, timeframe)


def test_the_runbook_prefills_and_looks(desk: Desk) -> None:
    ran = desk.prefill()
    rows = [line.split("\t") for line in ran.out.splitlines()]
    assert rows[0] == ["symbol", "timeframe", "fetched", "there is"] and len(rows) == 5
    assert rows[1][:2] == ["BTCUSDT", "1h"] and rows[1][2] in ("1,752", "1,753")
    told = desk.cache("info", "--json", ok=True).json
    assert told["symbols"] == 2 and len(told["series"]) == 4 and told["hit_rate"] < 0.01
    assert {row["freshness"] for row in told["series"]} == {"fresh"} and {row["gaps"] for row in told["series"]} == {0}
    asked = len(desk.server.requests)
    again = desk("prefill-cache", *LIST, "--years", "0.2", "--json", ok=True)
    assert [row["fetched"] for row in again.json] == [0] * 4 and all(row["complete"] for row in again.json)
    assert len(desk.server.requests) - asked <= 10  # a ping, and what has not been closed for a day
    text = desk.cache("info", ok=True).out
    for words in ("last update", "hit rate", "cached symbols\t2", "fresh"):
        assert words in text
    assert "of the candles" not in desk.cache("verify", ok=True).out


def test_two_years_of_a_symbol_that_was_listed_later_say_so(desk: Desk) -> None:
    ran = desk.prefill("--symbols", "BTCUSDT", "--timeframes", "1d", years=2)
    assert "where it was listed" in ran.out
    (row,) = desk("prefill-cache", "--symbols=BTCUSDT", "--timeframes=1d", "--years=2", "--json", ok=True).json
    assert row["listed_later"] and row["complete"] and row["fetched"] == 0


def test_a_download_is_one_series(desk: Desk) -> None:
    desk("download", "BTC/USDT", "--timeframe", "4h", "--days", "30", ok=True)
    candles = desk.store.read(key(timeframe="4h"))
    assert candles is not None and len(candles) in (179, 180)
    before = ("download", "BTC/USDT", "--timeframe", "4h", "--start", "2020-01-01", "--end", "2020-02-01")
    assert "there are no candles in that time" in desk(*before, ok=True).out
    assert desk(*before, "--json", ok=True).json[0]["from"] is None


BAD = [
    (("prefill-cache", "--symbols", "NOPEUSDT", "--timeframes", "1h"), 2, "Unknown symbol 'NOPEUSDT' at binance."),
    (("prefill-cache", "--symbols", "BTCUSDT", "--timeframes", "7h"), 2, "Unknown timeframe '7h'."),
    (("prefill-cache", "--symbols", "BTCUSDT", "--timeframes", "1h", "--years", "0"), 2, "--years must be above 0"),
    (("prefill-cache", "--symbols", "BTCUSDT", "--timeframes", "1h", "--workers", "0"), 2, "--workers must be"),
    (("download", "BTCUSDT", "--provider", "kraken"), 2, "Unknown provider 'kraken'."),
    (("download", "BTCUSDT", "--start", "2030-01-01"), 2, "is not before"),
    (("download", "BTCUSDT", "--start", "2024-01-01", "--days", "3"), 2, "exclude each other"),
    (("test-provider", "binanse"), 2, "Unknown provider 'binanse'."),
    (("test-provider", "binance", "NOPEUSDT"), 2, "Unknown symbol 'NOPEUSDT' at binance."),
    (("test-provider", "binance", "BTCUSDT", "7h"), 2, "Unknown timeframe '7h'."),
    (("symbols", "binance", "--quote", "XYZ"), 3, "Nothing at binance is priced in 'XYZ'."),
    (("symbols", "binance", "--top", "0"), 2, "--top must be at least 1"),
    (("cache-manager", "clear"), 2, "What shall go?"),
    (("cache-manager", "clear", "--all", "--symbol", "BTCUSDT"), 2, "What shall go?"),
    (("cache-manager", "clear-old", "--hours", "-1"), 2, "--hours must be"),
]


@pytest.mark.parametrize(("args", "code", "said"), BAD)
def test_bad_input_is_said(desk: Desk, args: tuple[str, ...], code: int, said: str) -> None:
    ran = desk(*args)
    assert ran.code == code and said in ran.message


def test_one_bad_symbol_does_not_keep_the_others(desk: Desk) -> None:
    ran = desk.prefill("--symbols", "BTCUSDT,NOPEUSDT", "--timeframes", "1h", ok=False)
    assert ran.code == 2 and "1 of 2 series could not be completed, 1 could." in ran.message
    assert desk.store.read(key()) is not None


def test_a_damaged_part_is_found_set_aside_and_fetched_again(desk: Desk) -> None:
    desk.prefill()
    before = desk.store.read(key())
    part = desk.store.parts(key())[0]
    path = desk.shell.home / "candles" / part.path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    ran = desk.cache("verify")
    assert ran.code == 3 and "1 part is bad" in ran.message and part.name in ran.out
    assert "would be set aside" in desk.cache("repair", "--dry-run", ok=True).err
    ran = desk.cache("repair", ok=True)
    assert part.name in ran.out and "Set aside:" in ran.err and (path.parent / "damaged" / path.name).is_file()
    after = desk.store.read(key())
    assert before is not None and after is not None and (before.close == after.close).all()
    assert "all good" in desk.cache("verify", ok=True).err


@pytest.mark.slow
def test_what_no_exchange_gave_is_set_aside_and_it_is_said_how_to_have_it_again(desk: Desk) -> None:
    desk("download", "BTCUSDT", "--days", "10", ok=True)
    desk("derive", "BTCUSDT", "4h", "--from", "1h", ok=True)
    desk("export", "--symbol", "BTCUSDT", "--out", "mine.csv", ok=True)
    desk("import", "mine.csv", "--symbol", "ETHUSDT", ok=True)
    for series in (key(timeframe="4h"), key("ETHUSDT")):
        for part in desk.store.parts(series):
            (desk.shell.home / "candles" / part.path).write_bytes(b"PAR1")
    ran = desk.cache("repair", ok=True)
    assert "came from a file; import that again: atb data import FILE --symbol ETHUSDT" in ran.err
    derived = next(line for line in ran.err.splitlines() if "derived" in line and line.startswith("Note: "))
    assert "do that again: atb data derive BTCUSDT 4h --from TIMEFRAME" in derived and "file" not in derived
    desk("derive", "BTCUSDT", "4h", "--from", "1h", ok=True)
    assert "all good" in desk.cache("verify", ok=True).err


@pytest.mark.slow
def test_what_nobody_used_goes_and_it_is_said_what_went(desk: Desk) -> None:
    desk.prefill()
    old = SystemClock().now_ms() / 1000 - 49 * 3600
    parts = desk.store.parts(key("ETHUSDT", "4h"))
    for part in parts:
        os.utime(desk.shell.home / "candles" / part.path, (old, old))
    dry = desk.cache("clear-old", "--hours", "48", "--dry-run", ok=True)
    assert "1 part" in dry.err and "would be removed" in dry.err and len(desk.store.parts(key("ETHUSDT", "4h"))) == 1
    ran = desk.cache("clear-old", "--hours", "48", "--json", ok=True)
    assert [row["symbol"] for row in ran.json["parts"]] == ["ETHUSDT"] and ran.json["removed"]
    assert desk.store.parts(key("ETHUSDT", "4h")) == [] and desk.store.parts(key()) != []
    ran = desk.cache("clear", "--all")
    assert ran.code == 2 and "--yes" in ran.err
    desk.cache("clear", "--symbol", "BTCUSDT", "--yes", ok=True)
    assert {k.symbol for k in desk.store.keys() if desk.store.parts(k)} == {"ETHUSDT"}  # noqa: SIM118


@pytest.mark.slow
def test_a_limit_on_the_store_is_kept(desk: Desk) -> None:
    env = {"ATB_CANDLES_LIMIT": "30KB"}
    ran = desk("prefill-cache", *LIST, "--years", "0.2", env=env, ok=True)
    assert "The store was larger than 30 KB" in ran.err
    assert sum(part.size for k in desk.store.keys() for part in desk.store.parts(k)) <= 30_000  # noqa: SIM118
    assert desk("download", "BTCUSDT", env={"ATB_CANDLES_LIMIT": "much"}).code == 2


def test_a_provider_is_looked_over(desk: Desk) -> None:
    checks = {c["name"]: c for c in desk("test-provider", "binance", "BTCUSDT", "1h", "--json", ok=True).json["checks"]}
    assert {c["verdict"] for c in checks.values()} == {"ok"} and "key" not in checks
    assert abs(checks["clock_skew_ms"]["value"]) < 500 and checks["latency_ms"]["value"] < 1000
    assert "latency" in desk("test-provider", "binance", "BTCUSDT", "1h", ok=True).out
    account = desk.server.exchange.open_account("other", {}, may_withdraw=True)
    env = {"BINANCE_API_KEY": account.key.key, "BINANCE_API_SECRET": account.key.secret}
    ran = desk("test-provider", "binance", env=env, ok=True)
    assert "it may withdraw" in ran.out and account.key.secret not in ran.out + ran.err


def test_a_provider_that_does_not_answer_or_whose_clock_is_wrong(desk: Desk, tmp_path: Path) -> None:
    ran = desk("test-provider", "binance", env={"ATB_BINANCE_API_URL": "http://127.0.0.1:9"})
    assert ran.code == 4 and "not fit to be used" in ran.message
    desk.server.add(Fault("skew", "/time", seconds=7.0))
    ran = desk("test-provider", "binance")
    assert ran.code == 4 and re.search(r"(69|70)\d\d ms ahead", ran.out)


def test_symbols_are_listed_by_what_is_traded(desk: Desk) -> None:
    rows = desk("symbols", "binance", "--quote", "USDT", "--top", "1", "--json", ok=True).json
    assert [row["symbol"] for row in rows] == ["BTCUSDT"]
    assert len(desk("symbols", "binance", ok=True).out.splitlines()) == 3


def test_ctrl_c_keeps_what_came_and_the_next_run_goes_on(desk: Desk) -> None:
    desk.server.add(Fault("hang", "/klines", seconds=0.3))
    process = desk.shell.start("data", "prefill-cache", *LIST, "--years", "0.3", "--workers", "1")
    time.sleep(3.0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "Interrupted." in err and "Traceback" not in err
    desk.server.heal()
    desk.prefill(years=0.3)
    assert "all good" in desk.cache("verify", ok=True).err


def test_no_network_and_what_is_stored_still_works(desk: Desk) -> None:
    desk.prefill()
    away = {"ATB_BINANCE_API_URL": "http://127.0.0.1:9"}
    ran = desk("download", "BTCUSDT", "--timeframe", "1d", env=away)
    assert ran.code == 4 and "127.0.0.1:9" in ran.message
    for shown in (
        ("cache-manager", "info"), ("cache-manager", "list"), ("cache-manager", "verify"), ("list",), ("gaps", "BTCUSDT"),
        ("quality", "BTCUSDT", "1h"), ("plot", "BTCUSDT", "1h"), ("export", "--symbol", "BTCUSDT"),
        ("derive", "BTCUSDT", "1d", "--from", "4h"),
    ):  # fmt: skip
        ran = desk(*shown, env=away, ok=True)
        assert ran.out or ran.err
    ran = desk.shell("backtest", "sma_cross", "--symbol", "BTCUSDT", "--days", "30", env=away, ok=True)
    assert "BTCUSDT" in ran.out


@pytest.mark.parametrize(
    "args", [("data", "rules", "BTCUSDT", "--refresh"), ("backtest", "sma_cross", "--symbol", "BTCUSDT")]
)
def test_how_long_a_request_may_take_holds_for_all_that_ask(desk: Desk, args: tuple[str, ...]) -> None:
    for path in ("/klines", "exchangeInfo"):
        desk.server.add(Fault("hang", path))
    began = time.monotonic()
    ran = desk.shell(*args, env={"ATB_REQUEST_TIMEOUT_S": "0.5"})
    assert ran.code == 4 and "did not answer in time" in ran.message
    assert time.monotonic() - began < 20  # four attempts of ten seconds would be more


def test_what_is_stored_is_shown_exported_and_imported_again(desk: Desk) -> None:
    desk("download", "BTCUSDT", "--days", "40", ok=True)
    told = desk("quality", "BTCUSDT", "1h", "--json", ok=True).json
    assert told["completeness"] == 1.0 and told["gaps"] == [] and told["others"] == []
    assert "complete\t100.000%" in desk("quality", "BTCUSDT", "1h", ok=True).out
    drawn = desk.shell.on_terminal("data", "plot", "BTCUSDT", "1h", "--days", "30", columns=90)
    assert drawn.code == 0 and "█" in drawn.out and "binance BTCUSDT 1h: " in drawn.out
    bars = desk("plot", "BTCUSDT", "1h", "--days", "2", ok=True).out.splitlines()
    assert len(bars) == 49 and bars[0].split("\t")[0] == "open_time"
    assert all(len(number) <= 13 for bar in bars[1:] for number in bar.split("\t")[1:]), "no sum has a tail of zeros"
    for name in ("out.csv", "out.parquet"):
        desk("export", "--symbol", "BTCUSDT", "--out", name, ok=True)
        again = desk("import", name, "--symbol", "BTCUSDT", ok=True)
        assert "Stored 0 candles" in again.err
    lines = desk("export", "--symbol", "BTCUSDT", ok=True).out
    assert lines == (desk.shell.work / "out.csv").read_text()


def test_candles_are_watched_as_they_close(tmp_path: Path) -> None:
    now = SystemClock().now_ms()
    made = Exchange(now)
    made.list("BTCUSDT", "BTC", "USDT", {"1m": history(3, 110, "1m", made.now_ms + 3_600_000, 40_000.0)}, price="40000")
    made.clock.run(20.0)  # a minute takes three seconds
    with Loopback(made) as server:
        shell = Shell(tmp_path, ATB_BINANCE_API_URL=server.url)
        server.add(Fault("status", "/klines", skip=3, times=4))
        ran = shell("data", "watch", "BTCUSDT", "1m", "--count", "2", "--json", ok=True)
    first, second = (json.loads(line) for line in ran.out.splitlines())
    assert first["open_time"] < second["open_time"] and first["symbol"] == "BTCUSDT" and first["close"] > 0


def test_a_market_is_made_up_and_says_so(desk: Desk) -> None:
    ran = desk(
        "generate", "--symbols", "BTCUSDT", "ETHUSDT", "--days", "30", "--scenario", "gap", "--format", "csv", ok=True
    )
    names = ran.out.split()
    assert (
        names == ["SIMULATED_BTCUSDT_1h_gap_1.csv", "SIMULATED_ETHUSDT_1h_gap_1.csv"] and "SIMULATED candles" in ran.err
    )
    assert desk("gaps", "BTCUSDT", "--data", names[0], "--json", ok=True).json["missing"] == 12
    assert list(desk.store.keys()) == []


@pytest.mark.slow
def test_a_long_market_shows_how_far_it_is(desk: Desk) -> None:
    drawn = desk.shell.on_terminal("data", "generate", "--symbols", "BTCUSDT", "--timeframe", "1m", "--days", "600")
    assert drawn.code == 0 and re.search(r"simulating  \S+ +\d+%", plain(drawn.out))
    assert len(desk("generate", "--symbols", "BTCUSDT", "--days", "30", ok=True).err.splitlines()) == 1  # short: no bar


MORE_BAD = [
    (("quality", "BTCUSDT", "1h"), 3, "No candles of binance BTCUSDT 1h are stored"),
    (("plot", "BTCUSDT", "1h", "--days", "0"), 2, "--days must be"),
    (("plot", "BTCUSDT", "1h"), 3, "No candles of binance BTCUSDT 1h are stored"),
    (("export", "--symbol", "BTCUSDT", "--format", "xls"), 2, "--format 'xls' is none."),
    (("export", "--symbol", "BTCUSDT", "--format", "parquet"), 2, "Parquet is not written to a terminal"),
    (("export", "--symbol", "BTCUSDT", "--start", "2024-02-01", "--end", "2024-01-01"), 2, "is not before"),
    (("watch", "NOPEUSDT", "1m"), 2, "Unknown symbol 'NOPEUSDT' at binance."),
    (("download", "BTCUSDT", "--provider", "binance,binance"), 2, "names one more than once"),
    (("download", "BTCUSDT", "--provider", "binance,kraken"), 2, "Unknown provider 'kraken'."),
    (("watch", "BTCUSDT", "1m", "--count", "0"), 2, "--count must be at least 1"),
    (("generate", "--symbols", "BTCUSDT", "--scenario", "crush"), 2, "There is no scenario 'crush'."),
    (("generate", "--symbols", "BTCUSDT", "--days", "0"), 2, "it must be 1 to"),
    (("generate", "--symbols", "BTCUSDT", "--days", "nan"), 2, "--days must be above 0"),
    (("generate", "--symbols", "BTCUSDT", "--days", "1e300"), 2, "--days must be above 0"),
    (("generate", "--symbols", "BTCUSDT", "--folder", "none"), 3, "there is no folder"),
    (("generate", "--symbols", "BTCUSDT", "--timeframe", "7h"), 2, "Unknown timeframe '7h'."),
]


@pytest.mark.parametrize(("args", "code", "said"), MORE_BAD)
def test_bad_input_to_what_shows_is_said(desk: Desk, args: tuple[str, ...], code: int, said: str) -> None:
    ran = desk(*args)
    assert ran.code == code and said in ran.message


def test_of_two_providers_the_first_that_answers_gives_all(desk: Desk) -> None:
    """Which is said; and what was stored of the other one stays another series."""
    made = Exchange(SystemClock().now_ms())
    made.list("BTC-USDT", "BTC", "USDT", {"1h": history(4, 24 * 60, "1h", made.now_ms, 41_000.0)}, price="41000")
    made.clock.run(1.0)
    away = {"ATB_BINANCE_API_URL": "http://127.0.0.1:9"}
    both = ("--provider", "binance,coinbase", "--days", "20")
    with Loopback(made) as server:
        other = {"ATB_COINBASE_API_URL": server.url}
        assert desk("download", "BTCUSDT", *both, env=other, ok=True).err == ""
        ran = desk("download", "BTCUSDT", *both, env={**away, **other}, ok=True)
        assert "binance does not answer: all candles are those of coinbase" in ran.err
        test = ("backtest", "sma_cross", "--symbol", "BTCUSDT", *both, "--json")
        ran = desk.shell(*test, env={**away, **other}, ok=True)
        assert ran.json["data"][0]["venue"] == "coinbase" and "binance does not answer" in ran.err
    assert [(k.venue, k.symbol) for k in desk.store.keys()] == [("binance", "BTCUSDT"), ("coinbase", "BTC-USDT")]  # noqa: SIM118
    ran = desk("download", "BTCUSDT", *both, env={**away, "ATB_COINBASE_API_URL": "http://127.0.0.1:9"})
    assert ran.code == 4 and ran.message == "None of binance, coinbase answers."


@pytest.mark.slow
def test_longer_candles_are_made_when_asked_for(desk: Desk) -> None:
    desk("download", "BTCUSDT", "--days", "20", ok=True)
    assert "Made 1" in desk("derive", "BTCUSDT", "4h", "--from", "1h", ok=True).err
    assert {row["kind"] for row in desk.cache("list", "--timeframe", "4h", "--json", ok=True).json} == {"derived"}
    assert "Made 0 candles" in desk("derive", "BTCUSDT", "4h", "--from", "1h", ok=True).err
    assert "cannot be made of" in desk("derive", "BTCUSDT", "1h", "--from", "1h").message
    assert desk("derive", "ETHUSDT", "4h", "--from", "1h").code == 3


def test_a_backtest_of_a_market_that_crashes(desk: Desk) -> None:
    run = ("backtest", "sma_cross", "--symbol", "BTCUSDT", "--provider", "simulated", "--days", "90", "--json")
    calm, crash = (desk.shell(*run, *more, ok=True).json for more in ((), ("--scenario", "crash")))
    assert calm["data"][0]["sha256"] != crash["data"][0]["sha256"]
    assert "scenario crash" in desk.shell(*run[:-1], "--scenario", "crash", ok=True).out
    assert "There is no scenario 'crush'" in desk.shell(*run, "--scenario", "crush").message
    ran = desk.shell("backtest", "sma_cross", "--symbol", "BTCUSDT", "--scenario", "crash")
    assert ran.code == 2 and "the candles are not simulated" in ran.message
