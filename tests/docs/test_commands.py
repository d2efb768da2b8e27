"""Every command in README and docs runs, in the order of its page, against a loopback exchange."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from atb.engine.candles import Candles, Floats
from atb.ledger.embedded import stop
from atb.venue.simulated import simulate_candles
from tests.integration.shell import without_powers
from tests.venue.fear_greed import FearGreed, days
from tests.venue.loopback import Exchange, Fault, Loopback

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LONG = ("backup.md", "database.md", "market-data.md")  # pages whose commands take long
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
WAIT_S = 60.0
START_MS = 1_685_577_600_000  # 2023-06-01: enough before 2024-07 to train on


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def commands(page: Path) -> list[str]:
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    return [line.split(" #")[0].strip() for line in lines if line.startswith("atb ")]


def rows(candles: Candles) -> Floats:
    columns = (candles.open_time, candles.open, candles.high, candles.low, candles.close, candles.volume)
    return np.column_stack([column.astype(np.float64) for column in columns])


@pytest.fixture(scope="module")
def exchange() -> Iterator[Loopback]:
    now = int(time.time() * 1000)
    market = Exchange(now)
    count = (now - START_MS) // HOUR_MS
    for base in ("BTC", "ETH"):
        market.list(f"{base}USDT", base, "USDT", {"1h": rows(simulate_candles(base, "1h", START_MS, count, 1))})
    market.clock.run(1.0)
    hours = np.arange(now // DAY_MS * DAY_MS - 100 * DAY_MS, now, HOUR_MS, dtype=float)
    market.funding["BTCUSDT"] = np.column_stack([hours[::8], np.full(len(hours[::8]), 1e-4)])
    market.interest["BTCUSDT"] = np.column_stack([hours, np.full(len(hours), 90_000.0)])
    with Loopback(market) as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def fear() -> Iterator[None]:
    with FearGreed(days(20, 30, 40, first_ms=START_MS)) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATB_FEAR_GREED_URL", server.url)
        yield


@pytest.fixture
def folder(tmp_path: Path, exchange: Loopback) -> Iterator[Path]:
    """An empty folder with the user's own candles in it."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    candles = simulate_candles("BTC", "1h", START_MS, 15_000, 2)
    names = ("open", "high", "low", "close", "volume")
    table = pa.table({"open_time": candles.open_time, **{name: getattr(candles, name) for name in names}})
    pyarrow.parquet.write_table(table, tmp_path / "candles.parquet")
    pyarrow.csv.write_csv(table, tmp_path / "candles.csv")
    yield tmp_path
    stop(tmp_path / "home")


