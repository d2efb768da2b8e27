"""Several series at once from an exchange that fails, bans and is killed beside: all of it, once, within the limit."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from atb.core.timeframe import DAY_MS, timeframe_ms
from atb.core.types import symbol_for
from atb.data.layout import series_key
from atb.data.store import CandleStore
from atb.engine.candles import COLUMNS
from atb.market.filling import Asking, fill
from atb.market.prefill import Job, Outcome, prefill
from atb.venue.rate_budget import LIMITS, Limit
from tests.venue.exchange.__main__ import history
from tests.venue.loopback import Exchange, Fault, Loopback, Rows

pytest.importorskip("ccxt")
NOW = 1_760_000_400_000
HOUR_MS = 3_600_000
FRAMES = ("1h", "6h")  # Coinbase has no 4h
NAMES = {"binance": ("BTCUSDT", "ETHUSDT"), "coinbase": ("BTC-USD", "ETH-USD")}


def exchange(venue: str = "binance", days: int = 200, holes: bool = False) -> Exchange:
    """Two symbols, each timeframe with a history of its own; with holes the exchange lacks some candles."""
    made = Exchange(NOW)
    for i, name in enumerate(NAMES[venue]):
        base, quote = symbol_for(venue, name)[1:3]
        rows = {tf: history(7 + i, days * DAY_MS // timeframe_ms(tf), tf, NOW, 40_000) for tf in FRAMES}
        if holes:
            rows = {tf: np.delete(r, slice(len(r) // 3, len(r) // 3 + 40), axis=0) for tf, r in rows.items()}
        made.list(name, base, quote, rows, price="40000")
    return made


def jobs(venue: str = "binance", days: int = 150) -> list[Job]:
    symbols = [symbol_for(venue, name) for name in NAMES[venue]]
    return [Job(series_key(venue, s, tf), s, NOW - days * DAY_MS, NOW) for s in symbols for tf in FRAMES]


def truth(made: Exchange, job: Job, now: int = NOW) -> Rows:
    rows = made.candles(job.key.symbol, job.key.timeframe)
    step = timeframe_ms(job.key.timeframe)
    return rows[(rows[:, 0] >= job.start_ms) & (rows[:, 0] < job.end_ms) & (rows[:, 0] + step <= now)]


def stored(store: CandleStore, job: Job) -> Rows:
    candles = store.read(job.key, job.start_ms, job.end_ms)
    assert candles is not None
    return np.column_stack([candles.open_time, *(getattr(candles, name) for name in COLUMNS)])


class Desk:
    """A store, and how it is filled."""

    def __init__(self, folder: Path, url: str) -> None:
        self.store = CandleStore(folder / "candles")
        self.asking = Asking(lambda _: url, folder / "rates")

    def run(self, *wanted: Job) -> list[Outcome]:
        return prefill(self.store, wanted, NOW, self.asking)


@contextmanager
def desk(folder: Path, made: Exchange, *faults: Fault) -> Iterator[tuple[Desk, Loopback]]:
    with Loopback(made, *faults, seed=3) as server:
        yield Desk(folder, server.url), server


@pytest.mark.parametrize("venue", NAMES)
def test_all_of_it_is_there_and_is_not_asked_for_again(tmp_path: Path, venue: str) -> None:
    days = 150 if venue == "binance" else 40
    made = exchange(venue, days=days + 20, holes=True)
    with desk(tmp_path, made) as (one, server):
        outcomes = one.run(*jobs(venue, days))
        assert [o.trouble for o in outcomes] == [None] * 4
        for job, outcome in zip(jobs(venue, days), outcomes, strict=True):
            assert np.array_equal(stored(one.store, job), truth(made, job))
            assert outcome.candles == len(truth(made, job)) and outcome.corrections == []
        asked = len(server.requests)
        again = one.run(*(job._replace(end_ms=NOW - DAY_MS) for job in jobs(venue, days)))
        assert len(server.requests) == asked and {o.candles for o in again} == {0}


def test_before_the_listing_there_is_nothing_and_it_is_not_asked_for_page_by_page(tmp_path: Path) -> None:
    made = exchange(days=30)
    with desk(tmp_path, made) as (one, server):
        (job,) = jobs(days=3_000)[:1]
        (outcome,) = one.run(job)
        assert outcome.trouble is None and np.array_equal(stored(one.store, job), truth(made, job))
        assert server.count("/klines") <= 4
        assert one.store.missing_ranges(job.key, job.start_ms, NOW - DAY_MS) == []


def test_one_that_fails_does_not_keep_the_others_from_being_done(tmp_path: Path) -> None:
    with desk(tmp_path, exchange()) as (one, _):
        symbol = symbol_for("binance", "NOPEUSDT")
        bad = Job(series_key("binance", symbol, "1h"), symbol, NOW - 9 * DAY_MS, NOW)
        outcomes = one.run(bad, *jobs())
        assert "Unknown symbol 'NOPEUSDT'" in getattr(outcomes[0].trouble, "what", "")
        assert [o.trouble for o in outcomes[1:]] == [None] * 4


def test_complete_although_every_tenth_request_fails_and_one_is_a_ban(tmp_path: Path) -> None:
    made = exchange()
    ban = Fault("status", "/klines", times=1, skip=7, status=418, retry_after="2")
    failing = (Fault(kind, "/klines", probability=0.025) for kind in ("status", "reset", "truncated", "html"))
    with desk(tmp_path, made, ban, *failing) as (one, _):
        outcomes = one.run(*jobs())
        assert [o.trouble for o in outcomes] == [None] * 4
        for job in jobs():
            assert np.array_equal(stored(one.store, job), truth(made, job))


def test_what_the_exchange_tells_otherwise_now_is_recorded_and_not_taken(tmp_path: Path) -> None:
    made = exchange()
    with desk(tmp_path, made) as (one, _):
        job = jobs()[0]
        one.run(job._replace(end_ms=NOW - 20 * DAY_MS))
        before = stored(one.store, job._replace(end_ms=NOW - 20 * DAY_MS))
        rows = made.listings[job.key.symbol].candles["1h"]
        rows[int(np.searchsorted(rows[:, 0], before[-1, 0])), 5] += 1.0
        (outcome,) = one.run(job)
        (correction,) = outcome.corrections
        assert correction.open_ms == before[-1, 0] and correction.changed.startswith("volume ")
        assert np.array_equal(stored(one.store, job)[: len(before)], before)


ODD = ["empty list", "one more", "future", "wrong order", "duplicated", "contradicting", "shifted back"]
HARMLESS = ("one more", "wrong order", "duplicated")  # however often


@pytest.mark.parametrize("kind", ODD)
def test_odd_answers_that_pass_leave_no_trace(tmp_path: Path, kind: str) -> None:
    made = exchange(holes=True)
    with desk(tmp_path, made, Fault(kind, "/klines", every=3, times=9)) as (one, _):
        # One after the other: side by side, all that is spoilt may by chance meet one question, which then ends in trouble.
        assert [o.trouble for o in prefill(one.store, jobs(), NOW, one.asking, workers=1)] == [None] * 4
        for job in jobs():
            assert np.array_equal(stored(one.store, job), truth(made, job))


@pytest.mark.parametrize("kind", ODD)
def test_odd_answers_that_stay_are_said_and_are_no_holes(tmp_path: Path, kind: str) -> None:
    made, (job, *_) = exchange(), jobs()
    with desk(tmp_path, made, Fault(kind, "/klines")) as (one, server):
        asking = one.asking._replace(attempts=1)
        (outcome,) = prefill(one.store, [job], NOW, asking)
        if kind not in HARMLESS:
            assert outcome.trouble is not None and outcome.trouble.exit_code == 4
            assert one.store.missing_ranges(job.key, job.start_ms, NOW) == [(job.start_ms, NOW)]
            server.heal()
            (outcome,) = prefill(one.store, [job], NOW, asking)
        assert outcome.trouble is None and np.array_equal(stored(one.store, job), truth(made, job))


@pytest.mark.parametrize("venue", NAMES)
@pytest.mark.parametrize("begins", [-20 * DAY_MS, DAY_MS])
@pytest.mark.parametrize("how", ["prefill", "fill"])
def test_a_clock_that_is_weeks_ahead_makes_no_hole_of_the_time_to_come(
    tmp_path: Path, venue: str, begins: int, how: str
) -> None:
    """Nor where all that is wanted is yet to come. When it has come, it is fetched."""
    ahead = NOW + 60 * DAY_MS
    end = ahead - 2 * DAY_MS  # far enough from the machine's "now" to be taken for known
    symbol, made = symbol_for(venue, NAMES[venue][0]), Exchange(NOW)
    rows = history(7, 100 * 24, "1h", ahead, 40_000)
    made.list(symbol.id, symbol.base, symbol.quote, {"1h": rows}, price="40000")
    job = Job(series_key(venue, symbol, "1h"), symbol, NOW + begins, end)

    def run(one: Desk) -> None:
        if how == "prefill":
            (outcome,) = prefill(one.store, [job], ahead, one.asking)
            assert outcome.trouble is None
            return
        for span in one.store.missing_ranges(job.key, job.start_ms, job.end_ms):
            fill(one.store, job.key, job.symbol, span, ahead, one.asking)

    with desk(tmp_path, made) as (one, _):
        run(one)
        assert one.store.missing_ranges(job.key, job.start_ms, end) == [(max(NOW, job.start_ms), end)]
        made.now_ms = ahead
        run(one)
        assert one.store.missing_ranges(job.key, job.start_ms, end) == []
        assert np.array_equal(stored(one.store, job), truth(made, job, ahead))


def test_side_by_side_is_faster_than_one_after_the_other(tmp_path: Path) -> None:
    """A share of what `python -m benchmarks prefill` measures with the exchange in a process of its own."""
    with desk(tmp_path, exchange(days=750), Fault("hang", "/klines", seconds=0.2)) as (one, server):
        began = time.monotonic()
        one.run(*jobs(days=730))
        together = time.monotonic() - began
        other = Desk(tmp_path / "other", server.url)
        began = time.monotonic()
        for job in jobs(days=730):
            fill(other.store, job.key, job.symbol, (job.start_ms, job.end_ms), NOW, other.asking)
        apart = time.monotonic() - began
    assert together < apart / 2


def test_never_above_its_share_of_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data may use half of what the exchange allows, however many threads want to ask."""
    monkeypatch.setitem(LIMITS, "binance", Limit(40, 1))
    with desk(tmp_path, exchange(days=400)) as (one, server):
        began = time.monotonic()
        assert {o.trouble for o in one.run(*jobs(days=390))} == {None}
        weight = 2 * server.count("/klines")
        assert weight > 50 and time.monotonic() - began > weight / 20 - 1


KILLED = """
import sys
from pathlib import Path
from tests.venue.test_prefill import Desk, jobs
desk = Desk(Path(sys.argv[1]), sys.argv[2])
print("begins", flush=True)
desk.run(*jobs())
"""


@pytest.mark.slow
def test_killed_at_random_again_and_again_the_store_is_as_if_nothing_had_happened(tmp_path: Path) -> None:
    made, rng, kills = exchange(holes=True), random.Random(5), 0
    with desk(tmp_path, made, Fault("hang", "/klines", seconds=0.02)) as (one, server):
        command = [sys.executable, "-c", KILLED, str(tmp_path), server.url]
        while kills < 100:
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None and process.stdout.readline() == "begins\n"
                time.sleep(rng.uniform(0.0, 0.5))
                kills += process.poll() is None
                process.send_signal(signal.SIGKILL)
            if process.returncode == 0:  # it was done: begin anew with some of it gone
                for job in jobs():
                    for part in one.store.parts(job.key)[rng.randrange(2) :: 2]:
                        one.store.remove(part)
        one.run(*jobs())
        for job in jobs():
            assert np.array_equal(stored(one.store, job), truth(made, job))
