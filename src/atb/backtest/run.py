"""One backtest: load, gate, signals once, run, statistics."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import atb
from atb.backtest.notes import Prepared, notes_of_run
from atb.backtest.request import Request
from atb.backtest.result import (
    BacktestResult,
    BestCase,
    DataFacts,
    Halt,
    ModelFacts,
    Segment,
    Statistics,
    market_curve,
)
from atb.backtest.sides import side_facts, with_sides
from atb.backtest.sources import Source, Surroundings, open_sources
from atb.core.errors import DataError, StrategyError, UsageError
from atb.core.policy import Policy, effective_policy
from atb.core.timeframe import iso, parse_time_ms, timeframe_ms
from atb.core.types import MarketRules
from atb.core.words import are, counted
from atb.data.store import candles_hash
from atb.data.validation import Quality, assess
from atb.engine import metrics
from atb.engine.candles import Candles, Floats
from atb.engine.metrics import Curve
from atb.engine.records import Market
from atb.engine.rules import make_market, make_rules
from atb.engine.sides import Join, as_they_are
from atb.engine.simulation import Run, Timeline, simulate, timeline
from atb.engine.trades import Trades, fold_trades
from atb.strategy.contract import Strategy, own_policy
from atb.strategy.gate import check_on_load
from atb.strategy.loader import LoadedStrategy
from atb.strategy.signals import compute_signals, lookback_of, place

LARGEST_BALANCE = 1e12


class Desk(NamedTuple):
    """What a run needs besides the request: strategies, market rules, models, caches and surroundings."""

    loaded: LoadedStrategy
    market_rules: Callable[[Source], MarketRules]
    attach_model: Callable[[Strategy, str, str, int, str | None], None]
    around: Surroundings
    cache: Path
    join: Join = as_they_are


def run_backtest(request: Request, desk: Desk) -> BacktestResult:
    """Run `request`. All its errors are AtbErrors; nothing is written but fetched candles and caches."""
    clock = Stopwatch()
    policy, notes, sources, prepared, rules = prepare(request, desk, clock)
    shown = [p.candles.window(p.first, len(p.candles)) for p in prepared]
    line = timeline(shown, [p.signals[p.first :] for p in prepared])
    length_ms = timeframe_ms(sources[0].timeframe)
    notes += notes_of_run(desk.loaded.file, prepared, rules, line, request)
    markets = [make_market(r) for r in rules]
    run, best_run = _simulate(request, desk, policy, markets, line)
    clock.lap("engine")
    parts = _Parts(run, line, markets, request.initial_balance, length_ms)
    models = [_model_facts(p) for p in prepared if p.strategy.model is not None]
    segments = _segments(parts, [] if any(source.simulated for source in sources) else models)
    clock.lap("statistics")
    return BacktestResult(
        strategy=_strategy_facts(desk.loaded, prepared[0].strategy),
        symbols=tuple(source.symbol.id for source in sources),
        timeframe=sources[0].timeframe,
        initial_balance=request.initial_balance,
        costs={"fee_bps": request.fee_bps, "slippage_bps": request.slippage_bps},
        policy=policy,
        market_rules=rules,
        data=[_data_facts(p, shown[i]) for i, p in enumerate(prepared)],
        models=models,
        notes=notes,
        versions=_versions(),
        segments=segments,
        best_case=_best_case(request, run, best_run),
        halt=_halt(run, length_ms),
        candles=shown,
        line=line,
        run=run,
        trades=parts.trades,
        curve=parts.curve,
        market_equity=parts.market,
        timing={"engine": run.engine, **clock.laps},
    )


class Setting(NamedTuple):
    """What a request comes to: the policy in force and how it came about, and each symbol's candles, signals and rules."""

    policy: Policy
    notes: list[str]
    sources: list[Source]
    prepared: list[Prepared]
    rules: list[MarketRules]


def prepare(request: Request, desk: Desk, clock: Stopwatch) -> Setting:
    """Load candles, compute signals and let them through the gate."""
    _check_numbers(request)
    own = own_policy(desk.loaded.cls, len(request.symbols))
    policy, notes = effective_policy(own, request.policy_file, request.policy_flags)
    sources = open_sources(request, desk.around)
    prepared = [_prepare(source, request, desk, policy, clock) for source in sources]
    return Setting(policy, notes, sources, prepared, [desk.market_rules(source) for source in sources])