def environment(folder: Path, exchange: Loopback) -> dict[str, str]:
    home = {"ATB_HOME": str(folder / "home"), "ATB_CACHE": str(folder / "cache"), "ATB_BINANCE_API_URL": exchange.url}
    home["ATB_BINANCEUSDM_API_URL"] = exchange.url
    inherited = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    return {**inherited, **home, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * (page.name in LONG)) for page in PAGES if commands(page)],
    ids=lambda page: page.name,
)
def test_the_commands_of_a_page_run(page: Path, folder: Path, exchange: Loopback) -> None:
    for text in blocks(page, "toml"):
        (folder / "policy.toml").write_text(text)
    for command in commands(page):
        redirected = command.split(" > ")[0]
        if is_endless(redirected):
            lives_until_it_is_ended(redirected, folder, exchange)
            continue
        done = subprocess.run(
            shlex.split(redirected),
            cwd=folder,
            env=environment(folder, exchange),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def is_endless(command: str) -> bool:
    """Whether it trades at an exchange, until somebody ends it."""
    words = shlex.split(command)
    return words[1] == "live" and "--symbol" in words and not {"replay", "set-stop"} & set(words)


def lives_until_it_is_ended(command: str, folder: Path, exchange: Loopback) -> None:
    process = subprocess.Popen(
        shlex.split(command), cwd=folder, env=environment(folder, exchange), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    end = time.monotonic() + WAIT_S
    while not list((folder / "home" / "engines").glob("*.json")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0 and "PAPER TRADING" in err and "begins with" in out, f"{command}\n{out}{err}"


def shown(page: Path) -> list[str]:
    """The commands of a page that are shown with their prompt: what they answer depends on what there is."""
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    parts = [part for command in commands for part in command.split(" #")[0].split(" && ")]
    return [part.split(" | ")[0] for part in parts if part.startswith("atb ")]


@pytest.mark.parametrize("page", [page for page in PAGES if shown(page)], ids=lambda page: page.name)
def test_the_commands_that_a_page_shows_are_understood(page: Path) -> None:
    """Each exists, with its options; what it does is tested where it is made."""
    with ThreadPoolExecutor(2) as at_once:
        for command, (code, text) in zip(shown(page), at_once.map(helped, shown(page)), strict=True):
            assert code == 0 and "Usage" in text, f"{command}\n{text}"


def helped(command: str) -> tuple[int, str]:
    words = [*shlex.split(command)[1:], "--help"]  # which is asked for after the options were understood
    done = subprocess.run(
        [str(Path(sys.executable).with_name("atb")), *words], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_the_readme_begins_with_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make (\w+)", "\n".join(blocks(ROOT / "README.md", "bash")), re.MULTILINE)
    assert targets[:2] == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_strategy_in_the_docs_is_the_one_that_new_writes() -> None:
    from atb.cli.strategies import TEMPLATE

    assert blocks(ROOT / "docs" / "writing-a-strategy.md", "python")[0] == TEMPLATE.format(cls="MyIdea")


def test_the_strategy_with_side_series_works_as_it_stands(folder: Path, exchange: Loopback) -> None:
    (folder / "strategies").mkdir()
    (folder / "strategies" / "carry.py").write_text(blocks(ROOT / "docs" / "writing-a-strategy.md", "python")[1])
    for command in (
        "atb strategies check carry",
        "atb backtest carry --symbol BTCUSDT --provider simulated",
        "atb data side download funding_rate BTCUSDT",
        "atb backtest carry --symbol BTCUSDT --timeframe 1h --days 60",
    ):
        done = subprocess.run(
            shlex.split(command),
            cwd=folder,
            env=environment(folder, exchange),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_the_line_of_a_drawdown_halt_is_in_the_docs_as_it_is_printed() -> None:
    from atb.backtest.result import Halt

    for page in ("getting-started.md", "backtest-rules.md"):
        assert f"ERROR: {Halt('', 0.253).message}" in (ROOT / "docs" / page).read_text()


# --- make demo and make setup


@pytest.mark.parametrize(
    ("name", "more", "told"),
    [
        ("binance_ETHUSDT_1h.parquet", {}, "as candles of ETHUSDT (told from the file's name"),
        ("mine.parquet", {}, "as candles of BTCUSDT (assumed: the file's name has no symbol"),
        ("mine.parquet", {"SYMBOL": "ETHUSDT"}, "as candles of ETHUSDT (as SYMBOL says)"),
    ],
)
def test_the_demo_on_a_file_says_whose_candles_it_takes_them_for(
    folder: Path, exchange: Loopback, name: str, more: dict[str, str], told: str
) -> None:
    (folder / "candles.parquet").rename(folder / name)
    done = demo(folder, exchange, DATA=name, **more)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout and (folder / "demo-report" / "report.html").is_file()


def test_the_demo_on_candles_without_a_model_ends_with_what_to_do(folder: Path, exchange: Loopback) -> None:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(folder / "candles.parquet")
    pyarrow.parquet.write_table(table.take(list(range(0, len(table), 24))), folder / "BTCUSDT_1d.parquet")
    done = demo(folder, exchange, DATA="BTCUSDT_1d.parquet")
    assert done.returncode == 10
    assert done.stderr.splitlines()[-1] == (
        "  .venv/bin/atb backtest sma_cross --symbol BTCUSDT --data BTCUSDT_1d.parquet"
    )
    assert "models for 1h candles of BTCUSDT and ETHUSDT" in done.stderr


def test_the_demo_without_a_file_is_on_the_exchange_where_it_answers(folder: Path, exchange: Loopback) -> None:
    done = demo(folder, exchange)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "Demo on Binance's public candles" in done.stdout and "SIMULATED" not in done.stdout
    assert (folder / "demo-report" / "report.html").is_file()


def test_the_demo_is_simulated_where_nobody_answers_and_says_so(folder: Path, exchange: Loopback) -> None:
    done = demo(folder, exchange, ATB_BINANCE_API_URL="http://127.0.0.1:9")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "Binance does not answer from here" in done.stdout and "SIMULATED MARKET" in done.stdout


def test_the_demo_goes_on_simulated_where_the_exchange_stops_answering(folder: Path, exchange: Loopback) -> None:
    exchange.add(Fault("status", "klines"))
    try:
        done = demo(folder, exchange)
    finally:
        exchange.heal()
    assert done.returncode == 0 and "SIMULATED MARKET" in done.stdout
    assert "Binance stopped answering; the demo goes on with the simulated market." in done.stderr


def test_the_demo_ends_with_the_error_of_an_odd_setting(folder: Path, exchange: Loopback) -> None:
    done = demo(folder, exchange, ATB_BINANCE_API_URL="binance.com")
    assert done.returncode == 2 and "ATB_BINANCE_API_URL" in done.stderr and "Traceback" not in done.stderr


def demo(folder: Path, exchange: Loopback, **more: str) -> subprocess.CompletedProcess[str]:
    env = {**environment(folder, exchange), **more}
    return subprocess.run(
        ["sh", str(ROOT / "ops" / "demo.sh")], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """What make setup reads, in a folder of its own."""
    clone = tmp_path / "clone"
    (clone / "ops").mkdir(parents=True)
    for name in ("ops/setup.py", "pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, clone / name)
    yield clone
    clone.chmod(0o700)


def test_setup_in_a_clone_that_may_not_be_written(clone: Path) -> None:
    clone.chmod(0o500)
    done = subprocess.run(
        [sys.executable, "ops/setup.py"],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=without_powers,
    )
    assert done.returncode == 1
    assert f"{clone}/.venv: Permission denied. Make the clone writable" in done.stderr
    assert "apt-get" not in done.stderr and "Traceback" not in done.stderr


def test_ctrl_c_during_setup_is_one_line(clone: Path) -> None:
    """A terminal sends it to all that runs: here to a uv that never ends, and would complain."""
    uv = clone / "uv"
    uv.write_text("#!/bin/sh\ntrap 'echo moan >&2' INT\necho begun > begun\nsleep 60 & wait\n")
    uv.chmod(0o755)
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "python").touch()
    path = f"{clone}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        [sys.executable, "ops/setup.py"], cwd=clone, env={**os.environ, "PATH": path}, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while not (clone / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.splitlines()[1:] == ["Interrupted. Run it again to go on."]
