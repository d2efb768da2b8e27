"""Models: which one answers, what is refused and why, and that one row gets the same bits as a million."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from atb.core.errors import StrategyError
from atb.core.policy import make_policy
from atb.core.timeframe import parse_time_ms
from atb.engine.candles import COLUMNS, Candles, Floats
from atb.strategy import model as model_module
from atb.strategy.features import CHUNK, FEATURES, LOOKBACK, compute_features
from atb.strategy.loader import find_strategies, load_strategy
from atb.strategy.model import CACHED_FROM, Inference, Model, load_model, prediction_key
from atb.strategy.model_registry import ModelEntry, list_models, newest, resolve_model, verify_model
from tests.unit.test_features import real, simulated

REPO = Path(__file__).parents[2]
SHIPPED = REPO / "models"
LATE = parse_time_ms("2030-01-01", "test")
Tamper = Callable[[dict[str, Any]], object]


def candles_of(n: int, seed: int = 3) -> Candles:
    c = simulated(n, seed)
    return Candles("BTCUSDT", "1h", c.open_time, *(getattr(c, name) for name in COLUMNS))


def shipped(symbol: str = "BTCUSDT") -> ModelEntry:
    return resolve_model([SHIPPED], symbol, "1h", "basic", LATE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A models folder of one's own with the shipped BTCUSDT model in it."""
    entry = shipped()
    folder = tmp_path / "models" / "BTCUSDT" / "basic" / entry.version
    shutil.copytree(entry.folder, folder)
    return tmp_path / "models"


def only(root: Path) -> Path:
    return next(root.glob("*/*/*"))


def tamper(folder: Path, change: Tamper) -> None:
    path = folder / "metadata.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


def copy_version(root: Path, version: str, training_end: str, timeframe: str = "1h") -> None:
    source = only(root)
    target = source.parent / version
    if target != source:
        shutil.copytree(source, target)
    change = {"version": version, "training_end": training_end, "validation_end": "2029-01-01", "timeframe": timeframe}
    tamper(target, lambda m: m.update(change))


def resolved(root: Path, as_of: str, version: str | None = None, timeframe: str = "1h") -> str:
    return resolve_model([root], "BTCUSDT", timeframe, "basic", parse_time_ms(as_of, "test"), version).version


# --- the shipped models ---


def test_the_shipped_models_are_whole_and_trained_when_they_say() -> None:
    entries = list_models([SHIPPED])
    assert {(e.symbol, e.timeframe, e.kind) for e in entries} >= {
        ("BTCUSDT", "1h", "basic"),
        ("ETHUSDT", "1h", "basic"),
    }
    for entry in entries:
        verify_model(entry)
        assert entry.training_end_ms <= parse_time_ms("2024-07-01", "test")
        assert entry.validation_end_ms <= parse_time_ms("2025-01-01", "test")
        assert entry.file.stat().st_size < 10_000


def test_a_model_has_what_a_report_needs() -> None:
    entry = shipped()
    model = load_model(entry, None)
    assert model.id == f"BTCUSDT/basic/{entry.version}@{hashlib.sha256(entry.file.read_bytes()).hexdigest()[:12]}"
    assert model.lookback_bars == LOOKBACK
    assert (model.horizon, model.version) == (entry.metadata["horizon"], entry.version)
    assert model.training_start_ms < model.training_end_ms < model.validation_end_ms


# --- one row and many: the same bits ---


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
def test_a_year_of_real_rows_one_by_one_and_in_batches(symbol: str) -> None:
    candles = real(symbol)
    assert_batches_agree(symbol, compute_features(candles.window(len(candles) - 8760 - LOOKBACK, len(candles))))


def test_a_year_of_simulated_rows_one_by_one_and_in_batches() -> None:
    assert_batches_agree("BTCUSDT", compute_features(simulated(8760 + LOOKBACK, 23)))


