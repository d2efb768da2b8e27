"""A trained model: from candles to a calibrated probability, the same bits for one row as for a million.

onnxruntime is imported when the first row is inferred, not before: with a stored prediction it is not imported at all.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atb.core.errors import StrategyError
from atb.engine.candles import COLUMNS, Candles, Floats
from atb.strategy.features import CHUNK, FEATURE_VERSION, FEATURES, LOOKBACK, feature_rows
from atb.strategy.model_registry import ModelEntry, read_model

Floats32 = npt.NDArray[np.float32]

INPUT = "features"
OUTPUT = "probability_up"
CACHED_FROM = 2_000  # candles: shorter series are inferred faster than they are looked up
CACHED_SERIES = 64  # the oldest predictions beyond so many are removed
BATCH_STEP = 48  # rows a batch is padded to a multiple of, see `Inference.run`
PROBE_ROWS = 3
SILENT = 4  # onnxruntime's severity 'fatal'


def load_model(entry: ModelEntry, cache: Path | None) -> Model:
    """A model whose file and features have been checked. `cache`: folder for predictions, None for none.

    StrategyError if the folder has a problem, the file is not the one that was trained, or atb has other features now.
    """
    data = read_model(entry)
    if entry.features != FEATURES or entry.feature_version != FEATURE_VERSION:
        raise StrategyError(
            f"{entry.folder}: the model was trained on other features (version {entry.feature_version}, "
            f"{len(entry.features)} of them) than this atb computes (version {FEATURE_VERSION}, {len(FEATURES)}).",
            f"Train it again: atb models train {entry.kind} --symbol {entry.symbol} --data FILE",
        )
    if entry.lookback_bars != LOOKBACK:
        raise StrategyError(
            f"{entry.folder}: lookback_bars is {entry.lookback_bars}, but the features need {LOOKBACK}."
        )
    _check_shapes(entry.metadata, entry.folder)
    return Model(entry, data, cache)


class Model:
    """One model and its dates. `horizon`, `lookback_bars`: candles. Times: ms UTC."""

    def __init__(self, entry: ModelEntry, data: bytes, cache: Path | None) -> None:
        self.entry = entry
        self.id = entry.id
        self.version = entry.version
        self.symbol, self.timeframe = entry.symbol, entry.timeframe
        self.horizon, self.lookback_bars = entry.horizon, entry.lookback_bars
        self.training_start_ms = entry.training_start_ms
        self.training_end_ms = entry.training_end_ms
        self.validation_end_ms = entry.validation_end_ms
        self._inference = Inference(data, str(entry.file))
        self._cache = cache

    def predict(self, candles: Candles) -> Floats:
        """float64[n]: how probable it is that the close is higher `horizon` candles later.

        NaN while warming up, where the features have no answer and where the model gives no number.
        """
        self._check_series(candles)
        if self._cache is None or len(candles) < CACHED_FROM:
            return self._infer(candles).astype(np.float64)
        path = self._cache / f"{prediction_key(self.entry.sha256, candles)}.f32"
        known = load_prediction(path, len(candles))
        if known is None:
            known = self._infer(candles)
            save_prediction(path, known)
        return known.astype(np.float64)

    def check(self) -> None:
        """Load the file into onnxruntime and ask it once; a StrategyError says what is wrong with it."""
        answer = self._inference.run(np.zeros((PROBE_ROWS, len(FEATURES)), dtype=np.float32))
        if not np.isfinite(answer).all():
            raise StrategyError(f"{self.entry.file} answers average features with {answer[0]}, not a probability.")

    def _infer(self, candles: Candles) -> Floats32:
        out = np.full(len(candles), np.nan, dtype=np.float32)
        for start in range(LOOKBACK - 1, len(candles), CHUNK):
            stop = min(len(candles), start + CHUNK)
            out[start:stop] = self._inference.probabilities(feature_rows(candles, start, stop))
        return out

    def _check_series(self, candles: Candles) -> None:
        if (candles.symbol, candles.timeframe) != (self.symbol, self.timeframe):
            raise StrategyError(
                f"The model {self.id} is for {self.symbol} {self.timeframe}, not for {candles.symbol} {candles.timeframe}."
            )


class Inference:
    """An ONNX graph from float32[rows, len(FEATURES)] to float32[rows, 1], on one thread. `name` is for errors."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name = data, name
        self._session: Any = None

    def probabilities(self, rows: Floats32) -> Floats32:
        """float32[rows]; NaN where a feature is not finite or the answer is not in [0, 1]."""
        known = np.isfinite(rows).all(axis=1)
        if known.all():
            return _only_probabilities(self.run(rows))
        out = np.full(len(rows), np.nan, dtype=np.float32)
        if known.any():
            out[known] = _only_probabilities(self.run(rows[known]))
        return out

    def run(self, rows: Floats32) -> Floats32:
        """The graph's bare answers, float32[rows].

        Batches are padded to a multiple of BATCH_STEP rows. Matrix kernels take rows in blocks (3, 4, 6 or 12) and vector
        kernels in lanes (4, 8 or 16), and may compute the remainder, or a single row, another way. Without a remainder
        every row is computed alike on any processor, whatever batch it comes in.
        """
        session = self._session or self._open()
        n = len(rows)
        padded = np.zeros((math.ceil(n / BATCH_STEP) * BATCH_STEP, rows.shape[1]), dtype=np.float32)
        padded[:n] = rows
        try:
            answer = session.run([OUTPUT], {INPUT: padded})[0]
        except Exception as error:  # noqa: BLE001  onnxruntime raises classes of its own, one for each status code
            raise StrategyError(f"{self.name} failed: {_first_line(error)}") from None
        if answer.shape != (len(padded), 1):
            raise StrategyError(f"{self.name} gives the shape {answer.shape} for {len(padded)} rows, not one each.")
        return np.asarray(answer[:n, 0], dtype=np.float32)

    def _open(self) -> Any:
        # Newer builds report their use to their maker, and keep an identity for that under HOME. Not from here: a host
        # that trades talks to its exchange only. It must be said before the import.
        os.putenv("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime as ort

        ort.set_default_logger_severity(SILENT)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = SILENT
        try:
            session = ort.InferenceSession(self.data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001  see above
            raise StrategyError(f"{self.name} is not a model: {_first_line(error)}", "Train it again.") from None
        _check_node("input", session.get_inputs(), INPUT, len(FEATURES), self.name)
        _check_node("output", session.get_outputs(), OUTPUT, 1, self.name)
        self._session = session
        return session


def _check_node(what: str, nodes: list[Any], name: str, width: int, file: str) -> None:
    """One float32 matrix of the right name and width, with any number of rows."""
    have = ", ".join(f"{node.name} {node.type} {node.shape}" for node in nodes)
    right = len(nodes) == 1 and nodes[0].name == name and nodes[0].type == "tensor(float)"
    if not right or len(nodes[0].shape) != 2 or nodes[0].shape[1] != width or isinstance(nodes[0].shape[0], int):
        raise StrategyError(f"{file}: its {what} is {have}; atb needs {name} tensor(float) [rows, {width}].")


def _check_shapes(metadata: Mapping[str, Any], folder: Path) -> None:
    for field, name, width in (("input", INPUT, len(FEATURES)), ("output", OUTPUT, 1)):
        declared = metadata[field]
        if declared.get("name") != name or declared.get("shape") != [None, width]:
            raise StrategyError(
                f"{folder}: the metadata's {field} is {declared.get('name')} {declared.get('shape')}; "
                f"atb needs {name} [null, {width}]."
            )


def _only_probabilities(values: Floats32) -> Floats32:
    good = (values >= 0) & (values <= 1)
    return values if good.all() else np.where(good, values, np.float32(np.nan))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]


def prediction_key(model_sha256: str, candles: Candles) -> str:
    """What a prediction depends on, as a name: the model, the features, the candles, and who computes them."""
    facts = (model_sha256, FEATURE_VERSION, candles.symbol, candles.timeframe, len(candles), candles.unit("volume"))
    digest = hashlib.blake2b(repr((facts, np.__version__)).encode(), digest_size=20)
    digest.update(_runtime_mark())
    for name in ("open_time", *COLUMNS):
        digest.update(getattr(candles, name).data)
    return digest.hexdigest()


def _runtime_mark() -> bytes:
    """Something that changes with onnxruntime's version, without importing it: its __init__.py states it."""
    found = importlib.util.find_spec("onnxruntime")
    try:
        return Path(found.origin).read_bytes() if found is not None and found.origin else b""
    except OSError:
        return b""


def load_prediction(path: Path, n: int) -> Floats32 | None:
    """A stored prediction of n candles, or None where there is none or the file is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    body, mark = data[: 4 * n], data[4 * n :]
    if len(body) != 4 * n or mark != _mark_of(body):
        return None
    return np.frombuffer(body, dtype="<f4").astype(np.float32)


def save_prediction(path: Path, values: Floats32) -> None:
    """Store a prediction, whole or not at all. A folder that cannot be written costs time, nothing else."""
    body = values.astype("<f4").tobytes()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(body + _mark_of(body))
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _forget_oldest(path.parent)
    except OSError:
        return


def _mark_of(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()


def _forget_oldest(folder: Path) -> None:
    files = sorted(folder.glob("*.f32"), key=lambda path: path.stat().st_mtime)
    for path in files[:-CACHED_SERIES]:
        path.unlink(missing_ok=True)
