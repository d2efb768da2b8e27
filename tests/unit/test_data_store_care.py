"""Merging, checking, mending and keeping parts: what is read stays the same, and nothing goes that must stay."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atb.core.errors import DataError
from atb.data.checking import check_store
from atb.data.compacting import ENOUGH, compact
from atb.data.corrections import read, record
from atb.data.former import adopt_former
from atb.data.importing import import_candles
from atb.data.keeping import Pins, remove, too_much, unused
from atb.data.layout import DERIVED, IMPORTED, SeriesKey
from atb.data.overview import look_at
from atb.data.store import CandleStore
from atb.data.usage import Usage
from atb.engine.candles import Candles
from tests.conftest import START_MS, random_candles, same_candles

HOUR_MS = 3_600_000
KEY = SeriesKey("binance", "spot", "BTCUSDT", "1h")
WHOLE = random_candles(200)
FAR_MS = START_MS + 10**12


def at(hour: int) -> int:
    return START_MS + hour * HOUR_MS


def one_by_one(root: Path, hours: range) -> CandleStore:
    store = CandleStore(root)
    for hour in hours:
        store.append(KEY, WHOLE.window(hour, hour + 1), at(hour), at(hour + 1))
    return store


def read_all(store: CandleStore) -> Candles:
    candles = store.read(KEY)
    assert candles is not None
    return candles


def test_small_parts_become_one_and_read_as_before(tmp_path: Path) -> None:
    store = one_by_one(tmp_path, range(50))
    assert compact(store, KEY) == 49 and len(store.parts(KEY)) == 1
    assert same_candles(read_all(store), WHOLE.window(0, 50))
    assert store.missing_ranges(KEY, at(0), at(60)) == [(at(50), at(60))]


def test_few_parts_stay_and_kinds_do_not_mix(tmp_path: Path) -> None:
    store = one_by_one(tmp_path, range(ENOUGH - 1))
    assert compact(store, KEY) == 0
    for kind, begin in ((IMPORTED, 20), (DERIVED, 40)):
        for hour in range(begin, begin + ENOUGH):
            store.append(KEY, WHOLE.window(hour, hour + 1), at(hour), at(hour + 1), kind)
    compact(store, KEY)
    assert [part.kind for part in store.parts(KEY)[-2:]] == [IMPORTED, DERIVED]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.integers(2, 20))
def test_whatever_the_parts_merging_changes_nothing_that_is_read(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], enough: int
) -> None:
    store, hour = CandleStore(tmp_path_factory.mktemp("store")), 0
    for length in lengths:
        end = min(hour + length, len(WHOLE))
        if end > hour:
            store.append(KEY, WHOLE.window(hour, end), at(hour), at(end))
        hour = end + (length == 9)  # a hole that nobody asked for
    before, missing = read_all(store), store.missing_ranges(KEY, at(0), at(300))
    compact(store, KEY, enough)
    assert same_candles(read_all(store), before) and store.missing_ranges(KEY, at(0), at(300)) == missing


def test_what_a_merge_that_was_killed_left_is_read_once_and_goes(tmp_path: Path) -> None:
    store = one_by_one(tmp_path, range(5))
    store.append(KEY, WHOLE.window(0, 5), at(0), at(5))  # the merged part is whole, the others are not removed yet
    assert same_candles(read_all(store), WHOLE.window(0, 5))
    assert compact(store, KEY) == 5 and len(store.parts(KEY)) == 1


@pytest.mark.slow
def test_readers_and_writers_and_a_merger_at_once(tmp_path: Path) -> None:
    store, wrong = one_by_one(tmp_path, range(20)), []

    def write() -> None:
        for hour in range(20, 120):
            store.add(KEY, WHOLE.window(hour - 5, hour + 1), at(hour - 5), at(hour + 1))

    def merge() -> None:
        for _ in range(40):
            compact(store, KEY, 4)

    def look() -> None:
        for _ in range(80):
            found = read_all(store)
            if len(found) < 20 or not same_candles(found, WHOLE.window(0, len(found))):
                wrong.append(len(found))

    threads = [threading.Thread(target=work) for work in (write, write, merge, look, look)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and same_candles(read_all(store), WHOLE.window(0, 120))


def test_of_two_writers_each_adds_what_the_other_has_not(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    assert store.add(KEY, WHOLE.window(0, 10), at(0), at(10)).new == 10
    added = store.add(KEY, WHOLE.window(5, 15), at(5), at(15))
    assert added.new == 5 and added.told is None
    other = WHOLE.replace(close=np.asarray(WHOLE.high))
    told = store.add(KEY, other.window(10, 20), at(10), at(20))
    assert told.new == 5 and told.told is not None and told.stored is not None
    assert same_candles(read_all(store).window(0, 15), WHOLE.window(0, 15))
    first = record(store, KEY, told.told, told.stored, at(30))
    assert record(store, KEY, told.told, told.stored, at(40)) and len(read(store, KEY)) == len(first)
    assert read(store, KEY)[0].changed == first[0].changed != ""


def test_checking_finds_each_kind_of_damage(tmp_path: Path) -> None:
    store = one_by_one(tmp_path, range(6))
    paths = [tmp_path / part.path for part in store.parts(KEY)]
    assert check_store(store, [KEY]).faults == []
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[: len(whole) // 2])
    paths[1].rename(paths[1].with_name(paths[1].name.replace(paths[1].name[-24:-8], "0" * 16)))
    paths[2].write_bytes(paths[3].read_bytes())
    store.append(KEY, WHOLE.replace(close=np.asarray(WHOLE.high)).window(4, 6), at(4), at(6))
    found = [fault.what for fault in check_store(store, [KEY]).faults]
    assert len(found) == 4 and "damaged" in found[0] and "that its name was made from" in found[1]
    assert "1 of its candles are others than in" in found[3]


def test_only_what_nobody_used_goes_and_never_what_was_imported_or_is_held(tmp_path: Path) -> None:
    store, pins = one_by_one(tmp_path / "store", range(4)), Pins(tmp_path / "pins")
    import_candles(store, KEY, WHOLE.window(4, 6), replace=False)
    names = [part.name for part in store.parts(KEY)]
    for name in names[:3]:
        os.utime(Path(store.where(KEY)) / name, (1000, 1000))

    def going(before_ms: int, held: dict[SeriesKey, int]) -> list[str]:
        return [g.part.name for g in unused(store, before_ms, held)]

    assert going(2_000_000, {}) == names[:3]
    pins.hold("binance:main", {KEY: at(2)})
    held = pins.held(at(0))
    assert going(2_000_000, held) == names[:2]
    assert going(FAR_MS * 2, {}) == names[:4]
    store.read(KEY, at(1), at(2))  # now it is in use
    assert going(2_000_000, {}) == [names[0], names[2]]
    remove(store, unused(store, 2_000_000, held))
    pins.release("binance:main")
    assert pins.held(at(0)) == {} and store.read(KEY, at(1), at(6)) is not None


def test_looking_after_a_store_is_no_use_of_it(tmp_path: Path) -> None:
    """Or what info and verify look at each day would never go."""
    store = one_by_one(tmp_path, range(3))
    for part in store.parts(KEY):
        os.utime(tmp_path / part.path, (1000, 1000))
    assert look_at(store, KEY, at(3)) is not None and check_store(store, [KEY]).faults == []
    assert store.first_ms(KEY, 0) == at(0)
    assert len(unused(store, 2_000_000, {})) == 3
    store.read(KEY)
    assert unused(store, 2_000_000, {}) == []


def test_too_much_is_brought_back_below_the_limit_the_oldest_first(tmp_path: Path) -> None:
    store = one_by_one(tmp_path, range(10))
    size = store.parts(KEY)[0].size
    for i, part in enumerate(store.parts(KEY)):
        os.utime(tmp_path / part.path, (1000 + i, 1000 + i))
    assert too_much(store, 20 * size, {}) == []
    going = too_much(store, 5 * size, {})
    assert [g.part for g in going] == store.parts(KEY)[: len(going)] and len(going) in (5, 6)


def test_what_there_is_is_told_from_names_and_feet(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    assert look_at(store, KEY, FAR_MS) is None
    keep = [h for h in range(20) if h not in (5, 6)]
    store.append(KEY, WHOLE.take(np.array(keep)), at(-10), at(20))  # listed at hour 0; the exchange lacks two
    import_candles(store, KEY, WHOLE.window(30, 40), replace=False)
    told = look_at(store, KEY, at(41))
    assert told is not None
    assert (told.rows, told.gaps, told.not_fetched, told.imported) == (28, 2, 10, 10)
    assert (told.first_ms, told.last_ms, told.freshness, told.behind) == (at(0), at(39), "fresh", 0)
    late = look_at(store, KEY, at(48))
    assert late is not None and late.freshness == "stale" and late.behind == 7


def test_the_first_candle_is_told_from_the_feet_of_parts(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    assert store.first_ms(KEY, 0) is None
    store.append(KEY, WHOLE.window(0, 0), at(-20), at(-10))  # before the listing
    store.append(KEY, WHOLE.window(3, 9), at(-10), at(9))
    store.append(KEY, WHOLE.window(1, 2), at(1), at(2))  # inside the other one, and earlier than its first candle
    store.append(KEY, WHOLE.window(12, 20), at(9), at(20))
    hours = {h: store.first_ms(KEY, at(h)) for h in (-15, 1, 2, 3, 5, 9, 12, 19, 20)}
    assert hours == {h: at(then) for h, then in zip(hours, (1, 1, 3, 3, 5, 12, 12, 19), strict=False)} | {20: None}
    last = tmp_path / store.parts(KEY)[-1].path
    last.write_bytes(bytes(100) + last.read_bytes()[100:])
    assert store.first_ms(KEY, at(9)) == at(12), "no candle is read for it"


def test_hits_are_counted_across_processes_and_a_broken_file_is_none(tmp_path: Path) -> None:
    path = tmp_path / "usage.json"
    for _ in range(2):
        Usage(path).count("binance", 100, 75, START_MS)
    assert Usage(path).read()["binance"].rate == 0.75
    path.write_text("no json")
    assert Usage(path).read() == {}
    Usage(path).count("binance", 10, 10, START_MS)
    assert Usage(path).read()["binance"].wanted == 10
    Usage(None).count("binance", 1, 1, START_MS)


def test_a_store_of_the_former_layout_is_moved(tmp_path: Path) -> None:
    store = one_by_one(tmp_path, range(3))
    old = tmp_path / "binance/spot/BTCUSDT/1h"
    old.parent.mkdir(parents=True)
    Path(store.where(KEY)).rename(old)
    assert list(store.keys()) == []
    adopt_former(tmp_path)
    assert list(store.keys()) == [KEY] and same_candles(read_all(store), WHOLE.window(0, 3))
    assert not (tmp_path / "binance").exists()


def test_a_window_of_a_large_part_reads_the_groups_that_it_needs(tmp_path: Path) -> None:
    candles = random_candles(200_000, timeframe="1m")
    key, store = KEY._replace(timeframe="1m"), CandleStore(tmp_path)
    begin, end = int(candles.open_time[0]), int(candles.open_time[-1]) + 60_000
    store.append(key, candles, begin, end)
    for low, high in ((0, 10), (65_530, 65_540), (199_990, 200_000), (70_000, 140_000)):
        window = store.read(key, begin + low * 60_000, begin + high * 60_000)
        assert window is not None and same_candles(window, candles.window(low, high))


def test_a_store_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be stored"):
        CandleStore(tmp_path / "file").add(KEY, WHOLE, at(0), at(200))


def test_nobody_waits_for_ever_for_a_process_that_was_stopped(tmp_path: Path) -> None:
    store = one_by_one(tmp_path, range(3))
    store.patience_s = 0.1
    with (
        CandleStore(tmp_path).locked(KEY),
        pytest.raises(DataError, match=r"another process has had .* locked for 0\.1 s"),
    ):
        store.add(KEY, WHOLE.window(3, 4), at(3), at(4))
    assert store.add(KEY, WHOLE.window(3, 4), at(3), at(4)).new == 1
