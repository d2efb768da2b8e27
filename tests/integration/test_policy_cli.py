"""Every option of the policy reaches the engine: each exit and each refusal is tripped from the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from atb.core.policy import FIELDS, Policy
from tests.integration.market import Bar, candle_file, scripted
from tests.integration.shell import Ran, Shell

UP, DOWN, FLAT, KEEP = 1.0, -1.0, 0.0, 0.0
FREE = "--fee-bps 0 --slippage-bps 0"
ALL_IN = "--fraction 1 --max-position 1 --stop-loss 0 --daily-loss-limit 0"


class Case(NamedTuple):
    """Candles (of one symbol, or of two), flags, and what must have come of it."""

    bars: list[Bar] | tuple[list[Bar], list[Bar]]
    flags: str
    expected: Callable[[dict[str, Any]], bool]
    policy: str = "{}"  # the strategy's own
    file: str = ""  # of --policy


def exits(reason: str, rule: str = "next_open") -> Callable[[dict[str, Any]], bool]:
    """The first trade ended for this reason by this rule."""
    return lambda r: r["trades"][0]["exit_reason"] == reason and r["fills"][1]["rule"] == rule


def refuses(reason: str) -> Callable[[dict[str, Any]], bool]:
    return lambda r: r["rejected_signals"].get(reason, 0) > 0


def near(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-9 * max(1.0, abs(b))


def bought(result: dict[str, Any], i: int = 0) -> float:
    """What an entry cost, as a share of 10,000."""
    fill = result["fills"][i]
    return float(fill["qty_base"] * fill["price"] / 10_000)


RISE = [Bar(100, UP), *(Bar(100 + i) for i in range(1, 11))]
CALM = [Bar(100, UP), *(Bar(100, UP) for _ in range(8))]
TO_SIGNAL = [Bar(100, UP), Bar(101), Bar(102, DOWN), Bar(103), Bar(104)]
FALL = [
    Bar(100, UP),
    Bar(100),
    Bar(97, low=94, signal=UP),
    Bar(97, UP),
    Bar(97, UP),
    Bar(97, FLAT),
    Bar(97, UP),
    Bar(97),
]
GAP_DOWN = [Bar(100, UP), Bar(100), Bar(90, open=90, low=89), Bar(90)]
BOTH = [Bar(100, UP), Bar(100), Bar(100, low=94, high=107), Bar(100), Bar(100)]
CRASH = [Bar(100, UP), Bar(100, UP), Bar(80, UP), Bar(70, UP), Bar(60, UP), Bar(60, UP)]
PEAK = [Bar(100, UP), Bar(100), Bar(110), Bar(120), Bar(111, low=107), Bar(111), Bar(111)]
LOSS_THEN_UP = [Bar(100, UP), Bar(100), Bar(80, DOWN), Bar(80, UP), Bar(80, UP), Bar(80)]

CASES: dict[str, Case] = {
    # exits
    "signal": Case(TO_SIGNAL, "", exits("signal")),
    "stop_loss": Case(FALL, "", exits("stop_loss", "stop")),
    "stop_at_open": Case(
        GAP_DOWN, FREE, lambda r: exits("stop_loss", "stop_at_open")(r) and r["fills"][1]["price"] == 90
    ),
    "take_profit": Case(
        RISE, "--take-profit 0.05", lambda r: exits("take_profit", "take")(r) and r["fills"][1]["price"] == 105
    ),
    "ambiguous": Case(
        BOTH,
        "--take-profit 0.05",
        lambda r: (
            exits("stop_loss", "stop_before_take")(r)
            and r["best_case"]["ambiguous_exits"] == 1
            and r["best_case"]["total_return"] > r["statistics"]["total_return"]
            and r["trades"][0]["ambiguous"]
        ),
    ),
    "trailing_stop": Case(
        PEAK,
        f"--trailing-stop 0.1 {FREE}",
        lambda r: exits("trailing_stop", "stop")(r) and r["fills"][1]["price"] == 108,
    ),
    "trailing_after": Case(
        PEAK, f"--trailing-stop 0.1 --trailing-after 0.3 {FREE}", lambda r: r["trades"][0]["exit_reason"] == "open"
    ),
    "break_even": Case(
        [*PEAK[:4], Bar(101, low=99), Bar(101)],
        f"--break-even-after 0.1 {FREE}",
        lambda r: exits("break_even", "stop")(r) and r["fills"][1]["price"] == 100,
    ),
    "time_exit": Case(
        RISE, "--max-hold 3", lambda r: exits("time_exit")(r) and r["trades"][0]["exit_time"] == "2024-01-01T04:00:00Z"
    ),
    "neutral": Case(
        RISE, "--neutral flat", lambda r: exits("signal")(r) and r["trades"][0]["exit_time"] == "2024-01-01T02:00:00Z"
    ),
    "partial_exit": Case(
        RISE,
        f"--partial-exits 0.03:0.5 --partial-exits 0.06:0.25 {FREE}",
        lambda r: (
            [f["reason"] for f in r["fills"]] == ["entry", "partial_exit", "partial_exit"]
            and near(r["fills"][1]["qty_base"], 2 * r["fills"][2]["qty_base"])
        ),
    ),
    "drawdown_halt": Case(
        CRASH,
        f"--max-drawdown 0.15 {ALL_IN}",
        lambda r: (
            exits("drawdown_halt")(r)
            and r["halt"]["message"].startswith("Maximum drawdown exceeded (20.")
            and len(r["daily_equity"]) == 1
        ),
    ),
    # refusals
    "low_confidence": Case([Bar(100, 0.05)] * 4, "", refuses("low_confidence")),
    "min_confidence": Case(
        [Bar(100, 0.5)] * 4, "--min-confidence 0.6", lambda r: refuses("low_confidence")(r) and not r["fills"]
    ),
    "short_on_spot": Case([Bar(100, DOWN)] * 4, "", lambda r: refuses("short_on_spot")(r) and not r["fills"]),
    "daily_loss_limit": Case(
        LOSS_THEN_UP,
        f"{ALL_IN} --daily-loss-limit 0.1",
        lambda r: refuses("daily_loss_limit")(r) and len(r["trades"]) == 1,
    ),
    "no daily loss limit": Case(
        LOSS_THEN_UP, ALL_IN, lambda r: not refuses("daily_loss_limit")(r) and len(r["trades"]) == 2
    ),
    "cooldown": Case(
        FALL,
        "--cooldown 3",
        lambda r: r["rejected_signals"]["cooldown"] == 3 and "needs_new_signal" not in r["rejected_signals"],
    ),
    "needs_new_signal": Case(
        FALL, "", lambda r: refuses("needs_new_signal")(r) and r["trades"][-1]["entry_time"] == "2024-01-01T07:00:00Z"
    ),
    "max_open_positions": Case(
        (CALM, CALM), "--max-open-positions 1", lambda r: refuses("max_open_positions")(r) and len(r["trades"]) == 1
    ),
    "max_exposure": Case(
        (CALM, CALM), "--max-exposure 0.2", lambda r: refuses("max_exposure")(r) and len(r["trades"]) == 1
    ),
    "no_cash": Case(CALM, f"{ALL_IN} --initial-balance 5.003", lambda r: refuses("no_cash")(r) and not r["fills"]),
    "below_min_notional": Case(
        CALM, "--initial-balance 20", lambda r: refuses("below_min_notional")(r) and not r["fills"]
    ),
    "below_protectable": Case(
        CALM, "--initial-balance 26", lambda r: refuses("below_protectable")(r) and not r["fills"]
    ),
    "next_open_cash_limited": Case(
        [Bar(100, UP), Bar(111, open=110), Bar(111)],
        ALL_IN,
        lambda r: r["fills"][0]["rule"] == "next_open_cash_limited",
    ),
    # sizes and costs
    "defaults": Case(CALM, FREE, lambda r: near(bought(r), 0.2) and r["policy"]["hash"] == Policy().digest()),
    "fraction": Case(CALM, f"--fraction 0.1 {FREE}", lambda r: near(bought(r), 0.1)),
    "max_position": Case(CALM, f"--fraction 0.9 --max-position 0.4 {FREE}", lambda r: near(bought(r), 0.4)),
    "confidence": Case(
        [Bar(100, 0.5)] * 5, f"--sizing confidence --fraction 0.2 {FREE}", lambda r: near(bought(r), 0.1)
    ),
    "risk": Case(CALM, f"--sizing risk --risk-per-trade 0.005 --stop-loss 0.05 {FREE}", lambda r: near(bought(r), 0.1)),
    "fees": Case(
        CALM,
        "--fee-bps 100 --slippage-bps 0",
        lambda r: near(r["fills"][0]["fee"], 0.01 * 10_000 * bought(r)) and r["costs"]["fee_bps"] == 100,
    ),
    "slippage": Case(CALM, "--fee-bps 0 --slippage-bps 100", lambda r: near(r["fills"][0]["price"], 101)),
    "initial_balance": Case(
        CALM, f"--initial-balance 5000 {FREE}", lambda r: near(bought(r), 0.1) and r["initial_balance"] == 5000
    ),
    "direction": Case(TO_SIGNAL, "--direction long", exits("signal")),
    # who says what
    "file": Case(
        RISE, "--policy policy.toml", exits("take_profit", "take"), file="take_profit = 0.05\nmax_hold = 50\n"
    ),
    "flag before file": Case(
        RISE,
        "--policy policy.toml --take-profit 0",
        exits("time_exit"),
        file="[policy]\ntake_profit = 0.05\nmax_hold = 3\n",
    ),
    "strategy's own": Case(RISE, "", exits("time_exit"), policy="{'max_hold': 3}"),
    "flag before strategy's own": Case(
        RISE, "--max-hold 2", lambda r: exits("time_exit")(r) and r["policy"]["max_hold"] == 2, policy="{'max_hold': 9}"
    ),
    "a limit is not loosened": Case(
        CRASH,
        f"--max-drawdown 0.9 {ALL_IN}",
        lambda r: (
            r["halt"] is not None
            and r["policy"]["max_drawdown"] == 0.1
            and any("--max-drawdown 0.9 is looser" in note for note in r["notes"])
        ),
        policy="{'max_drawdown': 0.1}",
    ),
    "a limit is tightened": Case(
        CRASH,
        f"--max-drawdown 0.15 {ALL_IN}",
        lambda r: r["halt"] is not None and not any("looser" in n for n in r["notes"]),
        policy="{'max_drawdown': 1.0}",
    ),
    "a limit in a file is not loosened either": Case(
        CALM,
        f"--policy policy.toml {FREE}",
        lambda r: near(bought(r), 0.05),
        policy="{'max_position': 0.05}",
        file="max_position = 0.5",
    ),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    shell = Shell(tmp_path_factory.mktemp("policy"))
    commands = [_command(shell, name, case) for name, case in CASES.items()]
    return dict(zip(CASES, shell.many(commands), strict=True))


def _command(shell: Shell, name: str, case: Case) -> tuple[str, ...]:
    folder = name.replace(" ", "_").replace("'", "")
    strategy = f"s_{folder}"
    shell.write(f"strategies/{strategy}.py", scripted(case.policy))
    series = case.bars if isinstance(case.bars, tuple) else (case.bars,)
    data: list[str] = []
    for symbol, bars in zip(("BTCUSDT", "ETHUSDT"), series, strict=False):
        data += ["--symbol", symbol, "--data", str(shell.write(f"{folder}/{symbol}.csv", candle_file(bars)))]
    shell.write(f"{folder}/policy.toml", case.file)
    flags = case.flags.replace("policy.toml", f"{folder}/policy.toml").split()
    return ("backtest", strategy, *data, *flags, "--json")


@pytest.mark.parametrize("name", CASES)
def test_it_is_tripped_from_the_command_line(name: str, results: dict[str, Ran]) -> None:
    ran = results[name]
    assert ran.code == 0, ran.err
    assert CASES[name].expected(ran.json), {k: ran.json[k] for k in ("fills", "trades", "decisions", "notes", "policy")}


def test_every_field_of_the_policy_has_its_case(results: dict[str, Ran]) -> None:
    flags = " ".join(case.flags + case.policy for case in CASES.values())
    assert [field.flag for field in FIELDS if field.flag not in flags] == []


def test_a_halt_is_told_on_stderr_and_exits_0(results: dict[str, Ran]) -> None:
    ran = results["drawdown_halt"]
    assert ran.code == 0
    assert (
        ran.err == "ERROR: Maximum drawdown exceeded (20.1%). Stopping backtest.\n"
    )  # as docs/getting-started.md says
    assert ran.json["halt"]["message"] in ran.err


def test_the_policy_in_force_is_whole_in_the_json(results: dict[str, Ran]) -> None:
    for ran in results.values():
        assert set(ran.json["policy"]) == {field.name for field in FIELDS} | {"hash"}
