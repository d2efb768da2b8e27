"""Which models there are and which one answers: models/SYMBOL/KIND/VERSION/{model.onnx,metadata.json}.

There is no default symbol and no nearest match: a model is for one symbol, timeframe and kind, or it is refused. Every
fault of a model's files is a StrategyError that names the file. docs/models.md describes the metadata.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from atb.core.errors import StrategyError
from atb.core.timeframe import iso_date
from atb.strategy.folders import listed

MODEL_FILE = "model.onnx"
METADATA_FILE = "metadata.json"
FORMAT = 1  # of metadata.json
LARGEST_MODEL_BYTES = 256 * 2**20
RESTORE = "Restore the folder, or train again: atb models train"

_TEXT, _WHOLE, _LIST, _TABLE = (str,), (int,), (list,), (dict,)
REQUIRED: Mapping[str, tuple[type, ...]] = {
    "format": _WHOLE,
    "kind": _TEXT,
    "symbol": _TEXT,
    "timeframe": _TEXT,
    "version": _TEXT,
    "horizon": _WHOLE,
    "features": _LIST,
    "feature_version": _WHOLE,
    "lookback_bars": _WHOLE,
    "input": _TABLE,
    "output": _TABLE,
    "training_start": _TEXT,
    "training_end": _TEXT,
    "validation_end": _TEXT,
    "model_sha256": _TEXT,
}


class ModelEntry(NamedTuple):
    """A model folder and what its metadata.json says. Times in ms UTC, horizon and lookback in candles.

    `problem` is empty, or says why the folder cannot be used; then the numbers mean nothing.
    """

    folder: Path
    symbol: str
    timeframe: str
    kind: str
    version: str
    training_start_ms: int = 0
    training_end_ms: int = 0
    validation_end_ms: int = 0
    horizon: int = 0
    lookback_bars: int = 0
    features: tuple[str, ...] = ()
    feature_version: int = 0
    sha256: str = ""
    metadata: Mapping[str, Any] = {}
    problem: str = ""

    @property
    def file(self) -> Path:
        return self.folder / MODEL_FILE

    @property
    def id(self) -> str:
        """Names the model in reports: `BTCUSDT/basic/2024.07.1@0123456789ab`."""
        return f"{self.symbol}/{self.kind}/{self.version}@{self.sha256[:12]}"


def list_models(roots: Sequence[Path]) -> list[ModelEntry]:
    """Every model under the roots, by symbol, kind and version; the first root wins where two have the same.

    A folder that cannot be used is listed too, with its `problem`.
    """
    return _scan(roots, None, None)


def resolve_model(
    roots: Sequence[Path], symbol: str, timeframe: str, kind: str, as_of_ms: int, version: str | None = None
) -> ModelEntry:
    """The model that may answer for candles from `as_of_ms` on: the newest whose training had ended by then.

    If all were trained later, the oldest answers, and what lies before its training end is in-sample. `version` picks
    one by name instead. StrategyError if there is none, or if one in question is broken (it might be the right one).
    """
    found = _scan(roots, symbol, kind)
    named = [entry for entry in found if version in (None, entry.version)]
    for entry in named:
        if entry.problem:
            raise StrategyError(entry.problem, "Restore the folder, remove it, or train again: atb models train")
    fitting = [entry for entry in named if entry.timeframe == timeframe]
    if not fitting:
        raise _nothing_fits(roots, symbol, timeframe, kind, version)
    before = [entry for entry in fitting if entry.training_end_ms <= as_of_ms]
    return newest(before) if before else min(fitting, key=_age)


def verify_model(entry: ModelEntry) -> None:
    """Check everything: metadata, sha256, that the file is a model, its names and shapes, and one answer.

    Raises a StrategyError for the first fault found. Imports onnxruntime.
    """
    from atb.strategy.model import load_model

    load_model(entry, None).check()


def read_entry(folder: Path) -> ModelEntry:
    """The entry of a folder .../SYMBOL/KIND/VERSION; what is wrong with it goes into `problem`."""
    symbol, kind, version = folder.parts[-3:]
    blank = ModelEntry(folder, symbol, "", kind, version)
    try:
        metadata = load_metadata(folder / METADATA_FILE)
        _check_place(metadata, blank)
        return _entry(folder, metadata)
    except StrategyError as error:
        return blank._replace(problem=error.what)


def read_model(entry: ModelEntry) -> bytes:
    """model.onnx, compared with the sha256 in the metadata."""
    if entry.problem:
        raise StrategyError(entry.problem)
    data = _read(entry.file)
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.sha256:
        raise StrategyError(
            f"{entry.file} is not the file that was trained: its sha256 is {digest[:12]}..., "
            f"{METADATA_FILE} says {entry.sha256[:12]}....",
            RESTORE,
        )
    return data


def load_metadata(path: Path) -> dict[str, Any]:
    """metadata.json with all it must hold, of the right types."""
    try:
        metadata = json.loads(_read(path))
    except UnicodeDecodeError:
        raise StrategyError(f"{path} is not text.") from None
    except (json.JSONDecodeError, RecursionError) as error:
        place = f", line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else ""
        raise StrategyError(f"{path} is not JSON{place}.") from None
    if not isinstance(metadata, dict):
        raise StrategyError(f"{path} holds no table of fields.")
    _check_fields(metadata, path)
    return metadata


def _check_fields(metadata: Mapping[str, Any], path: Path) -> None:
    missing = [name for name in REQUIRED if name not in metadata]
    if missing:
        raise StrategyError(f"{path}: missing: {', '.join(missing)}.")
    for name, kinds in REQUIRED.items():
        value = metadata[name]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise StrategyError(f"{path}: '{name}' has an unusable value: {value!r:.60}.")
    if metadata["format"] != FORMAT:
        raise StrategyError(f"{path}: format {metadata['format']}; this atb reads format {FORMAT}.")
    for name in ("horizon", "lookback_bars"):
        if not 0 < metadata[name] < 10**6:
            raise StrategyError(f"{path}: '{name}' must be a number of candles, not {metadata[name]}.")


def _check_place(metadata: Mapping[str, Any], place: ModelEntry) -> None:
    """A model moved to another symbol's folder must not answer for that symbol."""
    for name in ("symbol", "kind", "version"):
        if metadata[name] != getattr(place, name):
            raise StrategyError(
                f"{place.folder / METADATA_FILE}: the model is for {name} {metadata[name]}, "
                f"but lies in the folder of {getattr(place, name)}."
            )


