"""Training: the same bytes twice, splits that do not leak, honest scores, nothing half-written."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atb.core.errors import DataError, UsageError
from atb.core.timeframe import HOUR_MS
from atb.engine.candles import COLUMNS, Candles, Floats
from atb.research.logistic import Fit, build_graph, calibrate, fit_logistic, sigmoid
from atb.research.scores import auc, calibration, log_loss, scores
from atb.research.train import folds, make_samples, split, train_basic
from atb.strategy.features import FEATURES, LOOKBACK, compute_features
from atb.strategy.model import Inference, load_model
from atb.strategy.model_registry import ModelEntry, verify_model
from tests.unit.test_features import simulated

HORIZON = 4
ROWS, TRAINING, VALIDATION = 6_000, 4_000, 5_000  # candles: all, to the end of training, to the end of validation


def candles_of(seed: int = 1, reverting: float = 0.0, rows: int = ROWS) -> Candles:
    """A random walk, or one in which a share `reverting` of each move is taken back by the next."""
    base = simulated(rows, seed)
    if not reverting:
        return base
    steps = np.random.default_rng(seed).normal(0.0, 0.006, rows)
    for t in range(1, rows):
        steps[t] -= reverting * steps[t - 1]
    close = np.round(30_000 * np.exp(np.cumsum(steps)), 2)
    open_ = np.concatenate([close[:1], close[:-1]])
    high, low = np.maximum(open_, close), np.minimum(open_, close)
    return base.replace(open=open_, high=high, low=low, close=close)


def train(candles: Candles, out: Path, **more: Any) -> ModelEntry:
    arguments: dict[str, Any] = {
        "symbol": "TESTUSDT", "timeframe": "1h", "horizon": HORIZON, "seed": 7, "source": "simulated",
        "training_end_ms": int(candles.open_time[TRAINING]), "validation_end_ms": int(candles.open_time[VALIDATION]),
    }  # fmt: skip
    return train_basic(candles, out_dir=out, **{**arguments, **more})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ModelEntry:
    return train(candles_of(reverting=0.5), tmp_path_factory.mktemp("models"))


def files(entry: ModelEntry) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in entry.folder.iterdir()}


# --- the whole ---


def test_the_same_candles_give_the_same_bytes(trained: ModelEntry, tmp_path: Path) -> None:
    assert files(train(candles_of(reverting=0.5), tmp_path)) == files(trained)


def test_other_candles_give_another_model(trained: ModelEntry, tmp_path: Path) -> None:
    assert train(candles_of(2, reverting=0.5), tmp_path).sha256 != trained.sha256


@pytest.mark.parametrize("end", [TRAINING, VALIDATION])
def test_nothing_after_the_training_reaches_the_model(trained: ModelEntry, tmp_path: Path, end: int) -> None:
    candles = candles_of(reverting=0.5)
    columns = {name: getattr(candles, name).copy() for name in COLUMNS}
    other = candles_of(99)
    for name, column in columns.items():
        column[end:] = getattr(other, name)[end:]
    entry = train(candles.replace(**columns), tmp_path)
    assert entry.sha256 == trained.sha256
    assert entry.metadata["selection"] == trained.metadata["selection"]
    assert entry.metadata["metrics"] != trained.metadata["metrics"], "the change was there to be seen"


def test_the_model_is_whole_and_says_how_it_was_made(trained: ModelEntry) -> None:
    assert trained.problem == ""
    verify_model(trained)
    m = trained.metadata
    assert (m["seed"], m["horizon"], m["features"], m["lookback_bars"]) == (7, HORIZON, list(FEATURES), LOOKBACK)
    assert m["data"]["rows"] == ROWS and m["data"]["source"] == "simulated" and len(m["data"]["sha256"]) == 64
    assert m["training_start"] < m["training_end"] < m["validation_end"]
    assert set(m["libraries"]) == {"python", "numpy", "onnx", "onnxruntime"}
    assert set(m["fit"]["features"]) == set(FEATURES)
    assert set(m["metrics"]) == {"training", "validation", "out_of_sample"}
    for part in m["metrics"].values():
        assert {"model", "base_rate", "persistence", "calibration", "from", "to", "rows"} == set(part)
        assert sum(group["rows"] for group in part["calibration"]) == part["rows"]
    assert "time" not in m and "created" not in m, "the time of training would make the bytes differ"


def test_a_planted_edge_is_found_and_calibrated(trained: ModelEntry) -> None:
    for name in ("training", "validation", "out_of_sample"):
        part = trained.metadata["metrics"][name]
        assert part["model"]["auc"] > 0.55
        assert part["model"]["log_loss"] < part["base_rate"]["log_loss"]
        groups = part["calibration"]
        assert groups[0]["observed"] < 0.45 < 0.55 < groups[-1]["observed"]
        near = 0.08 if name == "training" else 0.2  # the other parts have some eighty rows a group
        assert all(abs(group["predicted"] - group["observed"]) < near for group in (groups[0], groups[-1]))
    assert trained.metadata["fit"]["slope"] > 0.7


def test_no_edge_is_not_made_up(tmp_path: Path) -> None:
    entry = train(candles_of(5), tmp_path)
    assert entry.metadata["fit"]["slope"] < 0.6, "what the folds did not confirm is shrunk"
    assert abs(entry.metadata["metrics"]["out_of_sample"]["model"]["auc"] - 0.5) < 0.06


def test_the_shipped_graph_answers_what_the_metrics_were_measured_on(trained: ModelEntry) -> None:
    candles = candles_of(reverting=0.5)
    p = load_model(trained, None).predict(Candles("TESTUSDT", "1h", candles.open_time, *_columns(candles)))
    s = split(make_samples(candles, HORIZON), candles, HORIZON, trained.training_end_ms, trained.validation_end_ms)
    expected = trained.metadata["metrics"]["validation"]["model"]
    assert scores(s["validation"].up, p[s["validation"].t]) == expected


def _columns(candles: Candles) -> list[Floats]:
    return [getattr(candles, name) for name in COLUMNS]


def test_progress_runs_from_nothing_to_all(tmp_path: Path) -> None:
    heard: list[float] = []
    train(candles_of(3), tmp_path, on_progress=lambda text, share: heard.append(share))
    assert heard == sorted(heard) and heard[0] == 0.0 and heard[-1] == 1.0


def test_versions_count_up_and_nothing_is_overwritten(trained: ModelEntry, tmp_path: Path) -> None:
    first = train(candles_of(3), tmp_path)
    before = files(first)
    second = train(candles_of(4), tmp_path)
    assert [first.version[-2:], second.version[-2:]] == [".1", ".2"]
    assert files(first) == before
    assert sorted(path.name for path in first.folder.parent.iterdir()) == [first.version, second.version]


# --- refusals ---


def test_without_onnx_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError) as caught:
        train(candles_of(), tmp_path)
    assert 'pip install "atb[train]"' in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot be written to"):
        train(candles_of(), tmp_path / "file")


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UsageError, match="No space left"):
        train(candles_of(), tmp_path)
    assert not list((tmp_path / "TESTUSDT" / "basic").iterdir())


@pytest.mark.parametrize("more, kind, message", [
    ({"symbol": "ETHUSDT"}, UsageError, "TESTUSDT 1h, not ETHUSDT"),
    ({"timeframe": "4h"}, UsageError, "not TESTUSDT 4h"),
    ({"validation_end_ms": 0}, UsageError, "before validation"),
    ({"horizon": 0}, UsageError, "horizon"),
    ({"horizon": 9_000}, DataError, "too few to train on"),
    ({"training_end_ms": 1_600_000_000_000 + 500 * HOUR_MS}, DataError, "too few to train on"),
])  # fmt: skip
def test_what_cannot_be_trained_is_refused(
    tmp_path: Path, more: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        train(candles_of(), tmp_path, **more)
    assert not list(tmp_path.iterdir())


def test_a_market_that_only_rises_is_refused(tmp_path: Path) -> None:
    price = np.round(100 * 1.0001 ** np.arange(ROWS), 4)
    with pytest.raises(DataError, match="nothing to learn"):
        train(candles_of().replace(open=price, high=price, low=price, close=price), tmp_path)


# --- splits ---


def test_no_label_and_no_feature_reaches_over_a_split() -> None:
    candles = candles_of()
    ends = (int(candles.open_time[TRAINING]), int(candles.open_time[VALIDATION]))
    parts = split(make_samples(candles, HORIZON), candles, HORIZON, *ends)
    seen = {name: (s.t.min() - LOOKBACK + 1, s.t.max() + HORIZON) for name, s in parts.items()}
    assert seen["training"][1] < TRAINING < seen["validation"][0]
    assert seen["validation"][1] < VALIDATION < seen["out_of_sample"][0]
    assert seen["training"][1] == TRAINING - 1, "purged, and not more than purged"
    assert seen["out_of_sample"][1] == ROWS - 1


def test_folds_walk_forward_and_are_purged() -> None:
    samples = make_samples(candles_of(), HORIZON)
    pairs = list(folds(samples, HORIZON))
    assert len(pairs) >= 5
    for fitted, test in pairs:
        assert fitted.t.max() + HORIZON < test.t.min() - LOOKBACK + 1
    assert all(len(a[0]) < len(b[0]) for a, b in itertools.pairwise(pairs))
    assert all(a[1].t.max() < b[1].t.min() for a, b in itertools.pairwise(pairs))


def test_samples_are_the_candles_features_and_what_came_of_them() -> None:
    candles = candles_of(rows=1_500)
    samples = make_samples(candles, HORIZON)
    assert (samples.t[0], samples.t[-1]) == (LOOKBACK - 1, 1_500 - HORIZON - 1)
    np.testing.assert_array_equal(samples.x, compute_features(candles)[samples.t].astype(np.float64))
    for t, up in zip(samples.t[::50].tolist(), samples.up[::50].tolist(), strict=True):
        assert up == float(candles.close[t + HORIZON] > candles.close[t])


def test_a_label_over_a_gap_is_dropped() -> None:
    candles = candles_of(rows=1_000)
    times = candles.open_time.copy()
    times[600:] += 5 * HOUR_MS
    lost = set(make_samples(candles, HORIZON).t) - set(make_samples(candles.replace(open_time=times), HORIZON).t)
    assert lost == {596, 597, 598, 599}


# --- the fit ---


def planted(rows: int = 20_000) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 2.0, (rows, 4))
    weights = np.array([0.8, -0.5, 0.0, 0.2])
    up = (rng.random(rows) < sigmoid((x - 3.0) / 2.0 @ weights - 0.3)).astype(np.float64)
    return x, up, weights


def test_the_fit_finds_planted_weights() -> None:
    x, up, weights = planted()
    fit = fit_logistic(x, up, 1e-6)
    np.testing.assert_allclose(fit.weights, weights, atol=0.05)
    assert fit.bias == pytest.approx(-0.3, abs=0.05)


def test_the_fit_is_at_the_minimum_of_its_loss() -> None:
    x, up, _ = planted(3_000)
    fit = fit_logistic(x, up, 0.05)

    def loss(weights: Floats, bias: float) -> float:
        p = sigmoid(fit.standardise(x) @ weights + bias)
        return log_loss(up, p) + 0.025 * float(weights @ weights)

    best = loss(fit.weights, fit.bias)
    for i in range(4):
        for step in (-1e-3, 1e-3):
            assert loss(fit.weights + step * np.eye(4)[i], fit.bias) > best
    assert min(loss(fit.weights, fit.bias + 1e-3), loss(fit.weights, fit.bias - 1e-3)) > best


def test_a_constant_feature_is_harmless() -> None:
    x, up, _ = planted(3_000)
    x[:, 2] = 5.0
    fit = fit_logistic(x, up, 0.01)
    assert fit.inverse_std[2] == 0.0 and np.isfinite(fit.logit(x)).all()


def test_calibration_shrinks_to_what_unseen_rows_confirmed() -> None:
    x, up, _ = planted()
    fit = fit_logistic(x, up, 1e-6)
    rng = np.random.default_rng(1)
    logit = rng.normal(0.0, 1.0, 50_000)
    unseen = (rng.random(50_000) < sigmoid(0.4 * logit)).astype(np.float64)
    calibrated = calibrate(fit, logit, unseen, x, float(up.mean()))
    assert calibrated.slope == pytest.approx(0.4, abs=0.03)
    p = sigmoid(calibrated.slope * calibrated.logit(x) + calibrated.offset)
    assert p.mean() == pytest.approx(up.mean(), abs=1e-9)
    against = calibrate(fit, -logit, unseen, x, float(up.mean()))
    assert against.slope == 0.0, "a model that was wrong is silenced, not turned round"
    assert sigmoid(np.array([against.offset]))[0] == pytest.approx(up.mean(), abs=1e-9)


def test_the_graph_is_the_fit() -> None:
    rng = np.random.default_rng(2)
    k = len(FEATURES)
    fit = Fit(rng.normal(size=k), rng.uniform(0.5, 2, k), rng.normal(size=k), 0.1, slope=0.7, offset=-0.2)
    x = rng.normal(0.0, 4.0, (500, k))
    answer = Inference(build_graph(fit), "test").run(x.astype(np.float32))
    np.testing.assert_allclose(answer, sigmoid(fit.slope * fit.logit(x) + fit.offset), atol=2e-6)


# --- scores ---


def test_auc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        up = (rng.random(60) < 0.4).astype(np.float64)
        score = np.round(rng.normal(size=60), 1)  # with ties
        pairs = [(a > b) + 0.5 * (a == b) for a in score[up > 0.5] for b in score[up < 0.5]]
        assert auc(up, score) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert auc(np.ones(5), np.arange(5.0)) == 0.5


def test_scores_by_hand() -> None:
    up, p = np.array([1.0, 0.0, 1.0]), np.array([0.8, 0.4, 0.3])
    assert log_loss(up, p) == pytest.approx(-(np.log(0.8) + np.log(0.6) + np.log(0.3)) / 3)
    assert np.isfinite(log_loss(up, np.array([0.0, 1.0, 0.5])))
    made = scores(up, p)
    assert made["brier"] == pytest.approx((0.04 + 0.16 + 0.49) / 3, abs=1e-5)
    assert made["accuracy"] == pytest.approx(2 / 3, abs=1e-5)


def test_calibration_groups_by_prediction() -> None:
    p = np.linspace(0.0, 1.0, 1_000)
    up = (p > 0.5).astype(np.float64)
    groups = calibration(up, p)
    assert [g["rows"] for g in groups] == [100] * 10
    assert [g["observed"] for g in groups] == [0.0] * 5 + [1.0] * 5
    assert groups[0]["predicted"] == pytest.approx(0.0495, abs=1e-3)


def test_metadata_is_plain_json(trained: ModelEntry) -> None:
    text = (trained.folder / "metadata.json").read_text(encoding="utf-8")
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text) == trained.metadata


def test_a_training_that_ends_after_the_candles_is_refused(tmp_path: Path) -> None:
    candles = candles_of()
    end = int(candles.open_time[-1]) + HOUR_MS
    with pytest.raises(UsageError, match=r"Training cannot end on .*: the candles end on") as caught:
        train(candles, tmp_path, training_end_ms=end + HOUR_MS, validation_end_ms=end + 2 * HOUR_MS)
    assert "--training-end" in caught.value.hint
    entry = train(candles, tmp_path, training_end_ms=end, validation_end_ms=end + HOUR_MS)  # just there is allowed
    assert set(entry.metadata["metrics"]) == {"training"}  # and the command says what that lacks
