"""Side series are kept fresh while a session runs, in a thread of its own: no decision waits for it.

A value that comes too late for a candle is not in that candle's decision: the store says from when on it counts as known.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from atb.core.errors import AtbError
from atb.execution.executor import Event

Tell = Callable[[Event], None]


class Fresh(NamedTuple):
    """A series that is asked for every so many seconds. shown: for people."""

    shown: str
    every_s: float
    refresh: Callable[[], object]


@contextlib.contextmanager
def kept_fresh(series: Sequence[Fresh], tell: Tell) -> Iterator[None]:
    """While it lasts. Each trouble is told when it begins and when it is over."""
    ended = threading.Event()
    for each in series:
        name = f"side {each.shown}"
        threading.Thread(target=_keep, args=(each, tell, ended), name=name, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _keep(series: Fresh, tell: Tell, ended: threading.Event) -> None:
    failing = False
    while not ended.is_set():
        wrong = _wrong_with(series)
        if ended.is_set():
            return
        if wrong and not failing:
            text = f"{series.shown} is not fresh: {wrong} Decisions go on with what is stored."
            tell(Event("warning", "side_series_stale", text))
        if failing and not wrong:
            tell(Event("info", "side_series_fresh", f"{series.shown} is fresh again."))
        failing = bool(wrong)
        ended.wait(series.every_s)


def _wrong_with(series: Fresh) -> str:
    """Why it could not be refreshed; empty where it was. Whatever happens, trading goes on."""
    try:
        series.refresh()
    except AtbError as error:
        return error.what
    except Exception as error:  # noqa: BLE001 - a thread that ends would leave the series stale in silence
        return f"{type(error).__name__}: {error}."
    return ""
