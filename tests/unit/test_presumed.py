"""Executions of nobody's beside orders of ours that are not told in full yet."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from atb.core.orders import SeenFill
from atb.core.timeframe import in_ms
from atb.execution.presumed import DOUBT_MS, is_awaited
from tests.unit.test_plan import AT, BTC, Books

BEGAN_MS = in_ms(AT)


def by_hand(side: str) -> SeenFill:
    at = AT + timedelta(seconds=1)
    return SeenFill("7", "v-web", BTC, side, Decimal("0.4"), Decimal(100), Decimal(0), "USDT", None, at)


@pytest.mark.parametrize("side", ["buy", "sell"])
def test_a_sale_may_be_of_what_is_being_bought(side: str) -> None:
    books = Books()
    assert not is_awaited(books.state, 0, by_hand(side), BEGAN_MS)
    books.order("e", "entry", "buy", "1")
    assert is_awaited(books.state, 0, by_hand(side), BEGAN_MS + DOUBT_MS - 1) == (side == "sell")
    assert not is_awaited(books.state, 0, by_hand(side), BEGAN_MS + DOUBT_MS), "it is not waited for any longer"
    books.fill("1", "buy", "1", "100", "e")
    assert not is_awaited(books.state, 0, by_hand(side), BEGAN_MS)
