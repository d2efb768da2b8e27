"""Closed candles as a live trader gets them: once, in order, final, and what a backtest would see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atb.core.errors import DataError, ExchangeUnavailable, UsageError
from atb.core.types import Symbol
from atb.data.corrections import read
from atb.data.keeping import unused
from atb.data.layout import series_key
from atb.data.store import CandleStore
from tests.venue.exchange import HOUR_MS, Fault, Rows
from tests.venue.market_time import MarketTime, check_windows, hours
from tests.venue.test_candles import START, made, with_holes

COUNT = 60
BEGIN = START + 40 * HOUR_MS + 20 * 60_000  # forty candles have closed, one is twenty minutes old
AT = START + 40 * HOUR_MS


def other(count: int = COUNT, seed: int = 8) -> Rows:
    return made(count, seed=seed)


# --- what is given


@pytest.mark.parametrize("venue", ["binance", "coinbase"])
@pytest.mark.parametrize("ahead_ms", [-7_300_000, -1_700, 0, 400, 95_000])
def test_rows_are_what_a_backtest_sees_whatever_our_clock_says(tmp_path: Path, venue: str, ahead_ms: int) -> None:
    with MarketTime(tmp_path, [made(COUNT), other()], BEGIN, venue=venue, ahead_ms=ahead_ms) as market:
        feed = market.feed(12)
        rows = market.rows_until(feed, AT + 6 * HOUR_MS)
        assert [row.open_ms for row in rows] == hours(AT, 5)
        assert all(len(row.windows) == 2 and len(w) == 12 for row in rows for w in row.windows.values())
        check_windows(market, rows, START, 12)
        assert abs(feed.exchange_now_ms() - market.exchange.now_ms) <= 1_000
    assert not market.events


def test_a_close_is_seen_within_three_seconds_though_one_looks_once_a_minute(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [made(COUNT)], BEGIN) as market:
        feed, requests = market.feed(5, look_every_s=60), len(market.server.requests)
        while not (rows := market.step(feed)):
            pass
        assert rows[0].open_ms == AT
        assert market.exchange.now_ms <= AT + HOUR_MS + 3_000
        assert len(market.server.requests) - requests <= 40 + 2


def test_what_nothing_rests_for_is_looked_at_more_often(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [made(40), made(40)], START + 30 * HOUR_MS + 20 * 60_000) as market:
        feed = market.feed(5, look_every_s=60)
        feed.prepare()
        feed.poll()
        now = market.exchange.now_ms
        assert feed.next_due_ms() - now > 30_000
        feed.hurried = ["ETHUSDT"]
        assert feed.next_due_ms() - now <= 2_000
        market.go_on(2_000)
        before = len(market.server.requests)
        feed.poll()
        assert ["ETHUSDT" in str(r) for r in market.server.requests[before:]] == [True]


def test_fifteen_minutes_on_a_coarse_look(tmp_path: Path) -> None:
    length = 15 * 60_000
    with MarketTime(tmp_path, [made(COUNT, length_ms=length)], START + 40 * length + 60_000, timeframe="15m") as market:
        feed = market.feed(7)
        rows = market.rows_until(feed, START + 50 * length)
        assert [row.open_ms for row in rows] == [START + k * length for k in range(40, 49)]
        check_windows(market, rows, START, 7)


# --- what is not final, or not proven


@pytest.mark.parametrize("lag_ms", [500, 1_500, 4_000, 9_000])
def test_a_final_that_is_late_is_waited_for(tmp_path: Path, lag_ms: int) -> None:
    """For a while after the close, the exchange shows the candle as it was, and no later one."""
    with MarketTime(tmp_path, [made(COUNT)], BEGIN) as market:
        feed = market.feed(3)
        market.exchange.lag_ms = lag_ms
        rows = market.rows_until(feed, AT + 3 * HOUR_MS + 30_000)
        assert [row.open_ms for row in rows] == hours(AT, 3)
        market.exchange.lag_ms = 0
        check_windows(market, rows, START, 3)
    assert not market.events


def test_a_half_formed_answer_is_not_taken(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [made(COUNT)], BEGIN) as market:
        feed = market.feed(3)
        market.rows_until(feed, AT + HOUR_MS)
        market.server.add(Fault("half formed", "/klines", times=1))
        rows = market.rows_until(feed, AT + HOUR_MS + 20_000)
        assert [row.open_ms for row in rows] == [AT]
        check_windows(market, rows, START, 3)
    assert not market.events


def test_a_candle_that_changes_later_is_told_and_not_taken(tmp_path: Path) -> None:
    changed = made(COUNT)
    with MarketTime(tmp_path, [changed], BEGIN) as market:
        feed = market.feed(3)
        before = market.rows_until(feed, AT + HOUR_MS + 30_000)
        changed[40, 4] += 0.25
        after = market.rows_until(feed, AT + 2 * HOUR_MS + 30_000)
    assert after[0].windows["BTCUSDT"].close[-2] == before[0].windows["BTCUSDT"].close[-1]
    (told,) = market.told("candle_corrected")
    assert "close" in told and "volume" not in told and told.endswith("what was given stays.")
    (kept,) = read(CandleStore(tmp_path / "candles"), series_key("binance", market.symbols[0], "1h"))
    assert kept.told["close"] == kept.stored["close"] + 0.25 and kept.told["volume"] == kept.stored["volume"]


def test_what_a_session_looks_back_on_is_held_until_it_ends(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [made(COUNT)], BEGIN) as market:
        feed = market.feed(3)
        key = series_key("binance", market.symbols[0], "1h")
        (since,) = market.pins.held(BEGIN).values()
        store = CandleStore(tmp_path / "candles")
        assert since <= AT - 2 * HOUR_MS and store.parts(key)
        assert unused(store, 2**60, market.pins.held(BEGIN)) == [] and unused(store, 2**60, {}) != []
        feed.close()
        assert market.pins.held(BEGIN) == {}


@pytest.mark.parametrize("venue", ["binance", "coinbase"])
@pytest.mark.parametrize("kind", ["one more", "future", "contradicting", "duplicated", "wrong order", "shifted off the grid",
                                  "shifted on", "shifted back", "empty list", "html", "null candles", "truncated"])  # fmt: skip
def test_answers_that_are_wrong_for_a_while_leave_no_trace(tmp_path: Path, venue: str, kind: str) -> None:
    with MarketTime(tmp_path, [made(COUNT), other()], BEGIN, venue=venue) as market:
        feed = market.feed(4, grace_s=3600)
        market.server.add(Fault(kind, "andles" if venue == "coinbase" else "/klines", times=9, skip=2))
        rows = market.rows_until(feed, AT + 4 * HOUR_MS)
        assert [row.open_ms for row in rows] == hours(AT, 3)
        check_windows(market, rows, START, 4)
    assert not market.told("candle_corrected")


@pytest.mark.parametrize("ahead_ms", [-2 * HOUR_MS, 0, 2 * HOUR_MS])
@pytest.mark.parametrize("forming", ["low", ""])
def test_no_answer_makes_a_candle_close_before_its_time(tmp_path: Path, ahead_ms: int, forming: str) -> None:
    """One candle too many, made up: it is no proof that the one before it has closed. Nor is that it did not change."""
    with MarketTime(tmp_path, [made(COUNT)], BEGIN, ahead_ms=ahead_ms) as market:
        feed = market.feed(4)
        market.exchange.forming = forming
        market.server.add(Fault("one more", "/klines"))
        assert market.rows_until(feed, AT + HOUR_MS - 1) == []


def test_a_symbol_whose_close_is_not_settled_shows_nothing_of_what_follows(tmp_path: Path) -> None:
    """Its answers contradict each other for longer than a row waits."""
    with MarketTime(tmp_path, [made(COUNT), other()], BEGIN) as market:
        feed = market.feed(4)
        market.rows_until(feed, AT + HOUR_MS - 1)
        market.server.add(*(Fault("half formed", where="ETHUSDT", times=1, skip=skip) for skip in range(0, 40, 2)))
        rows = market.rows_until(feed, AT + HOUR_MS + 8_500)
        assert [list(row.windows) for row in rows] == [["BTCUSDT"]]
        assert list(feed.running()) == ["BTCUSDT"]
        market.server.heal()
        market.rows_until(feed, AT + HOUR_MS + 20_000)
        assert list(feed.running()) == ["BTCUSDT", "ETHUSDT"] and len(market.told("candle_late")) == 1


# --- gaps


@pytest.mark.parametrize("venue", ["binance", "coinbase"])
def test_where_the_exchange_has_no_candle_the_window_goes_on_without(tmp_path: Path, venue: str) -> None:
    with MarketTime(tmp_path, [with_holes(made(COUNT), (33, 34), (42, 44), (46, 47))], BEGIN, venue=venue) as market:
        feed = market.feed(12)
        rows = market.rows_until(feed, AT + 9 * HOUR_MS + 30_000)
        assert [row.open_ms - AT for row in rows] == [k * HOUR_MS for k in (0, 1, 4, 5, 7, 8)]
        check_windows(market, rows, START, 12)
    assert len(market.told("candle_gap")) == 3


def test_a_gap_of_one_symbol_does_not_hold_up_the_other(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [with_holes(made(COUNT), (41, 42)), other()], BEGIN) as market:
        feed = market.feed(12)
        rows = market.rows_until(feed, AT + 4 * HOUR_MS)
        assert [(row.open_ms - AT) // HOUR_MS for row in rows] == [0, 1, 2]
        assert [sorted(row.windows) for row in rows] == [["BTCUSDT", "ETHUSDT"], ["ETHUSDT"], ["BTCUSDT", "ETHUSDT"]]
        check_windows(market, rows, START, 12)


def test_a_hole_of_days_at_an_exchange_of_windows(tmp_path: Path) -> None:
    """Coinbase gives windows, which are empty in a long hole."""
    rows_ = with_holes(made(900, length_ms=60_000), (61, 800))
    begin = START + 60 * 60_000 + 20_000
    with MarketTime(tmp_path, [rows_], begin, venue="coinbase", timeframe="1m") as market:
        feed = market.feed(5)
        market.go_to(START + 805 * 60_000 + 30_000)
        rows = feed.poll() + market.rows_until(feed, START + 806 * 60_000)
        assert [(row.open_ms - START) // 60_000 for row in rows] == [60, 800, 801, 802, 803, 804]
        check_windows(market, rows, START, 5)


# --- several symbols, one of them late


def test_a_row_waits_for_the_late_one_and_then_goes_on_without(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [made(COUNT), other()], BEGIN) as market:
        feed = market.feed(3)
        market.rows_until(feed, AT + HOUR_MS)
        market.server.add(Fault("status", "/klines", where="ETHUSDT"))
        rows = market.rows_until(feed, AT + HOUR_MS + 5_500)
        assert rows == []
        rows = market.rows_until(feed, AT + 3 * HOUR_MS + 30_000)
        assert [list(row.windows) for row in rows] == [["BTCUSDT"]] * 3
        assert len(market.told("candle_late")) == 1 and list(feed.trouble) == ["ETHUSDT"]
        assert list(feed.stale(market.clock.now_ms())) == ["ETHUSDT"]
        market.server.heal()
        rows = market.rows_until(feed, AT + 5 * HOUR_MS)
        assert [sorted(row.windows) for row in rows] == [["BTCUSDT", "ETHUSDT"]]
        check_windows(market, rows, START, 3)
        assert feed.trouble == {} and not feed.stale(market.clock.now_ms())
        assert len(feed.closed_after("ETHUSDT", AT - HOUR_MS)) == 4, "what it was late for is there"
    assert [event.code for event in market.events] == ["candles_unavailable", "candle_late", "candles_available"]


# --- outages


@pytest.mark.parametrize("kind", ["status", "html"])
def test_an_outage_is_state_and_all_its_rows_come_in_order(tmp_path: Path, kind: str) -> None:
    with MarketTime(tmp_path, [made(COUNT), other()], BEGIN) as market:
        feed = market.feed(6)
        rows = market.rows_until(feed, AT + HOUR_MS + 30_000)
        market.server.add(Fault(kind))
        requests = len(market.server.requests)
        rows += market.rows_until(feed, AT + 4 * HOUR_MS)
        assert [row.open_ms for row in rows] == [AT]
        assert set(feed.trouble) == {"BTCUSDT", "ETHUSDT"} == set(feed.stale(market.clock.now_ms()))
        assert len(market.server.requests) - requests < 2 * 3 * 120 + 30, "at most every half minute"
        market.server.heal()
        rows += market.rows_until(feed, AT + 4 * HOUR_MS + 60_000)
        assert [row.open_ms for row in rows] == hours(AT, 4)
        check_windows(market, rows, START, 6)
        assert not feed.stale(market.clock.now_ms())
    assert [event.code for event in market.events] == ["candles_unavailable", "candles_available"]


def test_an_outage_of_more_candles_than_a_page(tmp_path: Path) -> None:
    minutes = made(3_200, length_ms=60_000)
    with MarketTime(tmp_path, [minutes], START + 40 * 60_000 + 20_000, timeframe="1m") as market:
        feed = market.feed(30)
        market.go_to(START + 3_100 * 60_000 + 30_000)
        rows = feed.poll()
        assert [row.open_ms for row in rows] == [START + k * 60_000 for k in range(40, 3_100)]
        check_windows(market, rows[::100], START, 30)


def test_only_few_requests_meet_a_dead_exchange_in_one_poll(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [made(COUNT), other(), other(seed=9)], BEGIN) as market:
        feed = market.feed(2)
        market.server.add(Fault("reset"))
        requests = len(market.server.requests)
        assert feed.poll() == []
        assert len(market.server.requests) - requests == 2
        assert len(feed.trouble) == 3


# --- history, and the store


def test_history_is_fetched_once_and_what_closes_is_stored(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [made(COUNT)], BEGIN) as market:
        feed = market.feed(30)
        rows = market.rows_until(feed, AT + 5 * HOUR_MS + 30_000)
        feed.close()
        requests = len(market.server.requests)
        again = market.feed(30, after_ms=rows[1].open_ms)
        assert len(market.server.requests) - requests == 1, "the clock"
        replayed = again.poll()
        assert [row.open_ms for row in replayed] == [row.open_ms for row in rows[2:]]
        check_windows(market, replayed, START, 30)
        key = series_key("binance", market.symbols[0], "1h")
        assert CandleStore(tmp_path / "candles").missing_ranges(key, AT, AT + 5 * HOUR_MS) == []


def test_two_processes_store_the_same_candles(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [made(COUNT)], BEGIN) as market:
        feeds = [market.feed(10), market.feed(10)]
        for k in range(4):
            for feed in feeds:
                market.go_to(AT + (k + 1) * HOUR_MS + 20_000)
                feed.poll()
        market.go_on(300_000)
        for feed in feeds:
            feed.poll()  # with nothing to decide, there is time for the disk
        store, key = CandleStore(tmp_path / "candles"), series_key("binance", market.symbols[0], "1h")
        candles = store.read(key, AT, AT + 4 * HOUR_MS)
        assert candles is not None and candles.close.tolist() == made(COUNT)[40:44, 4].tolist()


def test_after_a_restart_in_the_same_candle_nothing_is_given_twice(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [made(COUNT)], BEGIN) as market:
        feed = market.feed(5)
        rows = market.rows_until(feed, AT + HOUR_MS + 4_000)
        feed = market.feed(5, after_ms=rows[-1].open_ms)
        rows += market.rows_until(feed, AT + 2 * HOUR_MS + 30_000)
        assert [row.open_ms for row in rows] == hours(AT, 2)


def test_what_closed_a_moment_before_the_start_is_decided(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [made(COUNT)], AT + 4_000) as market:
        rows = market.rows_until(market.feed(5), AT + 20_000)
        assert [row.open_ms for row in rows] == [AT - HOUR_MS]


@pytest.mark.parametrize("holes", [[], [(10, 25)]])
def test_more_history_than_exists_says_how_much_there_is(tmp_path: Path, holes: list[tuple[int, int]]) -> None:
    with MarketTime(tmp_path, [with_holes(made(COUNT), *holes)], BEGIN) as market:
        there = 40 - sum(b - a for a, b in holes)
        market.feed(there + 1)
        with pytest.raises(DataError, match=f"BTCUSDT 1h at binance: .* {there + 1} candles .* there are {there}, "):
            market.feed(there + 2)


def test_a_symbol_that_is_traded_no_more_is_refused(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [made(COUNT)], START + 200 * HOUR_MS) as market, pytest.raises(DataError) as caught:
        market.feed(10)
    assert "no candle since 2024-01-08" in caught.value.what
    with MarketTime(tmp_path / "2", [made(COUNT)], START + 90 * HOUR_MS) as market, pytest.raises(DataError) as caught:
        market.feed(40)
    assert "the newest candle is of 2024-01-03 11:00" in caught.value.what


def test_an_unknown_symbol_and_a_dead_exchange_are_clear_at_the_start(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [made(COUNT)], BEGIN) as market:
        market.symbols = [Symbol("BTCUSDX", "BTC", "USDX")]
        with pytest.raises(UsageError, match="Unknown symbol 'BTCUSDX'"):
            market.feed(10)
        market.server.add(Fault("status"))
        with pytest.raises(ExchangeUnavailable, match="answered HTTP 503"):
            market.feed(10)


def test_a_store_that_cannot_be_written_is_told_and_trading_goes_on(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [made(COUNT)], BEGIN) as market:
        feed = market.feed(5)
        folder = Path(CandleStore(tmp_path / "candles").where(series_key("binance", market.symbols[0], "1h")))
        for part in folder.iterdir():
            part.unlink()
        folder.rmdir()
        folder.write_text("in the way")
        assert len(market.rows_until(feed, AT + 4 * HOUR_MS)) == 3
        assert len(market.told("candles_not_stored")) == 1


# --- between closes


def test_the_running_candle_forms_and_is_hidden_while_a_close_is_settled(tmp_path: Path) -> None:
    rows = made(COUNT)
    with MarketTime(tmp_path, [rows], BEGIN) as market:
        feed = market.feed(2)
        feed.poll()
        seen = feed.running()["BTCUSDT"]
        assert (seen.open_ms, seen.open, seen.low) == (AT, rows[40, 1], rows[40, 3]) and seen.high < rows[40, 2]
        market.go_to(AT + HOUR_MS + 1_000)
        assert feed.poll() == [] and feed.running() == {}, (
            "of the next candle nothing is shown before this one is given"
        )
        market.go_on(1_000)
        assert len(feed.poll()) == 1 and feed.running()["BTCUSDT"].open == rows[41, 1]


def test_nothing_is_stale_while_candles_come_and_all_is_when_none_do(tmp_path: Path) -> None:
    with MarketTime(tmp_path, [made(43)], BEGIN) as market:
        feed = market.feed(2)
        worst: float = 0
        while market.exchange.now_ms < AT + 3 * HOUR_MS - 60_000:
            market.step(feed)
            worst = max([worst, *feed.stale(market.clock.now_ms()).values()])
        assert worst == 0
        market.rows_until(feed, AT + 3 * HOUR_MS + 16 * 60_000)  # there is no trade any more
        assert np.isclose(feed.stale(market.clock.now_ms())["BTCUSDT"], 16 * 60, atol=2)
        assert not feed.trouble
