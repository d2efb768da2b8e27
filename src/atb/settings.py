"""Where things are and what the environment says: the only reader of environment variables.

The real environment comes before a `.env` file in the working directory. Nothing here depends on the working directory
otherwise, except `./strategies` and `./models`, which belong to the user.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from atb.core.errors import UsageError, nearest
from atb.core.keys import ApiKey
from atb.core.toml_file import read_toml
from atb.core.variables import is_on, root, seconds, size, switch

if TYPE_CHECKING:
    from dotenv.parser import Binding

PACKAGE = Path(__file__).parent
NAMES = (  # that begin with ATB_
    "ATB_HOME",
    "ATB_CACHE",
    "ATB_LOG_DIR",
    "ATB_BINANCE_API_URL",
    "ATB_BINANCE_WS_URL",
    "ATB_COINBASE_API_URL",
    "ATB_TESTNET",
    "ATB_REQUEST_TIMEOUT_S",
    "ATB_RULES_LIFETIME_S",
    "ATB_CANDLES",
    "ATB_CANDLES_LIMIT",
    "ATB_SIDES",
    "ATB_BINANCEUSDM_API_URL",
    "ATB_FEAR_GREED_URL",
)
LATE = (  # read when they are asked for: what a command does not need cannot keep it from its work
    "ATB_CACHE", "ATB_LOG_DIR", "ATB_BINANCE_API_URL", "ATB_COINBASE_API_URL", "ATB_BINANCE_WS_URL", "ATB_TESTNET",
    "ATB_REQUEST_TIMEOUT_S", "ATB_RULES_LIFETIME_S", "ATB_CANDLES", "ATB_CANDLES_LIMIT", "ATB_SIDES",
    "ATB_BINANCEUSDM_API_URL", "ATB_FEAR_GREED_URL", "ENABLE_TRADING", "XDG_CACHE_HOME", "LOCALAPPDATA",
)  # fmt: skip
VENUES = ("binance", "coinbase")
# Where test money is traded; Coinbase has nothing but fixed answers.
TESTNETS = {"binance": "https://testnet.binance.vision"}
STREAMS = {"binance": "wss://stream.binance.com:9443"}  # Coinbase tells trades, but no candles
REAL_HOSTS = ("binance.com", "coinbase.com")
REQUEST_TIMEOUTS_S = (0.5, 120.0)
RULES_LIFETIMES_S = (0.0, 30 * 86_400.0)


class Settings(NamedTuple):
    """home: candles and market rules. given: what the environment says of what is read late (LATE).

    Candles come from `url`, or the real exchange, also where orders go to a test network: its history is a made-up one.
    """

    home: Path
    strategy_dirs: tuple[Path, ...]
    model_dirs: tuple[Path, ...]
    shipped_strategies: Path
    shipped_models: Path
    migrations: Path = PACKAGE
    database_url: str | None = None  # with its password: never printed
    notes: tuple[str, ...] = ()  # what is odd about ./.env
    keys: Mapping[str, ApiKey] = MappingProxyType({})  # by venue; only whole ones
    given: Mapping[str, str] = MappingProxyType({})

    @property
    def cache(self) -> Path:
        """What can be made again."""
        return _folder(self.given, "ATB_CACHE", _cache_home(self.given))

    @property
    def testnet(self) -> bool:
        """Whether orders go to the venue's test network."""
        return switch(self.given, "ATB_TESTNET")

    @property
    def enable_trading(self) -> bool:
        """New entries with real money."""
        return switch(self.given, "ENABLE_TRADING")

    @property
    def request_timeout_s(self) -> float | None:
        """How long a request to an exchange may take; None: as long as its purpose allows."""
        return seconds(self.given, "ATB_REQUEST_TIMEOUT_S", *REQUEST_TIMEOUTS_S)

    @property
    def rules_lifetime_s(self) -> float:
        """How long a symbol's rules and status that an exchange told are taken for true by whoever trades."""
        told = seconds(self.given, "ATB_RULES_LIFETIME_S", *RULES_LIFETIMES_S)
        return 86_400.0 if told is None else told

    @property
    def candles(self) -> Path | str:
        """Where candles are stored: a folder, or a URL that fsspec knows."""
        text = self.given.get("ATB_CANDLES", "")
        return text if "://" in text else _folder(self.given, "ATB_CANDLES", self.home / "candles")

    @property
    def sides(self) -> Path | str:
        """Where side series are stored: a folder, or a URL that fsspec knows."""
        text = self.given.get("ATB_SIDES", "")
        return text if "://" in text else _folder(self.given, "ATB_SIDES", self.home / "sides")

    @property
    def candles_limit_bytes(self) -> int | None:
        """How large the store may become; None: as large as it will."""
        return size(self.given, "ATB_CANDLES_LIMIT")

    @property
    def market_rules(self) -> Path:
        return self.home / "market_rules.json"

    @property
    def logs(self) -> Path:
        return _folder(self.given, "ATB_LOG_DIR", self.home / "logs")

    @property
    def rates(self) -> Path:
        return self.home / "rates"

    def url(self, venue: str) -> str | None:
        """The API root that candles and market rules come from; None: the real exchange."""
        return root(self.given, f"ATB_{venue.upper()}_API_URL", ("http", "https"))

    def side_url(self, venue: str) -> str | None:
        """The API root that a side series of a venue comes from; None: the real one."""
        if venue == "alternative.me":
            return root(self.given, "ATB_FEAR_GREED_URL", ("http", "https"))
        return self.url(venue)

    def order_url(self, venue: str) -> str | None:
        """The API root that orders go to; None: the real exchange."""
        url = self.url(venue)
        if url and self.testnet and any(host in url for host in REAL_HOSTS):
            name = f"ATB_{venue.upper()}_API_URL"
            raise UsageError(f"ATB_TESTNET is on, and {name} names the real exchange.", "Unset one of them.")
        return url or self._test_root(venue)

    def stream_url(self, venue: str) -> str | None:
        """The root of the stream of the same candles that `url` gives; None where there is none, or its place is not said."""
        said = root(self.given, f"ATB_{venue.upper()}_WS_URL", ("ws", "wss"))
        return said or (None if self.url(venue) else STREAMS.get(venue))

    def environment(self, venue: str) -> str:
        """`testnet` where orders go to a test network, by the switch or the URL. All else may be real money: `real`."""
        url = self.order_url(venue)
        test_host = TESTNETS.get(venue, "//").rpartition("/")[2]
        return "testnet" if url and (self.testnet or (test_host and test_host in url)) else "real"

    def check_venue(self, venue: str, *others: str) -> None:
        """A UsageError where it is none. others: what could be meant as well."""
        if venue not in VENUES:
            raise UsageError(f"Unknown provider '{venue}'.", nearest(venue, [*VENUES, *others]))

    def key(self, venue: str) -> ApiKey:
        """The key for a venue; a UsageError where there is none."""
        if venue in self.keys:
            return self.keys[venue]
        name = venue.upper()
        both = f"{name}_API_KEY and {name}_API_SECRET"
        raise UsageError(f"There is no key for {venue}.", f"Set both {both}, in the environment or in ./.env.")

    def _test_root(self, venue: str) -> str | None:
        if not self.testnet:
            return None
        if venue not in TESTNETS:
            raise UsageError(f"{venue.title()} has no test network.", "Unset ATB_TESTNET, or trade on paper.")
        return TESTNETS[venue]


