"""The store at a URL, and read by other tools: as it is."""

from __future__ import annotations

import io
import re
import threading
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from atb.core.errors import UsageError
from atb.data.checking import check_store
from atb.data.compacting import compact
from atb.data.keeping import remove, unused
from atb.data.layout import SeriesKey
from atb.data.parquet import read_columns
from atb.data.store import CandleStore
from tests.conftest import START_MS, random_candles, same_candles
from tests.venue.s3_server import s3_server

ROOT = Path(__file__).resolve().parents[2]
HOUR_MS = 3_600_000
KEY = SeriesKey("binance", "spot", "BTCUSDT", "1h")
WHOLE = random_candles(60)


def at(hour: int) -> int:
    return START_MS + hour * HOUR_MS


def filled(store: CandleStore) -> CandleStore:
    for hour in range(0, 60, 3):
        store.add(KEY, WHOLE.window(hour, hour + 3), at(hour), at(hour + 3))
    store.add(KEY._replace(symbol="ETHUSDT"), WHOLE.window(0, 5), at(0), at(5))
    return store


def behaves(store: CandleStore) -> None:
    """What a folder does, too."""
    assert list(store.keys()) == [KEY, KEY._replace(symbol="ETHUSDT")] and len(store.parts(KEY)) == 20
    compact(store, KEY)
    read = store.read(KEY)
    assert len(store.parts(KEY)) == 1 and read is not None and same_candles(read, WHOLE)
    window = store.read(KEY, at(7), at(9))
    assert window is not None and same_candles(window, WHOLE.window(7, 9))
    assert store.missing_ranges(KEY, at(50), at(70)) == [(at(60), at(70))]
    assert check_store(store, list(store.keys())).faults == []
    store.put(KEY, "note", b"x")
    assert store.get(KEY, "note") == b"x" and store.get(KEY, "none") is None
    aside = store.set_aside(store.parts(KEY)[0])
    assert "damaged" in aside and store.parts(KEY) == []
    remove(store, unused(store, 10**15, {}))
    assert [p for key in store.keys() for p in store.parts(key)] == []  # noqa: SIM118


def noted(store: CandleStore, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The remote files that are opened from now on."""
    files: Any = store.place.files  # type: ignore[attr-defined]
    opened: list[Any] = []
    real = files.open

    def open_(*args: Any, **more: Any) -> Any:
        opened.append(real(*args, **more))
        return opened[-1]

    monkeypatch.setattr(files, "open", open_)
    return opened


def test_in_memory() -> None:
    behaves(filled(CandleStore("memory://atb-test/candles")))


def test_at_an_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with s3_server() as (url, bucket):
        where = f"endpoint_override={url.removeprefix('http://')}&scheme=http&region=eu-central-1"
        store = filled(CandleStore(f"s3://k:sEcret@bucket/candles?{where}"))
        assert store.shown == "s3://bucket/candles"
        assert all(key.startswith("candles/venue=binance/market=spot/") for key in bucket.objects if "=1h" in key)
        opened = noted(store, monkeypatch)
        behaves(store)
        assert not bucket.uploads
        assert opened and all(file.closed for file in opened), "each connection is given back"


def test_no_thread_of_arrow_s_holds_a_python_file(tmp_path: Path) -> None:
    """One that did when the interpreter ended would abort the process: now and then, on a busy machine."""
    store, threads = CandleStore(tmp_path), set()
    part = store.append(KEY, WHOLE, at(0), at(60))

    class Noted(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            threads.add(threading.get_ident())
            return super().read(-1 if size is None else size) or b""

    columns = read_columns(lambda: Noted(tmp_path / part.path), "it", at(0), at(60))
    assert np.array_equal(columns[4], WHOLE.close) and threads == {threading.get_ident()}


@pytest.mark.parametrize("url", ["nope://x/y", "s3:/", "http//x"])
def test_a_place_that_is_none(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if "://" not in url:
        assert CandleStore(url).is_local
        return
    with pytest.raises(UsageError, match="cannot be opened"):
        CandleStore(url)


def test_its_secrets_are_not_shown() -> None:
    with pytest.raises(UsageError) as error:
        CandleStore("nope://me:sEcret@host/path")
    assert "sEcret" not in error.value.what and "nope://host/path" in error.value.what


def test_duckdb_reads_it_as_the_docs_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(CandleStore(tmp_path / "candles"))
    monkeypatch.chdir(tmp_path)
    query, *_ = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "market-data.md").read_text(), re.DOTALL)
    relation = duckdb.connect().sql(query)
    assert relation is not None
    found = relation.to_arrow_table()
    told = [found.column(i).to_pylist() for i in range(3)]
    assert told == [["BTCUSDT", "ETHUSDT"], ["1h", "1h"], [60, 5]]
