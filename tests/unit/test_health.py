"""The judgement on an engine, reason by reason, and what it is judged by."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from atb.core.words import duration
from atb.execution.bare import BareTime
from atb.live.health_pages import document
from atb.live.judgement import Limits, judge
from atb.live.prometheus import metrics
from atb.live.redact import LONGEST, Redactor, one_line
from atb.live.repeats import MOST_KEYS, Repeats
from atb.live.status import EVENTS_KEPT, About, Blocked, Halt, Holding, Link, Snapshot, Status, Told

NOW = 1_763_738_000_000
HOUR = 3_600_000
ABOUT = About("real", "binance", "real-account", 5, "ml_basic", ("BTCUSDT", "ETHUSDT"), "1h", "0123456789abcdef",
              "postgresql://trading_bot@localhost/ai_trading_bot", NOW - HOUR)  # fmt: skip
LIMITS = Limits(30_000)
HELD = Holding("BTCUSDT", Decimal("0.5"), Decimal(48000), stop_loss=Decimal(47000))
WELL = Snapshot(
    ABOUT, cycle_ms=NOW - 20_000, cycles=7, data_ms=NOW - 3_000, candles={"BTCUSDT": NOW - 60_000, "ETHUSDT": NOW - 60_000},
    equity=Decimal("10500.45"), peak=Decimal(12000), positions=(HELD,), skew_ms=-900, next_decision_ms=NOW + 60_000,
)  # fmt: skip


def test_an_engine_that_is_well() -> None:
    assert judge(WELL, NOW, LIMITS) == (True, (), ())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cycle_ms": None, "cycles": 0}, "No cycle is completed yet: the engine was started 1 h 00 min ago."),
        ({"cycle_ms": NOW - 90_001}, "The last cycle ended 1 min 30 s ago: more than 3 check intervals (1 min 30 s)."),
        (
            {"cycle_ms": NOW + 90_001},
            "The last cycle ended 1 min 30 s in the future: this machine's clock was set back.",
        ),
        ({"database": Link(False, NOW - 5_000, "gone.")}, "The database has been out for 5 s: gone."),
        ({"exchange": Link(False, NOW - 125_000, "HTTP 503")}, "The exchange has been out for 2 min 05 s: HTTP 503"),
        ({"candles": {"BTCUSDT": NOW}}, "There is no closed candle of ETHUSDT yet."),
        (
            {"candles": {"BTCUSDT": NOW, "ETHUSDT": NOW - 2 * HOUR}},
            "The last 1h candle of ETHUSDT closed 2 h 00 min ago.",
        ),
        ({"stale": ("ETHUSDT",)}, "The data of ETHUSDT is stale."),
        ({"skew_ms": 1_500}, "This machine's clock is 1.5 s behind the exchange's: more than 1 s."),
        ({"skew_ms": -61_000}, "This machine's clock is 61.0 s ahead of the exchange's: more than 1 s."),
        (
            {"positions": (HELD._replace(unprotected_since_ms=NOW - 31_000),)},
            "The position in BTCUSDT has had no stop at the exchange for 31 s.",
        ),
        (
            {"halt": Halt("drawdown 25.3 %", NOW - HOUR)},
            "Halted for 1 h 00 min (drawdown 25.3 %): no entries until atb live resume --reason TEXT",
        ),
    ],
)
def test_each_reason_and_no_other(change: dict[str, Any], said: str) -> None:
    assert judge(WELL._replace(**change), NOW, LIMITS) == (False, (said,), ())


@pytest.mark.parametrize(
    "change",
    [
        {"cycle_ms": NOW - 90_000},
        {"skew_ms": 1_000},
        {"skew_ms": None},
        {"positions": (HELD._replace(unprotected_since_ms=NOW - 30_000),)},
        {"positions": (HELD._replace(stop_loss=None),)},  # no stop is wanted
        {"candles": {"BTCUSDT": NOW - HOUR - 90_000, "ETHUSDT": NOW}},  # the next one may come a little late
        {"equity": None, "peak": None, "data_ms": None},
    ],
)
def test_what_is_still_well(change: dict[str, Any]) -> None:
    assert judge(WELL._replace(**change), NOW, LIMITS).healthy


def test_all_reasons_at_once_and_before_the_first_cycle_no_word_of_candles() -> None:
    bad = WELL._replace(cycle_ms=NOW - HOUR, database=Link(False, NOW, "x"), skew_ms=9_999, candles={})
    assert len(judge(bad, NOW, LIMITS).reasons) == 5
    assert len(judge(Snapshot(ABOUT), NOW, LIMITS).reasons) == 1


def test_what_an_operator_wanted_is_a_note() -> None:
    verdict = judge(WELL._replace(halt=Halt("holidays", NOW - HOUR, by_operator=True)), NOW, LIMITS)
    assert verdict.healthy and "Halted by an operator for 1 h 00 min (holidays)" in verdict.notes[0]
    verdict = judge(WELL._replace(log=Link(False, NOW - 9_000, "disk full")), NOW, LIMITS)
    assert verdict.healthy and verdict.notes == ("The log file has not been written for 9 s: disk full",)


def test_why_nothing_is_bought_is_a_note_where_it_is_meant_and_a_reason_where_it_is_not() -> None:
    blocked = (Blocked("switched off", "meant"), Blocked("it disagrees", "wrong"), Blocked("stale", "told"))
    snapshot = WELL._replace(blocked=blocked)
    assert judge(snapshot, NOW, LIMITS) == (False, ("No entries: it disagrees",), ("No entries: switched off",))
    assert judge(WELL._replace(blocked=blocked[::2]), NOW, LIMITS).healthy
    told = document(snapshot, judge(snapshot, NOW, LIMITS), NOW)
    assert told["entries_blocked"] == ["switched off", "it disagrees", "stale"]


def test_a_month_has_a_length_here() -> None:
    monthly = WELL._replace(about=ABOUT._replace(timeframe="1M"))
    assert judge(monthly, NOW, LIMITS).healthy and not judge(monthly, NOW + 32 * 24 * HOUR, LIMITS).healthy


def test_the_document_is_the_runbooks_and_more() -> None:
    told = json.loads(json.dumps(document(WELL, judge(WELL, NOW, LIMITS), NOW), allow_nan=False))
    assert list(told)[:5] == ["status", "uptime_seconds", "active_positions", "balance", "last_data_update"]
    assert (told["status"], told["uptime_seconds"], told["active_positions"]) == ("healthy", 3600, 1)
    assert (told["balance"], told["last_data_update"]) == (10500.45, "2025-11-21T15:13:17Z")
    assert told["last_cycle_age_seconds"] == 20.0 and told["drawdown"] == pytest.approx(0.1249625)
    assert told["database"] == {"status": "ok", "since": None, "error": "", "url": ABOUT.database}
    assert told["unprotected_seconds"] == 0 and told["positions"][0]["stop_loss"] == 47000
    fresh = document(Snapshot(ABOUT), judge(Snapshot(ABOUT), NOW, LIMITS), NOW)
    assert fresh["status"] == "unhealthy" and fresh["balance"] is None and fresh["last_cycle_age_seconds"] is None
    naked = WELL._replace(positions=(HELD._replace(unprotected_since_ms=NOW - 7_000),), unprotected_ms=2_000)
    told = document(naked, judge(naked, NOW, LIMITS), NOW)
    names = ("unprotected_seconds", "unprotected_seconds_total", "unprotected_seconds_worst")
    assert [told[name] for name in names] == [7.0, 9.0, 7.0]


def test_metrics_are_in_the_text_format_and_say_what_health_says() -> None:
    about = ABOUT._replace(account='a "quoted\\" one')
    lines = metrics(WELL._replace(about=about), judge(WELL, NOW, LIMITS), NOW).splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values["atb_healthy"] == "1" and values["atb_equity"] == "10500.45" and values["atb_open_positions"] == "1"
    assert values["atb_last_cycle_age_seconds"] == "20" and values['atb_candle_age_seconds{symbol="ETHUSDT"}'] == "60"
    assert 'account="a \\"quoted\\\\\\" one"' in lines[2]
    for name in (name.partition("{")[0] for name in values):
        assert sum(line.startswith(f"# TYPE {name} ") for line in lines) == 1
    unknown = metrics(Snapshot(ABOUT), judge(Snapshot(ABOUT), NOW, LIMITS), NOW)
    assert "atb_equity" not in unknown and "atb_healthy 0" in unknown


# --- the status


def test_a_snapshot_never_changes() -> None:
    status = Status(ABOUT)
    candles, positions = {"BTCUSDT": 1}, [HELD]
    status.update(candles=candles, positions=positions)
    before = status.snapshot
    candles["BTCUSDT"] = 2
    positions.clear()
    status.candle_closed("ETHUSDT", 3)
    assert before.candles == {"BTCUSDT": 1} and before.positions == (HELD,)
    assert status.snapshot.candles == {"BTCUSDT": 1, "ETHUSDT": 3}
    with pytest.raises(TypeError):
        status.snapshot.candles["BTCUSDT"] = 4  # type: ignore[index]


def test_a_link_keeps_its_time_until_it_changes() -> None:
    status = Status(ABOUT, Redactor(["hunter2222"]))
    status.reached("exchange", 10)
    status.reached("exchange", 20)
    assert status.snapshot.exchange == Link(True, 10, "")
    status.lost("exchange", "refused: hunter2222", 30)
    status.lost("exchange", "refused", 40)
    assert status.snapshot.exchange == Link(False, 30, "refused")
    status.lost("database", "password=hunter2222", 40)
    assert "hunter" not in status.snapshot.database.error
    status.reached("exchange", 50)
    assert status.snapshot.exchange == Link(True, 50, "")


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("restless")
def test_several_writers_lose_nothing() -> None:
    status = Status(ABOUT)

    def write(name: str) -> None:
        for i in range(2_000):
            status.cycle_done(i)
            status.candle_closed(name, i)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert status.snapshot.cycles == 8_000 and status.snapshot.candles == dict.fromkeys("abcd", 1_999)


def test_the_last_events_are_kept() -> None:
    status = Status(ABOUT)
    for i in range(EVENTS_KEPT + 9):
        status.happened(Told(i, "info", "x", "x", "x"))
    assert [told.at_ms for told in status.snapshot.events] == list(range(9, EVENTS_KEPT + 9))


def test_time_without_a_stop_is_summed_from_when_it_began() -> None:
    bare = BareTime()
    assert bare.note(0, True, 1_000, 1_500) is None  # bought at 1,000
    assert bare.note(1, True, 2_000, 2_000) is None and bare.now(3_000) == {0: 2_000, 1: 1_000}
    assert bare.note(0, False, 1_000, 4_000) == 3_000
    assert bare.note(1, False, 2_000, 2_500) == 500
    assert (bare.total_ms, bare.worst_ms, bare.now(9_000)) == (3_500, 3_000, {})


def test_a_stop_that_vanishes_is_missing_since_it_was_seen_last_and_not_since_the_purchase() -> None:
    bare = BareTime()
    bare.note(0, True, 1_000, 1_500)
    bare.note(0, False, 1_000, 2_000)
    bare.note(0, False, 1_000, 60_000)
    bare.note(0, True, 1_000, 65_000)
    assert bare.note(0, False, 1_000, 66_000) == 6_000


def test_durations() -> None:
    assert [duration(ms) for ms in (-5, 999, 45_000, 200_000, 7_500_000, 90_000_000_0)] == [
        "0 s", "0 s", "45 s", "3 min 20 s", "2 h 05 min", "10 d 10 h"
    ]  # fmt: skip


# --- what is told


def test_secrets_are_in_no_text() -> None:
    clean = Redactor(["sk-abcdefgh", "", "ab"])
    for text in (
        "key sk-abcdefgh was refused", "postgresql://bot:pass%40word@host/db", "GET /api?symbol=X&signature=0011aabb&x=1",
        "X-MBX-APIKEY: pass%40word", '{"apiKey":"pass%40word"}', "Authorization: Bearer pass%40word.xx", "password=pass%40word",
    ):  # fmt: skip
        said = clean(text)
        assert "***" in said and not any(secret in said for secret in ("sk-abc", "pass%40", "0011aabb")), said
    assert clean("about the signature of an absolute ab") == "about the signature of an absolute ab"


def test_a_text_is_one_line_that_moves_nothing_and_ends() -> None:
    assert one_line("a\nb\r\x1b[2J\x00\u2028é ✅") == "a\\nb\\r\\x1b[2J\\x00\\u2028é ✅"
    assert len(Redactor()("<html>" * 100_000)) < LONGEST + 50
    assert one_line("\ud800") == "\\ud800"


def told(at_s: float, message: str = "x", severity: str = "warning", code: str = "c") -> Told:
    return Told(NOW + round(at_s * 1000), severity, "LiveTradingEngine", code, message)


def test_a_storm_is_told_once_then_counted_ever_more_rarely() -> None:
    repeats, out = Repeats(), list[Told]()
    for second in range(24 * 3600):
        out += repeats.admit(told(second, f"no answer after {second} s, attempt {second:,}"))
    assert 20 < len(out) < 40 and out[0].times == 1
    assert out[1].message == "no answer after 59 s, attempt 59 (59 times more in 1 min 00 s)"
    out += repeats.due(NOW + 24 * 3_600_000, everything=True)
    assert sum(one.times for one in out) == 24 * 3600


def test_different_things_are_all_told() -> None:
    repeats = Repeats()
    events = [told(i, f"bought 0.5 at {i}", "info") for i in range(50)]
    events += [told(50, "1000SHIBUSDT"), told(50, "100SHIBUSDT"), told(50, code="d"), told(50, severity="error")]
    assert [one for event in events for one in repeats.admit(event)] == events
    assert repeats.admit(told(51, "bought 0.5 at 3", "info")) == []  # word for word the same


def test_what_was_silent_for_a_while_is_news_again_and_memory_is_bounded() -> None:
    repeats = Repeats()
    assert len(repeats.admit(told(0))) == 1 and repeats.due(NOW + 60_000) == [] and len(repeats.admit(told(61))) == 1
    count = sum(len(repeats.admit(told(62, f"kind {chr(0x4E00 + i)}"))) for i in range(3 * MOST_KEYS))
    assert count == 3 * MOST_KEYS and len(repeats._windows) <= MOST_KEYS
