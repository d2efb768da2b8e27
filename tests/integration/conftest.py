"""A shell in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.market import walk_file
from tests.integration.shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A folder with 300 hourly candles in candles.csv."""
    shell = Shell(tmp_path)
    shell.write("candles.csv", walk_file(300))
    return shell