def assert_batches_agree(symbol: str, features: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    rows = features[LOOKBACK:]
    inference = Inference(shipped(symbol).file.read_bytes(), symbol)
    whole = inference.run(rows)
    assert len(rows) == 8760
    assert len(np.unique(whole)) > 4000
    for size in (1, 2, 7, 1000):
        parts = [inference.run(rows[a : a + size]) for a in range(0, len(rows), size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes(), f"batches of {size}"


def test_no_batch_has_a_remainder() -> None:
    """What makes one row equal to many on processors whose kernels treat a remainder differently."""

    class Spy:
        heights: ClassVar[list[int]] = []

        def run(self, names: list[str], inputs: dict[str, Any]) -> list[Any]:
            self.heights.append(len(inputs["features"]))
            return [inputs["features"][:, :1]]

    inference = Inference(b"", "spy")
    inference._session = Spy()
    for n in (1, 2, 47, 48, 49, 1000):
        rows = np.arange(n * len(FEATURES), dtype=np.float32).reshape(n, -1)
        assert inference.run(rows).tolist() == rows[:, 0].tolist()
    assert Spy.heights == [48, 48, 48, 48, 96, 1008]


def test_a_window_predicts_what_the_series_predicts() -> None:
    candles = candles_of(CHUNK + 2 * LOOKBACK)
    model = load_model(shipped(), None)
    whole = model.predict(candles)
    first = LOOKBACK - 1  # of the first chunk
    edges = [first, first + 1, first + CHUNK - 1, first + CHUNK, first + CHUNK + 1, len(candles) - 1]
    for t in [*edges, *range(LOOKBACK, len(candles), 37)]:
        alone = model.predict(candles.window(t - LOOKBACK + 1, t + 1))
        assert alone[-1].tobytes() == whole[t].tobytes(), f"candle {t}"
        assert np.isnan(alone[:-1]).all()


def test_what_is_unknown_is_nan_never_a_number() -> None:
    candles = candles_of(900)
    close = candles.close.copy()
    close[400] = np.nan
    candles.unit("volume")
    answer = load_model(shipped(), None).predict(candles.replace(close=close))
    assert np.isnan(answer[: LOOKBACK - 1]).all()
    assert np.isnan(answer[400 : 400 + LOOKBACK]).all()
    known = np.concatenate([answer[LOOKBACK - 1 : 400], answer[400 + LOOKBACK :]])
    assert ((known > 0) & (known < 1)).all()


@pytest.mark.parametrize("factor", [float("nan"), 1e9, -1.0])
def test_an_answer_that_is_no_probability_is_nan(factor: float) -> None:
    inference = Inference(graph(factor=factor), "test")
    rows = np.ones((5, len(FEATURES)), dtype=np.float32)
    assert np.isnan(inference.probabilities(rows)).all()


def test_a_prediction_for_another_series_is_refused() -> None:
    model = load_model(shipped(), None)
    candles = candles_of(300)
    columns = [getattr(candles, name) for name in COLUMNS]
    for symbol, timeframe in (("ETHUSDT", "1h"), ("BTCUSDT", "4h")):
        with pytest.raises(StrategyError, match=f"not for {symbol} {timeframe}"):
            model.predict(Candles(symbol, timeframe, candles.open_time, *columns))


# --- which model answers ---


def test_the_newest_model_trained_before_the_time_answers(root: Path) -> None:
    copy_version(root, only(root).name, "2023-01-01")
    first = only(root).name
    copy_version(root, "2024.01.9", "2024-01-01")
    copy_version(root, "2024.01.10", "2024-01-01")
    assert resolved(root, "2023-06-01") == first
    assert resolved(root, "2024-01-01") == "2024.01.10"
    assert resolved(root, "2020-01-01") == first, "all were trained later: the oldest, whose past is in-sample"
    assert resolved(root, "2020-01-01", version="2024.01.9") == "2024.01.9"


def test_the_first_root_wins(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(root, other)
    assert [e.folder for e in list_models([other, root])] == [only(other)]
    assert resolve_model([root, other, tmp_path / "none"], "BTCUSDT", "1h", "basic", LATE).folder == only(root)


@pytest.mark.parametrize("symbol, timeframe, kind, version", [
    ("SOLUSDT", "1h", "basic", None), ("*", "1h", "basic", None), ("", "1h", "basic", None), ("..", "1h", "basic", None),
    ("BTCUSDT", "4h", "basic", None), ("BTCUSDT", "1h", "deep", None), ("BTCUSDT", "1h", "basic", "1999.01.1"),
])  # fmt: skip
def test_there_is_no_default_model(root: Path, symbol: str, timeframe: str, kind: str, version: str | None) -> None:
    with pytest.raises(StrategyError, match=r"There is no .* model for") as caught:
        resolve_model([root], symbol, timeframe, kind, LATE, version)
    assert "BTCUSDT 1h basic" in caught.value.what, "it names what there is"
    known = next(root.glob("BTCUSDT/basic/*")).name
    assert (f"Leave out --model-version, or use {known}." if version else "atb models train") in caught.value.hint
    assert caught.value.exit_code == 10


def test_no_models_at_all(tmp_path: Path) -> None:
    assert list_models([tmp_path, tmp_path / "none"]) == []
    with pytest.raises(StrategyError, match="none at all"):
        resolve_model([tmp_path], "BTCUSDT", "1h", "basic", 0)


def test_a_broken_model_is_listed_and_harms_no_other_symbol(root: Path) -> None:
    broken = root / "AAAUSDT" / "basic" / "1.0.0"
    broken.mkdir(parents=True)
    problems = {e.symbol: e.problem for e in list_models([root])}
    assert "metadata.json does not exist" in problems["AAAUSDT"]
    assert problems["BTCUSDT"] == ""
    assert resolved(root, "2030-01-01")
    with pytest.raises(StrategyError, match="does not exist"):
        resolve_model([root], "AAAUSDT", "1h", "basic", LATE)


# --- models that are refused ---


def graph(
    width: int = len(FEATURES), outputs: int = 1, input_name: str = "features", factor: float = 0.01, rows: Any = "rows"
) -> bytes:
    """A graph of the right or of a wrong shape: the sum of the features times `factor`."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = onnx.numpy_helper.from_array(np.full((width, outputs), factor, dtype=np.float32), "w")
    node = helper.make_node("MatMul", [input_name, "w"], ["probability_up"])
    ends = [
        [helper.make_tensor_value_info(input_name, kind, [rows, width])],
        [helper.make_tensor_value_info("probability_up", kind, [rows, outputs])],
    ]
    made = helper.make_model(
        helper.make_graph([node], "g", *ends, [weights]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    return bytes(made.SerializeToString())


def put_graph(folder: Path, data: bytes) -> None:
    (folder / "model.onnx").write_bytes(data)
    tamper(folder, lambda m: m.update(model_sha256=hashlib.sha256(data).hexdigest()))


def write_over(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def set_field(**fields: Any) -> Callable[[Path], object]:
    return lambda folder: tamper(folder, lambda m: m.update(fields))


BAD_MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no metadata": (lambda f: (f / "metadata.json").unlink(), "metadata.json does not exist"),
    "no model": (lambda f: (f / "model.onnx").unlink(), "model.onnx does not exist"),
    "metadata cut off": (write_over("metadata.json", b'{"format": 1,'), "metadata.json is not JSON, line 1"),
    "metadata empty": (write_over("metadata.json", b""), "metadata.json is not JSON"),
    "metadata binary": (write_over("metadata.json", b"\xff\xfe\x00\x81"), "metadata.json is not"),
    "metadata nested": (write_over("metadata.json", b"[" * 100_000), "metadata.json is not JSON"),
    "metadata a list": (write_over("metadata.json", b"[1]"), "holds no table"),
    "field missing": (lambda f: tamper(f, lambda m: m.pop("horizon")), "missing: horizon"),
    "field of wrong type": (set_field(horizon="12"), "'horizon' has an unusable value: '12'"),
    "horizon zero": (set_field(horizon=0), "'horizon' must be a number of candles"),
    "newer format": (set_field(format=2), "format 2; this atb reads format 1"),
    "no date": (set_field(training_end="soon"), "'training_end' is not a date"),
    "dates reversed": (set_field(training_end="2026-01-01"), "not in order"),
    "other symbol": (set_field(symbol="ETHUSDT"), "is for symbol ETHUSDT, but lies in the folder of BTCUSDT"),
    "other version": (set_field(version="1.2.3"), "is for version 1.2.3"),
    "other kind": (set_field(kind="deep"), "is for kind deep"),
    "other features": (set_field(features=["a", "b"]), "trained on other features"),
    "other order": (set_field(features=[*FEATURES[1:], FEATURES[0]]), "trained on other features"),
    "other feature version": (set_field(feature_version=99), "trained on other features .version 99"),
    "other lookback": (set_field(lookback_bars=100), "lookback_bars is 100"),
    "other declared input": (set_field(input={"name": "x", "shape": [None, 3]}), "the metadata's input is x"),
    "other declared output": (set_field(output={"name": "y"}), "the metadata's output is y"),
    "other file": (write_over("model.onnx", b"something else"), "its sha256 is"),
    "hash of another": (set_field(model_sha256="0" * 64), "its sha256 is"),
    "not onnx": (lambda f: put_graph(f, b"not a model"), "model.onnx is not a model"),
    "empty onnx": (lambda f: put_graph(f, b""), "model.onnx is not a model"),
    "cut off onnx": (lambda f: put_graph(f, (f / "model.onnx").read_bytes()[:300]), "model.onnx is not a model"),
    "too few inputs": (lambda f: put_graph(f, graph(width=5)), r"its input is features tensor\(float\) \['rows', 5\]"),
    "too many outputs": (lambda f: put_graph(f, graph(outputs=3)), "its output is"),
    "other input name": (lambda f: put_graph(f, graph(input_name="x")), "its input is x"),
    "one row only": (lambda f: put_graph(f, graph(rows=1)), "its input is"),
    "answers nan": (lambda f: put_graph(f, graph(factor=float("nan"))), "not a probability"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_MODELS)
def test_a_bad_model_is_refused_by_name(root: Path, case: str) -> None:
    spoil, message = BAD_MODELS[case]
    spoil(only(root))
    with pytest.raises(StrategyError, match=message) as caught:
        verify_model(list_models([root])[0])
    assert str(only(root)) in caught.value.what, "the message names the file"
    assert caught.value.exit_code == 10


@pytest.mark.parametrize("case", [c for c in BAD_MODELS if c != "answers nan"])
def test_a_bad_model_predicts_nothing(root: Path, case: str) -> None:
    BAD_MODELS[case][0](only(root))
    with pytest.raises(StrategyError):
        load_model(resolve_model([root], "BTCUSDT", "1h", "basic", LATE), None).predict(candles_of(300))


# --- predictions on disk ---


class Counted:
    """Counts how often a model really infers."""

    def __init__(self, model: Model) -> None:
        self.calls, self._run = 0, model._inference.probabilities
        model._inference.probabilities = self  # type: ignore[method-assign]

    def __call__(self, rows: Any) -> Any:
        self.calls += 1
        return self._run(rows)


def loaded(cache: Path | None) -> tuple[Model, Counted]:
    model = load_model(shipped(), cache)
    return model, Counted(model)


def same(a: Floats, b: Floats) -> bool:
    return a.tobytes() == b.tobytes()


def test_a_prediction_is_kept_and_found_again(tmp_path: Path) -> None:
    candles = candles_of(CACHED_FROM)
    fresh = load_model(shipped(), None).predict(candles)
    for expected_calls in (1, 0):
        model, counted = loaded(tmp_path / "new" / "cache")
        assert same(model.predict(candles), fresh)
        assert counted.calls == expected_calls
    assert [p.suffix for p in (tmp_path / "new" / "cache").iterdir()] == [".f32"], "nothing half-written is left"


def test_short_series_are_not_kept(tmp_path: Path) -> None:
    load_model(shipped(), tmp_path).predict(candles_of(CACHED_FROM - 1))
    assert not list(tmp_path.iterdir())


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda d: b"",
    "cut off": lambda d: d[:-100],
    "a bit flipped": lambda d: d[:5000] + bytes([d[5000] ^ 1]) + d[5001:],
    "longer": lambda d: d + b"x",
    "noise": lambda d: os.urandom(len(d)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_prediction_is_ignored_and_replaced(tmp_path: Path, damage: str) -> None:
    candles = candles_of(CACHED_FROM)
    fresh = load_model(shipped(), tmp_path).predict(candles)
    path = next(tmp_path.iterdir())
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[damage](whole))
    model, counted = loaded(tmp_path)
    assert same(model.predict(candles), fresh)
    assert counted.calls == 1
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    candles = candles_of(CACHED_FROM)
    for cache in (tmp_path / "file", tmp_path / "file" / "below"):
        assert np.isfinite(load_model(shipped(), cache).predict(candles)[LOOKBACK:]).all()


def test_the_key_depends_on_everything_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    candles = candles_of(300)
    keys = {prediction_key("a", candles), prediction_key("b", candles), prediction_key("a", candles.window(0, 299))}
    for name in COLUMNS:
        column = getattr(candles, name).copy()
        column[7] = np.nextafter(column[7], np.inf)
        keys.add(prediction_key("a", candles.replace(**{name: column})))
    keys.add(prediction_key("a", candles.replace(open_time=candles.open_time + 3_600_000)))
    monkeypatch.setattr(model_module, "FEATURE_VERSION", 2)
    keys.add(prediction_key("a", candles))
    assert len(keys) == 3 + len(COLUMNS) + 2


def test_old_predictions_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "CACHED_SERIES", 3)
    for seed in range(5):
        load_model(shipped(), tmp_path).predict(candles_of(CACHED_FROM, seed))
    assert len(list(tmp_path.iterdir())) == 3


LAZY = """
import sys, pathlib
from tests.unit.test_model import candles_of, shipped
from atb.strategy.model import CACHED_FROM, load_model
model = load_model(shipped(), pathlib.Path(sys.argv[1]))
assert "onnxruntime" not in sys.modules, "loading"
model.predict(candles_of(CACHED_FROM))
print("onnxruntime" in sys.modules, "sklearn" in sys.modules or "onnx" in sys.modules)
"""


def test_onnxruntime_is_imported_for_an_inference_only(tmp_path: Path) -> None:
    def run() -> str:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "src")])}
        command = [sys.executable, "-c", LAZY, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()

    assert run() == "True False", "the first time"
    assert run() == "False False", "with the prediction on disk"


# --- ml_basic ---


def ml_basic(**params: float) -> Any:
    strategy = load_strategy("ml_basic", find_strategies([], REPO / "strategies")).make(params)
    strategy.model = load_model(shipped(), None)
    return strategy


def test_ml_basic_trades_only_what_pays_the_costs() -> None:
    candles = candles_of(6_000)
    strategy = ml_basic(cost_bps=20, exit_bps=10)
    signals, moves = strategy.signals(candles), strategy.expected_moves(candles)
    known = ~np.isnan(moves)
    assert np.isnan(signals[~known]).all() and (~known).sum() == strategy.lookback_bars - 1
    assert ((signals > 0) == (moves > 0.0020))[known].all()
    assert ((signals < 0) == (moves < -0.0010))[known].all()
    assert (np.abs(signals[known]) <= 1).all()
    assert {np.sign(s) for s in signals[known]} == {-1.0, 0.0, 1.0}
    dearer = ml_basic(cost_bps=80).signals(candles)
    assert (dearer > 0).sum() < (signals > 0).sum()


def test_ml_basic_is_surer_of_larger_moves() -> None:
    strategy = ml_basic(cost_bps=20)
    candles = candles_of(6_000)
    signals, moves = strategy.signals(candles), strategy.expected_moves(candles)
    long = signals > 0
    np.testing.assert_allclose(signals[long], np.minimum(1.0, moves[long] / 0.0040), rtol=1e-12)
    assert signals[long].min() >= 0.5


def test_ml_basic_expects_the_size_of_an_ordinary_move() -> None:
    strategy, candles = ml_basic(), candles_of(500)
    t, horizon = 400, strategy.model.horizon
    returns = np.diff(np.log(candles.close[: t + 1]))
    variance = (np.mean(returns[-horizon:] ** 2) + np.mean(returns[-168:] ** 2)) / 2
    p = strategy.model.predict(candles)[t]
    expected = (2 * p - 1) * np.sqrt(variance * horizon) * np.sqrt(2 / np.pi)
    assert strategy.expected_moves(candles)[t] == pytest.approx(expected, rel=1e-5)


def test_ml_basic_has_a_finite_memory_and_a_policy_that_holds() -> None:
    strategy, candles = ml_basic(), candles_of(2_000)
    whole = strategy.signals(candles)
    for t in range(strategy.lookback_bars - 1, 2_000, 29):
        alone = strategy.signals(candles.window(t - strategy.lookback_bars + 1, t + 1))
        assert alone[-1].tobytes() == whole[t].tobytes()
    policy = make_policy(strategy.policy)
    assert policy.stop_loss > 0
    assert policy.max_hold % strategy.model.horizon == 0


def test_ml_basic_without_a_model_says_so() -> None:
    strategy = load_strategy("ml_basic", find_strategies([], REPO / "strategies")).make({})
    with pytest.raises(StrategyError, match="needs a model"):
        strategy.signals(candles_of(300))


def test_the_newest_is_what_a_backtest_of_today_takes(root: Path) -> None:
    """Two versions trained to one day: the later version, as in resolve_model, whichever is found first."""
    for version in ("2024.01.10", "2024.01.9"):
        copy_version(root, version, "2024-01-01")
    shutil.rmtree(root / "BTCUSDT" / "basic" / shipped().version)
    assert newest(reversed(list_models([root]))).version == resolved(root, "2030-01-01") == "2024.01.10"


def test_a_missing_file_has_a_remedy(root: Path) -> None:
    (only(root) / "model.onnx").unlink()
    with pytest.raises(StrategyError, match="does not exist") as caught:
        load_model(list_models([root])[0], None).check()
    assert "atb models train" in caught.value.hint