def load_settings(*, forgiving: bool = False) -> Settings:
    """Settings from the environment and ./.env. forgiving: what cannot be read is left out and noted, for what must go on."""
    own, notes = _read_dotenv(Path(".env"), forgiving)
    env = {**own, **os.environ}
    if forgiving:
        for name in ("ATB_REQUEST_TIMEOUT_S", "ATB_RULES_LIFETIME_S"):
            env.pop(name, None)  # there is a usual one
    return Settings(
        home=_folder(env, "ATB_HOME", _data_home(env)),
        strategy_dirs=(Path("strategies"),),
        model_dirs=(Path("models"),),
        shipped_strategies=_shipped("strategies"),
        shipped_models=_shipped("models"),
        migrations=_shipped("migrations"),
        database_url=env.get("DATABASE_URL") or None,
        notes=tuple(notes),
        keys=_keys(env),
        given=MappingProxyType({name: env[name] for name in LATE if name in env}),
    )


def trading_disabled() -> str:
    """Where trading is switched off, empty where nowhere: DISABLE_TRADING in the environment or ./.env, or disable_trading in
    ./atb.toml. A running engine asks again in every cycle; a file that cannot be read switches it off, too."""
    if is_on(os.environ.get("DISABLE_TRADING", "")):
        return "DISABLE_TRADING in the environment"
    try:
        if is_on(_read_dotenv(Path(".env"))[0].get("DISABLE_TRADING", "")):
            return f"DISABLE_TRADING in {Path('.env').absolute()}"
        own = Path("atb.toml")
        if own.is_file() and is_on(str(read_toml(own).get("disable_trading", ""))):
            return f"disable_trading in {own.absolute()}"
    except UsageError as error:
        return error.what
    return ""


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


def _keys(env: Mapping[str, str]) -> dict[str, ApiKey]:
    """The keys of which both parts are set. A PEM secret may have its line breaks written as \\n."""
    keys = {}
    for venue in VENUES:
        id, secret = (env.get(f"{venue.upper()}_API_{part}", "").strip() for part in ("KEY", "SECRET"))
        if id and secret:
            keys[venue] = ApiKey(id, secret.replace("\\n", "\n"))
    return keys


def _read_dotenv(path: Path, forgiving: bool = False) -> tuple[dict[str, str], list[str]]:
    """The values of a .env file, and a note for each line that gives none or a name that atb does not know. forgiving: also
    of one that is only partly text, or of one that cannot be read at all."""
    if not path.is_file():
        return {}, []
    import io

    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    try:
        with path.open(encoding="utf-8", errors="replace" if forgiving else "strict") as file:
            bindings = list(parse_stream(file))
    except (OSError, UnicodeDecodeError) as error:
        if forgiving:
            return {}, [f"{path.absolute()} cannot be read: {error}."]
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
