"""A connection that does not wait for ever for a server that fell silent without closing it.

Such a server is stopped, hangs on its disk, or is behind a network that swallows what is sent. Where its host still confirms
what arrives, no time-out of TCP is of use: only who listens knows for how long nothing was said.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from psycopg import Connection, OperationalError

if TYPE_CHECKING:
    from psycopg.abc import PQGen

T = TypeVar("T")


class Listening(Connection[Any]):
    """silence_s: after so long without a word from the server the connection is closed, and broken for who uses it."""

    silence_s = float("inf")

    def wait(self, gen: PQGen[T], *args: Any, **more: Any) -> T:
        return super().wait(self._heard(gen), *args, **more)

    def _heard(self, gen: PQGen[T]) -> PQGen[T]:
        """`gen`, which is asked at short intervals, also when nothing came."""
        ready: Any = None  # as `next` sends
        heard_s = time.monotonic()
        while True:
            try:
                wanted = gen.send(ready)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            ready = yield wanted
            now_s = time.monotonic()
            if ready:
                heard_s = now_s
            elif now_s - heard_s > self.silence_s:
                self.close()
                raise OperationalError(f"timed out: the server has said nothing for {self.silence_s:g} s")
