"""The same command gives the same result, wherever and however often."""

from __future__ import annotations

import re

import pytest

from tests.integration.shell import RUN, SHORT, Shell, stable


def test_the_same_command_gives_the_same_bytes(shell: Shell) -> None:
    """Whatever the hash seed, the time zone, the language and the number of threads."""
    args = (
        *RUN,
        *SHORT,
        "--symbol",
        "ETHUSDT",
        "--data",
        "candles.csv",
        "--take-profit",
        "0.02",
        "--trailing-stop",
        "0.01",
        "--json",
    )
    surroundings: list[dict[str, str]] = [
        {}, {"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo"}, {"LANG": "C", "OMP_NUM_THREADS": "1"},
        {"COLUMNS": "20"},
    ]  # fmt: skip
    texts = [re.sub(r'"timing": \{[^}]*\}', "", shell(*args, ok=True, env=env).out) for env in surroundings]
    assert len(set(texts)) == 1
    assert '"timing"' not in texts[0] and len(texts[0]) > 2000


def test_simulated_runs_are_the_same_too(shell: Shell) -> None:
    args = ("backtest", "rsi_reversion", "--symbol", "ETHUSDT", "--provider", "simulated", "--days", "60", "--json")
    first, second, other = shell.many([args, args, (*args, "--seed", "8")])
    assert stable(first) == stable(second)
    assert stable(first)["data"][0]["sha256"] != stable(other)["data"][0]["sha256"]


def test_cached_predictions_change_nothing(shell: Shell) -> None:
    args = ("backtest", "ml_basic", "--symbol", "BTCUSDT", "--provider", "simulated", "--days", "100", "--json")
    cold, warm = stable(shell(*args)), stable(shell(*args))
    assert cold == warm and cold["models"]
    assert list((shell.cache / "predictions").rglob("*"))


@pytest.mark.slow
def test_the_compiled_engine_gives_the_same_numbers(shell: Shell) -> None:
    ran = [shell(*RUN, *SHORT, "--engine", engine, "--json", ok=True) for engine in ("plain", "compiled", "compiled")]
    told, runs = [r.json for r in ran], [stable(r) for r in ran]
    assert [run["timing"]["engine"] for run in told] == ["plain", "compiled", "compiled"]
    assert runs[0] == runs[1] == runs[2]


def test_stored_and_given_candles_give_the_same_run(shell: Shell) -> None:
    shell("data", "import", "candles.csv", "--symbol", "BTCUSDT", ok=True)
    given, stored = (
        stable(r) for r in shell.many([(*RUN, "--json"), ("backtest", "sma_cross", "--symbol", "BTCUSDT", "--json")])
    )
    assert given["data"][0].pop("source") != stored["data"][0].pop("source")
    assert (given["data"][0].pop("venue"), stored["data"][0].pop("venue")) == ("file", "binance")
    assert given == stored
