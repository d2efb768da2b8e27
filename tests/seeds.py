"""How many seeded histories the longer suites go through: SEEDS=10 make slow goes through ten times as many."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import pytest

TIMES = int(os.environ.get("SEEDS", "1"))


def seeds(first: int, count: int, step: int = 1) -> range:
    """`count` of them in CI."""
    return range(first, first + count * step * TIMES, step)


def every(step: int) -> int:
    """Each so many-th of a long list in CI, and more of it with more SEEDS."""
    return max(1, step // TIMES)


def thinned(values: Iterable[Any], step: int) -> list[Any]:
    """For parametrize: each `step`-th in the quick suite, the others in the longer one."""
    rows = [value if isinstance(value, tuple) else (value,) for value in values]
    return [pytest.param(*row, marks=() if i % step == 0 else (pytest.mark.slow,)) for i, row in enumerate(rows)]
