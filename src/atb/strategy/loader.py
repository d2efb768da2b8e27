"""Find and load strategies: the user's ./strategies first, then the shipped ones. Errors name file and line."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import itertools
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from atb.core.errors import AtbError, StrategyError, UsageError, nearest
from atb.strategy.contract import Strategy, check_declarations
from atb.strategy.folders import listed

_loads = itertools.count(2)  # each load of a file is a module of its own, or its classes could not be pickled


class StrategyFile(NamedTuple):
    """A strategy's name (that of its file), where it is, and whether it came with atb, or hides one that did."""

    name: str
    path: Path
    shipped: bool
    shadows: bool = False


class LoadedStrategy(NamedTuple):
    """The class in a strategy file, and the sha256 of the file."""

    file: StrategyFile
    cls: type[Strategy]
    sha256: str

    def make(self, params: Mapping[str, float]) -> Strategy:
        try:
            with aside():
                return self.cls(**params)
        except AtbError:
            raise
        except (Exception, SystemExit) as error:
            raise error_in(self.file.path, error, "cannot be set up") from error


def find_strategies(user_dirs: Sequence[Path], shipped_dir: Path) -> dict[str, StrategyFile]:
    """Every strategy by name; the user's own come before shipped ones of the same name."""
    found: dict[str, StrategyFile] = {}
    for folder, shipped in [*((d, False) for d in user_dirs), (shipped_dir, True)]:
        if not shipped and folder.resolve() == shipped_dir.resolve():
            continue
        for path in listed(folder):
            if path.suffix != ".py" or path.name.startswith("_") or path.is_dir():
                continue
            first = found.setdefault(path.stem, StrategyFile(path.stem, path, shipped))
            if shipped and not first.shipped:
                found[path.stem] = first._replace(shadows=True)
    return found


def load_strategy(name: str, files: Mapping[str, StrategyFile]) -> LoadedStrategy:
    """Import a strategy's file and take the one Strategy class in it."""
    file = files.get(name)
    if file is None:
        raise StrategyError(
            f"Unknown strategy '{name}'.", f"{nearest(name, sorted(files))} See them with: atb strategies list"
        )
    try:
        source = file.path.read_bytes()
    except OSError as error:
        raise StrategyError(f"{file.path} cannot be read: {error.strerror}.") from None
    module = _import(file.path, source)
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Strategy) and value.__module__ == module.__name__
    ]
    if len(own) != 1:
        names = ", ".join(c.__name__ for c in own) or "none"
        raise StrategyError(
            f"{file.path} must define exactly one class derived from atb.strategy.Strategy (found: {names}).",
            "A working example: atb strategies new my_idea",
        )
    cls = own[0]
    try:
        check_declarations(cls)
    except UsageError as error:
        raise StrategyError(f"{file.path}: {error.what}", error.hint) from None
    cls.name = name
    return LoadedStrategy(file, cls, hashlib.sha256(source).hexdigest())


def load_again(cls: type[Strategy], path: Path) -> type[Strategy]:
    """The same class from a fresh run of its file: nothing that the first one keeps in its module is there.

    Itself if it is no class of that file's own (one that a test made inside a function).
    """
    try:
        source = path.read_bytes()
    except OSError:
        return cls
    again = getattr(_import(path, source, f"_{next(_loads)}"), cls.__name__, None)
    if not isinstance(again, type) or not issubclass(again, Strategy) or cls.__qualname__ != cls.__name__:
        return cls
    again.name = cls.name
    return again


def _import(path: Path, source: bytes, suffix: str = "") -> ModuleType:
    module_name = f"atb_strategy_{path.stem}_{hashlib.sha256(bytes(path.resolve())).hexdigest()[:8]}{suffix}"
    spec = importlib.util.spec_from_loader(module_name, loader=None, origin=str(path))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    sys.modules[module_name] = module  # dataclasses and pickling look a class's module up here
    try:
        with aside():
            exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise error_in(path, error, "cannot be loaded") from error
    return module


def aside() -> contextlib.AbstractContextManager[object]:
    """What a strategy prints goes to stderr: stdout is for our data."""
    return contextlib.redirect_stdout(sys.stderr)


def error_in(path: Path, error: BaseException, what: str) -> StrategyError:
    """A StrategyError with the line of `path` that raised `error`."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        text = (error.text or "").strip()
        return StrategyError(f"{path}, line {error.lineno}: {error.msg}: {text}", "Correct the file and run again.")
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    place = f"{path}, line {lines[-1]}" if lines else str(path)
    return StrategyError(f"{place}: {type(error).__name__}: {error}", f"The strategy {what}.")
