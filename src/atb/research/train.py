"""Train a model of kind "basic": a logistic regression on the features, calibrated, written as a small ONNX graph.

The same candles give the same bytes. Splits are chronological and purged: a label that reaches over a boundary is dropped,
and LOOKBACK candles after a boundary are left out, so that no part sees a candle of another. Everything after the
validation's end is only ever measured. docs/models.md tells the reasons.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from atb.core.errors import DataError, UsageError
from atb.core.timeframe import iso, iso_date, timeframe_ms
from atb.core.words import are, counted
from atb.engine.candles import COLUMNS, Candles, Floats, Ints
from atb.research.logistic import Fit, build_graph, calibrate, fit_logistic, sigmoid
from atb.research.scores import auc, calibration, log_loss, scores
from atb.strategy.features import CHUNK, FEATURE_VERSION, FEATURES, LOOKBACK, feature_rows
from atb.strategy.model import INPUT, OUTPUT, Inference
from atb.strategy.model_registry import FORMAT, METADATA_FILE, MODEL_FILE, ModelEntry, read_entry

Progress = Callable[[str, float], None]

KIND = "basic"
HORIZON = 12  # candles; docs/models.md has the comparison it was chosen by
PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)  # weights of the squared coefficients, tried on purged folds
FOLDS = 6
FIRST_TRAINED_SHARE = 0.3  # of the training part, that the first fold is fitted on
FEWEST_ROWS = 2_000  # training rows below which nothing can be learnt


class Samples(NamedTuple):
    """One row a usable candle. t: int64, its index; x: float64[rows, k]; up: float64, 1 where the close rose."""

    t: Ints
    x: Floats
    up: Floats

    def take(self, keep: npt.NDArray[Any]) -> Samples:
        return Samples(self.t[keep], self.x[keep], self.up[keep])

    def __len__(self) -> int:  # rows, not fields
        return len(self.t)


def train_basic(
    candles: Candles,
    *,
    symbol: str,
    timeframe: str,
    training_end_ms: int,
    validation_end_ms: int,
    out_dir: Path,
    seed: int = 0,
    horizon: int = HORIZON,
    source: str = "",
    on_progress: Progress | None = None,
) -> ModelEntry:
    """Train, measure, and write out_dir/SYMBOL/basic/VERSION; returns its entry (`metadata` holds all figures).

    `source` names the candles in the metadata. VERSION is the year and month of the training's end and the next free
    number. The same arguments give the same bytes. `seed` is recorded; nothing here is random. UsageError without onnx,
    for dates in the wrong order or a folder that cannot be written; DataError for too few candles.
    """
    say = on_progress or (lambda text, share: None)
    _require_onnx()
    _check_request(candles, symbol, timeframe, training_end_ms, validation_end_ms, horizon)
    say("computing features", 0.0)
    samples = make_samples(candles, horizon)
    parts = split(samples, candles, horizon, training_end_ms, validation_end_ms)
    _check_training(parts["training"], training_end_ms, horizon)
    fit, selection = choose_and_fit(parts["training"], horizon, say)
    graph = build_graph(fit)
    say("measuring", 0.9)
    facts: dict[str, Any] = {
        **_describe_model(symbol, timeframe, horizon),
        "training_start": iso(int(candles.open_time[0])),
        "training_end": iso(training_end_ms),
        "validation_end": iso(validation_end_ms),
        "seed": seed,
        "data": _describe_data(candles, source),
        "selection": selection,
        "fit": _describe_fit(fit, parts["training"]),
        "metrics": measure(parts, Inference(graph, MODEL_FILE), candles, horizon),
        "libraries": _libraries(),
        "model_sha256": hashlib.sha256(graph).hexdigest(),
    }
    entry = write_model(out_dir / symbol / KIND, iso_date(training_end_ms)[:7].replace("-", "."), graph, facts)
    say("done", 1.0)
    return entry


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise UsageError("Training needs the package onnx.", 'Install it: pip install "atb[train]"') from None


def _check_request(
    candles: Candles, symbol: str, timeframe: str, training_end_ms: int, validation_end_ms: int, horizon: int
) -> None:
    if (candles.symbol, candles.timeframe) != (symbol, timeframe):
        raise UsageError(f"The candles are {candles.symbol} {candles.timeframe}, not {symbol} {timeframe}.")
    if not training_end_ms < validation_end_ms:
        raise UsageError(f"Training must end ({iso_date(training_end_ms)}) before validation does.")
    end_ms = int(candles.open_time[-1]) + timeframe_ms(timeframe)
    if training_end_ms > end_ms:
        raise UsageError(
            f"Training cannot end on {iso_date(training_end_ms)}: the candles end on {iso_date(end_ms)}.",
            "Give --training-end and --validation-end that leave candles after them.",
        )
    if not 1 <= horizon <= 10_000:
        raise UsageError(f"The horizon must be from 1 to 10000 candles, not {horizon}.")


def _check_training(training: Samples, training_end_ms: int, horizon: int) -> None:
    if len(training) < FEWEST_ROWS:
        raise DataError(
            f"{counted(len(training), 'usable candle')} before {iso_date(training_end_ms)} {are(len(training))} too few "
            "to train on.",
            f"At least {FEWEST_ROWS} are needed.",
        )
    if len(np.unique(training.up)) < 2:
        raise DataError(f"The close always moves the same way within {horizon} candles: there is nothing to learn.")


def make_samples(candles: Candles, horizon: int) -> Samples:
    """The candles that have all features and, exactly `horizon` candles later (no gap between), a close."""
    n = len(candles)
    if n <= LOOKBACK + horizon:
        raise DataError(
            f"{counted(n, 'candle')} {are(n)} too few to train on: features need {LOOKBACK}, labels {horizon} more."
        )
    starts = range(LOOKBACK - 1, n - horizon, CHUNK)
    x = np.concatenate([feature_rows(candles, a, min(n - horizon, a + CHUNK)) for a in starts])
    t = np.arange(LOOKBACK - 1, n - horizon)
    whole = candles.open_time[t + horizon] - candles.open_time[t] == horizon * timeframe_ms(candles.timeframe)
    keep = np.isfinite(x).all(axis=1) & whole
    t = t[keep]
    up = (candles.close[t + horizon] > candles.close[t]).astype(np.float64)
    return Samples(t, x[keep].astype(np.float64), up)


def split(
    samples: Samples, candles: Candles, horizon: int, training_end_ms: int, validation_end_ms: int
) -> dict[str, Samples]:
    """training, validation and out_of_sample: labels end inside their part, which begins LOOKBACK candles late."""
    first, second = np.searchsorted(candles.open_time, (training_end_ms, validation_end_ms)).tolist()
    bounds = {
        "training": (0, first),
        "validation": (first + LOOKBACK, second),
        "out_of_sample": (second + LOOKBACK, len(candles)),
    }
    t = samples.t
    return {name: samples.take((t >= low) & (t + horizon < high)) for name, (low, high) in bounds.items()}


def folds(training: Samples, horizon: int) -> Iterator[tuple[Samples, Samples]]:
    """Walk-forward: fit on all before a boundary, test on the stretch after it, purged and embargoed like the splits."""
    t = training.t
    edges = np.linspace(t[0] + FIRST_TRAINED_SHARE * (t[-1] - t[0]), t[-1] + 1, FOLDS + 1).astype(np.int64).tolist()
    for low, high in pairwise(edges):
        yield training.take(t + horizon < low), training.take((t >= low + LOOKBACK) & (t < high))


def choose_and_fit(training: Samples, horizon: int, say: Progress) -> tuple[Fit, dict[str, Any]]:
    """The penalty with the lowest log loss on the folds, the fit with it, calibrated on the folds' own predictions."""
    pairs = [(a, b) for a, b in folds(training, horizon) if len(a) >= FEWEST_ROWS // 8 and len(b)]
    if not pairs:
        raise DataError("The training part is too short or too full of gaps for purged folds.", "Use more candles.")
    up = np.concatenate([test.up for _, test in pairs])
    tried = []
    for i, penalty in enumerate(PENALTIES):
        say(f"folds with penalty {penalty:g}", 0.1 + 0.7 * i / len(PENALTIES))
        logit, level = predict_folds(pairs, penalty)
        tried.append((log_loss(up, sigmoid(logit)), penalty, logit, level))
    loss, penalty, logit, level = min(tried, key=lambda trial: trial[:2])
    fit = fit_logistic(training.x, training.up, penalty)
    fit = calibrate(fit, logit - level, up, training.x, float(training.up.mean()))
    by_fold = np.split(logit, np.cumsum([len(test) for _, test in pairs])[:-1])
    selection = {
        "folds": len(pairs), "purge_candles": horizon, "embargo_candles": LOOKBACK, "penalty": penalty,
        "log_loss_by_penalty": {f"{p:g}": round(value, 6) for value, p, *_ in tried}, "log_loss": round(loss, 6),
        "auc": round(auc(up, logit), 4),
        "auc_by_fold": [round(auc(test.up, part), 4) for (_, test), part in zip(pairs, by_fold, strict=True)],
    }  # fmt: skip
    return fit, selection


def predict_folds(pairs: list[tuple[Samples, Samples]], penalty: float) -> tuple[Floats, Floats]:
    """The scores of the folds' test rows, by fits that have not seen them, and the bias of the fit behind each."""
    logits, levels = [], []
    for fitted, test in pairs:
        fit = fit_logistic(fitted.x, fitted.up, penalty)
        logits.append(fit.logit(test.x))
        levels.append(np.full(len(test), fit.bias))
    return np.concatenate(logits), np.concatenate(levels)


def measure(parts: Mapping[str, Samples], inference: Inference, candles: Candles, horizon: int) -> dict[str, Any]:
    """Scores of each part, beside two baselines that know nothing but the training part's frequencies.

    base_rate: how often it rose; persistence: how often it rose after a rise, and after a fall, of `horizon` candles.
    """
    training = parts["training"]
    rose = {name: candles.close[s.t] > candles.close[np.maximum(s.t - horizon, 0)] for name, s in parts.items()}
    known = rose["training"]
    rates = [float(np.mean(training.up[known == after])) if (known == after).any() else 0.5 for after in (False, True)]
    result = {}
    for name, s in parts.items():
        if len(s) == 0:
            continue
        p = inference.probabilities(s.x.astype(np.float32)).astype(np.float64)
        result[name] = {
            "from": iso(int(candles.open_time[s.t[0]])), "to": iso(int(candles.open_time[s.t[-1]])), "rows": len(s),
            "model": scores(s.up, p), "base_rate": scores(s.up, np.full(len(s), training.up.mean())),
            "persistence": scores(s.up, np.where(rose[name], rates[1], rates[0])), "calibration": calibration(s.up, p),
        }  # fmt: skip
    return result


def _describe_model(symbol: str, timeframe: str, horizon: int) -> dict[str, Any]:
    meaning = f"calibrated probability that the close is higher {horizon} candles later"
    return {
        "format": FORMAT,
        "kind": KIND,
        "symbol": symbol,
        "timeframe": timeframe,
        "horizon": horizon,
        "trainer": "logistic regression by Newton's method",
        "features": list(FEATURES),
        "feature_version": FEATURE_VERSION,
        "lookback_bars": LOOKBACK,
        "input": {"name": INPUT, "type": "float32", "shape": [None, len(FEATURES)]},
        "output": {"name": OUTPUT, "type": "float32", "shape": [None, 1], "meaning": meaning},
    }


def _describe_data(candles: Candles, source: str) -> dict[str, Any]:
    digest = hashlib.sha256()
    for name in ("open_time", *COLUMNS):
        digest.update(getattr(candles, name).data)
    first, last = iso(int(candles.open_time[0])), iso(int(candles.open_time[-1]))
    return {"source": source, "rows": len(candles), "first": first, "last": last, "sha256": digest.hexdigest()}


def _describe_fit(fit: Fit, training: Samples) -> dict[str, Any]:
    low, high = np.quantile(training.x, (0.001, 0.999), axis=0)
    columns = {"mean": fit.mean, "weight": fit.weights, "p001": low, "p999": high}
    table = {f: {key: round(float(c[i]), 6) for key, c in columns.items()} for i, f in enumerate(FEATURES)}
    return {"slope": round(fit.slope, 6), "offset": round(fit.offset, 6), "bias": round(fit.bias, 6), "features": table}


def _libraries() -> dict[str, str]:
    from importlib.metadata import version

    return {"python": platform.python_version(), **{name: version(name) for name in ("numpy", "onnx", "onnxruntime")}}


def write_model(folder: Path, month: str, graph: bytes, facts: dict[str, Any]) -> ModelEntry:
    """Write both files into a new version's folder, whole or not at all."""
    number = 1
    while (folder / f"{month}.{number}").exists():
        number += 1
    version = f"{month}.{number}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder))
        try:
            (draft / MODEL_FILE).write_bytes(graph)
            text = json.dumps({**facts, "version": version}, indent=1, ensure_ascii=False)
            (draft / METADATA_FILE).write_text(text + "\n", encoding="utf-8")
            draft.chmod(0o755)
            draft.rename(folder / version)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    except OSError as error:
        raise UsageError(
            f"The model cannot be written to {folder}: {error.strerror}.", "Choose another --out."
        ) from None
    return read_entry(folder / version)
