"""Where things are and what the environment says: the only reader of environment variables.

The real environment comes before a `.env` file in the working directory. Nothing here depends on the working directory
otherwise, except `./strategies` and `./models`, which belong to the user.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from atb.core.errors import UsageError

PACKAGE = Path(__file__).parent


class Settings(NamedTuple):
    """home: candles and market rules. cache: what can be made again. urls: API roots by venue where not the real ones."""

    home: Path
    cache: Path
    strategy_dirs: tuple[Path, ...]
    model_dirs: tuple[Path, ...]
    shipped_strategies: Path
    shipped_models: Path
    urls: Mapping[str, str]

    @property
    def candles(self) -> Path:
        return self.home / "candles"

    @property
    def market_rules(self) -> Path:
        return self.home / "market_rules.json"


def load_settings() -> Settings:
    """Settings from the environment and ./.env."""
    env = {**_read_dotenv(Path(".env")), **os.environ}
    return Settings(
        home=_folder(env, "ATB_HOME", _data_home(env)),
        cache=_folder(env, "ATB_CACHE", _cache_home(env)),
        strategy_dirs=(Path("strategies"),),
        model_dirs=(Path("models"),),
        shipped_strategies=_shipped("strategies"),
        shipped_models=_shipped("models"),
        urls=_urls(env),
    )


def _folder(env: Mapping[str, str], name: str, default: Path) -> Path:
    value = env.get(name)
    return _expanded(Path(value), name).absolute() if value else _expanded(default, name)


def _expanded(path: Path, name: str) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # no home folder, or none of that user
        raise UsageError(f"{path} names no folder.", f"Set {name} to one.") from None


def _data_home(env: Mapping[str, str]) -> Path:
    """The platform's folder for a program's data (XDG, macOS Application Support, Windows local app data)."""
    if sys.platform == "darwin":
        return Path("~/Library/Application Support/atb")
    if sys.platform == "win32":
        return Path(env.get("LOCALAPPDATA", "~")) / "atb"
    return Path(env.get("XDG_DATA_HOME") or "~/.local/share") / "atb"


def _cache_home(env: Mapping[str, str]) -> Path:
    if sys.platform == "darwin":
        return Path("~/Library/Caches/atb")
    if sys.platform == "win32":
        return Path(env.get("LOCALAPPDATA", "~")) / "atb" / "cache"
    return Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "atb"


def _shipped(name: str) -> Path:
    """What came with atb: inside the wheel, or at the top of a source checkout."""
    inside = PACKAGE / "shipped" / name
    return inside if inside.is_dir() else PACKAGE.parents[1] / name


def _urls(env: Mapping[str, str]) -> dict[str, str]:
    urls = {}
    for venue in ("binance", "coinbase"):
        name = f"ATB_{venue.upper()}_API_URL"
        value = env.get(name, "").rstrip("/")
        if value:
            scheme, _, host = value.partition("://")
            if scheme not in ("http", "https") or not host:
                raise UsageError(f"{name}='{value}' is not a URL.", "Write the root, such as http://127.0.0.1:9000")
            urls[venue] = value
    return urls


def _read_dotenv(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    from dotenv import dotenv_values

    try:
        return {name: value for name, value in dotenv_values(path).items() if value is not None}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The settings file {path.absolute()} cannot be read: {error}.") from None