def _entry(folder: Path, metadata: Mapping[str, Any]) -> ModelEntry:
    path = folder / METADATA_FILE
    start, end, validated = (_time_ms(metadata, n, path) for n in ("training_start", "training_end", "validation_end"))
    if not start < end <= validated:
        raise StrategyError(f"{path}: training_start, training_end and validation_end are not in order.")
    return ModelEntry(
        folder=folder,
        symbol=metadata["symbol"],
        timeframe=metadata["timeframe"],
        kind=metadata["kind"],
        version=metadata["version"],
        horizon=metadata["horizon"],
        lookback_bars=metadata["lookback_bars"],
        features=tuple(map(str, metadata["features"])),
        feature_version=metadata["feature_version"],
        sha256=metadata["model_sha256"],
        metadata=metadata,
        training_start_ms=start,
        training_end_ms=end,
        validation_end_ms=validated,
    )


def _time_ms(metadata: Mapping[str, Any], name: str, path: Path) -> int:
    try:
        moment = dt.datetime.fromisoformat(metadata[name])
    except ValueError:
        raise StrategyError(f"{path}: '{name}' is not a date: {metadata[name]!r:.40}.") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return round(moment.timestamp() * 1000)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_MODEL_BYTES:
            raise StrategyError(f"{path} is larger than {LARGEST_MODEL_BYTES // 2**20} MB: not a model of ours.")
        return path.read_bytes()
    except FileNotFoundError:
        raise StrategyError(f"{path} does not exist.", RESTORE) from None
    except OSError as error:
        raise StrategyError(f"{path} cannot be read: {error.strerror}.", f"Who may: ls -ld '{path}'") from None


def _scan(roots: Sequence[Path], symbol: str | None, kind: str | None) -> list[ModelEntry]:
    """The models of one symbol and kind, or of all; hidden folders are drafts."""
    found: dict[tuple[str, str, str], ModelEntry] = {}
    for root in roots:
        for of_symbol in _folders(root, symbol):
            for of_kind in _folders(of_symbol, kind):
                for folder in _folders(of_kind, None):
                    entry = read_entry(folder)
                    found.setdefault((entry.symbol, entry.kind, entry.version), entry)
    return sorted(found.values(), key=lambda e: (e.symbol, e.kind, _version_key(e.version)))


def _folders(folder: Path, name: str | None) -> list[Path]:
    return [
        path for path in listed(folder) if name in (None, path.name) and not path.name.startswith(".") and path.is_dir()
    ]


def newest(entries: Iterable[ModelEntry]) -> ModelEntry:
    """The one trained up to the latest date; of several, the latest version. What a backtest of today takes."""
    return max(entries, key=_age)


def _age(entry: ModelEntry) -> tuple[int, list[tuple[int, str]]]:
    return entry.training_end_ms, _version_key(entry.version)


def _version_key(version: str) -> list[tuple[int, str]]:
    """2024.07.10 comes after 2024.07.9."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in version.split(".")]


def _nothing_fits(roots: Iterable[Path], symbol: str, timeframe: str, kind: str, version: str | None) -> StrategyError:
    there = [e for e in _scan(list(roots), None, None) if not e.problem]
    names = [f"{e.symbol} {e.timeframe} {e.kind} {e.version} (trained to {iso_date(e.training_end_ms)})" for e in there]
    wanted = f"{kind} model for {symbol} {timeframe}" + (f" in version {version}" if version else "")
    fitting = [e.version for e in there if version and (e.symbol, e.timeframe, e.kind) == (symbol, timeframe, kind)]
    train = f"Train one: atb models train {kind} --symbol {symbol} --data FILE"
    return StrategyError(
        f"There is no {wanted}. There is: {'; '.join(names) or 'none at all'}.",
        f"Leave out --model-version, or use {' or '.join(fitting)}." if fitting else train,
    )
