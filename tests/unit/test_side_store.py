"""The store of side series: nothing half there, nothing lost, and what was known once stays known as it was."""

from __future__ import annotations

import multiprocessing
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atb.core.errors import DataError
from atb.data.layout import IMPORTED
from atb.data.side_store import SideKey, SideStore, last_known
from atb.data.store import CandleStore
from atb.engine.sides import SideRows, as_of, ordered
from atb.strategy import side

HOUR_MS = 3_600_000
KEY = SideKey("funding_rate", "binanceusdm", "BTCUSDT")


def rows(*each: tuple[int, float], delay: int = 1) -> SideRows:
    """Rows of (hour, value), known `delay` hours later."""
    times = np.array([hour for hour, _ in each], np.int64) * HOUR_MS
    return ordered(SideRows(times, times + delay * HOUR_MS, np.array([value for _, value in each], float)))


def hours(rows: SideRows) -> list[tuple[int, int, float]]:
    t, a, v = (column.tolist() for column in rows)
    return [(x // HOUR_MS, y // HOUR_MS, z) for x, y, z in zip(t, a, v, strict=True)]


def test_what_is_stored_comes_out(tmp_path: Path) -> None:
    store = SideStore(tmp_path)
    assert store.keys() == [] and len(store.read(KEY).time_ms) == 0 and last_known(store.read(KEY)) is None
    assert store.add(KEY, rows((0, 1.0), (8, 2.0)), None) == 2
    assert store.add(KEY, rows((8, 2.0), (16, -3.5)), None) == 1  # the same value again is no new row
    assert store.add(KEY, rows((0, 1.0)), None) == 0
    assert hours(store.read(KEY)) == [(0, 1, 1.0), (8, 9, 2.0), (16, 17, -3.5)]
    assert store.keys() == [KEY] and last_known(store.read(KEY)) == (16 * HOUR_MS, 17 * HOUR_MS, -3.5)
    assert [part.kind for part in store.parts(KEY)] == ["part", "part"]
    assert store.remove(KEY) == 2 and store.keys() == []


def test_a_revision_is_a_further_row(tmp_path: Path) -> None:
    store = SideStore(tmp_path)
    store.add(KEY, rows((0, 1.0), (8, 2.0)), None)
    assert store.add(KEY, rows((0, 5.0), (8, 2.0), (16, 3.0)), 30 * HOUR_MS) == 2
    assert hours(store.read(KEY)) == [(0, 1, 1.0), (8, 9, 2.0), (16, 17, 3.0), (0, 30, 5.0)]
    assert store.add(KEY, rows((0, 5.0)), 40 * HOUR_MS) == 0  # told again
    assert store.add(KEY, rows((0, 1.0)), 50 * HOUR_MS) == 1  # and taken back
    moments = np.array([1, 29, 30, 60]) * HOUR_MS
    only_first = store.read(KEY).select(store.read(KEY).time_ms == 0)
    assert as_of(only_first, moments).tolist() == [1.0, 1.0, 5.0, 1.0]


def test_a_claim_that_it_was_known_earlier_changes_no_history(tmp_path: Path) -> None:
    store = SideStore(tmp_path)
    store.add(KEY, rows((0, 1.0), delay=24), None, IMPORTED)
    assert store.add(KEY, rows((0, 1.0), delay=1), None) == 0
    assert hours(store.read(KEY)) == [(0, 24, 1.0)]


def test_rows_that_contradict_each_other_are_refused_as_a_whole(tmp_path: Path) -> None:
    store = SideStore(tmp_path)
    with pytest.raises(DataError, match=r"1970-01-01 08:00 is both 2\.0 and 3\.0"):
        store.add(KEY, rows((0, 1.0), (8, 2.0), (8, 3.0)), None)
    assert store.keys() == []
    store.add(KEY, rows((0, 1.0)), None)
    with pytest.raises(DataError, match="is both"):
        store.add(KEY, rows((0, 7.0), (8, 1.0)), None)
    assert hours(store.read(KEY)) == [(0, 1, 1.0)]


def test_many_small_parts_become_one(tmp_path: Path) -> None:
    store = SideStore(tmp_path)
    for hour in range(40):
        store.add(KEY, rows((hour, float(hour))), None)
        assert len(store.parts(KEY)) <= 17
    assert hours(store.read(KEY)) == [(hour, hour + 1, float(hour)) for hour in range(40)]


def test_a_merge_that_was_killed_leaves_the_same_rows(tmp_path: Path) -> None:
    """What was merged is there as a whole before the first of its parts goes."""
    store = SideStore(tmp_path)
    for hour in range(16):
        store.add(KEY, rows((hour, float(hour))), None)
    kept = {part.path: (tmp_path / part.path).read_bytes() for part in store.parts(KEY)}
    store.add(KEY, rows((16, 16.0)), None)
    whole = hours(store.read(KEY))
    for path, content in kept.items():
        (tmp_path / path).write_bytes(content)
        assert hours(store.read(KEY)) == whole
    (tmp_path / KEY.path / ".part-0-1.parquet.77-8").write_bytes(b"half of")
    assert hours(store.read(KEY)) == whole


def _write(root: Path, first: int) -> None:
    store = SideStore(root)
    for i in range(30):
        store.add(KEY, rows((first + 2 * i, float(i)), (1000 + i, 1.0)), None)


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_write, args=(tmp_path, first)) for first in (0, 1)]
    for each in both:
        each.start()
    for each in both:
        each.join(60)
    assert [each.exitcode for each in both] == [0, 0]
    found = hours(SideStore(tmp_path).read(KEY))
    assert len(found) == len({hour for hour, _, _ in found}) == 90


