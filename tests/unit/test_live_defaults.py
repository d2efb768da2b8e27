"""The table [live] of atb.toml, from the file to the request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atb.cli.live_trade import make_request
from atb.core.errors import UsageError
from atb.live.defaults import KINDS
from atb.live.prepare import check

NOTHING: dict[str, Any] = {
    "strategy": "sma_cross", "symbol": ["BTCUSDT"], "timeframe": None, "provider": "", "check_interval": None,
    "initial_balance": None, "model_version": None, "account": None, "on_halt": None, "stop_limit_offset": None,
    "health_host": None, "health_port": None, "log_dir": None, "param": None, "policy": None, "policy_flags": {},
    "fee_bps": 10.0, "slippage_bps": 5.0, "paper_trading": False, "resume_from_last_balance": False,
    "close_on_exit": False, "allow_unprotected": False, "use_embedded_database": False,
    "no_stream": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_command_line_comes_before_the_file_and_the_file_before_the_defaults() -> None:
    Path("mine.toml").write_text("stop_loss = 0.03\n")
    Path("atb.toml").write_text(
        'disable_trading = false\n[live]\nprovider = "coinbase"\ntimeframe = "4h"\npolicy = "mine.toml"\n'
        'check_interval = 30\non_halt = "hold"\nstop_limit_offset = 0.02\nhealth_port = 8001\nhealth_host = "0.0.0.0"\n'
        'log_dir = "logs"\nclose_on_exit = true\nallow_unprotected = true\nno_stream = true\n'
    )
    asked = make_request(NOTHING | {"check_interval": 5.0, "health_port": 0})
    assert (asked.check_interval_s, asked.health_port) == (5.0, 0)
    assert (asked.venue, asked.timeframe, asked.policy_file) == ("coinbase", "4h", {"stop_loss": 0.03})
    assert (asked.on_halt, asked.stop_offset, asked.health_host, asked.log_dir) == ("hold", 0.02, "0.0.0.0", "logs")
    assert asked.close_on_exit and asked.allow_unprotected and not asked.stream
    text = Path("atb.toml").read_text()
    assert all(f"\n{name} = " in text for name in KINDS)


def test_flags_alone() -> None:
    given = {
        "close_on_exit": True,
        "allow_unprotected": True,
        "use_embedded_database": True,
        "no_stream": True,
        "stop_limit_offset": 0.02,
    }
    asked = make_request(NOTHING | given)
    assert (
        asked.close_on_exit
        and asked.allow_unprotected
        and asked.embedded_allowed
        and asked.stop_offset == 0.02
        and not asked.stream
    )
    plain = make_request(NOTHING)
    assert plain.stream and not (plain.close_on_exit or plain.allow_unprotected or plain.embedded_allowed)
    assert (plain.check_interval_s, plain.venue, plain.on_halt) == (60.0, "binance", "close")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[live]\nchek_interval = 3\n", r"has no chek_interval"),
        ("[live]\ncheck_interval = '3'\n", "must be a number, not '3'"),
        ("[live]\nhealth_port = 80.5\n", "must be a whole number"),
        ("[live]\nclose_on_exit = 1\n", "must be true or false"),
        ("live = 3\n", "must be a table"),
        ("[live\n", "cannot be read"),
    ],
)
def test_a_file_that_is_wrong_is_named(text: str, says: str) -> None:
    Path("atb.toml").write_text(text)
    with pytest.raises(UsageError, match=says) as caught:
        make_request(NOTHING)
    assert "atb.toml" in caught.value.what


def test_values_of_the_file_are_checked_like_options() -> None:
    Path("atb.toml").write_text("[live]\ncheck_interval = 0.1\n")
    with pytest.raises(UsageError, match="--check-interval"):
        check(make_request(NOTHING))
