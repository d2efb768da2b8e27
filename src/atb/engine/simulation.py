"""Run the loop over whole arrays: lay out the timeline, choose plain or compiled, collect the fills."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
PLAIN_FILLS, COMPILED_FILLS = 256, 65_536  # in the loop's buffer
PLAIN_ROWS, COMPILED_ROWS = 1024, 2_000_000  # at a time: as lists, a number takes 32 bytes; and between two reports

COLUMNS = ("open", "high", "low", "close", "signal")


class Timeline:
    """Candles and signals of S symbols on one axis of T open times; where a symbol has no candle, they are NaN.

    `columns[name][s]` is a column of symbol s, float64[T] and contiguous, for each name in COLUMNS.
    """

    def __init__(self, open_time: Ints, columns: Mapping[str, Sequence[Floats]]) -> None:
        self.open_time = open_time
        self.columns = columns
        self.symbols = len(columns["open"])


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
    if [len(signal) for signal in signals] != [len(candles) for candles in series]:
        raise ValueError("Each series needs as many signals as it has candles.")
    times = series[0].open_time
    columns = {name: [np.ascontiguousarray(getattr(c, name)) for c in series] for name in COLUMNS[:-1]}
    columns["signal"] = [np.ascontiguousarray(signal, dtype=np.float64) for signal in signals]
    if not all(_same_times(c, series[0]) for c in series[1:]):
        times = np.unique(np.concatenate([c.open_time for c in series]))
        rows = [np.searchsorted(times, c.open_time) for c in series]
        columns = {name: [_spread(len(times), *x) for x in zip(rows, columns[name], strict=True)] for name in COLUMNS}
    return Timeline(times, columns)


def _same_times(a: Candles, b: Candles) -> bool:
    """Whether two series have the same open times. Where both are regular, few numbers tell."""
    if a.open_time is b.open_time:
        return True
    if len(a) != len(b) or a.open_time[0] != b.open_time[0] or a.open_time[-1] != b.open_time[-1]:
        return False
    return (a.step_ms > 0 and a.step_ms == b.step_ms) or np.array_equal(a.open_time, b.open_time)


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
    """The loop as it stands, on lists of some rows at a time: elements of numpy arrays cost several times as much."""
    n, total = line.symbols, len(line.open_time)
    positions = [flat_position() for _ in range(n)]
    order, buffer = [0] * n, [FillRow() for _ in range(PLAIN_FILLS + 2 * n)]
    equity = np.empty(total)
    decisions, progress = [0] * COUNT, [0, 0]
    parts: list[npt.NDArray[Any]] = []
    done = 0
    while done < total and progress[1] == 0:
        rows = slice(done, done + PLAIN_ROWS)
        time = line.open_time[rows].tolist()
        open_, high, low, close, signal = ([column[rows].tolist() for column in line.columns[name]] for name in COLUMNS)
        worth = [0.0] * len(time)
        t = 0
        while t < len(time) and progress[1] == 0:
            t = kernel.run(
                t, len(time), n, time, open_, high, low, close, signal, positions, order, markets, account, rules,
                worth, buffer, len(buffer), progress, decisions,
            )  # fmt: skip
            parts.append(_rows_from(done, FillRow.pack(buffer[: progress[0]])))
        equity[done : done + t] = worth[:t]
        done += t
        if on_progress is not None:
            on_progress(done)
    return Run(done, equity[:done], _joined(parts), account, positions, np.array(decisions, dtype=np.int64), "plain")


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
    capacity = min(COMPILED_FILLS, n * total // 4) + 2 * n
    equity = np.empty(total)
    decisions, progress = np.zeros(COUNT, dtype=np.int64), np.zeros(2, dtype=np.int64)
    columns = [np.array([column.ctypes.data for column in line.columns[name]], dtype=np.uintp) for name in COLUMNS]
    order = np.zeros(n, dtype=np.int64)
    records = (position_rows, order, market_rows, account_rows, rule_rows)
    inputs = [a.ctypes.data for a in (line.open_time, *columns, *records, equity)]
    tail = (capacity, progress.ctypes.data, decisions.ctypes.data)
    parts: list[npt.NDArray[Any]] = []
    done = 0
    while done < total and progress[1] == 0:
        stop = total if on_progress is None else min(total, done + COMPILED_ROWS)
        buffer = np.empty(capacity, dtype=FillRow.dtype())
        done = entry(done, stop, n, *inputs, buffer.ctypes.data, *tail)
        parts.append(buffer[: progress[0]])
        if on_progress is not None:
            on_progress(done)
    end = Account.unpack(account_rows)[0]
    return Run(done, equity[:done], _joined(parts), end, Position.unpack(position_rows), decisions, "compiled")


def _rows_from(first: int, fills: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Fills of a part of the timeline that begins at row `first`."""
    fills["t"] += first
    return fills


def _joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The parts as one array. A single one that fills much of its buffer is not copied out of it."""
    if len(parts) == 1 and parts[0].base is not None and 4 * len(parts[0]) > len(parts[0].base):
        return parts[0]
    return np.concatenate([np.empty(0, dtype=FillRow.dtype()), *parts])
