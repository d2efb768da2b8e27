"""A model's backtest of a million candles against its parts measured apart."""

from __future__ import annotations

import tempfile
from pathlib import Path

from atb.app import App
from atb.engine.candles import Candles
from atb.strategy.features import compute_features
from atb.strategy.model import Inference, load_model
from atb.strategy.model_registry import resolve_model
from atb.strategy.signals import compute_signals
from benchmarks.measure import Row, best_of
from benchmarks.shell import has_model
from benchmarks.work import market, run_engine


def million(quick: bool) -> list[Row]:
    """Signals and engine end to end, in multiples of features + one batched inference + engine. Nothing is cached."""
    count = 100_000 if quick else 1_000_000
    if not has_model("BTCUSDT"):
        return [Row("no model of BTCUSDT is shipped, skipped", 0.0, "")]
    app, cache = App(), Path(tempfile.mkdtemp())
    strategy = app.load_strategy("ml_basic").make({})
    entry = resolve_model(app.model_roots(), "BTCUSDT", "1h", "basic", 0)
    strategy.model = load_model(entry, None)
    inference = Inference(entry.file.read_bytes(), "model.onnx")
    features = compute_features(market(count))
    candles = market(count)
    signal = compute_signals(strategy, candles)
    seconds = best_of(
        {
            "features": lambda: compute_features(market_copy(candles)),
            "inference": lambda: inference.run(features),
            "engine": lambda: run_engine([candles], [signal], "compiled", cache),
            "whole": lambda: run_engine(
                [candles], [compute_signals(strategy, market_copy(candles))], "compiled", cache
            ),
        },
        3,
    )
    parts = seconds["features"] + seconds["inference"] + seconds["engine"]
    rows = [
        Row(f"{name}, {count:,} candles", seconds[name] * 1e3, "ms") for name in ("features", "inference", "engine")
    ]
    return [*rows, Row("whole, in the sum of its parts", seconds["whole"] / parts, "x", 1.2)]


def market_copy(candles: Candles) -> Candles:
    """The same candles without what they have computed already."""
    return Candles(
        "BTCUSDT", "1h", candles.open_time, candles.open, candles.high, candles.low, candles.close, candles.volume
    )