@settings(max_examples=40)
@given(st.lists(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), min_size=1, max_size=4), max_size=6))
def test_what_was_known_once_stays_known(
    tmp_path_factory: pytest.TempPathFactory, told: list[list[tuple[int, int]]]
) -> None:
    """Whatever is told later, a join up to an earlier moment gives what it gave then."""
    store = SideStore(tmp_path_factory.mktemp("sides"))
    for moment, each in enumerate(told, start=20):
        before, upto = store.read(KEY), np.arange(0, moment, dtype=np.int64) * HOUR_MS
        store.add(KEY, rows(*{hour: float(value) for hour, value in each}.items(), delay=0), moment * HOUR_MS)
        past = upto[upto < moment * HOUR_MS]
        old_times = np.isin(store.read(KEY).time_ms, before.time_ms)
        again = store.read(KEY).select(old_times)
        assert np.array_equal(as_of(again, past), as_of(before, past), equal_nan=True)
        now = {hour: value for hour, _, value in sorted(hours(store.read(KEY)), key=lambda row: (row[0], row[1]))}
        assert {hour: now[hour] for hour, _ in each} == {hour: float(value) for hour, value in each}


def test_which_series_is_meant(tmp_path: Path) -> None:
    store, fear = SideStore(tmp_path), SideKey("fear_greed", "alternative.me")
    with pytest.raises(DataError) as none:
        store.find(side("funding_rate"), "BTCUSDT")
    assert none.value.hint.startswith(
        "Fetch it: atb data side download funding_rate BTCUSDT; or atb data side import FILE"
    )
    with pytest.raises(DataError) as mine:
        store.find(side("mine"), "BTCUSDT")
    assert mine.value.hint == "Import it: atb data side import FILE --name mine --symbol BTCUSDT --delay 1d"
    for key in (KEY, fear, KEY._replace(symbol="ETHUSDT")):
        store.add(key, rows((0, 1.0)), None)
    assert store.find(side("funding_rate"), "BTCUSDT") == KEY
    assert store.find(side("funding_rate", symbol="ETHUSDT"), "BTC-USD").symbol == "ETHUSDT"
    assert store.find(side("fear_greed"), "BTCUSDT") == fear  # it belongs to no symbol
    store.add(KEY._replace(venue="file"), rows((0, 1.0)), None)
    with pytest.raises(DataError, match="several venues: binanceusdm, file") as several:
        store.find(side("funding_rate"), "BTCUSDT")
    assert several.value.hint.endswith('side("funding_rate", venue="binanceusdm")')
    assert store.find(side("funding_rate", venue="file"), "BTCUSDT").venue == "file"


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    store = SideStore(tmp_path)
    store.add(KEY, rows((0, 1.0), (8, 2.0)), None)
    path = tmp_path / store.parts(KEY)[0].path
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="is damaged") as told:
        store.read(KEY)
    assert str(path) in told.value.what and "repair" not in told.value.hint


def test_other_tools_read_it_as_it_is(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    store = SideStore(tmp_path)
    store.add(KEY, rows((0, 1.0), (8, 2.0)), None)
    store.add(SideKey("fear_greed", "alternative.me"), rows((0, 40.0)), None)
    query = f"""SELECT name, symbol, count(*), epoch_ms(max(available)) FROM read_parquet('{tmp_path}/**/*.parquet',
        hive_partitioning = true) GROUP BY ALL ORDER BY ALL"""
    found = duckdb.sql(query).fetchall()
    assert [row[:3] for row in found] == [("fear_greed", "all", 1), ("funding_rate", "BTCUSDT", 2)]


def test_duckdb_tells_what_was_known_then_as_the_docs_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb = pytest.importorskip("duckdb")
    page = (Path(__file__).parents[2] / "docs" / "market-data.md").read_text()
    query = (
        next(block for block in re.findall(r"```sql\n(.*?)```", page, re.DOTALL) if "sides/" in block)
        .strip()
        .rstrip(";")
    )
    april = 1_711_929_600_000 // HOUR_MS
    store = SideStore(tmp_path / "sides")
    store.add(KEY, rows((april - 100, 1.0), (april - 50, 2.0), (april + 1, 9.0)), None)
    store.add(KEY, rows((april - 100, 8.0)), (april + 5) * HOUR_MS)  # a revision that came later
    monkeypatch.chdir(tmp_path)
    found = duckdb.connect().sql(f"SELECT epoch_ms(time), value FROM ({query})").fetchall()
    assert found == [((april - 100) * HOUR_MS, 1.0), ((april - 50) * HOUR_MS, 2.0)]


def test_it_works_elsewhere_than_on_this_machine() -> None:
    pytest.importorskip("fsspec")
    store = SideStore("memory://sides-elsewhere")
    assert store.add(KEY, rows((0, 1.0)), None) == 1 and store.add(KEY, rows((0, 1.0), (8, 2.0)), None) == 1
    assert len(SideStore("memory://sides-elsewhere").read(KEY).time_ms) == 2


def test_the_candle_store_takes_them_for_no_candles(tmp_path: Path) -> None:
    SideStore(tmp_path).add(KEY, rows((0, 1.0)), None)
    assert list(CandleStore(tmp_path).keys()) == []
