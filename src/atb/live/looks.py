"""How asking for one symbol goes: when it was asked for, what failed, since when it is waited for."""

from __future__ import annotations


class Look:
    """Times by this machine's clock."""

    def __init__(self, stored_ms: int = 0) -> None:
        self.tried_ms: int | None = None
        self.failures = 0
        self.trouble = ""
        self.began_ms = 0  # when the failures did
        self.waited_ms: int | None = None  # since when a row waits for it
        self.late = False
        self.stored_ms = stored_ms  # what opens before is in the store
        self.unstored = False
        self.called = False  # a stream says that there is something to be asked for
        self.heard_ms = 0  # when a stream told of it

    def failed(self, now_ms: int, why: str) -> None:
        self.began_ms = self.began_ms if self.failures else now_ms
        self.tried_ms, self.failures, self.trouble, self.called = now_ms, self.failures + 1, why, False

    def answered(self, now_ms: int) -> None:
        self.tried_ms, self.failures, self.called = now_ms, 0, False

    def came(self) -> None:
        """The candle that is next is settled."""
        self.waited_ms, self.late = None, False

    def is_late(self) -> bool:
        """It was waited for long enough. Whether that is news."""
        news, self.late = not self.late, True
        return news