class Stopwatch:
    """Seconds by stage, for the report's timing; nothing is decided by it."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.at = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[f"{name}_s"] = self.laps.get(f"{name}_s", 0.0) + now - self.at
        self.at = now


def _check_numbers(request: Request) -> None:
    if not 0 < request.initial_balance <= LARGEST_BALANCE:
        raise UsageError(
            f"--initial-balance must be above 0 (at most {LARGEST_BALANCE:g}), not {request.initial_balance:g}."
        )
    for name, value in (("--fee-bps", request.fee_bps), ("--slippage-bps", request.slippage_bps)):
        if not 0 <= value <= 1000:
            raise UsageError(f"{name} must be from 0 to 1000 basis points, not {value:g}.", "10 is 0.1 %.")
    if not 0 <= request.max_gap_share <= 1:
        raise UsageError(f"--max-gaps must be a share from 0 to 1, not {request.max_gap_share:g}.")


def _prepare(source: Source, request: Request, desk: Desk, policy: Policy, clock: Stopwatch) -> Prepared:
    strategy = desk.loaded.make(request.params)
    start = source.span()[0]
    desk.attach_model(strategy, source.symbol.id, source.timeframe, start, request.model_version)
    lookback = lookback_of(strategy)
    candles = source.read(lookback - 1)
    first = int(np.searchsorted(candles.open_time, start))
    if first == len(candles) or len(candles) <= lookback:
        raise DataError(
            f"{source.symbol.id}: {counted(len(candles) - first, 'candle')} in the range and {first} before it are too few: "
            f"{desk.loaded.file.name} looks back {lookback} and needs one more to fill at.",
            "Use a longer range or a file with more history.",
        )
    candles = with_sides(candles, strategy, source, desk.join)
    clock.lap("load")
    signals = compute_signals(strategy, candles)
    _refuse_early(strategy, signals, lookback)
    clock.lap("signals")
    check_on_load(strategy, candles, signals, policy.min_confidence, exact=desk.loaded.file.shipped)
    clock.lap("gate")
    quality = assess(candles.window(first, len(candles)))
    _refuse_gaps(source, quality, request)
    return Prepared(source, strategy, candles, first, signals, quality)


def _refuse_early(strategy: Strategy, signals: Floats, lookback: int) -> None:
    """No check reaches a signal that comes before its lookback is filled, so none of them may trade."""
    early = int(np.count_nonzero(~np.isnan(signals[: lookback - 1])))
    if early:
        raise StrategyError(
            f"{place(strategy)}: {counted(early, 'signal')} come{'s' if early == 1 else ''} before the "
            f"{counted(lookback, 'candle')} of lookback_bars; before them all must be NaN.",
            f"All findings: atb strategies check {strategy.title()} --data FILE",
        )


def _refuse_gaps(source: Source, quality: Quality, request: Request) -> None:
    if quality.missing_share > request.max_gap_share and not request.allow_gaps:
        largest = max(quality.gaps, key=lambda gap: gap.missing)
        raise DataError(
            f"{source.symbol.id}: {quality.missing} of {quality.rows + quality.missing} candles {are(quality.missing)} "
            f"missing ({quality.missing_share:.1%}, more than {request.max_gap_share:.1%}); the largest gap, "
            f"{counted(largest.missing, 'candle')}, starts at {iso(largest.start_ms)}.",
            "Use --allow-gaps to run all the same, or raise --max-gaps.",
        )


def _simulate(
    request: Request, desk: Desk, policy: Policy, markets: list[Market], line: Timeline
) -> tuple[Run, Run | None]:
    """The run, and the run with ambiguous candles the other way where there are any."""
    runs = []
    for best in (False, True):
        rules = make_rules(policy, request.fee_bps, request.slippage_bps, take_before_stop=best)
        big = len(line.open_time) * line.symbols > 2_000_000
        tell = (lambda row: desk.around.progress("backtest", row / len(line.open_time))) if big else None
        runs.append(
            simulate(
                line,
                markets,
                rules,
                request.initial_balance,
                engine=request.engine,
                cache=desk.cache,
                on_progress=tell,
            )
        )
        if not _ambiguous(runs[0]):
            return runs[0], None
    return runs[0], runs[1]


def _ambiguous(run: Run) -> int:
    from atb.engine.reasons import STOP_BEFORE_TAKE

    return int(np.count_nonzero(run.fills["rule"] == STOP_BEFORE_TAKE))


def _best_case(request: Request, run: Run, best: Run | None) -> BestCase:
    end = float((best or run).equity[-1])
    return BestCase(_ambiguous(run), end, end / request.initial_balance - 1.0)


def _halt(run: Run, length_ms: int) -> Halt | None:
    account = run.account
    return Halt(iso(account.halt_ms + length_ms), account.halt_drawdown) if account.halted else None


def _trades(run: Run, line: Timeline, markets: list[Market]) -> Trades:
    lots = np.array([market.lot for market in markets])
    last_close = np.array([position.last_close for position in run.positions])
    return fold_trades(run.fills, lots, last_close, run.rows - 1)


def _segments(parts: _Parts, models: list[ModelFacts]) -> list[Segment]:
    """Statistics of the whole run, then of its parts before and after the models' dates."""
    rows = parts.run.rows
    segments = [Segment("all", parts.statistics(0, rows))]
    if not models:
        return segments
    training = max(parse_time_ms(m.training_end, "training_end") for m in models)
    validation = max(parse_time_ms(m.validation_end, "validation_end") for m in models)
    edges = [0, *np.searchsorted(parts.curve.open_time, (training, validation)).tolist(), rows]
    for name, low, high in zip(("in_sample", "validation", "out_of_sample"), edges, edges[1:], strict=False):
        if high > low:
            segments.append(Segment(name, parts.statistics(low, high)))
    return segments


