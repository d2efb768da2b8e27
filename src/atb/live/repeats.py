"""The same event again and again is told once, then as a count: a storm must not bury what matters, nor be kept silent."""

from __future__ import annotations

import re
from collections import OrderedDict

from atb.core.timeframe import HOUR_MS, MINUTE_MS
from atb.core.words import duration, often
from atb.live.status import Told

MOST_KEYS = 500
NUMBER = re.compile(r"\b\d+(?:[.,:]\d+)*\b")
Key = tuple[str, str, str, str]


class _Window:
    """One kind of event, from the time it was last told. It grows while the storm lasts."""

    def __init__(self, told: Told) -> None:
        self.opened_ms, self.length_ms, self.held = told.at_ms, MINUTE_MS, 0
        self.last = told

    def summary(self, now_ms: int) -> Told:
        said = f"{self.last.message} ({often(self.held)} more in {duration(now_ms - self.opened_ms)})"
        return self.last._replace(message=said, times=self.held)


class Repeats:
    """The first of a kind passes at once. What follows within a minute is counted and told as one, then within two minutes, up
    to an hour.

    Facts are of a kind when they are the same word for word; warnings and errors also when only their numbers differ.
    """

    def __init__(self) -> None:
        self._windows: OrderedDict[Key, _Window] = OrderedDict()

    def admit(self, told: Told) -> list[Told]:
        """What is to be told now that this happened."""
        out = self.due(told.at_ms)
        window = self._windows.get(_key(told))
        if window is None:
            self._windows[_key(told)] = _Window(told)
            return [*out, told, *self._forget_oldest(told.at_ms)]
        window.held, window.last = window.held + 1, told
        return out

    def due(self, now_ms: int, everything: bool = False) -> list[Told]:
        """The counts whose time has come. `everything`: all of them, at the end."""
        out = []
        for key, window in list(self._windows.items()):
            if not everything and 0 <= now_ms - window.opened_ms < window.length_ms:
                continue
            if window.held:
                out.append(window.summary(now_ms))
                window.opened_ms, window.held = now_ms, 0
                window.length_ms = min(2 * window.length_ms, HOUR_MS)
            else:
                del self._windows[key]
        return out

    def _forget_oldest(self, now_ms: int) -> list[Told]:
        if len(self._windows) <= MOST_KEYS:
            return []
        _, window = self._windows.popitem(last=False)
        return [window.summary(now_ms)] if window.held else []


def _key(told: Told) -> Key:
    fact = told.severity in ("debug", "info")
    said = told.message if fact else NUMBER.sub("#", told.message)
    return told.component, told.severity, told.code, said
