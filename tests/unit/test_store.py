"""The candle store: what is put in comes out, whatever the order of its parts, and nothing is half there."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atb.core.errors import DataError
from atb.core.types import symbol_for
from atb.data.layout import SeriesKey, series_key
from atb.data.store import CandleStore, candles_hash
from atb.engine.candles import COLUMNS, Candles
from tests.conftest import START_MS, random_candles, same_candles

HOUR_MS = 3_600_000
KEY = SeriesKey("binance", "spot", "BTCUSDT", "1h")
WHOLE = random_candles(60)
ranges = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted)


def at(hour: int) -> int:
    return START_MS + hour * HOUR_MS


def hours(candles: Candles | None) -> list[int]:
    return [] if candles is None else [(int(t) - START_MS) // HOUR_MS for t in candles.open_time]


def taken(candles: Candles, keep: list[int]) -> Candles:
    return candles.replace(**{name: getattr(candles, name)[keep] for name in ("open_time", *COLUMNS)})


def filled(root: Path, *spans: tuple[int, int], holes: frozenset[int] = frozenset()) -> CandleStore:
    """A store of parts over `spans` (hours); the exchange had nothing in `holes`."""
    store = CandleStore(root)
    for start, end in spans:
        store.append(KEY, taken(WHOLE, [h for h in range(start, end) if h not in holes]), at(start), at(end))
    return store


def folder(store: CandleStore) -> Path:
    return Path(store.where(KEY))


def test_a_key_is_a_folder(tmp_path: Path) -> None:
    key = series_key("coinbase", symbol_for("coinbase", "BTC/USD"), "1h")
    path = "venue=coinbase/market=spot/symbol=BTC-USD/timeframe=1h"
    assert key.path == path and CandleStore(tmp_path).where(key) == str(tmp_path / path)


def test_an_empty_store(tmp_path: Path) -> None:
    store = CandleStore(tmp_path / "none")
    assert store.parts(KEY) == [] and list(store.keys()) == [] and store.read(KEY) is None
    assert store.missing_ranges(KEY, at(3), at(9)) == [(at(3), at(9))]
    assert store.missing_ranges(KEY, at(3), at(3)) == []
    assert not (tmp_path / "none").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(ranges.filter(lambda r: r[0] < r[1]), max_size=5), ranges, st.frozensets(st.integers(0, 59), max_size=20)
)
def test_ranges_and_reads_agree_with_sets(
    tmp_path_factory: pytest.TempPathFactory, spans: list[list[int]], asked: list[int], holes: frozenset[int]
) -> None:
    store = filled(tmp_path_factory.mktemp("store"), *((a, b) for a, b in spans), holes=holes)
    covered = {h for a, b in spans for h in range(a, b)}
    low, high = asked
    missing = store.missing_ranges(KEY, at(low), at(high))
    assert [h for a, b in missing for h in range((a - START_MS) // HOUR_MS, (b - START_MS) // HOUR_MS)] == sorted(
        set(range(low, high)) - covered
    )
    assert all(a < b for a, b in missing)
    assert all(b < c for (_, b), (c, _) in pairwise(missing))
    there = sorted((covered - holes) & set(range(low, high)))
    read = store.read(KEY, at(low), at(high))
    assert hours(read) == there
    if read is not None:
        assert same_candles(read, taken(WHOLE, there))
    assert hours(store.read(KEY)) == sorted(covered - holes)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    st.integers(1, 200), st.integers(0, 10**6), st.sampled_from(["1s", "1m", "1h", "1d", "1w"]), st.floats(1e-6, 1e9)
)  # fmt: skip
def test_what_is_put_in_comes_out_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, count: int, seed: int, timeframe: str, price: float
) -> None:
    candles = random_candles(count, seed, timeframe=timeframe, price=round(price, 2) + 1)
    store, key = CandleStore(tmp_path_factory.mktemp("store")), KEY._replace(timeframe=timeframe)
    store.append(key, candles, int(candles.open_time[0]), int(candles.open_time[-1]) + 1)
    read = store.read(key)
    assert read is not None and same_candles(read, candles)
    assert candles_hash(read) == candles_hash(candles)


def test_parts_are_named_after_what_was_asked_for(tmp_path: Path) -> None:
    store = filled(tmp_path, (0, 10), (20, 30))
    parts = store.parts(KEY)
    assert [(part.start_ms, part.end_ms) for part in parts] == [(at(0), at(10)), (at(20), at(30))]
    assert parts[0].name.startswith(f"part-{at(0)}-{at(10)}-{candles_hash(WHOLE.window(0, 10))[:16]}")
    assert sorted(p.name for p in folder(store).iterdir()) == sorted(part.name for part in parts)


def test_storing_the_same_again_changes_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path, (0, 10))
    before = [(p.name, p.read_bytes()) for p in folder(store).iterdir()]
    filled(tmp_path, (0, 10))
    assert [(p.name, p.read_bytes()) for p in folder(store).iterdir()] == before


def test_an_empty_answer_covers_its_range(tmp_path: Path) -> None:
    store = filled(tmp_path, (0, 10), holes=frozenset(range(10)))
    assert store.missing_ranges(KEY, at(0), at(12)) == [(at(10), at(12))]
    assert store.read(KEY) is None


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    store = filled(tmp_path, (0, 10))
    for name in (".part-1-2-0123456789abcdef.parquet.77", "notes.txt", "part-a-b-c.parquet", "part-1-2-xyz.parquet"):
        (folder(store) / name).write_bytes(b"no parquet")
    assert hours(store.read(KEY)) == list(range(10))
    assert len(store.parts(KEY)) == 1


def test_every_series_is_listed(tmp_path: Path) -> None:
    store = filled(tmp_path, (0, 10))
    other = SeriesKey("coinbase", "spot", "BTC-USD", "5m")
    store.append(other, random_candles(3, symbol="BTC-USD", timeframe="5m"), START_MS, START_MS + 1)
    (folder(store).parent / "a file").write_text("")
    assert list(store.keys()) == [KEY, other]


def test_any_parquet_tool_reads_the_folder_as_one_table(tmp_path: Path) -> None:
    store = filled(tmp_path, (10, 20), (0, 10))
    table = ds.dataset(folder(store), format="parquet").to_table().sort_by("open_time")
    assert table.column_names == ["open_time", *COLUMNS]
    assert table.column("close").to_pylist() == WHOLE.close[:20].tolist()
    assert table.schema.field("open_time").type == pa.timestamp("ms", tz="UTC")


# --- damage


@pytest.mark.parametrize("spoil", ["cut", "flipped", "emptied", "text", "column", "kind", "nulls"])
def test_a_damaged_part_is_refused_with_its_name_and_the_remedy(tmp_path: Path, spoil: str) -> None:
    store = filled(tmp_path, (0, 10))
    path = folder(store) / store.parts(KEY)[0].name
    content, table = bytearray(path.read_bytes()), pq.read_table(path)
    content[len(content) // 4] ^= 1
    if spoil in ("column", "kind", "nulls"):
        replaced = {"kind": pa.array(["x"] * 10), "nulls": pa.array([None] * 10, pa.float64())}.get(spoil)
        table = table.drop_columns(["close"]) if replaced is None else table.set_column(4, "close", replaced)
        pq.write_table(table, path)
    else:
        path.write_bytes(
            {"cut": bytes(content[:-40]), "flipped": bytes(content), "emptied": b"", "text": b"PAR1"}[spoil]
        )
    with pytest.raises(DataError) as caught:
        store.read(KEY)
    assert str(path.parent) in caught.value.what
    assert caught.value.exit_code == 3


def test_every_flipped_bit_is_noticed_or_harmless(tmp_path: Path) -> None:
    """Pages carry checksums: a wrong price never comes out of a damaged part."""
    store = filled(tmp_path, (0, 30))
    path = folder(store) / store.parts(KEY)[0].name
    whole, good = path.read_bytes(), store.read(KEY)
    assert good is not None
    noticed = 0
    for position in range(4, len(whole), 37):
        content = bytearray(whole)
        content[position] ^= 1 << (position % 8)
        path.write_bytes(content)
        try:
            read = store.read(KEY)
        except DataError:
            noticed += 1
        else:
            assert read is not None and same_candles(read, good), position
    assert noticed > 0


# --- failure to write


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "candles").write_text("a file where a folder should be")
    with pytest.raises(DataError, match="cannot be stored") as caught:
        filled(tmp_path / "candles", (0, 10))
    assert "ATB_HOME" in caught.value.hint


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """No file may grow over 1 kB, as on a disk that is full. Only around the call: the test runner writes too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    with small_files(), pytest.raises(DataError, match="cannot be stored"):
        filled(tmp_path, (0, 60))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_an_interruption_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path, (0, 60))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_the_hash_names_every_value() -> None:
    known = candles_hash(WHOLE)
    for name in ("open_time", *COLUMNS):
        column = np.array(getattr(WHOLE, name))
        column[7] += 1
        assert candles_hash(WHOLE.replace(**{name: column})) != known
    assert candles_hash(WHOLE.window(0, 60)) == known
