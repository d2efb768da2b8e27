"""Random candles, policies and numbers, some of them nonsense: a result that is JSON, or a refusal that says why."""

from __future__ import annotations

import contextlib
import io
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from atb.cli.root import app
from atb.core.errors import AtbError
from atb.core.policy import FIELDS, Field
from tests.integration.market import Bar, candle_file, scripted

SEEDS = range(8)
RUNS = 60
NONSENSE = ["nan", "inf", "-1", "abc", "1e400", "", "0x10", "1_000", "--", "1,5"]
BALANCES = ["1e12", "1e-9", "10000", "1", "5.003", "0.01", "0", "1e13"]


def random_bars(dice: random.Random) -> list[Bar]:
    """A market of any price, calm or wild, with signals of every kind."""
    first = price = 10 ** dice.uniform(-8, 8)
    bars = []
    for _ in range(dice.choice([1, 2, 3, 5, 30, 80])):
        close = max(first * 1e-6, price * (1 + dice.choice([0.0, dice.gauss(0, 0.02), dice.gauss(0, 0.3)])))
        high, low = max(price, close), min(price, close)
        signal = dice.choice([1.0, -1.0, 0.0, 0.05, dice.uniform(-1, 1)])
        wicks = abs(dice.gauss(0, 0.02)), min(0.9, abs(dice.gauss(0, 0.02)))
        bars.append(Bar(close, signal, price, high * (1 + wicks[0]), low * (1 - wicks[1])))
        price = close
    return bars


def random_value(field: Field, dice: random.Random) -> str:
    choices = {"sizing": ["fraction", "risk", "confidence", "all"], "neutral": ["hold", "flat"], "direction": ["long"]}
    if field.name in choices:
        return dice.choice(choices[field.name])
    if field.name == "partial_exits":
        return f"{dice.choice([0.001, 0.01, 0.1, 1e6, dice.random()])}:{dice.choice([1, 0.5, 1e-9, dice.random()])}"
    if dice.random() < 0.1:
        return dice.choice(NONSENSE)
    low, high = field.low, min(field.high, 1000.0)
    value = dice.choice([low, field.high, field.default, dice.uniform(low, high), dice.uniform(low, min(high, 1.0))])
    return str(int(value)) if isinstance(field.default, int) else repr(float(value))


def random_command(dice: random.Random) -> list[str]:
    args = ["backtest", "scripted", "--json", "--symbol", "BTCUSDT", "--data", "c.csv"]
    if dice.random() < 0.3:
        args += ["--symbol", dice.choice(["ETHUSDT", "NEWUSDT"]), "--data", "c.csv"]
    for field in dice.sample(FIELDS, dice.randint(0, 6)):
        args += [field.flag, random_value(field, dice)]
    for flag, values in (
        ("--initial-balance", BALANCES),
        ("--fee-bps", ["0", "1000", "10", "nan"]),
        ("--slippage-bps", ["0", "1000", "999.9"]),
        ("--days", ["1", "0.01", "36500", "1e-300", "0"]),
    ):
        if dice.random() < 0.3:
            args += [flag, dice.choice(values)]
    return args


def run(args: list[str]) -> tuple[int, str]:
    """The exit code and stdout. What is no error of ours or of the command line's comes through."""
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            return int(app(args, standalone_mode=False) or 0), out.getvalue()
    except AtbError as error:
        assert error.what.endswith(".") and "\n" not in error.what, error.what
        return error.exit_code, out.getvalue()
    except Exception as error:
        if type(error).__name__ not in ("BadParameter", "UsageError", "NoSuchOption", "MissingParameter"):
            raise
        return 2, out.getvalue()


def no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_result_or_a_refusal(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ATB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "scripted.py").write_text(scripted())
    dice = random.Random(seed)
    codes = []
    for _ in range(RUNS):
        (tmp_path / "c.csv").write_text(candle_file(random_bars(dice)))
        args = random_command(dice)
        code, out = run(args)
        codes.append(code)
        if code:
            assert code in (2, 3) and out == "", args
            continue
        result = json.loads(out, parse_constant=no_constant)
        balance, statistics = result["initial_balance"], result["statistics"]
        assert math.isfinite(statistics["end_equity"]) and statistics["end_equity"] >= -1e-9 * balance, args
        realised = sum(trade["pnl"] for trade in result["trades"])  # open trades are marked at the last close
        assert statistics["end_equity"] - balance == pytest.approx(realised, rel=1e-6, abs=1e-6 * balance), args
    assert {0, 2} <= set(codes)
