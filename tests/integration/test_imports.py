"""A command imports what it needs and nothing more: heavy libraries stay out of help texts and of runs without network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.market import walk_file
from tests.integration.shell import Shell

HEAVY = ("pandas", "ccxt", "numba", "sqlalchemy", "onnxruntime", "pydantic", "requests")
HELPS = [
    "", "backtest", "data", "data import", "data list", "data gaps", "data rules", "strategies", "strategies list",
    "strategies show", "strategies check", "strategies new",
    "models", "models list", "models show", "models verify", "models train", "health", "health check",
    "live status", "live stop", "live halt", "live resume", "live set-stop",
]  # fmt: skip
SCRIPT = """
import json, sys
sys.argv[0] = "atb"
from atb.cli.main import main
code = 0
try:
    main()
except SystemExit as stop:
    code = stop.code or 0
json.dump([code, sorted(name for name in sys.modules if "." not in name)], open({told!r}, "w"))
"""


def imported(shell: Shell, *args: object) -> set[str]:
    """The top-level modules in memory after a command, which must have ended well."""
    told = shell.work / f"modules-{abs(hash(args))}.json"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(told=str(told)), *map(str, args)],
        cwd=shell.work, env=shell.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    code, modules = json.loads(told.read_text())
    assert code == 0, done.stderr
    return set(modules)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A shell with 2,000 stored candles and the same in a file."""
    shell = Shell(tmp_path_factory.mktemp("imports"))
    file = shell.write("candles.csv", walk_file(2000))
    shell("data", "import", file, "--symbol", "BTCUSDT", ok=True)
    return shell


@pytest.mark.parametrize("command", HELPS)
def test_a_help_text_needs_next_to_nothing(shell: Shell, command: str) -> None:
    modules = imported(shell, *command.split(), "--help")
    assert not modules & {*HEAVY, "numpy", "pyarrow", "rich", "llvmlite"}
    assert "typer" in modules


@pytest.mark.parametrize(
    "args",
    [
        ("backtest", "sma_cross", "--symbol", "BTCUSDT"),
        ("backtest", "sma_cross", "--symbol", "BTCUSDT", "--json"),
        ("backtest", "sma_cross", "--symbol", "BTCUSDT", "--offline", "--start", "2024-01-10"),
        ("backtest", "donchian_trend", "--symbol", "BTCUSDT", "--data", "candles.csv", "--json"),
        ("backtest", "rsi_reversion", "--symbol", "BTCUSDT", "--provider", "simulated", "--days", "50"),
        ("data", "gaps", "BTCUSDT"),
        ("data", "list", "--json"),
        ("data", "rules", "BTCUSDT"),
        ("strategies", "list"),
        ("strategies", "check", "sma_cross", "--candles", "200"),
    ],
    ids=" ".join,
)
def test_work_without_a_network_needs_no_heavy_library(shell: Shell, args: tuple[str, ...]) -> None:
    modules = imported(shell, *args)
    assert not modules & {*HEAVY, "llvmlite", "rich", "urllib3"}
    assert "numpy" in modules or args[0] == "data"


@pytest.mark.slow
def test_stored_machine_code_is_linked_without_the_compiler(shell: Shell) -> None:
    args = ("backtest", "sma_cross", "--symbol", "BTCUSDT", "--engine", "compiled", "--json")
    assert {"numba", "llvmlite"} <= imported(shell, *args)  # the first run compiles
    modules = imported(shell, *args)
    assert "llvmlite" in modules
    assert not modules & {*HEAVY}


def test_the_test_can_see(tmp_path: Path) -> None:
    """What a strategy imports is seen, so that an import of ours would be."""
    shell = Shell(tmp_path)
    shell("strategies", "new", "heavy", ok=True)
    path = shell.work / "strategies" / "heavy.py"
    path.write_text("import pandas\n" + path.read_text())
    assert "pandas" in imported(
        shell, "backtest", "heavy", "--symbol", "BTCUSDT", "--provider", "simulated", "--days", "20"
    )
