"""What a stream adds to a feed: it tells when to ask, what runs, and what the next answer should say. Candles come from answers.

    listener = Listener(stream, series, looks, tell)
    listener.start(wake)
    listener.hear(now_ms, exchange_now_ms)     # in the feed's thread, at each poll
    listener.link                              # whether it is heard

While a stream is heard, the exchange is asked when a candle closes and every few minutes besides; when it is not, as often as
without one. So losing it costs time, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from atb.execution.executor import Event
from atb.live.candle_series import CandleSeries
from atb.live.looks import Look

if TYPE_CHECKING:
    from atb.venue.candle_stream import Link, Told

AHEAD_MS = 5_000  # a stream whose clock is further ahead than that is not believed


class Stream(Protocol):
    """As venue.candle_stream.CandleStream."""

    host: str
    link: Link

    def start(self, wake: Callable[[], None]) -> None: ...

    def take(self) -> list[Told]: ...

    def close(self) -> None: ...


class Listener:
    """Not for several threads, but for the stream's own."""

    def __init__(
        self, stream: Stream, series: Sequence[CandleSeries], looks: Mapping[str, Look], tell: Callable[[Event], None]
    ) -> None:  # fmt: skip
        self._stream, self._looks, self._tell = stream, looks, tell
        self._series = {each.symbol.id: each for each in series}
        self._shown: Link | None = None  # what was told of it
        self._started = False

    @property
    def link(self) -> Link:
        return self._stream.link

    def start(self, wake: Callable[[], None]) -> None:
        """Once."""
        if not self._started:
            self._started = True
            self._stream.start(wake)

    def hear(self, now_ms: int, exchange_ms: int) -> None:
        """What was told since. now_ms: this machine's clock; exchange_ms: the exchange's."""
        for told in self._stream.take():
            if told.at_ms > exchange_ms + AHEAD_MS:
                continue
            look = self._looks[told.symbol_id]
            look.heard_ms = max(look.heard_ms, min(now_ms, told.at_ms + now_ms - exchange_ms))
            look.called = self._series[told.symbol_id].hear(told.row, told.final, told.at_ms) or look.called
        self._tell_link()

    def close(self) -> None:
        self._stream.close()

    def _tell_link(self) -> None:
        link = self._stream.link
        before, self._shown = self._shown, link
        if not link.since_ms or (before is not None and before.since_ms == link.since_ms):
            return
        if link.live:
            self._tell(Event("info", "stream_live", f"Candles are told by {self._stream.host} as they close."))
        else:
            self._tell(Event("warning", "stream_lost", f"{link.why}: candles are asked for until it is back."))
