"""A host that trades talks to its exchange only: no library leaves an identity or reports home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_prediction_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    env |= {"HOME": str(home), "ATB_HOME": str(tmp_path / "data"), "ATB_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "atb", "backtest", "ml_basic", "--symbol", "BTCUSDT", "--provider", "simulated"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert list(home.rglob("*")) == []
