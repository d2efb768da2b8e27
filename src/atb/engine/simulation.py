"""Run the loop over whole arrays: lay out the timeline, choose plain or compiled, collect the fills."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


class Timeline(NamedTuple):
    """Candles of S symbols on one axis of T open times, flat and row-major (T, S); absent candles are NaN."""

    open_time: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    signal: Floats
    symbols: int


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
    """Lay S series and their signals on the union of their open times. One series is not copied."""
    first = series[0]
    if len(series) == 1:
        signal = np.ascontiguousarray(signals[0], dtype=np.float64)
        return Timeline(first.open_time, first.open, first.high, first.low, first.close, signal, 1)
    same = all(np.array_equal(c.open_time, first.open_time) for c in series[1:])
    times = first.open_time if same else np.unique(np.concatenate([c.open_time for c in series]))
    rows: list[Any] = [slice(None)] * len(series)
    if not same:
        rows = [np.searchsorted(times, c.open_time) for c in series]
    opens, highs, lows, closes = (
        _stack(len(times), rows, [getattr(c, name) for c in series], whole=same)
        for name in ("open", "high", "low", "close")
    )
    signal = _stack(len(times), rows, list(signals), whole=same)
    return Timeline(times, opens, highs, lows, closes, signal, len(series))


def _stack(n_rows: int, rows: list[Any], columns: list[Floats], *, whole: bool) -> Floats:
    shape = (n_rows, len(columns))
    grid = np.empty(shape) if whole else np.full(shape, np.nan)
    for s, column in enumerate(columns):
        grid[rows[s], s] = column
    return grid.reshape(-1)


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
    inputs = [line.open_time, line.open, line.high, line.low, line.close, line.signal]
    state = [position_rows, market_rows, account_rows, rule_rows, equity, buffer]
    addresses = [a.ctypes.data for a in (*inputs, *state)]
    tail = (len(buffer), progress.ctypes.data, decisions.ctypes.data)
    parts = []
    t = 0
    while t < total and progress[1] == 0:
        stop = total if on_progress is None else min(total, t + 2_000_000)
        t = entry(t, stop, n, *addresses, *tail)
        parts.append(buffer[: progress[0]].copy())
        if on_progress is not None:
            on_progress(t)
    fills = parts[0] if len(parts) == 1 else np.concatenate([buffer[:0], *parts])
    end = Account.unpack(account_rows)[0]
    return Run(t, equity[:t], fills, end, Position.unpack(position_rows), decisions, "compiled")
