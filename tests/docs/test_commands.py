"""Every command in README and docs runs, in the order of its page, against a loopback exchange."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from atb.engine.candles import Candles, Floats
from atb.venue.simulated import simulate_candles
from tests.venue.loopback import Exchange, Loopback

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
HOUR_MS = 3_600_000
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
    with Loopback(market) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, exchange: Loopback) -> Path:
    """An empty folder with the user's own candles in it."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    candles = simulate_candles("BTC", "1h", START_MS, 15_000, 2)
    names = ("open", "high", "low", "close", "volume")
    table = pa.table({"open_time": candles.open_time, **{name: getattr(candles, name) for name in names}})
    pyarrow.parquet.write_table(table, tmp_path / "candles.parquet")
    pyarrow.csv.write_csv(table, tmp_path / "candles.csv")
    return tmp_path


def environment(folder: Path, exchange: Loopback) -> dict[str, str]:
    home = {"ATB_HOME": str(folder / "home"), "ATB_CACHE": str(folder / "cache"), "ATB_BINANCE_API_URL": exchange.url}
    return {**os.environ, **home, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page: Path, folder: Path, exchange: Loopback) -> None:
    for text in blocks(page, "toml"):
        (folder / "policy.toml").write_text(text)
    for command in commands(page):
        redirected = command.split(" > ")[0]
        done = subprocess.run(
            shlex.split(redirected),
            cwd=folder,
            env=environment(folder, exchange),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"


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
