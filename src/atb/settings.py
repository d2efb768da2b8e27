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
    return Path(value).expanduser().absolute() if value else default


def _data_home(env: Mapping[str, str]) -> Path:
    """The platform's folder for a program's data (XDG, macOS Application Support, Windows local app data)."""
    if sys.platform == "darwin":
        return Path("~/Library/Application Support/atb").expanduser()
    if sys.platform == "win32":
        return Path(env.get("LOCALAPPDATA", "~")).expanduser() / "atb"
    return Path(env.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "atb"


def _cache_home(env: Mapping[str, str]) -> Path:
    if sys.platform == "darwin":
        return Path("~/Library/Caches/atb").expanduser()
    if sys.platform == "win32":
        return Path(env.get("LOCALAPPDATA", "~")).expanduser() / "atb" / "cache"
    return Path(env.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "atb"


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
            if not value.startswith(("http://", "https://")):
                raise UsageError(f"{name}='{value}' is not a URL.", "Write the root, such as http://127.0.0.1:9000")
            urls[venue] = value
    return urls


def _read_dotenv(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    from dotenv import dotenv_values

    return {name: value for name, value in dotenv_values(path).items() if value is not None}
