"""Side series from servers that speak as Binance's futures and alternative.me do, on good and bad days."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from atb.core.errors import AtbError, ExchangeRefused, ExchangeUnavailable, UsageError
from atb.core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from atb.data.side_store import DOWNLOADABLE, SideStore
from atb.market.side_download import Asking, download, key_of
from atb.venue.ccxt_session import Patience
from atb.venue.side_sources import SOURCES
from tests.venue.fear_greed import FearGreed, days
from tests.venue.loopback import Exchange, Fault, Loopback, Rows

pytest.importorskip("ccxt")
NOW = 1_760_000_400_000 + 5 * MINUTE_MS
SINCE = 1_577_836_800_000  # 2020-01-01
FUNDING, INTEREST, FEAR = (
    key_of("funding_rate", "BTCUSDT"),
    key_of("open_interest", "BTCUSDT"),
    key_of("fear_greed", ""),
)
DAY = NOW // DAY_MS * DAY_MS


def table(start_ms: int, step_ms: int, seed: int) -> Rows:
    times = np.arange(start_ms, NOW + 10 * DAY_MS, step_ms, dtype=float)
    return np.column_stack([times, np.round(np.random.default_rng(seed).normal(1e-4, 2e-4, len(times)), 8)])


@pytest.fixture
def server() -> Iterator[Loopback]:
    exchange = Exchange(NOW)
    exchange.funding["BTCUSDT"] = table(SINCE, 8 * HOUR_MS, 1)
    interest = table(NOW // DAY_MS * DAY_MS - 60 * DAY_MS, 5 * MINUTE_MS, 2)
    interest[:, 1] = np.round(90_000 + 1e7 * interest[:, 1], 3)
    exchange.interest["BTCUSDT"] = interest
    with Loopback(exchange) as running:
        yield running


def asking(server: Loopback, tmp_path: Path | None = None, attempts: int = 1) -> Asking:
    return Asking(lambda venue: server.url, tmp_path, Patience(attempts=attempts, timeout_s=2.0, backoff_s=0.01))


def truth(rows: Rows, start_ms: int = 0) -> list[tuple[int, float]]:
    return [(int(at), value) for at, value in rows.tolist() if start_ms <= at <= NOW]


def test_funding_from_the_first_to_the_newest(server: Loopback, tmp_path: Path) -> None:
    store = SideStore(tmp_path / "sides")
    should = truth(server.exchange.funding["BTCUSDT"])
    done = download(store, FUNDING, asking(server, tmp_path), NOW)
    assert done == (len(should), len(should)) and len(should) > 6000
    rows = store.read(FUNDING)
    assert list(zip(rows.time_ms.tolist(), rows.value.tolist(), strict=True)) == should
    assert set((rows.available_ms - rows.time_ms).tolist()) == {MINUTE_MS}
    asked = len(server.requests)
    assert download(store, FUNDING, asking(server), NOW) == (1, 0)  # the last is asked for once more
    assert len(server.requests) == asked + 1
    server.exchange.now_ms = NOW + DAY_MS
    assert download(store, FUNDING, asking(server), NOW + DAY_MS).new == 3


def test_what_is_told_otherwise_later_is_a_revision(server: Loopback, tmp_path: Path) -> None:
    store = SideStore(tmp_path)
    download(store, FUNDING, asking(server), NOW)
    last = int(store.read(FUNDING).time_ms[-1])
    rows = server.exchange.funding["BTCUSDT"]
    rows[rows[:, 0] == last, 1] = 0.0123
    assert download(store, FUNDING, asking(server), NOW + 5) == (1, 1)
    told = store.read(FUNDING)
    assert told.value[told.time_ms == last].tolist()[-1] == 0.0123
    assert told.available_ms[told.time_ms == last].tolist() == [last + MINUTE_MS, NOW + 5]
    assert download(store, FUNDING, asking(server), NOW + 9) == (1, 0)


@pytest.mark.parametrize("period", ["5m", "1h"])
def test_open_interest_of_the_last_30_days(server: Loopback, tmp_path: Path, period: str) -> None:
    store = SideStore(tmp_path)
    length = {"5m": 5 * MINUTE_MS, "1h": HOUR_MS}[period]
    download(store, INTEREST, asking(server), NOW, period=period)
    rows, known = store.read(INTEREST), server.exchange.interest["BTCUSDT"]
    first = int(rows.time_ms[0])
    assert NOW - 30 * DAY_MS <= first <= NOW - 30 * DAY_MS + 2 * length
    assert list(zip(rows.time_ms.tolist(), rows.value.tolist(), strict=True)) == [
        (at, value) for at, value in truth(known, first) if at % length == 0
    ]
    assert set((rows.available_ms - rows.time_ms).tolist()) == {length + 5 * MINUTE_MS}
    server.exchange.now_ms = NOW + DAY_MS
    assert (
        download(store, INTEREST, asking(server), NOW + DAY_MS).new == DAY_MS // length
    )  # by the period that is stored


def test_fear_and_greed(tmp_path: Path) -> None:
    store = SideStore(tmp_path)
    with FearGreed(days(40, 41, 12, first_ms=DAY - 2 * DAY_MS)) as server:
        ask = Asking(lambda venue: server.url)
        assert download(store, FEAR, ask, NOW) == (3, 3)
        rows = store.read(FEAR)
        assert rows.value.tolist() == [40.0, 41.0, 12.0] and int(rows.time_ms[-1]) == DAY
        assert set((rows.available_ms - rows.time_ms).tolist()) == {6 * HOUR_MS}
        server.days[-1]["value"] = "15"  # the day is not over
        assert download(store, FEAR, ask, NOW + HOUR_MS) == (1, 1)
        assert store.read(FEAR).available_ms.tolist()[-1] == max(NOW, DAY + 6 * HOUR_MS - HOUR_MS) + HOUR_MS


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ((b"<html>",), "no JSON"), ((b'{"data": [{"value": "4', ), "no JSON"), ((b"[]",), "no list of days"),
        ((b'{"data": []}',), "no values"), ((b'{"data": [{"value": "40"}]}',), "without timestamp or value"),
        ((b'{"data": [{"value": "140", "timestamp": "1577836800"}]}',), "other than|others than"),
        ((b'{"data": [{"value": "NaN", "timestamp": "1577836800"}]}',), "nan"),
        ((json.dumps({"data": days(1, 2, first_ms=SINCE)}).encode(),), "out of order"),
        ((json.dumps({"data": days(1, first_ms=NOW + DAY_MS)}).encode(),), "future"),
        ((500,), "HTTP 500"),
    ],
)  # fmt: skip
def test_no_answer_of_fear_and_greed(
    tmp_path: Path, answers: tuple[bytes | int, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atb.venue.plain_http.PAUSE_S", 0.0)
    with FearGreed(days(40, first_ms=DAY), *(answers * 3)) as server:
        with pytest.raises(ExchangeUnavailable, match=words):
            download(SideStore(tmp_path), FEAR, Asking(lambda venue: server.url), NOW)
        assert server.asked == 3 and SideStore(tmp_path).keys() == []
    with FearGreed(days(40, first_ms=DAY), *answers) as server:  # once is no harm
        assert download(SideStore(tmp_path), FEAR, Asking(lambda venue: server.url), NOW).new == 1


def test_nobody_there(tmp_path: Path) -> None:
    with FearGreed([]) as server:
        url = server.url
    with pytest.raises(ExchangeUnavailable, match=r"could not be reached \(.*\) \(3 attempts\)"):
        download(SideStore(tmp_path), FEAR, Asking(lambda venue: url), NOW)
    with FearGreed([], 404) as server, pytest.raises(ExchangeRefused, match="HTTP 404"):
        download(SideStore(tmp_path), FEAR, Asking(lambda venue: server.url), NOW)


FAULTS = [
    Fault("html"), Fault("empty body"), Fault("malformed"), Fault("null"), Fault("null candles"), Fault("truncated"),
    Fault("reset"), Fault("broken off"), Fault("status"), Fault("empty list"), Fault("wrong order"), Fault("duplicated"),
    Fault("future"), Fault("shifted back"),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.kind)
@pytest.mark.parametrize("key", [FUNDING, INTEREST], ids=lambda key: key.name)
def test_a_spoilt_answer_stores_nothing(server: Loopback, tmp_path: Path, fault: Fault, key: object) -> None:
    """Neither the first page nor the last but one; asked again, it is all there."""
    assert key in (FUNDING, INTEREST)
    chosen = FUNDING if key == FUNDING else INTEREST
    store, late = SideStore(tmp_path), fault._replace(skip=1, times=1)
    for given in (fault, late) if fault.kind not in ("empty list", "shifted back") else (fault,):
        server.heal()
        server.add(given)
        with pytest.raises(ExchangeUnavailable):
            download(store, chosen, asking(server), NOW)
        assert store.keys() == []
    server.heal()
    server.add(fault._replace(times=1))
    assert download(store, chosen, asking(server, attempts=3), NOW).new > 500


def test_what_errors_promise_can_be_downloaded() -> None:
    assert {name: source.venue for name, source in SOURCES.items()} == DOWNLOADABLE


def test_refusals(server: Loopback, tmp_path: Path) -> None:
    store = SideStore(tmp_path)
    with pytest.raises(ExchangeRefused, match="Invalid symbol"):
        download(store, key_of("funding_rate", "NOSUCH"), asking(server), NOW)
    with pytest.raises(UsageError, match="no open interest by '7m'"):
        download(store, INTEREST, asking(server), NOW, period="7m")
    with pytest.raises(ExchangeUnavailable, match="has none from"):
        download(store, FUNDING, asking(server), NOW, NOW - 1)
    assert store.keys() == []


def test_the_budget_of_the_host_is_kept(server: Loopback, tmp_path: Path) -> None:
    """A ban that one process met keeps the next from asking."""
    server.add(Fault("status", status=418, retry_after="100", body=b'{"code": -1003, "msg": "banned"}'))
    ask = asking(server, tmp_path / "rates")
    for _ in range(2):
        with pytest.raises(AtbError):
            download(SideStore(tmp_path), FUNDING, ask, NOW)
    assert len(server.requests) == 1


def test_ten_years_cost_few_requests(server: Loopback, tmp_path: Path) -> None:
    begin = time.perf_counter()
    download(SideStore(tmp_path / "sides"), FUNDING, asking(server, tmp_path), NOW)
    assert len(server.requests) == 7 and time.perf_counter() - begin < 10.0
