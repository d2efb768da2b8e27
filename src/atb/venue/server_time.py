"""What time an exchange says it is, by its public endpoint for that."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from atb.venue.ccxt_session import Session
from atb.venue.exchange_clock import Sample
from atb.venue.fields import row, whole


class TimeEndpoint(NamedTuple):
    """The ccxt method, and the field of its answer with the ms since 1970."""

    method: str
    field: str

    def read(self, answer: Any) -> int:
        return whole(row(answer, "time"), self.field)


TIME_ENDPOINTS = {
    "binance": TimeEndpoint("publicGetTime", "serverTime"),
    "coinbase": TimeEndpoint("v3PublicGetBrokerageTime", "epochMillis"),
}


def sample_of(session: Session) -> Sample:
    """One answer. Raises ExchangeUnavailable, ExchangeRefused."""
    endpoint = TIME_ENDPOINTS[session.venue]
    asked_s = time.monotonic()

    def read(answer: Any) -> Sample:
        return Sample(endpoint.read(answer), asked_s, time.monotonic())

    return session.ask("Reading the exchange's clock", endpoint.method, {}, read)
