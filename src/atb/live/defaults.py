"""The table [live] of ./atb.toml: what options of `atb live` are where the command line does not say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atb.core.errors import UsageError, nearest
from atb.core.toml_file import read_toml

KINDS: Mapping[str, type] = {
    "provider": str, "timeframe": str, "policy": str, "check_interval": float, "on_halt": str, "stop_limit_offset": float,
    "health_port": int, "health_host": str, "log_dir": str, "close_on_exit": bool, "allow_unprotected": bool,
    "no_stream": bool,
}  # fmt: skip
WORDS = {str: "a text", float: "a number", int: "a whole number", bool: "true or false"}


def read_defaults(path: Path) -> dict[str, Any]:
    """By the option's name with underscores. Empty where there is no such file or no such table."""
    if not path.is_file():
        return {}
    table = read_toml(path).get("live", {})
    if not isinstance(table, dict):
        raise UsageError(f"{path.absolute()}: live must be a table, not {table!r}.", "Begin it with a line [live].")
    return {name: _checked(name, value, path) for name, value in table.items()}


def _checked(name: str, value: Any, path: Path) -> Any:
    kind = KINDS.get(name)
    if kind is None:
        raise UsageError(f"{path.absolute()}: [live] has no {name}.", nearest(name, list(KINDS)))
    fits = type(value) is kind or (kind is float and type(value) is int)
    if not fits:
        raise UsageError(f"{path.absolute()}: {name} in [live] must be {WORDS[kind]}, not {value!r}.")
    return kind(value)
