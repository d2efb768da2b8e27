"""How long positions were without their stop: on spot one that is moved is cancelled first, and an exchange may refuse one."""

from __future__ import annotations


class BareTime:
    """By symbol's index; all times are ms of the exchange's clock."""

    def __init__(self) -> None:
        self._since: dict[int, int] = {}
        self._covered: dict[int, int] = {}  # when it was seen last that nothing was missing
        self.total_ms = 0
        self.worst_ms = 0

    def note(self, s: int, missing: bool, held_since_ms: int, now_ms: int) -> int | None:
        """A look at symbol s. Returns how long it was bare, where that has just ended.

        held_since_ms: the last fill, before which there was nothing to protect.
        """
        if missing:
            began = max(held_since_ms, self._covered.get(s, 0)) or now_ms
            self._since.setdefault(s, min(began, now_ms))
            return None
        self._covered[s] = now_ms
        since = self._since.pop(s, None)
        if since is None:
            return None
        passed = max(now_ms - since, 0)
        self.total_ms += passed
        self.worst_ms = max(self.worst_ms, passed)
        return passed

    def now(self, now_ms: int) -> dict[int, int]:
        """Which symbols are bare at the moment, and for how long (ms)."""
        return {s: max(now_ms - since, 0) for s, since in self._since.items()}
