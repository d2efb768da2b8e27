"""Exchanges to trade with. What must always hold is looked at when a test has ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.venue.clients import Desk, market
from tests.venue.exchange import Loopback


@pytest.fixture
def desk() -> Iterator[Desk]:
    """With 10,000 USDT."""
    exchange, main = market()
    with Loopback(exchange) as server:
        yield Desk(exchange, main, server)
    exchange.invariants()


@pytest.fixture
def holder() -> Iterator[Desk]:
    """Of one bitcoin."""
    exchange, main = market(BTC="1", USDT="0")
    with Loopback(exchange) as server:
        yield Desk(exchange, main, server)
    exchange.invariants()
