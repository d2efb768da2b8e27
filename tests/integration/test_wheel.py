"""The built wheel, away from the sources: strategies and models travel inside; the user's own come first."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (file,) = out.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(out / "unpacked")
    return out / "unpacked"


def atb(wheel: Path, folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    home = {"ATB_HOME": str(folder / "home"), "ATB_CACHE": str(folder / "cache"), "PYTHONPATH": str(wheel)}
    command = [sys.executable, "-m", "atb", *args]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **home}, capture_output=True, text=True, check=False
    )  # fmt: skip


def test_it_is_the_wheel_that_runs(wheel: Path, tmp_path: Path) -> None:
    script = "import atb; print(atb.__file__)"
    env = {**os.environ, "PYTHONPATH": str(wheel)}
    where = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert where.stdout.startswith(str(wheel))


def test_the_main_job_runs_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    done = atb(
        wheel, tmp_path, "backtest", "ml_basic", "--symbol", "BTCUSDT", "--provider", "simulated", "--export", "out"
    )
    assert done.returncode == 0, done.stderr
    assert "SIMULATED" in done.stdout
    assert (tmp_path / "out" / "report.html").read_text().lower().startswith("<!doctype html>")


@pytest.mark.slow
def test_a_database_is_made_and_migrated_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    assert (wheel / "atb/shipped/migrations/env.py").is_file() and (wheel / "atb/shipped/alembic.ini").is_file()
    alembic = [sys.executable, "-m", "alembic", "-c", str(wheel / "atb/shipped/alembic.ini"), "heads"]
    assert "v1.2.0 (head)" in subprocess.run(alembic, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    try:
        for command in ("start", "verify"):
            done = atb(wheel, tmp_path, "db", command)
            assert done.returncode == 0, done.stderr
        assert "tables agree" in done.stdout
        for args in (("downgrade", "v1.0.0"), ("migrate",), ("verify",)):
            assert atb(wheel, tmp_path, "db", *args).returncode == 0
    finally:
        atb(wheel, tmp_path, "db", "stop")


def test_shipped_models_verify(wheel: Path, tmp_path: Path) -> None:
    done = atb(wheel, tmp_path, "models", "verify")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\tok\t") >= 2


def test_the_users_own_strategy_comes_first(wheel: Path, tmp_path: Path) -> None:
    assert atb(wheel, tmp_path, "strategies", "new", "sma_cross").returncode == 0
    listed = atb(wheel, tmp_path, "strategies", "list").stdout
    assert "sma_cross\tstrategies/sma_cross.py" in listed
    assert "donchian_trend\tshipped" in listed
