"""Timing on a noisy machine: runs are interleaved, the best of several counts, and only ratios are compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Row(NamedTuple):
    """One figure: `value` with its `unit`, and the limit that it should not exceed (None: only told)."""

    name: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def over(self) -> bool:
        return self.limit is not None and self.value > self.limit


def best_of(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The shortest seconds of each work over `rounds` rounds, in which the works take turns."""
    best = dict.fromkeys(works, float("inf"))
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            begun = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - begun)
    return best


def show(title: str, rows: list[Row]) -> str:
    """A table as text."""
    lines = [title]
    for row in rows:
        limit = "" if row.limit is None else f"limit {row.limit:g}  {'OVER' if row.over else 'ok'}"
        lines.append(f"  {row.name:<58} {row.value:>12,.2f} {row.unit:<8} {limit}")
    return "\n".join(lines)
