"""Paper or real: each way in which money could be traded, or left alone, by mistake."""

from __future__ import annotations

import pytest

from atb.core.errors import UsageError
from atb.live.mode import Asked, Unmanaged, decide_mode

REAL = Asked(True, "", False, "binance", "real", True, False, False)
OPEN = [Unmanaged("binance:spot:real:1f2e", "0.5 BTCUSDT")]


def test_real_money_needs_all_of_it() -> None:
    assert decide_mode(REAL, OPEN).environment == "real"
    assert decide_mode(REAL._replace(environment="testnet", own_server=True), []).environment == "testnet"
    assert decide_mode(REAL._replace(own_server=True, embedded_allowed=True), []).title == "REAL MONEY"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (REAL._replace(has_key=False), "BINANCE_API_KEY and BINANCE_API_SECRET"),
        (REAL._replace(own_server=True), "DATABASE_URL"),
        (REAL._replace(enabled=False), "ENABLE_TRADING=true"),
        (REAL._replace(enabled=False, has_key=False), "ENABLE_TRADING=true and BINANCE_API_KEY"),
    ],
)
def test_what_is_missing_is_named(asked: Asked, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        decide_mode(asked, OPEN)
    assert says in f"{caught.value.what} {caught.value.hint}"


def test_paper_is_what_is_left() -> None:
    mode = decide_mode(REAL._replace(enabled=False), [])
    assert mode.is_paper and "ENABLE_TRADING" in mode.why
    assert decide_mode(REAL._replace(paper=True), OPEN).is_paper  # asked for: a rehearsal beside it
