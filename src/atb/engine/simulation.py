"""Run the loop over whole arrays: lay out the timeline, choose plain or compiled, collect the fills."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from atb.engine import kernel, machine_code
from atb.engine.candles import Candles, Floats, Ints
from atb.engine.reasons import COUNT
from atb.engine.records import Account, FillRow, Market, Position, Rules, flat_position, fresh_account

EngineChoice = Literal["auto", "plain", "compiled"]

# Measured (benchmarks/): a plain row and symbol costs 2 us, linking stored machine code 30 ms, compiling 2.5 s.
COMPILED_FROM = 15_000
COMPILE_FROM = 500_000
PLAIN_FILLS = 1024
COMPILED_FILLS = 65_536
BLOCK_NUMBERS = 65_536  # of several symbols' columns, laid side by side at a time: five of these fit into the cache
WORTH_A_THREAD = 8  # blocks

COLUMNS = ("open", "high", "low", "close", "signal")


class Timeline:
    """Candles and signals of S symbols on one axis of T open times; where a symbol has no candle, they are NaN.

    `columns[name][s]` is a column of symbol s, float64[T]. `open`, `high`, `low`, `close` and `signal` are the same
    numbers flat and row-major (T, S), made when they are asked for.
    """

    def __init__(self, open_time: Ints, columns: Mapping[str, Sequence[Floats]]) -> None:
        self.open_time = open_time
        self.columns = columns
        self.symbols = len(columns["open"])

    def _flat(self, name: str) -> Floats:
        columns = self.columns[name]
        return columns[0] if len(columns) == 1 else np.column_stack(columns).reshape(-1)

    @cached_property
    def open(self) -> Floats:
        return self._flat("open")

    @cached_property
    def high(self) -> Floats:
        return self._flat("high")

    @cached_property
    def low(self) -> Floats:
        return self._flat("low")

    @cached_property
    def close(self) -> Floats:
        return self._flat("close")

    @cached_property
    def signal(self) -> Floats:
        return self._flat("signal")


class Run(NamedTuple):
    """What a run leaves: `equity[t]` at the close of each row that was run (`rows` of them), its fills, its end state."""

    rows: int
    equity: Floats
    fills: npt.NDArray[Any]
    account: Account
    positions: list[Position]
    decisions: Ints
    engine: str


def timeline(series: Sequence[Candles], signals: Sequence[Floats]) -> Timeline:
    """Lay S series and their signals on the union of their open times. Series of the same open times are not copied."""
    times = series[0].open_time
    columns = {name: [getattr(c, name) for c in series] for name in COLUMNS[:-1]}
    columns["signal"] = [np.ascontiguousarray(signal, dtype=np.float64) for signal in signals]
    if not all(c.open_time is times or np.array_equal(c.open_time, times) for c in series[1:]):
        times = np.unique(np.concatenate([c.open_time for c in series]))
        rows = [np.searchsorted(times, c.open_time) for c in series]
        columns = {name: [_spread(len(times), *x) for x in zip(rows, columns[name], strict=True)] for name in COLUMNS}
    return Timeline(times, columns)


def _spread(length: int, rows: Ints, column: Floats) -> Floats:
    out = np.full(length, np.nan)
    out[rows] = column
    return out


def simulate(
    line: Timeline,
    markets: Sequence[Market],
    rules: Rules,
    initial_balance: float,
    *,
    engine: EngineChoice = "auto",
    cache: Path | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Run:
    """Run `line` from an account of `initial_balance` quote.

    `engine`: plain Python, compiled, or whichever is faster for this size. `cache`: folder for machine code.
    `on_progress` is told the rows done, now and then.
    """
    loop = _choose(engine, len(line.open_time) * line.symbols, cache)
    return loop(line, list(markets), rules, fresh_account(initial_balance), on_progress)


def _choose(engine: EngineChoice, work: int, cache: Path | None) -> Callable[..., Run]:
    if engine == "auto":
        threshold = COMPILED_FROM if machine_code.is_ready(cache) else COMPILE_FROM
        if machine_code.is_loaded():
            threshold = 0
        engine = "compiled" if work >= threshold else "plain"
    if engine == "plain":
        return _run_plain
    entry = machine_code.load(cache)
    return lambda *args: _run_compiled(entry, *args)


def _run_plain(
    line: Timeline, markets: list[Market], rules: Rules, account: Account, on_progress: Callable[[int], None] | None
) -> Run:
    """The loop as it stands, on lists: element access on numpy arrays costs several times as much."""
    n, total = line.symbols, len(line.open_time)
    time, signal = line.open_time.tolist(), line.signal.tolist()
    open_, high, low, close = line.open.tolist(), line.high.tolist(), line.low.tolist(), line.close.tolist()
    positions = [flat_position() for _ in range(n)]
    buffer = [FillRow() for _ in range(PLAIN_FILLS + 2 * n)]
    equity: list[float] = [0.0] * total
    decisions, progress = [0] * COUNT, [0, 0]
    filled: list[tuple[float, ...]] = []
    t = 0
    while t < total and progress[1] == 0:
        stop = total if on_progress is None else min(total, t + 20_000)
        t = kernel.run(
            t, stop, n, time, open_, high, low, close, signal, positions, markets, account, rules, equity, buffer,
            progress, decisions,
        )  # fmt: skip
        filled += [row.as_tuple() for row in buffer[: progress[0]]]
        if on_progress is not None:
            on_progress(t)
    fills = np.array(filled, dtype=FillRow.dtype())
    return Run(t, np.array(equity[:t]), fills, account, positions, np.array(decisions, dtype=np.int64), "plain")


def _run_compiled(
    entry: machine_code.Entry,
    line: Timeline,
    markets: list[Market],
    rules: Rules,
    account: Account,
    on_progress: Callable[[int], None] | None,
) -> Run:
    n, total = line.symbols, len(line.open_time)
    market_rows, rule_rows = Market.pack(markets), Rules.pack([rules])
    account_rows, position_rows = Account.pack([account]), Position.pack([flat_position() for _ in range(n)])
    buffer = np.empty(min(COMPILED_FILLS, 2 * n * total) + 2 * n, dtype=FillRow.dtype())
    equity = np.empty(total)
    decisions, progress = np.zeros(COUNT, dtype=np.int64), np.zeros(2, dtype=np.int64)
    state = [a.ctypes.data for a in (position_rows, market_rows, account_rows, rule_rows)]
    tail = (buffer.ctypes.data, len(buffer), progress.ctypes.data, decisions.ctypes.data)
    parts = []
    done = 0
    for first, rows, columns in _blocks(line):
        inputs = [a.ctypes.data for a in (line.open_time[first:], *columns)]
        t = 0
        while t < rows and progress[1] == 0:
            stop = rows if on_progress is None else min(rows, t + 2_000_000)
            t = entry(t, stop, n, *inputs, *state, equity[first:].ctypes.data, *tail)
            parts.append(buffer[: progress[0]].copy())
            parts[-1]["t"] += first
            if on_progress is not None:
                on_progress(first + t)
        done = first + t
        if progress[1] == 1:
            break
    fills = parts[0] if len(parts) == 1 else np.concatenate([buffer[:0], *parts])
    end = Account.unpack(account_rows)[0]
    return Run(done, equity[:done], fills, end, Position.unpack(position_rows), decisions, "compiled")


def _blocks(line: Timeline) -> Iterator[tuple[int, int, Any]]:
    """Row-major blocks of the timeline: first row, rows, columns. One symbol's columns are a block as they are.

    Several symbols' columns are laid side by side a block at a time, the next one while the loop works on this one:
    whole, they would cost as much as the loop, and twice the memory of the candles.
    """
    n, total = line.symbols, len(line.open_time)
    columns = [line.columns[name] for name in COLUMNS]
    if n == 1:
        yield 0, total, [column[0] for column in columns]
        return
    size = max(1, BLOCK_NUMBERS // n)
    if total < WORTH_A_THREAD * size:
        size = max(1, total)
    rooms = np.empty((2, len(COLUMNS), size, n))

    def lay(first: int) -> npt.NDArray[Any]:
        room = rooms[first // size % 2]
        for c, column in enumerate(columns):
            for s in range(n):
                part = column[s][first : first + size]
                room[c, : len(part), s] = part
        return np.asarray(room)

    if size >= total:
        yield 0, total, lay(0)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(lay, 0)
        for first in range(0, total, size):
            room = coming.result()
            coming = pool.submit(lay, first + size)
            yield first, min(size, total - first), room
