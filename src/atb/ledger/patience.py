"""Pauses between attempts at something that passes by itself."""

from __future__ import annotations

import time

FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 2.0


class Patience:
    """Pauses that grow, counted from the first attempt on."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.pauses = 0

    def pause(self, longest_s: float) -> bool:
        """Wait before the next attempt. False, at once, when `longest_s` seconds have passed since the first."""
        left_s = longest_s - self.waited_s()
        if left_s <= 0:
            return False
        import random

        wait_s = min(FIRST_WAIT_S * 2.0**self.pauses, LONGEST_WAIT_S)
        self.pauses += 1
        # Unequal pauses: those that were refused together do not all come back together.
        time.sleep(min(wait_s * random.uniform(0.5, 1.0), left_s))
        return True

    def waited_s(self) -> float:
        return time.monotonic() - self.began
