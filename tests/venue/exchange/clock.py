"""The exchange's clock: it stands where a test put it, or runs from there."""

from __future__ import annotations

import time


class Clock:
    """Milliseconds UTC. `factor`: seconds of the exchange in one of ours; 0 stands still."""

    def __init__(self, now_ms: int) -> None:
        self._set_ms = now_ms
        self._since = time.monotonic()
        self.factor = 0.0

    def read(self) -> int:
        return self._set_ms + int((time.monotonic() - self._since) * 1000 * self.factor)

    def set(self, now_ms: int) -> None:
        self._set_ms, self._since = now_ms, time.monotonic()

    def run(self, factor: float = 1.0) -> None:
        self.set(self.read())
        self.factor = factor
