"""One part as Parquet: groups of rows, so that a window of a large part costs what the window costs; each page has a checksum."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt

from atb.core.errors import DataError
from atb.data.arrow import numbers, times_ms
from atb.engine.candles import COLUMNS, Candles

if TYPE_CHECKING:
    import pyarrow.parquet as pq

ROWS_PER_GROUP = 65_536
Open = Callable[[], contextlib.AbstractContextManager[Any]]  # Arrow closes no file that it did not open


def encoded(candles: Candles) -> Any:
    """The bytes of a file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "open_time": pa.array(candles.open_time, pa.timestamp("ms", tz="UTC")),
            **{name: getattr(candles, name) for name in COLUMNS},
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True, row_group_size=ROWS_PER_GROUP)
    return sink.getvalue()


def read_columns(open_source: Open, shown: str, low_ms: int, high_ms: int) -> list[npt.NDArray[Any]]:
    """open_time (ms) and the columns of a file, at least the rows that open in [low_ms, high_ms).

    FileNotFoundError when it is gone; a DataError that names it, as `shown`, when it is not what we wrote.
    """
    with explained(shown), open_source() as source, opened(source) as (file, threads):
        groups = _groups(file, low_ms, high_ms)
        more = {"columns": ["open_time", *COLUMNS], "use_threads": threads}
        table = file.read(**more) if groups is None else file.read_row_groups(groups, **more)
        return [times_ms(table.column("open_time")), *(numbers(table.column(name)) for name in COLUMNS)]


@contextlib.contextmanager
def opened(source: Any) -> Iterator[tuple[pq.ParquetFile, bool]]:
    """And whether Arrow's threads may read it. One that holds a file of Python's when the interpreter ends aborts the process."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    threads = isinstance(source, Path | pa.NativeFile)
    with pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=threads) as file:
        yield file, threads


class Facts(NamedTuple):
    """What a file says about itself. first_ms, last_ms: open times; None where it holds no candle."""

    rows: int
    first_ms: int | None
    last_ms: int | None


def read_facts(open_source: Open, shown: str) -> Facts:
    """Without reading the candles. Errors as `read_columns`."""
    with explained(shown), open_source() as source, opened(source) as (file, _):
        known = file.metadata
        told = [known.row_group(i).column(0).statistics for i in range(known.num_row_groups)]
        limits = [(each.min_raw, each.max_raw) for each in told if each is not None and each.has_min_max]
        if not limits:
            return Facts(known.num_rows, None, None)
        return Facts(known.num_rows, min(low for low, _ in limits), max(high for _, high in limits))


@contextlib.contextmanager
def explained(shown: str, remedy: str = "Mend it: atb data cache-manager repair") -> Iterator[None]:
    """DataErrors that name the file, as `shown`; FileNotFoundError stays."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise unreadable(shown, error.strerror or "Permission denied") from None  # Arrow's own have no strerror
    except (pa.ArrowException, OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        said = str(error).split("\n")[0].rstrip(".")
        raise DataError(f"{shown} is damaged: {said}.", remedy) from None


def unreadable(shown: str, why: object) -> DataError:
    """The error for a file or folder of the store that the system does not let us read."""
    who = f"Who may: ls -ld '{shown}'."
    return DataError(
        f"{shown} cannot be read: {why}.",
        f"{who} Make it readable, or name another folder: ATB_CANDLES, or ATB_HOME for all of it.",
    )


def _groups(file: pq.ParquetFile, low_ms: int, high_ms: int) -> list[int] | None:
    """The groups with rows of the window; None for all of them."""
    known = file.metadata
    if known.num_row_groups < 2:
        return None
    chosen = []
    for i in range(known.num_row_groups):
        told = known.row_group(i).column(0).statistics
        if told is None or not told.has_min_max or (told.min_raw < high_ms and told.max_raw >= low_ms):
            chosen.append(i)
    return None if len(chosen) == known.num_row_groups else chosen
