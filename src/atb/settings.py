"""Where things are and what the environment says: the only reader of environment variables.

The real environment comes before a `.env` file in the working directory. Nothing here depends on the working directory
otherwise, except `./strategies` and `./models`, which belong to the user.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from atb.core.errors import UsageError, nearest

if TYPE_CHECKING:
    from dotenv.parser import Binding

PACKAGE = Path(__file__).parent
NAMES = ("ATB_HOME", "ATB_CACHE", "ATB_BINANCE_API_URL", "ATB_COINBASE_API_URL")  # that begin with ATB_


class Settings(NamedTuple):
    """home: candles and market rules. cache: what can be made again. urls: API roots by venue where not the real ones."""

    home: Path
    cache: Path
    strategy_dirs: tuple[Path, ...]
    model_dirs: tuple[Path, ...]
    shipped_strategies: Path
    shipped_models: Path
    urls: Mapping[str, str]
    migrations: Path = PACKAGE
    database_url: str | None = None  # with its password: never printed
    notes: tuple[str, ...] = ()  # what is odd about ./.env

    @property
    def candles(self) -> Path:
        return self.home / "candles"

    @property
    def market_rules(self) -> Path:
        return self.home / "market_rules.json"


def load_settings() -> Settings:
    """Settings from the environment and ./.env."""
    own, notes = _read_dotenv(Path(".env"))
    env = {**own, **os.environ}
    return Settings(
        home=_folder(env, "ATB_HOME", _data_home(env)),
        cache=_folder(env, "ATB_CACHE", _cache_home(env)),
        strategy_dirs=(Path("strategies"),),
        model_dirs=(Path("models"),),
        shipped_strategies=_shipped("strategies"),
        shipped_models=_shipped("models"),
        urls=_urls(env),
        migrations=_shipped("migrations"),
        database_url=env.get("DATABASE_URL") or None,
        notes=tuple(notes),
    )


def _folder(env: Mapping[str, str], name: str, default: Path) -> Path:
    value = env.get(name)
    return _expanded(Path(value), name).absolute() if value else _expanded(default, name)


def _expanded(path: Path, name: str) -> Path:
    try:
        str(path).encode()  # Arrow takes no other name
        return path.expanduser()
    except UnicodeEncodeError:
        hint = f"Set a locale in UTF-8, as in LC_ALL=C.UTF-8, or set {name} to another folder."
        raise UsageError(f"The name of the folder {path} has letters that this locale lacks.", hint) from None
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


def _read_dotenv(path: Path) -> tuple[dict[str, str], list[str]]:
    """The values of a .env file, and a note for each line that gives none or a name that atb does not know."""
    if not path.is_file():
        return {}, []
    import io

    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    try:
        with path.open(encoding="utf-8") as file:
            bindings = list(parse_stream(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The settings file {path.absolute()} cannot be read: {error}.") from None
    good = "".join(b.original.string for b in bindings if not b.error)
    values = dotenv_values(stream=io.StringIO(good))  # with ${NAME} filled in
    notes = [f"{path.absolute()}, line {line}: {what}" for line, what in map(_oddity, bindings) if what]
    return {name: value for name, value in values.items() if value is not None}, notes


def _oddity(binding: Binding) -> tuple[int, str]:
    """The line of an entry of .env and what is wrong with it; never its value, which may be a secret."""
    text, name = binding.original.string, binding.key
    before = text[: len(text) - len(text.lstrip())]  # empty lines above belong to the entry
    line = binding.original.line + before.count("\n")
    if binding.error or (name and binding.value is None):
        return line, "this is not NAME=VALUE and is left out."
    if name and name.startswith("ATB_") and name not in NAMES:
        return line, f"atb knows no {name}. {nearest(name, list(NAMES))}"
    return line, ""


def colour_is_wanted() -> bool:
    """Whether messages may be coloured: https://no-color.org, and a terminal that can."""
    return not os.environ.get("NO_COLOR") and terminal_moves()


def terminal_moves() -> bool:
    """Whether the terminal obeys escape codes."""
    return os.environ.get("TERM") != "dumb"


def without_postgres() -> dict[str, str]:
    """The environment for Postgres' own programs, without variables that would turn them to another database."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
