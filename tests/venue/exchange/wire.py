"""What goes over the wire, and what a handler gets of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.venue.exchange.candles import Rows

if TYPE_CHECKING:
    from tests.venue.exchange.exchange import Exchange

Query = dict[str, Any]  # text; what came as JSON may be more
Spoil = Callable[[Rows], Rows]

NOTHING: Mapping[str, str] = MappingProxyType({})


class Request(NamedTuple):
    """What a client asked for. `query` is that of the URL and the body's, a form or JSON; the URL's goes first.

    `signed` is both as they came in, joined as Binance's signatures are.
    """

    method: str
    path: str
    query: Query
    headers: Mapping[str, str] = NOTHING
    signed: str = ""
    body: bytes = b""


class Reply(NamedTuple):
    """An answer: `body` is sent as JSON, or as it is when it is bytes."""

    status: int
    body: Any
    headers: Mapping[str, str] = NOTHING


def unspoilt(rows: Rows) -> Rows:
    return rows


@dataclass
class Call:
    """A request that is being processed, with what the faults that are due do to it."""

    exchange: Exchange
    request: Request
    query: Query
    spoil: Spoil = unspoilt
    skew_ms: int = 0  # what the exchange's clock is off for this request
    hidden_ms: int = -1  # what is younger than this is not seen yet; below zero, everything is

    @property
    def now_ms(self) -> int:
        return self.exchange.now_ms + self.skew_ms

    def visible(self, made_ms: int) -> bool:
        return self.hidden_ms < 0 or self.exchange.now_ms - made_ms > self.hidden_ms


Handler = Callable[[Call], Reply]