class _Parts:
    """Statistics of any stretch of rows of a run. A trade belongs to the stretch in which it was entered."""

    def __init__(self, run: Run, line: Timeline, markets: list[Market], initial_balance: float, length_ms: int) -> None:
        self.run, self.line = run, line
        self.trades = _trades(run, line, markets)
        self.curve = Curve(line.open_time[: run.rows], run.equity, initial_balance, length_ms)
        self.market = market_curve(line, run.rows, initial_balance)
        lots = np.array([m.lot for m in markets])
        self.fill_value = np.abs(run.fills["qty"] * lots[run.fills["symbol"]] * run.fills["price"])

    def statistics(self, low: int, high: int) -> Statistics:
        whole = self.curve
        start_equity = whole.initial_balance if low == 0 else float(whole.equity[low - 1])
        curve = Curve(whole.open_time[low:high], whole.equity[low:high], start_equity, whole.length_ms)
        trades = self.trades.select((self.trades.entry_t >= low) & (self.trades.entry_t < high))
        filled = (self.run.fills["t"] >= low) & (self.run.fills["t"] < high)
        returns = metrics.daily_returns(curve)
        drawdown = metrics.max_drawdown(curve)
        growth = metrics.cagr(start_equity, curve.end, curve.days)
        market_start = whole.initial_balance if low == 0 else float(self.market[low - 1])
        return Statistics(
            start=iso(int(curve.open_time[0])),
            end=iso(int(curve.open_time[-1]) + curve.length_ms),
            days=curve.days,
            start_equity=start_equity,
            end_equity=curve.end,
            total_return=curve.end / start_equity - 1.0,
            market_change=float(self.market[high - 1]) / market_start - 1.0,
            cagr=growth,
            sharpe=metrics.sharpe(returns),
            sortino=metrics.sortino(returns),
            calmar=growth / drawdown.depth if growth is not None and drawdown.depth > 0 else None,
            volatility=metrics.volatility(returns),
            drawdown=drawdown,
            trades=metrics.trade_stats(trades, self.line.open_time, whole.length_ms),
            open_trades=int(np.count_nonzero(trades.open)),
            exposure=self._exposure(low, high),
            turnover=float(self.fill_value[filled].sum()) / float(curve.equity.mean()),
            fees=float(self.run.fills["fee"][filled].sum()),
            best_day=float(returns.max()) if len(returns) else None,
            worst_day=float(returns.min()) if len(returns) else None,
        )

    def _exposure(self, low: int, high: int) -> float:
        """Share of the closes at which something was held."""
        if low == 0 and high == self.run.rows:
            return self.run.account.candles_exposed / high
        held = np.zeros(self.run.rows + 1, dtype=np.int64)
        closed_at = np.where(self.trades.open, self.run.rows, self.trades.exit_t)
        np.add.at(held, self.trades.entry_t, 1)
        np.add.at(held, closed_at, -1)
        return float(np.count_nonzero(np.cumsum(held[:-1])[low:high])) / (high - low)


def _model_facts(p: Prepared) -> ModelFacts:
    model = p.strategy.model
    return ModelFacts(
        symbol=p.source.symbol.id,
        id=model.id,
        version=model.version,
        training_start=iso(model.training_start_ms),
        training_end=iso(model.training_end_ms),
        validation_end=iso(model.validation_end_ms),
    )


def _strategy_facts(loaded: LoadedStrategy, strategy: Strategy) -> dict[str, Any]:
    return {
        "name": loaded.file.name,
        "shipped": loaded.file.shipped,
        "sha256": loaded.sha256,
        "params": strategy.values(),
        "lookback_bars": lookback_of(strategy),
        "summary": loaded.cls.summary(),
    }


def _data_facts(p: Prepared, shown: Candles) -> DataFacts:
    q = p.quality
    return DataFacts(
        symbol=p.source.symbol.id,
        venue=p.source.venue,
        source=p.source.describe(),
        simulated=p.source.simulated,
        rows=q.rows,
        first=iso(q.first_ms),
        last=iso(q.last_ms),
        gaps=len(q.gaps),
        missing_candles=q.missing,
        missing_share=q.missing_share,
        largest_gap_candles=max((gap.missing for gap in q.gaps), default=0),
        zero_volume_candles=q.zero_volume,
        history_candles=p.first,
        sha256=candles_hash(p.candles),
        sides=side_facts(shown),
    )


def _versions() -> dict[str, str]:
    return {"atb": atb.__version__, "python": platform.python_version(), "numpy": np.__version__}
