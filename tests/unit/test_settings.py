"""Settings: the environment, a .env beside the user, and defaults, in this order."""

from __future__ import annotations

from pathlib import Path

import pytest

from atb.core.errors import UsageError
from atb.settings import NAMES, colour_is_wanted, load_settings, terminal_moves


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = [f"{venue}_API_{part}" for venue in ("BINANCE", "COINBASE") for part in ("KEY", "SECRET")]
    for name in (*NAMES, *keys, "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)


def test_defaults_are_the_platform_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    settings = load_settings()
    assert settings.home == tmp_path / "user/.local/share/atb"
    assert settings.cache == tmp_path / "user/.cache/atb"
    assert settings.candles == settings.home / "candles"
    assert settings.market_rules == settings.home / "market_rules.json"
    assert settings.logs == settings.home / "logs"
    assert settings.url("binance") is None
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert load_settings().home == Path("/data/atb")
    monkeypatch.setattr("sys.platform", "darwin")
    assert load_settings().home == tmp_path / "user/Library/Application Support/atb"


def test_the_environment_comes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("ATB_HOME=from-file\nATB_CACHE=cache-from-file\nATB_BINANCE_API_URL=http://file:1/\n")
    monkeypatch.setenv("ATB_HOME", "from-environment")
    settings = load_settings()
    assert settings.home == tmp_path / "from-environment"
    assert settings.cache == tmp_path / "cache-from-file"
    assert settings.url("binance") == "http://file:1"


def test_an_empty_value_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATB_HOME", "")
    monkeypatch.setenv("ATB_BINANCE_API_URL", "")
    assert load_settings().home.name == "atb"
    assert load_settings().url("binance") is None


def test_a_tilde_is_the_user_s_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATB_HOME", "~/candles")
    assert load_settings().home == tmp_path / "user/candles"
    monkeypatch.setenv("ATB_LOG_DIR", "~/of/mine")
    assert load_settings().logs == tmp_path / "user/of/mine"
    monkeypatch.setenv("ATB_LOG_DIR", "logs")
    assert load_settings().logs == tmp_path / "logs"


def test_a_home_of_nobody_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATB_CACHE", "~no_such_user_here/atb")
    with pytest.raises(UsageError, match="names no folder") as caught:
        _ = load_settings().cache
    assert "ATB_CACHE" in caught.value.hint


@pytest.mark.parametrize("value", ["nonsense", "ftp://host", "http://", "127.0.0.1:9000", "//host"])
def test_what_is_no_url_is_refused_with_the_name_of_the_variable(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATB_COINBASE_API_URL", value)
    with pytest.raises(UsageError, match="ATB_COINBASE_API_URL"):
        load_settings().url("coinbase")


def test_what_a_command_does_not_ask_for_cannot_stop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "ENABLE_TRADING",
        "ATB_TESTNET",
        "ATB_BINANCE_API_URL",
        "ATB_BINANCE_WS_URL",
        "ATB_REQUEST_TIMEOUT_S",
        "ATB_RULES_LIFETIME_S",
    ):
        monkeypatch.setenv(name, "nonsense")
    for name in ("ATB_LOG_DIR", "ATB_CACHE"):
        monkeypatch.setenv(name, "~nobody_of_that_name/x")
    settings = load_settings()
    assert settings.url("coinbase") is None
    for name in ("enable_trading", "testnet", "logs", "cache", "request_timeout_s", "rules_lifetime_s"):
        with pytest.raises(UsageError):
            getattr(settings, name)


@pytest.mark.parametrize("value", ["0", "-1", "1e9", "soon", "nan"])
def test_a_time_for_a_request_has_bounds(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().request_timeout_s is None
    monkeypatch.setenv("ATB_REQUEST_TIMEOUT_S", "2.5")
    assert load_settings().request_timeout_s == 2.5
    monkeypatch.setenv("ATB_REQUEST_TIMEOUT_S", value)
    with pytest.raises(UsageError, match=r"from 0\.5 to 120"):
        _ = load_settings().request_timeout_s


@pytest.mark.parametrize("value", ["-1", "1e9", "a day", "nan"])
def test_how_long_rules_are_believed_has_bounds(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().rules_lifetime_s == 86_400
    for told in ("0", "3600"):
        monkeypatch.setenv("ATB_RULES_LIFETIME_S", told)
        assert load_settings().rules_lifetime_s == float(told)
    monkeypatch.setenv("ATB_RULES_LIFETIME_S", value)
    with pytest.raises(UsageError, match=r"ATB_RULES_LIFETIME_S=.* is no number of seconds from 0 to"):
        _ = load_settings().rules_lifetime_s
    assert load_settings(forgiving=True).rules_lifetime_s == 86_400


def test_a_file_that_is_no_text_is_a_usage_error() -> None:
    Path(".env").write_bytes(b"ATB_HOME=\xff\xfe\xe9")
    with pytest.raises(UsageError, match=r"\.env cannot be read"):
        load_settings()


def test_strategies_and_models_are_found_beside_the_user_and_with_the_package() -> None:
    settings = load_settings()
    assert settings.strategy_dirs == (Path("strategies"),)
    assert settings.model_dirs == (Path("models"),)
    assert (settings.shipped_strategies / "sma_cross.py").is_file()


def test_a_line_that_is_none_and_a_name_nobody_knows_are_noted_with_file_and_line(tmp_path: Path) -> None:
    Path(".env").write_text(
        "# mine\n\nATB_HOEM=/secret/place\nthis is no line\n\nATB_CACHE\nOTHER=1\nexport ATB_HOME='${OTHER}/x'\n"
    )
    settings = load_settings()
    assert settings.notes == (
        f"{tmp_path}/.env, line 3: atb knows no ATB_HOEM. Nearest: ATB_HOME, ATB_CACHE, ATB_SIDES.",
        f"{tmp_path}/.env, line 4: this is not NAME=VALUE and is left out.",
        f"{tmp_path}/.env, line 6: this is not NAME=VALUE and is left out.",
    )
    assert settings.home == tmp_path / "1/x"
    Path(".env").write_text("ATB_HOME=a\n")
    assert load_settings().notes == ()


def test_keys_are_whole_or_none_and_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINANCE_API_KEY", "a-key-of-mine")
    with pytest.raises(UsageError, match="no key for binance") as caught:
        load_settings().key("binance")
    assert "BINANCE_API_SECRET" in caught.value.hint
    monkeypatch.setenv("BINANCE_API_SECRET", " not-to-be-told \n")
    monkeypatch.setenv("COINBASE_API_KEY", "organizations/1/apiKeys/2")
    monkeypatch.setenv("COINBASE_API_SECRET", r"-----BEGIN\nabc\n-----END")
    settings = load_settings()
    assert settings.key("binance").secret == "not-to-be-told"
    assert settings.key("coinbase").secret.splitlines() == ["-----BEGIN", "abc", "-----END"]
    assert "not-to-be" not in repr(settings) and "a-key-of-mine" not in repr(settings)


def test_the_test_network(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().order_url("binance") is None
    assert load_settings().environment("binance") == "real"
    monkeypatch.setenv("ATB_TESTNET", "1")
    settings = load_settings()
    assert settings.order_url("binance") == "https://testnet.binance.vision"
    assert settings.environment("binance") == "testnet"
    assert settings.url("binance") is None  # candles stay real, and so does what tells of them
    assert settings.stream_url("binance") == "wss://stream.binance.com:9443"
    assert settings.stream_url("coinbase") is None
    with pytest.raises(UsageError, match="Coinbase has no test network"):
        settings.order_url("coinbase")
    monkeypatch.setenv("ATB_BINANCE_API_URL", "https://api1.binance.com")
    with pytest.raises(UsageError, match="names the real exchange"):
        load_settings().environment("binance")
    monkeypatch.setenv("ATB_TESTNET", "perhaps")
    with pytest.raises(UsageError, match="neither on nor off"):
        load_settings().order_url("binance")


def test_a_test_network_s_url_is_known_as_one_and_a_mirror_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATB_BINANCE_API_URL", "https://testnet.binance.vision/")
    monkeypatch.setenv("ATB_BINANCE_WS_URL", "ws://127.0.0.1:9/")
    assert load_settings().environment("binance") == "testnet"
    assert load_settings().stream_url("binance") == "ws://127.0.0.1:9"
    monkeypatch.setenv("ATB_BINANCE_API_URL", "http://127.0.0.1:9000")
    assert load_settings().environment("binance") == "real"
    monkeypatch.delenv("ATB_BINANCE_WS_URL")
    assert load_settings().stream_url("binance") is None  # never the real exchange's beside the candles of another
    monkeypatch.setenv("ATB_BINANCE_WS_URL", "http://127.0.0.1:9")
    with pytest.raises(UsageError, match="ATB_BINANCE_WS_URL"):
        load_settings().stream_url("binance")


@pytest.mark.parametrize("url", ["ws://[::1", "ws://user:sesame@127.0.0.1:nine", "ws://user:sesame@", "ws://:9", "ws://h:99999",
                                 "ws://user:ses/ame@127.0.0.1:9", "http://user:sesame@127.0.0.1:9"])  # fmt: skip
def test_a_url_that_is_none_is_refused_and_its_password_not_shown(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("ATB_BINANCE_WS_URL", url)
    with pytest.raises(UsageError, match="ATB_BINANCE_WS_URL") as refused:
        load_settings().stream_url("binance")
    assert "ame" not in str(refused.value.what).replace("ATB_BINANCE", "")


def test_each_name_is_in_the_example() -> None:
    example = Path(__file__).parents[2] / ".env.example"
    for name in (*NAMES, "BINANCE_API_KEY", "BINANCE_API_SECRET", "COINBASE_API_KEY", "COINBASE_API_SECRET"):
        assert f"#{name}=" in example.read_text()


def test_what_colour_and_movement_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert colour_is_wanted() and terminal_moves()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour_is_wanted() and terminal_moves()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not colour_is_wanted() and not terminal_moves()
