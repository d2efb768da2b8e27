"""What is new of rows that are told again, and what is another value than before: a revision."""

from __future__ import annotations

import numpy as np

from atb.core.errors import DataError
from atb.core.timeframe import iso_minute
from atb.engine.sides import SideRows, joined_rows, ordered


def news_of(stored: SideRows, told: SideRows, told_ms: int | None, where: str) -> SideRows:
    """The rows of `told` to be stored beside `stored`: those that say something that was not known.

    told_ms: a row that differs from the last that is stored of its time is known from that moment on, not before.
    """
    if told_ms is not None:
        told = _as_told_now(stored, told, told_ms)
    told = without_repeats(ordered(told), where)
    without_repeats(joined_rows([stored, told]), where)  # refuses contradictions between the two
    times = np.concatenate([stored.time_ms, told.time_ms])
    available = np.concatenate([stored.available_ms, told.available_ms])
    value = np.concatenate([stored.value, told.value])
    is_new = np.arange(len(times)) >= len(stored.time_ms)
    order = np.lexsort((is_new, available, times))
    times, value, is_new = times[order], value[order], is_new[order]
    same = (times[1:] == times[:-1]) & (value[1:] == value[:-1])
    known = np.zeros(len(times), bool)
    known[1:] = same  # told before
    known[:-1] |= same & ~is_new[1:]  # stored as known from later on: a claim of today changes no history
    return ordered(told.select(np.sort(order[is_new & ~known] - len(stored.time_ms))))


def without_repeats(rows: SideRows, where: str) -> SideRows:
    """Each row once. DataError where a time has two values that were known from the same moment on."""
    order = np.lexsort((rows.value, rows.available_ms, rows.time_ms))
    times, available, value = (column[order] for column in rows)
    same = (times[1:] == times[:-1]) & (available[1:] == available[:-1])
    differs = same & (value[1:] != value[:-1])
    if differs.any():
        i = int(np.argmax(differs))
        raise DataError(
            f"{where}: the value of {iso_minute(int(times[i]))} is both {float(value[i])!r} and {float(value[i + 1])!r}, known "
            f"from the same {iso_minute(int(available[i]))} on.",
            "Correct the rows, or begin anew: atb data side remove",
        )
    repeated = np.zeros(len(times), bool)
    repeated[1:] = same
    return ordered(rows.select(np.sort(order[~repeated])))


def _as_told_now(stored: SideRows, told: SideRows, told_ms: int) -> SideRows:
    """Without the rows that say what is stored of their time last; those that say something else are known from `told_ms` on."""
    if len(stored.time_ms) == 0:
        return told
    order = np.lexsort((stored.available_ms, stored.time_ms))
    times = stored.time_ms[order]
    last = np.maximum(np.searchsorted(times, told.time_ms, side="right") - 1, 0)
    there = times[last] == told.time_ms
    differs = there & (stored.value[order][last] != told.value)
    available = np.where(differs, np.maximum(told.available_ms, told_ms), told.available_ms)
    return told._replace(available_ms=available).select(differs | ~there)
